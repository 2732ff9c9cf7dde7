// Figures of a fleet: jobs by status and tenant, what has ended of late, and what a tenant has used. Read as they were counted by the steps.
import { type JobStatus, STATUSES } from '../../jobs/job.ts';
import type { Overview, Usage } from '../../jobs/ports.ts';
import { dayOf } from '../../jobs/quotas.ts';
import { overviewOf } from '../throughput.ts';
import type { RedisConnection } from './connection.ts';

/** See `JobStore.overview`. */
export async function readOverview(redis: RedisConnection, windowMs: number, nowMs: number): Promise<Overview> {
  const rows = (await redis.run('overview', [])) as [Buffer, ...number[], Buffer | null][];
  const counts = rows.map(([tenant, ...row]) => {
    const oldest = row.at(-1) as Buffer | null;
    return {
      tenant: tenant.toString(),
      jobs: new Map(STATUSES.map((s, i) => [s, row[i] as number])),
      oldestQueuedMs: oldest ? Number(oldest) : undefined,
    };
  });
  return await overviewOf({
    counts,
    windowMs,
    nowMs,
    ended: async (hours) => {
      const tables = await redis.hashes(hours.map((hour) => `ended:${hour}`));
      return tables.flatMap((table) =>
        Object.entries(table).map(([field, jobs]) => {
          const [minute, status] = field.split(':').map(Number) as [number, JobStatus];
          return { minute, status, jobs: Number(jobs) };
        }),
      );
    },
  });
}

/** See `JobStore.usage`. */
export async function readUsage(redis: RedisConnection, tenant: string, nowMs: number): Promise<Usage> {
  const [queued, running, storedBytes, gpuMs] = (await redis.run('usage', [tenant, dayOf(nowMs)])) as [number, number, number, number];
  return { queued, running, storedBytes, gpuSecondsToday: gpuMs / 1000 };
}
