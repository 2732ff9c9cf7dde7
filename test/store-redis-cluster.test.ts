// The job store on a Redis in cluster mode. The one node serves the slots of the fleets that are opened and no other, so that a key or a script that
// leaves its fleet's slot is found out: it is refused.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Redis } from 'ioredis';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import { openRedisJobStore, type RedisJobStoreOptions } from '../src/store/jobs-redis.ts';
import { describeBatchStore } from './contract/batch-store.ts';
import { describeChains } from './contract/chains.ts';
import { describeDrainStore } from './contract/drain-store.ts';
import { describeJobStore, opening } from './contract/job-store.ts';
import { describeSharedRuns } from './contract/shared-runs.ts';
import { describeTenantStore } from './contract/tenant-store.ts';
import { describeWebhookStore } from './contract/webhook-store.ts';

let server: RedisServer;
let admin: Redis;
before(async () => {
  // A node that has met no other one does not know its own address.
  server = await startRedis([
    '--cluster-enabled',
    'yes',
    '--cluster-announce-ip',
    '127.0.0.1',
    '--cluster-require-full-coverage',
    'no',
    '--appendfsync',
    'no',
  ]);
  admin = new Redis(server.port);
});
after(async () => {
  admin.disconnect();
  await server[Symbol.asyncDispose]();
});

async function serve(fleet: string): Promise<void> {
  const slot = await admin.cluster('KEYSLOT', `{${fleet}}:`);
  await admin.cluster('ADDSLOTS', slot).catch((error: Error) => assert.match(error.message, /already busy/));
  // The node says that the cluster is up a moment after its first slot.
  while (!(await admin.cluster('INFO')).includes('cluster_state:ok')) await new Promise((resolve) => setTimeout(resolve, 10));
}

async function opened(settings: Partial<RedisJobStoreOptions> = {}) {
  const fleet = randomUUID();
  await serve(fleet);
  return await opening(() => openRedisJobStore({ url: `redis+cluster://127.0.0.1:${server.port}`, fleet, ...settings }));
}

describe('a Redis in cluster mode', () => {
  it('refuses what is not of a slot that it serves', async () => {
    await serve('one');
    assert.equal(await admin.set('{one}:key', 'value'), 'OK');
    await assert.rejects(admin.set('key of nobody', 'value'), /CLUSTERDOWN|Hash slot not served/);
    await assert.rejects(
      admin.eval("return redis.call('SET', 'key of nobody', 'value')", 1, '{one}:key'),
      /non local key|not served|slot/i,
    );
  });

  it('is not waited for where it serves nothing', async (t) => {
    const idle = await startRedis(['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1']);
    t.after(() => idle[Symbol.asyncDispose]());
    const refused = openRedisJobStore({ url: `redis+cluster://127.0.0.1:${idle.port}`, timeoutMs: 300 });
    await assert.rejects(refused, /^Error: cannot open the job store redis\+cluster:/);
  });
});

describeJobStore('Redis Cluster', opened);
describeBatchStore('Redis Cluster', opened);
describeWebhookStore('Redis Cluster', opened);
describeChains('Redis Cluster', opened);
describeSharedRuns('Redis Cluster', opened);
describeTenantStore('Redis Cluster', opened);
describeDrainStore('Redis Cluster', opened);
