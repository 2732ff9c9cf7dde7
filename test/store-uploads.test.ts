// The embedded store's records of uploads.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { describeUploadRecords } from './contract/upload-records.ts';

describeUploadRecords('SQLite', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-upload-records-'));
  let now = Date.UTC(2025, 3, 5);
  const open = () => openSqliteJobStore({ path: join(dir, 'jobs.db'), now: () => now });
  let store = await open();
  return {
    store,
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
