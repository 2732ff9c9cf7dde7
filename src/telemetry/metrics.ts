// Prometheus metrics. Every request is counted once, REST and RPC alike, one that fails before it is parsed too.
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { JobMetrics } from './job-metrics.ts';
import { type RequestFacts, RequestFigures } from './request-figures.ts';

/** Read when the metrics are scraped. */
export interface Gauges {
  /** Asked once a scrape. Rejects where the store is away: then its figures are missing, and no others. */
  readonly jobsByStatus: () => Promise<Iterable<readonly [status: string, count: number]>>;
  readonly slotsByState: () => Iterable<readonly [state: string, count: number]>;
  readonly watchers: () => number;
  readonly workerRestarts: () => number;
  readonly gpus: () => readonly GpuGauge[];
}

export interface GpuGauge {
  readonly index: number;
  readonly memoryBytes: number;
  readonly memoryUsedBytes: number;
  /** 0..1 */
  readonly utilization: number | undefined;
}

export interface Metrics {
  request(facts: RequestFacts): void;
  readonly jobs: JobMetrics;
  /** A try to tell a receiver; both words are of small, closed sets. */
  webhook(outcome: string, why: string): void;
  /** So many were given up, untold, for newer ones of their tenant. */
  webhooksGaveWay(count: number): void;
  bind(gauges: Gauges): void;
  /** The exposition text and its content type. */
  scrape(): Promise<{ text: string; contentType: string }>;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const requests = new RequestFigures(registry);
  const webhooks = new Counter({
    name: 'webhook_tries_total',
    help: 'Tries to deliver webhooks by what came of them, and why',
    labelNames: ['outcome', 'why'],
    registers,
  });
  const gaveWay = new Counter({
    name: 'webhooks_gave_way_total',
    help: 'Webhooks that tell of no end and were given up because more of their tenant waited than may',
    registers,
  });
  return {
    request: (facts) => requests.count(facts),
    jobs: new JobMetrics(registry),
    webhook: (outcome, why) => webhooks.inc({ outcome, why }),
    webhooksGaveWay: (count) => gaveWay.inc(count),
    bind(gauges) {
      const totals = shared(async () => new Map(await gauges.jobsByStatus()));
      new Gauge({
        name: 'jobs',
        help: 'Jobs in the store by status; missing while it does not answer',
        labelNames: ['status'],
        registers,
        async collect() {
          this.reset();
          for (const [status, count] of (await totals()) ?? []) this.set({ status }, count);
        },
      });
      new Gauge({
        name: 'queue_depth',
        help: 'Jobs that wait; missing while the store does not answer',
        registers,
        async collect() {
          const known = await totals();
          if (known) this.set(known.get('queued') ?? 0);
          else this.remove();
        },
      });
      new Gauge({
        name: 'job_store_up',
        help: '1 where the job store answered for this scrape, else 0',
        registers,
        async collect() {
          this.set((await totals()) ? 1 : 0);
        },
      });
      new Gauge({
        name: 'slots',
        help: 'Slots by the state of their worker; drained: it is idle, and out of service',
        labelNames: ['state'],
        registers,
        collect() {
          this.reset();
          for (const [state, count] of gauges.slotsByState()) this.set({ state }, count);
        },
      });
      new Gauge({
        name: 'watchers',
        help: 'Open Watch and WatchJobs streams',
        registers,
        collect() {
          this.set(gauges.watchers());
        },
      });
      new Counter({
        name: 'worker_restarts_total',
        help: 'Worker processes started again after the first',
        registers,
        collect() {
          this.reset();
          this.inc(gauges.workerRestarts());
        },
      });
      for (const [name, help, value] of GPU_GAUGES) {
        new Gauge({
          name,
          help,
          labelNames: ['gpu'],
          registers,
          collect() {
            this.reset();
            for (const gpu of gauges.gpus()) {
              const said = value(gpu);
              if (said !== undefined) this.set({ gpu: String(gpu.index) }, said);
            }
          },
        });
      }
    },
    scrape: async () => ({ text: await registry.metrics(), contentType: registry.contentType }),
  };
}

/** What is asked for while it is under way is the same: the gauges of a scrape, which are read at once, are of one moment. Undefined: it failed. */
function shared<T>(read: () => Promise<T>): () => Promise<T | undefined> {
  let reading: Promise<T | undefined> | undefined;
  return () => {
    reading ??= read()
      .catch(() => undefined)
      .finally(() => {
        reading = undefined;
      });
    return reading;
  };
}

const GPU_GAUGES: readonly (readonly [name: string, help: string, value: (gpu: GpuGauge) => number | undefined])[] = [
  ['gpu_memory_bytes', 'Memory of each GPU', (gpu) => gpu.memoryBytes],
  ['gpu_memory_used_bytes', 'Memory of each GPU that is in use, by whomever', (gpu) => gpu.memoryUsedBytes],
  ['gpu_utilization_ratio', 'Share of the last moments in which each GPU worked, where its driver tells', (gpu) => gpu.utilization],
];
