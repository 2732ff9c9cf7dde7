// The canceling of what is left of a batch. Always true here: that a batch is to be stopped was written first; its jobs are canceled some in each step, so that
// others have their turn in between; the mark goes when none is left, and until then it is gone on with, after a failure in a few seconds and after an end of the
// process at the next start.
import type { JobId } from '../jobs/ports.ts';
import type { BatchTable } from './batch-table.ts';

/** Jobs that are canceled in one step. */
const AT_ONCE = 64;
/** After a step that failed: a disk that was full has room again, or not yet. */
const AGAIN_MS = 5_000;

export interface BatchStopsOptions {
  readonly batches: BatchTable;
  /** Runs a durable step. */
  readonly step: (run: () => void) => Promise<void>;
  /** Inside a step. */
  readonly cancel: (id: JobId, graceMs: number) => void;
  readonly failed: (error: unknown, batchId: string) => void;
}

export class BatchStops implements Disposable {
  readonly #options: BatchStopsOptions;
  /** Under way, by batch. */
  readonly #stops = new Map<string, Promise<void>>();
  #again: NodeJS.Timeout | undefined;
  #ended = false;

  constructor(options: BatchStopsOptions) {
    this.#options = options;
  }

  /** Goes on with what is marked. */
  stopMarked(): void {
    if (this.#ended) return;
    for (const { batchId, graceMs } of this.#options.batches.stopping()) {
      this.stop(batchId, graceMs).catch((error) => this.#options.failed(error, batchId));
    }
  }

  /** Answers when none of its jobs is left. */
  stop(batchId: string, graceMs: number): Promise<void> {
    let stop = this.#stops.get(batchId);
    if (!stop) {
      stop = this.#cancelAll(batchId, graceMs).finally(() => this.#stops.delete(batchId));
      this.#stops.set(batchId, stop);
      stop.catch(() => this.#stopLater());
    }
    return stop;
  }

  /** Nothing is begun any more. */
  [Symbol.dispose](): void {
    this.#ended = true;
    clearTimeout(this.#again);
  }

  #stopLater(): void {
    if (this.#ended) return;
    this.#again ??= setTimeout(() => {
      this.#again = undefined;
      this.stopMarked();
    }, AGAIN_MS).unref();
  }

  async #cancelAll(batchId: string, graceMs: number): Promise<void> {
    const { batches, step, cancel } = this.#options;
    const left = batches.unended(batchId);
    while (left.length > 0) {
      const some = left.splice(0, AT_ONCE);
      await step(() => {
        for (const id of some) cancel(id, graceMs);
      });
    }
    await step(() => batches.stopped(batchId));
  }
}
