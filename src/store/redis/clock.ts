// The store's clock as this process knows it: what Redis last said, carried on by the monotonic clock. Never goes back by a little, and follows a
// jump of the server's clock.

const JUMP_MS = 5_000;

export class StoreClock {
  #offset = 0;
  #uncertainty = Number.POSITIVE_INFINITY;
  #learnedAt = 0;
  #last = 0;

  /** `serverMs` was said between two moments of `performance.now()`. */
  learn(serverMs: number, sent: number, received: number): void {
    const uncertainty = (received - sent) / 2;
    const offset = serverMs + 0.5 - (sent + received) / 2;
    const jumped = Math.abs(offset - this.#offset) > JUMP_MS;
    // An answer that was long under way says less than an older quick one; but not for ever.
    if (!jumped && uncertainty > this.#uncertainty + (received - this.#learnedAt) / 1000) return;
    this.#offset = offset;
    this.#uncertainty = uncertainty;
    this.#learnedAt = received;
    if (jumped) this.#last = 0;
  }

  /** Milliseconds since 1970. */
  now(): number {
    this.#last = Math.max(this.#last, Math.floor(performance.now() + this.#offset));
    return this.#last;
  }
}
