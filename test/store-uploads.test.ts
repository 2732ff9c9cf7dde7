// The stores' records of uploads: one suite for both.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before } from 'node:test';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import type { JobStore } from '../src/jobs/ports.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { describeUploadRecords } from './contract/upload-records.ts';

let redis: RedisServer;
before(async () => {
  redis = await startRedis();
});
after(() => redis[Symbol.asyncDispose]());

const STORES: Readonly<Record<string, (dir: string, now: () => number) => Promise<JobStore>>> = {
  SQLite: (dir, now) => openSqliteJobStore({ path: join(dir, 'jobs.db'), now }),
  Redis: (dir, now) => openRedisJobStore({ url: redis.url, fleet: basename(dir), now }),
};

for (const [name, openStore] of Object.entries(STORES)) {
  describeUploadRecords(name, async () => {
    const dir = await mkdtemp(join(tmpdir(), 'ffjobs-upload-records-'));
    let now = Date.UTC(2025, 3, 5);
    const open = () => openStore(dir, () => now);
    let store = await open();
    return {
      store,
      oneProcess: name === 'SQLite',
      advance: (ms) => {
        now += ms;
      },
      restart: async () => {
        await store[Symbol.asyncDispose]();
        store = await open();
        return store;
      },
      destroy: async () => {
        await store[Symbol.asyncDispose]();
        await rm(dir, { recursive: true });
      },
    };
  });
}
