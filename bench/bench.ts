// What a group of benches is and what it is given. A group answers rows one by one, as it has them.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Row } from './figures.ts';

export interface Bench {
  /** A smoke run: every path is walked, no figure means anything, nothing is installed. */
  readonly quick: boolean;
  /** `full`, or `quick` in a smoke run. */
  pick<T>(full: T, quick: T): T;
  /** A fresh folder, removed after the group. */
  folder(): string;
  /** What is going on, for a person who waits. */
  say(text: string): void;
}

export interface Group {
  readonly name: string;
  readonly about: string;
  run(bench: Bench): AsyncIterable<Row>;
}

export function createBench(quick: boolean, say: (text: string) => void): Bench & Disposable {
  const home = mkdtempSync(join(tmpdir(), 'ffjobs-bench-'));
  const remove = () => rmSync(home, { recursive: true, force: true, maxRetries: 5 });
  process.once('exit', remove); // Ctrl-C in the middle of a group
  return {
    quick,
    pick: (full, small) => (quick ? small : full),
    folder: () => mkdtempSync(join(home, 'data-')),
    say,
    [Symbol.dispose]() {
      process.off('exit', remove);
      remove();
    },
  };
}
