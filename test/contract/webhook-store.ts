// What every job store must do with what receivers are to be told. Knows no backend: a store calls `describeWebhookStore` with a factory.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { newBatchId } from '../../src/jobs/batches.ts';
import { JobStatus } from '../../src/jobs/job.ts';
import type { JobStore } from '../../src/jobs/ports.ts';
import { type Delivery, GIVE_WAY, type TakeDeliveries } from '../../src/jobs/webhooks.ts';
import { type JobStoreFactory, type JobStoreSettings, wantedJob } from './job-store.ts';

const { QUEUED, PROCESSING, SUCCEEDED, FAILED, CANCELED } = JobStatus;
const LIMITS = { maxQueued: 1000, idempotencyMs: 86_400_000 };
const NEVER = new AbortController().signal;
const ALL: TakeDeliveries = { max: 100, perHost: 100, perTenant: 100, underWay: [], leaseMs: 60_000 };
const FLAKY = { reason: 'ENGINE_ERROR', message: 'something went wrong', retryable: true, killedWorker: false };

const told = (url: string, statuses: readonly JobStatus[] = [], tenant = 'one') =>
  wantedJob({ tenant, request: { webhook: { url, statuses: [...statuses] } } });

async function run(store: JobStore): Promise<void> {
  const lease = (await store.claim({ node: 'node' }, NEVER))!;
  await lease.begin({ slot: 'node/0', engine: undefined });
  const result = create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: randomBytes(32).toString('hex') });
  await lease.complete({ result, warnings: [], timings: create(TimingsSchema, {}) });
}

