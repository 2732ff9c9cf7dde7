// What a job may become. `transition` is the only place where a job's status changes; both stores apply it inside their atomic step.
// It is pure: same job, change and time in, same job out; a change that the table does not allow throws `IllegalTransition`.
import { type Timestamp, timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type EngineInfo,
  type Job,
  type JobRequest,
  type JobState,
  JobStatus,
  JobStep,
  type MediaResult,
  type Timings,
  WaitReason,
} from '../../gen/facefusion/jobs/v1/job_pb.js';

export { type Job, type JobRequest, type JobState, JobStatus, JobStep, type MediaResult, WaitReason };

/** Every status that a job may have, in the contract's order, which is that of the Redis scripts too. */
export const STATUSES = [
  JobStatus.QUEUED,
  JobStatus.PROCESSING,
  JobStatus.SUCCEEDED,
  JobStatus.FAILED,
  JobStatus.CANCELED,
  JobStatus.REFUSED,
] as const;

export interface Failure {
  /** Upper snake case and stable, for programs: the service's own, or what the engine says. */
  readonly reason: string;
  readonly message: string;
  readonly retryable: boolean;
}

/** A step in a job's life. Times are the store's; timings are those of the attempt alone. */
export type Change =
  /** A node has taken the job and prepares its inputs. No attempt is spent. */
  | { readonly type: 'claim' }
  /** Given back unbegun: it waits as before, at its rank. */
  | { readonly type: 'release'; readonly wait: WaitReason }
  /** What a queued job waits for is another thing now. */
  | { readonly type: 'wait'; readonly wait: WaitReason }
  /** The engine starts: one attempt more. */
  | { readonly type: 'begin'; readonly slot: string; readonly engine: EngineInfo | undefined }
  | { readonly type: 'progress'; readonly step: JobStep; readonly percent: number; readonly estimatedFinish: Timestamp | undefined }
  | { readonly type: 'warn'; readonly warnings: readonly string[] }
  | {
      readonly type: 'succeed';
      readonly result: MediaResult;
      readonly warnings: readonly string[];
      readonly timings: Timings | undefined;
      readonly cached: boolean;
      /** How long the result is kept; undefined: as long as its job. */
      readonly retentionMs?: number | undefined;
    }
  | { readonly type: 'fail'; readonly failure: Failure; readonly timings: Timings | undefined }
  /** The content analyser's word. */
  | { readonly type: 'refuse'; readonly failure: Failure; readonly timings: Timings | undefined }
  /** A begun or prepared attempt ended without a verdict and the job waits for another one. */
  | { readonly type: 'requeue'; readonly wait: WaitReason; readonly failure: Failure | undefined; readonly timings: Timings | undefined }
  /** The caller wants it stopped; something still holds it. */
  | { readonly type: 'request_cancel'; readonly graceMs: number }
  /** Nothing runs for it any more. */
  | { readonly type: 'cancel'; readonly timings: Timings | undefined }
  | { readonly type: 'purge' };

export type ChangeType = Change['type'];

const { QUEUED, PROCESSING, SUCCEEDED, FAILED, CANCELED, REFUSED } = JobStatus;

/** For each status and change the status that follows. What is absent is not allowed. */
export const TRANSITIONS: Readonly<Record<JobStatus, Readonly<Partial<Record<ChangeType, JobStatus>>>>> = {
  [JobStatus.UNSPECIFIED]: {},
  [QUEUED]: {
    claim: QUEUED,
    release: QUEUED,
    wait: QUEUED,
    begin: PROCESSING,
    progress: QUEUED,
    warn: QUEUED,
    succeed: SUCCEEDED,
    fail: FAILED,
    refuse: REFUSED,
    requeue: QUEUED,
    request_cancel: QUEUED,
    cancel: CANCELED,
  },
  [PROCESSING]: {
    progress: PROCESSING,
    warn: PROCESSING,
    succeed: SUCCEEDED,
    fail: FAILED,
    refuse: REFUSED,
    requeue: QUEUED,
    request_cancel: PROCESSING,
    cancel: CANCELED,
  },
  [SUCCEEDED]: { purge: SUCCEEDED },
  [FAILED]: { purge: FAILED },
  [CANCELED]: { purge: CANCELED },
  [REFUSED]: { purge: REFUSED },
};

