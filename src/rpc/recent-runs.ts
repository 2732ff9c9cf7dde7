// How long the last jobs waited and ran. Always true here: however many ask, the store is asked once in a while for each of whom they may see.
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { GetOverviewResponse_RecentRunsSchema } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { type Job, JobStatus } from '../jobs/job.ts';
import type { JobStore } from '../jobs/ports.ts';
import { Recent } from '../recent.ts';
import { durationOf } from './estimate.ts';

type Figures = MessageInitShape<typeof GetOverviewResponse_RecentRunsSchema>;

/** Jobs that are looked at. */
const RUNS = 100;
/** How old an answer may be, in milliseconds. */
const FRESH_MS = 10_000;
const MOST_TENANTS = 1_000;
/** What may have run to its end; what was canceled did not. */
const RAN = [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.REFUSED];

export class RecentRuns {
  readonly #store: Pick<JobStore, 'list'>;
  readonly #now: () => number;
  readonly #known = new Recent<{ readonly atMs: number; readonly figures: Promise<Figures> }>(MOST_TENANTS);

  /** `now`: milliseconds of any clock that only rises. */
  constructor(store: Pick<JobStore, 'list'>, now: () => number = () => performance.now()) {
    this.#store = store;
    this.#now = now;
  }

  /** Of one tenant; undefined: of all. */
  of(tenant: string | undefined): Promise<Figures> {
    // No tenant's name begins so.
    const name = tenant ?? '*';
    const known = this.#known.get(name);
    if (known && this.#now() - known.atMs < FRESH_MS) return known.figures;
    const figures = this.#ask(tenant);
    this.#known.set(name, { atMs: this.#now(), figures });
    // A store that is away is asked again by the next caller.
    figures.catch(() => this.#known.delete(name));
    return figures;
  }

  async #ask(tenant: string | undefined): Promise<Figures> {
    const { jobs } = await this.#store.list({ ...(tenant !== undefined && { tenant }), statuses: RAN, pageSize: RUNS });
    return figuresOf(jobs);
  }
}

function figuresOf(jobs: readonly Job[]): Figures {
  const timings = jobs.flatMap(({ cached, startedAt, timings }) => (cached || !startedAt || !timings ? [] : [timings]));
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