export function describeWebhookStore(name: string, factory: JobStoreFactory): void {
  const open = async (t: TestContext, settings?: JobStoreSettings) => {
    const opened = await factory(settings);
    t.after(() => opened.destroy());
    return opened;
  };
  const take = async (store: JobStore, want: Partial<TakeDeliveries> = {}) => (await store.webhooks.take({ ...ALL, ...want })).deliveries;
  const list = async (store: JobStore, tenant: string, dead: boolean) =>
    (await store.webhooks.list({ tenant, dead, pageSize: 10 })).deliveries;

  const hostsOf = (deliveries: readonly Delivery[]) => deliveries.map(({ host }) => host);

  describe(`${name}: webhooks`, { concurrency: 4, timeout: 120_000 }, () => {
    it('are written with the step that they tell of, and for no other', async (t) => {
      const { store } = await open(t);
      const due = new Promise<void>((resolve) => {
        store.webhooks.onDue = resolve;
      });
      await store.submit(wantedJob(), LIMITS);
      const { job } = await store.submit(told('https://a.example.com:8443/hook'), LIMITS);
      assert.deepEqual(await take(store), []);
      await run(store);
      assert.deepEqual(await take(store), [], 'a job that names no receiver is told to nobody');
      await run(store);
      const [delivery, ...more] = await take(store);
      assert.deepEqual(more, []);
      assert.ok(delivery);
      await due;
      const { sequence } = (await store.get(job.jobId))!;
      assert.equal(delivery.id, `msg_${job.jobId}_${sequence}`);
      assert.deepEqual(
        [delivery.jobId, delivery.tenant, delivery.host, delivery.status, delivery.attempts, delivery.dead],
        [job.jobId, 'one', 'a.example.com:8443', SUCCEEDED, 1, false],
      );
      assert.equal(delivery.job.status, SUCCEEDED);
      assert.equal(delivery.job.resultUrl, undefined);
      await store.webhooks.settle(delivery, { type: 'delivered' });
      assert.deepEqual(await take(store), []);
      assert.deepEqual(await list(store, 'one', false), []);
    });

    it('of one job come one after another, in the order of its steps', async (t) => {
      const { store, restart } = await open(t);
      const { job } = await store.submit(told('https://a.example.com/', [QUEUED, PROCESSING, SUCCEEDED]), LIMITS);
      await run(store);
      const again = await restart();
      const seen: JobStatus[] = [];
      for (;;) {
        const [delivery, ...more] = await take(again);
        assert.deepEqual(more, []);
        if (!delivery) break;
        assert.deepEqual(await take(again), [], 'the next waits for this one');
        assert.equal(delivery.job.status, delivery.status);
        seen.push(delivery.status);
        await again.webhooks.settle(delivery, { type: 'delivered' });
      }
      assert.deepEqual(seen, [QUEUED, PROCESSING, SUCCEEDED]);
      assert.equal((await again.get(job.jobId))!.status, SUCCEEDED);
    });

    it('tell of no attempt that is made again but of what was asked for, and of a batch as of jobs alone', async (t) => {
      const { store } = await open(t);
      const batchId = newBatchId(Date.now(), randomBytes(12));
      const jobs = [told('https://a.example.com/', [QUEUED]), told('https://a.example.com/', [FAILED, CANCELED])].map((one) => ({
        ...one,
        batchId,
      }));
      const batch = {
        batchId,
        tenant: 'one',
        jobs,
        order: [0, 1],
        refs: ['', ''],
        idempotencyKey: undefined,
        requestDigest: '',
        stopGraceMs: undefined,
      };
      await store.submitBatch(batch, LIMITS);
      const [queued] = await take(store);
      assert.equal(queued?.status, QUEUED);
      await store.webhooks.settle(queued!, { type: 'delivered' });
      const lease = (await store.claim({ node: 'node' }, NEVER))!;
      await lease.begin({ slot: 'node/0', engine: undefined });
      await lease.fail(FLAKY);
      assert.equal((await take(store)).map(({ status }) => status).join(), `${QUEUED}`, 'it is queued once more');
      await store.cancelBatch(batchId, 1000);
      assert.deepEqual(
        (await take(store)).map(({ status }) => status),
        [CANCELED],
      );
    });

    it('that were taken are given to another when their lease is over, and the first taker has no say then', async (t) => {
      let nowMs = Date.now();
      const { store } = await open(t, { now: () => nowMs });
      await store.submit(told('https://a.example.com/'), LIMITS);
      await run(store);
      const [first] = await take(store, { leaseMs: 1000 });
      assert.deepEqual(await take(store), []);
      nowMs += 1000;
      const [second] = await take(store);
      assert.equal(second?.id, first?.id);
      assert.equal(second?.attempts, 2);
      await store.webhooks.settle(first!, { type: 'delivered' });
      assert.equal((await list(store, 'one', false)).length, 1);
      assert.deepEqual(await take(store), []);
      await store.webhooks.settle(second!, { type: 'retry', atMs: nowMs - 1, error: 'it answered 500' });
      const [third] = await take(store);
      assert.deepEqual([third?.attempts, third?.error], [3, 'it answered 500']);
      await store.webhooks.settle(third!, { type: 'retry', atMs: nowMs + 50_000, error: 'it answered 500' });
      const { deliveries, nextMs } = await store.webhooks.take(ALL);
      assert.deepEqual(deliveries, []);
      assert.ok(nextMs! > nowMs + 10_000);
    });

    it('to a host that has enough on its way keep nobody waiting', async (t) => {
      const { store } = await open(t);
      for (let i = 0; i < 20; i++) await store.submit(told('https://slow.example.com/', [QUEUED]), LIMITS);
      const slow = await take(store, { perHost: 4 });
      assert.equal(slow.length, 4);
      await store.submit(told('https://quick.example.com/', [QUEUED]), LIMITS);
      const quick = await take(store, { perHost: 4, underWay: slow });
      assert.deepEqual(hostsOf(quick), ['quick.example.com']);
      const underWay = [...slow, ...quick];
      assert.deepEqual(await take(store, { perHost: 4, underWay }), []);
      assert.equal((await take(store, { perHost: 6, underWay, max: 10 })).length, 2);
      assert.equal((await take(store, { max: 3 })).length, 3);
    });

    it('of a tenant are so many at a time, whichever hosts they go to, and thousands that wait keep no other tenant waiting', async (t) => {
      const { store } = await open(t);
      for (let i = 0; i < 60; i++) await store.submit(told(`https://dead-${i}.example.com/`, [QUEUED], 'many'), LIMITS);
      const want = { max: 10, perHost: 4, perTenant: 6 };
      const first = await take(store, want);
      assert.equal(first.length, 6);
      assert.deepEqual(await take(store, { ...want, underWay: first }), [], 'the tenant has as many as it may');
      await store.submit(told('https://quick.example.com/', [QUEUED], 'two'), LIMITS);
      assert.deepEqual(hostsOf(await take(store, { ...want, underWay: first, max: 1 })), ['quick.example.com'], 'it has none, and is next');
      for (let i = 0; i < 3; i++) await store.submit(told('https://three.example.com/', [QUEUED], 'three'), LIMITS);
      const shared = await take(store, { ...want, underWay: first.slice(0, 2), max: 4 });
      assert.deepEqual(
        shared.map(({ tenant }) => tenant),
        ['three', 'three', 'many', 'three'],
        'who has the fewest is next, and of equals the longest due',
      );
    });

    it('of a tenant whose hosts are slow go to its others all the same', async (t) => {
      const { store } = await open(t);
      for (let i = 0; i < 8; i++)
        for (const host of ['a', 'b', 'c']) await store.submit(told(`https://${host}.example.com/`, [QUEUED]), LIMITS);
      const slow = await take(store, { max: 9, perHost: 4, perTenant: 9 });
      assert.deepEqual(
        hostsOf(slow),
        ['a', 'b', 'c', 'a', 'b', 'c', 'a', 'b', 'c'].map((host) => `${host}.example.com`),
        'one of each at a time',
      );
      await store.submit(told('https://quick.example.com/', [QUEUED]), LIMITS);
      // A slow one has given up, and its host has waited longest.
      const next = await take(store, { max: 1, perHost: 4, perTenant: 9, underWay: slow.slice(1) });
      assert.deepEqual(hostsOf(next), ['quick.example.com']);
    });

    it('of tenants with one receiver count together for its host', async (t) => {
      const { store } = await open(t);
      const names = ['a', 'a:b', 'one', 'two'];
      for (const tenant of names)
        for (let i = 0; i < 2; i++)
          await store.submit(told(`https://${tenant === 'a' ? 'b' : 'all'}.example.com:1/`, [QUEUED], tenant), LIMITS);
      const taken = await take(store, { perHost: 3 });
      assert.deepEqual(
        taken.map(({ tenant }) => tenant),
        ['a', 'a:b', 'one', 'two', 'a'],
      );
      for (const one of taken) await store.webhooks.settle(one, { type: 'delivered' });
      assert.deepEqual(
        (await take(store, { perHost: 3 })).map(({ tenant }) => tenant),
        ['a:b', 'one', 'two'],
      );
      assert.deepEqual(await take(store), []);
    });

    it('that are dead are listed for their tenant, tried again when asked for, and let the next one go on', async (t) => {
      const { store } = await open(t);
      await store.submit(told('https://a.example.com/', [QUEUED, SUCCEEDED]), LIMITS);
      await run(store);
      const [queued] = await take(store);
      await store.webhooks.settle(queued!, { type: 'dead', error: 'no answer' });
      const [succeeded] = await take(store);
      assert.equal(succeeded?.status, SUCCEEDED);
      assert.deepEqual(await list(store, 'two', true), []);
      const [dead] = await list(store, 'one', true);
      assert.deepEqual([dead?.id, dead?.dead, dead?.error], [queued!.id, true, 'no answer']);
      assert.equal(await store.webhooks.replay('two', queued!.id), undefined);
      assert.equal(await store.webhooks.replay('one', 'msg_none'), undefined);
      const revived = await store.webhooks.replay('one', queued!.id);
      assert.deepEqual([revived?.dead, revived?.attempts], [false, 0]);
      assert.deepEqual(await take(store), [], 'behind what its job tells just now');
      await store.webhooks.settle(succeeded!, { type: 'delivered' });
      assert.deepEqual(
        (await take(store)).map(({ id }) => id),
        [queued!.id],
      );
      assert.deepEqual(await list(store, 'one', true), []);
    });

    it('are listed in pages, newest first, which those that are tried again meanwhile do not make endless', async (t) => {
      const { store } = await open(t);
      for (let i = 0; i < 5; i++) await store.submit(told('https://a.example.com/', [QUEUED]), LIMITS);
      const all = await take(store);
      for (const one of all) await store.webhooks.settle(one, { type: 'dead', error: 'it answered 410' });
      const query = { tenant: 'one', dead: true, pageSize: 2 };
      const seen: string[] = [];
      for (let page = await store.webhooks.list(query); ; page = await store.webhooks.list({ ...query, before: page.next })) {
        for (const { id } of page.deliveries) {
          seen.push(id);
          await store.webhooks.replay('one', id);
          const [again] = await take(store);
          await store.webhooks.settle(again!, { type: 'dead', error: 'it answered 410' });
        }
        if (page.next === undefined) break;
      }
      assert.deepEqual(seen, all.map(({ id }) => id).reverse());
      assert.equal((await list(store, 'one', true)).length, 5);
      assert.equal((await store.webhooks.list({ tenant: 'one', dead: false, pageSize: 2 })).next, undefined);
    });

    it('that tell of no end are so many of a tenant at the most: the oldest give way, ends never do', async (t) => {
      const { store, restart } = await open(t, { webhooks: { fallback: undefined, maxNews: 3 } });
      const dead = 'https://dead.example.com/';
      const jobs: string[] = [];
      for (let i = 0; i < 5; i++) jobs.push((await store.submit(told(dead, [QUEUED, CANCELED]), LIMITS)).job.jobId);
      await store.submit(told(dead, [QUEUED], 'two'), LIMITS);
      const statusesOf = async (isDead: boolean, of = store) =>
        (await list(of, 'one', isDead)).map(({ jobId, status }) => [jobs.indexOf(jobId), status]);
      assert.deepEqual(await statusesOf(true), [
        [1, QUEUED],
        [0, QUEUED],
      ]);
      assert.deepEqual(await statusesOf(false), [
        [4, QUEUED],
        [3, QUEUED],
        [2, QUEUED],
      ]);
      assert.equal((await list(store, 'two', false)).length, 1, 'of another tenant none gave way');
      for (const { error } of await list(store, 'one', true)) assert.match(error!, /more than 3 webhooks that tell of no job's end/);
      assert.equal((await store.webhooks.take({ ...ALL, max: 0 })).gaveWay, 2);
      assert.equal((await store.webhooks.take({ ...ALL, max: 0 })).gaveWay, 0, 'each is told of once');

      // Ends come beside them, however many, and are next where nothing of their job is before them.
      for (const id of jobs) await store.cancel(id, 1000);
      assert.equal((await list(store, 'one', false)).length, 8);
      const again = await restart();
      const due = (await take(again)).filter(({ tenant }) => tenant === 'one').map(({ jobId, status }) => [jobs.indexOf(jobId), status]);
      assert.deepEqual(due.sort(), [
        [0, CANCELED],
        [1, CANCELED],
        [2, QUEUED],
        [3, QUEUED],
        [4, QUEUED],
      ]);
      // After a restart there are as many as before, and one more is one too many.
      await again.submit(told(dead, [QUEUED]), LIMITS);
      assert.deepEqual(await statusesOf(true, again), [
        [2, QUEUED],
        [1, QUEUED],
        [0, QUEUED],
      ]);
      const next = (await take(again)).filter(({ tenant }) => tenant === 'one').map(({ jobId, status }) => [jobs.indexOf(jobId), status]);
      assert.deepEqual(next.sort(), [
        [-1, QUEUED],
        [2, CANCELED],
      ]);
    });

    it('that arrived, are dead or were forgotten make room for others; one that is asked for again gives way to none', async (t) => {
      let nowMs = Date.now();
      const { store } = await open(t, { now: () => nowMs, webhooks: { fallback: undefined, maxNews: 2 } });
      const submit = async (statuses: JobStatus[]) => (await store.submit(told('https://a.example.com/', statuses), LIMITS)).job.jobId;
      const gaveWay = async () => (await store.webhooks.take({ ...ALL, max: 0 })).gaveWay;
      await submit([QUEUED]);
      nowMs++;
      const died = await submit([QUEUED]);
      const [one, two] = await take(store);
      await store.webhooks.settle(one!, { type: 'delivered' });
      await store.webhooks.settle(two!, { type: 'dead', error: 'no answer' });
      assert.equal(two?.jobId, died);
      const gone = await submit([QUEUED]);
      await submit([QUEUED]);
      assert.equal(await gaveWay(), 0);
      await store.cancel(gone, 1000);
      nowMs++;
      await store.expire({ jobTtlMs: 0, max: 10 });
      await submit([QUEUED]);
      assert.equal(await gaveWay(), 0, 'of a job that is forgotten nothing waits');
      await store.webhooks.replay('one', two!.id);
      await submit([QUEUED]);
      assert.equal(await gaveWay(), 1);
      assert.ok((await list(store, 'one', false)).some(({ id }) => id === two!.id));
      assert.equal((await list(store, 'one', false)).length, 3);
    });

    it('that gave way while they were under way are not dead where they arrive, and are where they do not', async (t) => {
      const { store } = await open(t, { webhooks: { fallback: undefined, maxNews: 2 } });
      const submit = () => store.submit(told('https://a.example.com/', [QUEUED]), LIMITS);
      await submit();
      await submit();
      const [arrives, fails] = await take(store);
      await submit();
      await submit();
      assert.equal((await list(store, 'one', true)).length, 2);
      await store.webhooks.settle(arrives!, { type: 'delivered' });
      await store.webhooks.settle(fails!, { type: 'retry', atMs: Date.now(), error: 'it answered 500' });
      const dead = await list(store, 'one', true);
      assert.deepEqual(
        dead.map(({ id }) => id),
        [fails!.id],
      );
      assert.match(dead[0]!.error!, /the oldest give way/);
      assert.equal((await list(store, 'one', false)).length, 2);
    });

    it('give way a few at a time where the limit has come down', async (t) => {
      const rules = { fallback: undefined, maxNews: 2 * GIVE_WAY + 1 };
      const { store, restart } = await open(t, { webhooks: rules });
      const submit = (to: JobStore) => to.submit(told('https://a.example.com/', [QUEUED]), LIMITS);
      for (let i = 0; i < rules.maxNews; i++) await submit(store);
      rules.maxNews = 1;
      const again = await restart();
      const gaveWay: number[] = [];
      for (let i = 0; i < 4; i++) {
        await submit(again);
        gaveWay.push((await again.webhooks.take({ ...ALL, max: 0 })).gaveWay);
      }
      assert.deepEqual(gaveWay, [GIVE_WAY, GIVE_WAY, 3, 1]);
    });

    it('of a job that is forgotten are told no more', async (t) => {
      let nowMs = Date.now();
      const { store } = await open(t, { now: () => nowMs });
      const { job } = await store.submit(told('https://a.example.com/', [QUEUED, CANCELED]), LIMITS);
      await store.cancel(job.jobId, 1000);
      const [queued] = await take(store);
      await store.webhooks.settle(queued!, { type: 'dead', error: 'no answer' });
      nowMs++;
      await store.expire({ jobTtlMs: 0, max: 10 });
      assert.deepEqual(await take(store), []);
      assert.deepEqual(await list(store, 'one', true), []);
      assert.deepEqual(await list(store, 'one', false), []);
    });
  });
}
