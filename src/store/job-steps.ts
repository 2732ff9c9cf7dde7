// What each step of a job's life does to record, queue, events and figures, all inside the caller's transaction. Always true here: a step
// refuses before its first write; every transition that a caller can see writes exactly one state event, except that a claim and its release
// write none (their jobs stay queued) and a purge writes none (nothing follows the terminal event).
import type { DatabaseSync } from 'node:sqlite';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { type JobEvent, JobEventSchema, type Log, type Progress } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { EngineInfo, Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type Batch, batchMove } from '../jobs/batches.ts';
import { checkBatchInputs, checkInputJobs, inputJobFailure, inputJobsOf, NEVER_MS } from '../jobs/chains.ts';
import { inItem, JobsError } from '../jobs/errors.ts';
import type { Fingerprint } from '../jobs/fingerprint.ts';
import {
  type Change,
  type Failure,
  isTerminal,
  type Job,
  JobStatus,
  newJob,
  POISON_KILLS,
  rankOf,
  retryDelayMs,
  stateOf,
  transition,
  WaitReason,
} from '../jobs/job.ts';
import type { Done, Expired, Failed, JobId, Limits, Match, Matched, NewBatch, NewJob, Rank } from '../jobs/ports.ts';
import { keyReused, quotaExceeded } from '../jobs/steps.ts';
import { uploadsOf } from '../jobs/uploads.ts';
import type { BatchTable } from './batch-table.ts';
import type { BlobReferences } from './blob-references.ts';
import type { CachedResults } from './cached-results.ts';
import type { Flight, Flights, Member } from './flights.ts';
import type { InputJobs } from './input-jobs.ts';
import type { JobEvents } from './job-events.ts';
import type { JobFigures } from './job-figures.ts';
import type { JobTable, StoredJob } from './job-table.ts';
import type { Due, Lifetimes } from './lifetimes.ts';
import type { ReadyQueue } from './ready-queue.ts';
import type { TenantUsage } from './tenant-usage.ts';
import type { UploadTable } from './upload-records.ts';
import type { Writer } from './writer.ts';

export interface JobStepsOptions {
  readonly db: DatabaseSync;
  readonly table: JobTable;
  readonly queue: ReadyQueue;
  readonly figures: JobFigures;
  readonly events: JobEvents;
  readonly references: BlobReferences;
  readonly inputs: InputJobs;
  readonly cached: CachedResults;
  readonly flights: Flights;
  readonly lifetimes: Lifetimes;
  readonly usage: TenantUsage;
  readonly uploads: UploadTable;
  /** Told of a run that nobody wants any more, once that is committed. */
  readonly onDeserted: (leader: JobId) => void;
  readonly batches: BatchTable;
  /** A job has failed that takes the rest of its batch with it; told after COMMIT. */
  readonly stopBatches: () => void;
  readonly tx: Pick<Writer, 'undo' | 'committed' | 'told'>;
  readonly now: () => number;
  /** In [0, 1). */
  readonly random: () => number;
  /** Progress and log events kept of one job; about a quarter more before they are trimmed. */
  readonly maxStoredEvents: number;
}

const NONE: ReadonlyMap<JobId, string> = new Map();
/** Between two looks of jobs that joined a run at how far it is. */
const FOLLOW_MS = 1000;

interface StepOptions {
  /** No state event. */
  readonly silent?: boolean;
  /** What the end of the job's run is for those that joined it. */
  readonly verdict?: Change | undefined;
  /** The run goes on for others. */
  readonly leavesRun?: boolean;
}

function failWith(failure: Failure): Change {
  return { type: 'fail', failure, timings: undefined };
}

/** Stands among a job's inputs for the blob of a run that it has left. */
function runBlob(key: string): string {
  return `:${key}`;
}

export class JobSteps {
  readonly #options: JobStepsOptions;
  readonly #findKey;
  readonly #keepKey;
  readonly #dropKeys;
  readonly #dropKeyOf;
  readonly #moveFlow;
  readonly #chargeFlow;
  /** Of each job that is claimed and not begun: its tenant's virtual time since the claim. Written with what is first written of the job. */
  readonly #claims = new Map<JobId, number>();
  /** When the jobs that joined a run were last told how far it is. */
  readonly #followedMs = new Map<Fingerprint, number>();
  /** Ended in the running step, what follows for others still to be done; undefined: nothing is under way. */
  #ended: StoredJob[] | undefined;

