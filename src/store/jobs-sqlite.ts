// The embedded job store: one SQLite file, one process. Owns the file, the timers and the leases. Always true here: a step is one
// transaction whose record, queue and events change together, and lease holders are told only after COMMIT. `submit`, a cancel, a pin and every end of
// a job survive power loss: callers and watchers are told when they are on the disk. What lies between them survives the end of the process.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { Batch } from '../jobs/batches.ts';
import type { JobsError } from '../jobs/errors.ts';
import { type Job, JobStatus, WaitReason } from '../jobs/job.ts';
import type {
  Claim,
  Expired,
  JobChange,
  JobFilter,
  JobId,
  JobPage,
  JobQuery,
  JobStore,
  Lease,
  Limits,
  NewBatch,
  NewJob,
  Overview,
  Sequence,
  Submitted,
  SubmittedBatch,
  Usage,
} from '../jobs/ports.ts';
import { leaseLost, shuttingDown } from '../jobs/steps.ts';
import { NO_WEBHOOK_RULES, type WebhookRules } from '../jobs/webhooks.ts';
import { BatchStops } from './batch-stops.ts';
import { BatchTable } from './batch-table.ts';
import { BlobReferences } from './blob-references.ts';
import { CachedResults } from './cached-results.ts';
import { SqliteDrains } from './drains-sqlite.ts';
import { Flights } from './flights.ts';
import { IdempotencyKeys } from './idempotency.ts';
import { InputJobs } from './input-jobs.ts';
import { JobChanges } from './job-changes.ts';
import { JobEvents } from './job-events.ts';
import { JobFigures } from './job-figures.ts';
import { hasEnded } from './job-filter.ts';
import { JobIntake } from './job-intake.ts';
import { JobNews } from './job-news.ts';
import { JobSteps } from './job-steps.ts';
import { JobTable, type StoredJob } from './job-table.ts';
import { SqliteKeys } from './keys-sqlite.ts';
import { type LeaseHost, SqliteLease } from './lease-sqlite.ts';
import { Lifetimes } from './lifetimes.ts';
import { type QueuedJob, ReadyQueue } from './ready-queue.ts';
import { LogSync, openDatabase, stillThere } from './sqlite.ts';
import { countStored, TenantUsage, USAGE_SCHEMA } from './tenant-usage.ts';
import { Tokens } from './tokens.ts';
import { SqliteUploads, UploadTable } from './upload-records.ts';
import { type WaitingClaim, WaitingClaims } from './waiting-claims.ts';
import { SqliteOutbox, WebhookTable } from './webhook-table.ts';
import { Writer } from './writer.ts';

const MIGRATIONS = join(import.meta.dirname, 'migrations');
/** The longest that a timer can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Before a start timeout that could not be written is tried again. */
const RETRY_WRITE_MS = 1000;

export interface SqliteJobStoreOptions {
  /** The file; its folder is made. */
  readonly path: string;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** In [0, 1); for retry delays. */
  readonly random?: () => number;
  /** Shares of tenants, 1 where absent. */
  readonly weights?: Readonly<Record<string, number>>;
  /** Jobs of a tenant that nodes may hold at once; undefined: any number. */
  readonly maxRunning?: (tenant: string) => number | undefined;
  /** Default: jobs that name no receiver are told to nobody, and there is no limit. */
  readonly webhooks?: WebhookRules;
  /** Told of each job that has ended, by whatever ended it. */
  readonly onEnded?: (job: Job) => void;
  /** Decoded jobs kept at hand. */
  readonly cacheSize?: number;
  /** Progress and log events kept of one job, over all its attempts. */
  readonly maxStoredEvents?: number;
  readonly log?: StoreLog;
}

