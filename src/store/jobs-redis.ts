// The job store of a fleet: Redis, any number of processes. Owns the connection, the clock, the timers and the leases of this process. Always true
// here: a step is one Lua script whose record, queue and events change together, worked out from the newest version of the record or not made at
// all; a lease is judged by Redis's clock, and its holder stops before it can have run out.
import { randomBytes } from 'node:crypto';
import { toBinary } from '@bufbuild/protobuf';
import { type JobEvent, JobEventSchema, type Preview, type Progress } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobRequestSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type Batch, membersOf } from '../jobs/batches.ts';
import { checkBatchInputs, checkInputJobs, inputJobsOf } from '../jobs/chains.ts';
import { fieldInItem, JobsError } from '../jobs/errors.ts';
import type { Fingerprint } from '../jobs/fingerprint.ts';
import { type Failure, isTerminal, type Job, JobStatus, newJob, rankOf, stateOf, transition, WaitReason } from '../jobs/job.ts';
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
import {
  canceledByCaller,
  checkUsage,
  dayOf,
  endedWith,
  expired,
  inputFailed,
  keyReused,
  purged,
  quotaExceeded,
  ready,
  recovered,
  type Step,
  shuttingDown,
  startTimedOut,
} from '../jobs/steps.ts';
import { uploadRefused, uploadsOf } from '../jobs/uploads.ts';
import { filterScope, inScope, inState, pageTokenRefused } from './job-filter.ts';
import { Recent } from './recent.ts';
import { encodeMembers, RedisBatches } from './redis/batches.ts';
import { CHANGES_PAGE, RedisChanges } from './redis/changes.ts';
import { checkServer, SCHEMA, schemaProblem } from './redis/checks.ts';
import { StoreClock } from './redis/clock.ts';
import { type ConnectionLog, parseRedisUrl, RedisConnection, type Reply } from './redis/connection.ts';
import { RedisKeys } from './redis/keys.ts';
import { type Committed, type LeaseHost, RedisLease } from './redis/lease.ts';
import { RedisNodes } from './redis/nodes.ts';
import {
  afterCommit,
  applyStep,
  type Changed,
  decodeJob,
  decodeOutcome,
  encodeCommit,
  encodeFacts,
  encodeState,
  eventOf,
  present,
  type RedisJob,
} from './redis/record.ts';
import { RedisUploads } from './redis/uploads.ts';
import { JobWatches } from './redis/watch.ts';
import { overviewOf } from './throughput.ts';
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

/** Before a lease runs out by the store's clock its holder is told that it is lost, so that its run has stopped by then. */
const LEASE_MARGIN_MS = 2_000;
/** What was said over PUBLISH and got lost is found after this at the latest. */
const SWEEP_MS = 5_000;
/** Between two looks of jobs that joined a run at how far it is. */
const FOLLOW_MS = 1_000;
/** Jobs made good in one turn of the sweep. */
const SWEPT_AT_ONCE = 100;
/** How long a blob may take to be deleted before somebody else may try. */
const DELETION_MS = 600_000;
const NODE_LOST: Failure = { reason: 'NODE_LOST', message: 'the node that ran the job was lost', retryable: true };
const RESTARTED: Failure = { reason: 'SERVICE_RESTARTED', message: 'the service stopped while the job was running', retryable: true };
const STATUSES = [JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.REFUSED];

/** Connects, checks the server, opens or makes the fleet's store. Errors are sentences that can be shown. */
export async function openRedisJobStore(options: RedisJobStoreOptions): Promise<RedisJobStore> {
  const place = parseRedisUrl(options.url);
  if (!place) throw new Error('this is no URL of a Redis: redis://USER:PASSWORD@HOST:PORT/DATABASE');
  const redis = new RedisConnection({ place, fleet: options.fleet ?? 'ffjobs', log: options.log, timeoutMs: options.timeoutMs });
  await redis.open();
  try {
    for (const warning of await checkServer(redis)) options.log?.warn({ store: place.shown }, warning);
    const clock = new StoreClock();
    const weights = Object.entries(options.weights ?? {}).flatMap(([tenant, weight]) => [tenant, `${weight}`]);
    const sent = performance.now();
    const opened = await redis.run('open', [`${SCHEMA}`, randomBytes(32), options.weights ? '1' : '', ...weights]);
    const [schema, secret, now] = opened as [Buffer, Buffer, number];
    clock.learn(now, sent, performance.now());
    const problem = schemaProblem(Number(schema), place.shown);
    if (problem !== undefined) throw new Error(problem);
    const store = new RedisJobStore(redis, clock, new Tokens(secret), options);
    await store.start();
    return store;
  } catch (error) {
    redis.disconnect();
    throw error;
  }
}

interface Waiter {
  readonly want: Claim;
  readonly settle: (lease: Lease | undefined) => void;
  readonly fail: (error: unknown) => void;
  /** A claim for it is under way. */
  asking: boolean;
  aborted: boolean;
}

