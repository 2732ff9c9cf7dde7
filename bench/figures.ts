// Figures and their verdicts: pure arithmetic, no clock, no process. A row is what a reader sees and what --json writes, the same object.

export type Verdict = 'ok' | 'short' | 'no target' | 'not run';

export type Target =
  | { readonly kind: 'at most'; readonly value: number }
  | { readonly kind: 'at least'; readonly value: number }
  /** The figure over the peer's. */
  | { readonly kind: 'at least times peer'; readonly value: number }
  | { readonly kind: 'at most times peer'; readonly value: number };

export interface Row {
  readonly group: string;
  /** Stable from run to run: comparisons over time are made by it. */
  readonly name: string;
  readonly figure: number | null;
  readonly unit: string;
  /** The peer's figure in the same unit, and who the peer is; `quoted`: not measured in this run. */
  readonly peer: { readonly name: string; readonly figure: number; readonly quoted: boolean } | null;
  /** Figure over the peer's figure, whichever of them is better. */
  readonly ratio: number | null;
  readonly target: string | null;
  readonly verdict: Verdict;
  readonly note: string | null;
}

export interface Measured {
  readonly name: string;
  readonly figure: number;
  readonly unit: string;
  readonly peer?: { readonly name: string; readonly figure: number; readonly quoted?: boolean };
  readonly target?: Target;
  readonly note?: string;
}

/** A row with its ratio and verdict worked out. A target over a peer that is not there cannot be judged: `not run`. */
export function rowOf(group: string, measured: Measured): Row {
  const { name, figure, unit, peer, target, note } = measured;
  const ratio = peer && peer.figure > 0 ? figure / peer.figure : null;
  return {
    group,
    name,
    figure,
    unit,
    peer: peer ? { name: peer.name, figure: peer.figure, quoted: peer.quoted ?? false } : null,
    ratio,
    target: target ? targetText(target, unit) : null,
    verdict: target ? verdictOf(target, figure, ratio) : 'no target',
    note: note ?? null,
  };
}

/** A row that says in words why there is no figure. */
export function notRun(group: string, name: string, why: string): Row {
  return { group, name, figure: null, unit: '', peer: null, ratio: null, target: null, verdict: 'not run', note: why };
}

function verdictOf(target: Target, figure: number, ratio: number | null): Verdict {
  const judged = target.kind.endsWith('times peer') ? ratio : figure;
  if (judged === null || Number.isNaN(judged)) return 'not run';
  const held = target.kind.startsWith('at most') ? judged <= target.value : judged >= target.value;
  return held ? 'ok' : 'short';
}

function targetText(target: Target, unit: string): string {
  const sign = target.kind.startsWith('at most') ? '<=' : '>=';
  return target.kind.endsWith('times peer') ? `${sign} ${target.value} x peer` : `${sign} ${target.value} ${unit}`;
}

/** The nearest-rank percentile: the least value that at least `percent` of all values do not exceed. NaN of nothing. */
export function percentile(values: ArrayLike<number>, percent: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)]!;
}

/** The middle value; between two middle ones, their mean. NaN of nothing. */
export function median(values: ArrayLike<number>): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/**
 * Runs every contestant once a round, in turned order from round to round (A B, B A, ...), so that a machine that slows down or speeds up
 * does so for all of them alike. What is compared is then the median over the rounds.
 */
export async function interleaved<K extends string, T>(
  rounds: number,
  contestants: Readonly<Record<K, () => Promise<T>>>,
): Promise<Record<K, T[]>> {
  const names = Object.keys(contestants) as K[];
  const results = Object.fromEntries(names.map((name) => [name, [] as T[]])) as Record<K, T[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) results[name].push(await contestants[name]());
  }
  return results;
}
