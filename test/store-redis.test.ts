import { randomUUID } from 'node:crypto';
import { after, before } from 'node:test';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import { openRedisJobStore, type RedisJobStoreOptions } from '../src/store/jobs-redis.ts';
import { describeBatchStore } from './contract/batch-store.ts';
import { describeChains } from './contract/chains.ts';
import { describeDrainStore } from './contract/drain-store.ts';
import { describeJobStore, opening } from './contract/job-store.ts';
import { describeLateCancels, describeSharedRuns } from './contract/shared-runs.ts';
import { describeTenantStore } from './contract/tenant-store.ts';
import { describeWebhookStore } from './contract/webhook-store.ts';

let server: RedisServer;
before(async () => {
  server = await startRedis();
});
after(async () => {
  await server[Symbol.asyncDispose]();
});

/** A fleet of its own on the one server. */
async function opened(settings: Partial<RedisJobStoreOptions> = {}) {
  const fleet = randomUUID();
  return await opening(() => openRedisJobStore({ url: server.url, fleet, ...settings }));
}

describeJobStore('Redis', opened);
describeBatchStore('Redis', opened);
describeWebhookStore('Redis', opened);
describeChains('Redis', opened);
describeSharedRuns('Redis', opened);
describeLateCancels('Redis', opened);
describeTenantStore('Redis', opened);
describeDrainStore('Redis', opened);
