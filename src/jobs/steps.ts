// What a lease, a caller or the clock makes of a job: which transition, what it costs of the attempts, whether the job is held or queued afterwards, and
// what is told of it. Pure, and the one definition for every store; what a store does beside is to write it down in one atomic step.
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { JobEvent, Log, Progress } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { EngineInfo, MediaResult, Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { isBatchId } from './batches.ts';
import { inputJobFailure, NEVER_MS } from './chains.ts';
import { JobsError } from './errors.ts';
import {
  type Change,
  type Failure,
  isTerminal,
  type Job,
  JobStatus,
  POISON_KILLS,
  retryDelayMs,
  stateOf,
  timeOf,
  transition,
  WaitReason,
} from './job.ts';
import type { Done, Failed, JobId, Match, Sequence } from './ports.ts';

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
  /** The blob that it refers to: its result's, or the one that its run is about to store. */
  readonly blob: string | undefined;
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
  /**
   * Where a job goes that is queued and held by nobody. `back`: to its place, its tenant not charged for the claim; `ready`: it waited for other jobs; else it
   * waits until a time. `free`: its tenant is not charged either.
   */
  readonly queue?: 'back' | 'ready' | { readonly readyAtMs: number; readonly free?: boolean };
}

/** What a step makes of its subject. The state event that follows is undefined where the transition is silent. */
export function after(subject: Subject, step: Step, nowMs: number): Subject & { readonly event: JobEvent['event'] | undefined } {
  const { change, lease, spent, kills } = step;
  const job = change ? transition(subject.job, change, nowMs) : subject.job;
  const silent = !change || isSilent(change);
  if (!silent) job.sequence++;
  const held = subject.held && lease === 'keep';
  return {
    job,
    held,
    maxAttempts: subject.maxAttempts,
    spent: spent ?? subject.spent,
    kills: kills ?? subject.kills,
    // The engine runs: it has made it.
    deadlineMs: change?.type === 'begin' ? undefined : subject.deadlineMs,
    // What a run has pinned is let go with its lease, unless it has become the result.
    blob: held ? subject.blob : job.result?.sha256,
    event: silent ? undefined : { case: 'state', value: stateOf(job) },
  };
}

/** A claim and its release write no state event (the job stays queued), nor does a purge (nothing follows the terminal event). */
function isSilent({ type }: Change): boolean {
  return type === 'claim' || type === 'release' || type === 'purge';
}

/** An event of a job, which has its sequence. */
export function eventOf({ sequence }: Job, body: JobEvent['event'], nowMs: number): JobEvent {
  return { $typeName: 'facefusion.jobs.v1.JobEvent', sequence, time: timeOf(nowMs), event: body };
}

/** A run that its first job has left is over. */
const RUN_OVER: Step = { change: undefined, lease: 'end' };

/** The engine is about to run. Undefined: it does so for other jobs. */
export function begun({ job }: Subject, run: { readonly slot: string; readonly engine: EngineInfo | undefined }): Step | undefined {
  return isTerminal(job.status) ? undefined : { change: { type: 'begin', ...run }, lease: 'keep' };
}

/** The lease has a result. A cancel that was asked for before wins. */
export function completed({ job }: Subject, { result, warnings, timings, retentionMs }: Done): Step {
  if (isTerminal(job.status)) return RUN_OVER;
  if (job.cancelRequestedAt) return canceled(timings);
  // A job that ends well without having begun took its result from the cache.
  const cached = job.status === JobStatus.QUEUED;
  return { change: { type: 'succeed', result, warnings, timings, cached, retentionMs }, lease: 'end' };
}

/** The lease has failed: tried again after a back-off where that makes sense and attempts are left. `random` is in [0, 1). */
export function failed(
  subject: Subject,
  { reason, message, retryable, killedWorker, timings }: Failed,
  nowMs: number,
  random: number,
): Step {
  const { job, maxAttempts } = subject;
  const failure = { reason, message, retryable };
  const kills = subject.kills + Number(killedWorker);
  if (isTerminal(job.status)) return { ...RUN_OVER, kills };
  if (job.cancelRequestedAt) return canceled(timings);
  const spent = subject.spent + 1;
  if (killedWorker && kills >= POISON_KILLS) {
    return { change: { type: 'fail', failure: poisonous(kills, message), timings }, spent, kills, lease: 'end' };
  }
  if (!retryable || spent >= maxAttempts) return { change: { type: 'fail', failure, timings }, spent, kills, lease: 'end' };
  const readyAtMs = nowMs + retryDelayMs(spent, random);
  return { change: { type: 'requeue', wait: WaitReason.RETRY, failure, timings }, spent, kills, lease: 'end', queue: { readyAtMs } };
}

