// Chance that can be had again: everything that a round decides comes from its seed.

export interface Random {
  /** In [0, 1). */
  next(): number;
  /** Whole, from `low` to `high`. */
  int(low: number, high: number): number;
  chance(of: number): boolean;
  pick<T>(from: readonly T[]): T;
  /** By weight. */
  weighted<T>(from: readonly (readonly [T, number])[]): T;
}

/** mulberry32: small, and even enough to choose faults by. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const pick = <T>(from: readonly T[]) => from[Math.floor(next() * from.length)]!;
  return {
    next,
    int: (low, high) => low + Math.floor(next() * (high - low + 1)),
    chance: (of) => next() < of,
    pick,
    weighted(from) {
      let left = next() * from.reduce((sum, [, weight]) => sum + weight, 0);
      for (const [one, weight] of from) {
        left -= weight;
        if (left < 0) return one;
      }
      return from.at(-1)![0];
    },
  };
}
