// What became of jobs, as Prometheus metrics: how they ended as the job store tells it, whatever ended them, and what the stay of those on this node took. Values of labels are bounded: beyond the first ones seen, what is new is counted as
// `other`, so that no caller can make a series of its own.
import { Counter, Histogram, type Registry } from 'prom-client';

export interface EndedJob {
  /** succeeded, failed, canceled, refused; of a stay also queued: put back to be tried again. */
  readonly status: string;
  /** Why it did not succeed; empty: it did, or is only put back. */
  readonly reason: string;
  readonly cached: boolean;
}

/** A job's stay on this node, which ended it or put it back. */
export interface Stay extends EndedJob {
  /** In order. */
  readonly processors: readonly string[];
  readonly queuedSeconds: number;
  readonly prepareSeconds: number;
  readonly runSeconds: number;
  readonly storeSeconds: number;
  /** Of its last attempt on this node. */
  readonly slotSeconds: number;
  readonly slot: string;
  readonly resultBytes: number;
}

/** Seconds; from a warm picture to a long video. */
const RUN_BUCKETS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10_800];
const WAIT_BUCKETS = [0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400];
const MOST_VALUES = 64;

export class JobMetrics {
  readonly #ended;
  readonly #retried;
  readonly #wait;
  readonly #phases;
  readonly #runs;
  readonly #busy;
  readonly #bytes;
  readonly #matched;
  readonly #reasons = new Bounded(MOST_VALUES);
  readonly #pipelines = new Bounded(MOST_VALUES);

  constructor(registry: Registry) {
    const registers = [registry];
    this.#ended = new Counter({
      name: 'jobs_ended_total',
      help: 'Jobs that this process ended, by a run, a cancel, a deadline or with another job, by status, reason of the failure, and whether the result came from the cache',
      labelNames: ['status', 'reason', 'cached'],
      registers,
    });
    this.#retried = new Counter({
      name: 'job_retries_total',
      help: 'Attempts that failed on this node and are tried again, by reason',
      labelNames: ['reason'],
      registers,
    });
    this.#wait = new Histogram({
      name: 'job_queue_wait_seconds',
      help: 'From submit to the start of the engine',
      buckets: WAIT_BUCKETS,
      registers,
    });
    this.#phases = new Histogram({
      name: 'job_phase_seconds',
      help: 'Time of a job on this node by phase: prepare, run, store',
      labelNames: ['phase'],
      buckets: RUN_BUCKETS,
      registers,
    });
    this.#runs = new Histogram({
      name: 'job_run_seconds',
      help: 'Engine time of succeeded jobs by their processors in order, with + between',
      labelNames: ['processors'],
      buckets: RUN_BUCKETS,
      registers,
    });
    this.#busy = new Counter({
      name: 'slot_busy_seconds_total',
      help: 'Time that jobs held a slot; its rate is the share of time that the slot is busy',
      labelNames: ['slot'],
      registers,
    });
    this.#bytes = new Counter({
      name: 'media_bytes_total',
      help: 'Bytes of media: in, fetched for jobs; out, stored as results',
      labelNames: ['direction'],
      registers,
    });
    this.#matched = new Counter({
      name: 'cache_lookups_total',
      help: 'Prepared jobs of this node by what there was for them: hit, a kept result; join, a like run; miss, nothing',
      labelNames: ['outcome'],
      registers,
    });
  }

  ended({ status, reason, cached }: EndedJob): void {
    this.#ended.inc({ status, reason: this.#reasons.of(reason), cached: String(cached) });
  }

  stayed(job: Stay): void {
    if (job.slotSeconds > 0) this.#busy.inc({ slot: job.slot }, job.slotSeconds);
    if (job.status === 'queued') {
      if (job.reason !== '') this.#retried.inc({ reason: this.#reasons.of(job.reason) });
      return;
    }
    if (job.cached) return;
    this.#wait.observe(job.queuedSeconds);
    this.#phases.observe({ phase: 'prepare' }, job.prepareSeconds);
    if (job.status !== 'succeeded') return;
    this.#phases.observe({ phase: 'run' }, job.runSeconds);
    this.#phases.observe({ phase: 'store' }, job.storeSeconds);
    this.#runs.observe({ processors: this.#pipelines.of(job.processors.join('+')) }, job.runSeconds);
    this.#bytes.inc({ direction: 'out' }, job.resultBytes);
  }

  matched(outcome: 'hit' | 'join' | 'miss'): void {
    this.#matched.inc({ outcome });
  }

  fetched(bytes: number): void {
    this.#bytes.inc({ direction: 'in' }, bytes);
  }
}

/** The first values as they are, later ones as `other`. */
class Bounded {
  readonly #most: number;
  readonly #known = new Set<string>();

  constructor(most: number) {
    this.#most = most;
  }

  of(value: string): string {
    if (this.#known.has(value)) return value;
    if (this.#known.size >= this.#most) return 'other';
    this.#known.add(value);
    return value;
  }
}
