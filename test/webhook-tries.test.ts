// When a delivery is tried, and when it is given up: the notifier over real stores, with a clock that the test holds.
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { startRedis } from '../scripts/redis-server.ts';
import { newBatchId } from '../src/jobs/batches.ts';
import { JobStatus } from '../src/jobs/job.ts';
import type { JobStore } from '../src/jobs/ports.ts';
import { GIVE_UP_MS } from '../src/jobs/webhooks.ts';
import { Hosts } from '../src/media/hosts.ts';
import { Notifier } from '../src/notify/notifier.ts';
import { Sender, type Sent } from '../src/notify/send.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { wantedJob } from './contract/job-store.ts';

const SECRET = `whsec_${Buffer.from('a secret of the tests, long enough').toString('base64')}`;
const LIMITS = { maxQueued: 1000, idempotencyMs: 86_400_000 };
const T0 = Date.UTC(2025, 3, 5);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

type Open = (t: TestContext, now: () => number) => Promise<JobStore>;

const STORES: readonly (readonly [string, Open])[] = [
  [
    'SQLite',
    async (t, now) => {
      const dir = await mkdtemp(join(tmpdir(), 'ffjobs-tries-'));
      const store = await openSqliteJobStore({ path: join(dir, 'jobs.db'), now });
      t.after(async () => {
        await store[Symbol.asyncDispose]();
        await rm(dir, { recursive: true });
      });
      return store;
    },
  ],
  [
    'Redis',
    async (t, now) => {
      const server = await startRedis();
      const store = await openRedisJobStore({ url: server.url, fleet: randomUUID(), now });
      t.after(async () => {
        await store[Symbol.asyncDispose]();
        await server[Symbol.asyncDispose]();
      });
      return store;
    },
  ],
];

/** A notifier whose receivers answer as `answer` says; `tried` settles with each outcome in turn. */
function notifying(
  t: TestContext,
  store: JobStore,
  now: () => number,
  answer: (nth: number) => Sent,
  { render = async () => '{}', onError = (error: unknown): void => assert.fail(String(error)) } = {},
) {
  const sent: { readonly at: number; readonly id: string }[] = [];
  const outcomes: string[] = [];
  let wake = () => {};
  const notifier = new Notifier({
    outbox: store.webhooks,
    job: (id) => store.get(id),
    render,
    secretsFor: () => [SECRET],
    maxAtOnce: 8,
    maxPerHost: 4,
    maxPerTenant: 8,
    leaseMs: MINUTE,
    random: () => 1,
    async send(_url, headers) {
      sent.push({ at: now(), id: headers['webhook-id']! });
      return answer(sent.length);
    },
    gaveWay: () => {},
    count(type) {
      outcomes.push(type);
      wake();
    },
    onError,
  });
  t.after(() => notifier[Symbol.asyncDispose]());
  let seen = 0;
  return {
    sent,
    look: () => notifier.look(),
    async outcome(): Promise<string> {
      while (outcomes.length <= seen)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      return outcomes[seen++]!;
    },
  };
}

for (const [name, open] of STORES) {
  describe(`${name}: a delivery`, { concurrency: 2, timeout: 120_000 }, () => {
    test('is tried at growing distances for 24 hours, then dead; a replay gives it 24 hours more under the same id', async (t) => {
      let clock = T0;
      const now = () => clock;
      const store = await open(t, now);
      let taken = false;
      const receiver = notifying(t, store, now, () =>
        taken ? { ok: true } : { ok: false, kind: 'status', error: 'it answered 500', gone: false },
      );
      const job = wantedJob({ request: { webhook: { url: 'https://a.example.com/', statuses: [JobStatus.QUEUED] } } });

      /** From what makes it due until it is dead: the clock is moved to just before, then to each next try. */
      const untilDead = async (begin: () => Promise<unknown>): Promise<number[]> => {
        const began = clock;
        const from = receiver.sent.length;
        await begin();
        while ((await receiver.outcome()) !== 'dead') {
          const tried = receiver.sent.length;
          const delay = Math.min(HOUR, 5_000 * 2 ** (tried - from - 1));
          clock += delay - 1;
          assert.deepEqual(
            (await store.webhooks.take({ max: 1, perHost: 1, perTenant: 1, underWay: [], leaseMs: MINUTE })).deliveries,
            [],
            'not before its time',
          );
          clock += 1;
          receiver.look();
        }
        return receiver.sent.slice(from).map(({ at }) => at - began);
      };

      const tries = await untilDead(() => store.submit(job, LIMITS));
      assert.deepEqual(tries.slice(0, 4), [0, 5_000, 15_000, 35_000], 'at once, after 5 s, and twice as long each time');
      assert.ok(
        tries.at(-1)! <= GIVE_UP_MS && tries.at(-1)! > GIVE_UP_MS - HOUR,
        `the last one is ${tries.at(-1)! / HOUR} h after the first`,
      );
      const dead = { tenant: 'one', dead: true, pageSize: 10 };
      const [delivery] = (await store.webhooks.list(dead)).deliveries;
      assert.deepEqual([delivery?.attempts, delivery?.error], [tries.length, 'it answered 500']);
      clock += 30 * 24 * HOUR;
      receiver.look();
      assert.deepEqual(
        (await store.webhooks.take({ max: 1, perHost: 1, perTenant: 1, underWay: [], leaseMs: MINUTE })).deliveries,
        [],
        'nobody tries a dead one',
      );

      const again = await untilDead(() => store.webhooks.replay('one', delivery!.id));
      assert.deepEqual(again.slice(0, 4), [0, 5_000, 15_000, 35_000]);
      assert.equal(again.length, tries.length);
      taken = true;
      await store.webhooks.replay('one', delivery!.id);
      assert.equal(await receiver.outcome(), 'delivered');
      assert.deepEqual(new Set(receiver.sent.map(({ id }) => id)), new Set([delivery!.id]));
      for (const state of [true, false]) assert.deepEqual((await store.webhooks.list({ ...dead, dead: state })).deliveries, []);
    });

    test('that cannot be written is a try that failed: it waits longer each time, and is dead in the end', async (t) => {
      let clock = T0;
      const store = await open(t, () => clock);
      const errors: unknown[] = [];
      const cause = new Error('the URL of the result cannot be signed');
      const receiver = notifying(
        t,
        store,
        () => clock,
        () => ({ ok: true }),
        {
          render: () => Promise.reject(cause),
          onError: (error) => void errors.push(error),
        },
      );
      await store.submit(wantedJob({ request: { webhook: { url: 'https://a.example.com/', statuses: [JobStatus.QUEUED] } } }), LIMITS);
      assert.equal(await receiver.outcome(), 'retry');
      clock += 5_000;
      receiver.look();
      assert.equal(await receiver.outcome(), 'retry');
      clock += GIVE_UP_MS;
      receiver.look();
      assert.equal(await receiver.outcome(), 'dead');
      const [dead] = (await store.webhooks.list({ tenant: 'one', dead: true, pageSize: 10 })).deliveries;
      assert.deepEqual([dead?.attempts, dead?.error], [3, 'what is to be told could not be written; see the log']);
      assert.deepEqual([errors, receiver.sent], [[cause, cause, cause], []]);
    });

    test('that its receiver wants no more (410) is dead at once', async (t) => {
      const store = await open(t, () => T0);
      const receiver = notifying(
        t,
        store,
        () => T0,
        () => ({ ok: false, kind: 'status', error: 'it answered 410', gone: true }),
      );
      await store.submit(wantedJob({ request: { webhook: { url: 'https://a.example.com/', statuses: [JobStatus.QUEUED] } } }), LIMITS);
      assert.equal(await receiver.outcome(), 'dead');
      assert.equal((await store.webhooks.list({ tenant: 'one', dead: true, pageSize: 10 })).deliveries.length, 1);
    });
  });
}

