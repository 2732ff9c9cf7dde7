// Prometheus metrics and the port that shows them. Every request is counted once, REST and RPC alike, one that fails before it is parsed too.
import { createServer, type Server } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { type RequestFacts, RequestFigures } from './request-figures.ts';

/** Read when the metrics are scraped. */
export interface Gauges {
  readonly jobsByStatus: () => Promise<Iterable<readonly [status: string, count: number]>>;
  readonly slotsByState: () => Iterable<readonly [state: string, count: number]>;
  readonly watchers: () => number;
  readonly workerRestarts: () => number;
}

export interface Metrics {
  request(facts: RequestFacts): void;
  bind(gauges: Gauges): void;
  /** The exposition text and its content type. */
  scrape(): Promise<{ text: string; contentType: string }>;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const requests = new RequestFigures(registry);
  return {
    request: (facts) => requests.count(facts),
    bind(gauges) {
      new Gauge({
        name: 'jobs',
        help: 'Jobs in the store by status',
        labelNames: ['status'],
        registers,
        async collect() {
          for (const [status, count] of await gauges.jobsByStatus()) this.set({ status }, count);
        },
      });
      new Gauge({
        name: 'queue_depth',
        help: 'Jobs that wait',
        registers,
        async collect() {
          this.set([...(await gauges.jobsByStatus())].find(([status]) => status === 'queued')?.[1] ?? 0);
        },
      });
      new Gauge({
        name: 'slots',
        help: 'Slots by the state of their worker',
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
    },
    scrape: async () => ({ text: await registry.metrics(), contentType: registry.contentType }),
  };
}

/** Serves `/metrics` and nothing else. Rejects when the port cannot be had. */
export function serveMetrics(metrics: Metrics, host: string, port: number): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.url !== '/metrics' || request.method !== 'GET') {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('metrics are at /metrics\n');
      return;
    }
    metrics.scrape().then(
      ({ text, contentType }) => response.writeHead(200, { 'content-type': contentType }).end(text),
      () => response.writeHead(503, { 'content-type': 'text/plain' }).end('the metrics cannot be read now\n'),
    );
  });
  server.requestTimeout = 10_000;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve(server);
    });
  });
}
