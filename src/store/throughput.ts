// How an overview is laid out: counts by status and tenant, and jobs ended in equal steps of time.
import { JobStatus } from '../jobs/job.ts';
import type { Overview } from '../jobs/ports.ts';

const MINUTE_MS = 60_000;
/** Steps of a throughput answer at most, so that a month does not come in minutes. */
const MAX_STEPS = 120;

export interface Ended {
  /** Since 1970. */
  readonly minute: number;
  readonly status: JobStatus;
  readonly jobs: number;
}

/** The steps of a window that ends now, empty, and how a count is added to them. */
export function stepsOf(windowMs: number, nowMs: number) {
  const minutesInStep = Math.max(1, Math.ceil(windowMs / MINUTE_MS / MAX_STEPS));
  const stepMs = minutesInStep * MINUTE_MS;
  const lastStart = Math.floor(nowMs / stepMs) * stepMs;
  const steps = Math.max(1, Math.ceil(windowMs / stepMs));
  const firstStart = lastStart - (steps - 1) * stepMs;
  const throughput = Array.from({ length: steps }, (_, i) => ({ startMs: firstStart + i * stepMs, ended: new Map<JobStatus, number>() }));
  return {
    throughput,
    stepSeconds: stepMs / 1000,
    firstMinute: firstStart / MINUTE_MS,
    add({ minute, status, jobs }: Ended): void {
      const counts = throughput[Math.floor((minute * MINUTE_MS - firstStart) / stepMs)]?.ended;
      counts?.set(status, (counts.get(status) ?? 0) + jobs);
    },
  };
}

export interface OverviewFacts {
  readonly counts: readonly {
    readonly tenant: string;
    readonly jobs: ReadonlyMap<JobStatus, number>;
    readonly oldestQueuedMs: number | undefined;
  }[];
  readonly windowMs: number;
  readonly nowMs: number;
  /** Jobs ended in these hours since 1970. */
  readonly ended: (hours: readonly number[]) => Promise<readonly Ended[]>;
}

export async function overviewOf({ counts, windowMs, nowMs, ended }: OverviewFacts): Promise<Overview> {
  const { throughput, stepSeconds, firstMinute, add } = stepsOf(windowMs, nowMs);
  const firstHour = Math.floor(firstMinute / 60);
  const lastHour = Math.floor(nowMs / MINUTE_MS / 60);
  for (const one of await ended(Array.from({ length: lastHour - firstHour + 1 }, (_, i) => firstHour + i))) add(one);
  const totals = new Map<JobStatus, number>();
  for (const { jobs } of counts) for (const [status, count] of jobs) totals.set(status, (totals.get(status) ?? 0) + count);
  const queueByTenant = counts
    .map(({ tenant, jobs, oldestQueuedMs }) => ({
      tenant,
      queued: jobs.get(JobStatus.QUEUED) ?? 0,
      processing: jobs.get(JobStatus.PROCESSING) ?? 0,
      oldestQueuedMs,
    }))
    .filter(({ queued, processing }) => queued + processing > 0);
  return { totals, queueByTenant, throughput, stepSeconds };
}