for (const [name, open] of STORES) {
  test(`${name}: thousands of receivers of one tenant that never answer hold up no other tenant's`, { timeout: 120_000 }, async (t) => {
    const store = await open(t, Date.now);
    const MANY = 2000;
    const told = (tenant: string, host: string) =>
      wantedJob({ tenant, request: { webhook: { url: `https://${host}.example.com/`, statuses: [JobStatus.QUEUED] } } });
    for (let i = 0; i < MANY; i += 1000) {
      const jobs = Array.from({ length: 1000 }, (_, j) => told('dead', `dead-${(i + j) % 500}`));
      const facts = { tenant: 'dead', idempotencyKey: undefined, requestDigest: '', stopGraceMs: undefined };
      const places = { order: jobs.map((_, j) => j), refs: jobs.map(() => '') };
      await store.submitBatch(
        { ...facts, ...places, jobs, batchId: newBatchId(Date.now(), randomBytes(12)) },
        { ...LIMITS, maxQueued: MANY },
      );
    }
    let hanging = 0;
    let delivered = 0;
    let moved = () => {};
    const until = async (is: () => boolean) => {
      while (!is())
        await new Promise<void>((resolve) => {
          moved = resolve;
        });
    };
    await using _notifier = new Notifier({
      outbox: store.webhooks,
      job: (id) => store.get(id),
      render: async () => '{}',
      secretsFor: () => [SECRET],
      maxAtOnce: 64,
      maxPerHost: 4,
      maxPerTenant: 16,
      leaseMs: MINUTE,
      async send(url, _headers, _body, signal) {
        if (new URL(url).host.startsWith('dead')) {
          hanging++;
          moved();
          await once(signal, 'abort');
        }
        return { ok: true };
      },
      gaveWay: () => assert.fail(),
      count() {
        delivered++;
        moved();
      },
      onError: (error) => assert.fail(String(error)),
    });
    await until(() => hanging === 16);
    for (let i = 0; i < 100; i++) await store.submit(told(`quick-${i % 3}`, `quick-${i % 2}`), LIMITS);
    await until(() => delivered === 100);
    assert.equal(hanging, 16, 'no turn but its own');
    assert.equal((await store.webhooks.list({ tenant: 'dead', dead: false, pageSize: 1000 })).deliveries.length, 1000, 'all of it waits');
  });
}

test('a name that leads to a private address is refused at the socket, and nothing is sent there', async (t) => {
  let met = 0;
  const server = createServer((_request, response) => {
    met++;
    response.end();
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const hosts = new Hosts({ allow: [], ports: [port], schemes: ['http', 'https'] });
  const url = `http://hooks.example.com:${port}/`;
  assert.ok(hosts.parse(url) instanceof URL, 'by its letters it may be told');
  const lookup = async () => [{ address: '127.0.0.1', family: 4 }];
  await using sender = new Sender({ connect: hosts.connector(5_000, lookup), timeoutMs: 5_000, perHost: 1 });
  const sent = await sender.send(url, {}, '{}', new AbortController().signal);
  assert.deepEqual([sent.ok, !sent.ok && sent.kind], [false, 'refused']);
  assert.match(sent.ok ? '' : sent.error, /hooks\.example\.com has no address that is allowed/);
  assert.equal(met, 0);
});
