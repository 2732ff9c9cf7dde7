import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSqliteJobStore, type SqliteJobStoreOptions } from '../src/store/jobs-sqlite.ts';
import { describeDrainStore } from './contract/drain-store.ts';
import { opening } from './contract/job-store.ts';
import { describeTenantStore } from './contract/tenant-store.ts';

async function opened(settings: Partial<SqliteJobStoreOptions> = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-tenants-'));
  return await opening(
    () => openSqliteJobStore({ path: join(dir, 'jobs.db'), ...settings }),
    () => rm(dir, { recursive: true }),
  );
}

describeTenantStore('SQLite', opened);
describeDrainStore('SQLite', opened);
