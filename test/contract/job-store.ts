// What every job store must do, as the comments of the port say. Knows no backend: a store calls `describeJobStore` with a factory.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { create, equals, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { type JobEvent, LogLevel, LogSchema, PreviewSchema, ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { EngineInfoSchema, JobRequestSchema, JobSchema, MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { JobsError } from '../../src/jobs/errors.ts';
import { isTerminal, type Job, JobStatus, JobStep, newJobId, POISON_KILLS, WaitReason } from '../../src/jobs/job.ts';
import { type Claim, type JobChange, type JobStore, type Lease, LeaseEnded, type NewJob } from '../../src/jobs/ports.ts';
import type { WebhookRules } from '../../src/jobs/webhooks.ts';
import { collect, refusal, statusOf } from './calls.ts';

export interface JobStoreSettings {
  readonly weights?: Readonly<Record<string, number>>;
  readonly maxStoredEvents?: number;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  readonly onEnded?: (job: Job) => void;
  readonly webhooks?: WebhookRules;
}

export interface OpenedJobStore {
  readonly store: JobStore;
  /** Closes the store and opens another one on the same data, as a restart of the service does. */
  restart(): Promise<JobStore>;
  /** Ends it and deletes its data. */
  destroy(): Promise<void>;
}

export type JobStoreFactory = (settings?: JobStoreSettings) => Promise<OpenedJobStore>;

/** What `open` opens, each time on the same data, which `forget` deletes where nothing else does. */
export async function opening<S extends AsyncDisposable>(open: () => Promise<S>, forget?: () => Promise<void>) {
  let store = await open();
  return {
    store,
    async restart() {
      await store[Symbol.asyncDispose]();
      store = await open();
      return store;
    },
    async destroy() {
      await store[Symbol.asyncDispose]();
      await forget?.();
    },
  };
}

const { QUEUED, PROCESSING, SUCCEEDED, FAILED, CANCELED, REFUSED } = JobStatus;
const LIMITS = { maxQueued: 1_000_000, idempotencyMs: 86_400_000 };
const GRACE_MS = 5000;
/** A wait that does not end fails the suite and not the whole run. */
const SUITE = { concurrency: 8, timeout: 120_000 };
const RUN = { slot: 'node/0', engine: create(EngineInfoSchema, { name: 'classical', version: '1' }) };
const TIMINGS = create(TimingsSchema, { runSeconds: 1.5 });
const CRASH = { reason: 'WORKER_CRASHED', message: 'the worker died', retryable: true, killedWorker: true };
const FLAKY = { reason: 'ENGINE_ERROR', message: 'something went wrong', retryable: true, killedWorker: false };
const BROKEN = { reason: 'NO_FACE_IN_SOURCE', message: 'there is no face', retryable: false, killedWorker: false };
const NEVER = new AbortController().signal;

export type Wanted = Partial<Omit<NewJob, 'request'>> & { readonly request?: MessageInitShape<typeof JobRequestSchema> };

export function wantedJob({ request, ...facts }: Wanted = {}): NewJob {
  return {
    jobId: newJobId(Date.now(), randomBytes(12)),
    tenant: 'one',
    request: create(JobRequestSchema, {
      sourceImages: ['face.jpg'],
      target: { case: 'targetImage', value: 'target.jpg' },
      parameters: { processors: ['face_swapper'] },
      ...request,
    }),
    requestDigest: 'digest',
    warnings: [],
    maxAttempts: 3,
    ...facts,
  };
}

const result = (sha256 = randomBytes(32).toString('hex')) =>
  create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256, frames: 1 });
const done = (sha256?: string) => ({ result: result(sha256), warnings: [], timings: TIMINGS });
const progress = (percent: number) => create(ProgressSchema, { step: JobStep.PROCESSING, percent });
const log = (message: string) => create(LogSchema, { level: LogLevel.INFO, message });

/** An iterator that is always left, and its first items. */
function reading<T>(t: TestContext, items: AsyncIterable<T>) {
  const iterator = items[Symbol.asyncIterator]();
  t.after(() => iterator.return?.());
  return {
    iterator,
    async next(): Promise<T> {
      const { value, done: ended } = await iterator.next();
      assert.ok(!ended, 'the stream ended');
      return value;
    },
    async until(matches: (item: T) => boolean): Promise<T> {
      for (;;) {
        const item = await this.next();
        if (matches(item)) return item;
      }
    },
  };
}

const kinds = (events: readonly JobEvent[]) => events.map((event) => event.event.case);

/** A claim that must find nothing: aborted once the store has had its turn. */
export async function claimNothing(store: JobStore, want: Claim = { node: 'node' }): Promise<void> {
  const leave = new AbortController();
  const claimed = store.claim(want, leave.signal);
  await store.submit(wantedJob({ tenant: 'witness' }), { ...LIMITS, maxQueued: 0 }).catch(() => {});
  leave.abort();
  assert.equal(await claimed, undefined);
}