export function refused({ job }: Subject, failure: Failure, timings: Timings | undefined): Step {
  return isTerminal(job.status) ? RUN_OVER : { change: { type: 'refuse', failure, timings }, lease: 'end' };
}

/** The lease's word that nothing runs for the job any more: canceled. */
export function ended({ job }: Subject, timings: Timings | undefined): Step {
  return isTerminal(job.status) ? RUN_OVER : canceled(timings);
}

function canceled(timings: Timings | undefined): Step {
  return { change: { type: 'cancel', timings }, lease: 'end' };
}

/** The lease lets the job go, with no attempt spent. */
export function givenBack({ job }: Subject, wait: WaitReason, timings: Timings | undefined): Step {
  if (isTerminal(job.status)) return RUN_OVER;
  if (job.cancelRequestedAt) return canceled(timings);
  const begun = job.status === JobStatus.PROCESSING;
  return {
    change: begun ? { type: 'requeue', wait, failure: undefined, timings } : { type: 'release', wait },
    lease: 'end',
    queue: 'back',
  };
}

/** Why a job goes on without its holder, to its reader. */
export const NODE_LOST: Failure = { reason: 'NODE_LOST', message: 'the node that ran the job was lost', retryable: true };
export const RESTARTED: Failure = {
  reason: 'SERVICE_RESTARTED',
  message: 'the service stopped while the job was running',
  retryable: true,
};

/** Whoever held the job is gone, and so is its lease. */
export function recovered(subject: Subject, failure: Failure): Step {
  const { job, maxAttempts } = subject;
  if (isTerminal(job.status)) return RUN_OVER;
  if (job.cancelRequestedAt) return canceled(undefined);
  if (job.status === JobStatus.QUEUED) return { change: { type: 'release', wait: WaitReason.SLOT }, lease: 'end', queue: 'back' };
  const spent = subject.spent + 1;
  if (spent >= maxAttempts) return { change: { type: 'fail', failure, timings: undefined }, spent, lease: 'end' };
  return { change: { type: 'requeue', wait: WaitReason.SLOT, failure, timings: undefined }, spent, lease: 'end', queue: 'back' };
}

/** A caller's cancel; undefined: it changes nothing. `followers`: jobs that have joined its run. */
export function canceledByCaller({ job, held }: Subject, graceMs: number, followers: number): Step | undefined {
  if (isTerminal(job.status)) return undefined;
  if (!held) return canceled(undefined);
  // It leaves at once, and its run goes on for the others.
  if (followers > 0) return { change: { type: 'cancel', timings: undefined }, lease: 'keep' };
  return job.cancelRequestedAt ? undefined : { change: { type: 'request_cancel', graceMs }, lease: 'keep' };
}

