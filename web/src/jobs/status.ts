// How a job's state is shown: its status in seven words, its steps in pieces of one bar.
import { type Job, JobStatus, JobStep, WaitReason } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { capabilities } from '../service/overview.ts';
import { uploadName } from '../service/upload-names.ts';
import { words } from '../words/words.ts';

export type Shown = 'queued' | 'running' | 'stopping' | 'succeeded' | 'failed' | 'canceled' | 'refused';

const OVER: Readonly<Partial<Record<JobStatus, Shown>>> = {
  [JobStatus.SUCCEEDED]: 'succeeded',
  [JobStatus.FAILED]: 'failed',
  [JobStatus.CANCELED]: 'canceled',
  [JobStatus.REFUSED]: 'refused',
};

export function isOver(status: JobStatus): boolean {
  return OVER[status] !== undefined;
}

/** What is true of it now: `canceled` only once its process has ended. */
export function shownStatus(job: Job): Shown {
  const over = OVER[job.status];
  if (over) return over;
  if (job.cancelRequestedAt) return 'stopping';
  return job.status === JobStatus.PROCESSING ? 'running' : 'queued';
}

export type StepName = 'prepare' | 'check' | 'extract' | 'process' | 'merge' | 'sound' | 'store';

/** Steps as people are told of them, with the share of the time that each is expected to take. */
const VIDEO: readonly (readonly [StepName, number])[] = [
  ['prepare', 5],
  ['check', 5],
  ['extract', 9],
  ['process', 58],
  ['merge', 13],
  ['sound', 5],
  ['store', 5],
];
const PICTURE: readonly (readonly [StepName, number])[] = [
  ['prepare', 10],
  ['check', 14],
  ['process', 64],
  ['store', 12],
];

const NAMES: Readonly<Partial<Record<JobStep, StepName>>> = {
  [JobStep.QUEUED]: 'prepare',
  [JobStep.FETCHING_INPUTS]: 'prepare',
  [JobStep.LOADING_MODELS]: 'prepare',
  [JobStep.ANALYSING]: 'check',
  [JobStep.EXTRACTING_FRAMES]: 'extract',
  [JobStep.PROCESSING]: 'process',
  [JobStep.ENCODING_OUTPUT]: 'merge',
  [JobStep.RESTORING_AUDIO]: 'sound',
  [JobStep.STORING_RESULT]: 'store',
};

export function isVideo(job: Job): boolean {
  return job.request?.target.case === 'targetVideo';
}

export function stepName(job: Job, step: JobStep): StepName | undefined {
  const name = NAMES[step];
  return !isVideo(job) && (name === 'merge' || name === 'sound') ? 'store' : !isVideo(job) && name === 'extract' ? 'check' : name;
}

/** The same for a key of `timings.step_seconds`, such as STEP_PROCESSING. */
export function timedStepName(job: Job, key: string): StepName | undefined {
  const step = JobStep[key.replace(/^STEP_/, '') as keyof typeof JobStep];
  return step === undefined ? undefined : stepName(job, step);
}

/** Steps that engines have shown to have, by engine and kind of target; a step that one never takes is not promised. */
const taken = new Map<string, Set<StepName>>();

function plan(job: Job): readonly (readonly [StepName, number])[] {
  const kind = `${job.engine?.name ?? ''} ${isVideo(job)}`;
  const all = isVideo(job) ? VIDEO : PICTURE;
  const timed = Object.keys(job.timings?.stepSeconds ?? {});
  if (job.status === JobStatus.SUCCEEDED && timed.length > 0) {
    const known = taken.get(kind) ?? new Set();
    for (const key of timed) {
      const name = timedStepName(job, key);
      if (name) known.add(name);
    }
    taken.set(kind, known);
  }
  const known = taken.get(kind);
  const now = stepName(job, job.step);
  return known ? all.filter(([name]) => name === 'prepare' || name === 'store' || name === now || known.has(name)) : all;
}

export interface Piece {
  readonly name: StepName;
  readonly weight: number;
  readonly state: 'todo' | 'done' | 'at';
  /** Percent of this piece. */
  readonly fill: number;
}

/** The bar of a job; `framesDone` of `framesTotal` say more of the current step than the job's percent. */
export function pieces(job: Job, frames?: { readonly done: number; readonly total: number }): Piece[] {
  const steps = plan(job);
  if (job.status === JobStatus.SUCCEEDED) return steps.map(([name, weight]) => ({ name, weight, state: 'done', fill: 100 }));
  const at = Math.max(
    0,
    steps.findIndex(([name]) => name === stepName(job, job.step)),
  );
  const total = steps.reduce((sum, [, weight]) => sum + weight, 0);
  const before = steps.slice(0, at).reduce((sum, [, weight]) => sum + weight, 0);
  return steps.map(([name, weight], i) => {
    if (i < at) return { name, weight, state: 'done', fill: 100 };
    if (i > at) return { name, weight, state: 'todo', fill: 0 };
    const byFrames = frames && frames.total > 0 ? frames.done / frames.total : undefined;
    const fill = 100 * (byFrames ?? ((job.progress / 100) * total - before) / weight);
    return { name, weight, state: 'at', fill: job.step === JobStep.QUEUED ? 0 : Math.min(100, Math.max(4, fill)) };
  });
}

export function stepWords(job: Job, name: StepName): string {
  const { step } = words.value;
  // Other engines look at the material, and judge nothing of its content.
  if (name === 'check') return (job.engine ?? capabilities.value?.engine)?.name === 'facefusion' ? step.check : step.analyse;
  return name === 'process' ? (isVideo(job) ? step.processVideo : step.processImage) : step[name];
}

/** What a queued job waits for. */
export function waitWords(job: Job): string {
  const { wait } = words.value;
  switch (job.waitReason) {
    case WaitReason.SLOT:
      return job.step === JobStep.FETCHING_INPUTS ? wait.fetching : wait.slot;
    case WaitReason.QUOTA:
      return wait.quota;
    case WaitReason.MODEL_LOADING:
      return wait.models;
    case WaitReason.ANOTHER_JOB:
      return wait.job;
    case WaitReason.RETRY:
      return wait.retry;
    default:
      return job.step === JobStep.FETCHING_INPUTS ? wait.fetching : wait.none;
  }
}

/** The label that the console gives a job whose target was uploaded: an upload's id says nothing to people. */
export const NAME_LABEL = 'name';

/** What people call a job. */
export function nameOf(job: Job): string {
  const given = job.request?.labels[NAME_LABEL];
  if (given) return given;
  if (job.status === JobStatus.REFUSED) return words.value.refusedContent;
  const target = job.request?.target.value;
  return target === undefined ? job.jobId : (uploadName(target) ?? baseName(target));
}

/** `s3://bucket/a/clip.mp4?x` is clip.mp4. */
export function baseName(reference: string): string {
  const path = reference.replace(/[?#].*$/, '').replace(/\/+$/, '');
  const name = path.slice(path.lastIndexOf('/') + 1) || reference;
  if (!/^https?:/i.test(reference)) return name;
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** The last part of the id: the rest is the day. */
export function shortId(job: Job): string {
  return job.jobId.replace(/^job_\d+_/, '');
}

/** Why it failed, in a few words. */
export function failureWords(job: Job): string {
  const { reason = '', message = '' } = job.error ?? {};
  return words.value.reasons[reason]?.what ?? (message || job.errorMessage || reason);
}