export class RedisJobStore implements JobStore {
  readonly keys: RedisKeys;
  /** Where counts that the fleet shares may lie: an `ioredis` client, and what their keys begin with. */
  readonly counters: { readonly client: unknown; readonly prefix: string };
  readonly uploads: RedisUploads;
  readonly nodes: RedisNodes;
  readonly #redis: RedisConnection;
  readonly #clock: StoreClock;
  readonly #tokens: Tokens;
  readonly #options: RedisJobStoreOptions;
  readonly #leaseMs: number;
  /** Names this process in the tokens of its leases. */
  readonly #instance = randomBytes(9).toString('base64url');
  readonly #known: Recent<RedisJob>;
  readonly #watches: JobWatches;
  readonly #changes: RedisChanges;
  readonly #batches: RedisBatches;
  readonly #host: LeaseHost;
  /** By token. */
  readonly #leases = new Map<string, RedisLease>();
  readonly #waiters = new Set<Waiter>();
  /** Calls that have been asked for and not answered; a store that closes waits for them. */
  readonly #pending = new Set<Promise<unknown>>();
  #serial = 0;
  /** Counts what may have brought a job for a waiting claim. */
  #news = 0;
  #timer: { readonly at: number; readonly handle: NodeJS.Timeout } | undefined;
  #tending: Promise<void> | undefined;
  #lastSweep = 0;
  #reclaiming: Promise<void> = Promise.resolve();
  #paying: Promise<void> | undefined;
  /** When those that joined a run were last told how far it is; the runs of late. */
  readonly #followed = new Recent<number>(1000);
  /** Something has come to be owed since it was last looked at. */
  #owing = false;
  #closing: Promise<void> | undefined;

