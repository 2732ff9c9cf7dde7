// Watching the jobs that match a filter, in Redis. The cursor is a number: every change of a job gives it the next number of one order of the
// whole fleet, so a watcher that comes back, to whichever node, or is slow, reads the latest state of what changed and nothing twice.
import type { Job } from '../../jobs/job.ts';
import type { JobChange, JobFilter, JobId } from '../../jobs/ports.ts';
import { Cursor, END } from '../cursor.ts';
import { hasEnded, inScope, inState, mayHaveBeenInState } from '../job-filter.ts';
import type { Tokens } from '../tokens.ts';
import type { RedisJob } from './record.ts';

/** Changes that come closer together than this are told together. */
const COALESCE_MS = 20;
export const CHANGES_PAGE = 64;

export interface NumberedChange {
  readonly change: number;
  readonly stored: RedisJob;
  readonly shown: Job;
}

export interface JobChangesOptions {
  /** Number of the latest change. */
  readonly latest: () => Promise<number>;
  /** Changes after a number, `CHANGES_PAGE` at most. */
  readonly after: (change: number) => Promise<readonly NumberedChange[]>;
  readonly tokens: Tokens;
  /** Called with the first watcher, and when the last one has left. */
  readonly listen: () => Promise<void>;
  readonly forget: () => void;
}

export class RedisChanges {
  readonly #options: JobChangesOptions;
  readonly #watchers = new Map<Cursor<JobChange>, Watcher>();
  #timer: NodeJS.Timeout | undefined;
  #lastWake = 0;
  #listening: Promise<void> | undefined;

  constructor(options: JobChangesOptions) {
    this.#options = options;
  }

  /** Something may have changed. */
  changed(): void {
    if (this.#watchers.size === 0 || this.#timer) return;
    const wait = Math.max(0, this.#lastWake + COALESCE_MS - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#lastWake = performance.now();
      for (const [cursor, watcher] of [...this.#watchers]) {
        watcher.stale = true;
        cursor.wake();
      }
    }, wait);
    this.#timer.unref();
  }

  /** See `JobStore.watchJobs`. The place is taken now, not when the iteration begins. `isOver`: nothing follows what there is; then the stream ends. */
  watch(filter: JobFilter, token: string | undefined, signal: AbortSignal, isOver?: () => Promise<boolean>): AsyncIterable<JobChange> {
    const { latest, tokens } = this.#options;
    const place = latest().then((now) => {
      const asked = token === undefined ? now : tokens.open('watch', token)?.[0];
      const known = asked !== undefined && asked <= now;
      return { at: known ? asked : now, reset: !known };
    });
    // Told when the iteration begins.
    place.catch(() => {});
    return {
      [Symbol.asyncIterator]: () => {
        const watcher = new Watcher(this.#options, filter, isOver);
        const cursor: Cursor<JobChange> = new Cursor({ take: () => watcher.take(cursor), release: (left) => this.#leave(left) }, signal);
        if (signal.aborted) return cursor;
        this.#watchers.set(cursor, watcher);
        Promise.all([place, this.#listen()]).then(
          ([{ at, reset }]) => {
            watcher.start(at, reset);
            cursor.wake();
          },
          (error) => cursor.fail(error),
        );
        return cursor;
      },
    };
  }

  /** Ends every watcher with an error. */
  fail(error: unknown): void {
    clearTimeout(this.#timer);
    for (const cursor of [...this.#watchers.keys()]) cursor.fail(error);
  }

  /** Once for all watchers; tried again for the next one where it failed. */
  #listen(): Promise<void> {
    if (this.#listening) return this.#listening;
    const listening = this.#options.listen();
    this.#listening = listening;
    listening.catch(() => {
      if (this.#listening === listening) this.#listening = undefined;
    });
    return listening;
  }

  #leave(cursor: Cursor<JobChange>): void {
    this.#watchers.delete(cursor);
    if (this.#watchers.size > 0 || !this.#listening) return;
    this.#listening = undefined;
    this.#options.forget();
  }
}

class Watcher {
  /** There may be more than has been read. */
  stale = true;
  readonly #options: JobChangesOptions;
  readonly #filter: JobFilter;
  /** Whether a job that has not ended matched when it was last looked at. Only for filters that a job can enter and leave. */
  readonly #matched = new Map<JobId, boolean>();
  #page: NumberedChange[] = [];
  /** Undefined: not known yet. */
  #at: number | undefined;
  #reset = false;
  #loading = false;
  readonly #isOver: (() => Promise<boolean>) | undefined;
  /** What has been read is all that there will be. */
  #over = false;

  constructor(options: JobChangesOptions, filter: JobFilter, isOver: (() => Promise<boolean>) | undefined) {
    this.#options = options;
    this.#filter = filter;
    this.#isOver = isOver;
  }

  start(at: number, reset: boolean): void {
    this.#at = at;
    this.#reset = reset;
  }

  take(cursor: Cursor<JobChange>): JobChange | undefined | typeof END {
    if (this.#at === undefined || this.#loading) return undefined;
    const { tokens } = this.#options;
    if (this.#reset) {
      this.#reset = false;
      return { job: undefined, watchToken: tokens.seal('watch', [this.#at]), reset: true, matches: true };
    }
    for (let next = this.#page.shift(); next; next = this.#page.shift()) {
      this.#at = next.change;
      const matches = this.#look(next.stored);
      if (matches === undefined) continue;
      return { job: next.shown, watchToken: tokens.seal('watch', [this.#at]), reset: false, matches };
    }
    if (this.#over) return END;
    if (this.stale) void this.#load(cursor, this.#at);
    return undefined;
  }

  async #load(cursor: Cursor<JobChange>, at: number): Promise<void> {
    this.#loading = true;
    this.stale = false;
    try {
      // Asked before the changes are read, so that the last of them are among them.
      const over = (await this.#isOver?.()) ?? false;
      const page = await this.#options.after(at);
      this.#loading = false;
      this.#page = [...page];
      if (page.length === CHANGES_PAGE) this.stale = true;
      else this.#over = over;
      cursor.wake();
    } catch (error) {
      cursor.fail(error);
    }
  }

  /** Whether the job matches; undefined: it is none of this watcher's. */
  #look(stored: RedisJob): boolean | undefined {
    if (!inScope(stored, this.#filter)) return undefined;
    if (!this.#filter.statuses?.length && this.#filter.errorReason === undefined) return true;
    const matches = inState(stored, this.#filter);
    const { jobId } = stored.job;
    const before = this.#matched.get(jobId) ?? mayHaveBeenInState(stored, this.#filter);
    if (hasEnded(stored)) this.#matched.delete(jobId);
    else this.#matched.set(jobId, matches);
    return matches || before ? matches : undefined;
  }
}
