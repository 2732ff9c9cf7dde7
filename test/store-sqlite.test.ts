import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { describeBatchStore } from './contract/batch-store.ts';
import { describeChains } from './contract/chains.ts';
import { describeJobStore, type JobStoreFactory, opening } from './contract/job-store.ts';
import { describeLateCancels, describeSharedRuns } from './contract/shared-runs.ts';
import { describeWebhookStore } from './contract/webhook-store.ts';

const opened: JobStoreFactory = async (settings) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-store-'));
  return await opening(
    () => openSqliteJobStore({ path: join(dir, 'jobs.db'), ...settings }),
    () => rm(dir, { recursive: true }),
  );
};

describeJobStore('SQLite', opened);
describeBatchStore('SQLite', opened);
describeWebhookStore('SQLite', opened);
describeChains('SQLite', opened);
describeSharedRuns('SQLite', opened);
describeLateCancels('SQLite', opened);
