// A result on its way to where it is kept. Always true: it is tried again while a further try may mend what was in the way, and thrown away by `signal` alone; a
// store that never takes it is told as the job's failure, not thrown.
import { setTimeout as delay } from 'node:timers/promises';
import { isPassing, JobsError } from '../jobs/errors.ts';
import type { Failure, MediaResult } from '../jobs/job.ts';
import type { Logger } from './process.ts';

export interface StoringOptions {
  /** Before the second try; four times that before the third one, and so on, up to twenty times. */
  readonly storeRetryMs?: number;
  /** How long a result is kept for a store that is full or away, in milliseconds; then the job fails. Other errors are tried three times. */
  readonly storePatienceMs?: number;
  readonly logger: Logger;
}

export interface Stored {
  readonly jobId: string;
  /** Monotonic time since when it waits. */
  readonly since: number;
  readonly signal: AbortSignal;
  /** Monotonic time after which a store that does not answer is not waited for. */
  readonly deadline: () => number;
}

const TRIES = 3;
const RETRY_MS = 500;

/** What the store says of it, or why it would not take it; undefined: `signal` aborted. */
export async function storePatiently(
  store: () => Promise<MediaResult | Failure>,
  { jobId, since, signal, deadline }: Stored,
  { storeRetryMs: first = RETRY_MS, storePatienceMs = 0, logger }: StoringOptions,
): Promise<MediaResult | Failure | undefined> {
  for (let tried = 1; ; tried++) {
    try {
      return await store();
    } catch (error) {
      if (signal.aborted) return undefined;
      const patience = isPassing(error) && performance.now() < deadline() ? storePatienceMs : 0;
      const last = tried >= TRIES && performance.now() - since >= patience;
      logger[last ? 'error' : 'warn']({ jobId, err: error, tried }, `the result of ${jobId} could not be stored`);
      const why = error instanceof JobsError ? error.message : 'the log of the service says why, under the id of this job';
      if (last) return { reason: 'RESULT_NOT_STORED', message: `the result could not be stored: ${why}`, retryable: true };
      await delay(Math.min(first * 4 ** (tried - 1), 20 * first), undefined, { signal }).catch(() => {});
      if (signal.aborted) return undefined;
    }
  }
}
