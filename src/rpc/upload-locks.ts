// One request at a time for an upload that comes in pieces. Always true here: a write that gets on keeps its upload, and whoever else wants it is told
// so (423); one that has stalled, as a connection does that its client has lost, gives way to the next.
import type { Lock, Locker, RequestRelease } from '@tus/server';

export interface LocksOptions {
  /** How long a request waits for the one before it, and for one that was told to give way. */
  readonly waitMs?: number;
  /** A write that has brought nothing for this long has stalled. */
  readonly stalledMs?: number;
}

interface Holder {
  readonly giveWay: RequestRelease;
  readonly released: Promise<void>;
  readonly release: () => void;
  /** When it last brought something; by the monotonic clock. */
  seenMs: number;
}

/** What @tus/server answers where an upload is another request's. */
class Locked extends Error {
  override readonly name = 'Locked';
  readonly status_code = 423;
  readonly body = 'another request is writing this upload: ask again shortly';
}

export class UploadLocks implements Locker {
  readonly #holders = new Map<string, Holder>();
  readonly #waitMs: number;
  readonly #stalledMs: number;

  constructor({ waitMs = 1000, stalledMs = 3000 }: LocksOptions = {}) {
    this.#waitMs = waitMs;
    this.#stalledMs = stalledMs;
  }

  /** The holder of `id` is getting on. */
  seen(id: string): void {
    const holder = this.#holders.get(id);
    if (holder) holder.seenMs = performance.now();
  }

  newLock(id: string): Lock {
    let mine: Holder | undefined;
    return {
      lock: async (signal, giveWay) => {
        // Of all who were told in one turn that it is free, the first has it.
        while (this.#holders.has(id)) await this.#free(id, signal);
        const { promise, resolve } = Promise.withResolvers<void>();
        mine = { giveWay, released: promise, release: resolve, seenMs: performance.now() };
        this.#holders.set(id, mine);
      },
      unlock: async () => {
        if (!mine || this.#holders.get(id) !== mine) return;
        this.#holders.delete(id);
        mine.release();
      },
    };
  }

  async #free(id: string, signal: AbortSignal): Promise<void> {
    if (!(await this.#wait(id, signal))) return;
    const holder = this.#holders.get(id);
    if (!holder) return;
    if (performance.now() - holder.seenMs < this.#stalledMs) throw new Locked();
    await holder.giveWay();
    if (await this.#wait(id, signal)) throw new Locked();
  }

  /** Until it is free, or the time is up: whether it is held still. */
  async #wait(id: string, signal: AbortSignal): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const { promise: over, resolve } = Promise.withResolvers<void>();
    const stop = () => resolve();
    let waiting = true;
    void over.then(() => {
      waiting = false;
    });
    try {
      timer = setTimeout(stop, this.#waitMs);
      signal.addEventListener('abort', stop, { once: true });
      // Another one that waited may have been quicker.
      for (let holder = this.#holders.get(id); holder && waiting && !signal.aborted; holder = this.#holders.get(id)) {
        await Promise.race([holder.released, over]);
      }
      if (signal.aborted) throw new Locked();
      return this.#holders.has(id);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    }
  }
}
