// What every caller is promised, with the jobs in Redis: one process that is all, and a replica of the API whose jobs run on another node.
import { after, before, describe, test } from 'node:test';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import { type Client, grpcClient, restClient } from './api/clients.ts';
import { SCENARIOS } from './api/scenarios.ts';
import { type Service, startService, untilWarm } from './api/service.ts';

let redis: RedisServer;
before(async () => {
  redis = await startRedis();
});
after(() => redis[Symbol.asyncDispose]());

interface Fleet {
  /** Where calls go. */
  readonly api: Service;
  /** Where the jobs run. */
  readonly worker: Service;
}

async function apart(): Promise<Fleet> {
  const worker = await startService({ STORE: redis.url, FLEET: 'apart', ROLE: 'worker', NODE: 'gpu-1' });
  // The two share their folders, as the nodes of a fleet without S3 have to.
  const api = await startService({ STORE: redis.url, FLEET: 'apart', ROLE: 'api', NODE: 'api-1', DATA_DIR: worker.dir });
  // It takes jobs once it has heard of a node that has a warm worker.
  await untilWarm(api.baseUrl);
  return { api, worker };
}

async function together(): Promise<Fleet> {
  const all = await startService({ STORE: redis.url, FLEET: 'together' });
  return { api: all, worker: all };
}

const WAYS: readonly [name: string, start: () => Promise<Fleet>, open: (baseUrl: string) => Client | Promise<Client>][] = [
  ['REST, one process', together, restClient],
  ['gRPC, the workers elsewhere', apart, grpcClient],
];

for (const [name, start, open] of WAYS) {
  describe(`jobs in Redis, over ${name}`, () => {
    let fleet: Fleet;
    let client: Client;
    before(async () => {
      fleet = await start();
      client = await open(fleet.api.baseUrl);
    });
    after(async () => {
      client?.close();
      await fleet?.api[Symbol.asyncDispose]();
      if (fleet?.worker !== fleet?.api) await fleet?.worker[Symbol.asyncDispose]();
    });
    for (const [scenario, run] of SCENARIOS) {
      test(scenario, async () => await run({ client, baseUrl: fleet.api.baseUrl, dir: fleet.worker.dir }));
    }
  });
}
