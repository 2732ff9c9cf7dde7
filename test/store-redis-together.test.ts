// Steps on Redis that come at the same time go together in one command. What comes of them must be what would come of them one after another.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { after, before, describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Redis } from 'ioredis';
import { MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { randomOf } from '../scripts/random.ts';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import { JobStatus, newJobId, WaitReason } from '../src/jobs/job.ts';
import type { Lease, LeaseEnded, NewJob } from '../src/jobs/ports.ts';
import { openRedisJobStore, type RedisJobStore, type RedisJobStoreOptions } from '../src/store/jobs-redis.ts';
import { type Reply, Script } from '../src/store/redis/script.ts';
import { wantedJob } from './contract/job-store.ts';

const LIMITS = { maxQueued: 1_000_000, idempotencyMs: 60_000 };
const NEVER = new AbortController().signal;
const RUN = { slot: 'node/0', engine: undefined };

let server: RedisServer;
before(async () => {
  // What is compared is what the scripts write, not when the disk has it.
  server = await startRedis(['--appendfsync', 'no']);
});
after(async () => {
  await server[Symbol.asyncDispose]();
});

async function opened(t: TestContext, settings: Partial<RedisJobStoreOptions> = {}): Promise<{ store: RedisJobStore; fleet: string }> {
  const fleet = settings.fleet ?? randomUUID();
  const store = await openRedisJobStore({ url: server.url, fleet, ...settings });
  t.after(() => store[Symbol.asyncDispose]());
  return { store, fleet };
}

async function raw(t: TestContext): Promise<Redis> {
  const client = new Redis(server.port);
  t.after(() => client.disconnect());
  return client;
}

const codeOf = (outcome: PromiseSettledResult<unknown>) =>
  outcome.status === 'fulfilled' ? 'done' : ((outcome.reason as { reason?: string }).reason ?? String(outcome.reason));

/** Calls one after another, or all at once. */
type Way = <T, R>(items: readonly T[], call: (item: T, index: number) => Promise<R>) => Promise<R[]>;
const alone: Way = async (items, call) => {
  const results = [];
  for (const [i, item] of items.entries()) results.push(await call(item, i));
  return results;
};
const together: Way = (items, call) => Promise.all(items.map(call));

describe('steps that go together', { timeout: 240_000 }, () => {
  for (const [tenants, seed] of [
    [1, 1],
    [5, 2],
    [80, 3],
  ] as const) {
    it(`comes to the same as one after another, with ${tenants} tenants`, async (t) => {
      const client = await raw(t);
      const weights = Object.fromEntries(Array.from({ length: tenants }, (_, i) => [`t${i}`, 1 + (i % 3)]));
      const { int } = randomOf(seed);
      const pick = (below: number) => int(0, below - 1);
      const rounds = Array.from({ length: 6 }, (_, round) => ({
        jobs: Array.from({ length: round % 3 === 2 ? 0 : 90 }, (): NewJob => {
          const priority = pick(3) - 1;
          const labels = { kind: `${pick(2)}` };
          return wantedJob({
            jobId: newJobId(
              Date.now(),
              Uint8Array.from({ length: 12 }, () => pick(256)),
            ),
            tenant: `t${pick(tenants)}`,
            request: { priority, labels },
            placement: { engine: pick(4) === 0 ? 'other' : undefined, models: [`m${pick(3)}`] },
            ...(pick(5) === 0 && { startTimeoutMs: 3_600_000 }),
          });
        }),
        claims: Array.from({ length: 40 }, () => ({
          engines: pick(2) === 0 ? ['other'] : ['none'],
          warmModels: [`m${pick(3)}`],
          coldPenalty: pick(3),
        })),
        ends: Array.from({ length: 40 }, () => pick(ENDS.length)),
      }));

      const play = async (way: Way) => {
        let ms = 1_800_000_000_000;
        const { store, fleet } = await opened(t, { weights, now: () => ms, maxRunning: () => 30, random: () => 0 });
        const log: unknown[] = [];
        for (const { jobs, claims, ends } of rounds) {
          ms += 1000;
          const submitted = await way(jobs, async (job) => (await store.submit(job, LIMITS)).job);
          log.push(submitted.map(({ jobId, queuePosition, waitReason }) => [jobId, queuePosition, waitReason]));
          const leave = new AbortController();
          const waiting = way(claims, async (want, i) => {
            const claimed = store.claim({ node: 'node', ...want }, leave.signal);
            // Those that find nothing wait on; one that comes after them must not.
            if (way === alone) return await Promise.race([claimed, settled(store, () => undefined)]);
            if (i === claims.length - 1) void settled(store, () => leave.abort());
            return await claimed;
          });
          const leases = await waiting;
          leave.abort();
          log.push(leases.map((lease) => lease && [lease.job.jobId, lease.rank]));
          const held = leases.flatMap((lease, i) => (lease ? [{ lease, end: ends[i]! }] : []));
          await way(held, ({ lease }) => lease.begin(RUN));
          // Each kind of end by itself, so that both ways make the same changes in the same order.
          for (const [kind, steps] of ENDS.entries()) {
            const these = held.filter(({ end }) => end === kind).map(({ lease }) => lease);
            for (const step of steps) await way(these, step);
          }
        }
        return { log, kept: await kept(client, fleet) };
      };
      const [one, other] = [await play(alone), await play(together)];
      assert.deepEqual(other.log, one.log);
      assert.deepEqual(other.kept, one.kept);
      assert.ok(Object.keys(one.kept).length > 10);
    });
  }

  it('admits no more than the quota has room for', async (t) => {
    const { store } = await opened(t);
    const outcomes = await Promise.allSettled(Array.from({ length: 30 }, () => store.submit(wantedJob(), { ...LIMITS, maxQueued: 7 })));
    assert.deepEqual(
      outcomes.map(codeOf),
      Array.from({ length: 30 }, (_, i) => (i < 7 ? 'done' : 'QUOTA_EXCEEDED')),
    );
    assert.equal((await store.usage('one')).queued, 7);
  });

  it('takes one job for one idempotency key', async (t) => {
    const { store } = await opened(t);
    const wanted = () => wantedJob({ request: { idempotencyKey: 'key' } });
    const submitted = await Promise.all(Array.from({ length: 20 }, () => store.submit(wanted(), LIMITS)));
    assert.equal(new Set(submitted.map(({ job }) => job.jobId)).size, 1);
    assert.equal(submitted.filter(({ created }) => created).length, 1);
    assert.equal((await store.usage('one')).queued, 1);
  });

  it('gives out no more than a tenant may have running', async (t) => {
    const { store } = await opened(t, { maxRunning: () => 3 });
    for (let i = 0; i < 10; i++) await store.submit(wantedJob(), LIMITS);
    const leave = new AbortController();
    const claims = Array.from({ length: 8 }, () => store.claim({ node: 'node' }, leave.signal));
    await settled(store, () => leave.abort());
    const leases = (await Promise.all(claims)).filter((lease) => lease !== undefined);
    assert.equal(leases.length, 3);
    assert.equal((await store.usage('one')).running, 3);
    assert.equal(new Set(leases.map(({ job }) => job.jobId)).size, 3);
  });

  it('lets one of several changes of a job through at a time', async (t) => {
    const { store } = await opened(t);
    const { job } = await store.submit(wantedJob(), LIMITS);
    const canceled = await Promise.all(Array.from({ length: 10 }, () => store.cancel(job.jobId, 1000)));
    assert.ok(canceled.every((one) => one!.status === JobStatus.CANCELED));
    const sequences = [];
    for await (const { sequence } of store.watch(job.jobId, 0, NEVER)) sequences.push(sequence);
    assert.deepEqual(sequences, [1, 2]);
  });

  it('does not have the others pay for a step that cannot be made', async (t) => {
    const { store, fleet } = await opened(t);
    const client = await raw(t);
    const jobs = await Promise.all(Array.from({ length: 5 }, async () => (await store.submit(wantedJob(), LIMITS)).job));
    // Not what our own steps would leave: the stream of a job with many events is something else.
    const broken = jobs[2]!.jobId;
    await client.hset(`{${fleet}}:job:${broken}`, 'log', 'x'.repeat(2000));
    await client.set(`{${fleet}}:events:${broken}`, 'not a stream');
    const outcomes = await Promise.allSettled(jobs.map(({ jobId }) => store.cancel(jobId, 1000)));
    assert.deepEqual(
      outcomes.map((outcome) => outcome.status),
      jobs.map(({ jobId }) => (jobId === broken ? 'rejected' : 'fulfilled')),
    );
    assert.match(String((outcomes[2] as PromiseRejectedResult).reason), /WRONGTYPE/);
  });

  it('makes a step of however many arguments', async (t) => {
    const { store } = await opened(t);
    await store.keys.used(new Map(Array.from({ length: 20_000 }, (_, i) => [`key${i}`, i])));
  });

  it('tells the holder of a lease in time that it is lost, though the server does not answer at all', async (t) => {
    await using own = await startRedis(['--appendfsync', 'no']);
    const leaseMs = 4000;
    const store = await openRedisJobStore({ url: own.url, fleet: 'own', leaseMs });
    t.after(() => store[Symbol.asyncDispose]());
    const admin = new Redis(own.port);
    t.after(() => admin.disconnect());
    await store.submit(wantedJob(), LIMITS);
    const lease = (await store.claim({ node: 'node' }, new AbortController().signal))!;
    // It cannot be ended early: the command that does is held back too.
    await admin.call('CLIENT', 'PAUSE', `${leaseMs + 2000}`);
    const paused = performance.now();
    await once(lease.signal, 'abort');
    // It was good for so long from its last renewal on, which came before the pause.
    assert.ok(performance.now() - paused < leaseMs, `${performance.now() - paused} ms`);
    assert.equal((lease.signal.reason as LeaseEnded).end, 'lost');
  });

  it('says what the server refuses, and goes on when it is the primary again', async (t) => {
    await using own = await startRedis(['--appendfsync', 'no']);
    const store = await openRedisJobStore({ url: own.url, fleet: 'own' });
    t.after(() => store[Symbol.asyncDispose]());
    const admin = new Redis(own.port);
    t.after(() => admin.disconnect());
    await admin.config('SET', 'maxmemory', '1');
    const refused = await Promise.allSettled([store.submit(wantedJob(), LIMITS), store.submit(wantedJob(), LIMITS)]);
    assert.deepEqual(refused.map(codeOf), ['STORAGE_FULL', 'STORAGE_FULL']);
    await admin.config('SET', 'maxmemory', '0');
    await admin.call('REPLICAOF', '127.0.0.1', '1');
    const submitted = store.submit(wantedJob(), LIMITS);
    const reconnected = async () => (await admin.info('stats')).match(/total_connections_received:(\d+)/)![1];
    for (const before = await reconnected(); (await reconnected()) === before; ) await new Promise((resolve) => setTimeout(resolve, 5));
    await admin.call('REPLICAOF', 'NO', 'ONE');
    assert.equal((await submitted).created, true);
  });
});

/** Commands of one script under way, as `script.ts` has it. */
const AT_ONCE = 6;

describe('a script', () => {
  /** Steps of one argument each: how many it has, and it. */
  const stepsIn = (packed: Buffer): number => packed.readUInt32BE(1) / 2;
  const replied = (packed: Buffer): Reply[] => Array.from({ length: stepsIn(packed) }, (_, i) => i);

  it('takes along what comes meanwhile, so many at once', async () => {
    const sent: number[] = [];
    const open: (() => void)[] = [];
    const script = new Script(async (packed) => {
      const replies = replied(packed);
      sent.push(replies.length);
      await new Promise<void>((resolve) => open.push(resolve));
      return replies;
    });
    const turn = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    const alone: Promise<Reply>[] = [];
    for (let i = 0; i < AT_ONCE; i++) {
      alone.push(script.run(['a']));
      await turn();
    }
    const ones = alone.map(() => 1);
    const rest = Array.from({ length: 100 }, () => script.run(['b']));
    await turn();
    assert.deepEqual(sent, ones, 'no more commands are under way');
    open[0]!();
    assert.equal(await alone[0], 0);
    await turn();
    assert.deepEqual(sent, [...ones, 64]);
    open[1]!();
    assert.equal(await alone[1], 0);
    await turn();
    assert.deepEqual(sent, [...ones, 64, 36]);
    for (const answer of open.slice(2).reverse()) answer();
    assert.deepEqual(await Promise.all(rest), [...Array(64).keys(), ...Array(36).keys()]);
    assert.deepEqual(await Promise.all(alone), Array(AT_ONCE).fill(0));
  });

  it('goes by bytes too, and takes one step however large', async () => {
    const sent: number[] = [];
    const script = new Script(async (packed) => {
      sent.push(stepsIn(packed));
      return replied(packed);
    });
    const large = new Uint8Array(3 * 1024 * 1024);
    await Promise.all([script.run([large]), script.run([large]), script.run(['small'])]);
    assert.deepEqual(sent, [1, 1, 1]);
  });

  it('refuses those that have waited while the server did not answer', async () => {
    const gone: ((error: Error) => void)[] = [];
    const script = new Script(() => new Promise((_, reject) => gone.push(reject)));
    const outcomes = Promise.allSettled(Array.from({ length: AT_ONCE * 64 + 72 }, () => script.run(['x'])));
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    assert.equal(gone.length, AT_ONCE);
    for (const reject of gone) reject(new Error('Command timed out'));
    assert.deepEqual(new Set((await outcomes).map((outcome) => outcome.status)), new Set(['rejected']));
    assert.equal(gone.length, AT_ONCE, 'nothing more was sent');
  });

  it('sends what the first answers lead to before it hands on the last ones', async () => {
    const sent: number[] = [];
    const next = Promise.withResolvers<number>();
    let handedOn = 0;
    const script = new Script(async (packed) => {
      sent.push(stepsIn(packed));
      if (sent.length === 2) next.resolve(handedOn);
      return replied(packed);
    });
    const all = Array.from({ length: 64 }, async (_, i) => {
      await script.run(['x']);
      handedOn++;
      if (i === 0) await script.run(['next']);
    });
    const before = await next.promise;
    assert.ok(before > 0 && before < 64, `${before} of 64 answers were handed on`);
    await Promise.all(all);
    assert.deepEqual([handedOn, sent], [64, [64, 1]]);
  });
});

/** Does `then` when claims that were made before have been looked into: a command that goes after them has been answered. */
async function settled<T>(store: RedisJobStore, then: () => T): Promise<T> {
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    await store.ping();
  }
  return then();
}

