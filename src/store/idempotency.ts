// What idempotency keys stand for: jobs and batches. Always true here, inside the steps that call: a key is its tenant's, gives nothing once its time is up,
// and stands for one request.
import type { DatabaseSync } from 'node:sqlite';
import { keyReused } from '../jobs/steps.ts';

export class IdempotencyKeys {
  readonly #find;
  readonly #keep;
  readonly #dropOld;
  readonly #drop;

  constructor(db: DatabaseSync) {
    this.#find = db.prepare('SELECT digest, job_id, expires_ms FROM idempotency WHERE tenant = ? AND key = ?');
    this.#keep = db.prepare('INSERT OR REPLACE INTO idempotency (tenant, key, digest, job_id, expires_ms) VALUES (?, ?, ?, ?, ?)');
    this.#dropOld = db.prepare(
      `DELETE FROM idempotency WHERE (tenant, key) IN
         (SELECT tenant, key FROM idempotency WHERE expires_ms <= ? ORDER BY expires_ms LIMIT 2)`,
    );
    this.#drop = db.prepare('DELETE FROM idempotency WHERE tenant = ? AND key = ? AND job_id = ?');
  }

  /** The id of a job or batch; undefined: the key is not known. Throws IDEMPOTENCY_KEY_REUSED where it stands for another request. */
  find(tenant: string, key: string, digest: string, nowMs: number): string | undefined {
    const found = this.#find.get(tenant, key) as { digest: string; job_id: string; expires_ms: number } | undefined;
    if (!found || found.expires_ms <= nowMs) return undefined;
    if (found.digest !== digest) throw keyReused(key, found.job_id);
    return found.job_id;
  }

  /** Two old ones out for each new one: expired keys go without a scan and without a burst. */
  keep(tenant: string, key: string, digest: string, id: string, nowMs: number, ttlMs: number): void {
    this.#dropOld.run(nowMs);
    this.#keep.run(tenant, key, digest, id, nowMs + ttlMs);
  }

  /** What it stands for has never been. */
  drop(tenant: string, key: string, id: string): void {
    this.#drop.run(tenant, key, id);
  }
}
