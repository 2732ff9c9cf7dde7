// What a lease, a caller or the clock makes of a job: which transition, what it costs of the attempts, and whether the job is held or queued
// afterwards. Pure, and the one definition for every store; what a store does beside is to write it down in one atomic step.
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { MediaResult, Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { inputJobFailure, NEVER_MS } from './chains.ts';
import { JobsError } from './errors.ts';
import { type Change, type Failure, isTerminal, type Job, JobStatus, POISON_KILLS, retryDelayMs, WaitReason } from './job.ts';
import type { Failed, JobId, Limits, Usage } from './ports.ts';

/** What a step depends on. */
export interface Subject {
  readonly job: Job;
  /** A lease holds it. */
  readonly held: boolean;
  readonly maxAttempts: number;
  /** Attempts that count against `maxAttempts`. */
  readonly spent: number;
  /** Attempts that killed their worker. */
  readonly kills: number;
  /** When the engine must run, in milliseconds since 1970. */
  readonly deadlineMs: number | undefined;
  /** Jobs that have joined its run. */
  readonly followers: number;
}

export interface Step {
  /** Undefined: of a job that has left its run to others, whose lease alone changes. */
  readonly change: Change | undefined;
  readonly spent?: number;
  readonly kills?: number;
  /** `end`: nobody holds the job afterwards. */
  readonly lease: 'keep' | 'end';
  /** What a purge leaves to the caller. */
  readonly keepsUploads?: boolean;
  /** Where a job goes that is queued and held by nobody: back to its place, its tenant not charged, or to wait until a time; `ready`: it waited for other jobs. */
  readonly queue?: 'back' | 'ready' | { readonly readyAtMs: number };
}

/** The lease has a result. A cancel that was asked for before wins. */
export function completed(
  subject: Subject,
  done: { readonly result: MediaResult; readonly warnings: readonly string[]; readonly timings: Timings },
): Step {
  if (subject.job.cancelRequestedAt) return ended(done.timings);
  // A job that ends well without having begun took its result from the cache.
  return { change: { type: 'succeed', ...done, cached: subject.job.status === JobStatus.QUEUED }, lease: 'end' };
}

/** The lease has failed: tried again after a back-off where that makes sense and attempts are left. `random` is in [0, 1). */
export function failed(
  subject: Subject,
  failure: Failure,
  facts: { readonly killedWorker: boolean; readonly timings: Timings | undefined },
  nowMs: number,
  random: number,
): Step {
  const { timings } = facts;
  if (subject.job.cancelRequestedAt) return ended(timings);
  const kills = subject.kills + Number(facts.killedWorker);
  const spent = subject.spent + 1;
  if (facts.killedWorker && kills >= POISON_KILLS) {
    return { change: { type: 'fail', failure: poisonous(kills, failure.message), timings }, spent, kills, lease: 'end' };
  }
  if (!failure.retryable || spent >= subject.maxAttempts) return { change: { type: 'fail', failure, timings }, spent, kills, lease: 'end' };
  const readyAtMs = nowMs + retryDelayMs(spent, random);
  return { change: { type: 'requeue', wait: WaitReason.RETRY, failure, timings }, spent, kills, lease: 'end', queue: { readyAtMs } };
}

export function refused(failure: Failure, timings: Timings | undefined): Step {
  return { change: { type: 'refuse', failure, timings }, lease: 'end' };
}

/** Nothing runs for the job any more: canceled. */
export function ended(timings: Timings | undefined): Step {
  return { change: { type: 'cancel', timings }, lease: 'end' };
}

/** The lease lets the job go, with no attempt spent. */
export function givenBack(subject: Subject, wait: WaitReason, timings: Timings | undefined): Step {
  if (subject.job.cancelRequestedAt) return ended(timings);
  const begun = subject.job.status === JobStatus.PROCESSING;
  return {
    change: begun ? { type: 'requeue', wait, failure: undefined, timings } : { type: 'release', wait },
    lease: 'end',
    queue: 'back',
  };
}

/** Whoever held the job is gone, and so is its lease. `failure` says why, to the job's reader. */
export function recovered(subject: Subject, failure: Failure): Step {
  if (isTerminal(subject.job.status)) return RUN_OVER;
  if (subject.job.cancelRequestedAt) return ended(undefined);
  if (subject.job.status === JobStatus.QUEUED) return { change: { type: 'release', wait: WaitReason.SLOT }, lease: 'end', queue: 'back' };
  const spent = subject.spent + 1;
  if (spent >= subject.maxAttempts) return { change: { type: 'fail', failure, timings: undefined }, spent, lease: 'end' };
  return { change: { type: 'requeue', wait: WaitReason.SLOT, failure, timings: undefined }, spent, lease: 'end', queue: 'back' };
}

/** A caller's cancel; undefined: it changes nothing. */
export function canceledByCaller(subject: Subject, graceMs: number): Step | undefined {
  if (isTerminal(subject.job.status)) return undefined;
  if (!subject.held) return ended(undefined);
  // It leaves at once, and its run goes on for the others.
  if (subject.followers > 0) return { change: { type: 'cancel', timings: undefined }, lease: 'keep' };
  return subject.job.cancelRequestedAt ? undefined : { change: { type: 'request_cancel', graceMs }, lease: 'keep' };
}

/** The start deadline has passed; undefined: it is somebody's affair, or over. */
export function startTimedOut(subject: Subject): Step | undefined {
  const { job, deadlineMs, held } = subject;
  if (held || deadlineMs === undefined || job.status !== JobStatus.QUEUED) return undefined;
  const seconds = (deadlineMs - timestampMs(job.createdAt!)) / 1000;
  const failure = { reason: 'START_TIMEOUT', message: `the engine had not started ${seconds} s after submission`, retryable: false };
  return { change: { type: 'fail', failure, timings: undefined }, lease: 'end' };
}

/** A caller's purge; undefined: it is purged already. Throws JOB_NOT_TERMINAL. */
export function purged({ job, held }: Subject): Step | undefined {
  if (!isTerminal(job.status)) {
    throw new JobsError('failed_precondition', 'JOB_NOT_TERMINAL', `${job.jobId} has not ended: cancel it first`, {
      metadata: { job_id: job.jobId },
    });
  }
  return job.purgedAt ? undefined : { change: { type: 'purge' }, lease: held ? 'keep' : 'end' };
}

/** The result's time is up; undefined: it is purged already. The caller has not asked for it, so the uploads that the job named stay as long as they would. */
export function expired(subject: Subject): Step | undefined {
  const step = purged(subject);
  return step && { ...step, keepsUploads: true };
}

/** A run that its first job has left is over. */
export const RUN_OVER: Step = { change: undefined, lease: 'end' };

/** The engine's word on the content, which goes for every like job; undefined: it says nothing of that. */
export function verdictOf({ kills }: Subject, { killedWorker, ofRun, reason, message, retryable }: Failed): Failure | undefined {
  if (killedWorker && kills + 1 >= POISON_KILLS) return poisonous(kills + 1, message);
  return ofRun && !retryable ? { reason, message, retryable } : undefined;
}

export function poisonous(kills: number, message: string): Failure {
  return {
    reason: 'JOB_KILLS_WORKERS',
    message: `${kills} workers died on this job, the last one so: ${message}`,
    retryable: false,
  };
}

/** A job joins a like run: it waits in the queue for what comes of that. */
export const JOINED: Step = { change: { type: 'wait', wait: WaitReason.ANOTHER_JOB }, lease: 'end', queue: { readyAtMs: NEVER_MS } };

/** What a run that it joined is for a job. */
export type Outcome =
  | { readonly type: 'succeed'; readonly result: MediaResult; readonly warnings: readonly string[] }
  | { readonly type: 'fail' | 'refuse'; readonly failure: Failure };

/** A run that it joined has ended; undefined: the job has ended before. */
export function endedWith(
  { job }: Subject,
  outcome: Outcome,
  { retentionMs, again }: { readonly retentionMs: number | undefined; readonly again: boolean },
): Step | undefined {
  if (isTerminal(job.status)) return undefined;
  if (outcome.type !== 'succeed') return { change: { ...outcome, timings: undefined }, lease: 'end' };
  if (again) return { change: { type: 'wait', wait: WaitReason.SLOT }, lease: 'end', queue: 'ready' };
  return { change: { ...outcome, cached: true, timings: undefined, retentionMs }, lease: 'end' };
}

/** A job that waited for others is ready. */
export function ready({ job }: Subject): Step | undefined {
  if (isTerminal(job.status)) return undefined;
  return { change: { type: 'wait', wait: WaitReason.SLOT }, lease: 'end', queue: 'ready' };
}

/** A job that waited for `of` will have nothing from it; `job` is that one, undefined where it is forgotten. */
export function inputFailed(subject: Subject, of: JobId, job: Job | undefined): Step | undefined {
  if (isTerminal(subject.job.status)) return undefined;
  return { change: { type: 'fail', failure: inputJobFailure(of, job), timings: undefined }, lease: 'end' };
}

/** Whether a transition writes a state event: a claim and its release do not (the job stays queued), nor a purge (nothing follows the terminal event). */
export function isSilent({ type }: Change): boolean {
  return type === 'claim' || type === 'release' || type === 'purge';
}

/** Refusals that every store gives in the same words. */
export function quotaExceeded(queued: number, limit: number, more = 1): JobsError {
  const what = more > 1 ? `, and with these ${more} they would be more than the ${limit} that may be` : `, and ${limit} may be`;
  return new JobsError('exhausted', 'QUOTA_EXCEEDED', `${queued} jobs are queued${what}: wait for some to start`, {
    retryAfterSeconds: 5,
    metadata: { limit: String(limit) },
  });
}

const DAY_MS = 86_400_000;

/** The day (UTC) that a tenant's engine time is counted in. */
export function dayOf(nowMs: number): number {
  return Math.floor(nowMs / DAY_MS);
}

/** Before a submit: throws QUOTA_EXCEEDED where the tenant has used up what it may. */
export function checkUsage(used: Pick<Usage, 'gpuSecondsToday' | 'storedBytes'>, limits: Limits, nowMs: number): void {
  const { gpuSecondsToday: seconds, storedBytes: bytes } = used;
  const exceeded = (message: string, options: ConstructorParameters<typeof JobsError>[3]) =>
    new JobsError('exhausted', 'QUOTA_EXCEEDED', message, options);
  if (limits.gpuSecondsPerDay !== undefined && seconds >= limits.gpuSecondsPerDay) {
    throw exceeded(`${Math.floor(seconds)} of ${limits.gpuSecondsPerDay} seconds of engine time are used up for today (UTC)`, {
      retryAfterSeconds: Math.ceil((DAY_MS - (nowMs % DAY_MS)) / 1000),
      metadata: { quota: 'gpu_seconds_per_day', limit: String(limits.gpuSecondsPerDay) },
    });
  }
  if (limits.storedBytes !== undefined && bytes >= limits.storedBytes) {
    throw exceeded(`results of ${bytes} bytes are stored, and ${limits.storedBytes} may be: purge jobs whose results are not needed`, {
      metadata: { quota: 'stored_bytes', limit: String(limits.storedBytes) },
    });
  }
}

/** What a step adds to what its tenant has used. */
export function usedBy(before: Job, after: Job): { readonly bytes: number; readonly gpuMs: number } {
  const bytesOf = ({ result }: Job) => (result ? Number(result.bytes) : 0);
  const gpuMs = Math.round(((after.timings?.gpuSeconds ?? 0) - (before.timings?.gpuSeconds ?? 0)) * 1000);
  return { bytes: bytesOf(after) - bytesOf(before), gpuMs: Math.max(0, gpuMs) };
}

export function keyReused(key: string, jobId: string): JobsError {
  const message = `the idempotency key '${key}' was used for another request (${jobId}): take a new key for a new request`;
  return new JobsError('already_exists', 'IDEMPOTENCY_KEY_REUSED', message, { metadata: { job_id: jobId } });
}

export function leaseLost(jobId: string): JobsError {
  return new JobsError('aborted', 'LEASE_LOST', `${jobId} is no longer held by this lease`, { metadata: { job_id: jobId } });
}

export function shuttingDown(): JobsError {
  return new JobsError('unavailable', 'SHUTTING_DOWN', 'the service is shutting down; try again shortly', { retryAfterSeconds: 2 });
}
