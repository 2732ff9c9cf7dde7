// What the domain needs from outside: a job store and a blob store. Two ports, deep: a store's every method is one atomic step, whose record,
// queue and events change together or not at all, so no adapter is split into queue, repository and event bus.

import type { JobEvent, Log, Preview, Progress } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { EngineInfo, Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Node, Slot } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Batch } from './batches.ts';
import type { DrainStore } from './drains.ts';
import type { Engine } from './engine.ts';
import type { Fingerprint } from './fingerprint.ts';
import type { Failure, Job, JobRequest, JobStatus, MediaResult, WaitReason } from './job.ts';
import type { KeyStore } from './keys.ts';
import type { WebhookOutbox } from './webhooks.ts';

export type JobId = string;
/** Position in one job's event log, from 1, without gaps. */
export type Sequence = number;

export interface NewJob {
  readonly jobId: JobId;
  readonly tenant: string;
  /** The batch that it is submitted with. */
  readonly batchId?: string;
  readonly request: JobRequest;
  /** SHA-256 of what the caller asked for, in a canonical form: tells a repeated submit from another one under the same key. */
  readonly requestDigest: string;
  readonly warnings: readonly string[];
  readonly submittedBy?: string;
  /** Of the call that submits it; undefined: it is not traced. */
  readonly traceparent?: string | undefined;
  /** Attempts in all. */
  readonly maxAttempts: number;
  /** Fails with START_TIMEOUT when the engine has not started by then (after submit, in milliseconds). */
  readonly startTimeoutMs?: number;
  /** What a node must be for the job, where a fleet has several kinds of nodes. */
  readonly placement?: Placement;
}

export interface Placement {
  /** Undefined: any. */
  readonly engine: string | undefined;
  /** What the engine loads for it, by the engine's names: a node that has all of it warm is preferred. */
  readonly models: readonly string[];
}

export interface Limits {
  /** Queued jobs of one tenant. */
  readonly maxQueued: number;
  /** How long an idempotency key is kept, in milliseconds. */
  readonly idempotencyMs: number;
  /** Seconds that slots were held for the tenant since midnight UTC; undefined: no limit. */
  readonly gpuSecondsPerDay?: number;
  /** Of the tenant's results that are not purged; undefined: no limit. */
  readonly storedBytes?: number;
}

/** What a tenant has used of what can be limited. */
export interface Usage {
  readonly queued: number;
  /** Held by a node, its inputs still on their way or its engine at work. */
  readonly running: number;
  readonly gpuSecondsToday: number;
  readonly storedBytes: number;
}

export interface Submitted {
  readonly job: Job;
  /** False: the key was known. */
  readonly created: boolean;
}

export interface NewBatch {
  readonly batchId: string;
  readonly tenant: string;
  /** As they were asked for, each with `batchId`. None has an idempotency key. */
  readonly jobs: readonly NewJob[];
  /** Their places in the order in which they come in: each after those whose results it takes. */
  readonly order: readonly number[];
  /** Of each job; empty where it has none. */
  readonly refs: readonly string[];
  readonly idempotencyKey: string | undefined;
  /** As `NewJob.requestDigest`, of the whole batch. */
  readonly requestDigest: string;
  /** A failed job cancels the rest; running ones have so many milliseconds to stop. Undefined: it does not. */
  readonly stopGraceMs: number | undefined;
}

export interface SubmittedBatch {
  readonly batch: Batch;
  /** False: the key was known. */
  readonly created: boolean;
}

export interface JobFilter {
  readonly tenant?: string;
  readonly statuses?: readonly JobStatus[];
  readonly errorReason?: string;
  /** All must match; without a value the key must be there. */
  readonly labels?: readonly { readonly key: string; readonly value?: string }[];
  readonly batchId?: string;
}

export interface JobQuery extends JobFilter {
  readonly createdAfterMs?: number;
  readonly createdBeforeMs?: number;
  /** 1..1000. */
  readonly pageSize: number;
  /** Opaque, from the last page. One that is not ours: `JobsError` invalid, field `page_token`. */
  readonly pageToken?: string;
}

export interface JobPage {
  /** Newest first. */
  readonly jobs: readonly Job[];
  readonly nextPageToken: string | undefined;
  /** `watchJobs` after this token gives every change since this page was read. */
  readonly watchToken: string;
}

export interface JobChange {
  /** undefined only with `reset`. */
  readonly job: Job | undefined;
  readonly watchToken: string;
  /** The token asked for is not this store's: list again. Comes first and at once; what follows are changes from now on. */
  readonly reset: boolean;
  /** False: the job matched the filter before and no longer does. */
  readonly matches: boolean;
}