/** The start deadline has passed; undefined: it is somebody's affair, or over. */
export function startTimedOut({ job, deadlineMs, held }: Subject): Step | undefined {
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

/** A job joins a like run: it waits in the queue for what comes of that. */
export const JOINED: Step = {
  change: { type: 'wait', wait: WaitReason.ANOTHER_JOB },
  lease: 'end',
  queue: { readyAtMs: NEVER_MS, free: true },
};

/** What a run that it joined is for a job. */
export type Outcome =
  | { readonly type: 'succeed'; readonly result: MediaResult; readonly warnings: readonly string[] }
  | { readonly type: 'fail' | 'refuse'; readonly failure: Failure };

/** What a result is for those that joined the run; undefined: its own job is to be canceled, and they run again. */
export function wonBy({ job }: Subject, { result, warnings }: Done): (Outcome & { readonly type: 'succeed' }) | undefined {
  if (job.cancelRequestedAt && !isTerminal(job.status)) return undefined;
  // A copy somewhere else was made for the one job alone.
  return { type: 'succeed', result: { ...result, outputUri: undefined }, warnings };
}

/** The engine's word on the content, which goes for every like job; undefined: it says nothing of that. */
export function verdictOf({ kills }: Subject, { killedWorker, ofRun, reason, message, retryable }: Failed): Outcome | undefined {
  if (killedWorker && kills + 1 >= POISON_KILLS) return { type: 'fail', failure: poisonous(kills + 1, message) };
  return ofRun && !retryable ? { type: 'fail', failure: { reason, message, retryable } } : undefined;
}

function poisonous(kills: number, message: string): Failure {
  return {
    reason: 'JOB_KILLS_WORKERS',
    message: `${kills} workers died on this job, the last one so: ${message}`,
    retryable: false,
  };
}

/** A run that it joined has ended; undefined: the job has ended before. */
export function endedWith(
  { job }: Subject,
  outcome: Outcome,
  { retentionMs, again }: Pick<Match, 'retentionMs' | 'again'>,
): Step | undefined {
  if (isTerminal(job.status)) return undefined;
  if (outcome.type !== 'succeed') return { change: { ...outcome, timings: undefined }, lease: 'end' };
  if (again) return { change: { type: 'wait', wait: WaitReason.SLOT }, lease: 'end', queue: 'ready' };
  return { change: { ...outcome, cached: true, timings: undefined, retentionMs }, lease: 'end' };
}

/** The job goes on with a run that its first job has left without a word on it: what that was told of killed workers goes on too. */
export function inherited(subject: Subject, kills: number): Step | undefined {
  const step = ready(subject);
  return step && { ...step, kills: Math.max(subject.kills, kills) };
}

/** A job that waited for others is ready; undefined: it has ended before. */
export function ready({ job }: Subject): Step | undefined {
  if (isTerminal(job.status)) return undefined;
  return { change: { type: 'wait', wait: WaitReason.SLOT }, lease: 'end', queue: 'ready' };
}

/** A job that waited for `of` will have nothing from it; `from` is that one, undefined where it is forgotten. */
export function inputFailed({ job }: Subject, of: JobId, from: Job | undefined): Step | undefined {
  if (isTerminal(job.status)) return undefined;
  return { change: { type: 'fail', failure: inputJobFailure(of, from), timings: undefined }, lease: 'end' };
}

/** Undefined: the job has ended, or has these warnings. */
export function warned({ job }: Subject, warnings: readonly string[]): Step | undefined {
  const known = new Set(job.warnings);
  if (isTerminal(job.status) || warnings.every((warning) => known.has(warning))) return undefined;
  return { change: { type: 'warn', warnings }, lease: 'keep' };
}

/** What an engine says of its run: an event, and the job with it. */
export interface Said {
  readonly job: Job;
  readonly event: JobEvent['event'];
  /** It changes what a list shows of the job. */
  readonly visible: boolean;
}

/**
 * Undefined: the job has ended. `highest` is that of the attempt, in percent. Before one, inputs may be fetched by one node after another, and a run that was
 * joined may end for another one: who watches the job sees one way that does not fall.
 */
export function progressed({ job: before }: Subject, progress: Progress, highest: number, nowMs: number): Said | undefined {
  if (isTerminal(before.status)) return undefined;
  const percent = before.status === JobStatus.QUEUED ? Math.max(before.progress, Math.floor(highest)) : highest;
  const { step, estimatedFinishTime: estimatedFinish } = progress;
  const job = transition(before, { type: 'progress', step, percent, estimatedFinish }, nowMs);
  job.sequence++;
  return { job, event: { case: 'progress', value: { ...progress, percent, attempt: job.attempt } }, visible: true };
}

/** Between two looks of jobs that joined a run at how far it is. */
export const FOLLOW_MS = 1000;

/** A job that joined a run shows how far that is. */
export function followed(subject: Subject, progress: Progress, nowMs: number): Said | undefined {
  return progressed(subject, progress, progress.percent, nowMs);
}

/** Undefined: the job has ended. */
export function logged({ job }: Subject, log: Log): Said | undefined {
  if (isTerminal(job.status)) return undefined;
  return { job: { ...job, sequence: job.sequence + 1 }, event: { case: 'log', value: log }, visible: false };
}

/** Up to which sequence a job's progress and log events are gone: `most` of them are kept, and up to a quarter more before they are trimmed. */
export function trimmedTo({ sequence }: Job, before: Sequence, most: number): Sequence {
  return sequence - before > most * 1.25 ? sequence - most : before;
}

/** `id`: of the job or the batch that the key stands for. */
export function keyReused(key: string, id: string): JobsError {
  const message = `the idempotency key '${key}' was used for another request (${id}): take a new key for a new request`;
  const metadata = { [isBatchId(id) ? 'batch_id' : 'job_id']: id };
  return new JobsError('already_exists', 'IDEMPOTENCY_KEY_REUSED', message, { metadata });
}

export function leaseLost(jobId: string): JobsError {
  return new JobsError('aborted', 'LEASE_LOST', `${jobId} is no longer held by this lease`, { metadata: { job_id: jobId } });
}

export function shuttingDown(): JobsError {
  return new JobsError('unavailable', 'SHUTTING_DOWN', 'the service is shutting down; try again shortly', { retryAfterSeconds: 2 });
}
