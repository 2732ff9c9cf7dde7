// When ended jobs lose their results and are forgotten. Always true here, inside the steps that call: each ended job has one entry, each result
// with a time to go has one until it is purged, and a job that has not ended has none, so nothing that still runs can become due.
import type { DatabaseSync } from 'node:sqlite';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { Job } from '../jobs/job.ts';

/** A job that is due, and its entry. */
export interface Due {
  readonly atMs: number;
  readonly num: number;
  readonly jobId: string;
}

export class Lifetimes {
  readonly #addEnd;
  readonly #dropEnd;
  readonly #addResult;
  readonly #dropResult;
  readonly #results;
  readonly #ends;

  constructor(db: DatabaseSync) {
    this.#addEnd = db.prepare('INSERT INTO ended_jobs (ended_ms, num) VALUES (?, ?)');
    this.#dropEnd = db.prepare('DELETE FROM ended_jobs WHERE ended_ms = ? AND num = ?');
    this.#addResult = db.prepare('INSERT INTO expiring_results (expires_ms, num) VALUES (?, ?)');
    this.#dropResult = db.prepare('DELETE FROM expiring_results WHERE expires_ms = ? AND num = ?');
    this.#results = db.prepare(
      `SELECT e.expires_ms AS atMs, e.num, j.job_id AS jobId FROM expiring_results AS e CROSS JOIN jobs AS j ON j.num = e.num
       WHERE e.expires_ms <= ? ORDER BY e.expires_ms, e.num LIMIT ?`,
    );
    this.#ends = db.prepare(
      `SELECT e.ended_ms AS atMs, e.num, j.job_id AS jobId FROM ended_jobs AS e CROSS JOIN jobs AS j ON j.num = e.num
       WHERE e.ended_ms <= ? ORDER BY e.ended_ms, e.num LIMIT ?`,
    );
  }

  ended(num: number, job: Job): void {
    this.#addEnd.run(timestampMs(job.finishedAt!), num);
    if (job.resultExpireTime) this.#addResult.run(timestampMs(job.resultExpireTime), num);
  }

  purged(num: number, job: Job): void {
    if (job.resultExpireTime) this.#dropResult.run(timestampMs(job.resultExpireTime), num);
  }

  forgotten({ atMs, num }: Due): void {
    this.#dropEnd.run(atMs, num);
  }

  /** Results whose time had come by then, the longest due first. */
  results(byMs: number, max: number): Due[] {
    return this.#results.all(byMs, max) as unknown as Due[];
  }

  /** Jobs that had ended by then, the oldest end first. */
  ends(byMs: number, max: number): Due[] {
    return this.#ends.all(byMs, max) as unknown as Due[];
  }
}
