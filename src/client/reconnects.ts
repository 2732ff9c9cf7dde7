// One stream over as many connections as it takes. Always true here: only a loss is mended by another connection, each waits longer than the one
// before, and one that told something begins the count anew.
import { Code, ConnectError } from '@connectrpc/connect';
import { backoffMs, isLoss, pause } from './retry.ts';

export interface Backoff {
  readonly baseMs: number;
  readonly maxMs: number;
  /** Connections in a row without an event after which it gives up. */
  readonly attempts: number;
}

export interface ResumeOptions {
  readonly signal?: AbortSignal | undefined;
  /** Default: about 45 seconds in all. */
  readonly backoff?: Backoff | undefined;
  /** The connection was lost and is tried again. */
  onLost?(error: ConnectError | undefined): void;
}

/** What a caller can do when no connection tells anything: what is watched lives in the service. */
const WAY_ON = 'what it tells of goes on; get says how it is, and watching again tells the rest';

const BACKOFF: Backoff = { baseMs: 250, maxMs: 5_000, attempts: 12 };

export class Reconnects {
  readonly signal: AbortSignal;
  readonly #options: ResumeOptions;
  #failures = 0;

  constructor(options: ResumeOptions) {
    this.#options = options;
    this.signal = options.signal ?? new AbortController().signal;
  }

  /** The connection told something. */
  told(): void {
    this.#failures = 0;
  }

  /** What ended a connection, where another one may do better; throws it where not. */
  lossOf(error: unknown): ConnectError {
    const lost = ConnectError.from(error);
    if (this.signal.aborted || !isLoss(lost)) throw error;
    return lost;
  }

  /** Until it is time for another connection; undefined: the last one ended in good order, too early. Throws after too many. */
  async pause(lost: ConnectError | undefined): Promise<void> {
    const { backoff = BACKOFF, onLost } = this.#options;
    this.#failures++;
    if (this.#failures >= backoff.attempts)
      throw (
        lost ??
        new ConnectError(
          `the service ended the stream ${backoff.attempts} times in a row before it had told all: ${WAY_ON}`,
          Code.Unavailable,
        )
      );
    onLost?.(lost);
    await pause(backoffMs(this.#failures - 1, { firstMs: backoff.baseMs, longestMs: backoff.maxMs }), this.signal);
  }
}
