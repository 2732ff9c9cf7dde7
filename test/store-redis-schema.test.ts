// A store in Redis of another schema than this version's: refused in words, and brought up to date by a command, piece by piece.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Redis } from 'ioredis';
import { MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { startRedis } from '../scripts/redis-server.ts';
import { migrateStore } from '../src/app.ts';
import { Exit } from '../src/cli/remote/errors.ts';
import { JobStatus } from '../src/jobs/job.ts';
import type { TakeDeliveries } from '../src/jobs/webhooks.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { checkVersion } from '../src/store/redis/checks.ts';
import { inspectRedisJobStore } from '../src/store/redis/inspect.ts';
import { migrateRedisJobStore, type Steps, shippedSteps } from '../src/store/redis/migrate.ts';
import { SCHEMA } from '../src/store/redis/schema.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';
import { wantedJob } from './contract/job-store.ts';
import { ownRedis } from './fixtures/redis/own.ts';

const LIMITS = { maxQueued: 1000, idempotencyMs: 86_400_000 };
const ALL: TakeDeliveries = { max: 100, perHost: 100, perTenant: 100, underWay: [], leaseMs: 60_000 };

const redis = ownRedis();

const open = (fleet: string) => openRedisJobStore({ url: redis.server.url, fleet });
const migrate = (fleet: string, steps?: Steps) => migrateRedisJobStore({ url: redis.server.url, fleet, ...(steps && { steps }) });

async function opened(t: TestContext, fleet: string) {
  const store = await open(fleet);
  t.after(() => store[Symbol.asyncDispose]());
  return store;
}

/** What a version with that schema has left behind, as it left it. */
async function left(schema: number): Promise<string> {
  const fleet = randomUUID();
  const keys = JSON.parse(readFileSync(join(import.meta.dirname, 'fixtures', 'redis', `schema-${schema}.json`), 'utf8')) as Record<
    string,
    string
  >;
  for (const [key, dump] of Object.entries(keys)) await redis.client.restore(`{${fleet}}:${key}`, 0, Buffer.from(dump, 'base64'));
  return fleet;
}

describe('a store of an older schema', { timeout: 120_000 }, () => {
  it('is refused with the command that brings it up to date, which the command line has', async (t) => {
    const fleet = await left(1);
    await assert.rejects(open(fleet), (error: Error) => {
      assert.match(
        error.message,
        /^the job store redis:\S+ has schema 1, and this version needs \d+: stop every node of the fleet, keep a copy,/,
      );
      assert.match(error.message, /run `ffjobs store migrate` with the settings of the fleet$/);
      return true;
    });
    const terminal = new FakeTerminal();
    const env = { FFJOBS_STORE: redis.server.url, FFJOBS_FLEET: fleet };
    assert.equal(await ffjobs(['store', 'migrate'], terminal, { env, migrateStore }), Exit.ok, terminal.stderr);
    assert.match(
      terminal.stdout,
      new RegExp(`^redis:\\S+: brought from schema 1 to ${SCHEMA}; start the service again, with this version\n$`),
    );
    await opened(t, fleet);
    const again = new FakeTerminal();
    assert.equal(
      await ffjobs(['--json', 'store', 'migrate'], again, { env: { ...env, FFJOBS_FLEET: randomUUID() }, migrateStore }),
      Exit.ok,
    );
    assert.deepEqual(again.json, [{ store: redis.server.url, from: null, to: null }]);
  });

  it('keeps its jobs and what it has to tell: schema 1', async (t) => {
    const fleet = await left(1);
    await migrate(fleet);
    const store = await opened(t, fleet);
    const { jobs } = await store.list({ pageSize: 10 });
    assert.equal(jobs.length, 4);
    const first = (await store.webhooks.take({ ...ALL, perHost: 1 })).deliveries;
    assert.deepEqual(first.map(({ tenant, host }) => [tenant, host]).sort(), [
      ['a:b', 'hooks.example.com:8443'],
      ['one', 'hooks.example.com'],
    ]);
    for (const one of first) await store.webhooks.settle(one, { type: 'delivered' });
    const rest = (await store.webhooks.take(ALL)).deliveries;
    assert.deepEqual(rest.map(({ tenant, host }) => [tenant, host]).sort(), [
      ['one', 'hooks.example.com'],
      ['two', 'hooks.example.com'],
    ]);
    const old = (await redis.client.keys(`{${fleet}}:hooks:*`)).filter((key) => /:hooks:(due:|hosts$)/.test(key));
    assert.deepEqual(old, [], 'nothing of the old layout is left');
    const dead = (await store.webhooks.list({ tenant: 'two', dead: true, pageSize: 10 })).deliveries;
    assert.deepEqual(
      dead.map(({ error }) => error),
      ['it answered 410'],
    );
  });
});

describe('a store whose events lay by themselves', { timeout: 120_000 }, () => {
  for (const schema of [1, 2])
    it(`keeps them, and what comes is read after them: schema ${schema}`, async (t) => {
      const fleet = await left(schema);
      await migrate(fleet);
      const store = await opened(t, fleet);
      const { jobs } = await store.list({ pageSize: 10 });
      const waiting = jobs.find(({ status }) => status === JobStatus.QUEUED)!;
      assert.equal((await store.cancel(waiting.jobId, 1000))!.status, JobStatus.CANCELED);
      const begun = jobs.find(({ status }) => status === JobStatus.SUCCEEDED)!;
      for (const [jobId, statuses] of [
        [waiting.jobId, [JobStatus.QUEUED, JobStatus.CANCELED]],
        [begun.jobId, [JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.SUCCEEDED]],
      ] as const) {
        for (let after = 0; after < statuses.length; after++) {
          const told = [];
          for await (const { sequence, event } of store.watch(jobId, after, new AbortController().signal))
            told.push([sequence, event.case === 'state' && event.value.status]);
          assert.deepEqual(told, statuses.map((status, i) => [i + 1, status]).slice(after));
        }
      }
    });
});

describe('a store whose records did not say what lies beside them', { timeout: 120_000 }, () => {
  it('says it of those that have not ended, and ends are told on', async (t) => {
    const fleet = await left(3);
    const key = (name: string) => `{${fleet}}:${name}`;
    await migrate(fleet);
    const store = await opened(t, fleet);
    const { jobs } = await store.list({ pageSize: 10 });
    const tied = [];
    for (const { jobId } of jobs) if (await redis.client.hexists(key(`job:${jobId}`), 'ties')) tied.push(jobId);
    const named = (what: string) => redis.client.keys(key(`${what}:job_*`));
    const beside = [...(await named('names')), ...(await named('inputs')), ...(await named('waiters'))];
    assert.equal(beside.length, 3);
    assert.deepEqual(tied.sort(), beside.map((name) => name.slice(name.lastIndexOf(':') + 1)).sort());
    assert.deepEqual(await redis.client.keys(key('ties*')), []);
    assert.equal(await redis.client.hexists(key('meta'), 'ties'), 0);
    // Until the one that waits has run too.
    const queued = jobs.filter(({ status }) => status === JobStatus.QUEUED);
    for (let ran = 0; ran < queued.length; ran++) {
      const lease = (await store.claim({ node: 'node' }, new AbortController().signal))!;
      if (lease.inputs.size > 0) assert.deepEqual([...lease.inputs.values()], ['b'.repeat(64)]);
      await lease.begin({ slot: 'node/0', engine: undefined });
      const result = create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: 'b'.repeat(64) });
      await lease.complete({ result, warnings: [], timings: create(TimingsSchema, {}) });
    }
    assert.deepEqual(await redis.client.keys(key('needs:*')), [], 'no job needs the upload any more');
    assert.deepEqual([...(await named('inputs')), ...(await named('waiters'))], []);
  });
});

