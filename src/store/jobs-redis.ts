// The job store of a fleet: Redis, any number of processes. Owns the connection, the clock and the leases of this process, and puts the parts in redis/
// together. Always true here: a step is one Lua script whose record, queue and events change together, worked out from the newest version of the record or not
// made at all; a lease is judged by Redis's clock, and its holder stops before it can have run out; a call that was begun is answered before the store closes.
import { randomBytes } from 'node:crypto';
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { Batch } from '../jobs/batches.ts';
import { type Job, JobStatus } from '../jobs/job.ts';
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
import { purged, RESTARTED, recovered, shuttingDown } from '../jobs/steps.ts';
import { NO_WEBHOOK_RULES, type WebhookRules } from '../jobs/webhooks.ts';
import { redisPlace } from '../redis-place.ts';
import { RedisBatches } from './redis/batches.ts';
import { CHANGES_PAGE, RedisChanges } from './redis/changes.ts';
import { checkServer } from './redis/checks.ts';
import { RedisClaims } from './redis/claims.ts';
import { StoreClock } from './redis/clock.ts';
import { type ConnectionLog, RedisConnection, type Reply } from './redis/connection.ts';
import { Debts } from './redis/debts.ts';
import { DRAINS, RedisDrains } from './redis/drains.ts';
import { readOverview, readUsage } from './redis/figures.ts';
import { Followers } from './redis/followers.ts';
import { RedisIntake } from './redis/intake.ts';
import { isToBeStopped, RedisJobs, type Viewed } from './redis/jobs.ts';
import { RedisKeys } from './redis/keys.ts';
import type { LeaseHost, RedisLease } from './redis/lease.ts';
import { RedisLifetimes } from './redis/lifetimes.ts';
import { RedisNodes } from './redis/nodes.ts';
import { RedisOutbox } from './redis/outbox.ts';
import { RedisPages } from './redis/pages.ts';
import { type Changed, decodeOutcome, present } from './redis/record.ts';
import { SCHEMA, schemaProblem } from './redis/schema.ts';
import { Tending } from './redis/tending.ts';
import { RedisUploads } from './redis/uploads.ts';
import { JobWatches } from './redis/watch.ts';
import { Tokens } from './tokens.ts';

export interface RedisJobStoreOptions {
  /** `redis://`, `rediss://`, also with `+cluster` or `+sentinel`. */
  readonly url: string;
  /** Names the fleet: in the hash tag that every key begins with. */
  readonly fleet?: string;
  /** In [0, 1); for retry delays. */
  readonly random?: () => number;
  /** Shares of tenants, 1 where absent; undefined: as the fleet has them. */
  readonly weights?: Readonly<Record<string, number>>;
  /** Jobs of a tenant that nodes may hold at once; undefined: any number. Kept with the tenant's last submit, for all nodes. */
  readonly maxRunning?: (tenant: string) => number | undefined;
  /** Milliseconds since 1970; default: Redis's clock, by which leases are judged in any case. */
  readonly now?: () => number;
  /** Default: jobs that name no receiver are told to nobody, and there is no limit. */
  readonly webhooks?: WebhookRules;
  /** Told of each job that this process's step has ended; of one whose answer was lost on the way perhaps not. */
  readonly onEnded?: (job: Job) => void;
  /** Decoded jobs kept at hand. */
  readonly cacheSize?: number;
  /** Progress and log events kept of one job, over all its attempts. */
  readonly maxStoredEvents?: number;
  /** How long a lease lasts without renewal; a third of it is left between two renewals. */
  readonly leaseMs?: number;
  /** How long a call waits for Redis. */
  readonly timeoutMs?: number;
  readonly log?: ConnectionLog;
}

/** Connects, checks the server, opens or makes the fleet's store. Errors are sentences that can be shown. */
export async function openRedisJobStore(options: RedisJobStoreOptions): Promise<RedisJobStore> {
  const place = redisPlace(options.url);
  const redis = new RedisConnection({ place, fleet: options.fleet ?? 'ffjobs', log: options.log, timeoutMs: options.timeoutMs });
  await redis.open();
  try {
    for (const warning of await checkServer(redis)) options.log?.warn({ store: place.shown }, warning);
    const clock = new StoreClock();
    const weights = Object.entries(options.weights ?? {}).flatMap(([tenant, weight]) => [tenant, `${weight}`]);
    const sent = performance.now();
    const opened = await redis.run('open', [`${SCHEMA}`, randomBytes(32), options.weights ? '1' : '', ...weights]);
    const [schema, secret, now, migrating] = opened as [Buffer, Buffer, number, Buffer | null];
    clock.learn(now, sent, performance.now());
    const problem = schemaProblem(Number(schema), migrating === null ? undefined : Number(migrating), place.shown);
    if (problem !== undefined) throw new Error(problem);
    const store = new RedisJobStore(redis, clock, new Tokens(secret), options);
    await store.start();
    return store;
  } catch (error) {
    redis.disconnect();
    throw error;
  }
}

