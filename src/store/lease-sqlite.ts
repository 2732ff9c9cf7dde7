// A lease on a job in SQLite, and the writes made through it. Always true here: each is one step of the store, in the order of the calls, and fenced by it; the
// highest percent of the attempt is the lease's own.
import type { Log, Preview, Progress } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { EngineInfo, Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobsError } from '../jobs/errors.ts';
import { type Failure, type Job, WaitReason } from '../jobs/job.ts';
import { type Done, type Failed, type JobId, type Lease, LeaseEnded, type Match, type Matched, type Rank } from '../jobs/ports.ts';
import type { JobSteps } from './job-steps.ts';
import type { StoredJob } from './job-table.ts';

/** What a lease's write makes of its job. */
export type LeaseRun = (steps: JobSteps, stored: StoredJob) => StoredJob;

export interface LeaseHost {
  /** Whether the lease has not ended and is not lost. */
  holds(lease: SqliteLease): boolean;
  /** A lease's write; `ends`: its last one. Fenced when the step runs, not when it is asked for. */
  step(lease: SqliteLease, kind: { readonly durable: boolean; readonly ends: boolean | (() => boolean) }, run: LeaseRun): Promise<Job>;
  /** A reference in memory to a blob that a lease has yet to look for; answers how to let go, or what has to be waited for. */
  holdBlob(lease: SqliteLease, key: string): (() => void) | Promise<void>;
  preview(jobId: JobId, preview: Preview): void;
}

const PASSING = { durable: false, ends: false };
const LASTING = { durable: true, ends: false };
const LAST = { durable: true, ends: true };

export class SqliteLease implements Lease {
  job: Job;
  readonly rank: Rank;
  readonly maxAttempts: number;
  readonly startDeadlineMs: number | undefined;
  readonly inputs: ReadonlyMap<JobId, string>;
  readonly #host: LeaseHost;
  readonly #abort = new AbortController();
  /** Blobs held in memory, and how to let each go. */
  readonly #blobs = new Map<string, () => void>();
  /** Highest percent of the attempt. */
  #percent = 0;

  constructor(host: LeaseHost, stored: StoredJob, rank: Rank, inputs: ReadonlyMap<JobId, string>) {
    this.#host = host;
    this.inputs = inputs;
    this.job = stored.job;
    this.rank = rank;
    this.maxAttempts = stored.maxAttempts;
    this.startDeadlineMs = stored.deadlineMs;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** For the store: tells the holder. */
  end(why: 'cancel_requested' | 'closed'): void {
    this.#abort.abort(new LeaseEnded(this.job.jobId, why));
  }

  async match(want: Match): Promise<Matched> {
    let matched: Matched | undefined;
    const kind = { durable: false, ends: () => matched?.kind === 'joined' };
    await this.#host.step(this, kind, (steps, stored) => {
      const found = steps.match(stored, want);
      matched = found.matched;
      return found.stored;
    });
    return matched!;
  }

  begin(run: { readonly slot: string; readonly engine: EngineInfo | undefined }): Promise<Job> {
    return this.#host.step(this, PASSING, (steps, stored) => {
      const next = steps.begin(stored, run);
      this.#percent = 0;
      return next;
    });
  }

  async progress(progress: Progress): Promise<void> {
    await this.#host.step(this, PASSING, (steps, stored) => {
      this.#percent = Math.max(this.#percent, Math.min(100, progress.percent));
      return steps.progress(stored, { ...progress, percent: this.#percent });
    });
  }

  async log(log: Log): Promise<void> {
    await this.#host.step(this, PASSING, (steps, stored) => steps.log(stored, log));
  }

  preview(preview: Preview): void {
    this.#host.preview(this.job.jobId, preview);
  }

  async warn(warnings: readonly string[]): Promise<void> {
    await this.#host.step(this, PASSING, (steps, stored) => steps.warn(stored, warnings));
  }

  async pin(key: string, lasting = true): Promise<void> {
    if (!lasting) return await this.#hold(key);
    for (let deletion: Promise<void> | undefined; ; await deletion) {
      deletion = undefined;
      await this.#host.step(this, LASTING, (steps, stored) => {
        const next = steps.pin(stored, key);
        if (!(next instanceof Promise)) return next;
        deletion = next;
        return stored;
      });
      if (!deletion) return;
    }
  }

  async #hold(key: string): Promise<void> {
    if (this.#blobs.has(key)) return;
    for (;;) {
      const held = this.#host.holdBlob(this, key);
      if (typeof held === 'function') {
        this.#blobs.set(key, held);
        return;
      }
      await held;
    }
  }

  /** For the store: the lease is over, and what it held in memory is nobody's. */
  letGo(): void {
    for (const letGo of this.#blobs.values()) letGo();
    this.#blobs.clear();
  }

  complete(done: Done): Promise<Job> {
    return this.#host.step(this, LAST, (steps, stored) => steps.complete(stored, done));
  }

  fail(failure: Failed): Promise<Job> {
    return this.#host.step(this, LAST, (steps, stored) => steps.fail(stored, failure));
  }

  refuse(failure: Failure, timings?: Timings): Promise<Job> {
    return this.#host.step(this, LAST, (steps, stored) => steps.refuse(stored, failure, timings));
  }

  canceled(timings?: Timings): Promise<Job> {
    return this.#host.step(this, LAST, (steps, stored) => steps.stopped(stored, timings));
  }

  giveBack(wait: WaitReason, timings?: Timings): Promise<Job> {
    return this.#host.step(this, LAST, (steps, stored) => steps.giveBack(stored, wait, timings));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#host.holds(this)) return;
    try {
      await this.giveBack(WaitReason.SLOT);
    } catch (error) {
      // Ended already, or the store is closing and will find the job at the next start.
      if (!(error instanceof JobsError && (error.reason === 'LEASE_LOST' || error.reason === 'SHUTTING_DOWN'))) throw error;
    }
  }
}