export class IllegalTransition extends Error {
  override readonly name = 'IllegalTransition';
  constructor(job: Job, change: ChangeType) {
    super(`job ${job.jobId} is ${JobStatus[job.status]?.toLowerCase()} and cannot ${change}`);
  }
}

/** Ended for good: no change but purge follows. */
export function isTerminal(status: JobStatus): boolean {
  return status === SUCCEEDED || status === FAILED || status === CANCELED || status === REFUSED;
}

/** A job as it is accepted. `nowMs` is the store's time of submission. */
export function newJob(
  jobId: string,
  request: JobRequest,
  nowMs: number,
  facts: {
    tenant: string;
    batchId?: string | undefined;
    warnings?: readonly string[];
    submittedBy?: string;
    wait?: WaitReason;
    traceparent?: string | undefined;
  },
): Job {
  const now = timeOf(nowMs);
  // A literal with every field, and not the library's walk over them: all jobs of a process have one shape.
  return {
    $typeName: 'facefusion.jobs.v1.Job',
    jobId,
    status: QUEUED,
    progress: 0,
    step: JobStep.QUEUED,
    estimatedFinishTime: undefined,
    createdAt: now,
    updatedAt: now,
    resultUrl: undefined,
    errorMessage: undefined,
    error: undefined,
    waitReason: facts.wait ?? WaitReason.SLOT,
    queuePosition: undefined,
    attempt: 0,
    slot: undefined,
    batchId: facts.batchId,
    result: undefined,
    warnings: [...(facts.warnings ?? [])],
    engine: undefined,
    cached: false,
    timings: undefined,
    sequence: 0,
    startedAt: undefined,
    finishedAt: undefined,
    cancelRequestedAt: undefined,
    forceStopAt: undefined,
    purgedAt: undefined,
    submittedBy: facts.submittedBy,
    request,
    tenant: facts.tenant,
    resultExpireTime: undefined,
    provenance: undefined,
    traceparent: facts.traceparent,
  };
}

let lastMs = 0;
let lastTime = timestampFromMs(0);

/** A time as messages have it. What happens in one moment, as the writes of one commit do, shares it: nobody changes a message's time. */
export function timeOf(ms: number): Timestamp {
  if (ms !== lastMs) {
    lastTime = timestampFromMs(ms);
    lastMs = ms;
  }
  return lastTime;
}

/** The job after `change` at `nowMs` (milliseconds since 1970, the store's clock). The job given is not touched. */
export function transition(job: Job, change: Change, nowMs: number): Job {
  const status = TRANSITIONS[job.status]?.[change.type];
  if (status === undefined) throw new IllegalTransition(job, change.type);
  const now = timeOf(nowMs);
  const next: Job = { ...job, status, updatedAt: now };
  switch (change.type) {
    case 'claim':
      next.step = JobStep.FETCHING_INPUTS;
      return next;
    case 'release':
    case 'wait':
      next.step = JobStep.QUEUED;
      next.waitReason = change.wait;
      return next;
    case 'begin':
      next.attempt = job.attempt + 1;
      next.step = JobStep.LOADING_MODELS;
      next.progress = 0;
      next.slot = change.slot;
      next.engine = change.engine;
      next.startedAt = job.startedAt ?? now;
      next.waitReason = WaitReason.UNSPECIFIED;
      return next;
    case 'progress':
      next.step = change.step;
      next.progress = Math.max(job.progress, Math.min(100, Math.floor(change.percent)));
      next.estimatedFinishTime = change.estimatedFinish;
      return next;
    case 'warn':
      next.warnings = [...new Set([...job.warnings, ...change.warnings])];
      return next;
    case 'requeue':
      next.step = JobStep.QUEUED;
      next.waitReason = change.wait;
      next.progress = 0;
      next.slot = undefined;
      next.estimatedFinishTime = undefined;
      next.timings = timingsAfter(job, change.timings);
      // The reason stays readable while the job waits for its next attempt.
      setError(next, change.failure);
      return next;
    case 'request_cancel':
      next.cancelRequestedAt = job.cancelRequestedAt ?? now;
      next.forceStopAt = job.forceStopAt ?? timestampFromMs(nowMs + change.graceMs);
      return next;
    case 'succeed':
      end(next, now, change.timings);
      next.progress = 100;
      next.result = { ...change.result, provenance: undefined };
      next.provenance = change.result.provenance;
      next.resultExpireTime = change.retentionMs === undefined ? undefined : timestampFromMs(nowMs + change.retentionMs);
      next.cached = change.cached;
      next.warnings = [...new Set([...job.warnings, ...change.warnings])];
      setError(next, undefined);
      return next;
    case 'fail':
    case 'refuse':
      end(next, now, change.timings);
      setError(next, change.failure);
      return next;
    case 'cancel':
      end(next, now, change.timings);
      next.cancelRequestedAt = job.cancelRequestedAt ?? now;
      setError(next, undefined);
      return next;
    case 'purge':
      next.purgedAt = now;
      next.result = undefined;
      next.provenance = undefined;
      return next;
  }
}

