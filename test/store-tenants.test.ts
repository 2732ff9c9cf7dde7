import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { opening } from './contract/job-store.ts';
import { describeTenantStore } from './contract/tenant-store.ts';

describeTenantStore('SQLite', async (settings) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-tenants-'));
  return await opening(
    () => openSqliteJobStore({ path: join(dir, 'jobs.db'), ...settings }),
    () => rm(dir, { recursive: true }),
  );
});
