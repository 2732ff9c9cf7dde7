// Which blobs nobody refers to any more: no job by its result or its inputs, and no entry of the cache. Always true here: a step that takes a blob's last reference away marks it in the same transaction; the
// mark goes when the blob has been deleted or a job refers to it again; no job is given a reference to a blob that is being deleted; and a blob that a
// run of this process holds is not deleted, marked or not.
import type { DatabaseSync } from 'node:sqlite';
import { JobsError } from '../jobs/errors.ts';

/** Deletions under way at once; those of a store far away take a while each. */
const AT_ONCE = 8;

/** Runs a step of the store; answers after COMMIT. */
type RunStep = <T>(run: () => T) => Promise<T>;

export class BlobReferences {
  readonly #mark;
  readonly #unmark;
  readonly #isMarked;
  readonly #marked;
  readonly #isReferred;
  /** Deletions that are on their way, by key; they settle, and never reject, when they are over. */
  readonly #deletions = new Map<string, Promise<void>>();
  /** How many runs hold a blob in memory alone. */
  readonly #holders = new Map<string, number>();
  #reclaiming: Promise<void> = Promise.resolve();

  constructor(db: DatabaseSync) {
    this.#mark = db.prepare('INSERT OR IGNORE INTO unreferenced_blobs (key) VALUES (?)');
    this.#unmark = db.prepare('DELETE FROM unreferenced_blobs WHERE key = ?');
    this.#isMarked = db.prepare('SELECT 1 FROM unreferenced_blobs WHERE key = ?');
    this.#marked = db.prepare('SELECT key FROM unreferenced_blobs');
    this.#isReferred = db.prepare(
      `SELECT 1 FROM jobs WHERE result_key = :key UNION ALL SELECT 1 FROM job_inputs WHERE key = :key
       UNION ALL SELECT 1 FROM cached_results WHERE key = :key LIMIT 1`,
    );
  }

  /** Inside a step, once it is written: somebody referred to `from` and refers to `to` now. */
  moved(from: string | undefined, to: string | undefined): void {
    if (from === to) return;
    if (to !== undefined) this.#unmark.run(to);
    if (from !== undefined && !this.#isReferred.get({ key: from })) this.#mark.run(from);
  }

  /** A reference that lives in memory, for a blob that is there: when the process ends, a mark or another reference still stands. Answers how to let go. */
  hold(key: string): () => void {
    this.#holders.set(key, (this.#holders.get(key) ?? 0) + 1);
    return () => {
      const left = this.#holders.get(key)! - 1;
      if (left > 0) this.#holders.set(key, left);
      else this.#holders.delete(key);
    };
  }

  /** What has to be waited for before a job may refer to the blob. */
  deletionOf(key: string): Promise<void> | undefined {
    return this.#deletions.get(key);
  }

  /** See `JobStore.reclaim`. One at a time, so that whoever has asked is answered when what was marked before is gone. */
  reclaim(step: RunStep, remove: (key: string) => Promise<void>): Promise<void> {
    const reclaimed = this.#reclaiming.then(() => this.#reclaim(step, remove));
    this.#reclaiming = reclaimed.catch(() => {});
    return reclaimed;
  }

  async #reclaim(step: RunStep, remove: (key: string) => Promise<void>): Promise<void> {
    const keys = await step(() => this.#marked.all().map(({ key }) => key as string));
    const errors: unknown[] = [];
    const next = keys.values();
    await Promise.all(Array.from({ length: Math.min(keys.length, AT_ONCE) }, () => this.#reclaimAll(next, step, remove, errors)));
    if (errors.length > 0) throw errors[0];
  }

  async #reclaimAll(keys: Iterator<string>, step: RunStep, remove: (key: string) => Promise<void>, errors: unknown[]): Promise<void> {
    for (let next = keys.next(); !next.done; next = keys.next()) {
      const key = next.value;
      // A store that is away is asked for no more: the marks stay.
      if (errors.some((error) => error instanceof JobsError && error.kind === 'unavailable')) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      try {
        const taken = await step(() => {
          if (!this.#isMarked.get(key) || this.#holders.has(key)) return false;
          this.#deletions.set(key, promise);
          return true;
        });
        if (!taken) continue;
        await remove(key);
        await step(() => this.#unmark.run(key));
      } catch (error) {
        errors.push(error);
      } finally {
        this.#deletions.delete(key);
        resolve();
      }
    }
  }
}
