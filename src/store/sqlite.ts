// One SQLite file and its transactions. Always true here: this process is the file's only user (a second opener is refused), steps run one
// after another inside a group's transaction, and nothing that a step did is seen or told before COMMIT has returned.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { JobsError } from '../jobs/errors.ts';

const BUSY = 5;
const FULL = 13;
const NOT_A_DATABASE = 26;

/** Primary SQLite result code of an error that `node:sqlite` threw. */
function sqliteCode(error: unknown): number | undefined {
  const { errcode } = error as { errcode?: unknown };
  return typeof errcode === 'number' ? errcode & 0xff : undefined;
}

/** What a failing database means to a caller. Anything that is not SQLite's is a defect and stays what it is. */
function fromSqlite(error: unknown): unknown {
  const code = sqliteCode(error);
  if (code === undefined) return error;
  if (code === FULL) {
    return new JobsError('exhausted', 'STORAGE_FULL', 'the disk of the job store is full; free some space and try again', {
      retryAfterSeconds: 30,
      cause: error,
    });
  }
  return new JobsError('unavailable', 'STORE_UNAVAILABLE', 'the job store could not write; see the log', {
    retryAfterSeconds: 5,
    cause: error,
  });
}

/**
 * Opens or makes the file and brings its schema up to date with the numbered scripts in `migrations`. Throws an `Error` whose message can be
 * shown as it is: in use by another opener, newer than this program, not a database, not readable.
 */
export function openDatabase(path: string, migrations: string): { readonly db: DatabaseSync; readonly migrated: Migrated | undefined } {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path);
    // The lock is taken with the first access and held until the connection or the process ends, kill -9 included.
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    db.exec('PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384');
    // The log may grow to 16 MiB before it is written back: fewer pauses, and pages that many steps touch are written once.
    db.exec('PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 67108864');
    return { db, migrated: migrate(db, path, migrations) };
  } catch (error) {
    db?.close();
    const code = sqliteCode(error);
    if (code === BUSY) {
      throw new Error(`the job store ${path} is in use by another process: stop that one, or give this one a data folder of its own`, {
        cause: error,
      });
    }
    if (code === NOT_A_DATABASE) throw new Error(`${path} is not a job store: it is not an SQLite file`, { cause: error });
    if (code !== undefined) throw new Error(`cannot open the job store ${path}: ${(error as Error).message}`, { cause: error });
    throw error;
  }
}

/**
 * Answers a check that the file of that name still is the one that was opened: what is written to a file that was removed is gone with the process,
 * and SQLite does not say so. Costs some microseconds.
 */
export function stillThere(path: string): () => void {
  const identity = () => {
    const found = statSync(path, { throwIfNoEntry: false });
    return found && `${found.dev}:${found.ino}`;
  };
  const opened = identity();
  return () => {
    if (identity() === opened) return;
    throw new JobsError('unavailable', 'STORE_UNAVAILABLE', 'the file of the job store was removed or replaced: put it back and restart', {
      retryAfterSeconds: 30,
    });
  };
}

interface Migrated {
  readonly from: number;
  readonly to: number;
}

/** Answers what it did to a file that was there before. */
function migrate(db: DatabaseSync, path: string, folder: string): Migrated | undefined {
  const scripts = readdirSync(folder)
    .filter((name) => /^\d{3}-.*\.sql$/.test(name))
    .sort();
  const { user_version: has } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (has > scripts.length) {
    throw new Error(
      `the job store ${path} has schema ${has}, made by a newer version; this one knows ${scripts.length}: run the newer version, or restore a backup`,
    );
  }
  for (const [index, name] of scripts.entries()) {
    if (index < has) continue;
    if (Number(name.slice(0, 3)) !== index + 1) throw new Error(`migration ${name} is out of order`);
    db.exec(`BEGIN IMMEDIATE; ${readFileSync(join(folder, name), 'utf8')}; PRAGMA user_version = ${index + 1}; COMMIT`);
  }
  return has > 0 && has < scripts.length ? { from: has, to: scripts.length } : undefined;
}

interface Step {
  readonly durable: boolean;
  readonly run: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  outcome?: { readonly value: unknown } | { readonly refusal: JobsError };
}

export interface WriterOptions {
  /** Run before each group with a durable step; throws where it could not be kept. */
  readonly beforeDurable?: () => void;
  /** Work that follows from the steps of a group and belongs into its transaction; run last. Absent work costs nothing. */
  readonly followUp?: { readonly due: () => boolean; readonly run: () => void; readonly failed: (error: unknown) => void };
  /** Run just before each COMMIT, for figures that are written once a group. */
  readonly beforeCommit?: () => void;
  /** Run after each group, whether it committed or not. */
  readonly afterGroup?: () => void;
  /** Told of what must not happen: an effect after COMMIT or a ROLLBACK that threw. */
  readonly onDefect?: (error: unknown) => void;
}

