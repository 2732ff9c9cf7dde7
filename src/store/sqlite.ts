// One SQLite file: opened, brought up to date, its log brought to the disk. Always true here: this process is the file's only user (a second opener
// is refused), and a log that the disk has once failed to take is not trusted again.
import { close, fdatasync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
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
export function fromSqlite(error: unknown): unknown {
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
    // NORMAL: a COMMIT writes to the log and does not wait for the disk; whoever promises more waits for a `LogSync`.
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
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
  const opened = statSync(path, { throwIfNoEntry: false });
  return () => {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.ino === opened?.ino && found?.dev === opened?.dev) return;
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

/**
 * Brings all that is committed to the disk. What SQLite itself does after each COMMIT under `synchronous = FULL`, which is all that FULL adds to NORMAL
 * in WAL mode (https://sqlite.org/pragma.html#pragma_synchronous), done by the thread pool, so that nothing else waits for the disk meanwhile.
 */
export class LogSync {
  readonly #path: string;
  #file: number | undefined;

  constructor(database: string) {
    this.#path = `${database}-wal`;
  }

  /** All that was committed before the call is on the disk. */
  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      // SQLite makes the log with its first write and keeps the same file until it closes the database. Its locks are on the database's own file, so
      // that closing this one takes none away.
      this.#file ??= openSync(this.#path, 'r+');
      fdatasync(this.#file, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Not while a sync is on its way. */
  close(): void {
    if (this.#file !== undefined) close(this.#file);
    this.#file = undefined;
  }
}