export class RedisJobStore implements JobStore {
  readonly id: string;
  readonly keys: RedisKeys;
  /** Where counts that the fleet shares may lie: an `ioredis` client, and what their keys begin with. */
  readonly counters: { readonly client: unknown; readonly prefix: string };
  readonly uploads: RedisUploads;
  readonly nodes: RedisNodes;
  readonly drains: RedisDrains;
  readonly webhooks: RedisOutbox;
  readonly #redis: RedisConnection;
  readonly #clock: StoreClock;
  readonly #options: RedisJobStoreOptions;
  /** Names this process in the tokens of its leases. */
  readonly #instance = randomBytes(9).toString('base64url');
  readonly #jobs: RedisJobs;
  readonly #intake: RedisIntake;
  readonly #claims: RedisClaims;
  readonly #tending: Tending;
  readonly #debts: Debts;
  readonly #followers: Followers;
  readonly #lifetimes: RedisLifetimes;
  readonly #pages: RedisPages;
  readonly #watches: JobWatches;
  readonly #changes: RedisChanges;
  readonly #batches: RedisBatches;
  /** By token. */
  readonly #leases = new Map<string, RedisLease>();
  /** How many calls have been asked for and not answered; a store that closes waits for them. */
  #pending = 0;
  #onIdle: () => void = () => {};
  #closing: Promise<void> | undefined;