export interface Claim {
  readonly node: string;
  /** Only a job that comes before the one with this rank; how a node looks for something better while it holds a job claimed ahead. */
  readonly above?: Rank;
  /** The engines of the node; undefined: whatever the jobs want. */
  readonly engines?: readonly string[];
  /** Models that are loaded; undefined: no job is preferred. */
  readonly warmModels?: readonly string[];
  /** How many turns a job may be kept back because its models are cold here: near the time to load them over the time of a run. */
  readonly coldPenalty?: number;
}

/** Place in the order of service; compared by the store that gave it. `cold`: its models were not loaded where it was claimed. */
export type Rank = Readonly<{ flow: number; score: number; tenant: string; cold?: boolean }>;

export type LeaseEnd =
  /** The caller cancelled the job: stop it, then `canceled()`. */
  | 'cancel_requested'
  /** The lease is another's or nobody's: stop at once, nothing can be written any more. */
  | 'lost'
  /** The store is closing. */
  | 'closed';

/** Reason of `Lease.signal`'s abort. */
export class LeaseEnded extends Error {
  override readonly name = 'LeaseEnded';
  readonly end: LeaseEnd;
  constructor(jobId: JobId, end: LeaseEnd) {
    super(`lease on ${jobId}: ${end.replaceAll('_', ' ')}`);
    this.end = end;
  }
}

export interface Failed extends Failure {
  readonly killedWorker: boolean;
  readonly timings?: Timings;
  /** The engine's word on what it was given: where it is not to be tried again, it goes for every like job. */
  readonly ofRun?: boolean;
}

/** A prepared job, as far as it may be one with others. */
export interface Match {
  readonly fingerprint: Fingerprint;
  /** It runs in any case: it takes no result of before, and joins no run. */
  readonly runs: boolean;
  /** `Done.retentionMs`, should it end with a run that it joined. */
  readonly retentionMs: number | undefined;
  /** It has something to do with the result itself, so a run that it joined does not end it: it is claimed again then, and finds the result. */
  readonly again: boolean;
}

export type Matched =
  /** Nothing like it is there: the run is its own, and like jobs may join it until the lease ends. */
  | { readonly kind: 'run' }
  /** `complete` with this, and with what its run's engine warned of; the job refers to the blob. */
  | { readonly kind: 'cached'; readonly result: MediaResult; readonly warnings: readonly string[] }
  /** The lease has ended: the job waits for a like run. */
  | { readonly kind: 'joined' };

export interface Done {
  readonly result: MediaResult;
  /** For like jobs, as long as `ttlMs` milliseconds. */
  readonly keep?: { readonly fingerprint: Fingerprint; readonly ttlMs: number } | undefined;
  /** How long the result is kept, in milliseconds from now; undefined: as long as its job. */
  readonly retentionMs?: number | undefined;
  readonly warnings: readonly string[];
  readonly timings: Timings;
}

/**
 * The right to work on one job. Renews itself; every write is fenced: after the lease is lost it throws `JobsError` LEASE_LOST.
 * Writes take effect in the order of the calls, so that a caller need not wait for one before the next.
 * Timings are this attempt's alone: the job adds up what sums over attempts.
 * Exactly one of `complete`, `fail`, `refuse`, `canceled` and `giveBack` ends it. Disposed unfinished, it is given back with no attempt spent.
 */
