import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { describeTenantStore } from './contract/tenant-store.ts';

describeTenantStore('SQLite', async (settings) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-tenants-'));
  const open = () => openSqliteJobStore({ path: join(dir, 'jobs.db'), ...settings });
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
      await rm(dir, { recursive: true });
    },
  };
});
