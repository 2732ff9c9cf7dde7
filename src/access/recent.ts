// What was found out lately, bounded in number and in time. Always true: an entry is given out until its time and never after; at most
// `size` entries are held, those used last. Two generations: what is asked for again moves up, and a hit in the younger one changes nothing.

interface Entry<V> {
  readonly value: V;
  readonly untilMs: number;
}

export class Recent<V> {
  readonly #half: number;
  #young = new Map<string, Entry<V>>();
  #old = new Map<string, Entry<V>>();

  /** `size`: at least 2. */
  constructor(size: number) {
    this.#half = Math.max(1, size >> 1);
  }

  get(key: string, nowMs: number): V | undefined {
    let entry = this.#young.get(key);
    if (!entry) {
      entry = this.#old.get(key);
      if (!entry) return undefined;
      if (nowMs < entry.untilMs) this.#put(key, entry);
    }
    return nowMs < entry.untilMs ? entry.value : undefined;
  }

  set(key: string, value: V, untilMs: number): void {
    this.#put(key, { value, untilMs });
  }

  clear(): void {
    this.#young = new Map();
    this.#old = new Map();
  }

  #put(key: string, entry: Entry<V>): void {
    if (this.#young.size >= this.#half && !this.#young.has(key)) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#old.delete(key);
    this.#young.set(key, entry);
  }
}
