// Results by what makes runs the same. Always true here, inside the steps that call: an entry refers to its blob from its making to its end, so what it
// gives out is there; one that has had its time gives nothing.
import type { DatabaseSync } from 'node:sqlite';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { type MediaResult, MediaResultSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Fingerprint } from '../jobs/fingerprint.ts';
import type { BlobReferences } from './blob-references.ts';

export interface KeptResult {
  readonly result: MediaResult;
  /** Of its run's engine. */
  readonly warnings: readonly string[];
}

export class CachedResults {
  readonly #references: BlobReferences;
  readonly #get;
  readonly #put;
  readonly #drop;
  readonly #ofBlob;
  readonly #expired;

  constructor(db: DatabaseSync, references: BlobReferences) {
    this.#references = references;
    this.#get = db.prepare('SELECT key, result, warnings, expires_ms FROM cached_results WHERE fingerprint = ?');
    this.#put = db.prepare('INSERT OR REPLACE INTO cached_results (fingerprint, key, result, warnings, expires_ms) VALUES (?, ?, ?, ?, ?)');
    this.#drop = db.prepare('DELETE FROM cached_results WHERE fingerprint = ?');
    this.#ofBlob = db.prepare('SELECT fingerprint, key FROM cached_results WHERE key = ?');
    this.#expired = db.prepare('SELECT fingerprint, key FROM cached_results WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?');
  }

  get(fingerprint: Fingerprint, nowMs: number): KeptResult | undefined {
    const row = this.#get.get(fingerprint) as { result: Uint8Array; warnings: string; expires_ms: number } | undefined;
    if (!row || row.expires_ms <= nowMs) return undefined;
    return { result: fromBinary(MediaResultSchema, row.result), warnings: JSON.parse(row.warnings) as string[] };
  }

  put(fingerprint: Fingerprint, { result, warnings }: KeptResult, expiresMs: number): void {
    const before = this.#get.get(fingerprint) as { key: string } | undefined;
    this.#put.run(fingerprint, result.sha256, toBinary(MediaResultSchema, result), JSON.stringify(warnings), expiresMs);
    this.#references.moved(before?.key, result.sha256);
  }

  /** No like job takes these bytes any more. */
  purge(key: string): void {
    this.#dropAll(this.#ofBlob.all(key));
  }

  /** Ends what has had its time; answers how many there were, `max` where there may be more. */
  expire(nowMs: number, max: number): number {
    const rows = this.#expired.all(nowMs, max);
    this.#dropAll(rows);
    return rows.length;
  }

  isExpireDue(nowMs: number): boolean {
    return this.#expired.get(nowMs, 1) !== undefined;
  }

  #dropAll(rows: readonly Record<string, unknown>[]): void {
    for (const { fingerprint, key } of rows as { fingerprint: string; key: string }[]) {
      this.#drop.run(fingerprint);
      this.#references.moved(key, undefined);
    }
  }
}