  constructor(options: JobStepsOptions) {
    this.#options = options;
    const { db } = options;
    this.#findKey = db.prepare('SELECT digest, job_id, expires_ms FROM idempotency WHERE tenant = ? AND key = ?');
    this.#keepKey = db.prepare('INSERT OR REPLACE INTO idempotency (tenant, key, digest, job_id, expires_ms) VALUES (?, ?, ?, ?, ?)');
    this.#dropKeys = db.prepare(
      `DELETE FROM idempotency WHERE (tenant, key) IN
         (SELECT tenant, key FROM idempotency WHERE expires_ms <= ? ORDER BY expires_ms LIMIT 2)`,
    );
    this.#dropKeyOf = db.prepare('DELETE FROM idempotency WHERE tenant = ? AND key = ? AND job_id = ?');
    this.#chargeFlow = db.prepare(
      'INSERT INTO flows (tenant, virtual) VALUES (?, ?) ON CONFLICT DO UPDATE SET virtual = max(virtual, excluded.virtual)',
    );
    this.#moveFlow = db.prepare('INSERT OR REPLACE INTO flows (tenant, virtual) VALUES (?, ?)');
  }

  submit(wanted: NewJob, limits: Limits): { readonly stored: StoredJob; readonly created: boolean } {
    const { figures, usage, uploads, now } = this.#options;
    const nowMs = now();
    const { tenant, request } = wanted;
    const key = request.idempotencyKey;
    const known = key === undefined ? undefined : this.submitted(tenant, key, wanted.requestDigest, nowMs);
    if (known) return { stored: known, created: false };
    const queued = figures.queued(tenant);
    if (queued >= limits.maxQueued) throw quotaExceeded(queued, limits.maxQueued);
    usage.check(tenant, limits, nowMs);
    uploads.check(request, tenant);
    checkInputJobs(request, tenant, (id) => this.#options.table.get(id)?.job);
    const stored = this.#add(wanted, nowMs);
    if (key !== undefined) this.#know(tenant, key, wanted.requestDigest, wanted.jobId, limits, nowMs);
    return { stored, created: true };
  }

  submitBatch(wanted: NewBatch, limits: Limits): { readonly batch: Batch; readonly created: boolean } {
    const { table, figures, usage, uploads, batches, now } = this.#options;
    const nowMs = now();
    const { tenant, idempotencyKey: key, jobs } = wanted;
    const known = key === undefined ? undefined : this.submittedBatch(tenant, key, wanted.requestDigest, nowMs);
    if (known) return { batch: known, created: false };
    const queued = figures.queued(tenant);
    if (queued + jobs.length > limits.maxQueued) throw quotaExceeded(queued, limits.maxQueued, jobs.length);
    usage.check(tenant, limits, nowMs);
    for (const [i, { request }] of jobs.entries()) {
      if (uploadsOf(request).size > 0) inItem(i, () => uploads.check(request, tenant));
    }
    checkBatchInputs(wanted, (id) => table.get(id)?.job);
    batches.insert(wanted, nowMs);
    for (const i of wanted.order) this.#add(jobs[i]!, nowMs);
    if (key !== undefined) this.#know(tenant, key, wanted.requestDigest, wanted.batchId, limits, nowMs);
    return { batch: batches.get(wanted.batchId)!, created: true };
  }

  /** A job that may come in: record, queue and first event. The jobs whose results it takes are there. */
  #add(wanted: NewJob, nowMs: number): StoredJob {
    const { table, queue, figures, uploads, inputs } = this.#options;
    const { tenant, request, batchId, warnings, submittedBy } = wanted;
    const taken = new Map(inputJobsOf(request).map(({ jobId }) => [jobId, table.get(jobId)!.job.result?.sha256]));
    const waits = [...taken.values()].includes(undefined);
    const wait = waits ? WaitReason.ANOTHER_JOB : WaitReason.SLOT;
    const job = newJob(wanted.jobId, request, nowMs, { tenant, batchId, warnings, submittedBy, wait });
    job.sequence = 1;
    const stored = table.insert({
      tenant,
      job,
      score: rankOf(nowMs, request.priority),
      readyAtMs: waits ? NEVER_MS : 0,
      maxAttempts: wanted.maxAttempts,
      deadlineMs: wanted.startTimeoutMs === undefined ? undefined : nowMs + wanted.startTimeoutMs,
    });
    uploads.use(stored.num, request);
    for (const [of, key] of taken) inputs.take(stored.num, of, key);
    this.#append(stored, { case: 'state', value: stateOf(job) }, nowMs);
    figures.moved(tenant, undefined, job.status, nowMs);
    queue.add(this.#entry(stored), nowMs);
    return stored;
  }

  /** Keeps what an idempotency key stands for: a job or a batch. */
  #know(tenant: string, key: string, digest: string, id: string, limits: Limits, nowMs: number): void {
    // Two out for each one in: expired keys go without a scan and without a burst.
    this.#dropKeys.run(nowMs);
    this.#keepKey.run(tenant, key, digest, id, nowMs + limits.idempotencyMs);
  }

  /** See `JobStore.submitted`. Changes nothing. */
  submitted(tenant: string, key: string, digest: string, nowMs: number): StoredJob | undefined {
    const id = this.#known(tenant, key, digest, nowMs);
    return id === undefined ? undefined : this.#options.table.get(id);
  }

  /** See `JobStore.submittedBatch`. Changes nothing. */
  submittedBatch(tenant: string, key: string, digest: string, nowMs: number): Batch | undefined {
    const id = this.#known(tenant, key, digest, nowMs);
    return id === undefined ? undefined : this.#options.batches.get(id);
  }

  #known(tenant: string, key: string, digest: string, nowMs: number): string | undefined {
    const found = this.#findKey.get(tenant, key) as { digest: string; job_id: string; expires_ms: number } | undefined;
    if (!found || found.expires_ms <= nowMs) return undefined;
    if (found.digest !== digest) throw keyReused(key, found.job_id);
    return found.job_id;
  }

  /** The next job in order goes to a node. Nothing is written: a claim does not outlive the process, and a job that was claimed waits again then. */
  claim(node: string, above: Rank | undefined): { readonly stored: StoredJob; readonly rank: Rank } | undefined {
    const { queue, table, usage, tx, now } = this.#options;
    const taken = queue.take(above);
    if (!taken) return undefined;
    const before = table.get(taken.job.jobId)!;
    const { jobId } = before.job;
    const nowMs = now();
    const stored: StoredJob = { ...before, node, job: transition(before.job, { type: 'claim' }, nowMs) };
    table.hold(before, stored);
    usage.moved(before.tenant, before, stored, nowMs);
    this.#claims.set(jobId, taken.virtual);
    tx.undo(() => this.#claims.delete(jobId));
    return { stored, rank: taken.rank };
  }

  /** `Lease.inputs` */
  inputsOf({ num, job }: StoredJob): ReadonlyMap<JobId, string> {
    return inputJobsOf(job.request!).length > 0 ? this.#options.inputs.blobs(num) : NONE;
  }

  begin(stored: StoredJob, run: { readonly slot: string; readonly engine: EngineInfo | undefined }): StoredJob {
    if (isTerminal(stored.job.status)) return stored;
    return this.#step(stored, { type: 'begin', ...run }, { deadlineMs: undefined });
  }

  /** See `Lease.match`. A job that joins is in the queue again, and waits there for the run. */
  match(stored: StoredJob, { fingerprint, runs, retentionMs, again }: Match): { readonly stored: StoredJob; readonly matched: Matched } {
    const { flights, cached, references, queue, now } = this.#options;
    const { jobId } = stored.job;
    const own = flights.of(jobId);
    if (own?.fingerprint === fingerprint) return { stored, matched: { kind: 'run' } };
    // It was to go on with a run, and its inputs are others now.
    if (own) this.#leaveFlight(own, stored, undefined);
    const nowMs = now();
    const result = runs ? undefined : cached.get(fingerprint, nowMs);
    if (result) {
      const next: StoredJob = { ...stored, blob: result.sha256 };
      this.#record(stored, next);
      references.moved(stored.blob, next.blob);
      return { stored: next, matched: { kind: 'cached', result } };
    }
    const flight = flights.get(fingerprint);
    if (!flight) flights.lead(fingerprint, jobId);
    if (!flight || runs) return { stored, matched: { kind: 'run' } };
    flights.join(flight, { jobId, num: stored.num, retentionMs, again });
    const next = this.#step(stored, { type: 'wait', wait: WaitReason.ANOTHER_JOB }, { node: undefined, readyAtMs: NEVER_MS });
    this.#moveFlow.run(next.tenant, queue.giveBack(this.#entry(next), nowMs));
    return { stored: next, matched: { kind: 'joined' } };
  }

  /** A job that waits as no job whose result it takes makes it: it had joined a run, of which nothing is known any more. */
  rejoin(jobId: JobId): void {
    const { table, inputs } = this.#options;
    const stored = table.get(jobId)!;
    if (!isTerminal(stored.job.status) && !inputs.isWaiting(stored.num)) this.#makeReady(stored);
  }

  /** The runs of an earlier process that their first jobs had left are over. */
  hasLeftRuns(): boolean {
    return this.#options.inputs.hasLeftRuns();
  }

  forgetLeftRuns(): void {
    this.#options.inputs.forgetLeftRuns();
  }

  progress(stored: StoredJob, progress: Progress): StoredJob {
    this.#follow(stored, progress);
    if (isTerminal(stored.job.status)) return stored;
    const { step, percent, estimatedFinishTime: estimatedFinish } = progress;
    const nowMs = this.#options.now();
    const job = transition(stored.job, { type: 'progress', step, percent, estimatedFinish }, nowMs);
    return this.#log(stored, job, { case: 'progress', value: { ...progress, attempt: job.attempt } }, nowMs, true);
  }

  /** Jobs that joined the run show how far it is, less often than the run itself. */
  #follow({ job }: StoredJob, progress: Progress): void {
    const { flights, table, now } = this.#options;
    const flight = flights.of(job.jobId);
    if (flight?.leader !== job.jobId || flight.members.length === 0) return;
    const nowMs = now();
    if (nowMs - (this.#followedMs.get(flight.fingerprint) ?? 0) < FOLLOW_MS) return;
    this.#followedMs.set(flight.fingerprint, nowMs);
    const { step, estimatedFinishTime: estimatedFinish } = progress;
    for (const { jobId } of flight.members) {
      const stored = table.get(jobId)!;
      const percent = Math.max(stored.job.progress, progress.percent);
      const next = transition(stored.job, { type: 'progress', step, percent, estimatedFinish }, nowMs);
      this.#log(stored, next, { case: 'progress', value: { ...progress, percent, attempt: next.attempt } }, nowMs, true);
    }
  }

  log(stored: StoredJob, log: Log): StoredJob {
    const { job } = stored;
    if (isTerminal(job.status)) return stored;
    return this.#log(stored, { ...job }, { case: 'log', value: log }, this.#options.now(), false);
  }

  warn(stored: StoredJob, warnings: readonly string[]): StoredJob {
    const known = new Set(stored.job.warnings);
    if (isTerminal(stored.job.status) || warnings.every((warning) => known.has(warning))) return stored;
    return this.#step(stored, { type: 'warn', warnings });
  }

  /** The job refers to a blob before it has it as its result. Answers what to wait for where the blob is just being deleted. */
  pin(stored: StoredJob, key: string): StoredJob | Promise<void> {
    if (stored.blob === key) return stored;
    const { references, inputs } = this.#options;
    const deletion = references.deletionOf(key);
    if (deletion) return deletion;
    if (isTerminal(stored.job.status)) {
      // The run is for others: what it refers to lies beside the job that has left.
      inputs.take(stored.num, runBlob(key), key);
      references.moved(undefined, key);
      return stored;
    }
    const next: StoredJob = { ...stored, blob: key };
    this.#record(stored, next);
    references.moved(stored.blob, key);
    return next;
  }

  complete(stored: StoredJob, { keep, ...done }: Done): StoredJob {
    const { cached: results, now } = this.#options;
    // A copy somewhere else was made for this job alone.
    const result = { ...done.result, outputUri: undefined };
    if (isTerminal(stored.job.status)) {
      if (keep) results.put(keep.fingerprint, result, now() + keep.ttlMs);
      return this.#runEnded(stored, { type: 'succeed', ...done, result, cached: true });
    }
    if (stored.job.cancelRequestedAt) return this.cancelNow(stored, done.timings);
    // A job that ends well without having begun took its result from the cache.
    const cached = stored.job.status === JobStatus.QUEUED;
    if (keep) results.put(keep.fingerprint, result, now() + keep.ttlMs);
    const change: Change = { type: 'succeed', ...done, cached };
    return this.#step(stored, change, { node: undefined }, { verdict: { ...change, result, cached: true } });
  }

  fail(stored: StoredJob, { killedWorker, timings, ofRun, ...failure }: Failed): StoredJob {
    const ended = isTerminal(stored.job.status);
    if (stored.job.cancelRequestedAt && !ended) return this.cancelNow(stored, timings);
    const { now, random, queue } = this.#options;
    const kills = stored.kills + Number(killedWorker);
    const spent = stored.spent + 1;
    const poisonous = killedWorker && kills >= POISON_KILLS;
    const message = `${kills} workers died on this job, the last one so: ${failure.message}`;
    const told = poisonous ? { reason: 'JOB_KILLS_WORKERS', message, retryable: false } : failure;
    const verdict: Change | undefined = poisonous || (ofRun && !failure.retryable) ? failWith(told) : undefined;
    if (ended) return this.#runEnded({ ...stored, kills }, verdict);
    if (poisonous || !failure.retryable || spent >= stored.maxAttempts) {
      return this.#step(stored, { type: 'fail', failure: told, timings }, { node: undefined, spent, kills }, { verdict });
    }
    const nowMs = now();
    const readyAtMs = nowMs + retryDelayMs(spent, random());
    const next = this.#step(
      stored,
      { type: 'requeue', wait: WaitReason.RETRY, failure, timings },
      { node: undefined, spent, kills, readyAtMs },
    );
    queue.add(this.#entry(next), nowMs);
    return next;
  }

  refuse(stored: StoredJob, failure: Failure, timings: Timings | undefined): StoredJob {
    const verdict: Change = { type: 'refuse', failure, timings: undefined };
    if (isTerminal(stored.job.status)) return this.#runEnded(stored, verdict);
    return this.#step(stored, { type: 'refuse', failure, timings }, { node: undefined }, { verdict });
  }

  /** The holder of a lease says that nothing runs any more. */
  stopped(stored: StoredJob, timings: Timings | undefined): StoredJob {
    return isTerminal(stored.job.status) ? this.#runEnded(stored, undefined) : this.cancelNow(stored, timings);
  }

  /** Nothing runs for the job any more: canceled. */
  cancelNow(stored: StoredJob, timings: Timings | undefined): StoredJob {
    const next = this.#step(stored, { type: 'cancel', timings }, { node: undefined });
    this.#options.queue.remove(stored.job.jobId);
    return next;
  }

  /** What a caller's cancel does, whatever state the job is in. */
  cancel(stored: StoredJob, graceMs: number): StoredJob {
    if (isTerminal(stored.job.status)) return stored;
    if (stored.node === undefined) return this.cancelNow(stored, undefined);
    if (stored.job.cancelRequestedAt) return stored;
    const flight = this.#options.flights.of(stored.job.jobId);
    if (flight && flight.leader === stored.job.jobId && flight.members.length > 0) return this.#leaveRun(stored);
    return this.#step(stored, { type: 'request_cancel', graceMs });
  }

  /** The job leaves a run that others have joined, at once; the lease and what it refers to are theirs. */
  #leaveRun(stored: StoredJob): StoredJob {
    const { inputs, references } = this.#options;
    const next = this.#step(stored, { type: 'cancel', timings: undefined }, { node: undefined }, { leavesRun: true });
    if (stored.blob !== undefined) {
      inputs.take(stored.num, runBlob(stored.blob), stored.blob);
      references.moved(undefined, stored.blob);
    }
    return next;
  }

  /** A run that its first job had left has ended. */
  #runEnded(stored: StoredJob, verdict: Change | undefined): StoredJob {
    const { flights, inputs } = this.#options;
    const flight = flights.of(stored.job.jobId);
    if (flight) this.#leaveFlight(flight, stored, verdict);
    inputs.ended(stored.num);
    return stored;
  }

  giveBack(stored: StoredJob, wait: WaitReason, timings: Timings | undefined): StoredJob {
    if (isTerminal(stored.job.status)) return this.#runEnded(stored, undefined);
    if (stored.job.cancelRequestedAt) return this.cancelNow(stored, timings);
    const begun = stored.job.status === JobStatus.PROCESSING;
    return this.#return(stored, begun ? { type: 'requeue', wait, failure: undefined, timings } : { type: 'release', wait }, {});
  }

  /** A job that was held when the process ended: its lease is void. */
  recover(stored: StoredJob): StoredJob {
    if (stored.job.cancelRequestedAt) return this.cancelNow(stored, undefined);
    if (stored.job.status === JobStatus.QUEUED) return this.#return(stored, { type: 'release', wait: WaitReason.SLOT }, {});
    const spent = stored.spent + 1;
    const failure = { reason: 'SERVICE_RESTARTED', message: 'the service stopped while the job was running', retryable: true };
    if (spent >= stored.maxAttempts) {
      return this.#step(stored, { type: 'fail', failure, timings: undefined }, { node: undefined, spent });
    }
    return this.#return(stored, { type: 'requeue', wait: WaitReason.SLOT, failure, timings: undefined }, { spent });
  }

  /** Nobody has begun the job in time. */
  startTimeout(stored: StoredJob): StoredJob {
    const seconds = (stored.deadlineMs! - timestampMs(stored.job.createdAt!)) / 1000;
    const failure = { reason: 'START_TIMEOUT', message: `the engine had not started ${seconds} s after submission`, retryable: false };
    const next = this.#step(stored, { type: 'fail', failure, timings: undefined });
    this.#options.queue.remove(stored.job.jobId);
    return next;
  }

  purge(stored: StoredJob): StoredJob {
    const { job } = stored;
    if (!isTerminal(job.status)) {
      throw new JobsError('failed_precondition', 'JOB_NOT_TERMINAL', `${job.jobId} has not ended: cancel it first`, {
        metadata: { job_id: job.jobId },
      });
    }
    this.#options.uploads.purged(stored.num);
    if (job.result) this.#options.cached.purge(job.result.sha256);
    return job.purgedAt ? stored : this.#purge(stored);
  }

  /** The result goes, and the uploads of a caller who has not asked for it stay as long as they would. */
  #purge(stored: StoredJob): StoredJob {
    const next = this.#step(stored, { type: 'purge' }, {}, { silent: true });
    this.#options.lifetimes.purged(next.num, next.job);
    return next;
  }

  /** Whether `expire` has anything to do. */
  isExpireDue(jobTtlMs: number): boolean {
    const { lifetimes, cached, now } = this.#options;
    return cached.isExpireDue(now()) || lifetimes.results(now(), 1).length > 0 || lifetimes.ends(now() - jobTtlMs, 1).length > 0;
  }

  /** See `JobStore.expire`. */
  expire({ jobTtlMs, max }: { readonly jobTtlMs: number; readonly max: number }): Expired {
    const { table, lifetimes, cached, now } = this.#options;
    const nowMs = now();
    const entries = cached.expire(nowMs, max);
    const results = lifetimes.results(nowMs, max);
    for (const { jobId } of results) this.#purge(table.get(jobId)!);
    const ends = lifetimes.ends(nowMs - jobTtlMs, max);
    for (const end of ends) this.#forget(table.get(end.jobId)!, end);
    if (ends.length > 0) table.keepMarks();
    return { purged: results.length, forgotten: ends.length, more: results.length === max || ends.length === max || entries === max };
  }

  /** The job has never been. A result that is still there goes first. */
  #forget(found: StoredJob, end: Due): void {
    const { table, figures, events, uploads, batches, lifetimes, tx, now } = this.#options;
    const { job, tenant } = found.job.result ? this.#purge(found) : found;
    const { jobId, status } = job;
    this.#runEnded(found, undefined);
    lifetimes.forgotten(end);
    const key = job.request?.idempotencyKey;
    if (key !== undefined) this.#dropKeyOf.run(tenant, key, jobId);
    uploads.forgotten(found.num);
    table.delete(found);
    const known = job.batchId === undefined ? undefined : batches.forgotten(job.batchId);
    if (known) this.#dropKeyOf.run(known.tenant, known.key, job.batchId!);
    figures.moved(tenant, status, undefined, now());
    tx.committed(() => events.forgotten(jobId));
  }

  /** Back into the queue at its old place, the tenant not charged for the claim. */
  #return(stored: StoredJob, change: Change & { type: 'release' | 'requeue' }, patch: Partial<StoredJob>): StoredJob {
    const { queue, now } = this.#options;
    const next = this.#step(stored, change, { ...patch, node: undefined, readyAtMs: 0 }, { silent: change.type === 'release' });
    this.#moveFlow.run(next.tenant, queue.giveBack(this.#entry(next), now()));
    return next;
  }

  /** Applies a transition and writes its state event, unless it is silent. */
  #step(
    stored: StoredJob,
    change: Change,
    patch: Partial<StoredJob> = {},
    { silent = false, verdict, leavesRun = false }: StepOptions = {},
  ): StoredJob {
    const { table, figures, references, inputs, usage, uploads, lifetimes, flights, now } = this.#options;
    const nowMs = now();
    const job = transition(stored.job, change, nowMs);
    if (!silent) job.sequence++;
    const { node, blob: pinned } = { ...stored, ...patch };
    // What a run has pinned is let go with its lease, unless it has become the result.
    const blob = node === undefined ? job.result?.sha256 : pinned;
    const next: StoredJob = { ...stored, ...patch, job, blob, change: table.nextChange() };
    this.#record(stored, next);
    this.#moveBatch(stored.job, job, nowMs);
    references.moved(stored.blob, blob);
    usage.moved(stored.tenant, stored, next, nowMs);
    if (!silent) this.#append(next, { case: 'state', value: stateOf(job) }, nowMs);
    const flight = flights.of(job.jobId);
    const letsGo = stored.node !== undefined && node === undefined && change.type !== 'wait';
    if (flight && !leavesRun && (letsGo || isTerminal(job.status)) && !isTerminal(stored.job.status))
      this.#leaveFlight(flight, next, verdict);
    if (job.status !== stored.job.status) {
      figures.moved(stored.tenant, stored.job.status, job.status, nowMs);
      if (isTerminal(job.status)) {
        uploads.ended(stored.num);
        lifetimes.ended(stored.num, job);
        if (inputJobsOf(job.request!).length > 0) inputs.ended(stored.num);
        this.#settle(next);
      }
    }
    return next;
  }

  /**
   * A job leaves the run that it shares. The first one takes the others along where the run's word (`verdict`) goes for them; else the oldest of them
   * goes on with it, and what it was told of killed workers goes on too.
   */
  #leaveFlight(flight: Flight, { job, kills }: StoredJob, verdict: Change | undefined): void {
    const { flights, table, tx, onDeserted } = this.#options;
    const { leader, members, fingerprint } = flight;
    if (leader !== job.jobId) {
      const left = flights.leave(flight, job.jobId);
      // Nobody wants the run any more that its first job has left.
      if (left.members.length === 0 && isTerminal(table.get(leader)?.job.status ?? JobStatus.CANCELED)) {
        flights.end(left);
        tx.committed(() => onDeserted(leader));
      }
      return;
    }
    flights.end(flight);
    this.#followedMs.delete(fingerprint);
    if (verdict) {
      for (const member of members) this.#endWith(member, verdict);
      return;
    }
    const [heir, ...others] = members;
    if (!heir) return;
    flights.lead(fingerprint, heir.jobId, others);
    const stored = table.get(heir.jobId)!;
    this.#makeReady({ ...stored, kills: Math.max(stored.kills, kills) }, stored);
  }

  /** A job that joined a run ends as that did. */
  #endWith({ jobId, retentionMs, again }: Member, verdict: Change): void {
    const { table, queue } = this.#options;
    const stored = table.get(jobId)!;
    if (verdict.type === 'succeed' && again) {
      this.#makeReady(stored);
      return;
    }
    queue.remove(jobId);
    this.#step(stored, verdict.type === 'succeed' ? { ...verdict, timings: undefined, retentionMs } : verdict);
  }

  /** A job that waited is in the queue at its rank. `before`: as it is written. */
  #makeReady(stored: StoredJob, before = stored): void {
    const { queue, now } = this.#options;
    queue.remove(stored.job.jobId);
    const next = this.#step(before, { type: 'wait', wait: WaitReason.SLOT }, { readyAtMs: 0, kills: stored.kills });
    queue.add(this.#entry(next), now());
  }

  /** What the end of a job means for those that wait for it. Not by recursion: a chain may be long. */
  #settle(ended: StoredJob): void {
    if (this.#ended) {
      this.#ended.push(ended);
      return;
    }
    this.#ended = [ended];
    try {
      for (const { job } of this.#ended) {
        for (const id of this.#options.inputs.waiters(job.jobId)) this.#inputEnded(this.#options.table.get(id)!, job);
      }
    } finally {
      this.#ended = undefined;
    }
  }

  /** A job that was waited for has ended. The blob is referred to by that job, so it is there. */
  #inputEnded(waiter: StoredJob, of: Job): void {
    const { inputs, queue } = this.#options;
    const { jobId, result } = of;
    if (!result) {
      queue.remove(waiter.job.jobId);
      this.#step(waiter, { type: 'fail', failure: inputJobFailure(jobId, of), timings: undefined });
      return;
    }
    if (!inputs.met(waiter.num, jobId, result.sha256)) return;
    this.#makeReady(waiter);
  }

  /** Writes a progress or log event; `visible`: it changes what a list shows of the job. */
  #log(stored: StoredJob, job: Job, event: JobEvent['event'], nowMs: number, visible: boolean): StoredJob {
    const { table, events, tx, maxStoredEvents } = this.#options;
    job.sequence++;
    const trim = job.sequence - stored.trimmedTo > maxStoredEvents * 1.25;
    const trimmedTo = trim ? job.sequence - maxStoredEvents : stored.trimmedTo;
    const next: StoredJob = { ...stored, job, trimmedTo, change: visible ? table.nextChange() : stored.change };
    if (trim) {
      table.trimEvents(stored.num, trimmedTo);
      tx.committed(() => events.trimmed(job.jobId, trimmedTo));
    }
    this.#record(stored, next);
    this.#moveBatch(stored.job, job, nowMs);
    this.#append(next, event, nowMs);
    return next;
  }

  #moveBatch(before: Job, after: Job, nowMs: number): void {
    const move = batchMove(before, after);
    if (!move) return;
    const { batches, tx, stopBatches } = this.#options;
    if (batches.moved(move, nowMs)) tx.committed(stopBatches);
    // What is told of the job is told of its batch.
    tx.told(move.batchId, () => {});
  }

  #record(before: StoredJob, next: StoredJob): void {
    const { table, tx } = this.#options;
    const { jobId } = next.job;
    table.update(before, next);
    const claimed = this.#claims.get(jobId);
    if (claimed === undefined) return;
    this.#chargeFlow.run(next.tenant, claimed);
    this.#claims.delete(jobId);
    tx.undo(() => this.#claims.set(jobId, claimed));
  }

  #append(stored: StoredJob, body: JobEvent['event'], nowMs: number): void {
    const { table, events, tx } = this.#options;
    const { jobId, sequence, status } = stored.job;
    const event = create(JobEventSchema, { sequence, time: timestampFromMs(nowMs) });
    event.event = body;
    table.appendEvent(stored.num, event);
    tx.told(jobId, () => events.publish(jobId, event, isTerminal(status)));
  }

  #entry({ num, tenant, job, score, readyAtMs, deadlineMs }: StoredJob) {
    return { num, jobId: job.jobId, tenant, score, readyAtMs, deadlineMs };
  }
}