  constructor(redis: RedisConnection, clock: StoreClock, tokens: Tokens, options: RedisJobStoreOptions) {
    this.id = tokens.storeId;
    this.#redis = redis;
    this.#clock = clock;
    this.#options = options;
    const { log, webhooks: webhookRules = NO_WEBHOOK_RULES, maxRunning } = options;
    const leaseMs = options.leaseMs ?? 30_000;
    const now = () => this.#now();
    const track = <T>(call: Promise<T>) => this.#track(call);
    this.counters = { client: redis.client, prefix: `${redis.prefix}rate:` };
    this.keys = new RedisKeys((args) => this.#call(() => redis.run('keys', args)));
    this.uploads = new RedisUploads((args) => this.#call(() => redis.run('uploads', args)), now);
    this.webhooks = new RedisOutbox((args) => this.#call(() => redis.run('outbox', args)), now);
    this.nodes = new RedisNodes(redis, this.#instance, now);
    this.drains = new RedisDrains({
      run: (args) => this.#call(() => redis.run('drains', args)),
      read: () => this.#call(() => redis.hash(DRAINS)),
    });
    const jobs = new RedisJobs({
      redis,
      now,
      webhookRules,
      cacheSize: options.cacheSize ?? 4096,
      committed: (changed, owed, nowMs) => this.#committed(changed, owed, nowMs),
      ended: options.onEnded ?? (() => {}),
    });
    this.#jobs = jobs;
    this.#batches = new RedisBatches((name, args) => redis.run(name, args), {
      cancel: async (id, graceMs) => void (await this.#cancel(id, graceMs)),
      onError: (error) => this.#closing || log?.error({ err: error }, 'the rest of a batch could not be canceled; trying again'),
    });
    this.#intake = new RedisIntake({
      redis,
      jobs,
      batches: this.#batches,
      now,
      webhookRules,
      maxRunning,
      dueIn: (ms) => this.#tending.arm(ms),
    });
    this.#debts = new Debts({
      redis,
      jobs,
      track,
      failed: (error) => log?.warn({ err: error }, 'what is owed to waiting jobs could not be written; trying again'),
    });
    this.#tending = new Tending({
      redis,
      jobs,
      clock,
      leaseMs,
      leases: this.#leases,
      owed: () => this.#debts.pay(),
      swept: () => {
        this.#batches.stopMarked();
        this.#lookAgain();
      },
      failed: (error) => log?.warn({ err: error }, 'the job store could not be tended; trying again'),
    });
    this.#claims = new RedisClaims({
      redis,
      jobs,
      instance: this.#instance,
      leaseMs,
      host: this.#leaseHost(),
      given: (lease) => {
        this.#leases.set(lease.token, lease);
        this.#tending.arm(leaseMs / 3);
      },
      dueAt: (ms) => this.#tending.arm(ms - now()),
      track,
    });
    this.#followers = new Followers({ redis, jobs, now });
    this.#lifetimes = new RedisLifetimes({ redis, jobs, now });
    this.#pages = new RedisPages({ redis, jobs, tokens });
    this.#watches = new JobWatches({
      redis,
      now,
      job: async (jobId) => {
        const viewed = await jobs.view(jobId);
        return viewed && { job: present(viewed.stored, viewed.position), trimmedTo: viewed.stored.trimmedTo };
      },
      onDefect: (error) => log?.error({ err: error }, 'an event could not be read'),
    });
    this.#changes = new RedisChanges({
      tokens,
      latest: async () => Number((await redis.get('change')) ?? 0),
      after: async (change) => {
        const rows = (await redis.run('changes', [change, CHANGES_PAGE])) as [Buffer, number | null, Reply][];
        return rows.map(([number, position, record]) => {
          const stored = jobs.decode(record);
          return { change: Number(number), stored, shown: present(stored, position) };
        });
      },
      listen: () => redis.listen('changed', () => this.#changes.changed()),
      forget: () => redis.forget('changed'),
    });
  }

  #leaseHost(): LeaseHost {
    const { log, random, maxStoredEvents } = this.#options;
    return {
      commit: (before, changed, fence) => this.#jobs.commit(before, changed, fence),
      look: async (fingerprint) => {
        const [result, leader] = (await this.#redis.run('share', ['look', fingerprint, this.#now()])) as [Buffer | null, Buffer | null];
        const outcome = result ? decodeOutcome(result.toString()) : undefined;
        return { kept: outcome?.type === 'succeed' ? outcome : undefined, leader: leader?.toString() };
      },
      follow: (fingerprint, progress) => {
        if (this.#closing || !this.#followers.isDue(fingerprint)) return;
        this.#track(this.#followers.tell(fingerprint, progress)).catch((error) =>
          log?.warn({ err: error }, 'jobs that joined a run could not be told how far it is'),
        );
      },
      sendPreview: (jobId, preview) => {
        if (!this.#closing) this.#watches.sendPreview(jobId, preview);
      },
      now: () => this.#now(),
      random: random ?? Math.random,
      maxStoredEvents: maxStoredEvents ?? 10_000,
      over: (lease) => void this.#leases.delete(lease.token),
      assertOpen: () => this.#assertOpen(),
    };
  }

  async start(): Promise<void> {
    this.#redis.onListening = () => this.#lookAgain();
    await this.#redis.listen(`holder:${this.#instance}`, (message) => this.#leases.get(message.toString())?.end('cancel_requested'));
    await this.#redis.listen('ready', () => this.#claims.news());
    await this.#redis.listen('hooks', () => this.webhooks.onDue());
    await this.#redis.listen(DRAINS, () => this.drains.onChange());
    await this.#tending.turn();
  }

  submit(job: NewJob, limits: Limits): Promise<Submitted> {
    return this.#call(() => this.#intake.submit(job, limits));
  }

  submitted(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Job | undefined> {
    return this.#call(() => this.#intake.submitted(tenant, idempotencyKey, requestDigest));
  }

  submitBatch(batch: NewBatch, limits: Limits): Promise<SubmittedBatch> {
    return this.#call(() => this.#intake.submitBatch(batch, limits));
  }

  submittedBatch(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Batch | undefined> {
    return this.#call(() => this.#intake.submittedBatch(tenant, idempotencyKey, requestDigest));
  }

  batch(id: string): Promise<Batch | undefined> {
    return this.#call(() => this.#batches.get(id));
  }

  cancelBatch(id: string, graceMs: number): Promise<Batch | undefined> {
    return this.#call(() => this.#batches.cancel(id, graceMs, this.#now()));
  }

  watchBatch(id: string, token: string | undefined, signal: AbortSignal): AsyncIterable<JobChange> {
    this.#assertOpen();
    return this.#changes.watch({ batchId: id }, token, signal, () => this.#batches.isFinished(id));
  }

  get(id: JobId): Promise<Job | undefined> {
    return this.#call(() => this.#jobs.shown(id));
  }

  list(query: JobQuery): Promise<JobPage> {
    return this.#call(() => this.#pages.list(query));
  }

  cancel(id: JobId, graceMs: number): Promise<Job | undefined> {
    return this.#call(async () => {
      const done = await this.#cancel(id, graceMs);
      return done && present(done.stored, done.position);
    });
  }

  async #cancel(id: JobId, graceMs: number): Promise<Viewed | undefined> {
    const done = await this.#jobs.cancel(id, graceMs);
    if (done?.stored.token && isToBeStopped(done.stored)) this.#leases.get(done.stored.token)?.end('cancel_requested');
    return done;
  }

  purge(id: JobId): Promise<Job | undefined> {
    return this.#call(async () => {
      let already = false;
      const done = await this.#jobs.change(id, (stored) => {
        const step = purged(stored);
        already = step === undefined;
        return step;
      });
      // Its result had gone with its time, and the uploads that it named had stayed.
      if (done && already) await this.uploads.purged(id);
      return done && present(done.stored, done.position);
    });
  }

  expire(limits: { readonly jobTtlMs: number; readonly max: number }): Promise<Expired> {
    return this.#call(() => this.#lifetimes.expire(limits));
  }

  reclaim(remove: (key: string) => Promise<void>): Promise<void> {
    return this.#call(() => this.#lifetimes.reclaim(remove));
  }

  claim(want: Claim, signal: AbortSignal): Promise<Lease | undefined> {
    return this.#claims.claim(want, signal);
  }

  watch(id: JobId, after: Sequence | undefined, signal: AbortSignal): AsyncIterable<JobEvent> {
    this.#assertOpen();
    return this.#watches.watch(id, after, signal);
  }

  watchJobs(filter: JobFilter, token: string | undefined, signal: AbortSignal): AsyncIterable<JobChange> {
    this.#assertOpen();
    return this.#changes.watch(filter, token, signal);
  }

  overview(windowMs: number): Promise<Overview> {
    return this.#call(() => readOverview(this.#redis, windowMs, this.#now()));
  }

  usage(tenant: string): Promise<Usage> {
    return this.#call(() => readUsage(this.#redis, tenant, this.#now()));
  }

  ping(): Promise<void> {
    return this.#call(async () => void (await this.#redis.run('alive', [])));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** What follows for others from a step that was written. */
  #committed({ next, queue, lease }: Changed, owed: boolean, nowMs: number): void {
    if (owed) this.#debts.pay();
    if (next.job.status === JobStatus.FAILED && next.job.batchId !== undefined) this.#batches.stopMarked();
    if (typeof queue === 'object') this.#tending.arm(queue.readyAtMs - nowMs);
    if (lease === 'end' && next.deadlineMs !== undefined) this.#tending.arm(next.deadlineMs - nowMs);
  }

  /** Whatever was said may have been missed. */
  #lookAgain(): void {
    if (this.#closing) return;
    this.#watches.sweep();
    this.#changes.changed();
    this.#claims.news();
    this.drains.onChange();
  }

  #now(): number {
    return this.#options.now?.() ?? this.#clock.now();
  }

  #assertOpen(): void {
    if (this.#closing) throw shuttingDown();
  }

  async #call<T>(run: () => Promise<T>): Promise<T> {
    this.#assertOpen();
    this.#pending++;
    try {
      return await run();
    } finally {
      this.#answered();
    }
  }

  async #track<T>(call: Promise<T>): Promise<T> {
    this.#pending++;
    try {
      return await call;
    } finally {
      this.#answered();
    }
  }

  #answered(): void {
    if (--this.#pending === 0) this.#onIdle();
  }

  async #close(): Promise<void> {
    this.#tending.end();
    this.#claims.end();
    this.#debts.end();
    this.#watches.fail(shuttingDown());
    this.#changes.fail(shuttingDown());
    // What was asked for before is still done and answered.
    if (this.#pending > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    await this.#tending.settled();
    const held = [...this.#leases.values()];
    for (const lease of held) lease.end('closed');
    // Nobody has to wait until they run out.
    await Promise.allSettled(held.map((lease) => lease.release((stored) => recovered(stored, RESTARTED))));
    await this.#batches.settled();
    this.#redis.disconnect();
  }
}
