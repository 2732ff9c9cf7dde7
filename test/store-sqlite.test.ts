import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { describeBatchStore } from './contract/batch-store.ts';
import { describeChains } from './contract/chains.ts';
import { describeJobStore, type JobStoreFactory } from './contract/job-store.ts';
import { describeSharedRuns } from './contract/shared-runs.ts';

const opened: JobStoreFactory = async (settings) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-store-'));
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
};

describeJobStore('SQLite', opened);
describeBatchStore('SQLite', opened);
describeChains('SQLite', opened);
describeSharedRuns('SQLite', opened);