export interface Lease extends AsyncDisposable {
  /** The job as of the last step made through this lease. */
  readonly job: Job;
  readonly rank: Rank;
  readonly maxAttempts: number;
  /** Milliseconds (the store's clock) by which the engine must run. */
  readonly startDeadlineMs: number | undefined;
  /** Blobs by the jobs that they are results of, which the request names as `job://ID`; this job refers to them until it has ended. */
  readonly inputs: ReadonlyMap<JobId, string>;
  readonly signal: AbortSignal;
  /**
   * Once, when the inputs are there: looks for a result or a run of a like job. A run that others have joined outlives its first job: canceled, that
   * leaves at once, and what is written through the lease is for the others; `signal` aborts when nobody is left. The run's result ends all of them,
   * each with its own reference; a verdict of the engine on the content does too; else the oldest goes on with it, as the next to be claimed.
   */
  match(want: Match): Promise<Matched>;
  /** The engine is about to run on `slot`: spends an attempt. */
  begin(run: { readonly slot: string; readonly engine: EngineInfo | undefined }): Promise<Job>;
  /** One progress event. Percent below the attempt's highest is raised to it. */
  progress(progress: Progress): Promise<void>;
  log(log: Log): Promise<void>;
  /** Sent to whoever watches now, not stored. */
  preview(preview: Preview): void;
  warn(warnings: readonly string[]): Promise<void>;
  /**
   * The job refers to the blob `key` until its lease ends without that result: asked for before the blob is looked for or written, so that nobody
   * deletes it in between. Waits while it is just being deleted. Durable, unless `lasting` is false: then before the blob is written it is asked for again.
   */
  pin(key: string, lasting?: boolean): Promise<void>;
  /** Durable. The result is the pinned blob. A job whose cancel was requested before becomes canceled instead: the answer says which. */
  complete(done: Done): Promise<Job>;
  /** Durable. Retryable and attempts left: queued again after a back-off; else failed. Cancel requested: canceled. */
  fail(failure: Failed): Promise<Job>;
  /** Durable. The content analyser's word; never retried. */
  refuse(failure: Failure, timings?: Timings): Promise<Job>;
  /** Durable. Nothing runs for the job any more, as its caller asked. */
  canceled(timings?: Timings): Promise<Job>;
  /** Back to its place in the queue; a begun attempt is not counted against `maxAttempts`. Cancel requested: canceled. */
  giveBack(wait: WaitReason, timings?: Timings): Promise<Job>;
}

export interface Expired {
  readonly purged: number;
  readonly forgotten: number;
  /** Whether more is due. */
  readonly more: boolean;
}

export interface TenantQueue {
  readonly tenant: string;
  readonly queued: number;
  readonly processing: number;
  /** When the job that has been queued for longest was submitted; undefined: none is queued. */
  readonly oldestQueuedMs: number | undefined;
}

export interface Overview {
  readonly totals: ReadonlyMap<JobStatus, number>;
  readonly queueByTenant: readonly TenantQueue[];
  /** Jobs ended in each step of `stepSeconds`, oldest first. */
  readonly throughput: readonly { readonly startMs: number; readonly ended: ReadonlyMap<JobStatus, number> }[];
  readonly stepSeconds: number;
}

