// Lets go what has had its time: results, then the jobs themselves, then the blobs that nobody refers to any more. Owns the timer and nothing else: what
// is due and what is referred to is the job store's knowledge, so a sweep that a crash interrupts goes on with the next one.
import { setTimeout as delay } from 'node:timers/promises';
import type { BlobStore, JobStore } from '../jobs/ports.ts';

export interface RetentionOptions {
  readonly store: Pick<JobStore, 'expire' | 'reclaim'>;
  readonly blobs: Pick<BlobStore, 'delete'>;
  /** From a job's end until it is forgotten, in milliseconds. */
  readonly jobTtlMs: number;
  /** Between two sweeps, in milliseconds. */
  readonly everyMs?: number;
  /** Told of a sweep that failed; the next one makes up for it. */
  readonly onError: (error: unknown) => void;
  /** Told of what went, when something did. */
  readonly onSwept?: (swept: { readonly purged: number; readonly forgotten: number }) => void;
}

const EVERY_MS = 30_000;
/** Jobs in one step of the store, which nothing else can write meanwhile. */
const BATCH = 50;
/** Between two steps, so that a long sweep takes no more than a part of the store's time. */
const PAUSE_MS = 5;

export class Retention implements AsyncDisposable {
  readonly #options: RetentionOptions;
  readonly #closing = new AbortController();
  readonly #running: Promise<void>;

  /** Sweeps at once, and then every so often. */
  constructor(options: RetentionOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /** Deletes the blobs that nobody refers to now. Never rejects: what cannot be deleted now is with a later sweep. */
  async reclaim(): Promise<void> {
    const { store, blobs, onError } = this.#options;
    await store.reclaim((key) => blobs.delete(key)).catch(onError);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.#sweep().catch((error: unknown) => {
        if (!signal.aborted) this.#options.onError(error);
      });
      await delay(this.#options.everyMs ?? EVERY_MS, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  async #sweep(): Promise<void> {
    const { store, jobTtlMs, onSwept } = this.#options;
    const { signal } = this.#closing;
    const swept = { purged: 0, forgotten: 0 };
    try {
      for (let more = true; more && !signal.aborted; ) {
        const step = await store.expire({ jobTtlMs, max: BATCH });
        swept.purged += step.purged;
        swept.forgotten += step.forgotten;
        ({ more } = step);
        if (more) await delay(PAUSE_MS, undefined, { signal }).catch(() => {});
      }
    } finally {
      if (swept.purged + swept.forgotten > 0) onSwept?.(swept);
    }
    if (!signal.aborted) await this.reclaim();
  }
}
