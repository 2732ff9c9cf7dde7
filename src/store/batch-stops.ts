// The canceling of what is left of a batch. Always true here: that a batch is to be stopped was written first; its jobs are canceled some in each step, so that
// others have their turn in between; the mark goes when none is left, and until then every start goes on with it.
import type { JobId } from '../jobs/ports.ts';
import type { BatchTable } from './batch-table.ts';

/** Jobs that are canceled in one step. */
const AT_ONCE = 64;

export interface BatchStopsOptions {
  readonly batches: BatchTable;
  /** Runs a durable step. */
  readonly step: (run: () => void) => Promise<void>;
  /** Inside a step. */
  readonly cancel: (id: JobId, graceMs: number) => void;
  readonly failed: (error: unknown, batchId: string) => void;
}

export class BatchStops {
  readonly #options: BatchStopsOptions;
  /** Under way, by batch. */
  readonly #stops = new Map<string, Promise<void>>();

  constructor(options: BatchStopsOptions) {
    this.#options = options;
  }

  /** Goes on with what is marked. */
  stopMarked(): void {
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
    }
    return stop;
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
