// What each step of a job's life does to record, queue, events and figures, all inside the caller's transaction. Always true here: what a step makes of the
// job is `jobs/steps.ts`'s word, and `#apply` alone writes it down, with all that follows from it for queue, blobs, uploads, batch and like jobs; a step refuses
// before its first write.
import type { DatabaseSync } from 'node:sqlite';
import type { Log, Progress } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { EngineInfo, Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { inputJobsOf } from '../jobs/chains.ts';
import type { Fingerprint } from '../jobs/fingerprint.ts';
import { type Failure, isTerminal, type Job, JobStatus, transition, type WaitReason } from '../jobs/job.ts';
import type { Done, Expired, Failed, JobId, Match, Matched, Rank } from '../jobs/ports.ts';
import {
  after,
  begun,
  canceledByCaller,
  completed,
  ended,
  endedWith,
  expired,
  FOLLOW_MS,
  failed,
  followed,
  givenBack,
  inherited,
  inputFailed,
  JOINED,
  logged,
  type Outcome,
  progressed,
  purged,
  RESTARTED,
  ready,
  recovered,
  refused,
  type Said,
  type Step,
  startTimedOut,
  trimmedTo,
  verdictOf,
  warned,
  wonBy,
} from '../jobs/steps.ts';
import type { BatchTable } from './batch-table.ts';
import type { BlobReferences } from './blob-references.ts';
import type { CachedResults } from './cached-results.ts';
import type { Flight, Flights } from './flights.ts';
import type { IdempotencyKeys } from './idempotency.ts';
import type { InputJobs } from './input-jobs.ts';
import type { JobEvents } from './job-events.ts';
import type { JobFigures } from './job-figures.ts';
import type { JobNews } from './job-news.ts';
import { type JobTable, queuedAs, type StoredJob } from './job-table.ts';
import type { Due, Lifetimes } from './lifetimes.ts';
import type { ReadyQueue } from './ready-queue.ts';
import type { TenantUsage } from './tenant-usage.ts';
import type { UploadTable } from './upload-records.ts';
import type { WebhookTable } from './webhook-table.ts';
import type { Writer } from './writer.ts';

export interface JobStepsOptions {
  readonly db: DatabaseSync;
  readonly table: JobTable;
  readonly queue: ReadyQueue;
  readonly figures: JobFigures;
  readonly events: JobEvents;
  readonly news: JobNews;
  readonly references: BlobReferences;
  readonly inputs: InputJobs;
  readonly cached: CachedResults;
  readonly flights: Flights;
  readonly lifetimes: Lifetimes;
  readonly keys: IdempotencyKeys;
  readonly usage: TenantUsage;
  readonly uploads: UploadTable;
  readonly batches: BatchTable;
  readonly webhooks: WebhookTable;
  /** Told of a run that nobody wants any more, once that is committed. */
  readonly onDeserted: (leader: JobId) => void;
  readonly tx: Pick<Writer, 'undo' | 'committed'>;
  readonly now: () => number;
  /** In [0, 1). */
  readonly random: () => number;
  /** Progress and log events kept of one job; about a quarter more before they are trimmed. */
  readonly maxStoredEvents: number;
}

const NONE: ReadonlyMap<JobId, string> = new Map();

/** Stands among a job's inputs for the blob of a run that it has left. */
function runBlob(key: string): string {
  return `:${key}`;
}

export class JobSteps {
  readonly #options: JobStepsOptions;
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
    this.#chargeFlow = db.prepare(
      'INSERT INTO flows (tenant, virtual) VALUES (?, ?) ON CONFLICT DO UPDATE SET virtual = max(virtual, excluded.virtual)',
    );
    this.#moveFlow = db.prepare('INSERT OR REPLACE INTO flows (tenant, virtual) VALUES (?, ?)');
  }

  /** The next job in order goes to a node. Nothing is written: a claim does not outlive the process, and a job that was claimed waits again then. */
  claim(node: string, above: Rank | undefined): { readonly stored: StoredJob; readonly rank: Rank } | undefined {
    const { queue, table, usage, tx, now } = this.#options;
    const taken = queue.take(above);
    if (!taken) return undefined;
    const before = table.queued(taken.job);
    const { jobId } = before.job;
    const nowMs = now();
    const stored: StoredJob = { ...before, node, held: true, job: transition(before.job, { type: 'claim' }, nowMs) };
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
    return this.#apply(stored, begun(stored, run));
  }

  /** See `Lease.match`. A job that joins is in the queue again, and waits there for the run. */
  match(stored: StoredJob, { fingerprint, runs, retentionMs, again }: Match): { readonly stored: StoredJob; readonly matched: Matched } {
    const { flights, cached, references, now } = this.#options;
    const { jobId } = stored.job;
    const own = flights.of(jobId);
    if (own?.fingerprint === fingerprint) return { stored, matched: { kind: 'run' } };
    // It was to go on with a run, and its inputs are others now.
    if (own) this.#leaveFlight(own, stored, undefined);
    const kept = runs ? undefined : cached.get(fingerprint, now());
    if (kept) {
      const next: StoredJob = { ...stored, blob: kept.result.sha256 };
      this.#record(stored, next);
      references.moved(stored.blob, next.blob);
      return { stored: next, matched: { kind: 'cached', ...kept } };
    }
    // Its holder is about to be told; in a run of others nobody would hear of the cancel any more.
    if (stored.job.cancelRequestedAt) return { stored, matched: { kind: 'run' } };
    const flight = flights.get(fingerprint);
    if (!flight) flights.lead(fingerprint, jobId);
    if (!flight || runs) return { stored, matched: { kind: 'run' } };
    flights.join(flight, { jobId, num: stored.num, retentionMs, again });
    return { stored: this.#apply(stored, JOINED), matched: { kind: 'joined' } };
  }

  /** A job that waits as no job whose result it takes makes it: it had joined a run, of which nothing is known any more. */
  rejoin(jobId: JobId): void {
    const { table, inputs } = this.#options;
    const stored = table.get(jobId)!;
    if (!inputs.isWaiting(stored.num)) this.#apply(stored, ready(stored));
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
    const nowMs = this.#options.now();
    return this.#say(stored, progressed(stored, progress, progress.percent, nowMs), nowMs);
  }

  /** Jobs that joined the run show how far it is, less often than the run itself. */
  #follow({ job }: StoredJob, progress: Progress): void {
    const { flights, table, now } = this.#options;
    const flight = flights.of(job.jobId);
    if (flight?.leader !== job.jobId || flight.members.length === 0) return;
    const nowMs = now();
    if (nowMs - (this.#followedMs.get(flight.fingerprint) ?? 0) < FOLLOW_MS) return;
    this.#followedMs.set(flight.fingerprint, nowMs);
    for (const { jobId } of flight.members) {
      const stored = table.get(jobId)!;
      this.#say(stored, followed(stored, progress, nowMs), nowMs);
    }
  }

  log(stored: StoredJob, log: Log): StoredJob {
    return this.#say(stored, logged(stored, log), this.#options.now());
  }

  warn(stored: StoredJob, warnings: readonly string[]): StoredJob {
    return this.#apply(stored, warned(stored, warnings));
  }

  /** The job refers to a blob before it has it as its result. Answers what to wait for where the blob is just being deleted. */
  pin(stored: StoredJob, key: string): StoredJob | Promise<void> {
    if (stored.blob === key) return stored;
    const { references } = this.#options;
    const deletion = references.deletionOf(key);
    if (deletion) return deletion;
    if (isTerminal(stored.job.status)) {
      this.#keepForRun(stored, key);
      return stored;
    }
    const next: StoredJob = { ...stored, blob: key };
    this.#record(stored, next);
    references.moved(stored.blob, key);
    return next;
  }

  /** The run is for others: what it refers to lies beside the job that has left. */
  #keepForRun({ num }: StoredJob, key: string): void {
    const { inputs, references } = this.#options;
    inputs.take(num, runBlob(key), key);
    references.moved(undefined, key);
  }

  complete(stored: StoredJob, done: Done): StoredJob {
    const { cached, now } = this.#options;
    const { keep } = done;
    const won = wonBy(stored, done);
    if (won && keep) cached.put(keep.fingerprint, won, now() + keep.ttlMs);
    return this.#apply(stored, completed(stored, done), won);
  }

  fail(stored: StoredJob, failure: Failed): StoredJob {
    const { now, random } = this.#options;
    return this.#apply(stored, failed(stored, failure, now(), random()), verdictOf(stored, failure));
  }

  refuse(stored: StoredJob, failure: Failure, timings: Timings | undefined): StoredJob {
    return this.#apply(stored, refused(stored, failure, timings), { type: 'refuse', failure });
  }

  /** The holder of a lease says that nothing runs any more. */
  stopped(stored: StoredJob, timings: Timings | undefined): StoredJob {
    return this.#apply(stored, ended(stored, timings));
  }

  giveBack(stored: StoredJob, wait: WaitReason, timings: Timings | undefined): StoredJob {
    return this.#apply(stored, givenBack(stored, wait, timings));
  }

  /** What a caller's cancel does, whatever state the job is in. */
  cancel(stored: StoredJob, graceMs: number): StoredJob {
    const { jobId } = stored.job;
    const flight = this.#options.flights.of(jobId);
    return this.#apply(stored, canceledByCaller(stored, graceMs, flight?.leader === jobId ? flight.members.length : 0));
  }

  /** A job that was held when the process ended: its lease is void. */
  recover(stored: StoredJob): StoredJob {
    return this.#apply(stored, recovered(stored, RESTARTED));
  }

  /** Nobody has begun the job in time, unless somebody has. */
  startTimeout(stored: StoredJob): StoredJob {
    return this.#apply(stored, startTimedOut(stored));
  }

  purge(stored: StoredJob): StoredJob {
    const step = purged(stored);
    if (step) return this.#apply(stored, step);
    // Its result had gone with its time, and the uploads that it named had stayed.
    this.#options.uploads.purged(stored.num);
    return stored;
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
    for (const { jobId } of results) this.#expire(table.get(jobId)!);
    const ends = lifetimes.ends(nowMs - jobTtlMs, max);
    for (const end of ends) this.#forget(table.get(end.jobId)!, end);
    if (ends.length > 0) table.keepMarks();
    return { purged: results.length, forgotten: ends.length, more: results.length === max || ends.length === max || entries === max };
  }

  #expire(stored: StoredJob): StoredJob {
    return this.#apply(stored, expired(stored));
  }

  /** The job has never been. A result that is still there goes first. */
  #forget(found: StoredJob, end: Due): void {
    const { table, figures, events, uploads, batches, lifetimes, keys, webhooks, tx, now } = this.#options;
    const { job, tenant } = found.job.result ? this.#expire(found) : found;
    const { jobId, status } = job;
    this.#runEnded(found, undefined);
    lifetimes.forgotten(end);
    const key = job.request?.idempotencyKey;
    if (key !== undefined) keys.drop(tenant, key, jobId);
    uploads.forgotten(found.num);
    table.delete(found);
    webhooks.forgotten(jobId);
    const known = job.batchId === undefined ? undefined : batches.forgotten(job.batchId);
    if (known) keys.drop(known.tenant, known.key, job.batchId!);
    figures.moved(tenant, status, undefined, now());
    tx.committed(() => events.forgotten(jobId));
  }

  /** Makes a step; undefined: there is none to make. `outcome`: what the end of the job's run is for those that joined it. */
  #apply(stored: StoredJob, step: Step | undefined, outcome?: Outcome): StoredJob {
    if (!step) return stored;
    const { table, news, figures, references, usage, flights, now } = this.#options;
    const nowMs = now();
    const { event, ...made } = after(stored, step, nowMs);
    if (!step.change) return this.#runEnded({ ...stored, kills: made.kills }, outcome);
    const { job } = made;
    // One that has ended is held by nobody here: its run goes on for the others, and what that refers to lies beside it.
    const leavesRun = made.held && isTerminal(job.status);
    const held = made.held && !leavesRun;
    const next: StoredJob = {
      ...stored,
      ...made,
      held,
      node: held ? stored.node : undefined,
      blob: leavesRun ? undefined : made.blob,
      readyAtMs: readyAt(step.queue) ?? stored.readyAtMs,
      change: table.nextChange(),
    };
    this.#record(stored, next);
    news.moved(stored.job, job, nowMs);
    references.moved(stored.blob, next.blob);
    if (leavesRun && stored.blob !== undefined) this.#keepForRun(stored, stored.blob);
    usage.moved(stored.tenant, stored, next, nowMs);
    if (event) news.event(next, event, nowMs);
    const flight = isTerminal(stored.job.status) || leavesRun ? undefined : flights.of(job.jobId);
    const letsGo = stored.held && !held && step !== JOINED;
    if (flight && (letsGo || isTerminal(job.status))) this.#leaveFlight(flight, next, outcome);
    if (job.status !== stored.job.status) {
      figures.moved(stored.tenant, stored.job.status, job.status, nowMs);
      news.status(stored.job, job, nowMs);
      if (isTerminal(job.status)) this.#hasEnded(next);
    }
    if (step.change.type === 'purge') this.#hasGone(stored, next, step.keepsUploads ?? false);
    this.#place(next, step.queue, nowMs);
    return next;
  }

  #hasEnded(stored: StoredJob): void {
    const { uploads, lifetimes, inputs } = this.#options;
    const { num, job } = stored;
    uploads.ended(num);
    lifetimes.ended(num, job);
    if (inputJobsOf(job.request!).length > 0) inputs.ended(num);
    this.#settle(stored);
  }

  #hasGone(before: StoredJob, { num, job }: StoredJob, keepsUploads: boolean): void {
    const { uploads, cached, lifetimes } = this.#options;
    lifetimes.purged(num, job);
    if (keepsUploads) return;
    uploads.purged(num);
    if (before.job.result) cached.purge(before.job.result.sha256);
  }

  /** Where the job is in the queue after a step. */
  #place(stored: StoredJob, place: Step['queue'], nowMs: number): void {
    const { queue } = this.#options;
    const { job, tenant } = stored;
    if (place === 'ready' || isTerminal(job.status)) queue.remove(job.jobId);
    if (place === undefined) return;
    const entry = queuedAs(stored);
    if (place === 'back' || (place !== 'ready' && place.free)) this.#moveFlow.run(tenant, queue.giveBack(entry, nowMs));
    else queue.add(entry, nowMs);
  }

  /** A run that its first job had left has ended. */
  #runEnded(stored: StoredJob, outcome: Outcome | undefined): StoredJob {
    const { flights, inputs } = this.#options;
    const flight = flights.of(stored.job.jobId);
    if (flight) this.#leaveFlight(flight, stored, outcome);
    inputs.ended(stored.num);
    return stored;
  }

  /**
   * A job leaves the run that it shares. The first one takes the others along where there is a word (`outcome`) that goes for them; else the oldest of them
   * goes on with it.
   */
  #leaveFlight(flight: Flight, { job, kills }: StoredJob, outcome: Outcome | undefined): void {
    const { flights, table, tx, onDeserted } = this.#options;
    const { leader, members, fingerprint } = flight;
    if (leader !== job.jobId) {
      const left = flights.leave(flight, job.jobId);
      // Nobody wants the run any more that its first job has left.
      if (left.members.length === 0 && isTerminal(table.get(leader)?.job.status ?? JobStatus.CANCELED)) {
        flights.end(left);
        this.#followedMs.delete(fingerprint);
        tx.committed(() => onDeserted(leader));
      }
      return;
    }
    flights.end(flight);
    this.#followedMs.delete(fingerprint);
    if (outcome) {
      for (const member of members) {
        const stored = table.get(member.jobId)!;
        this.#apply(stored, endedWith(stored, outcome, member));
      }
      return;
    }
    const [heir, ...others] = members;
    if (!heir) return;
    flights.lead(fingerprint, heir.jobId, others);
    const stored = table.get(heir.jobId)!;
    this.#apply(stored, inherited(stored, kills));
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
    const { jobId, result } = of;
    if (!result) this.#apply(waiter, inputFailed(waiter, jobId, of));
    else if (this.#options.inputs.met(waiter.num, jobId, result.sha256)) this.#apply(waiter, ready(waiter));
  }

  /** Writes what an engine says of its run; undefined: nothing. */
  #say(stored: StoredJob, said: Said | undefined, nowMs: number): StoredJob {
    if (!said) return stored;
    const { table, events, news, tx, maxStoredEvents } = this.#options;
    const { job, event, visible } = said;
    const trimmed = trimmedTo(job, stored.trimmedTo, maxStoredEvents);
    const next: StoredJob = { ...stored, job, trimmedTo: trimmed, change: visible ? table.nextChange() : stored.change };
    if (trimmed > stored.trimmedTo) {
      table.trimEvents(stored.num, trimmed);
      tx.committed(() => events.trimmed(job.jobId, trimmed));
    }
    this.#record(stored, next);
    news.moved(stored.job, job, nowMs);
    news.event(next, event, nowMs);
    return next;
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
}

/** When a job is ready that goes to such a place in the queue. */
function readyAt(place: Step['queue']): number | undefined {
  return typeof place === 'object' ? place.readyAtMs : place && 0;
}