/** The part of a pino logger that the store uses. */
export interface StoreLog {
  info(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

/** Opens the store; brings back to the queue what was running when it was last in use. Errors are sentences that can be shown. */
export async function openSqliteJobStore(options: SqliteJobStoreOptions): Promise<JobStore> {
  mkdirSync(dirname(options.path), { recursive: true });
  const { db, migrated } = openUpToDate(options.path);
  if (migrated) options.log?.info(migrated, `the job store was brought from schema ${migrated.from} to ${migrated.to}`);
  const log = new LogSync(options.path);
  try {
    const store = new SqliteJobStore(db, log, options);
    await store.recover();
    return store;
  } catch (error) {
    log.close();
    db.close();
    throw error;
  }
}

/** Brings the file to the schema of this version, as opening it does. Answers from which to which; undefined: there is no file. Errors as of opening. */
export function migrateSqliteJobStore(path: string): { readonly from: number; readonly to: number } | undefined {
  if (!existsSync(path)) return undefined;
  const { db, migrated } = openUpToDate(path);
  const { user_version: schema } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  db.close();
  return migrated ?? { from: schema, to: schema };
}

function openUpToDate(path: string): ReturnType<typeof openDatabase> {
  const opened = openDatabase(path, MIGRATIONS);
  if (opened.migrated && opened.migrated.from < USAGE_SCHEMA) countStored(opened.db);
  return opened;
}

class SqliteJobStore implements JobStore {
  readonly id: string;
  readonly uploads: SqliteUploads;
  readonly keys: SqliteKeys;
  readonly drains: SqliteDrains;
  readonly #db: DatabaseSync;
  readonly #logSync: LogSync;
  readonly #now: () => number;
  readonly #writer: Writer;
  readonly #queue: ReadyQueue;
  readonly #table: JobTable;
  readonly #figures: JobFigures;
  readonly #events: JobEvents;
  readonly #changes: JobChanges;
  readonly #references: BlobReferences;
  readonly webhooks: SqliteOutbox;
  readonly #usage: TenantUsage;
  readonly #batches: BatchTable;
  readonly #stops: BatchStops;
  readonly #maxRunning: (tenant: string) => number | undefined;
  readonly #intake: JobIntake;
  readonly #steps: JobSteps;
  readonly #leaseHost: LeaseHost;
  readonly #ping;
  readonly #stillThere: () => void;
  readonly #log: StoreLog | undefined;
  /** By job id; only these may write. */
  readonly #leases = new Map<JobId, SqliteLease>();
  readonly #waiting = new WaitingClaims();
  #timer: { readonly atMs: number; readonly handle: NodeJS.Timeout } | undefined;
  #notBeforeMs = 0;
  /** Start timeouts are on their way to the disk. */
  #timingOut = false;
  /** Since `#lookAhead`. */
  #headTaken = false;
  #closing: Promise<void> | undefined;

  constructor(db: DatabaseSync, logSync: LogSync, options: SqliteJobStoreOptions) {
    this.#db = db;
    this.#logSync = logSync;
    this.#now = options.now ?? Date.now;
    this.#log = options.log;
    const undo = (back: () => void) => this.#writer.undo(back);
    this.#stillThere = stillThere(options.path);
    this.#writer = new Writer(db, {
      sync: () => logSync.sync(),
      beforeDurable: this.#stillThere,
      followUp: { due: () => this.#canServe(), run: () => this.#serve(), failed: (error) => this.#failClaims(error) },
      beforeCommit: () => this.#figures.write(),
      afterGroup: () => {
        this.#arm();
        this.#lookAhead();
      },
      afterTold: () => this.#changes.changed(),
      onBroken: (error) => this.#break(error),
      onDefect: (error) => this.#log?.error({ err: error }, 'the job store could not finish a step as it must'),
    });
    const tokens = new Tokens(secretOf(db));
    this.id = tokens.storeId;
    this.#usage = new TenantUsage(db, undo);
    this.keys = new SqliteKeys(
      db,
      (durable, run) => this.#step(durable, run),
      () => this.#assertOpen(),
    );
    this.drains = new SqliteDrains(
      db,
      (durable, run) => this.#step(durable, run),
      () => this.#assertOpen(),
    );
    this.#maxRunning = options.maxRunning ?? (() => undefined);
    this.#queue = new ReadyQueue({ weights: options.weights, mayRun: (tenant) => this.#mayRun(tenant), undo });
    this.#table = new JobTable(db, { cacheSize: options.cacheSize ?? 4096, tokens, undo });
    this.#figures = new JobFigures(db, undo);
    this.#events = new JobEvents({
      job: (jobId) => {
        const stored = this.#table.get(jobId);
        return stored && { num: stored.num, job: this.#present(stored), ended: hasEnded(stored), trimmedTo: stored.trimmedTo };
      },
      events: (num, after, limit, known) => this.#table.events(num, after, limit, known),
      lastingEvents: (num, after, before, limit, known) => this.#table.lastingEvents(num, after, before, limit, known),
      untold: (jobId) => this.#writer.untold(jobId),
      now: this.#now,
    });
    this.#changes = new JobChanges({
      table: this.#table,
      tokens,
      present: (stored) => this.#present(stored),
      untold: (jobId) => this.#writer.untold(jobId),
    });
    this.#references = new BlobReferences(db);
    this.#batches = new BatchTable(db);
    const webhooks = new WebhookTable(db);
    this.webhooks = new SqliteOutbox(webhooks, (durable, run) => this.#step(durable, run), this.#now);
    const uploads = new UploadTable(db, this.#now);
    this.uploads = new SqliteUploads(uploads, (durable, run) => this.#step(durable, run));
    const parts = {
      db,
      table: this.#table,
      queue: this.#queue,
      figures: this.#figures,
      news: new JobNews({
        table: this.#table,
        events: this.#events,
        batches: this.#batches,
        stopBatches: () => this.#stops.stopMarked(),
        webhooks,
        webhookRules: options.webhooks ?? NO_WEBHOOK_RULES,
        deliveryDue: () => this.webhooks.onDue(),
        ended: options.onEnded ?? (() => {}),
        tx: this.#writer,
      }),
      inputs: new InputJobs(db, this.#references),
      keys: new IdempotencyKeys(db),
      uploads,
      batches: this.#batches,
      usage: this.#usage,
      now: this.#now,
    };
    this.#intake = new JobIntake(parts);
    this.#steps = new JobSteps({
      ...parts,
      events: this.#events,
      references: this.#references,
      cached: new CachedResults(db, this.#references),
      flights: new Flights(undo),
      lifetimes: new Lifetimes(db),
      webhooks,
      onDeserted: (leader) => this.#leases.get(leader)?.end('cancel_requested'),
      tx: this.#writer,
      random: options.random ?? Math.random,
      maxStoredEvents: options.maxStoredEvents ?? 10_000,
    });
    this.#stops = new BatchStops({
      batches: this.#batches,
      step: (run) => this.#step(true, run),
      cancel: (id, graceMs) => void this.#cancel(id, graceMs),
      failed: (error, batchId) => {
        if (this.#closing) return;
        this.#log?.error({ err: error, batchId }, 'the rest of a batch could not be canceled; tried again in a few seconds');
      },
    });
    this.#leaseHost = {
      holds: (lease) => this.#holds(lease),
      step: (lease, kind, run) => this.#leaseStep(lease, kind, run),
      holdBlob: (lease, key) => {
        this.#assertOpen();
        this.#assertHeld(lease);
        return this.#references.deletionOf(key) ?? this.#references.hold(key);
      },
      preview: (jobId, preview) => this.#events.preview(jobId, preview),
    };
    this.#ping = db.prepare('SELECT 1 FROM meta LIMIT 1');
  }

  async submit(job: NewJob, limits: Limits): Promise<Submitted> {
    return await this.#step(true, () => {
      const { stored, created } = this.#intake.submit(job, limits);
      return { job: this.#present(stored), created };
    });
  }

  async submitted(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Job | undefined> {
    this.#assertOpen();
    const stored = this.#intake.submitted(tenant, idempotencyKey, requestDigest, this.#now());
    return stored && this.#present(await this.#shown(stored));
  }

  async get(id: JobId): Promise<Job | undefined> {
    this.#assertOpen();
    const stored = this.#table.get(id);
    return stored && this.#present(this.#writer.untold(id) > 0 ? await this.#shown(stored) : stored);
  }

  async list(query: JobQuery): Promise<JobPage> {
    this.#assertOpen();
    const { jobs, nextPageToken } = this.#table.list(query);
    const watchToken = this.#changes.token();
    if (jobs.some(({ job }) => this.#writer.untold(job.jobId) > 0)) await this.#writer.allTold();
    return { jobs: jobs.map((stored) => this.#present(stored)), nextPageToken, watchToken };
  }

  async cancel(id: JobId, graceMs: number): Promise<Job | undefined> {
    return await this.#step(true, () => {
      const next = this.#cancel(id, graceMs);
      return next && this.#present(next);
    });
  }

  /** Inside a step. */
  #cancel(id: JobId, graceMs: number): StoredJob | undefined {
    const stored = this.#table.get(id);
    if (!stored) return undefined;
    const next = this.#steps.cancel(stored, graceMs);
    // One that has left its run to others has ended, and its lease goes on.
    if (next.job.cancelRequestedAt && !hasEnded(next)) {
      this.#writer.committed(() => this.#leases.get(next.job.jobId)?.end('cancel_requested'));
    }
    return next;
  }

  async submitBatch(batch: NewBatch, limits: Limits): Promise<SubmittedBatch> {
    return await this.#step(true, () => this.#intake.submitBatch(batch, limits));
  }

  async submittedBatch(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Batch | undefined> {
    this.#assertOpen();
    const batch = this.#intake.submittedBatch(tenant, idempotencyKey, requestDigest, this.#now());
    return batch && (await this.batch(batch.batchId));
  }

  async batch(id: string): Promise<Batch | undefined> {
    this.#assertOpen();
    const batch = this.#batches.get(id);
    if (batch && (this.#writer.untold(id) > 0 || this.#writer.untold(batch.members[0]!.jobId) > 0)) await this.#writer.allTold();
    return batch;
  }

  async cancelBatch(id: string, graceMs: number): Promise<Batch | undefined> {
    if (await this.#step(true, () => this.#batches.cancel({ batchId: id, graceMs }, this.#now()))) await this.#stops.stop(id, graceMs);
    return await this.batch(id);
  }

  watchBatch(id: string, token: string | undefined, signal: AbortSignal): AsyncIterable<JobChange> {
    this.#assertOpen();
    return this.#changes.watch({ batchId: id }, token, signal, () => this.#batches.isFinished(id));
  }

  async purge(id: JobId): Promise<Job | undefined> {
    return await this.#step(true, () => {
      const found = this.#table.get(id);
      return found && this.#present(this.#steps.purge(found));
    });
  }

  async expire(limits: { readonly jobTtlMs: number; readonly max: number }): Promise<Expired> {
    this.#assertOpen();
    // Mostly there is nothing to do, and a step would wait for the disk.
    if (!this.#steps.isExpireDue(limits.jobTtlMs)) return { purged: 0, forgotten: 0, more: false };
    return await this.#step(true, () => this.#steps.expire(limits));
  }

  async reclaim(remove: (key: string) => Promise<void>): Promise<void> {
    await this.#references.reclaim((run) => this.#step(false, run), remove);
  }

  async claim(want: Claim, signal: AbortSignal): Promise<Lease | undefined> {
    if (this.#closing || signal.aborted) return undefined;
    return await this.#waiting.wait(want, signal, () => this.#writer.wake());
  }

  watch(id: JobId, after: Sequence | undefined, signal: AbortSignal): AsyncIterable<JobEvent> {
    this.#assertOpen();
    return this.#events.watch(id, after, signal);
  }

  watchJobs(filter: JobFilter, token: string | undefined, signal: AbortSignal): AsyncIterable<JobChange> {
    this.#assertOpen();
    return this.#changes.watch(filter, token, signal);
  }

  async overview(windowMs: number): Promise<Overview> {
    this.#assertOpen();
    return this.#figures.overview(windowMs, this.#now());
  }

  async usage(tenant: string): Promise<Usage> {
    this.#assertOpen();
    return {
      queued: this.#figures.queued(tenant),
      running: this.#usage.held(tenant),
      gpuSecondsToday: this.#usage.gpuSeconds(tenant, this.#now()),
      storedBytes: this.#usage.storedBytes(tenant),
    };
  }

  async ping(): Promise<void> {
    this.#assertOpen();
    this.#writer.assertSound();
    this.#stillThere();
    this.#ping.get();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #holds(lease: SqliteLease): boolean {
    return this.#leases.get(lease.job.jobId) === lease;
  }

  #assertHeld(lease: SqliteLease): void {
    if (!this.#holds(lease)) throw leaseLost(lease.job.jobId);
  }

  async #leaseStep(...[lease, kind, run]: Parameters<LeaseHost['step']>): Promise<Job> {
    const { jobId } = lease.job;
    const step = () => {
      this.#assertHeld(lease);
      const stored = this.#table.get(jobId);
      if (!stored) throw leaseLost(jobId);
      const next = run(this.#steps, stored);
      const ends = typeof kind.ends === 'function' ? kind.ends() : kind.ends;
      if (ends) {
        this.#leases.delete(jobId);
        this.#writer.undo(() => this.#leases.set(jobId, lease));
      }
      this.#writer.committed(() => {
        lease.job = next.job;
        if (ends) lease.letGo();
      });
      return this.#present(next);
    };
    return await this.#step(kind.durable, step, jobId);
  }

  #step<T>(durable: boolean, run: () => T, of?: JobId): Promise<T> {
    this.#assertOpen();
    return this.#writer.step(durable, run, of);
  }

  /** What is about to be on the disk is not shown before it is there. */
  async #shown(stored: StoredJob): Promise<StoredJob> {
    if (this.#writer.untold(stored.job.jobId) > 0) await this.#writer.allTold();
    return stored;
  }

  /** The job as a caller sees it. */
  #present({ job, tenant, held }: StoredJob): Job {
    if (job.status !== JobStatus.QUEUED) return job;
    const waitsForOwn = job.waitReason === WaitReason.SLOT && !held && !this.#mayRun(tenant);
    return {
      ...job,
      waitReason: waitsForOwn ? WaitReason.QUOTA : job.waitReason,
      queuePosition: this.#queue.position(job.jobId) ?? 0,
    };
  }

  #mayRun(tenant: string): boolean {
    const most = this.#maxRunning(tenant);
    return most === undefined || this.#usage.held(tenant) < most;
  }

  #canServe(): boolean {
    for (const { want } of this.#waiting.open()) if (this.#queue.has(want.above)) return true;
    return false;
  }

  /** Gives waiting claims what there is, in the transaction of the steps that brought it. */
  #serve(): void {
    for (const claim of this.#waiting.open()) this.#serveOne(claim);
  }

  #serveOne(claim: WaitingClaim): void {
    const { node, above } = claim.want;
    const claimed = this.#steps.claim(node, above);
    if (!claimed) return;
    const { stored, rank } = claimed;
    const { jobId } = stored.job;
    const lease = new SqliteLease(this.#leaseHost, stored, rank, this.#steps.inputsOf(stored));
    this.#leases.set(jobId, lease);
    this.#headTaken = true;
    claim.take();
    this.#writer.undo(() => {
      this.#leases.delete(jobId);
      claim.putBack();
    });
    this.#writer.committed(() => claim.settle(lease));
  }

  /** Once a job was claimed, the next one's record is read while nobody waits for it: behind a long queue it is on the disk alone. */
  #lookAhead(): void {
    if (!this.#headTaken) return;
    this.#headTaken = false;
    setImmediate(() => {
      const next = this.#closing ? undefined : this.#queue.first();
      try {
        if (next) this.#table.queued(next);
      } catch {
        // The claim that needs it will meet the same error, and has somebody to tell.
      }
    });
  }

  #failClaims(error: unknown): void {
    for (const claim of this.#waiting.open()) if (this.#queue.has(claim.want.above)) claim.fail(error);
  }

  /** The disk has failed: nobody is left waiting for what will not come. */
  #break(error: JobsError): void {
    this.#log?.error(
      { err: error.cause },
      'the disk has failed to keep the job store: nothing more is written until the service is restarted',
    );
    this.#failClaims(error);
    this.#events.fail(error);
    this.#changes.fail(error);
  }

  /** One timer, for the retry or the start timeout that is due first. */
  #arm(): void {
    if (this.#closing) return;
    const deadlineMs = this.#timingOut ? undefined : this.#queue.nextDeadlineMs();
    const nextMs = Math.min(this.#queue.nextReadyMs() ?? Number.POSITIVE_INFINITY, deadlineMs ?? Number.POSITIVE_INFINITY);
    const atMs = nextMs === Number.POSITIVE_INFINITY ? undefined : Math.max(nextMs, this.#notBeforeMs);
    if (atMs === this.#timer?.atMs) return;
    clearTimeout(this.#timer?.handle);
    this.#timer = undefined;
    if (atMs === undefined) return;
    const handle = setTimeout(() => this.#onTimer(), Math.min(MAX_TIMER_MS, Math.max(0, atMs - this.#now())));
    handle.unref();
    this.#timer = { atMs, handle };
  }

  #onTimer(): void {
    this.#timer = undefined;
    const nowMs = this.#now();
    this.#queue.promote(nowMs);
    if (!this.#timingOut) void this.#timeOut(this.#queue.overdue(nowMs));
    this.#writer.wake();
  }

  /** Not again before it is done: until then all of them are still overdue. */
  async #timeOut(overdue: readonly QueuedJob[]): Promise<void> {
    if (overdue.length === 0) return;
    this.#timingOut = true;
    const written = overdue.map(async ({ jobId }) => {
      try {
        await this.#writer.step(true, () => {
          this.#steps.startTimeout(this.#table.get(jobId)!);
        });
      } catch (error) {
        this.#notBeforeMs = this.#now() + RETRY_WRITE_MS;
        this.#log?.error({ err: error, jobId }, 'a start timeout could not be written; trying again');
      }
    });
    await Promise.all(written);
    this.#timingOut = false;
    this.#arm();
  }

  /** Brings memory to what the file says, then makes good what an end of the process left behind. */
  async recover(): Promise<void> {
    const flows = this.#db.prepare('SELECT tenant, virtual FROM flows').all() as { tenant: string; virtual: number }[];
    const heldIds: JobId[] = [];
    this.#queue.restore(flows, this.#queuedAsFound(heldIds), this.#now());
    const held = heldIds.map((jobId) => this.#table.get(jobId)!).sort((a, b) => a.num - b.num);
    for (const { tenant, job } of held) {
      this.#figures.found(tenant, job.status);
      this.#usage.found(tenant);
    }
    const waiting = this.#queue.waiting();
    if (held.length + waiting.length > 0 || this.#steps.hasLeftRuns()) {
      await this.#step(true, () => {
        for (const stored of held) this.#steps.recover(stored);
        for (const { jobId } of waiting) this.#steps.rejoin(jobId);
        this.#steps.forgetLeftRuns();
      });
    }
    this.#arm();
    this.#stops.stopMarked();
    if (held.length > 0) this.#log?.info({ jobs: held.length }, 'jobs that were held when the service ended go on');
  }

  *#queuedAsFound(held: JobId[]): Iterable<QueuedJob> {
    for (const found of this.#table.unended()) {
      if ('held' in found) {
        held.push(found.held);
        continue;
      }
      this.#figures.found(found.queued.tenant, JobStatus.QUEUED);
      yield found.queued;
    }
  }

  #assertOpen(): void {
    if (this.#closing) throw shuttingDown();
  }

  async #close(): Promise<void> {
    this.#stops[Symbol.dispose]();
    // What was asked for before is still done and answered.
    await this.#writer.finish();
    clearTimeout(this.#timer?.handle);
    this.#waiting.end();
    this.#events.fail(shuttingDown());
    this.#changes.fail(shuttingDown());
    for (const lease of this.#leases.values()) lease.end('closed');
    this.#leases.clear();
    this.#logSync.close();
    this.#db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    this.#db.close();
  }
}

/** The store's own secret, made with the file: tokens of another store are told from ours. */
function secretOf(db: DatabaseSync): Uint8Array {
  db.prepare('INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)').run('token_secret', randomBytes(32));
  return (db.prepare('SELECT value FROM meta WHERE key = ?').get('token_secret') as { value: Uint8Array }).value;
}