export function describeJobStore(name: string, factory: JobStoreFactory): void {
  const open = async (t: TestContext, settings?: JobStoreSettings) => {
    const opened = await factory(settings);
    t.after(() => opened.destroy());
    return opened;
  };
  const submit = async (store: JobStore, wanted?: Wanted): Promise<Job> => (await store.submit(wantedJob(wanted), LIMITS)).job;
  const claim = async (store: JobStore, signal = NEVER): Promise<Lease> => {
    const lease = await store.claim({ node: 'node' }, signal);
    assert.ok(lease);
    return lease;
  };
  const begun = async (store: JobStore): Promise<Lease> => {
    const lease = await claim(store);
    await lease.begin(RUN);
    return lease;
  };
  const eventsOf = (store: JobStore, id: string, after = 0) => collect(store.watch(id, after, NEVER));

  describe(`${name}: submit`, SUITE, () => {
    it('finds what an idempotency key stands for, and refuses it to another request', async (t) => {
      const { store } = await open(t);
      const wanted = wantedJob({ request: { idempotencyKey: 'key' } });
      assert.equal(await store.submitted('one', 'key', 'digest'), undefined);
      await store.submit(wanted, LIMITS);
      assert.equal((await store.submitted('one', 'key', 'digest'))?.jobId, wanted.jobId);
      assert.equal(await store.submitted('two', 'key', 'digest'), undefined);
      assert.equal((await refusal(store.submitted('one', 'key', 'another'))).reason, 'IDEMPOTENCY_KEY_REUSED');
      await store.submit(wantedJob({ request: { idempotencyKey: 'brief' } }), { ...LIMITS, idempotencyMs: 0 });
      assert.equal(await store.submitted('one', 'brief', 'digest'), undefined);
    });

    it('answers a queued job that is there', async (t) => {
      const { store } = await open(t);
      const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
      const wanted = wantedJob({
        warnings: ['careful'],
        submittedBy: 'ann',
        traceparent,
        request: { labels: { show: 'one' }, priority: 2 },
      });
      const { job, created } = await store.submit(wanted, LIMITS);
      assert.equal(created, true);
      assert.equal(job.jobId, wanted.jobId);
      assert.equal(job.status, QUEUED);
      assert.equal(job.step, JobStep.QUEUED);
      assert.equal(job.waitReason, WaitReason.SLOT);
      assert.equal(job.sequence, 1);
      assert.equal(job.queuePosition, 0);
      assert.equal(job.submittedBy, 'ann');
      assert.equal(job.traceparent, traceparent);
      assert.deepEqual(job.warnings, ['careful']);
      assert.ok(equals(JobRequestSchema, job.request!, wanted.request));
      assert.deepEqual(await store.get(job.jobId), job);
    });

    it('gives the same job for the same key and request, another tenant its own', async (t) => {
      const { store } = await open(t);
      const request = { idempotencyKey: 'key' };
      const first = await store.submit(wantedJob({ request }), LIMITS);
      const again = await store.submit(wantedJob({ request }), LIMITS);
      assert.equal(again.created, false);
      assert.equal(again.job.jobId, first.job.jobId);
      assert.equal((await store.submit(wantedJob({ request, tenant: 'two' }), LIMITS)).created, true);
    });

    it('refuses a known key with another request', async (t) => {
      const { store } = await open(t);
      const request = { idempotencyKey: 'key' };
      const { jobId } = await submit(store, { request });
      const error = await refusal(store.submit(wantedJob({ request, requestDigest: 'other' }), LIMITS));
      assert.deepEqual([error.kind, error.reason], ['already_exists', 'IDEMPOTENCY_KEY_REUSED']);
      assert.equal(error.metadata.job_id, jobId);
    });

    it('makes one job of concurrent submits with one key', async (t) => {
      const { store } = await open(t);
      const all = await Promise.all(
        Array.from({ length: 20 }, () => store.submit(wantedJob({ request: { idempotencyKey: 'key' } }), LIMITS)),
      );
      assert.equal(all.filter(({ created }) => created).length, 1);
      assert.equal(new Set(all.map(({ job }) => job.jobId)).size, 1);
    });

    it('looks at the key before the quota, and forgets it after its time', async (t) => {
      const { store } = await open(t);
      const request = { idempotencyKey: 'key' };
      const limits = { maxQueued: 1, idempotencyMs: 86_400_000 };
      await store.submit(wantedJob({ request }), limits);
      assert.equal((await store.submit(wantedJob({ request }), limits)).created, false);
      await store.submit(wantedJob({ request: { idempotencyKey: 'brief' } }), { ...LIMITS, idempotencyMs: 0 });
      assert.equal((await store.submit(wantedJob({ request: { idempotencyKey: 'brief' } }), LIMITS)).created, true);
    });

    it('keeps a key over a restart', async (t) => {
      const { store, restart } = await open(t);
      const request = { idempotencyKey: 'key' };
      const { jobId } = await submit(store, { request });
      const again = await (await restart()).submit(wantedJob({ request }), LIMITS);
      assert.deepEqual([again.created, again.job.jobId], [false, jobId]);
    });

    it('holds the quota of each tenant against a race', async (t) => {
      const { store } = await open(t);
      const limits = { ...LIMITS, maxQueued: 10 };
      const settled = await Promise.allSettled(Array.from({ length: 50 }, () => store.submit(wantedJob(), limits)));
      const refused = settled.filter((one) => one.status === 'rejected').map((one) => one.reason as JobsError);
      assert.equal(refused.length, 40);
      assert.ok(refused.every(({ kind, reason }) => kind === 'exhausted' && reason === 'QUOTA_EXCEEDED'));
      assert.equal((await store.submit(wantedJob({ tenant: 'two' }), limits)).created, true);
      assert.equal((await store.list({ tenant: 'one', pageSize: 100 })).jobs.length, 10);
    });

    it('frees the quota when a job begins or is canceled, and takes it back for a retry', async (t) => {
      const { store } = await open(t);
      const limits = { ...LIMITS, maxQueued: 2 };
      await store.submit(wantedJob(), limits);
      const second = await store.submit(wantedJob(), limits);
      const lease = await claim(store);
      await refusal(store.submit(wantedJob(), limits));
      await lease.begin(RUN);
      await store.submit(wantedJob(), limits);
      await lease.fail(FLAKY);
      await refusal(store.submit(wantedJob(), limits));
      await store.cancel(second.job.jobId, GRACE_MS);
      await refusal(store.submit(wantedJob(), limits));
      await store.cancel(lease.job.jobId, GRACE_MS);
      await store.submit(wantedJob(), limits);
    });
  });

  describe(`${name}: order of service`, SUITE, () => {
    const served = async (store: JobStore, count: number) => {
      const ids: string[] = [];
      for (let i = 0; i < count; i++) {
        const lease = await claim(store);
        ids.push(lease.job.jobId);
        await lease.complete(done());
      }
      return ids;
    };

    it('is the order of submission, with a head start of a minute a step of priority', async (t) => {
      const { store } = await open(t);
      const ids: Record<string, string> = {};
      for (const [label, priority] of Object.entries({ plain: 0, low: -1, high: 5, late: 0 })) {
        ids[label] = (await submit(store, { request: { priority } })).jobId;
      }
      const positions = await Promise.all(Object.entries(ids).map(async ([label, id]) => [label, (await store.get(id))?.queuePosition]));
      assert.deepEqual(Object.fromEntries(positions), { high: 0, plain: 1, late: 2, low: 3 });
      assert.deepEqual(await served(store, 4), [ids.high, ids.plain, ids.late, ids.low]);
    });

    it('alternates between tenants, however much one of them has queued', async (t) => {
      const { store } = await open(t);
      for (let i = 0; i < 6; i++) await submit(store, { tenant: 'busy' });
      const owners = new Map<string, string>();
      await served(store, 2);
      for (let i = 0; i < 3; i++) owners.set((await submit(store, { tenant: 'quiet' })).jobId, 'quiet');
      const next = (await served(store, 6)).map((id) => owners.get(id) ?? 'busy');
      assert.equal(next.filter((owner) => owner === 'quiet').length, 3);
      assert.ok(next.slice(0, 2).includes('quiet'));
      assert.ok(!next.join().includes('quiet,quiet') && !next.slice(0, 5).join().includes('busy,busy'), next.join());
    });

    it('shares by weight', async (t) => {
      const { store } = await open(t, { weights: { heavy: 3 } });
      const owners = new Map<string, string>();
      for (let i = 0; i < 12; i++) {
        for (const tenant of ['heavy', 'light']) owners.set((await submit(store, { tenant })).jobId, tenant);
      }
      const next = (await served(store, 12)).map((id) => owners.get(id));
      assert.equal(next.filter((owner) => owner === 'heavy').length, 9);
    });

    it('tells the position that comes true, over tenants', async (t) => {
      const { store } = await open(t);
      const ids: string[] = [];
      for (let i = 0; i < 12; i++) ids.push((await submit(store, { tenant: 'abc'[(i * i) % 3]!, request: { priority: i % 3 } })).jobId);
      await served(store, 2);
      const waiting = (await Promise.all(ids.map((id) => store.get(id)))).filter((job) => job?.status === QUEUED) as Job[];
      const expected = waiting.toSorted((a, b) => a.queuePosition! - b.queuePosition!).map((job) => job.jobId);
      assert.deepEqual(
        waiting.map((job) => job.queuePosition!).toSorted((a, b) => a - b),
        waiting.map((_, i) => i),
      );
      assert.deepEqual(await served(store, waiting.length), expected);
    });

    it('survives a restart', async (t) => {
      const { store, restart } = await open(t);
      const ids: string[] = [];
      for (let i = 0; i < 9; i++) ids.push((await submit(store, { tenant: 'ab'[i % 2]!, request: { priority: i % 4 } })).jobId);
      await (await claim(store)).complete(done());
      const before = await Promise.all(ids.map(async (id) => (await store.get(id))?.queuePosition));
      const reopened = await restart();
      assert.deepEqual(await Promise.all(ids.map(async (id) => (await reopened.get(id))?.queuePosition)), before);
    });

    it('gives a claim for something better only what comes before its rank', async (t) => {
      const { store } = await open(t);
      await submit(store);
      const lease = await claim(store);
      await submit(store);
      await claimNothing(store, { node: 'node', above: lease.rank });
      const waiting = store.claim({ node: 'node', above: lease.rank }, NEVER);
      const better = await submit(store, { request: { priority: 1 } });
      assert.equal((await waiting)?.job.jobId, better.jobId);
      await lease.giveBack(WaitReason.SLOT);
      assert.equal((await claim(store)).job.jobId, lease.job.jobId);
    });
  });

  describe(`${name}: claim`, SUITE, () => {
    it('waits for a job and is given it', async (t) => {
      const { store } = await open(t);
      const claimed = claim(store);
      const { jobId } = await submit(store);
      const lease = await claimed;
      assert.equal(lease.job.jobId, jobId);
      assert.equal(lease.maxAttempts, 3);
      const job = await store.get(jobId);
      assert.deepEqual([job?.status, job?.step, job?.queuePosition], [QUEUED, JobStep.FETCHING_INPUTS, 0]);
    });

    it('is undefined once its signal aborts, and takes nothing', async (t) => {
      const { store } = await open(t);
      assert.equal(await store.claim({ node: 'node' }, AbortSignal.abort()), undefined);
      const leave = new AbortController();
      const claimed = store.claim({ node: 'node' }, leave.signal);
      leave.abort();
      assert.equal(await claimed, undefined);
      const { jobId } = await submit(store);
      assert.equal((await claim(store)).job.jobId, jobId);
    });

    it('loses no job to a claim that is aborted in the step that serves it', async (t) => {
      const { store } = await open(t);
      const held = await submit(store);
      const lease = await claim(store);
      const leave = new AbortController();
      const waiting = store.claim({ node: 'node' }, leave.signal);
      lease.signal.addEventListener('abort', () => leave.abort());
      // Asked for together: the cancel's abort comes while the job that the claim gets is already on its way.
      const [, better] = await Promise.all([store.cancel(held.jobId, GRACE_MS), submit(store)]);
      await (await waiting)?.[Symbol.asyncDispose]();
      assert.equal((await claim(store)).job.jobId, better.jobId);
    });

    it('gives each job to one claimer', async (t) => {
      const { store } = await open(t);
      const claims = Array.from({ length: 40 }, () => claim(store));
      const jobs = await Promise.all(Array.from({ length: 40 }, () => submit(store)));
      const leases = await Promise.all(claims);
      assert.deepEqual(leases.map((lease) => lease.job.jobId).toSorted(), jobs.map((job) => job.jobId).toSorted());
      await claimNothing(store);
    });
  });

  describe(`${name}: lease`, SUITE, () => {
    it('takes a job from begin to success', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const lease = await claim(store);
      const running = await lease.begin(RUN);
      assert.deepEqual([running.status, running.attempt, running.slot, running.engine?.name], [PROCESSING, 1, 'node/0', 'classical']);
      assert.ok(running.startedAt);
      await lease.progress(progress(40));
      await lease.warn(['odd']);
      assert.equal(lease.job.progress, 40);
      const finished = await lease.complete({ ...done('aa'), warnings: ['odd', 'end'] });
      assert.deepEqual([finished.status, finished.progress, finished.step], [SUCCEEDED, 100, JobStep.DONE]);
      assert.equal(finished.result?.sha256, 'aa');
      assert.deepEqual(finished.warnings, ['odd', 'end']);
      assert.equal(finished.timings?.runSeconds, 1.5);
      assert.ok(finished.finishedAt);
      assert.equal(finished.queuePosition, undefined);
      assert.deepEqual(await store.get(jobId), finished);
      const events = await eventsOf(store, jobId);
      assert.deepEqual(kinds(events), ['state', 'state', 'progress', 'state', 'state']);
      assert.equal(finished.sequence, events.at(-1)?.sequence);
    });

    it('never lets percent fall within an attempt, and starts again with the next', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const lease = await begun(store);
      for (const percent of [10.5, 60.25, 30, 120]) await lease.progress(progress(percent));
      await lease.giveBack(WaitReason.SLOT);
      const next = await begun(store);
      await next.progress(progress(5));
      await next.complete(done());
      const told = (await eventsOf(store, jobId)).flatMap(({ event }) =>
        event.case === 'progress' ? [[event.value.attempt, event.value.percent]] : [],
      );
      assert.deepEqual(told, [
        [1, 10.5],
        [1, 60.25],
        [1, 60.25],
        [1, 100],
        [2, 5],
      ]);
    });

    it('never lets percent fall before an attempt either, whoever prepares the job in turn', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      for (const percents of [[12.5, 80.5], [3, 90.25], [40]]) {
        const lease = await claim(store);
        for (const percent of percents) {
          await lease.progress(create(ProgressSchema, { step: JobStep.FETCHING_INPUTS, percent }));
        }
        await lease.giveBack(WaitReason.SLOT);
      }
      assert.equal((await store.get(jobId))?.progress, 90);
      const last = await begun(store);
      await last.progress(progress(5.5));
      await last.complete(done());
      const told = (await eventsOf(store, jobId)).flatMap(({ event }) =>
        event.case === 'progress' ? [[event.value.attempt, event.value.percent]] : [],
      );
      assert.deepEqual(told, [
        [0, 12],
        [0, 80],
        [0, 80],
        [0, 90],
        [0, 90],
        [1, 5.5],
      ]);
    });

    it('keeps the order of writes that are not awaited', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const lease = await claim(store);
      await Promise.all([lease.begin(RUN), ...Array.from({ length: 20 }, (_, i) => lease.log(log(`${i}`))), lease.complete(done())]);
      const events = await eventsOf(store, jobId);
      assert.deepEqual(
        events.flatMap(({ event }) => (event.case === 'log' ? [event.value.message] : [])),
        Array.from({ length: 20 }, (_, i) => `${i}`),
      );
      assert.deepEqual(
        events.map(({ sequence }) => sequence),
        events.map((_, i) => i + 1),
      );
    });

    const ends: Record<string, (lease: Lease) => Promise<Job>> = {
      complete: (lease) => lease.complete(done()),
      fail: (lease) => lease.fail(BROKEN),
      refuse: (lease) => lease.refuse({ reason: 'CONTENT_REFUSED', message: 'no', retryable: false }),
      canceled: (lease) => lease.canceled(),
      giveBack: (lease) => lease.giveBack(WaitReason.SLOT),
    };
    const endStatus: Record<string, JobStatus> = {
      complete: SUCCEEDED,
      fail: FAILED,
      refuse: REFUSED,
      canceled: CANCELED,
      giveBack: QUEUED,
    };
    for (const [method, end] of Object.entries(ends)) {
      it(`is ended by ${method}, and writes nothing after`, async (t) => {
        const { store } = await open(t);
        const { jobId } = await submit(store);
        const lease = await begun(store);
        assert.equal((await end(lease)).status, endStatus[method]);
        const before = await store.get(jobId);
        const late = [
          lease.begin(RUN),
          lease.progress(progress(1)),
          lease.log(log('late')),
          lease.warn(['late']),
          ...Object.values(ends).map((one) => one(lease)),
        ];
        for (const { reason } of await Promise.all(late.map((one) => refusal(one)))) assert.equal(reason, 'LEASE_LOST');
        await lease[Symbol.asyncDispose]();
        assert.deepEqual(await store.get(jobId), before);
      });
    }

    it('is ended by one of two racing verdicts', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const lease = await begun(store);
      const settled = await Promise.allSettled([lease.complete(done()), lease.fail(BROKEN), lease.complete(done())]);
      assert.deepEqual(
        settled.map(({ status }) => status),
        ['fulfilled', 'rejected', 'rejected'],
      );
      const events = await eventsOf(store, jobId);
      assert.equal(events.filter((event) => isTerminal(statusOf(event) ?? QUEUED)).length, 1);
    });

    it('of another claim cannot be written through', async (t) => {
      const { store } = await open(t);
      await submit(store);
      const first = await claim(store);
      await first.giveBack(WaitReason.SLOT);
      const second = await claim(store);
      assert.equal(second.job.jobId, first.job.jobId);
      assert.equal((await refusal(first.complete(done()))).reason, 'LEASE_LOST');
      assert.equal((await second.begin(RUN)).status, PROCESSING);
    });

    it('that is disposed unfinished gives the job back at its place', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      await submit(store);
      {
        await using lease = await claim(store);
        assert.equal(lease.job.jobId, first.jobId);
      }
      const job = await store.get(first.jobId);
      assert.deepEqual([job?.status, job?.step, job?.attempt, job?.queuePosition], [QUEUED, JobStep.QUEUED, 0, 0]);
      assert.equal((await claim(store)).job.jobId, first.jobId);
    });

    it('given back says what the job waits for, and a begun attempt is not counted', async (t) => {
      const { store } = await open(t);
      await submit(store, { maxAttempts: 1 });
      for (let attempt = 1; attempt <= 4; attempt++) {
        const lease = await begun(store);
        assert.equal(lease.job.attempt, attempt);
        const job = await lease.giveBack(WaitReason.MODEL_LOADING);
        assert.deepEqual([job.status, job.waitReason, job.progress, job.slot], [QUEUED, WaitReason.MODEL_LOADING, 0, undefined]);
      }
      const failed = await (await begun(store)).fail(FLAKY);
      assert.deepEqual([failed.status, failed.error?.reason], [FAILED, 'ENGINE_ERROR']);
    });

    it('given back by several puts each job back at its place', async (t) => {
      const { store } = await open(t);
      const ids: string[] = [];
      for (let i = 0; i < 6; i++) ids.push((await submit(store, { tenant: 'ab'[i % 2]! })).jobId);
      const leases: Lease[] = [];
      for (let i = 0; i < 4; i++) leases.push(await claim(store));
      const order = leases.map((lease) => lease.job.jobId);
      await Promise.all(leases.map((lease) => lease.giveBack(WaitReason.SLOT)));
      const again: string[] = [];
      for (let i = 0; i < 4; i++) again.push((await claim(store)).job.jobId);
      assert.deepEqual(again, order);
    });
  });

  describe(`${name}: failure`, SUITE, () => {
    it('that is retryable is tried again after a delay, up to the attempts allowed', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store, { maxAttempts: 2 });
      const running = await begun(store);
      const failedAt = Date.now();
      const waiting = await running.fail(FLAKY);
      assert.deepEqual([waiting.status, waiting.waitReason, waiting.error?.reason], [QUEUED, WaitReason.RETRY, 'ENGINE_ERROR']);
      assert.equal(waiting.attempt, 1);
      await claimNothing(store);
      const lease = await claim(store);
      assert.ok(Date.now() - failedAt >= 450, 'a retry waits at least half a second');
      assert.equal((await lease.begin(RUN)).attempt, 2);
      const failed = await lease.fail({ ...FLAKY, timings: TIMINGS });
      assert.deepEqual([failed.status, failed.errorMessage, failed.timings?.runSeconds], [FAILED, FLAKY.message, 1.5]);
      const events = await eventsOf(store, jobId);
      assert.deepEqual(events.map(statusOf), [QUEUED, PROCESSING, QUEUED, PROCESSING, FAILED]);
    });

    it('adds up the time that slots were held, over retries, given back attempts and one that never began', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const held = (gpuSeconds: number) => create(TimingsSchema, { gpuSeconds, runSeconds: gpuSeconds });
      assert.equal((await (await begun(store)).giveBack(WaitReason.SLOT, held(1))).timings?.gpuSeconds, 1);
      assert.equal((await (await begun(store)).fail({ ...FLAKY, timings: held(2) })).timings?.gpuSeconds, 3);
      const failed = await (await claim(store)).fail({ ...BROKEN, timings: create(TimingsSchema, { prepareSeconds: 1 }) });
      assert.deepEqual([failed.timings?.gpuSeconds, failed.timings?.runSeconds, failed.timings?.prepareSeconds], [3, 0, 1]);
      assert.deepEqual((await store.get(jobId))?.timings, failed.timings);
    });

    it('before the engine began counts too', async (t) => {
      const { store } = await open(t);
      await submit(store, { maxAttempts: 1 });
      const job = await (await claim(store)).fail({ ...FLAKY, reason: 'INPUT_NOT_READABLE' });
      assert.deepEqual([job.status, job.attempt, job.error?.reason], [FAILED, 0, 'INPUT_NOT_READABLE']);
    });

    it('that is not retryable is final at once', async (t) => {
      const { store } = await open(t);
      await submit(store);
      const job = await (await begun(store)).fail(BROKEN);
      assert.deepEqual([job.status, job.error?.reason, job.error?.retryable], [FAILED, 'NO_FACE_IN_SOURCE', false]);
    });

    it('does not keep other jobs waiting while it waits for its retry', async (t) => {
      // A retry waits for half a second at least: where these steps take longer than that, they say nothing, and are made once more.
      for (;;) {
        const { store } = await open(t);
        await submit(store);
        const lease = await begun(store);
        const since = performance.now();
        await lease.fail(FLAKY);
        const other = await submit(store);
        const claimed = (await claim(store)).job;
        if (performance.now() - since >= 500) continue;
        assert.equal(other.queuePosition, 0);
        assert.equal(claimed.jobId, other.jobId);
        return;
      }
    });

    it(`by ${POISON_KILLS} dead workers ends the job as poisonous`, { timeout: 60_000 }, async (t) => {
      const { store } = await open(t);
      await submit(store, { maxAttempts: 10 });
      for (let kill = 1; kill < POISON_KILLS; kill++) assert.equal((await (await begun(store)).fail(CRASH)).status, QUEUED);
      const job = await (await begun(store)).fail(CRASH);
      assert.deepEqual([job.status, job.error?.reason, job.error?.retryable], [FAILED, 'JOB_KILLS_WORKERS', false]);
    });
  });

  describe(`${name}: cancel`, SUITE, () => {
    it('of a queued job is done at once', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const job = await store.cancel(jobId, GRACE_MS);
      assert.deepEqual([job?.status, job?.queuePosition], [CANCELED, undefined]);
      assert.ok(job?.cancelRequestedAt && job.finishedAt);
      assert.deepEqual((await eventsOf(store, jobId)).map(statusOf), [QUEUED, CANCELED]);
      await claimNothing(store);
    });

    it('of a job that waits for its retry is done at once', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      await (await begun(store)).fail(FLAKY);
      const job = await store.cancel(jobId, GRACE_MS);
      assert.deepEqual([job?.status, job?.error], [CANCELED, undefined]);
    });

    for (const state of ['claimed', 'begun'] as const) {
      it(`of a ${state} job tells its holder, who ends it`, async (t) => {
        const { store } = await open(t);
        const { jobId } = await submit(store);
        const lease = await (state === 'begun' ? begun(store) : claim(store));
        const asked = await store.cancel(jobId, GRACE_MS);
        assert.equal(asked?.status, state === 'begun' ? PROCESSING : QUEUED);
        assert.equal(timestampMs(asked!.forceStopAt!) - timestampMs(asked!.cancelRequestedAt!), GRACE_MS);
        assert.ok(lease.signal.aborted);
        assert.ok(lease.signal.reason instanceof LeaseEnded);
        assert.equal(lease.signal.reason.end, 'cancel_requested');
        assert.deepEqual(await store.cancel(jobId, 1), asked, 'a second request changes nothing');
        await lease.log(log('stopping'));
        const job = await lease.canceled(TIMINGS);
        assert.deepEqual([job.status, job.timings?.runSeconds], [CANCELED, 1.5]);
        const states = (await eventsOf(store, jobId)).map(statusOf).filter((status) => status !== undefined);
        assert.deepEqual(states, state === 'begun' ? [QUEUED, PROCESSING, PROCESSING, CANCELED] : [QUEUED, QUEUED, CANCELED]);
      });
    }

    const verdicts: Record<string, (lease: Lease) => Promise<Job | undefined>> = {
      complete: (lease) => lease.complete(done()),
      'retryable fail': (lease) => lease.fail(FLAKY),
      'final fail': (lease) => lease.fail(BROKEN),
      giveBack: (lease) => lease.giveBack(WaitReason.SLOT),
      dispose: async (lease) => {
        await lease[Symbol.asyncDispose]();
        return undefined;
      },
    };
    for (const [method, end] of Object.entries(verdicts)) {
      it(`before ${method} makes the job canceled`, async (t) => {
        const { store } = await open(t);
        const { jobId } = await submit(store);
        const lease = await begun(store);
        await store.cancel(jobId, GRACE_MS);
        const answer = await end(lease);
        const job = await store.get(jobId);
        assert.equal(job?.status, CANCELED);
        assert.equal(job.result, undefined);
        if (answer) assert.deepEqual(answer, job);
        await claimNothing(store);
      });
    }

    it('leaves a job that has ended as it is, and knows no unknown one', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const job = await (await begun(store)).complete(done());
      assert.deepEqual(await store.cancel(jobId, GRACE_MS), job);
      assert.equal(await store.cancel('job_20250405_aaaaaaaaaaaa', GRACE_MS), undefined);
    });

    it('racing with success gives one of the two, and every reader the same', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const lease = await begun(store);
      const [, finished] = await Promise.all([store.cancel(jobId, GRACE_MS), lease.complete(done())]);
      assert.ok([CANCELED, SUCCEEDED].includes(finished.status));
      assert.deepEqual(await store.get(jobId), finished);
    });
  });

  describe(`${name}: start timeout`, SUITE, () => {
    /** A claim waits already; on a slow machine it hears of the job this late at most. */
    const TAKEN_WITHIN_MS = 1_500;

    it('fails a job that nobody has taken', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store, { startTimeoutMs: 30 });
      // From its first event on: a slow disk may have acknowledged the job after its time.
      const last = (await collect(store.watch(jobId, 1, NEVER))).at(-1);
      assert.equal(last?.event.case === 'state' && last.event.value.error?.reason, 'START_TIMEOUT');
      assert.equal((await store.get(jobId))?.status, FAILED);
      await claimNothing(store);
    });

    it('is the holder’s affair while a lease holds the job, and is past when it comes back', async (t) => {
      const { store } = await open(t);
      const claimed = claim(store);
      const { jobId } = await submit(store, { startTimeoutMs: TAKEN_WITHIN_MS });
      const lease = await claimed;
      assert.equal(lease.startDeadlineMs, timestampMs(lease.job.createdAt!) + TAKEN_WITHIN_MS);
      const other = await submit(store, { startTimeoutMs: TAKEN_WITHIN_MS });
      await collect(store.watch(other.jobId, undefined, NEVER));
      assert.equal((await store.get(jobId))?.status, QUEUED);
      await lease.giveBack(WaitReason.SLOT);
      await collect(store.watch(jobId, undefined, NEVER));
      assert.equal((await store.get(jobId))?.error?.reason, 'START_TIMEOUT');
    });

    it('is over once the engine has begun', async (t) => {
      const { store } = await open(t);
      const running = begun(store);
      const { jobId } = await submit(store, { startTimeoutMs: TAKEN_WITHIN_MS });
      await (await running).giveBack(WaitReason.SLOT);
      const other = await submit(store, { tenant: 'other', startTimeoutMs: TAKEN_WITHIN_MS });
      await collect(store.watch(other.jobId, undefined, NEVER));
      assert.equal((await store.get(jobId))?.status, QUEUED);
      assert.equal((await claim(store)).startDeadlineMs, undefined);
    });

    it('fires after a restart', async (t) => {
      const { store, restart } = await open(t);
      const { jobId } = await submit(store, { startTimeoutMs: 20 });
      const last = (await collect((await restart()).watch(jobId, 1, NEVER))).at(-1);
      assert.equal(last && statusOf(last), FAILED);
    });
  });

  describe(`${name}: lifetimes`, SUITE, () => {
    const DAY = 86_400_000;
    /** Ended well with a result that is kept for so long. */
    const finish = async (store: JobStore, key: string, retentionMs?: number, wanted?: Wanted): Promise<Job> => {
      await submit(store, wanted);
      const lease = await begun(store);
      await lease.pin(key);
      return await lease.complete({ ...done(key), retentionMs });
    };
    const reclaimed = async (store: JobStore): Promise<string[]> => {
      const keys: string[] = [];
      await store.reclaim(async (key) => void keys.push(key));
      return keys.sort();
    };

    it('purge a result when its time has come, and leave a tombstone that says when', async (t) => {
      const { store } = await open(t);
      const [due, later, ever] = [await finish(store, 'aa', 0), await finish(store, 'bb', DAY), await finish(store, 'cc')];
      assert.equal(timestampMs(later.resultExpireTime!), timestampMs(later.finishedAt!) + DAY);
      assert.equal(ever.resultExpireTime, undefined);
      assert.deepEqual(await store.expire({ jobTtlMs: DAY, max: 10 }), { purged: 1, forgotten: 0, more: false });
      const purged = await store.get(due.jobId);
      assert.deepEqual([purged?.status, purged?.result], [SUCCEEDED, undefined]);
      assert.ok(timestampMs(purged!.purgedAt!) >= timestampMs(purged!.resultExpireTime!));
      for (const { jobId } of [later, ever]) assert.ok((await store.get(jobId))?.result);
      assert.deepEqual(await reclaimed(store), ['aa']);
      assert.deepEqual(await store.expire({ jobTtlMs: DAY, max: 10 }), { purged: 0, forgotten: 0, more: false });
    });

    it('leave a blob to the job whose time has not come', async (t) => {
      const { store } = await open(t);
      await finish(store, 'aa', 0);
      await finish(store, 'aa', DAY);
      await store.expire({ jobTtlMs: DAY, max: 10 });
      assert.deepEqual(await reclaimed(store), []);
    });

    it('forget an ended job with all that it has, as if it had never been', async (t) => {
      const { store } = await open(t);
      const wanted = wantedJob({ request: { idempotencyKey: 'key', labels: { order: '17' } } });
      await store.submit(wanted, LIMITS);
      const lease = await begun(store);
      await lease.pin('aa');
      const { jobId } = await lease.complete({ ...done('aa'), retentionMs: DAY });
      assert.deepEqual(await store.expire({ jobTtlMs: 0, max: 10 }), { purged: 0, forgotten: 1, more: false });
      assert.equal(await store.get(jobId), undefined);
      assert.deepEqual((await store.list({ pageSize: 10 })).jobs, []);
      assert.deepEqual((await store.list({ pageSize: 10, labels: [{ key: 'order' }] })).jobs, []);
      assert.equal((await refusal(() => collect(store.watch(jobId, undefined, NEVER)))).reason, 'JOB_NOT_FOUND');
      assert.equal(await store.purge(jobId), undefined);
      assert.equal((await store.overview(60_000)).totals.get(SUCCEEDED) ?? 0, 0);
      assert.deepEqual(await reclaimed(store), ['aa']);
      // Its key stands for nothing any more.
      assert.equal(await store.submitted('one', 'key', 'another digest'), undefined);
      const again = await store.submit({ ...wantedJob({ request: { idempotencyKey: 'key' } }), requestDigest: 'another digest' }, LIMITS);
      assert.equal(again.created, true);
    });

    it('touch no job that has not ended', async (t) => {
      const { store } = await open(t);
      const ids = [];
      for (let i = 0; i < 3; i++) ids.push((await submit(store)).jobId);
      await begun(store);
      await claim(store);
      assert.deepEqual(await store.expire({ jobTtlMs: 0, max: 10 }), { purged: 0, forgotten: 0, more: false });
      for (const id of ids) assert.ok(await store.get(id));
    });

    it('do so much at a time, the longest due first, over a restart too', async (t) => {
      const { store, restart } = await open(t);
      const ids = [];
      for (let i = 0; i < 5; i++) ids.push((await finish(store, `${i}${i}`, 0)).jobId);
      assert.deepEqual(await store.expire({ jobTtlMs: DAY, max: 2 }), { purged: 2, forgotten: 0, more: true });
      assert.deepEqual(await Promise.all(ids.map(async (id) => (await store.get(id))?.purgedAt !== undefined)), [
        true,
        true,
        false,
        false,
        false,
      ]);
      const reopened = await restart();
      assert.deepEqual(await reopened.expire({ jobTtlMs: DAY, max: 10 }), { purged: 3, forgotten: 0, more: false });
      assert.deepEqual(await reclaimed(reopened), ['00', '11', '22', '33', '44']);
      assert.deepEqual(await reopened.expire({ jobTtlMs: 0, max: 4 }), { purged: 0, forgotten: 4, more: true });
      assert.deepEqual(await reopened.expire({ jobTtlMs: 0, max: 4 }), { purged: 0, forgotten: 1, more: false });
    });

    it('forget jobs that failed, were canceled or refused, and those that were purged', async (t) => {
      const { store } = await open(t);
      await submit(store);
      await (await begun(store)).fail(BROKEN);
      await submit(store);
      await (await begun(store)).refuse(BROKEN);
      await store.cancel((await submit(store)).jobId, GRACE_MS);
      await store.purge((await finish(store, 'aa', DAY)).jobId);
      assert.deepEqual(await store.expire({ jobTtlMs: 0, max: 10 }), { purged: 0, forgotten: 4, more: false });
      assert.deepEqual((await store.list({ pageSize: 10 })).jobs, []);
      const { totals } = await store.overview(60_000);
      assert.equal(
        [...totals.values()].reduce((sum, jobs) => sum + jobs, 0),
        0,
      );
    });

    const upload = async (store: JobStore): Promise<string> => {
      const limits = { maxUploads: 10, maxBytes: 1e9, ttlMs: DAY };
      const id = randomBytes(16).toString('hex');
      await store.uploads.begin({ id, tenant: 'one', filename: 'face.jpg', resumable: false, note: '' }, limits);
      await store.uploads.complete(id, { sha256: 'aa', bytes: 5, mediaType: 'image/jpeg' }, limits);
      return id;
    };
    const naming = (...ids: string[]): Wanted => ({ request: { sourceImages: ids.map((id) => `upload://${id}`) } });
    const uploadsReclaimed = async (store: JobStore): Promise<string[]> => {
      const removed: string[] = [];
      await store.uploads.reclaim(async (id) => void removed.push(id));
      return removed.sort();
    };

    it('leave the uploads that a job named to its caller, and a purge does not', async (t) => {
      const { store } = await open(t);
      const offered = async (id: string) => (await store.uploads.get(id))?.offered ?? false;
      const [kept, gone] = [await upload(store), await upload(store)];
      await finish(store, 'aa', 0, naming(kept));
      const { jobId } = await finish(store, 'bb', 0, naming(gone));
      await store.purge(jobId);
      await store.expire({ jobTtlMs: DAY, max: 10 });
      assert.deepEqual([await offered(kept), await offered(gone)], [true, false]);
      await store.expire({ jobTtlMs: 0, max: 10 });
      assert.equal(await offered(kept), true);
      await store.uploads.release(kept);
      assert.deepEqual(await uploadsReclaimed(store), [kept, gone].sort());
    });

    it('leave them to a purge that comes later, but for those that another job names', async (t) => {
      const { store, restart } = await open(t);
      const [shared, own] = [await upload(store), await upload(store)];
      const [first, second] = [await finish(store, 'aa', 0, naming(shared, own)), await finish(store, 'bb', 0, naming(shared))];
      assert.equal((await store.expire({ jobTtlMs: DAY, max: 10 })).purged, 2);
      const expired = await store.get(first.jobId);
      assert.deepEqual(await uploadsReclaimed(store), []);
      // It says when its result went, and what it named goes now.
      assert.deepEqual(await store.purge(first.jobId), expired);
      assert.deepEqual(await uploadsReclaimed(store), [own]);
      const reopened = await restart();
      // Twice is once.
      await reopened.purge(first.jobId);
      assert.deepEqual(await uploadsReclaimed(reopened), []);
      await reopened.purge(second.jobId);
      assert.deepEqual(await uploadsReclaimed(reopened), [shared]);
    });

    it('tell whoever reads the past of a job that it is forgotten', async (t) => {
      const { store } = await open(t);
      await submit(store);
      const lease = await begun(store);
      const { jobId } = lease.job;
      const watcher = reading(t, store.watch(jobId, 0, NEVER));
      await watcher.next();
      await lease.complete(done('aa'));
      await store.expire({ jobTtlMs: 0, max: 10 });
      const error = await refusal(async () => {
        for (;;) await watcher.next();
      }).catch((thrown: Error) => thrown);
      // It may have been given the end before.
      assert.match(error.message, /there is no job|the stream ended/);
    });

    it('give no place in the order of changes out again', async (t) => {
      const { store, restart } = await open(t);
      await finish(store, 'aa');
      const { watchToken } = await store.list({ pageSize: 10 });
      await store.expire({ jobTtlMs: 0, max: 10 });
      const reopened = await restart();
      const { jobId } = await submit(reopened);
      const changes = reading(t, reopened.watchJobs({}, watchToken, NEVER));
      const change = await changes.until(({ job }) => job !== undefined);
      assert.equal(change.job?.jobId, jobId);
      assert.equal((await reopened.list({ pageSize: 10 })).jobs.length, 1);
    });
  });

  describe(`${name}: purge`, SUITE, () => {
    /** What a reclaim deletes. */
    const reclaimed = async (store: JobStore): Promise<string[]> => {
      const keys: string[] = [];
      await store.reclaim(async (key) => void keys.push(key));
      return keys.sort();
    };
    /** A finished job whose result is the blob. */
    const finish = async (store: JobStore, key: string): Promise<Job> => {
      await submit(store);
      const lease = await begun(store);
      await lease.pin(key);
      return await lease.complete(done(key));
    };

    /** A run that has begun; `meanwhile` is done with it, and a job's result, which is the blob, is purged then. */
    const besidePurged = async (store: JobStore, key: string, meanwhile: (lease: Lease) => Promise<void> = async () => {}) => {
      const { jobId } = await finish(store, key);
      await submit(store);
      const lease = await begun(store);
      await meanwhile(lease);
      await store.purge(jobId);
      return lease;
    };
    /** A run pins the blob `aa` after its deletion has begun: what is done first. */
    const whileDeleted = async (store: JobStore, lease: Lease, stores: boolean) => {
      const order: string[] = [];
      const [asked, mayDelete] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const reclaiming = store.reclaim(async () => {
        asked.resolve();
        await mayDelete.promise;
        order.push('deleted');
      });
      await asked.promise;
      const pinned = lease.pin('aa', stores).then(() => order.push('pinned'));
      // The store has had its turn, and other keys are not held up.
      await lease.pin('bb', stores);
      mayDelete.resolve();
      await Promise.all([reclaiming, pinned]);
      return order;
    };

    it('forgets the result and has its blob deleted once', async (t) => {
      const { store } = await open(t);
      const finished = await finish(store, 'aa');
      assert.deepEqual(await reclaimed(store), []);
      const purged = await store.purge(finished.jobId);
      assert.deepEqual([purged?.status, purged?.result], [SUCCEEDED, undefined]);
      assert.ok(purged?.purgedAt);
      assert.equal(purged.sequence, finished.sequence, 'nothing follows the terminal event');
      assert.deepEqual(await store.purge(finished.jobId), purged);
      assert.deepEqual(await reclaimed(store), ['aa']);
      assert.deepEqual(await reclaimed(store), []);
    });

    it('leaves a blob that another job’s result is too', async (t) => {
      const { store } = await open(t);
      const [first, second] = [await finish(store, 'aa'), await finish(store, 'aa')];
      await store.purge(first.jobId);
      assert.deepEqual(await reclaimed(store), []);
      await store.purge(second.jobId);
      assert.deepEqual(await reclaimed(store), ['aa']);
    });

    it('leaves a blob that a run is about to store', async (t) => {
      const { store } = await open(t);
      const lease = await besidePurged(store, 'aa');
      await lease.pin('aa');
      await lease.pin('aa');
      assert.deepEqual(await reclaimed(store), []);
      const second = await lease.complete(done('aa'));
      assert.deepEqual(await reclaimed(store), []);
      await store.purge(second.jobId);
      assert.deepEqual(await reclaimed(store), ['aa']);
    });

    it('lets nobody refer to a blob while it is being deleted', async (t) => {
      const { store } = await open(t);
      const lease = await besidePurged(store, 'aa');
      assert.deepEqual(await whileDeleted(store, lease, true), ['deleted', 'pinned']);
      await lease.complete(done('aa'));
      assert.deepEqual(await reclaimed(store), ['bb'], 'and what a run no longer wants goes too');
    });

    it('leaves a blob that a run has found and not yet taken as its result, marked or not', async (t) => {
      const { store } = await open(t);
      const lease = await besidePurged(store, 'aa', async (run) => {
        await run.pin('aa', false);
        await run.pin('aa', false);
      });
      assert.deepEqual(await reclaimed(store), []);
      const second = await lease.complete(done('aa'));
      assert.deepEqual(await reclaimed(store), []);
      await store.purge(second.jobId);
      assert.deepEqual(await reclaimed(store), ['aa']);
      await refusal(lease.pin('aa', false));
    });

    it('has a blob deleted that only a run had found, once it ends without it', async (t) => {
      const { store } = await open(t);
      const lease = await besidePurged(store, 'aa', (run) => run.pin('aa', false));
      assert.deepEqual(await reclaimed(store), []);
      await lease.fail(BROKEN);
      assert.deepEqual(await reclaimed(store), ['aa']);
    });

    it('has a blob that is being deleted gone before a run may look for it', async (t) => {
      const { store } = await open(t);
      const lease = await besidePurged(store, 'aa');
      assert.deepEqual(await whileDeleted(store, lease, false), ['deleted', 'pinned']);
    });

    it('asks again for a blob that could not be deleted, also after a restart', async (t) => {
      const { store, restart } = await open(t);
      for (const key of ['aa', 'bb']) await store.purge((await finish(store, key)).jobId);
      const fails = store.reclaim(async (key) => {
        if (key === 'aa') throw new Error('the disk is gone');
      });
      await assert.rejects(fails, /the disk is gone/);
      assert.deepEqual(await reclaimed(await restart()), ['aa']);
    });

    const ends: Record<string, (lease: Lease, store: JobStore) => Promise<unknown>> = {
      'gives up': (lease) => lease.fail(BROKEN),
      'is tried again': (lease) => lease.fail(FLAKY),
      'is given back': (lease) => lease.giveBack(WaitReason.SLOT),
      'is canceled': async (lease, store) => {
        await store.cancel(lease.job.jobId, GRACE_MS);
        await lease.complete(done('aa'));
      },
    };
    for (const [how, end] of Object.entries(ends)) {
      it(`has the blob of a run deleted that ${how} after it was stored`, async (t) => {
        const { store } = await open(t);
        await submit(store);
        const lease = await begun(store);
        await lease.pin('aa');
        await end(lease, store);
        assert.deepEqual(await reclaimed(store), ['aa']);
      });
    }

    it('has the blob of a run deleted that a restart interrupted', async (t) => {
      const { store, restart } = await open(t);
      await submit(store);
      await (await begun(store)).pin('aa');
      assert.deepEqual(await reclaimed(await restart()), ['aa']);
    });

    it('refuses a job that has not ended, and knows no unknown one', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const error = await refusal(store.purge(jobId));
      assert.deepEqual([error.kind, error.reason], ['failed_precondition', 'JOB_NOT_TERMINAL']);
      assert.equal(await store.purge('job_20250405_aaaaaaaaaaaa'), undefined);
    });
  });

  describe(`${name}: watch`, SUITE, () => {
    /** Runs a job with so many progress and log events, without waiting for any watcher. */
    const run = async (store: JobStore, events: number): Promise<void> => {
      const lease = await begun(store);
      for (let i = 0; i < events; i++) {
        if (i % 5 === 4) await lease.log(log(`line ${i}`));
        else await lease.progress(progress((100 * i) / events));
      }
      await lease.complete(done());
    };

    it('begins with a snapshot, is gapless, and ends after the terminal event', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const [events] = await Promise.all([collect(store.watch(jobId, undefined, NEVER)), run(store, 12)]);
      const [snapshot, ...rest] = events;
      assert.equal(snapshot?.event.case, 'snapshot');
      assert.equal(snapshot.event.value.job?.jobId, jobId);
      assert.equal(snapshot.event.value.reset, false);
      assert.deepEqual(
        rest.map(({ sequence }) => sequence),
        rest.map((_, i) => snapshot.sequence + 1 + i),
      );
      assert.equal(statusOf(rest.at(-1)!), SUCCEEDED);
      assert.ok(rest.every(({ time, skippedAfter }) => time && skippedAfter === undefined));
    });

    it('of an ended job is one snapshot', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      await run(store, 3);
      const [only, ...none] = await collect(store.watch(jobId, undefined, NEVER));
      assert.equal(only?.event.case === 'snapshot' && only.event.value.job?.status, SUCCEEDED);
      assert.deepEqual(none, []);
    });

    it('after a sequence replays what follows it; after the last one it is over', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      await run(store, 10);
      const all = await eventsOf(store, jobId);
      for (const after of [1, 5, all.length - 1]) assert.deepEqual(await eventsOf(store, jobId, after), all.slice(after));
      assert.deepEqual(await eventsOf(store, jobId, all.length), []);
    });

    it('after any sequence of what was written together replays what follows it, as those saw it who watched', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const live = collect(store.watch(jobId, 0, NEVER));
      const lease = await claim(store);
      await Promise.all([lease.begin(RUN), ...Array.from({ length: 80 }, (_, i) => lease.log(log(`${i}`))), lease.complete(done())]);
      const shown = (events: readonly JobEvent[]) =>
        events.map(({ sequence, event }) => [sequence, event.case, event.case === 'log' && event.value.message]);
      const all = shown(await live);
      assert.deepEqual(
        all.map(([sequence]) => sequence),
        Array.from({ length: 83 }, (_, i) => i + 1),
      );
      for (let after = 0; after < all.length; after++) assert.deepEqual(shown(await eventsOf(store, jobId, after)), all.slice(after));
    });

    it('after a sequence goes on where what was written together is trimmed away in part', async (t) => {
      const { store } = await open(t, { maxStoredEvents: 40 });
      const { jobId } = await submit(store);
      const lease = await begun(store);
      for (let i = 0; i < 20; i++) await Promise.all(Array.from({ length: 7 }, () => lease.log(log(`${i}`))));
      await lease.complete(done());
      const [reset] = await eventsOf(store, jobId, 2);
      assert.equal(reset?.event.case === 'snapshot' && reset.event.value.reset, true);
      const last = reset?.sequence ?? 0;
      for (let after = last - 39; after < last; after++) {
        assert.deepEqual(
          (await eventsOf(store, jobId, after)).map(({ sequence }) => sequence),
          Array.from({ length: last - after }, (_, i) => after + 1 + i),
        );
      }
    });

    it('after a sequence that is ahead of the store gives a snapshot marked reset', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const watching = reading(t, store.watch(jobId, 99, NEVER));
      const first = await watching.next();
      assert.equal(first.event.case === 'snapshot' && first.event.value.reset, true);
      await store.cancel(jobId, GRACE_MS);
      assert.equal((await watching.next()).sequence, first.sequence + 1);
    });

    it('after a sequence that is trimmed away gives a snapshot marked reset', async (t) => {
      const { store } = await open(t, { maxStoredEvents: 40 });
      const { jobId } = await submit(store);
      await run(store, 200);
      const [first, ...none] = await eventsOf(store, jobId, 2);
      assert.equal(first?.event.case === 'snapshot' && first.event.value.reset, true);
      assert.deepEqual(none, []);
      const last = first?.sequence ?? 0;
      assert.deepEqual(
        (await eventsOf(store, jobId, last - 10)).map(({ sequence }) => sequence),
        Array.from({ length: 10 }, (_, i) => last - 9 + i),
      );
    });

    it('of an unknown job throws', async (t) => {
      const { store } = await open(t);
      const error = await refusal(() => collect(store.watch('job_20250405_aaaaaaaaaaaa', undefined, NEVER)));
      assert.equal(error.reason, 'JOB_NOT_FOUND');
    });

    it('gives all watchers the same objects in the same order, live and replayed', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const watchers = Array.from({ length: 5 }, () => collect(store.watch(jobId, undefined, NEVER)));
      await run(store, 40);
      const [first, ...others] = await Promise.all(watchers);
      for (const other of others) {
        assert.equal(other.length, first!.length);
        for (const [i, event] of other.entries()) assert.equal(event, first![i]);
      }
      const one = reading(t, store.watch(jobId, 0, NEVER));
      const two = reading(t, store.watch(jobId, 0, NEVER));
      for (let i = 0; i < first!.length; i++) assert.equal(await one.next(), await two.next());
    });

    it('is gapless over reconnects at random points, attempts and a restart', async (t) => {
      const { store, restart } = await open(t);
      const { jobId } = await submit(store);
      const seen: number[] = [];
      const follow = async (from: JobStore) => {
        for (;;) {
          let left = 1 + Math.floor(Math.random() * 7);
          for await (const { sequence, skippedAfter, event } of from.watch(jobId, seen.at(-1) ?? 0, NEVER)) {
            assert.equal(skippedAfter, undefined);
            assert.notEqual(event.case, 'snapshot');
            seen.push(sequence);
            if (event.case === 'state' && isTerminal(event.value.status)) return;
            if (--left === 0) break;
          }
        }
      };
      const before = follow(store).catch((error) => assert.equal(error.reason, 'SHUTTING_DOWN'));
      const lease = await begun(store);
      for (let i = 0; i < 50; i++) await lease.progress(progress(i));
      await lease.giveBack(WaitReason.SLOT);
      const reopened = await restart();
      await before;
      await Promise.all([follow(reopened), run(reopened, 60)]);
      assert.deepEqual(
        seen,
        seen.map((_, i) => i + 1),
      );
      assert.equal(seen.length, (await reopened.get(jobId))?.sequence);
    });

    it('of a slow reader skips progress only, and says from where', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const watching = reading(t, store.watch(jobId, undefined, NEVER));
      let at = (await watching.next()).sequence;
      await run(store, 1500);
      const rest: JobEvent[] = [];
      for await (const event of { [Symbol.asyncIterator]: () => watching.iterator }) rest.push(event);
      assert.ok(rest.length < 1300, `${rest.length} events kept for a slow reader`);
      for (const { sequence, skippedAfter } of rest) {
        assert.equal(skippedAfter, sequence === at + 1 ? undefined : at);
        at = sequence;
      }
      assert.equal(rest.filter(({ event }) => event.case === 'log').length, 300);
      assert.deepEqual(rest.map(statusOf).filter(Boolean), [PROCESSING, SUCCEEDED]);
    });

    it('after a sequence replays all, progress too, however long', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      await run(store, 1000);
      const events = await eventsOf(store, jobId, 3);
      assert.equal(events.length, 1000);
      assert.ok(events.every(({ skippedAfter }) => skippedAfter === undefined));
    });

    it('shows previews to whoever watches, the newest only, and stores none', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const lease = await begun(store);
      lease.preview(create(PreviewSchema, { frame: 1 }));
      const watching = reading(t, store.watch(jobId, undefined, NEVER));
      await watching.next();
      lease.preview(create(PreviewSchema, { frame: 2 }));
      lease.preview(create(PreviewSchema, { frame: 3 }));
      const frameOf = ({ event }: JobEvent) => event.case === 'preview' && event.value.frame;
      let shown = await watching.next();
      // Where writer and watcher are at different servers, what was on its way when the watcher came may still arrive.
      if (frameOf(shown) === 1) shown = await watching.next();
      assert.equal(frameOf(shown), 3);
      assert.equal(shown.sequence, 0);
      await lease.complete(done());
      assert.deepEqual(kinds(await eventsOf(store, jobId)), ['state', 'state', 'state']);
    });

    for (const how of ['signal', 'return'] as const) {
      it(`that waits is left at once by ${how}`, async (t) => {
        const { store } = await open(t);
        const { jobId } = await submit(store);
        const leave = new AbortController();
        const iterator = store.watch(jobId, undefined, leave.signal)[Symbol.asyncIterator]();
        await iterator.next();
        const waiting = iterator.next();
        if (how === 'signal') leave.abort();
        else await iterator.return?.();
        assert.equal((await waiting).done, true);
        assert.equal((await iterator.next()).done, true);
      });
    }

    it('with an aborted signal gives nothing', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      assert.deepEqual(await collect(store.watch(jobId, undefined, AbortSignal.abort())), []);
    });
  });

  describe(`${name}: watching all jobs`, SUITE, () => {
    const facts = ({ job, matches, reset }: JobChange) => [job?.jobId, job?.status, matches, reset];

    it('gives every change from now on, the latest of each job', async (t) => {
      const { store } = await open(t);
      await submit(store);
      const watching = reading(t, store.watchJobs({}, undefined, NEVER));
      const first = await submit(store);
      const second = await submit(store);
      await store.cancel(first.jobId, GRACE_MS);
      const seen = new Map<string, JobStatus>();
      while (seen.get(first.jobId) !== CANCELED || !seen.has(second.jobId)) {
        const { job, reset, matches } = await watching.next();
        assert.deepEqual([reset, matches], [false, true]);
        seen.set(job!.jobId, job!.status);
      }
      assert.equal(seen.size, 2);
    });

    it('gives a slow reader one change for many', async (t) => {
      const { store } = await open(t);
      const { watchToken } = await store.list({ pageSize: 1 });
      const { jobId } = await submit(store);
      const lease = await begun(store);
      for (let i = 0; i < 50; i++) await lease.progress(progress(i));
      await lease.complete(done());
      const last = await submit(store);
      const watching = reading(t, store.watchJobs({}, watchToken, NEVER));
      assert.deepEqual(facts(await watching.next()), [jobId, SUCCEEDED, true, false]);
      assert.deepEqual(facts(await watching.next()), [last.jobId, QUEUED, true, false]);
    });

    it('goes on from the token of a list or of a change, over a restart too', async (t) => {
      const { store, restart } = await open(t);
      await submit(store, { tenant: 'before' });
      const { watchToken } = await store.list({ pageSize: 10 });
      const [first, second] = [await submit(store), await submit(store)];
      const change = await reading(t, store.watchJobs({}, watchToken, NEVER)).next();
      assert.equal(change.job?.jobId, first.jobId);
      const reopened = await restart();
      assert.equal((await reading(t, reopened.watchJobs({}, change.watchToken, NEVER)).next()).job?.jobId, second.jobId);
    });

    it('tells a token of another store at once', async (t) => {
      const { store } = await open(t);
      const { store: other } = await open(t);
      for (let i = 0; i < 3; i++) await submit(other);
      for (const token of ['nonsense', '', (await other.list({ pageSize: 1 })).watchToken]) {
        const watching = reading(t, store.watchJobs({}, token, NEVER));
        assert.deepEqual(facts(await watching.next()), [undefined, undefined, true, true]);
        const { jobId } = await submit(store);
        assert.deepEqual(facts(await watching.next()), [jobId, QUEUED, true, false]);
      }
    });

    it('tells when a job leaves the filter, once', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const { watchToken } = await store.list({ pageSize: 1 });
      const lease = await begun(store);
      const watching = reading(t, store.watchJobs({ statuses: [QUEUED] }, watchToken, NEVER));
      assert.deepEqual(facts(await watching.next()), [jobId, PROCESSING, false, false]);
      await lease.progress(progress(10));
      await lease.giveBack(WaitReason.SLOT);
      assert.deepEqual(facts(await watching.until(({ matches }) => matches)), [jobId, QUEUED, true, false]);
    });

    it('gives only what matches tenant, labels and status', async (t) => {
      const { store } = await open(t);
      const { watchToken } = await store.list({ pageSize: 1 });
      const label = { labels: { show: 'one' } };
      await submit(store, { tenant: 'two', request: label });
      await submit(store);
      const { jobId } = await submit(store, { request: label });
      const wanted = [
        { tenant: 'one', labels: [{ key: 'show', value: 'one' }] },
        { tenant: 'one', labels: [{ key: 'show' }], statuses: [QUEUED] },
      ];
      for (const filter of wanted) {
        assert.equal((await reading(t, store.watchJobs(filter, watchToken, NEVER)).next()).job?.jobId, jobId);
      }
    });

    it('ends with its signal', async (t) => {
      const { store } = await open(t);
      const leave = new AbortController();
      const ended = collect(store.watchJobs({}, undefined, leave.signal));
      leave.abort();
      assert.deepEqual(await ended, []);
    });
  });

  describe(`${name}: list`, SUITE, () => {
    const ids = (jobs: readonly Job[]) => jobs.map((job) => job.jobId);

    it('is newest first, page by page, whatever is submitted meanwhile', async (t) => {
      const { store } = await open(t);
      const submitted: string[] = [];
      for (let i = 0; i < 25; i++) submitted.push((await submit(store)).jobId);
      const listed: string[] = [];
      let pageToken: string | undefined;
      do {
        const page = await store.list({ pageSize: 10, pageToken });
        listed.push(...ids(page.jobs));
        pageToken = page.nextPageToken;
        await submit(store);
      } while (pageToken !== undefined);
      assert.deepEqual(listed, submitted.toReversed());
    });

    it('has no next page when it fits', async (t) => {
      const { store } = await open(t);
      for (let i = 0; i < 4; i++) await submit(store);
      assert.equal((await store.list({ pageSize: 4 })).nextPageToken, undefined);
    });

    it('filters by tenant, status, reason, labels and time, and by all of them', async (t) => {
      const { store } = await open(t);
      const plain = await submit(store);
      const labelled = await submit(store, { request: { labels: { show: 'one', take: '2' } } });
      const other = await submit(store, { tenant: 'two', request: { labels: { show: 'two' } } });
      const failed: string[] = [];
      const lease = await begun(store);
      failed.push((await lease.fail(BROKEN)).jobId);
      assert.deepEqual(failed, [plain.jobId]);
      const list = async (query: Partial<Parameters<JobStore['list']>[0]>) => ids((await store.list({ pageSize: 10, ...query })).jobs);
      assert.deepEqual(await list({ tenant: 'one' }), [labelled.jobId, plain.jobId]);
      assert.deepEqual(await list({ statuses: [QUEUED] }), [other.jobId, labelled.jobId]);
      assert.deepEqual(await list({ statuses: [FAILED, QUEUED, CANCELED] }), [other.jobId, labelled.jobId, plain.jobId]);
      assert.deepEqual(await list({ tenant: 'one', statuses: [QUEUED] }), [labelled.jobId]);
      assert.deepEqual(await list({ errorReason: 'NO_FACE_IN_SOURCE' }), [plain.jobId]);
      assert.deepEqual(await list({ errorReason: 'RUN_TIMEOUT' }), []);
      assert.deepEqual(await list({ labels: [{ key: 'show' }] }), [other.jobId, labelled.jobId]);
      assert.deepEqual(await list({ labels: [{ key: 'show', value: 'one' }, { key: 'take' }] }), [labelled.jobId]);
      assert.deepEqual(
        await list({
          labels: [
            { key: 'show', value: 'one' },
            { key: 'take', value: '3' },
          ],
        }),
        [],
      );
      assert.deepEqual(await list({ batchId: 'batch' }), []);
      const created = timestampMs(plain.createdAt!);
      assert.deepEqual(await list({ createdBeforeMs: created }), []);
      assert.equal((await list({ createdAfterMs: created })).length, 3);
      const all = {
        tenant: 'one',
        statuses: [QUEUED],
        labels: [{ key: 'show' }],
        createdAfterMs: created,
        createdBeforeMs: Date.now() + 1000,
      };
      assert.deepEqual(await list(all), [labelled.jobId]);
    });

    it('pages over several statuses in order', async (t) => {
      const { store } = await open(t);
      const submitted: string[] = [];
      for (let i = 0; i < 12; i++) {
        const { jobId } = await submit(store);
        submitted.push(jobId);
        if (i % 3 === 0) await store.cancel(jobId, GRACE_MS);
      }
      const listed: string[] = [];
      let pageToken: string | undefined;
      do {
        const page = await store.list({ statuses: [CANCELED, QUEUED], pageSize: 5, pageToken });
        listed.push(...ids(page.jobs));
        pageToken = page.nextPageToken;
      } while (pageToken !== undefined);
      assert.deepEqual(listed, submitted.toReversed());
    });

    it('refuses a page token that is not its own', async (t) => {
      const { store } = await open(t);
      for (let i = 0; i < 3; i++) await submit(store);
      const { nextPageToken, watchToken } = await store.list({ pageSize: 1 });
      const changed = `${nextPageToken![0] === 'a' ? 'b' : 'a'}${nextPageToken!.slice(1)}`;
      const calls = [
        { pageToken: 'nonsense' },
        { pageToken: '' },
        { pageToken: changed },
        { pageToken: watchToken },
        { pageToken: nextPageToken, tenant: 'two' },
      ];
      for (const call of calls) {
        const error = await refusal(store.list({ pageSize: 1, ...call }));
        assert.deepEqual([error.kind, error.violations[0]?.field], ['invalid', 'page_token']);
      }
    });
  });

  describe(`${name}: overview`, SUITE, () => {
    it('counts by status, tenant and time, over a restart', async (t) => {
      const { store, restart } = await open(t);
      for (const tenant of ['one', 'one', 'two']) await submit(store, { tenant });
      await (await begun(store)).complete(done());
      const running = await begun(store);
      await running.progress(progress(1));
      await store.cancel((await submit(store, { tenant: 'three' })).jobId, GRACE_MS);
      const { totals, queueByTenant, throughput, stepSeconds } = await store.overview(3_600_000);
      const of = (counts: ReadonlyMap<JobStatus, number>) => [QUEUED, PROCESSING, SUCCEEDED, CANCELED].map((s) => counts.get(s) ?? 0);
      assert.deepEqual(of(totals), [1, 1, 1, 1]);
      assert.deepEqual(
        queueByTenant.map(({ queued, processing }) => queued + processing),
        [1, 1],
      );
      assert.equal(throughput.length, 3600 / stepSeconds);
      assert.deepEqual(
        queueByTenant.map(({ queued, oldestQueuedMs }) => (oldestQueuedMs !== undefined) === queued > 0),
        [true, true],
      );
      assert.ok(throughput.at(-1)!.startMs <= Date.now());
      const ended = throughput.reduce((sum, { ended: counts }) => sum + (counts.get(SUCCEEDED) ?? 0) + (counts.get(CANCELED) ?? 0), 0);
      assert.equal(ended, 2);
      await running.giveBack(WaitReason.SLOT);
      const after = await (await restart()).overview(60_000);
      assert.deepEqual(of(after.totals), [2, 0, 1, 1]);
    });

    it('tells of each tenant when the job was submitted that has been queued for longest', async (t) => {
      const { store } = await open(t);
      const oldest = async () =>
        Object.fromEntries((await store.overview(60_000)).queueByTenant.map((one) => [one.tenant, one.oldestQueuedMs]));
      const created = (job: Job) => timestampMs(job.createdAt!);
      const first = await submit(store, { tenant: 'one' });
      while (Date.now() <= created(first)) await new Promise(setImmediate);
      const second = await submit(store, { tenant: 'one' });
      const other = await submit(store, { tenant: 'two' });
      assert.deepEqual(await oldest(), { one: created(first), two: created(other) });
      await store.cancel(first.jobId, GRACE_MS);
      await store.cancel(other.jobId, GRACE_MS);
      assert.deepEqual(await oldest(), { one: created(second) });
      const lease = await begun(store);
      assert.deepEqual(await oldest(), { one: undefined });
      // Back in the queue it has waited since it came.
      await lease.giveBack(WaitReason.SLOT);
      assert.deepEqual(await oldest(), { one: created(second) });
    });
  });

  describe(`${name}: restart`, SUITE, () => {
    it('puts a claimed job back in order, no attempt spent', async (t) => {
      const { store, restart } = await open(t);
      const first = await submit(store, { maxAttempts: 1 });
      const second = await submit(store);
      await claim(store);
      const reopened = await restart();
      const job = await reopened.get(first.jobId);
      assert.deepEqual([job?.status, job?.step, job?.queuePosition], [QUEUED, JobStep.QUEUED, 0]);
      assert.deepEqual([(await claim(reopened)).job.jobId, (await claim(reopened)).job.jobId], [first.jobId, second.jobId]);
    });

    it('queues a begun job again, its attempt spent', async (t) => {
      const { store, restart } = await open(t);
      const { jobId } = await submit(store, { maxAttempts: 2 });
      await (await begun(store)).progress(progress(70));
      const reopened = await restart();
      const job = await reopened.get(jobId);
      assert.deepEqual([job?.status, job?.progress, job?.error?.reason], [QUEUED, 0, 'SERVICE_RESTARTED']);
      const lease = await begun(reopened);
      assert.equal(lease.job.attempt, 2);
      assert.equal((await lease.fail(FLAKY)).status, FAILED);
    });

    it('fails a begun job whose attempts are used up', async (t) => {
      const { store, restart } = await open(t);
      const { jobId } = await submit(store, { maxAttempts: 1 });
      await begun(store);
      const reopened = await restart();
      const job = await reopened.get(jobId);
      assert.deepEqual([job?.status, job?.error?.reason], [FAILED, 'SERVICE_RESTARTED']);
      assert.equal((await eventsOf(reopened, jobId)).length, job?.sequence);
    });

    it('cancels a job whose cancel was requested', async (t) => {
      const { store, restart } = await open(t);
      const { jobId } = await submit(store);
      await begun(store);
      await store.cancel(jobId, GRACE_MS);
      assert.equal((await (await restart()).get(jobId))?.status, CANCELED);
    });

    it('keeps a retry waiting, and what has ended as it was', async (t) => {
      const { store, restart } = await open(t);
      const ended = await submit(store);
      const finished = await (await begun(store)).complete(done());
      // The last, so that however slow the machine is nobody is given the retry instead.
      const retried = await submit(store);
      await (await begun(store)).fail(FLAKY);
      const reopened = await restart();
      assert.ok(equals(JobSchema, (await reopened.get(ended.jobId))!, finished));
      assert.equal((await reopened.get(retried.jobId))?.waitReason, WaitReason.RETRY);
      assert.equal((await claim(reopened)).job.jobId, retried.jobId);
    });
  });

  describe(`${name}: closing`, SUITE, () => {
    it('ends watchers, claims and leases, each in its way', async (t) => {
      const { store } = await open(t);
      const { jobId } = await submit(store);
      const lease = await begun(store);
      const claimed = store.claim({ node: 'node' }, NEVER);
      const one = collect(store.watch(jobId, undefined, NEVER));
      const all = collect(store.watchJobs({}, undefined, NEVER));
      const settled = Promise.allSettled([one, all]);
      const closed = store[Symbol.asyncDispose]();
      assert.equal(await claimed, undefined);
      for (const watcher of await settled) {
        assert.equal(watcher.status, 'rejected');
        assert.deepEqual([watcher.reason.kind, watcher.reason.reason], ['unavailable', 'SHUTTING_DOWN']);
        assert.ok(watcher.reason.retryAfterSeconds > 0);
      }
      assert.equal(lease.signal.reason.end, 'closed');
      await closed;
      await store[Symbol.asyncDispose]();
      for (const call of [
        () => store.get(jobId),
        () => store.ping(),
        () => store.submit(wantedJob(), LIMITS),
        () => lease.complete(done()),
      ]) {
        assert.equal((await refusal(call)).reason, 'SHUTTING_DOWN');
      }
      assert.equal(await store.claim({ node: 'node' }, NEVER), undefined);
      await lease[Symbol.asyncDispose]();
    });

    it('still answers what was asked before', async (t) => {
      const { store, restart } = await open(t);
      const submitted = submit(store);
      const reopened = await restart();
      const { jobId } = await submitted;
      assert.equal((await reopened.get(jobId))?.status, QUEUED);
      await reopened.ping();
    });
  });
}
