// Whose results the jobs take that have not ended, and which of these they wait for. Always true here, inside the steps that call: a row without a blob is of
// a job that has not ended; one with a blob refers to it.
import type { DatabaseSync } from 'node:sqlite';
import type { JobId } from '../jobs/ports.ts';
import type { BlobReferences } from './blob-references.ts';

export class InputJobs {
  readonly #references: BlobReferences;
  readonly #add;
  readonly #of;
  readonly #waiters;
  readonly #fill;
  readonly #waits;
  readonly #drop;
  readonly #left;

  constructor(db: DatabaseSync, references: BlobReferences) {
    this.#references = references;
    this.#add = db.prepare('INSERT OR IGNORE INTO job_inputs (num, of_id, key) VALUES (?, ?, ?)');
    this.#of = db.prepare('SELECT of_id, key FROM job_inputs WHERE num = ?');
    this.#waiters = db.prepare(
      `SELECT j.job_id FROM job_inputs AS i INDEXED BY job_inputs_waiting CROSS JOIN jobs AS j ON j.num = i.num
       WHERE i.of_id = ? AND i.key IS NULL ORDER BY i.num`,
    );
    this.#fill = db.prepare('UPDATE job_inputs SET key = ? WHERE num = ? AND of_id = ?');
    this.#waits = db.prepare('SELECT 1 FROM job_inputs WHERE num = ? AND key IS NULL LIMIT 1');
    this.#left = db.prepare("SELECT num FROM job_inputs WHERE of_id >= ':' AND of_id < ';'");
    this.#drop = db.prepare('DELETE FROM job_inputs WHERE num = ?');
  }

  /** The job `num` takes the result of another one, which has it already or not. */
  take(num: number, of: JobId, key: string | undefined): void {
    this.#add.run(num, of, key ?? null);
  }

  /** Jobs that wait for this one, in the order of their submission. */
  waiters(of: JobId): JobId[] {
    return this.#waiters.all(of).map((row) => row.job_id as JobId);
  }

  /** A result that the job `num` waited for is there. True: it waits for no other. */
  met(num: number, of: JobId, key: string): boolean {
    this.#fill.run(key, num, of);
    return !this.#waits.get(num);
  }

  /** Whether it waits for any. */
  isWaiting(num: number): boolean {
    return this.#waits.get(num) !== undefined;
  }

  /** Blobs by the jobs that they are from. */
  blobs(num: number): ReadonlyMap<JobId, string> {
    return new Map(this.#rows(num).flatMap(({ of_id, key }) => (key === null ? [] : [[of_id, key]])));
  }

  /** What runs referred to that their first jobs had left; the names of such rows begin with ':', which no job's does. */
  hasLeftRuns(): boolean {
    return this.#left.get() !== undefined;
  }

  forgetLeftRuns(): void {
    for (const { num } of this.#left.all()) this.ended(num as number);
  }

  /** The job has ended and needs nothing any more. */
  ended(num: number): void {
    const rows = this.#rows(num);
    this.#drop.run(num);
    for (const { key } of rows) if (key !== null) this.#references.moved(key, undefined);
  }

  #rows(num: number): { readonly of_id: JobId; readonly key: string | null }[] {
    return this.#of.all(num) as unknown as { of_id: JobId; key: string | null }[];
  }
}
