// Uploads as rows, and which jobs need them. Always true here: the bytes of an upload are deleted only when its row says so, and the row says so
// in the transaction that took away the last thing that kept it (its life, or the last job that needs it); a row goes after its bytes.
import type { DatabaseSync } from 'node:sqlite';
import type { JobRequest } from '../jobs/job.ts';
import type { NewUpload, UploadLimits, UploadRecord, UploadRecords } from '../jobs/ports.ts';
import { tooManyUploadBytes, tooManyUploads, uploadNotFound, uploadRefused, uploadsOf } from '../jobs/uploads.ts';

/** As the migration has them. */
const State = { receiving: 1, whole: 2, released: 3, deleting: 4 } as const;
/** To the letter what the index of these states says of itself: SQLite draws no conclusion from one of them, and would read all uploads. */
const IN_INDEX = `state IN (${State.receiving}, ${State.deleting})`;
/** Expired uploads that one transaction sees to. */
const EXPIRED_AT_ONCE = 200;

interface Row {
  readonly tenant: string;
  readonly state: number;
  readonly bytes: number;
  readonly expires_ms: number;
  readonly resumable: number;
  readonly facts: string;
}
type Facts = Pick<UploadRecord, 'filename' | 'note' | 'length' | 'sha256' | 'whole'>;

/** What happens to uploads inside the steps of the job store. Each method refuses before it writes. */
export class UploadTable {
  readonly #now: () => number;
  readonly #insert;
  readonly #update;
  readonly #get;
  readonly #totals;
  readonly #move;
  readonly #expired;
  readonly #marked;
  readonly #drop;
  readonly #dropUses;
  readonly #use;
  readonly #usedBy;
  readonly #end;
  readonly #forget;
  readonly #isNeeded;
  readonly #isUsed;

