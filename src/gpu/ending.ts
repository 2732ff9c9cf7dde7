// The end of a lease. Always true: it ends by one terminal step, made after everything that was said and tried until the store takes it, because the job would
// else stay with a node that does nothing for it any more; one that no step has ended when it is let go is given back.
import { setTimeout as delay } from 'node:timers/promises';
import type { Timings } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { isPassing, JobsError } from '../jobs/errors.ts';
import { type Failure, type Job, JobStatus, type WaitReason } from '../jobs/job.ts';
import type { Done, Lease } from '../jobs/ports.ts';
import type { Account } from './account.ts';
import type { Logger } from './process.ts';
import type { Reporter } from './report.ts';

export interface EndingOptions {
  /** Before an end that the store did not take is written again; thrice that after each further try, up to twenty times. */
  readonly writeRetryMs?: number;
  /** Told of each job that this node has ended or put back, as its caller now sees it, with the times of this attempt alone. */
  readonly observe?: (job: Job, attempt: { readonly slot: string | undefined; readonly timings: Timings }) => void;
  readonly logger: Logger;
}

/** The stay whose lease it is. */
export interface Ended {
  readonly lease: Lease;
  readonly reporter: Reporter;
  readonly account: Account;
  /** The slot that it had; undefined: none. */
  readonly slot: () => string | undefined;
  /** Another has the job, and nothing more is written. */
  readonly isLost: () => boolean;
  /** Monotonic time after which a store that does not answer is not waited for. */
  readonly deadline: () => number;
}

const WRITE_TRIES = 5;
const WRITE_RETRY_MS = 150;

export class Ending {
  readonly #stay: Ended;
  readonly #options: EndingOptions;

  constructor(stay: Ended, options: EndingOptions) {
    this.#stay = stay;
    this.#options = options;
  }

  complete(done: Omit<Done, 'timings'>): Promise<void> {
    return this.#conclude((lease, timings) => lease.complete({ ...done, timings }));
  }

  /** `ofRun`: it is the engine's word on what it was given. */
  fail(failure: Failure, { killedWorker = false, ofRun = false } = {}): Promise<void> {
    return this.#conclude((lease, timings) => lease.fail({ ...failure, killedWorker, ofRun, timings }));
  }

  refuse(failure: Failure): Promise<void> {
    return this.#conclude((lease, timings) => lease.refuse(failure, timings));
  }

  canceled(): Promise<void> {
    return this.#conclude((lease, timings) => lease.canceled(timings));
  }

  giveBack(wait: WaitReason): Promise<void> {
    return this.#conclude((lease, timings) => lease.giveBack(wait, timings));
  }

  /** Whatever has ended it, or nothing has. Throws where the store does not take it. */
  async letGo(): Promise<void> {
    await this.#write(() => this.#stay.lease[Symbol.asyncDispose]());
  }

  async #conclude(step: (lease: Lease, timings: Timings) => Promise<Job>): Promise<void> {
    const { lease, reporter, account } = this.#stay;
    reporter.finish();
    this.#tell(await this.#write(() => step(lease, account.timings)));
  }

  /** A store that is full or away is tried until a drain's time is up. Other errors are defects, and are given up on. */
  async #write<T>(write: () => PromiseLike<T>): Promise<T> {
    const { lease, isLost, deadline } = this.#stay;
    const { writeRetryMs: first = WRITE_RETRY_MS, logger } = this.#options;
    const { jobId } = lease.job;
    for (let tried = 1; ; tried++) {
      try {
        return await write();
      } catch (error) {
        const again = tried < WRITE_TRIES || (isPassing(error) && performance.now() < deadline());
        if (isLeaseLost(error) || isLost() || !again) throw error;
        logger.warn({ jobId, err: error, tried }, `the end of ${jobId} could not be written; trying again`);
        await delay(Math.min(first * 3 ** (tried - 1), 20 * first));
      }
    }
  }

  /** What an operator reads of a job: how it ended, or why it is tried again. One that is merely put back is not worth a line. */
  #tell(job: Job): void {
    const { account, slot: slotOf } = this.#stay;
    const { logger, observe } = this.#options;
    const { jobId, status, attempt, slot, error } = job;
    observe?.(job, { slot: slotOf(), timings: account.timings });
    account.concluded(job);
    const facts = { jobId, trace_id: account.traceId, attempt, slot, reason: error?.reason, problem: error?.message };
    if (status === JobStatus.FAILED) logger.warn(facts, `${jobId} failed`);
    else if (status !== JobStatus.QUEUED) logger.info(facts, `${jobId} ${JobStatus[status].toLowerCase()}`);
    else if (error) logger.warn(facts, `${jobId} is tried again`);
    else logger.debug(facts, `${jobId} is put back in the queue`);
  }
}

/** Another has the job, or nobody. */
export function isLeaseLost(error: unknown): boolean {
  return error instanceof JobsError && error.reason === 'LEASE_LOST';
}
