// The job store where Redis is more than one server: a Cluster of six nodes, and a primary whose replica takes over by Sentinel's word. The contract of the store, and
// what a fleet has when a primary dies.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { startRedisCluster, startSentinels, type Topology } from '../scripts/redis-topologies.ts';
import { JobsError } from '../src/jobs/errors.ts';
import { JobStatus } from '../src/jobs/job.ts';
import { openRedisJobStore, type RedisJobStoreOptions } from '../src/store/jobs-redis.ts';
import { migrateRedisJobStore, shippedSteps } from '../src/store/redis/migrate.ts';
import { SCHEMA } from '../src/store/redis/schema.ts';
import { patiently } from './contract/calls.ts';
import { describeJobStore, opening, wantedJob } from './contract/job-store.ts';
import { describeWebhookStore } from './contract/webhook-store.ts';

const LIMITS = { maxQueued: 1000, idempotencyMs: 86_400_000 };
const NEVER = new AbortController().signal;
const RESULT = {
  result: create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: 'aa'.repeat(32) }),
  warnings: [],
  timings: create(TimingsSchema, {}),
};

const warnings: Error[] = [];
process.on('warning', (warning) => void warnings.push(warning));
after(() => {
  const leaks = warnings.filter(({ name }) => name === 'MaxListenersExceededWarning');
  assert.deepEqual(leaks, [], 'whoever looks for a node that answers leaves nothing behind');
});

describe('Redis Cluster: all of its nodes', { timeout: 60_000 }, () => {
  it('may be away: calls are refused and not kept, and all goes on when they are back', async (t) => {
    await using cluster = await startRedisCluster();
    const store = await openRedisJobStore({ url: cluster.url, fleet: randomUUID() });
    t.after(() => store[Symbol.asyncDispose]());
    await cluster.failAll();
    for (let i = 0; i < 3; i++) await assert.rejects(store.ping(), { reason: 'STORE_UNAVAILABLE' });
    await cluster.heal();
    await patiently(() => store.ping());
    const { job } = await patiently(() => store.submit(wantedJob(), LIMITS));
    const lease = await patiently(() => store.claim({ node: 'node' }, NEVER));
    assert.equal(lease!.job.jobId, job.jobId);
  });
});

describe('Redis Cluster: the slot of a fleet', { timeout: 120_000 }, () => {
  it('is moved to another node while jobs come in and are run, and none is lost or run twice', async (t) => {
    await using cluster = await startRedisCluster(['--appendfsync', 'no']);
    const fleet = randomUUID();
    const [api, node] = await Promise.all([1, 2].map(() => openRedisJobStore({ url: cluster.url, fleet })));
    t.after(() => Promise.all([api!, node!].map((store) => store[Symbol.asyncDispose]())));
    for (let i = 0; i < 50; i++) await api!.submit(wantedJob(), LIMITS);
    const moved = { over: false, told: false };
    const accepted: string[] = [];
    const submitting = (async () => {
      while (!moved.over) {
        const job = wantedJob();
        await patiently(() => api!.submit(job, LIMITS));
        accepted.push(job.jobId);
      }
    })();
    const ran: string[] = [];
    const all = Promise.withResolvers<void>();
    const count = () => {
      if (moved.told && ran.length >= 50 + accepted.length) all.resolve();
    };
    const leave = new AbortController();
    const running = (async () => {
      for (;;) {
        const lease = await patiently(() => node!.claim({ node: 'node' }, leave.signal));
        if (!lease) return;
        await patiently(() => lease.begin({ slot: 'node/0', engine: undefined }));
        await patiently(() => lease.complete(RESULT));
        ran.push(lease.job.jobId);
        count();
      }
    })();
    await cluster.reshard(fleet);
    moved.over = true;
    await submitting;
    moved.told = true;
    count();
    await Promise.race([all.promise, running]);
    leave.abort();
    await running;
    assert.equal(new Set(ran).size, ran.length);
    for (const id of accepted) assert.equal((await api!.get(id))?.status, JobStatus.SUCCEEDED);
    assert.equal((await api!.list({ pageSize: 1000 })).jobs.length, ran.length);
    t.diagnostic(`${accepted.length} submits while the slot was moved`);
  });
});