describe('a store that is looked at before it is used', { timeout: 120_000 }, () => {
  const inspect = (fleet: string, url = redis.server.url) => inspectRedisJobStore({ url, fleet, timeoutMs: 5_000 });

  it('is what it is, with what is not guaranteed, and nothing is made there', async (t) => {
    const fleet = randomUUID();
    const { store, version, exists, warnings } = await inspect(fleet);
    assert.deepEqual([store, exists], [redis.server.url, false]);
    assert.match(version, /^\d+\.\d+\.\d+/);
    assert.equal(warnings.length, 1, warnings.join());
    assert.match(warnings[0]!, /^Redis has appendfsync no: .*Set appendfsync to always$/);
    assert.deepEqual(await redis.client.keys(`*${fleet}*`), []);
    await opened(t, fleet);
    assert.equal((await inspect(fleet)).exists, true);
  });

  it('says of each setting that loses what was accepted what is lost and what to set', async () => {
    await using own = await startRedis(['--appendfsync', 'always']);
    const admin = new Redis(own.url);
    try {
      const warned = async (...settings: [string, string]) => {
        await admin.config('SET', ...settings);
        return (await inspect(randomUUID(), own.url)).warnings;
      };
      assert.deepEqual((await inspect(randomUUID(), own.url)).warnings, []);
      const [evicts, ...others] = await warned('maxmemory-policy', 'allkeys-lru');
      assert.match(evicts!, /^Redis has maxmemory-policy allkeys-lru: .* deletes jobs .*Set maxmemory-policy to noeviction$/);
      assert.deepEqual(others, []);
      assert.deepEqual(await warned('maxmemory-policy', 'noeviction'), []);
      assert.match((await warned('appendfsync', 'everysec')).join(), /^Redis has appendfsync everysec: .*second or two are lost. Set/);
      assert.match((await warned('appendonly', 'no')).join(), /^Redis writes no append-only file: .*Set appendonly to yes$/);
    } finally {
      admin.disconnect();
    }
  });

  it('is not used where the server is too old, whatever it calls itself', () => {
    const check = (facts: Record<string, string>) => checkVersion(new Map(Object.entries(facts)));
    for (const version of ['6.2.0', '7.4.1', '10.0.0']) check({ redis_version: version });
    check({ redis_version: '5.0.0', valkey_version: '8.1.0' });
    assert.throws(() => check({ redis_version: '6.0.16' }), /^Error: this Redis is version 6.0.16, and 6.2 or newer is needed$/);
    assert.throws(() => check({}), /version unknown/);
  });

  it('is refused as it would be at a start: another schema, nobody there', async () => {
    await assert.rejects(inspect(await left(1)), /has schema 1, and this version needs \d+: .*`ffjobs store migrate`/);
    await assert.rejects(inspect('x', 'redis://127.0.0.1:1'), /^Error: cannot open the job store redis:\/\/127\.0\.0\.1:1: /);
  });
});