const TIMINGS = create(TimingsSchema, { gpuSeconds: 1.5 });
const blobOf = (lease: Lease) => lease.job.jobId.slice(-4).padStart(64, '0');
const complete = (lease: Lease, retentionMs: number | undefined) => {
  const result = create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: blobOf(lease), frames: 1 });
  return lease.complete({ result, warnings: [], timings: TIMINGS, retentionMs });
};
/** What ends a lease: steps that are made for one after another. */
const ENDS: readonly ((lease: Lease) => Promise<unknown>)[][] = [
  [(lease) => lease.giveBack(WaitReason.SLOT)],
  [(lease) => lease.fail({ reason: 'BROKEN', message: 'it is broken', retryable: false, killedWorker: false, timings: TIMINGS })],
  [(lease) => lease.pin(blobOf(lease)), (lease) => complete(lease, 1000)],
  [(lease) => lease.pin(blobOf(lease)), (lease) => complete(lease, undefined)],
];

/** What a fleet has in Redis, but for what names its processes and their times. */
async function kept(client: Redis, fleet: string): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const key of (await client.keys(`{${fleet}}:*`)).sort()) {
    const name = key.slice(fleet.length + 3);
    if (/^(meta|node:|nodes|leases|held|waiting|job:|events:)/.test(name)) continue;
    const type = await client.type(key);
    if (type === 'zset') found[name] = await client.zrangebyscore(key, '-inf', '+inf', 'WITHSCORES');
    else if (type === 'hash') found[name] = await client.hgetall(key);
    else if (type === 'set') found[name] = (await client.smembers(key)).sort();
    else if (type === 'string') found[name] = await client.get(key);
  }
  for (const key of await client.keys(`{${fleet}}:job:*`)) {
    const { state: _state, token: _token, op: _op, claimed: _claimed, ...record } = await client.hgetall(key);
    found[key.slice(fleet.length + 3)] = record;
  }
  return found;
}
