// Watching the jobs that match a filter. The cursor is a number: every change of a job gives its row the next number of one store-wide
// order, so a watcher that comes back, or is slow, reads the latest state of what changed and nothing twice.
import type { JobChange, JobFilter, JobId } from '../jobs/ports.ts';
import { Cursor, END } from './cursor.ts';
import { hasEnded, inScope, inState, mayHaveBeenInState } from './job-filter.ts';
import type { JobTable, StoredJob } from './job-table.ts';
import type { Tokens } from './tokens.ts';

const PAGE = 64;
/** Rows looked at in one turn of the event loop when none of them matches. */
const SCAN = 512;
/** Changes that come closer together than this are told together. */
const COALESCE_MS = 20;

export interface JobChangesOptions {
  readonly table: JobTable;
  readonly tokens: Tokens;
  readonly present: (stored: StoredJob) => JobChange['job'];
  /** How much of a job is committed and may not be told yet. */
  readonly untold: (jobId: JobId) => number;
}

export class JobChanges {
  readonly #options: JobChangesOptions;
  readonly #cursors = new Set<Cursor<JobChange>>();
  #timer: NodeJS.Timeout | undefined;
  #lastWake = 0;

  constructor(options: JobChangesOptions) {
    this.#options = options;
  }

  /** The token of what is committed now. */
  token(): string {
    return this.#options.tokens.seal('watch', [this.#options.table.lastChange]);
  }

  /** There may be something to tell. */
  changed(): void {
    if (this.#cursors.size === 0 || this.#timer) return;
    const wait = Math.max(0, this.#lastWake + COALESCE_MS - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#lastWake = performance.now();
      for (const cursor of this.#cursors) cursor.wake();
    }, wait);
    this.#timer.unref();
  }

  /** See `JobStore.watchJobs`. The place is taken now, not when the iteration begins. `isOver`: nothing follows what there is; then the stream ends. */
  watch(filter: JobFilter, token: string | undefined, signal: AbortSignal, isOver?: () => boolean): AsyncIterable<JobChange> {
    const { table, tokens } = this.#options;
    const now = table.lastChange;
    const asked = token === undefined ? now : tokens.open('watch', token)?.[0];
    const known = asked !== undefined && asked <= now ? asked : undefined;
    return {
      [Symbol.asyncIterator]: () => {
        const watcher = new Watcher(this.#options, filter, known ?? now, known === undefined, isOver);
        const cursor: Cursor<JobChange> = new Cursor(
          { take: () => watcher.take(() => cursor.wake()), release: (left) => this.#cursors.delete(left) },
          signal,
        );
        if (!signal.aborted) this.#cursors.add(cursor);
        return cursor;
      },
    };
  }

  /** Ends every watcher with an error. */
  fail(error: unknown): void {
    clearTimeout(this.#timer);
    for (const cursor of [...this.#cursors]) cursor.fail(error);
  }
}

class Watcher {
  readonly #options: JobChangesOptions;
  readonly #filter: JobFilter;
  /** Whether a job that has not ended matched when it was last looked at. Only for filters that a job can enter and leave. */
  readonly #matched = new Map<number, boolean>();
  #page: StoredJob[] = [];
  #at: number;
  #reset: boolean;
  readonly #isOver: () => boolean;

  constructor(options: JobChangesOptions, filter: JobFilter, at: number, reset: boolean, isOver = () => false) {
    this.#options = options;
    this.#filter = filter;
    this.#at = at;
    this.#reset = reset;
    this.#isOver = isOver;
  }

  take(again: () => void): JobChange | undefined | typeof END {
    const { table, tokens, present, untold } = this.#options;
    if (this.#reset) {
      this.#reset = false;
      return { job: undefined, watchToken: tokens.seal('watch', [this.#at]), reset: true, matches: true };
    }
    for (let looked = 0; looked < SCAN; looked++) {
      if (this.#page.length === 0) this.#page = table.changedAfter(this.#at, PAGE);
      const stored = this.#page[0];
      if (!stored) return this.#isOver() ? END : undefined;
      if (untold(stored.job.jobId) > 0) return undefined;
      this.#page.shift();
      this.#at = stored.change;
      // Changed again since the page was read: it comes later, as it is then.
      if (table.get(stored.job.jobId)?.change !== stored.change) continue;
      const matches = this.#look(stored);
      if (matches === undefined) continue;
      return { job: present(stored), watchToken: tokens.seal('watch', [this.#at]), reset: false, matches };
    }
    setImmediate(again);
    return undefined;
  }

  /** Whether the job matches; undefined: it is none of this watcher's. */
  #look(stored: StoredJob): boolean | undefined {
    if (!inScope(stored, this.#filter)) return undefined;
    if (!this.#filter.statuses?.length && this.#filter.errorReason === undefined) return true;
    const matches = inState(stored, this.#filter);
    const before = this.#matched.get(stored.num) ?? mayHaveBeenInState(stored, this.#filter);
    if (hasEnded(stored)) this.#matched.delete(stored.num);
    else this.#matched.set(stored.num, matches);
    return matches || before ? matches : undefined;
  }
}