describe('a migration', { timeout: 120_000 }, () => {
  /** To a schema that is not there yet: what is in the list `old` goes to the set `new`. */
  const STEP = `
for i = 1, MOST do
  local one = redis.call('LPOP', P .. 'old')
  if not one then return i - 1 end
  if one == 'broken' then
    redis.call('LPUSH', P .. 'old', one)
    return redis.error_reply('ERR broken')
  end
  redis.call('SADD', P .. 'new', one)
end
return MOST`;
  const NEXT: Steps = new Map([...shippedSteps(), [SCHEMA + 1, STEP]]);

  async function withOld(count: number): Promise<string> {
    const fleet = randomUUID();
    await (await open(fleet))[Symbol.asyncDispose]();
    await redis.client.rpush(`{${fleet}}:old`, ...Array.from({ length: count }, (_, i) => `${i}`));
    return fleet;
  }

  it('is not begun while a process uses the store', async () => {
    const fleet = await withOld(10);
    const store = await open(fleet);
    await assert.rejects(
      migrate(fleet, NEXT),
      new RegExp(`^Error: 1 process uses the job store .*: stop every node of the fleet '${fleet}', then migrate$`),
    );
    assert.equal((await store.submit(wantedJob(), LIMITS)).created, true, 'and that goes on');
    await store[Symbol.asyncDispose]();
    assert.deepEqual((await migrate(fleet, NEXT)).schemas, { from: SCHEMA, to: SCHEMA + 1 });
    await assert.rejects(open(fleet), /has schema \d+, made by a newer version; this one knows \d+: run the newer version$/);
    await assert.rejects(migrate(fleet), /made by a newer version/);
  });

  it('that the server does not allow is told in its words, and has not begun', async () => {
    const fleet = await withOld(1);
    await redis.client.call('ACL', 'SETUSER', 'mover', 'on', '>hidden', '~*', '&*', '+@all', '-pubsub');
    const url = `redis://mover:hidden@127.0.0.1:${redis.server.port}`;
    await assert.rejects(migrateRedisJobStore({ url, fleet, steps: NEXT }), (error: Error) => {
      assert.match(
        error.message,
        /^the job store redis:\/\/mover:\*\*\*@\S+ was not migrated to its end: NOPERM .*pubsub.*; run it again when that is mended$/,
      );
      return true;
    });
    await (await open(fleet))[Symbol.asyncDispose]();
  });

  it('that was broken off lets nobody in, and goes on where it was', async () => {
    const fleet = await withOld(1200);
    await redis.client.rpush(`{${fleet}}:old`, 'broken');
    await assert.rejects(migrate(fleet, NEXT), /broken/);
    assert.equal(await redis.client.scard(`{${fleet}}:new`), 1200);
    await assert.rejects(open(fleet), /is on its way to schema \d+: wait for `ffjobs store migrate` .* to end, or run it again/);
    // Part of it is moved: a process that comes back now does not put the store back to what it was.
    const listener = redis.client.duplicate();
    await listener.subscribe(`{${fleet}}:ready`);
    await assert.rejects(migrate(fleet, NEXT), /1 process uses/);
    listener.disconnect();
    while (Number((await redis.client.pubsub('NUMSUB', `{${fleet}}:ready`))[1]) > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await assert.rejects(open(fleet), /is on its way/);
    await redis.client.rpop(`{${fleet}}:old`);
    await migrate(fleet, NEXT);
    assert.equal(await redis.client.scard(`{${fleet}}:new`), 1200);
    assert.equal(await redis.client.hget(`{${fleet}}:meta`, 'migrating'), null);
  });

  it('may be run by two at once', async () => {
    const fleet = await withOld(3000);
    const [one, other] = await Promise.all([migrate(fleet, NEXT), migrate(fleet, NEXT)]);
    assert.equal(one.schemas?.to, SCHEMA + 1);
    assert.equal(other.schemas?.to, SCHEMA + 1);
    assert.equal(await redis.client.scard(`{${fleet}}:new`), 3000);
    assert.equal(await redis.client.hget(`{${fleet}}:meta`, 'schema'), `${SCHEMA + 1}`);
  });

  it('that a process has slept through makes its steps refused, and it is not ready', async (t) => {
    const fleet = await withOld(1);
    const store = await opened(t, fleet);
    await store.submit(wantedJob(), LIMITS);
    await redis.client.hset(`{${fleet}}:meta`, 'schema', SCHEMA + 1);
    const refused = { reason: 'STORE_UNAVAILABLE', message: /was brought to another schema: this service has to be restarted/ };
    await assert.rejects(store.submit(wantedJob(), LIMITS), refused);
    await assert.rejects(store.claim({ node: 'node' }, new AbortController().signal), refused);
    await assert.rejects(store.ping(), refused);
    assert.equal((await redis.client.keys(`{${fleet}}:job:*`)).length, 1);
    await redis.client.hset(`{${fleet}}:meta`, 'schema', SCHEMA);
    await store.ping();
  });
});