export interface JobStore extends AsyncDisposable {
  /** Made with the store and kept with it, through restarts, copies and replicas: what is the store's alone, such as a place for results, is told by it. */
  readonly id: string;
  /**
   * Idempotency first, then quota, then record, queue and first event; durable when it answers. Jobs that the request names as `job://ID` must be
   * the tenant's and have a result or not have ended; until they have, the job waits, and fails with INPUT_JOB_FAILED when one ends without.
   */
  submit(job: NewJob, limits: Limits): Promise<Submitted>;
  /** The job that an idempotency key stands for now, undefined: none. For another request than that job's: `JobsError` IDEMPOTENCY_KEY_REUSED. */
  submitted(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Job | undefined>;
  /** With `queue_position` where it is queued. */
  get(id: JobId): Promise<Job | undefined>;
  list(query: JobQuery): Promise<JobPage>;
  /**
   * Nothing holds the job: canceled at once, durable. A lease holds it: the request is recorded with `graceMs` as its force-stop time, and the
   * lease's signal tells its holder. Terminal: unchanged. Unknown: undefined.
   */
  cancel(id: JobId, graceMs: number): Promise<Job | undefined>;
  /**
   * Durable. Marks a terminal job purged and forgets its result; the blob, when no other job refers to it, is `reclaim`'s from now on. Not
   * terminal: `JobsError` JOB_NOT_TERMINAL. Unknown: undefined.
   */
  purge(id: JobId): Promise<Job | undefined>;
  /**
   * Has `remove` delete each blob that no job refers to any more: of a purged result, or of a run that ended otherwise. A key comes until
   * `remove` has succeeded for it, over crashes and restarts too; the first error is thrown when all have had their turn.
   */
  reclaim(remove: (key: string) => Promise<void>): Promise<void>;
  /**
   * Durable, each job whole or not at all. Does what is due by the store's clock: purges jobs whose `result_expire_time` has come, and forgets jobs that ended `jobTtlMs` ago, blob,
   * events and all, as if they had never been; at most `max` of each. Never touches a job that has not ended. Looks things up by time and scans nothing.
   */
  expire(limits: { readonly jobTtlMs: number; readonly max: number }): Promise<Expired>;
  /** The next job in order, as soon as there is one; undefined when `signal` aborts first. */
  claim(want: Claim, signal: AbortSignal): Promise<Lease | undefined>;
  /** All of its jobs in one step, or none: idempotency first, then quota for all, then each as `submit` has it. Durable when it answers. */
  submitBatch(batch: NewBatch, limits: Limits): Promise<SubmittedBatch>;
  /** As `submitted`, of a batch. */
  submittedBatch(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Batch | undefined>;
  /** How far its jobs are, kept with their steps; there as long as one of its jobs is. */
  batch(id: string): Promise<Batch | undefined>;
  /** As `cancel`, of each of its jobs that has not ended. Durable before the first of them is touched; over a restart it goes on. Unknown: undefined. */
  cancelBatch(id: string, graceMs: number): Promise<Batch | undefined>;
  /** As `watchJobs`, of its jobs; ends when the batch has finished and all is told. */
  watchBatch(id: string, token: string | undefined, signal: AbortSignal): AsyncIterable<JobChange>;
  /**
   * A job's events. `after` undefined: a snapshot at N, then N+1 and on. Set: what follows it, or a snapshot marked `reset` where that cannot be
   * had. Ends after the terminal event, or when `signal` aborts. Every watcher is given the same immutable event objects. Unknown job: throws.
   */
  watch(id: JobId, after: Sequence | undefined, signal: AbortSignal): AsyncIterable<JobEvent>;
  /** Changes of matching jobs after `token` (undefined: from now on), the latest state of each; ends only with `signal`. */
  watchJobs(filter: JobFilter, token: string | undefined, signal: AbortSignal): AsyncIterable<JobChange>;
  overview(windowMs: number): Promise<Overview>;
  readonly uploads: UploadRecords;
  /** What jobs' steps have to tell to receivers; written in the same step. */
  readonly webhooks: WebhookOutbox;
  usage(tenant: string): Promise<Usage>;
  /** API keys, which lie beside the jobs. */
  readonly keys: KeyStore;
  /** What of the fleet's nodes was taken out of service, which lies there too. */
  readonly drains: DrainStore;
  /** Throws when the store does not answer. */
  ping(): Promise<void>;
}

/** What a node says of itself. */
export interface NodeFacts {
  readonly node: string;
  /** Undefined: its version says nothing of it. */
  readonly machine: Node | undefined;
  readonly slots: readonly Slot[];
  /** Undefined: no worker of its has said yet. */
  readonly engine: Engine | undefined;
}

/** Who is in the fleet; beside the jobs, and nothing depends on it but what callers are shown and what they may ask for. */
export interface NodeRegistry {
  /** Says how this process's node is; forgotten after `ttlMs` unless said again. */
  announce(facts: NodeFacts, ttlMs: number): Promise<void>;
  withdraw(): Promise<void>;
  /** The nodes of other processes, by name. */
  others(): Promise<readonly NodeFacts[]>;
}

/** Facts about a stored blob. The key is the lower-case hex SHA-256 of its bytes. */
export interface BlobStat {
  readonly key: string;
  readonly bytes: number;
  readonly mediaType: string;
}

export interface PutOptions {
  readonly signal?: AbortSignal;
  /**
   * `Lease.pin`: called as soon as the key is known and waited for before the blob is looked for; where a blob that is there would do, with `lasting`
   * false, and once more before the blob is written. Its error is that of `put`.
   */
  readonly pin?: (key: string, lasting?: boolean) => Promise<void>;
  /** Told how much of the bytes has been sent, by stores that send them. */
  readonly progress?: (done: number, total: number) => void;
}

export interface BlobStore {
  /** Streams the file or bytes in; written whole or not at all; the same bytes twice are one blob. */
  put(source: AsyncIterable<Uint8Array> | string, mediaType: string, options?: PutOptions): Promise<BlobStat>;
  stat(key: string): Promise<BlobStat | undefined>;
  /** Bytes from `start` to `end` inclusive. Unknown: throws `JobsError` NO_RESULT. */
  get(key: string, range?: { readonly start: number; readonly end: number }): AsyncIterable<Uint8Array>;
  /**
   * The whole blob as a file at `toPath`, which must not be there; leaves nothing behind when it throws. It may be a second name of the stored
   * bytes, which nobody changes. Unknown: throws `JobsError` NO_RESULT.
   */
  fetch(key: string, toPath: string, signal: AbortSignal, progress?: (done: number, total: number) => void): Promise<void>;
  /** Unknown keys are fine. */
  delete(key: string): Promise<void>;
  /** An absolute or service-relative URL that gives this one object until `expiresMs`, under the file name given. */
  signedUrl(key: string, options: { readonly expiresMs: number; readonly filename: string; readonly mediaType: string }): Promise<string>;
}

/** What the caller says of a file. */
export interface UploadFacts {
  /** Whose it is: only this tenant's jobs may name it, and its quota is charged. */
  readonly tenant: string;
  /** For people only. */
  readonly filename: string;
  /** Refused at once when too large, and at the end when not true. */
  readonly bytes?: number;
  /** Lower-case hex; refused at the end when not true. */
  readonly sha256?: string;
}

export interface Upload {
  /** `upload://ID` */
  readonly uri: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly mediaType: string;
  readonly expiresMs: number;
}

/** Takes the bytes of one file, or throws and keeps nothing. */
export type ReceiveUpload = (facts: UploadFacts, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal) => Promise<Upload>;

/** An upload that is not whole yet, or is. */
export interface ResumableUpload {
  readonly id: string;
  /** The caller's own words, given back as they came. */
  readonly note: string;
  /** Bytes that are there, durably. */
  readonly offset: number;
  /** Undefined: not announced yet. */
  readonly length: number | undefined;
  readonly expiresMs: number;
  /** Once all has come. */
  readonly upload: Upload | undefined;
}

/** Uploads that come in pieces, over broken connections and restarts. Ids of other tenants are unknown. */
export interface ResumableUploads {
  readonly maxBytes: number;
  readonly ttlMs: number;
  newId(): string;
  create(id: string, facts: UploadFacts, note: string): Promise<void>;
  /** Waits for a write that is going on. Unknown or expired: `JobsError` UPLOAD_NOT_FOUND. */
  find(id: string, tenant: string): Promise<ResumableUpload>;
  announce(id: string, tenant: string, bytes: number): Promise<void>;
  /**
   * Takes bytes from `offset` on, which must be where the last ones ended, and answers how many are there then. An upload that has all its bytes
   * is whole. What came before `bytes` threw is kept; bytes that no job can use are not: the upload is gone then.
   */
  append(id: string, tenant: string, offset: number, bytes: AsyncIterable<Uint8Array>): Promise<number>;
  /** Deletes it now, or as soon as the last job that needs it has ended. Unknown: `JobsError` UPLOAD_NOT_FOUND. */
  remove(id: string, tenant: string): Promise<void>;
}

export interface NewUpload extends UploadFacts {
  readonly id: string;
  /** What has come outlives the process that received it. */
  readonly resumable: boolean;
  readonly note: string;
}

export interface UploadLimits {
  /** Of one tenant, those that are still coming included. */
  readonly maxUploads: number;
  readonly maxBytes: number;
  /** How long an upload is kept, in milliseconds, from its last write on. */
  readonly ttlMs: number;
}

export interface UploadRecord extends Omit<NewUpload, 'bytes'> {
  /** As announced. */
  readonly length: number | undefined;
  readonly expiresMs: number;
  /** Once all has come. */
  readonly whole: { readonly sha256: string; readonly bytes: number; readonly mediaType: string } | undefined;
  /** False: it was removed or has expired, and is kept for jobs that have not ended. */
  readonly offered: boolean;
}

/**
 * Which uploads there are, whose they are, and which jobs need them; part of the job store because submit, the end of a job and its purge change
 * it in their own step. A job refers to the uploads that its request names, from submit on: until it has ended it keeps their bytes, and a purge
 * deletes those that no other job refers to. Ids that are not known: `JobsError` UPLOAD_NOT_FOUND.
 */
export interface UploadRecords {
  /** Durable. Over a limit: `JobsError` QUOTA_EXCEEDED. `bytes`, where announced, count from now on. */
  begin(upload: NewUpload, limits: UploadLimits): Promise<void>;
  /** Makes it count as so many bytes, and renews its life. Over the limit: `JobsError` QUOTA_EXCEEDED. */
  reserve(id: string, bytes: number, limits: UploadLimits): Promise<void>;
  /** Durable. The length of one that was begun without. */
  announce(id: string, bytes: number, limits: UploadLimits): Promise<void>;
  /** Durable. Jobs may name it from now on. Answers when it expires. */
  complete(id: string, whole: NonNullable<UploadRecord['whole']>, limits: UploadLimits): Promise<number>;
  get(id: string): Promise<UploadRecord | undefined>;
  /** Durable. No new job may name it; what its jobs do not need any more is `reclaim`'s from now on. */
  release(id: string): Promise<void>;
  /**
   * Releases what has expired, then has `remove` delete the bytes of each upload that is neither offered nor needed; a key comes until `remove` has
   * succeeded for it, over crashes and restarts too. The first error is thrown when all have had their turn.
   */
  reclaim(remove: (id: string) => Promise<void>): Promise<void>;
  /** Whether there is a record, of any state. */
  knows(id: string): Promise<boolean>;
}