  constructor(redis: RedisConnection, clock: StoreClock, tokens: Tokens, options: RedisJobStoreOptions) {
    this.#redis = redis;
    this.#clock = clock;
    this.#tokens = tokens;
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? 30_000;
    this.#known = new Recent(options.cacheSize ?? 4096);
    this.counters = { client: redis.client, prefix: `${redis.prefix}rate:` };
    this.keys = new RedisKeys((args) => this.#call(() => redis.run('keys', args)));
    const now = () => this.#now();
    this.uploads = new RedisUploads((args) => this.#call(() => redis.run('uploads', args)), now);
    this.nodes = new RedisNodes(redis, this.#instance, now);
    this.#watches = new JobWatches({
      redis,
      now,
      job: async (jobId) => {
        const viewed = await this.#view(jobId);
        return viewed && { job: present(viewed.stored, viewed.position), trimmedTo: viewed.stored.trimmedTo };
      },
      onDefect: (error) => options.log?.error({ err: error }, 'an event could not be read'),
    });
    this.#changes = new RedisChanges({
      tokens,
      latest: async () => Number((await redis.get('change')) ?? 0),
      after: async (change) => {
        const rows = (await redis.run('changes', [change, CHANGES_PAGE])) as [Buffer, number | null, Reply][];
        return rows.map(([number, position, record]) => {
          const stored = this.#decode(record);
          return { change: Number(number), stored, shown: present(stored, position) };
        });
      },
      listen: () => redis.listen('changed', () => this.#changes.changed()),
      forget: () => redis.forget('changed'),
    });
    this.#batches = new RedisBatches((name, args) => redis.run(name, args), {
      cancel: async (id, graceMs) => void (await this.#cancel(id, graceMs)),
      onError: (error) => this.#closing || options.log?.error({ err: error }, 'the rest of a batch could not be canceled; trying again'),
    });
    this.#host = {
      commit: (before, changed, fence) => this.#commit(before, changed, fence),
      look: async (fingerprint) => {
        const [result, leader] = (await this.#redis.run('share', ['look', fingerprint, this.#now()])) as [Buffer | null, Buffer | null];
        const outcome = result ? decodeOutcome(result.toString()) : undefined;
        return { result: outcome?.type === 'succeed' ? outcome.result : undefined, leader: leader?.toString() };
      },
      follow: (fingerprint, progress) => this.#follow(fingerprint, progress),
      sendPreview: (jobId, preview) => this.#sendPreview(jobId, preview),
      now,
      random: options.random ?? Math.random,
      maxStoredEvents: options.maxStoredEvents ?? 10_000,
      over: (lease) => void this.#leases.delete(lease.token),
      assertOpen: () => this.#assertOpen(),
    };
  }

  async start(): Promise<void> {
    this.#redis.onListening = () => this.#lookAgain();
    await this.#redis.listen(`holder:${this.#instance}`, (message) => this.#leases.get(message.toString())?.end('cancel_requested'));
    await this.#redis.listen('ready', () => this.#onReady());
    await this.#tend();
  }

  submit(job: NewJob, limits: Limits): Promise<Submitted> {
    return this.#call(() => this.#submit(job, limits));
  }

  submitted(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Job | undefined> {
    return this.#call(async () => {
      const jobId = await this.#knownAs(tenant, idempotencyKey, requestDigest);
      return jobId === undefined ? undefined : await this.#shown(jobId);
    });
  }

  submitBatch(batch: NewBatch, limits: Limits): Promise<SubmittedBatch> {
    return this.#call(() => this.#submitBatch(batch, limits));
  }

  submittedBatch(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Batch | undefined> {
    return this.#call(async () => {
      const batchId = await this.#knownAs(tenant, idempotencyKey, requestDigest);
      return batchId === undefined ? undefined : await this.#batches.get(batchId);
    });
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

  /** What an idempotency key stands for. */
  async #knownAs(tenant: string, idempotencyKey: string, requestDigest: string): Promise<string | undefined> {
    const known = (await this.#redis.get(`idempotency:${Buffer.byteLength(tenant)}:${tenant}:${idempotencyKey}`))?.toString();
    if (known === undefined) return undefined;
    const at = known.indexOf(' ');
    const id = known.slice(at + 1);
    if (known.slice(0, at) !== requestDigest) throw keyReused(idempotencyKey, id);
    return id;
  }

  get(id: JobId): Promise<Job | undefined> {
    return this.#call(() => this.#shown(id));
  }

  list(query: JobQuery): Promise<JobPage> {
    return this.#call(() => this.#list(query));
  }

  cancel(id: JobId, graceMs: number): Promise<Job | undefined> {
    return this.#call(async () => {
      const done = await this.#cancel(id, graceMs);
      return done && present(done.stored, done.position);
    });
  }

  async #cancel(id: JobId, graceMs: number): Promise<{ stored: RedisJob; position: number | null } | undefined> {
    const done = await this.#change(id, (stored) => canceledByCaller(stored, graceMs));
    // One that has left its run to others has ended, and its lease goes on.
    const token = done && !isTerminal(done.stored.job.status) && done.stored.job.cancelRequestedAt && done.stored.token;
    if (token) this.#leases.get(token)?.end('cancel_requested');
    return done;
  }

  purge(id: JobId): Promise<Job | undefined> {
    return this.#call(async () => {
      const done = await this.#change(id, purged);
      return done && present(done.stored, done.position);
    });
  }

  /** Each job in a step of its own: nodes that sweep at once do the same, and nothing twice. */
  expire({ jobTtlMs, max }: { readonly jobTtlMs: number; readonly max: number }): Promise<Expired> {
    return this.#call(async () => {
      const nowMs = this.#now();
      const entries = (await this.#redis.run('share', ['expire', nowMs, max])) as number;
      const [results, ends] = (await this.#redis.run('due', [nowMs, nowMs - jobTtlMs, max])) as [Buffer[], Buffer[]];
      for (const id of results) await this.#change(id.toString(), expired);
      let forgotten = 0;
      for (const id of ends) forgotten += await this.#forget(id.toString());
      return { purged: results.length, forgotten, more: results.length === max || ends.length === max || entries === max };
    });
  }

  /** One at a time, so that whoever has asked is answered when what was marked before is gone. */
  reclaim(remove: (key: string) => Promise<void>): Promise<void> {
    return this.#call(() => {
      const reclaimed = this.#reclaiming.then(() => this.#reclaim(remove));
      this.#reclaiming = reclaimed.catch(() => {});
      return reclaimed;
    });
  }

  async claim(want: Claim, signal: AbortSignal): Promise<Lease | undefined> {
    if (this.#closing || signal.aborted) return undefined;
    return await new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiters.delete(waiter);
        signal.removeEventListener('abort', onAbort);
      };
      const waiter: Waiter = {
        want,
        settle: (lease) => {
          leave();
          resolve(lease);
        },
        fail: (error) => {
          leave();
          reject(error);
        },
        asking: false,
        aborted: false,
      };
      // What has been asked for in Redis is waited for: it may be a job, which then would be nobody's.
      const onAbort = () => {
        waiter.aborted = true;
        if (!waiter.asking) waiter.settle(undefined);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiters.add(waiter);
      void this.#ask(waiter);
    });
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
    return this.#call(async () => {
      const nowMs = this.#now();
      const rows = (await this.#redis.run('overview', [])) as [Buffer, ...number[]][];
      const counts = rows.map(([tenant, ...jobs]) => ({ tenant: tenant.toString(), jobs: new Map(STATUSES.map((s, i) => [s, jobs[i]!])) }));
      return await overviewOf({
        counts,
        windowMs,
        nowMs,
        ended: async (hours) => {
          const tables = await this.#redis.hashes(hours.map((hour) => `ended:${hour}`));
          return tables.flatMap((table) =>
            Object.entries(table).map(([field, jobs]) => {
              const [minute, status] = field.split(':').map(Number) as [number, JobStatus];
              return { minute, status, jobs: Number(jobs) };
            }),
          );
        },
      });
    });
  }

  usage(tenant: string): Promise<Usage> {
    return this.#call(async () => {
      const [queued, running, storedBytes, gpuMs] = (await this.#redis.run('usage', [tenant, dayOf(this.#now())])) as [
        number,
        number,
        number,
        number,
      ];
      return { queued, running, storedBytes, gpuSecondsToday: gpuMs / 1000 };
    });
  }

  ping(): Promise<void> {
    return this.#call(() => this.#redis.ping());
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  // --- steps ------------------------------------------------------------------------------------------------------------------------------

  async #submit(wanted: NewJob, limits: Limits): Promise<Submitted> {
    const { tenant, request, jobId, maxAttempts } = wanted;
    const nowMs = this.#now();
    const job = newJob(jobId, request, nowMs, { tenant, warnings: wanted.warnings, submittedBy: wanted.submittedBy });
    job.sequence = 1;
    const deadlineMs = deadlineOf(wanted, nowMs);
    const facts = { maxAttempts, spent: 0, kills: 0, trimmedTo: 0 };
    const score = rankOf(nowMs, request.priority);
    const key = request.idempotencyKey;
    const uploads = uploadsOf(request);
    const seen = await this.#inputsOf(wanted);
    // What waits says so from the first event on.
    if ('waits' in seen && seen.waits) job.waitReason = WaitReason.ANOTHER_JOB;
    const reply = (await this.#redis.run('submit', [
      jobId,
      tenant,
      classOf(wanted),
      score,
      nowMs,
      deadlineMs ?? '',
      key ?? '',
      wanted.requestDigest,
      limits.idempotencyMs,
      limits.maxQueued,
      encodeState(job),
      toBinary(JobRequestSchema, request),
      encodeFacts(facts),
      toBinary(JobEventSchema, eventOf(job, { case: 'state', value: stateOf(job) }, nowMs)),
      job.batchId ?? '',
      this.#mostRunning(tenant),
      dayOf(nowMs),
      limits.storedBytes ?? '',
      limits.gpuSecondsPerDay === undefined ? '' : limits.gpuSecondsPerDay * 1000,
      nowMs,
      [...uploads.keys()].join('\n'),
      'refusal' in seen ? 'refused' : seen.inputs,
      ...labelsOf(request),
    ])) as [Buffer, ...Reply[]];
    switch (reply[0].toString()) {
      case 'reused':
        throw keyReused(key!, reply[1]!.toString());
      case 'full':
        throw quotaExceeded(reply[1] as number, limits.maxQueued);
      case 'used':
        checkUsage({ storedBytes: reply[1] as number, gpuSecondsToday: (reply[2] as number) / 1000 }, limits, nowMs);
        throw new Error('the job store refuses for a quota that is not exceeded');
      case 'upload': {
        const id = reply[1]!.toString();
        throw uploadRefused(id, uploads.get(id)!);
      }
      case 'refused':
        throw (seen as { refusal: JobsError }).refusal;
      case 'moved':
        return await this.#submit(wanted, limits);
      case 'known':
        return { job: present(this.#decode(reply[2]!), reply[1] as number | null), created: false };
    }
    const place = reply[1]!.toString();
    const stored: RedisJob = {
      ...facts,
      ver: 1,
      tenant,
      place,
      job,
      held: false,
      token: undefined,
      score,
      deadlineMs,
      blob: '',
      op: undefined,
      owed: undefined,
      followers: 0,
      fingerprint: undefined,
      joined: undefined,
    };
    this.#known.set(jobId, stored);
    if (deadlineMs !== undefined) this.#arm(deadlineMs - nowMs);
    return { job: present(stored, reply[2] as number), created: true };
  }

  /** As the submit scripts want it: '' for any number, '-' as before. */
  #mostRunning(tenant: string): number | '' | '-' {
    return this.#options.maxRunning ? (this.#options.maxRunning(tenant) ?? '') : '-';
  }

  async #submitBatch(wanted: NewBatch, limits: Limits): Promise<SubmittedBatch> {
    const { batchId, tenant, idempotencyKey: key, jobs } = wanted;
    const nowMs = this.#now();
    const siblings = new Set(jobs.map(({ jobId }) => jobId));
    const ids = jobs.flatMap(({ request }) => inputJobsOf(request).map(({ jobId }) => jobId));
    const seen = await this.#lookAt([...new Set(ids)].filter((id) => !siblings.has(id)));
    const refusal = refusalOf(() => checkBatchInputs(wanted, (id) => seen.get(id)));
    const reply = (await this.#redis.run('submit_batch', [
      batchId,
      tenant,
      nowMs,
      key ?? '',
      wanted.requestDigest,
      limits.idempotencyMs,
      limits.maxQueued,
      this.#mostRunning(tenant),
      dayOf(nowMs),
      limits.storedBytes ?? '',
      limits.gpuSecondsPerDay === undefined ? '' : limits.gpuSecondsPerDay * 1000,
      nowMs,
      wanted.stopGraceMs ?? '',
      encodeMembers(membersOf(wanted)),
      jobs.length,
      refusal ? 'refused' : '',
      ...wanted.order.flatMap((i) => batchedJob(jobs[i]!, seen, nowMs)),
    ])) as [Buffer, ...Reply[]];
    switch (reply[0].toString()) {
      case 'reused':
        throw keyReused(key!, reply[1]!.toString());
      case 'full':
        throw quotaExceeded(reply[1] as number, limits.maxQueued, jobs.length);
      case 'used':
        checkUsage({ storedBytes: reply[1] as number, gpuSecondsToday: (reply[2] as number) / 1000 }, limits, nowMs);
        throw new Error('the job store refuses for a quota that is not exceeded');
      case 'upload': {
        const [jobId, upload] = [reply[1]!.toString(), reply[2]!.toString()];
        const index = jobs.findIndex((one) => one.jobId === jobId);
        throw uploadRefused(upload, fieldInItem(index, uploadsOf(jobs[index]!.request).get(upload)!));
      }
      case 'refused':
        throw refusal;
      case 'moved':
        return await this.#submitBatch(wanted, limits);
      case 'known':
        return { batch: (await this.#batches.get(reply[1]!.toString()))!, created: false };
    }
    for (const one of jobs) if (one.startTimeoutMs !== undefined) this.#arm(one.startTimeoutMs);
    return { batch: (await this.#batches.get(batchId))!, created: true };
  }

  /** The jobs whose results a new one takes, as submit.lua wants them, or why it may not. */
  async #inputsOf({ request, tenant }: NewJob): Promise<{ inputs: string; waits: boolean } | { refusal: JobsError }> {
    const found = await this.#lookAt([...new Set(inputJobsOf(request).map(({ jobId }) => jobId))]);
    const refusal = refusalOf(() => checkInputJobs(request, tenant, (id) => found.get(id)));
    return refusal ? { refusal } : takenFrom(found.values());
  }

  async #lookAt(ids: readonly JobId[]): Promise<ReadonlyMap<JobId, Job>> {
    const views = await this.#views(ids);
    return new Map(views.flatMap((viewed, i) => (viewed ? [[ids[i]!, viewed.stored.job]] : [])));
  }

  /** Works a step out from the newest record until it is made. `step` undefined: nothing is to be done. Unknown: undefined. */
  async #change(
    id: JobId,
    step: (stored: RedisJob) => Step | undefined,
  ): Promise<{ stored: RedisJob; position: number | null } | undefined> {
    return await this.#alter(id, (stored) => {
      const wanted = step(stored);
      return wanted && applyStep(stored, wanted, this.#now());
    });
  }

  async #alter(
    id: JobId,
    alter: (stored: RedisJob) => Changed | undefined,
  ): Promise<{ stored: RedisJob; position: number | null } | undefined> {
    let viewed = await this.#view(id);
    for (;;) {
      if (!viewed) return undefined;
      const { stored } = viewed;
      const changed = alter(stored);
      if (!changed) return viewed;
      const committed = await this.#commit(stored, changed, { token: '', op: '' });
      if (committed.outcome === 'done') return { stored: { ...changed.next, ver: stored.ver + 1 }, position: committed.position };
      viewed = committed.outcome === 'again' ? committed : await this.#view(id);
    }
  }

  async #commit(before: RedisJob, changed: Changed, fence: { readonly token: string; readonly op: string }): Promise<Committed> {
    const nowMs = this.#now();
    const reply = (await this.#redis.run('commit', encodeCommit(before, changed, fence, nowMs))) as [Buffer, ...Reply[]];
    const outcome = reply[0].toString();
    switch (outcome) {
      case 'done':
        this.#known.set(before.job.jobId, afterCommit(changed, before.ver + 1, fence.op || before.op));
        if ((reply[2] as number) > 0) this.#payOwed();
        if (changed.next.job.status === JobStatus.FAILED && changed.next.job.batchId !== undefined) this.#batches.stopMarked();
        if (typeof changed.queue === 'object') this.#arm(changed.queue.readyAtMs - nowMs);
        if (changed.lease === 'end' && changed.next.deadlineMs !== undefined) this.#arm(changed.next.deadlineMs - nowMs);
        return { outcome, position: reply[1] as number | null };
      case 'again':
        return { outcome, position: reply[1] as number | null, stored: this.#decode(reply[2]!) };
      case 'lost':
        return { outcome, stored: this.#decode(reply[1]!) };
      case 'busy':
      case 'shared':
        return { outcome };
    }
    throw new Error(`the record of ${before.job.jobId} is gone from the job store`);
  }

  /** Writes what the ends of jobs mean for others, soon. If this process dies before, the sweep of another one does. */
  #payOwed(): void {
    if (this.#closing) return;
    this.#paying ??= this.#track(this.#payAll())
      .catch((error) => this.#options.log?.warn({ err: error }, 'what is owed to waiting jobs could not be written; trying again'))
      .finally(() => {
        this.#paying = undefined;
      });
    this.#owing = true;
  }

  async #payAll(): Promise<void> {
    // Paying one may owe another something: a chain.
    do {
      this.#owing = false;
      const ids = (await this.#redis.run('owed', [SWEPT_AT_ONCE])) as Buffer[];
      for (const id of ids) if (!this.#closing) await this.#pay(id.toString());
      if (ids.length > 0) this.#owing = true;
    } while (this.#owing && !this.#closing);
  }

  async #pay(id: JobId): Promise<void> {
    const owed = (await this.#view(id))?.stored.owed;
    if (owed === undefined) return;
    const [what, facts] = owed.split(/ (.*)/s) as [string, string | undefined];
    const job = what === 'failed' ? (await this.#view(facts!))?.stored.job : undefined;
    const outcome = what === 'won' || what === 'verdict' ? decodeOutcome(facts!) : undefined;
    await this.#change(id, (stored) => {
      if (stored.owed !== owed) return undefined;
      if (what === 'failed') return inputFailed(stored, facts!, job);
      if (outcome) return endedWith(stored, outcome, stored.joined ?? { retentionMs: undefined, again: false });
      const step = ready(stored);
      // What was told of killed workers goes on with the run.
      return what === 'lead' ? step && { ...step, kills: Math.max(stored.kills, Number(facts)) } : step;
    });
  }

  /** At most once in a while for each run, whatever comes meanwhile; what gets lost is made up for by what comes next. */
  #follow(fingerprint: Fingerprint, progress: Progress): void {
    const nowMs = performance.now();
    if (this.#closing || nowMs - (this.#followed.get(fingerprint) ?? Number.NEGATIVE_INFINITY) < FOLLOW_MS) return;
    this.#followed.set(fingerprint, nowMs);
    this.#track(this.#followAll(fingerprint, progress)).catch((error) =>
      this.#options.log?.warn({ err: error }, 'jobs that joined a run could not be told how far it is'),
    );
  }

  async #followAll(fingerprint: Fingerprint, progress: Progress): Promise<void> {
    const ids = (await this.#redis.run('share', ['joined', fingerprint])) as Buffer[];
    const { step, estimatedFinishTime: estimatedFinish } = progress;
    for (const id of ids) {
      await this.#alter(id.toString(), (stored) => {
        if (stored.fingerprint !== fingerprint || stored.held || isTerminal(stored.job.status)) return undefined;
        const percent = Math.max(stored.job.progress, progress.percent);
        const job = transition(stored.job, { type: 'progress', step, percent, estimatedFinish }, this.#now());
        job.sequence++;
        const event = eventOf(job, { case: 'progress', value: { ...progress, percent, attempt: job.attempt } }, this.#now());
        return { next: { ...stored, job }, events: [event], lease: 'keep', queue: undefined, visible: true };
      });
    }
  }

  async #list(query: JobQuery): Promise<JobPage> {
    const scope = filterScope(query);
    let place: readonly [created: number, number: number] | undefined;
    if (query.pageToken !== undefined) {
      const opened = this.#tokens.open('page', query.pageToken, scope);
      if (!opened) throw pageTokenRefused();
      place = [opened[0]!, opened[1]!];
    }
    const indexes = indexesOf(query);
    const found: { readonly created: number; readonly number: number; readonly stored: RedisJob; readonly shown: Job }[] = [];
    let watchToken: string | undefined;
    let more = true;
    // What an index gives may not match the rest of the filter; goes on until the page is full.
    while (more && found.length <= query.pageSize) {
      const most = query.pageSize + 1 - found.length;
      const [change, places] = (await this.#redis.run('page', [
        most,
        place ? place[0] : '',
        place ? placeOf(place[1]) : '',
        query.createdAfterMs ?? '-inf',
        query.createdBeforeMs ?? '+inf',
        ...indexes,
      ])) as [Buffer, Buffer[]];
      watchToken ??= this.#tokens.seal('watch', [Number(change)]);
      const next: { created: number; number: number; id: JobId }[] = [];
      for (let i = 0; i < places.length; i += 2) {
        const member = places[i + 1]!.toString();
        next.push({ created: Number(places[i]), number: Number(member.slice(0, 14)), id: member.slice(14) });
      }
      next.sort((a, b) => b.created - a.created || b.number - a.number);
      next.splice(most);
      more = next.length === most;
      const views = await this.#views(next.map(({ id }) => id));
      for (const [i, { created, number }] of next.entries()) {
        place = [created, number];
        const viewed = views[i];
        if (!viewed || !inScope(viewed.stored, query) || !inState(viewed.stored, query)) continue;
        found.push({ created, number, stored: viewed.stored, shown: present(viewed.stored, viewed.position) });
      }
    }
    const last = found.length > query.pageSize ? found[query.pageSize - 1] : undefined;
    return {
      jobs: found.slice(0, query.pageSize).map(({ shown }) => shown),
      nextPageToken: last && this.#tokens.seal('page', [last.created, last.number], scope),
      watchToken: watchToken!,
    };
  }

  /** A result that is still there goes first, and with it what its tenant has used. */
  async #forget(id: JobId): Promise<number> {
    const found = (await this.#view(id))?.stored.job;
    if (!found) return 0;
    if (found.result) await this.#change(id, expired);
    const { idempotencyKey } = found.request!;
    const forgotten = (await this.#redis.run('forget', [
      id,
      idempotencyKey ?? '',
      found.batchId ?? '',
      ...labelsOf(found.request!),
    ])) as number;
    this.#known.delete(id);
    return forgotten;
  }

  async #reclaim(remove: (key: string) => Promise<void>): Promise<void> {
    const keys = ((await this.#redis.run('reclaim', ['list'])) as Buffer[]).map(String);
    const errors: unknown[] = [];
    for (const key of keys) {
      // A blob store that is away is asked for no more: the marks stay.
      if (errors.some((error) => error instanceof JobsError && error.kind === 'unavailable')) break;
      try {
        if ((await this.#redis.run('reclaim', ['take', key, DELETION_MS])) !== 1) continue;
        const deleted = await remove(key).then(
          () => true,
          (error) => {
            errors.push(error);
            return false;
          },
        );
        await this.#redis.run('reclaim', [deleted ? 'deleted' : 'failed', key]);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  #sendPreview(jobId: JobId, preview: Preview): void {
    if (!this.#closing) this.#watches.sendPreview(jobId, preview);
  }

  // --- reading ----------------------------------------------------------------------------------------------------------------------------

  async #shown(id: JobId): Promise<Job | undefined> {
    const viewed = await this.#view(id);
    return viewed && present(viewed.stored, viewed.position);
  }

  async #view(id: JobId): Promise<{ stored: RedisJob; position: number | null } | undefined> {
    const [viewed] = await this.#views([id]);
    return viewed;
  }

  async #views(ids: readonly JobId[]): Promise<({ stored: RedisJob; position: number | null } | undefined)[]> {
    if (ids.length === 0) return [];
    const had = ids.map((id) => this.#known.get(id));
    const views = (await this.#redis.run(
      'view',
      ids.flatMap((id, i) => [id, had[i]?.ver ?? '']),
    )) as ([Buffer, number | null, Reply?] | null)[];
    return views
      .map((view, i) => view && { stored: view[2] ? this.#decode(view[2]) : had[i]!, position: view[1] })
      .map((view) => view ?? undefined);
  }

  #decode(record: Reply): RedisJob {
    const stored = decodeJob(record, this.#known);
    const { jobId } = stored.job;
    const known = this.#known.get(jobId);
    // The same version is the same object, so that whoever shows it does so once.
    if (known?.ver === stored.ver) return known;
    if (!known || known.ver < stored.ver) this.#known.set(jobId, stored);
    return stored;
  }

  // --- claims -----------------------------------------------------------------------------------------------------------------------------

  /** There may be jobs for the claims that wait: two ask, and with each job that they find two more. */
  #onReady(): void {
    this.#news++;
    const asked: Claim[] = [];
    for (const waiter of this.#waiters) {
      if (waiter.asking || asked.filter((want) => sameWant(want, waiter.want)).length === 2) continue;
      asked.push(waiter.want);
      void this.#ask(waiter);
    }
  }

  /** Claims for one that waits, until it has a job, there is none, or it has left. */
  async #ask(waiter: Waiter): Promise<void> {
    waiter.asking = true;
    try {
      for (let news = -1; news !== this.#news && !waiter.aborted && !this.#closing; ) {
        news = this.#news;
        const lease = await this.#track(this.#claim(waiter.want));
        if (!lease) continue;
        waiter.settle(lease);
        // There may be more where this came from.
        this.#onReady();
        return;
      }
      if (waiter.aborted || this.#closing) waiter.settle(undefined);
    } catch (error) {
      if (waiter.aborted || this.#closing) waiter.settle(undefined);
      else waiter.fail(error);
    } finally {
      waiter.asking = false;
    }
  }

  async #claim({ node, above, engines, warmModels, coldPenalty }: Claim): Promise<RedisLease | undefined> {
    const token = `${this.#instance}.${++this.#serial}`;
    const sent = performance.now();
    const reply = (await this.#redis.run('claim', [
      token,
      node,
      this.#leaseMs,
      warmModels ? (coldPenalty ?? DEFAULT_PENALTY) : 0,
      above ? above.flow : '',
      above ? above.score : '',
      above ? above.tenant : '',
      engines ? engines.map(encodeURIComponent).join('\n') : '*',
      (warmModels ?? []).map(encodeURIComponent).join('\n'),
    ])) as [Buffer, ...Reply[]];
    if (reply[0].toString() === 'none') {
      if (reply[1]) this.#arm(Number(reply[1]) - this.#now());
      return undefined;
    }
    const stored = this.#decode(reply[3]!);
    const rank = { flow: Number(reply[1]), score: Number(reply[2]), tenant: stored.tenant };
    const lease = new RedisLease(this.#host, stored, rank, pairsOf(reply[4]!), sent + this.#leaseMs);
    this.#leases.set(token, lease);
    this.#arm(this.#leaseMs / 3);
    if (stored.job.cancelRequestedAt) lease.end('cancel_requested');
    return lease;
  }

  // --- time -------------------------------------------------------------------------------------------------------------------------------

  /** Tends at the latest after so many milliseconds. */
  #arm(ms: number): void {
    if (this.#closing) return;
    const wait = Math.min(Math.max(1, ms + 1), this.#turnMs);
    const at = performance.now() + wait;
    if (this.#timer && this.#timer.at <= at) return;
    clearTimeout(this.#timer?.handle);
    const handle = setTimeout(() => {
      this.#timer = undefined;
      void this.#tend();
    }, wait);
    handle.unref();
    this.#timer = { at, handle };
  }

  get #turnMs(): number {
    return Math.min(SWEEP_MS, this.#leaseMs / 3);
  }

  /** One turn of the clock: renews what is held, makes good what others have left, and looks for what may have been missed. Never rejects. */
  #tend(): Promise<void> {
    this.#tending ??= this.#tendOnce()
      .catch((error) => this.#options.log?.warn({ err: error }, 'the job store could not be tended; trying again'))
      .finally(() => {
        this.#tending = undefined;
        this.#dropStale();
        this.#arm(this.#turnMs);
      });
    return this.#tending;
  }

  async #tendOnce(): Promise<void> {
    this.#dropStale();
    const leases = [...this.#leases.values()];
    const sent = performance.now();
    const reply = await this.#redis.run('tend', [this.#leaseMs, SWEPT_AT_ONCE, ...leases.map(({ token }) => token)]);
    const [now, due, states, expired, overdue, owed] = reply as [number, Buffer | null, number[], (Buffer | null)[], Buffer[], Buffer[]];
    this.#clock.learn(now, sent, performance.now());
    for (const [i, lease] of leases.entries()) {
      if (states[i] === 0) {
        // It may have ended while this was under way.
        if (this.#leases.get(lease.token) === lease) lease.end('lost');
        continue;
      }
      lease.validUntil = sent + this.#leaseMs;
      if (states[i] === 2) lease.end('cancel_requested');
    }
    if (due) this.#arm(Number(due) - now);
    if (sent - this.#lastSweep > SWEEP_MS - 100) {
      this.#lastSweep = sent;
      this.#redis.probe();
      this.#batches.stopMarked();
      this.#lookAgain();
    }
    for (let i = 0; i < expired.length; i += 2) {
      const [token, id] = [expired[i]!.toString(), expired[i + 1]?.toString()];
      if (id !== undefined && !this.#closing)
        await this.#change(id, (stored) => (stored.token === token ? recovered(stored, NODE_LOST) : undefined));
    }
    for (const id of overdue) if (!this.#closing) await this.#change(id.toString(), startTimedOut);
    if (owed.length > 0 && !this.#closing) this.#payOwed();
    if (expired.length + overdue.length >= SWEPT_AT_ONCE) this.#arm(0);
  }

  /** Tells the holders of leases that could not be renewed in time, while their runs can still be stopped before others have the jobs. */
  #dropStale(): void {
    const soon = performance.now() + Math.min(LEASE_MARGIN_MS, this.#leaseMs / 4);
    for (const lease of [...this.#leases.values()]) if (lease.validUntil <= soon) lease.end('lost');
  }

  /** Whatever was said may have been missed. */
  #lookAgain(): void {
    if (this.#closing) return;
    this.#watches.sweep();
    this.#changes.changed();
    this.#onReady();
  }

  // --- the end ----------------------------------------------------------------------------------------------------------------------------

  #now(): number {
    return this.#options.now?.() ?? this.#clock.now();
  }

  #assertOpen(): void {
    if (this.#closing) throw shuttingDown();
  }

  async #call<T>(run: () => Promise<T>): Promise<T> {
    this.#assertOpen();
    return await this.#track(run());
  }

  async #track<T>(call: Promise<T>): Promise<T> {
    this.#pending.add(call);
    try {
      return await call;
    } finally {
      this.#pending.delete(call);
    }
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer?.handle);
    for (const waiter of [...this.#waiters]) if (!waiter.asking) waiter.settle(undefined);
    this.#watches.fail(shuttingDown());
    this.#changes.fail(shuttingDown());
    // What was asked for before is still done and answered.
    await Promise.allSettled([...this.#pending]);
    await this.#tending;
    const held = [...this.#leases.values()];
    for (const lease of held) lease.end('closed');
    // Nobody has to wait until they run out.
    await Promise.allSettled(held.map((lease) => lease.release((stored) => recovered(stored, RESTARTED))));
    await this.#batches.settled();
    this.#redis.disconnect();
  }
}

/** Cold models may cost a job so many turns, where a node does not know better. */
const DEFAULT_PENALTY = 2;

function deadlineOf({ startTimeoutMs }: NewJob, nowMs: number): number | undefined {
  return startTimeoutMs === undefined ? undefined : nowMs + startTimeoutMs;
}

/** A job among the arguments of submit_batch.lua. `seen`: jobs outside of the batch whose results are taken. */
function batchedJob(wanted: NewJob, seen: ReadonlyMap<JobId, Job>, nowMs: number): (string | number | Uint8Array)[] {
  const { jobId, request, tenant, batchId, warnings, submittedBy, maxAttempts } = wanted;
  const ids = [...new Set(inputJobsOf(request).map((input) => input.jobId))];
  const outside = takenFrom(ids.flatMap((id) => seen.get(id) ?? []));
  const siblings = ids.filter((id) => !seen.has(id)).map((id) => `${id} `);
  const wait = outside.waits || siblings.length > 0 ? WaitReason.ANOTHER_JOB : WaitReason.SLOT;
  const job = newJob(jobId, request, nowMs, { tenant, batchId, warnings, submittedBy, wait });
  job.sequence = 1;
  const labels = labelsOf(request);
  return [
    jobId,
    classOf(wanted),
    rankOf(nowMs, request.priority),
    deadlineOf(wanted, nowMs) ?? '',
    encodeState(job),
    toBinary(JobRequestSchema, request),
    encodeFacts({ maxAttempts, spent: 0, kills: 0, trimmedTo: 0 }),
    toBinary(JobEventSchema, eventOf(job, { case: 'state', value: stateOf(job) }, nowMs)),
    [...uploadsOf(request).keys()].join('\n'),
    outside.inputs,
    siblings.join('\n'),
    labels.length,
    ...labels,
  ];
}

/** Jobs whose results a new one takes, as submit.lua wants them, and whether one of them has not ended. */
function takenFrom(jobs: Iterable<Job>): { readonly inputs: string; readonly waits: boolean } {
  const blobs = [...jobs].map(({ jobId, result }) => [jobId, result?.sha256 ?? ''] as const);
  return { inputs: blobs.map(([id, blob]) => `${id} ${blob}`).join('\n'), waits: blobs.some(([, blob]) => blob === '') };
}

function refusalOf(check: () => void): JobsError | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (error instanceof JobsError) return error;
    throw error;
  }
}

/** Each label twice, as they are looked for. */
function labelsOf({ labels }: NewJob['request']): string[] {
  return Object.entries(labels).flatMap(([label, value]) => [label, `${label}=${value}`]);
}

/** What a node must run, and have warm, for a job: `ENGINE|MODEL,MODEL`. */
function classOf({ placement }: NewJob): string {
  if (!placement) return '|';
  return `${encodeURIComponent(placement.engine ?? '')}|${[...placement.models].sort().map(encodeURIComponent).join(',')}`;
}

/** A hash as Redis lists it. */
function pairsOf(reply: Reply): ReadonlyMap<string, string> {
  const list = reply as Buffer[];
  return new Map(Array.from({ length: list.length / 2 }, (_, i) => [list[2 * i]!.toString(), list[2 * i + 1]!.toString()]));
}

function sameWant(a: Claim, b: Claim): boolean {
  return a.above === b.above && a.coldPenalty === b.coldPenalty && sameNames(a.engines, b.engines) && sameNames(a.warmModels, b.warmModels);
}

function sameNames(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && a.length === b.length && a.every((name, i) => name === b[i]));
}

function placeOf(number: number): string {
  return `${number}`.padStart(14, '0');
}

/** The narrowest filter leads; the others are checked on what it finds. */
function indexesOf({ tenant, statuses, labels, batchId, errorReason }: JobQuery): string[] {
  const [label] = labels ?? [];
  if (label) return [`label:${label.value === undefined ? label.key : `${label.key}=${label.value}`}`];
  if (batchId !== undefined) return [`batch:${batchId}`];
  if (errorReason !== undefined) return [`error:${errorReason}`];
  const wanted = statuses?.length ? [...new Set(statuses)] : STATUSES;
  return wanted.map((status) => `jobs:${tenant ?? ''}:${status}`);
}
