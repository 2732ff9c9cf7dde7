// How much room a disk has left, and whether that is enough to take something new in. One definition for uploads and for jobs: admission closes while
// what runs can still end, and before a write has to fail.
import { statfs } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { JobsError } from '../jobs/errors.ts';

export interface FreeSpaceOptions {
  /** A folder that is there. */
  readonly dir: string;
  /** Room that is left to others. */
  readonly minFreeBytes: number;
  /** Bytes that its volume has left for this user. */
  readonly freeBytes?: (dir: string) => Promise<number>;
  /** Between two looks of one who waits, in milliseconds. */
  readonly everyMs?: number;
}

/** A figure is good for so long, for those who bring no bytes of their own: many submits in a moment look once. */
const FRESH_MS = 500;
const EVERY_MS = 2_000;

export class FreeSpace {
  readonly #options: FreeSpaceOptions;
  #free: Promise<number> | undefined;
  #readMs = Number.NEGATIVE_INFINITY;

  constructor(options: FreeSpaceOptions) {
    this.#options = options;
  }

  /** Bytes that are left now. */
  left(): Promise<number> {
    return this.#read(false);
  }

  /** Throws STORAGE_FULL where `bytes` more would leave less than is to be left. `what`: the disk, as its user knows it. */
  async check(bytes: number, what: string): Promise<void> {
    const { minFreeBytes } = this.#options;
    if (minFreeBytes === 0 && bytes === 0) return;
    const free = await this.#read(bytes > 0);
    if (free - bytes >= minFreeBytes) return;
    throw new JobsError('exhausted', 'STORAGE_FULL', `${what} is nearly full: ${free} bytes are left; try again later`, {
      retryAfterSeconds: 30,
      metadata: { free_bytes: String(free), kept_free_bytes: String(minFreeBytes) },
    });
  }

  /** Waits until there is room; throws STORAGE_FULL when there is none after `patienceMs`, or with the signal's reason. */
  async wait(what: string, patienceMs: number, signal: AbortSignal): Promise<void> {
    for (const until = performance.now() + patienceMs; ; ) {
      try {
        return await this.check(0, what);
      } catch (error) {
        if (performance.now() >= until) throw error;
        await delay(this.#options.everyMs ?? EVERY_MS, undefined, { signal });
      }
    }
  }

  #read(anew: boolean): Promise<number> {
    const now = performance.now();
    if (this.#free === undefined || anew || now - this.#readMs > FRESH_MS) {
      const { dir, freeBytes = freeOf } = this.#options;
      this.#free = freeBytes(dir);
      this.#readMs = now;
    }
    return this.#free;
  }
}

async function freeOf(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}
