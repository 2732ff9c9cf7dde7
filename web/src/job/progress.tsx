// The same bar as in the list, named and timed, and the figures of the run.
import { type Job, JobStep } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { clock, countdown, duration, msOf, number, percent, roughly } from '../format.ts';
import { isOver, type Piece, pieces, type Shown, stepName, stepWords, timedStepName, waitWords } from '../jobs/status.ts';
import { now } from '../parts/small.tsx';
import type { JobWatch } from '../service/job-watch.ts';
import { lastHour, slotWords, startsIn } from '../service/overview.ts';
import { words } from '../words/words.ts';

interface ProgressProps {
  readonly watch: JobWatch;
  readonly job: Job;
  readonly status: Shown;
}

export function Progress({ watch, job, status }: ProgressProps) {
  const over = isOver(job.status);
  const live = status === 'running' || status === 'queued';
  const w = words.value;
  // The exact percent where an event of this attempt told one.
  const last = watch.progress.value;
  const exact = last && last.attempt === job.attempt && Math.floor(last.percent) === job.progress ? last.percent : job.progress;
  const verdict = status !== 'succeeded' && !live;
  return (
    <div class={`hero${live ? '' : ' block'}${verdict ? ' below' : ''}`}>
      {live && (
        <p
          class="pct"
          role="progressbar"
          aria-label={w.job.progress}
          aria-valuenow={Math.round(exact * 10) / 10}
          aria-valuemin={0}
          aria-valuemax={100}
        >
          {number(exact, Number.isInteger(exact) ? 0 : 1)}
          <small>%</small>
        </p>
      )}
      {!verdict && <Figures watch={watch} job={job} status={status} />}
      {!ofLikeJob(job) && <Steps watch={watch} job={job} status={status} over={over} />}
    </div>
  );
}

/** Nothing ran for it: the result was there already, or another job's run made it. */
const ofLikeJob = (job: Job) => job.cached && job.attempt === 0;