  constructor(db: DatabaseSync, now: () => number) {
    this.#now = now;
    this.#insert = db.prepare(
      `INSERT INTO uploads (upload_id, tenant, state, bytes, expires_ms, resumable, facts) VALUES (?, ?, ${State.receiving}, ?, ?, ?, ?)`,
    );
    this.#update = db.prepare('UPDATE uploads SET state = ?, bytes = ?, expires_ms = ?, facts = ? WHERE upload_id = ?');
    this.#get = db.prepare('SELECT tenant, state, bytes, expires_ms, resumable, facts FROM uploads WHERE upload_id = ?');
    this.#totals = db.prepare('SELECT uploads, bytes FROM upload_totals WHERE tenant = ?');
    this.#move = db.prepare('UPDATE uploads SET state = ? WHERE upload_id = ?');
    this.#expired = db.prepare(
      `SELECT upload_id FROM uploads WHERE state < ${State.released} AND expires_ms <= ? ORDER BY expires_ms LIMIT ${EXPIRED_AT_ONCE}`,
    );
    this.#marked = db.prepare(`SELECT upload_id FROM uploads INDEXED BY uploads_by_state WHERE ${IN_INDEX} AND state = ${State.deleting}`);
    this.#drop = db.prepare(`DELETE FROM uploads WHERE upload_id = ? AND state = ${State.deleting}`);
    this.#dropUses = db.prepare('DELETE FROM upload_uses WHERE upload_id = ?');
    this.#use = db.prepare('INSERT INTO upload_uses (upload_id, num, ended) VALUES (?, ?, 0)');
    this.#usedBy = db.prepare('SELECT upload_id FROM upload_uses WHERE num = ?');
    this.#end = db.prepare('UPDATE upload_uses SET ended = 1 WHERE upload_id = ? AND num = ?');
    this.#forget = db.prepare('DELETE FROM upload_uses WHERE upload_id = ? AND num = ?');
    this.#isNeeded = db.prepare('SELECT 1 FROM upload_uses WHERE upload_id = ? AND ended = 0 LIMIT 1');
    this.#isUsed = db.prepare('SELECT 1 FROM upload_uses WHERE upload_id = ? LIMIT 1');
    // What came in one piece ended with the process that received it.
    db.exec(`UPDATE uploads SET state = ${State.deleting} WHERE ${IN_INDEX} AND state = ${State.receiving} AND resumable = 0`);
  }

  begin(upload: NewUpload, limits: UploadLimits): void {
    const { id, tenant, bytes, resumable, filename, note, sha256 } = upload;
    const has = this.#totalsOf(tenant);
    if (has.uploads >= limits.maxUploads) {
      throw tooManyUploads(has.uploads, limits.maxUploads);
    }
    checkBytes(has.bytes, bytes ?? 0, limits);
    const facts: Facts = { filename, note, length: bytes, sha256, whole: undefined };
    this.#insert.run(id, tenant, bytes ?? 0, this.#now() + limits.ttlMs, Number(resumable), JSON.stringify(facts));
  }

  reserve(id: string, bytes: number, limits: UploadLimits): void {
    const row = this.#receiving(id);
    const { tenant } = row;
    checkBytes(this.#totalsOf(tenant).bytes - row.bytes, bytes, limits);
    this.#write(id, { ...row, bytes, expires_ms: this.#now() + limits.ttlMs });
  }

  announce(id: string, bytes: number, limits: UploadLimits): void {
    this.reserve(id, bytes, limits);
    const row = this.#receiving(id);
    this.#write(id, { ...row, facts: JSON.stringify({ ...factsOf(row), length: bytes }) });
  }

  complete(id: string, whole: NonNullable<UploadRecord['whole']>, limits: UploadLimits): number {
    const row = this.#receiving(id);
    checkBytes(this.#totalsOf(row.tenant).bytes - row.bytes, whole.bytes, limits);
    // In whole seconds, as headers tell it.
    const expiresMs = Math.ceil((this.#now() + limits.ttlMs) / 1000) * 1000;
    const facts = JSON.stringify({ ...factsOf(row), whole });
    this.#write(id, { ...row, state: State.whole, bytes: whole.bytes, expires_ms: expiresMs, facts });
    return expiresMs;
  }

  get(id: string): UploadRecord | undefined {
    const row = this.#row(id);
    if (!row || row.state === State.deleting) return undefined;
    return {
      id,
      ...factsOf(row),
      tenant: row.tenant,
      resumable: row.resumable === 1,
      expiresMs: row.expires_ms,
      offered: row.state !== State.released && row.expires_ms > this.#now(),
    };
  }

  knows(id: string): boolean {
    return this.#row(id) !== undefined;
  }

  release(id: string): void {
    const row = this.#row(id);
    if (!row || row.state >= State.released) throw uploadNotFound(id);
    this.#letGo(id);
  }

  /** Releases what has expired. True: there may be more. */
  expire(): boolean {
    const ids = this.#expired.all(this.#now()) as unknown as { upload_id: string }[];
    for (const { upload_id: id } of ids) this.#letGo(id);
    return ids.length === EXPIRED_AT_ONCE;
  }

  marked(): readonly string[] {
    return this.#marked.all().map((row) => row.upload_id as string);
  }

  /** The bytes are gone. */
  drop(id: string): void {
    if (this.#drop.run(id).changes > 0) this.#dropUses.run(id);
  }

  /** Whether a job of the tenant may name what its request names; else throws. Writes nothing. */
  check(request: JobRequest, tenant: string): void {
    for (const [id, field] of uploadsOf(request)) {
      const record = this.get(id);
      if (record?.whole && record.offered && record.tenant === tenant) continue;
      throw uploadRefused(id, field);
    }
  }

  /** The new job `num` needs what its request names. */
  use(num: number, request: JobRequest): void {
    for (const id of uploadsOf(request).keys()) this.#use.run(id, num);
  }

  /** The job needs its uploads no more. */
  ended(num: number): void {
    for (const { upload_id } of this.#usedBy.all(num)) {
      const id = upload_id as string;
      this.#end.run(id, num);
      if (this.#row(id)?.state === State.released) this.#letGo(id);
    }
  }

  /** The job, which has ended, is to leave nothing behind. */
  purged(num: number): void {
    for (const { upload_id } of this.#usedBy.all(num)) {
      const id = upload_id as string;
      this.#forget.run(id, num);
      if (!this.#isUsed.get(id)) this.#letGo(id);
    }
  }

  /** The job, which has ended, has never been; what callers still have of its uploads stays. */
  forgotten(num: number): void {
    for (const { upload_id } of this.#usedBy.all(num)) this.#forget.run(upload_id as string, num);
  }

  #letGo(id: string): void {
    this.#move.run(this.#isNeeded.get(id) ? State.released : State.deleting, id);
  }

  #row(id: string): Row | undefined {
    return this.#get.get(id) as unknown as Row | undefined;
  }

  #receiving(id: string): Row {
    const row = this.#row(id);
    if (row?.state !== State.receiving) throw uploadNotFound(id);
    return row;
  }

  #write(id: string, { state, bytes, expires_ms, facts }: Row): void {
    this.#update.run(state, bytes, expires_ms, facts, id);
  }

  #totalsOf(tenant: string): { readonly uploads: number; readonly bytes: number } {
    return (this.#totals.get(tenant) as { uploads: number; bytes: number } | undefined) ?? { uploads: 0, bytes: 0 };
  }
}

/** Runs a step of the store; answers after COMMIT. */
type RunStep = <T>(durable: boolean, run: () => T) => Promise<T>;

/** The port over the table: each call is one step. */
export class SqliteUploads implements UploadRecords {
  readonly #table: UploadTable;
  readonly #step: RunStep;
  #reclaiming: Promise<void> = Promise.resolve();

  constructor(table: UploadTable, step: RunStep) {
    this.#table = table;
    this.#step = step;
  }

  begin(upload: NewUpload, limits: UploadLimits): Promise<void> {
    return this.#step(true, () => this.#table.begin(upload, limits));
  }

  reserve(id: string, bytes: number, limits: UploadLimits): Promise<void> {
    return this.#step(false, () => this.#table.reserve(id, bytes, limits));
  }

  announce(id: string, bytes: number, limits: UploadLimits): Promise<void> {
    return this.#step(true, () => this.#table.announce(id, bytes, limits));
  }

  complete(id: string, whole: NonNullable<UploadRecord['whole']>, limits: UploadLimits): Promise<number> {
    return this.#step(true, () => this.#table.complete(id, whole, limits));
  }

  async get(id: string): Promise<UploadRecord | undefined> {
    return this.#table.get(id);
  }

  async knows(id: string): Promise<boolean> {
    return this.#table.knows(id);
  }

  release(id: string): Promise<void> {
    return this.#step(true, () => this.#table.release(id));
  }

  /** One at a time, so that whoever has asked is answered when what was due before is gone. */
  reclaim(remove: (id: string) => Promise<void>): Promise<void> {
    const reclaimed = this.#reclaiming.then(() => this.#reclaim(remove));
    this.#reclaiming = reclaimed.catch(() => {});
    return reclaimed;
  }

  async #reclaim(remove: (id: string) => Promise<void>): Promise<void> {
    let marked: readonly string[] = [];
    const mark = () => {
      const more = this.#table.expire();
      marked = this.#table.marked();
      return more;
    };
    // Durable, and with it what was marked before: a row that came back after power loss would promise bytes that are gone.
    while (await this.#step(true, mark));
    const errors: unknown[] = [];
    for (const id of marked) {
      try {
        await remove(id);
        await this.#step(false, () => this.#table.drop(id));
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}

function factsOf(row: Row): Facts {
  const { filename, note, length, sha256, whole } = JSON.parse(row.facts) as Facts;
  return { filename, note, length, sha256, whole };
}

function checkBytes(has: number, more: number, { maxBytes }: UploadLimits): void {
  if (has + more > maxBytes) throw tooManyUploadBytes(has, more, maxBytes);
}
