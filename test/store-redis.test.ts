import { randomUUID } from 'node:crypto';
import { after, before } from 'node:test';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { describeJobStore } from './contract/job-store.ts';
import { type RedisServer, startRedis } from './fixtures/redis/server.ts';

let server: RedisServer;
before(async () => {
  server = await startRedis();
});
after(async () => {
  await server[Symbol.asyncDispose]();
});

describeJobStore('Redis', async (settings) => {
  const fleet = randomUUID();
  const open = () => openRedisJobStore({ url: server.url, fleet, ...settings });
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
    },
  };
});