function Figures({ watch, job, status }: ProgressProps) {
  const w = words.value;
  const figures: [label: string, value: string, small?: string][] = [];
  const last = watch.progress.value;
  const begun = msOf(job.startedAt);
  if (status === 'queued') {
    if (job.queuePosition !== undefined) figures.push([w.job.position, number(job.queuePosition + 1), queued()]);
    const start = startsIn(job);
    if (start !== undefined)
      figures.push(
        start < 1 ? [w.job.startsIn, w.soon] : [w.job.startsIn, w.about(roughly(start)), w.job.atAbout(clock(now.value + start * 1000))],
      );
    figures.push([w.job.elapsed, duration((now.value - (msOf(job.createdAt) ?? now.value)) / 1000), waitWords(job)]);
  } else if (status === 'running') {
    const eta = msOf(job.estimatedFinishTime);
    if (eta !== undefined && eta >= now.value)
      figures.push([w.job.timeLeft, countdown((eta - now.value) / 1000), w.job.doneAt(clock(eta))]);
    if (last && last.framesPerSecond > 0) figures.push([w.job.speed, number(last.framesPerSecond, 1), w.job.fps]);
    if (last && last.framesTotal > 1) figures.push([w.job.framesLabel, number(last.framesDone), w.job.of(number(last.framesTotal))]);
    if (begun !== undefined) figures.push([w.job.elapsed, duration((now.value - begun) / 1000)]);
  } else {
    if (ofLikeJob(job)) figures.push([w.job.resultPanel, w.job.ofLikeJob, w.job.didNotRunAgain]);
    const ended = msOf(job.finishedAt);
    const waited = job.timings?.queuedSeconds ?? 0;
    if (begun !== undefined && ended !== undefined)
      figures.push([w.job.tookLabel, duration((ended - begun) / 1000), waited >= 1 ? w.job.waited(duration(waited)) : undefined]);
    const frames = job.result?.frames ?? 0;
    const seconds = job.timings?.runSeconds ?? 0;
    if (frames > 1 && seconds > 0) figures.push([w.job.speed, number(frames / seconds, 1), w.job.fps]);
    if (frames > 1) figures.push([w.job.framesLabel, number(frames)]);
  }
  if (job.slot !== undefined) figures.push([w.job.slot, slotWords(job.slot)]);
  if (status !== 'queued' && job.attempt > (status === 'running' ? 1 : 0)) {
    figures.push([w.job.attempt, number(job.attempt), job.request?.maxAttempts ? w.job.of(number(job.request.maxAttempts)) : undefined]);
  }
  return (
    <dl class={`stats${status === 'succeeded' ? ' start' : ''}`}>
      {figures.map(([label, value, small]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd>
            {value} {small !== undefined && <small>{small}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

function queued(): string | undefined {
  const count = lastHour.value?.totals?.queued;
  return count === undefined ? undefined : words.value.job.positionOf(number(count));
}

function Steps({ watch, job, status, over }: ProgressProps & { readonly over: boolean }) {
  const w = words.value;
  const last = watch.progress.value;
  const frames =
    last && last.attempt === job.attempt && last.step === job.step ? { done: last.framesDone, total: last.framesTotal } : undefined;
  const times = stepTimes(watch, job);
  // A step that was passed over is none of this engine's.
  const seen = new Set(watch.steps.value.map(({ step }) => stepName(job, step)));
  const shown = pieces(job, frames).filter(({ name, state }) => state !== 'done' || over || name === 'prepare' || seen.has(name));
  // Nothing ran of a job that left the queue.
  const begun = job.attempt > 0 || job.step !== JobStep.QUEUED;
  return (
    <ol class={`steps${over || status === 'stopping' ? ' over' : ''}`} aria-label={w.job.steps}>
      {shown.map((piece) => (
        <li
          key={piece.name}
          class={stepClass(piece, status, begun)}
          style={{ '--w': piece.weight, '--f': piece.state === 'at' && (status === 'failed' || status === 'refused') ? 100 : piece.fill }}
          aria-current={piece.state === 'at' && begun ? 'step' : undefined}
        >
          <div class="tube" />
          <b>{stepWords(job, piece.name)}</b>
          <span>{stepNote(piece, status, job, times.get(piece.name), begun)}</span>
        </li>
      ))}
    </ol>
  );
}

function stepClass(piece: Piece, status: Shown, begun: boolean): string {
  if (piece.state !== 'at') return piece.state === 'done' ? 'done' : '';
  if (!begun) return '';
  return { failed: 'bad', refused: 'at warned', stopping: 'at warned', canceled: 'at halted' }[status as string] ?? 'at';
}

function stepNote(piece: Piece, status: Shown, job: Job, seconds: number | undefined, begun: boolean): string {
  const w = words.value;
  const time = seconds === undefined ? '' : duration(seconds);
  if (piece.state === 'done') return time;
  if (piece.state === 'todo' || !begun) return status === 'stopping' ? w.job.willNotRun : isOver(job.status) ? w.job.didNotRun : '';
  switch (status) {
    case 'failed':
      return [w.job.failedStep, time].filter(Boolean).join(w.comma);
    case 'refused':
      return [time, w.job.refusedStep].filter(Boolean).join(w.comma);
    case 'stopping':
      return w.job.stoppingStep;
    case 'canceled':
      return time === '' ? '' : w.job.stoppedAfter(time);
    case 'queued':
      return '';
    default:
      return time === '' ? percent(piece.fill) : time;
  }
}

/** Seconds of each step: as the engine told them, else from one step's first event to the next one's. */
function stepTimes(watch: JobWatch, job: Job): Map<string, number> {
  const times = new Map<string, number>();
  const { timings } = job;
  const add = (name: string | undefined, seconds: number) => {
    if (name !== undefined) times.set(name, (times.get(name) ?? 0) + seconds);
  };
  if (timings && Object.keys(timings.stepSeconds).length > 0) {
    add('prepare', timings.prepareSeconds);
    for (const [key, seconds] of Object.entries(timings.stepSeconds)) add(timedStepName(job, key), seconds);
    add('store', timings.storeSeconds);
    return times;
  }
  const seen = watch.steps.value.filter(({ step }) => step !== JobStep.QUEUED && step !== JobStep.DONE);
  const end = msOf(job.finishedAt) ?? now.value;
  for (const [i, { step, from }] of seen.entries()) add(stepName(job, step), Math.max(0, (seen[i + 1]?.from ?? end) - from) / 1000);
  return times;
}
