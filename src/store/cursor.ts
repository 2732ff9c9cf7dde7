// One reader of a stream that others feed. Holds no items of its own: it pulls the next one when asked, or waits to be woken. Leaving, by
// `return()`, by the signal or by an error, frees everything in the same turn, also while a `next()` is waiting; a generator could not.

/** What `take` answers at the end of the stream. */
export const END = Symbol('end');

export interface CursorSource<T> {
  /** The next item; undefined when there is none yet. */
  readonly take: () => T | undefined | typeof END;
  /** Called once, when the cursor is done for whatever reason. */
  readonly release: (cursor: Cursor<T>) => void;
}

interface Waiting<T> {
  readonly resolve: (result: IteratorResult<T, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

export class Cursor<T> implements AsyncIterableIterator<T, undefined> {
  readonly #source: CursorSource<T>;
  readonly #signal: AbortSignal;
  readonly #onAbort = () => this.#close();
  readonly #waiting: Waiting<T>[] = [];
  #closed = false;
  #error: { readonly error: unknown } | undefined;

  constructor(source: CursorSource<T>, signal: AbortSignal) {
    this.#source = source;
    this.#signal = signal;
    if (signal.aborted) this.#close();
    else signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  next(): Promise<IteratorResult<T, undefined>> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.wake();
    });
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#close();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** There may be something to take. */
  wake(): void {
    while (this.#waiting.length > 0) {
      if (this.#closed) {
        this.#settle();
        return;
      }
      let item: T | undefined | typeof END;
      try {
        item = this.#source.take();
      } catch (error) {
        this.fail(error);
        return;
      }
      if (item === undefined) return;
      if (item === END) this.#close();
      else this.#waiting.shift()!.resolve({ done: false, value: item });
    }
  }

  /** Ends the stream with an error, told once. */
  fail(error: unknown): void {
    if (this.#closed) return;
    this.#error = { error };
    this.#close();
  }

  #close(): void {
    if (!this.#closed) {
      this.#closed = true;
      this.#signal.removeEventListener('abort', this.#onAbort);
      this.#source.release(this);
    }
    this.#settle();
  }

  #settle(): void {
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      const failure = this.#error;
      this.#error = undefined;
      if (failure) reject(failure.error);
      else resolve({ done: true, value: undefined });
    }
  }
}
