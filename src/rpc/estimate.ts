// What a job that is asked about would take, by what was: a guess from runs and throughput, and nothing where there were none.
import { type Duration, durationFromMs } from '@bufbuild/protobuf/wkt';
import { JobStatus } from '../jobs/job.ts';
import type { TargetKind } from '../jobs/parameters.ts';
import type { JobStore, Overview } from '../jobs/ports.ts';

export interface Estimate {
  /** Queued, of all tenants. */
  readonly jobsAhead: number;
  /** Of the engine. */
  readonly run: Duration | undefined;
  /** Until the engine begins. */
  readonly wait: Duration | undefined;
}

const HOUR_MS = 3_600_000;
/** Runs that are looked at; the one in the middle counts. */
const RUNS = 20;

/** From the tenant's last runs on such a target, and the throughput of the last hour. */
export async function estimate(store: Pick<JobStore, 'overview' | 'list'>, tenant: string, target: TargetKind): Promise<Estimate> {
  const [overview, recent] = await Promise.all([
    store.overview(HOUR_MS),
    store.list({ tenant, statuses: [JobStatus.SUCCEEDED], pageSize: RUNS }),
  ]);
  const wanted = target === 'video' ? 'targetVideo' : 'targetImage';
  const runs = recent.jobs
    // What came from the cache says nothing of a run.
    .filter((job) => !job.cached && job.timings && job.request?.target.case === wanted)
    .map((job) => job.timings!.runSeconds)
    .sort((a, b) => a - b);
  const jobsAhead = overview.totals.get(JobStatus.QUEUED) ?? 0;
  const perJob = secondsPerJob(overview);
  return {
    jobsAhead,
    run: runs.length > 0 ? durationOf(runs[runs.length >> 1]!) : undefined,
    wait: jobsAhead === 0 ? durationOf(0) : perJob === undefined ? undefined : durationOf(jobsAhead * perJob),
  };
}

/** From one end of a job to the next, while there was work; undefined: none has ended. */
export function secondsPerJob({ throughput, stepSeconds }: Pick<Overview, 'throughput' | 'stepSeconds'>): number | undefined {
  // Time without work says nothing of the pace.
  const busy = throughput.map((step) => [...step.ended.values()].reduce((a, b) => a + b, 0)).filter((ended) => ended > 0);
  const ended = busy.reduce((a, b) => a + b, 0);
  return ended > 0 ? (busy.length * stepSeconds) / ended : undefined;
}

/** To the millisecond: no guess is better than that. */
export function durationOf(seconds: number): Duration {
  return durationFromMs(Math.round(seconds * 1000));
}