for (const [name, start] of [
  ['Redis Cluster of six nodes', startRedisCluster],
  ['Redis with Sentinels', startSentinels],
] as const) {
  let topology: Topology;
  const open = (fleet: string, settings: Partial<RedisJobStoreOptions> = {}) =>
    openRedisJobStore({ url: topology.url, fleet, ...settings });
  const opened = async (settings: Partial<RedisJobStoreOptions> = {}) => {
    const fleet = randomUUID();
    return await opening(() => open(fleet, settings));
  };

  describe(name, { timeout: 300_000 }, () => {
    before(async () => {
      topology = await start(['--appendfsync', 'no']);
    });
    after(async () => {
      await topology?.[Symbol.asyncDispose]();
    });

    // Once connected, all else is as with one server, or with one node of a cluster.
    if (start === startRedisCluster) describeJobStore(name, opened);
    describeWebhookStore(name, opened);

    it('is not migrated while a process uses it, whichever server that listens at', async (t) => {
      const fleet = randomUUID();
      const stores = await Promise.all([open(fleet), open(fleet)]);
      t.after(() => Promise.all(stores.map((store) => store[Symbol.asyncDispose]())));
      const steps = new Map([...shippedSteps(), [SCHEMA + 1, 'return 0']]);
      await assert.rejects(migrateRedisJobStore({ url: topology.url, fleet, steps }), /^Error: 2 processes use the job store/);
    });

    it('goes on when its primary dies: what was replicated is there, leases hold, watchers hear on', async (t: TestContext) => {
      const fleet = randomUUID();
      const settings = { timeoutMs: 1000, leaseMs: 20_000 };
      const [api, node] = [await open(fleet, settings), await open(fleet, settings)];
      t.after(() => Promise.all([api, node].map((store) => store[Symbol.asyncDispose]())));
      const ids: string[] = [];
      for (let i = 0; i < 20; i++) ids.push((await api.submit(wantedJob(), LIMITS)).job.jobId);
      const lease = (await node.claim({ node: 'node' }, NEVER))!;
      await lease.begin({ slot: 'node/0', engine: undefined });
      const events = api.watch(lease.job.jobId, 0, NEVER)[Symbol.asyncIterator]();
      const sequences: number[] = [];
      while (sequences.length < 2) sequences.push((await events.next()).value.sequence);
      await topology.replicated(fleet);

      await topology.failOver(fleet);
      // In the middle of it: a submit that is made again until it is answered, and the end of a run that was held.
      const late = wantedJob();
      await patiently(() => api.submit(late, LIMITS));
      await patiently(() => lease.complete(RESULT));
      for (let from = sequences.at(-1)!, ended = false; !ended; ) {
        // A stream that was ended by the cut is taken up where it was, as clients do.
        const stream =
          from === sequences.at(-1) && sequences.length === 2
            ? { [Symbol.asyncIterator]: () => events }
            : api.watch(lease.job.jobId, from, NEVER);
        try {
          for await (const event of stream) {
            assert.equal(event.sequence, from + 1, 'no gap');
            from = event.sequence;
            sequences.push(from);
          }
          ended = true;
        } catch (error) {
          assert.ok(error instanceof JobsError && error.kind === 'unavailable', String(error));
        }
      }
      assert.deepEqual(
        sequences,
        sequences.map((_, i) => i + 1),
      );
      for (const id of [...ids, late.jobId]) {
        const { status } = (await patiently(() => api.get(id)))!;
        assert.equal(status, id === lease.job.jobId ? JobStatus.SUCCEEDED : JobStatus.QUEUED);
      }
      await topology.heal();
      const next = (await patiently(() => node.claim({ node: 'node' }, NEVER)))!;
      assert.equal(next.job.jobId, ids[1], 'in the order that they came in');
      const canceled = await patiently(() => api.cancel(next.job.jobId, 1000));
      assert.ok(canceled?.cancelRequestedAt);
      if (!next.signal.aborted) await new Promise((resolve) => next.signal.addEventListener('abort', resolve));
    });
  });
}
