// Rates that the nodes of a fleet count together.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import { limiterOf } from '../src/access/access.ts';
import { noPolicies } from '../src/access/policies.ts';
import { Rates } from '../src/access/rates.ts';
import type { Caller } from '../src/jobs/caller.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';

let server: RedisServer;
before(async () => {
  server = await startRedis();
});
after(async () => {
  await server?.[Symbol.asyncDispose]();
});

const STRANGER: Caller = {
  identity: {
    kind: 'anonymous',
    tenant: 'anonymous',
    name: 'anonymous',
    scopes: new Set(),
    tier: undefined,
    expiresMs: undefined,
    seesAll: false,
  },
  address: '203.0.113.1',
  local: false,
};

test('two nodes count as one, and a Redis that is away keeps nobody out', async () => {
  const fleet = randomUUID();
  const problems: unknown[] = [];
  const node = async () => {
    const store = await openRedisJobStore({ url: server.url, fleet, timeoutMs: 1000 });
    const rates = new Rates({
      limiter: limiterOf(store.counters),
      anonymous: { points: 5, seconds: 60 },
      countLocal: false,
      policies: noPolicies({ queuedJobs: 1, attestation: false, mark: { signed: false, label: '' } }),
      onProblem: (error) => problems.push(error),
    });
    return { store, rates };
  };
  const [a, b] = [await node(), await node()];
  const settled = await Promise.allSettled(Array.from({ length: 10 }, (_, i) => (i % 2 ? a : b).rates.submit(STRANGER, 1)));
  assert.equal(settled.filter((one) => one.status === 'fulfilled').length, 5);
  assert.deepEqual(problems, []);
  await b.store[Symbol.asyncDispose]();
  assert.equal(await b.rates.submit(STRANGER, 1), undefined);
  assert.equal(problems.length, 1);
  await a.store[Symbol.asyncDispose]();
});
