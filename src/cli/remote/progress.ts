// Live progress of jobs and transfers: bars on a terminal, plain lines elsewhere, never both. A view is the sum of a job's events so far.
import { timestampMs } from '@bufbuild/protobuf/wkt';
import cliProgress from 'cli-progress';
import type { JobEvent } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import {
  type Job,
  type JobError,
  type JobState,
  JobStatus,
  JobStatusSchema,
  JobStep,
  JobStepSchema,
  type MediaResult,
  WaitReason,
  WaitReasonSchema,
} from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { isTerminal } from '../../client/watch.ts';
import { enumName } from './json.ts';
import { say, type Terminal } from './terminal.ts';

export interface View {
  readonly status: JobStatus;
  readonly step: JobStep;
  readonly percent: number;
  readonly framesDone: number;
  readonly framesTotal: number;
  readonly framesPerSecond: number;
  readonly secondsLeft: number | undefined;
  readonly queuePosition: number | undefined;
  readonly waitReason: WaitReason;
  readonly attempt: number;
  readonly error: JobError | undefined;
  readonly result: MediaResult | undefined;
}

export const NOTHING_YET: View = {
  status: JobStatus.UNSPECIFIED,
  step: JobStep.UNSPECIFIED,
  percent: 0,
  framesDone: 0,
  framesTotal: 0,
  framesPerSecond: 0,
  secondsLeft: undefined,
  queuePosition: undefined,
  waitReason: WaitReason.UNSPECIFIED,
  attempt: 0,
  error: undefined,
  result: undefined,
};

/** The view after one more event. */
export function withEvent(view: View, event: JobEvent): View {
  switch (event.event.case) {
    case 'snapshot':
      return event.event.value.job === undefined ? view : withState(view, event.event.value.job, event);
    case 'state':
      return withState(view, event.event.value, event);
    case 'progress': {
      const progress = event.event.value;
      return {
        ...view,
        step: progress.step,
        percent: progress.percent,
        framesDone: progress.framesDone,
        framesTotal: progress.framesTotal,
        framesPerSecond: progress.framesPerSecond,
        secondsLeft: progress.etaSeconds,
        attempt: progress.attempt,
      };
    }
    default:
      return view;
  }
}

function withState(view: View, state: Job | JobState, event: JobEvent): View {
  const finish = state.estimatedFinishTime;
  return {
    // The speed is the run's: a new attempt or an end has none.
    ...(state.attempt === view.attempt && !isTerminal(state.status) ? view : NOTHING_YET),
    status: state.status,
    step: state.step,
    percent: state.progress,
    secondsLeft:
      finish === undefined || event.time === undefined ? undefined : Math.max(0, (timestampMs(finish) - timestampMs(event.time)) / 1000),
    queuePosition: state.queuePosition,
    waitReason: state.waitReason,
    attempt: state.attempt,
    error: state.error,
    result: state.result,
  };
}

/** `processing, 45/120 frames, 21.3 fps, 0:12 left` */
function words(view: View): string {
  if (isTerminal(view.status)) return enumName(JobStatusSchema, view.status);
  const parts = [enumName(JobStepSchema, view.step).replaceAll('_', ' ')];
  if (view.status === JobStatus.QUEUED) {
    if (view.queuePosition !== undefined) parts.push(view.queuePosition === 0 ? 'next in line' : `${view.queuePosition} before it`);
    if (view.waitReason !== WaitReason.UNSPECIFIED) {
      parts.push(`waits for ${enumName(WaitReasonSchema, view.waitReason).replaceAll('_', ' ')}`);
    }
  }
  if (view.attempt > 1) parts.push(`attempt ${view.attempt}`);
  if (view.framesTotal > 1) parts.push(`${view.framesDone}/${view.framesTotal} frames`);
  if (view.framesPerSecond > 0) parts.push(`${view.framesPerSecond.toFixed(1)} fps`);
  if (view.secondsLeft !== undefined) parts.push(`${clock(view.secondsLeft)} left`);
  return parts.join(', ');
}

/** `0:07`, `12:30`, `1:02:03` */
function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (part: number) => String(part).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** `512 B`, `1.4 MB` */
export function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let value = bytes;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** One line of progress, of a job or a transfer. */
export interface Line {
  /** Percent 0..100 and what is said beside it. `phase` is what a plain line is worth printing for. */
  update(percent: number, text: string, phase: string): void;
}

/** Noted while a client goes on by itself. */
export const CONNECTION_LOST = 'The connection was lost; trying again ...';

export interface Progress extends Disposable {
  line(title: string): Line;
  /** A sentence that stays on screen, above the bars. */
  note(text: string): void;
}

/** Bars where `terminal.err` is a terminal; else a plain line for each new phase and each tenth of the way. */
export function showProgress(terminal: Pick<Terminal, 'err'>): Progress {
  return terminal.err.isTTY ? bars(terminal) : plainLines(terminal);
}

/** For commands whose output is JSON: says nothing. */
export const SILENT: Progress = { line: () => ({ update: () => {} }), note: () => {}, [Symbol.dispose]: () => {} };

function bars(terminal: Pick<Terminal, 'err'>): Progress {
  const multi = new cliProgress.MultiBar(
    {
      stream: terminal.err,
      format: '{title} {bar} {percent}%  {text}',
      barsize: 24,
      hideCursor: true,
      autopadding: true,
      emptyOnZero: true,
      gracefulExit: false,
    },
    cliProgress.Presets.shades_classic,
  );
  let stopped = false;
  return {
    line(title) {
      const bar = multi.create(100, 0, { title, percent: '  0', text: '' });
      return {
        update: (percent, text) => bar.update(percent, { title, percent: String(Math.floor(percent)).padStart(3), text }),
      };
    },
    note: (text) => multi.log(`${text}\n`),
    [Symbol.dispose]: () => {
      // Each stop draws all bars once more.
      if (!stopped) multi.stop();
      stopped = true;
    },
  };
}

function plainLines(terminal: Pick<Terminal, 'err'>): Progress {
  return {
    line(title) {
      let said = '';
      return {
        update(percent, text, phase) {
          const worth = `${phase} ${Math.floor(percent / 10)}`;
          if (worth === said) return;
          said = worth;
          say(terminal, `${title} ${String(Math.floor(percent)).padStart(3)}%  ${text}`);
        },
      };
    },
    note: (text) => say(terminal, text),
    [Symbol.dispose]: () => {},
  };
}

/** Shows a view on its line. */
export function showView(line: Line, view: View): void {
  line.update(view.percent, words(view), `${view.status} ${view.step} ${view.attempt}`);
}
