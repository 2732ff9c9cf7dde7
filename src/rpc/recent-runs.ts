// How long the last jobs waited and ran. Always true here: however many ask, the store is asked once in a while for each tenant, and for a few tenants.
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { GetOverviewResponse_RecentRunsSchema } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { JobStatus } from '../jobs/job.ts';
import type { JobStore, TenantQueue } from '../jobs/ports.ts';
import { Recent } from '../recent.ts';
import { durationOf } from './estimate.ts';

type Figures = MessageInitShape<typeof GetOverviewResponse_RecentRunsSchema>;

/** Jobs of one tenant that are looked at. */
const RUNS = 50;
/** Tenants that stand for all: to look at each of a thousand would keep the store from its work. */
const MOST_TENANTS = 8;
/** How old an answer may be, in milliseconds. */
const FRESH_MS = 10_000;
const KEPT = 1_000;
/** What may have run to its end; what was canceled did not. */
const RAN = [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.REFUSED];

export class RecentRuns {
  readonly #store: Pick<JobStore, 'list'>;
  readonly #now: () => number;
  readonly #known = new Recent<{ readonly atMs: number; readonly runs: Promise<readonly Timings[]> }>(KEPT);

  /** `now`: milliseconds of any clock that only rises. */
  constructor(store: Pick<JobStore, 'list'>, now: () => number = () => performance.now()) {
    this.#store = store;
    this.#now = now;
  }

  /** Of one tenant's jobs; with `queues`, of those that have the most to do too. */
  async of(tenant: string, queues: readonly TenantQueue[] = []): Promise<Figures> {
    const busiest = [...queues].sort((a, b) => b.queued + b.processing - a.queued - a.processing).map((one) => one.tenant);
    const tenants = [...new Set([tenant, ...busiest])].slice(0, MOST_TENANTS);
    return figuresOf((await Promise.all(tenants.map((one) => this.#runsOf(one)))).flat());
  }

  #runsOf(tenant: string): Promise<readonly Timings[]> {
    const known = this.#known.get(tenant);
    if (known && this.#now() - known.atMs < FRESH_MS) return known.runs;
    const runs = this.#ask(tenant);
    this.#known.set(tenant, { atMs: this.#now(), runs });
    // A store that is away is asked again by the next caller.
    runs.catch(() => this.#known.delete(tenant));
    return runs;
  }

  async #ask(tenant: string): Promise<readonly Timings[]> {
    const { jobs } = await this.#store.list({ tenant, statuses: RAN, pageSize: RUNS });
    return jobs.flatMap(({ cached, startedAt, timings }) => (cached || !startedAt || !timings ? [] : [timings]));
  }
}

function figuresOf(timings: readonly Timings[]): Figures {
  if (timings.length === 0) return { jobs: 0 };
  const waits = timings.map(({ queuedSeconds }) => queuedSeconds).sort((a, b) => a - b);
  const runs = timings.map(({ runSeconds }) => runSeconds).sort((a, b) => a - b);
  return {
    jobs: timings.length,
    medianWait: durationOf(at(waits, 0.5)),
    waitP95: durationOf(at(waits, 0.95)),
    medianRun: durationOf(at(runs, 0.5)),
  };
}

/** The least of them that so large a share does not exceed. */
function at(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)]!;
}