/**
 * Runs steps in groups: all that were asked for in one turn of the event loop share a transaction and its fsync, so a lone step waits for
 * nobody and a flood costs one commit. A step refuses by throwing `JobsError` before its first write. Any other error takes the group back
 * and runs its steps one by one, so that it hurts only its own. Memory that a step changes is put back through `undo`.
 */
export class Writer {
  readonly #db: DatabaseSync;
  readonly #options: WriterOptions;
  readonly #begin;
  readonly #commit;
  readonly #rollback;
  #queue: Step[] = [];
  #scheduled: NodeJS.Immediate | undefined;
  #undo: (() => void)[] = [];
  #effects: (() => void)[] = [];
  #synchronous: 'FULL' | 'NORMAL' = 'FULL';

  constructor(db: DatabaseSync, options: WriterOptions = {}) {
    this.#db = db;
    this.#options = options;
    this.#begin = db.prepare('BEGIN IMMEDIATE');
    this.#commit = db.prepare('COMMIT');
    this.#rollback = db.prepare('ROLLBACK');
  }

  /** Answers after COMMIT. `durable`: after an fsync too, so that it survives power loss; else it survives the end of the process. */
  step<T>(durable: boolean, run: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ durable, run, resolve: resolve as (value: unknown) => void, reject });
      this.wake();
    });
  }

  /** Sees to the follow-up work soon. */
  wake(): void {
    this.#scheduled ??= setImmediate(() => this.flush());
  }

  /** Inside a step: how to take back a change of memory, should the transaction fail. */
  undo(back: () => void): void {
    this.#undo.push(back);
  }

  /** Inside a step: what to do once it is committed; before its caller is answered. */
  committed(effect: () => void): void {
    this.#effects.push(effect);
  }

  /** Runs what is waiting now. */
  flush(): void {
    clearImmediate(this.#scheduled);
    this.#scheduled = undefined;
    const group = this.#queue;
    this.#queue = [];
    this.#run(group);
    this.#options.afterGroup?.();
  }

  #run(group: readonly Step[]): void {
    const { followUp } = this.#options;
    const failed = this.#transaction(group, true);
    if (failed === undefined) return;
    if (failed.at === 'commit' || group.length + Number(failed.at === 'follow-up') <= 1) {
      const error = fromSqlite(failed.error);
      for (const step of group) step.reject(error);
      if (failed.at !== 'step') followUp?.failed(error);
      return;
    }
    for (const step of group) {
      const alone = this.#transaction([step], false);
      if (alone) step.reject(fromSqlite(alone.error));
    }
    this.#run([]);
  }

  /** One transaction with all of the group; undefined when it committed, else nothing of it has happened. */
  #transaction(group: readonly Step[], withFollowUp: boolean): { at: 'step' | 'follow-up' | 'commit'; error: unknown } | undefined {
    const { followUp, beforeCommit } = this.#options;
    if (group.length === 0 && !(withFollowUp && followUp?.due())) return undefined;
    let at: 'step' | 'follow-up' | 'commit' = 'step';
    try {
      const durable = group.some((step) => step.durable);
      if (durable) this.#options.beforeDurable?.();
      this.#synchronize(durable ? 'FULL' : 'NORMAL');
      this.#begin.run();
      for (const step of group) step.outcome = outcomeOf(step);
      at = 'follow-up';
      if (withFollowUp && followUp?.due()) followUp.run();
      at = 'commit';
      beforeCommit?.();
      this.#commit.run();
    } catch (error) {
      this.#rollBack();
      for (const back of this.#undo.reverse()) back();
      this.#undo = [];
      this.#effects = [];
      return { at, error };
    }
    const effects = this.#effects;
    this.#undo = [];
    this.#effects = [];
    for (const effect of effects) {
      try {
        effect();
      } catch (error) {
        this.#options.onDefect?.(error);
      }
    }
    for (const { outcome, resolve, reject } of group) {
      if (outcome && 'refusal' in outcome) reject(outcome.refusal);
      else resolve(outcome?.value);
    }
    return undefined;
  }

  #rollBack(): void {
    // SQLite ends the transaction itself after some errors, a full disk among them.
    if (!this.#db.isTransaction) return;
    try {
      this.#rollback.run();
    } catch (error) {
      this.#options.onDefect?.(error);
    }
  }

  #synchronize(mode: 'FULL' | 'NORMAL'): void {
    if (this.#synchronous === mode) return;
    this.#db.exec(`PRAGMA synchronous = ${mode}`);
    this.#synchronous = mode;
  }
}

function outcomeOf(step: Step): NonNullable<Step['outcome']> {
  try {
    return { value: step.run() };
  } catch (error) {
    if (error instanceof JobsError) return { refusal: error };
    throw error;
  }
}
