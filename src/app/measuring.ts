// What is counted, from jobs and slots to the plain figures of the metrics, and the port that shows them.
import type { Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type Slot, WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Config } from '../config.ts';
import { type Job, JobStatus } from '../jobs/job.ts';
import type { JobStore } from '../jobs/ports.ts';
import type { EndedJob, Stay } from '../telemetry/job-metrics.ts';
import type { Gauges, Metrics } from '../telemetry/metrics.ts';
import { serveMetrics } from '../telemetry/metrics-port.ts';
import type { Closing } from './closing.ts';
import { readToken } from './setting-files.ts';

export interface Measured extends Pick<Gauges, 'watchers' | 'gpus'> {
  readonly store: Pick<JobStore, 'overview'>;
  /** Of this process. */
  readonly slots: () => readonly Slot[];
}

/** What an overview is asked for besides the totals, which have no window. */
const WINDOW_MS = 60_000;

/** Has the figures of a service read whenever they are asked for. */
export function measure(metrics: Metrics, { store, slots, watchers, gpus }: Measured): void {
  metrics.bind({
    jobsByStatus: async () => [...(await store.overview(WINDOW_MS)).totals].map(([status, count]) => [nameOf(status), count]),
    slotsByState: () => countBy(slots().map(stateOf)),
    workerRestarts: () => slots().reduce((sum, slot) => sum + slot.restarts, 0),
    watchers,
    gpus,
  });
}

/** Rejects when the port cannot be had, or with an `Error` that can be shown where its token cannot. */
export async function openMetricsPort(metrics: Metrics, config: Config, opened: Closing): Promise<void> {
  const { metricsHost: host, metricsPort: port, metricsTokenFile } = config;
  if (port === 0) return;
  const token = metricsTokenFile === undefined ? undefined : await readToken(metricsTokenFile);
  const server = await serveMetrics(metrics, { host, port, token });
  opened.last('metrics', { [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())) });
}

/** A job that has ended, by whatever ended it. */
export function endOf({ status, error, cached }: Job): EndedJob {
  return { status: nameOf(status), reason: error?.reason ?? '', cached };
}

/** A job's stay on this node, which ended it or put it back, with the times of this attempt alone. */
export function stayOf(job: Job, { slot, timings }: { readonly slot: string | undefined; readonly timings: Timings }): Stay {
  const processors = job.request?.parameters?.processors;
  return {
    ...endOf(job),
    processors: Array.isArray(processors) ? processors.map(String) : [],
    queuedSeconds: timings.queuedSeconds,
    prepareSeconds: timings.prepareSeconds,
    runSeconds: timings.runSeconds,
    storeSeconds: timings.storeSeconds,
    slotSeconds: timings.gpuSeconds,
    slot: slot ?? '',
    resultBytes: Number(job.result?.bytes ?? 0),
  };
}

/** One that is out of service and does nothing is not idle: no job will come to it. */
function stateOf({ state, drain }: Slot): string {
  return drain && state === WorkerState.IDLE ? 'drained' : WorkerState[state].toLowerCase();
}

function nameOf(status: JobStatus): string {
  return JobStatus[status].toLowerCase();
}

function countBy(names: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}
