// What was found out lately, bounded in number and in time. Always true: an entry is given out until its time and never after; at most
// `size` entries are held, those used last.
import { Recent } from '../recent.ts';

interface Entry<V> {
  readonly value: V;
  readonly untilMs: number;
}

export class Expiring<V> {
  readonly #entries: Recent<Entry<V>>;

  /** `size`: at least 2. */
  constructor(size: number) {
    this.#entries = new Recent(size);
  }

  get(key: string, nowMs: number): V | undefined {
    const entry = this.#entries.get(key);
    return entry && nowMs < entry.untilMs ? entry.value : undefined;
  }

  set(key: string, value: V, untilMs: number): void {
    this.#entries.set(key, { value, untilMs });
  }

  clear(): void {
    this.#entries.clear();
  }
}