function end(job: Job, now: Timestamp, timings: Timings | undefined): void {
  job.step = JobStep.DONE;
  job.finishedAt = now;
  job.estimatedFinishTime = undefined;
  job.waitReason = WaitReason.UNSPECIFIED;
  job.slot = undefined;
  job.timings = timingsAfter(job, timings);
}

/** Phases are the last attempt's; the time that a slot was held is the sum over all. `attempt`: undefined where nothing is known of it. */
function timingsAfter({ timings: before }: Job, attempt: Timings | undefined): Timings | undefined {
  if (!before || !attempt) return attempt ?? before;
  return { ...attempt, gpuSeconds: before.gpuSeconds + attempt.gpuSeconds };
}

function setError(job: Job, failure: Failure | undefined): void {
  job.errorMessage = failure?.message;
  job.error = failure && {
    $typeName: 'facefusion.jobs.v1.JobError',
    reason: failure.reason,
    message: failure.message,
    retryable: failure.retryable,
  };
}

/** The changing part of a job, as state events and GetStatus show it. */
export function stateOf(job: Job): JobState {
  return {
    $typeName: 'facefusion.jobs.v1.JobState',
    jobId: job.jobId,
    status: job.status,
    progress: job.progress,
    step: job.step,
    estimatedFinishTime: job.estimatedFinishTime,
    queuePosition: job.queuePosition,
    waitReason: job.waitReason,
    attempt: job.attempt,
    slot: job.slot,
    updatedAt: job.updatedAt,
    startedAt: job.startedAt,
    finishedAt: job.finishedAt,
    cancelRequestedAt: job.cancelRequestedAt,
    forceStopAt: job.forceStopAt,
    errorMessage: job.errorMessage,
    error: job.error,
    result: job.result,
    warnings: job.warnings,
    cached: job.cached,
    sequence: job.sequence,
  };
}

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';

/** `job_20250405_` and 12 random base32 characters (60 bits). `random` gives at least 12 bytes. */
export function newJobId(nowMs: number, random: Uint8Array): string {
  const day = Math.floor(nowMs / DAY_MS);
  if (day !== lastDay.day) lastDay = { day, text: new Date(nowMs).toISOString().slice(0, 10).replaceAll('-', '') };
  let tail = '';
  for (let i = 0; i < 12; i++) tail += BASE32[random[i]! & 31];
  return `job_${lastDay.text}_${tail}`;
}

const DAY_MS = 86_400_000;
/** On which an id was made last: its text is most of what an id costs. */
let lastDay = { day: Number.NaN, text: '' };

/** A priority step is a head start of one minute within the tenant's own queue: the smaller rank is served first, and nothing starves. */
export function rankOf(submittedMs: number, priority: number): number {
  return submittedMs - priority * 60_000;
}

/** With so many attempts that killed their worker, over all, the job fails as poisonous, whatever attempts are left. */
export const POISON_KILLS = 3;

/** Milliseconds before attempt `spent + 1`: exponential from 1 s to 60 s, with full jitter above the half. `random` is in [0, 1). */
export function retryDelayMs(spent: number, random: number): number {
  const cap = Math.min(60_000, 1000 * 2 ** Math.max(0, spent - 1));
  return Math.round(cap / 2 + (random * cap) / 2);
}
