// Requests counted and timed, as two Prometheus metrics. prom-client hashes a metric's labels again at each observation; here the labels of a call
// lead to its numbers by three look-ups, and their text is made when somebody asks. Buckets are cumulative only then.
import type { MetricValue, Registry } from 'prom-client';

/** Upper bounds in seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600];

export interface RequestFacts {
  /** HTTP method. */
  readonly method: string;
  /** `facefusion.jobs.v1.JobService/Get` over whatever protocol, or the route of a path that is no rpc. */
  readonly endpoint: string;
  /** gRPC code in lower snake case. */
  readonly code: string;
  readonly seconds: number;
}

interface Figures {
  readonly codes: Map<string, number>;
  /** One for each bound, and one for what is above them all. */
  readonly buckets: Float64Array;
  sum: number;
  count: number;
}

export class RequestFigures {
  readonly #byEndpoint = new Map<string, Map<string, Figures>>();

  /** Adds `api_requests_total{method,endpoint,code}` and `api_request_duration_seconds{method,endpoint}`. */
  constructor(registry: Registry) {
    register(registry, 'api_requests_total', 'Requests by rpc or route and gRPC code', 'counter', () => this.#totals());
    register(
      registry,
      'api_request_duration_seconds',
      'Seconds from the first byte of a request to the last of its answer; streams included',
      'histogram',
      () => this.#durations(),
    );
  }

  count({ method, endpoint, code, seconds }: RequestFacts): void {
    let byMethod = this.#byEndpoint.get(endpoint);
    if (!byMethod) {
      byMethod = new Map();
      this.#byEndpoint.set(endpoint, byMethod);
    }
    let figures = byMethod.get(method);
    if (!figures) {
      figures = { codes: new Map(), buckets: new Float64Array(BUCKETS.length + 1), sum: 0, count: 0 };
      byMethod.set(method, figures);
    }
    figures.codes.set(code, (figures.codes.get(code) ?? 0) + 1);
    let i = 0;
    while (i < BUCKETS.length && seconds > BUCKETS[i]!) i++;
    figures.buckets[i]!++;
    figures.sum += seconds;
    figures.count++;
  }

  #totals(): MetricValue<string>[] {
    return this.#each(({ codes }, labels) => [...codes].map(([code, value]) => ({ value, labels: { ...labels, code } })));
  }

  #durations(): (MetricValue<string> & { readonly metricName: string })[] {
    const name = 'api_request_duration_seconds';
    return this.#each(({ buckets, sum, count }, labels) => {
      let below = 0;
      return [
        ...BUCKETS.map((le, i) => {
          below += buckets[i]!;
          return { metricName: `${name}_bucket`, value: below, labels: { le, ...labels } };
        }),
        { metricName: `${name}_bucket`, value: count, labels: { le: '+Inf', ...labels } },
        { metricName: `${name}_sum`, value: sum, labels },
        { metricName: `${name}_count`, value: count, labels },
      ];
    });
  }

  #each<T>(values: (figures: Figures, labels: { method: string; endpoint: string }) => T[]): T[] {
    return [...this.#byEndpoint].flatMap(([endpoint, byMethod]) =>
      [...byMethod].flatMap(([method, figures]) => values(figures, { method, endpoint })),
    );
  }
}

/** A metric for the registry to read, which asks nothing of it but these. */
function register(
  registry: Registry,
  name: string,
  help: string,
  type: 'counter' | 'histogram',
  values: () => MetricValue<string>[],
): void {
  const metric = { name, help, type, aggregator: 'sum', get: async () => ({ name, help, type, aggregator: 'sum', values: values() }) };
  registry.registerMetric(metric as unknown as Parameters<Registry['registerMetric']>[0]);
}
