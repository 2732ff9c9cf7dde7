// Batches as rows. Always true here, inside the steps that call: the counts of a batch are those of its jobs after each step, a batch that is
// finished stays so, and one whose last job is forgotten is forgotten with it.
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { type Batch, type BatchMember, type BatchMove, membersOf } from '../jobs/batches.ts';
import { isTerminal, JobStatus, STATUSES } from '../jobs/job.ts';
import type { JobId, NewBatch } from '../jobs/ports.ts';
import { Recent } from '../recent.ts';

/** Whose jobs are to be canceled, running ones within `graceMs`. */
export interface Stopping {
  readonly batchId: string;
  readonly graceMs: number;
}

/** Lists of jobs kept decoded. */
const KEPT = 64;

export class BatchTable {
  readonly #db: DatabaseSync;
  readonly #moves = new Map<string, StatementSync>();
  readonly #members = new Recent<readonly BatchMember[]>(KEPT);
  readonly #insert;
  readonly #insertMembers;
  readonly #get;
  readonly #getMembers;
  readonly #finish;
  readonly #fail;
  readonly #cancel;
  readonly #stopping;
  readonly #stopped;
  readonly #left;
  readonly #unended;
  readonly #delete;
  readonly #deleteMembers;

  constructor(db: DatabaseSync) {
    this.#db = db;
    this.#insert = db.prepare(
      'INSERT INTO batches (batch_id, tenant, idempotency_key, created_ms, jobs, queued, stop_grace_ms) VALUES (?, ?, ?, ?, ?, ?, ?)',
    );
    this.#insertMembers = db.prepare('INSERT INTO batch_members (batch_id, members) VALUES (?, ?)');
    this.#get = db.prepare('SELECT * FROM batches WHERE batch_id = ?');
    this.#getMembers = db.prepare('SELECT members FROM batch_members WHERE batch_id = ?');
    this.#finish = db.prepare('UPDATE batches SET finished_ms = ?, stopping_ms = NULL WHERE batch_id = ? AND queued + processing = 0');
    this.#fail = db.prepare(
      `UPDATE batches SET stopping_ms = stop_grace_ms, cancel_requested_ms = coalesce(cancel_requested_ms, ?)
       WHERE batch_id = ? AND stop_grace_ms IS NOT NULL AND queued + processing > 0`,
    );
    this.#cancel = db.prepare(
      `UPDATE batches SET stopping_ms = ?, cancel_requested_ms = coalesce(cancel_requested_ms, ?)
       WHERE batch_id = ? AND queued + processing > 0`,
    );
    this.#stopping = db.prepare(
      'SELECT batch_id AS batchId, stopping_ms AS graceMs FROM batches INDEXED BY batches_stopping WHERE stopping_ms IS NOT NULL',
    );
    this.#stopped = db.prepare('UPDATE batches SET stopping_ms = NULL WHERE batch_id = ?');
    this.#left = db.prepare('SELECT 1 FROM jobs INDEXED BY jobs_by_batch WHERE batch_id = ? LIMIT 1');
    this.#unended = db.prepare(
      'SELECT job_id, status FROM jobs INDEXED BY jobs_by_batch WHERE batch_id = ? ORDER BY created_ms DESC, num DESC',
    );
    this.#delete = db.prepare('DELETE FROM batches WHERE batch_id = ? RETURNING tenant, idempotency_key');
    this.#deleteMembers = db.prepare('DELETE FROM batch_members WHERE batch_id = ?');
  }

  insert(batch: NewBatch, nowMs: number): void {
    const { batchId, tenant, jobs, idempotencyKey, stopGraceMs } = batch;
    this.#insert.run(batchId, tenant, idempotencyKey ?? null, nowMs, jobs.length, jobs.length, stopGraceMs ?? null);
    this.#insertMembers.run(batchId, JSON.stringify(membersOf(batch).map(({ jobId, ref }) => [jobId, ref])));
  }

  get(batchId: string): Batch | undefined {
    const row = this.#get.get(batchId) as Record<string, number | string | null> | undefined;
    if (!row) return undefined;
    return {
      batchId,
      tenant: row.tenant as string,
      jobs: row.jobs as number,
      counts: new Map(STATUSES.map((status) => [status, row[columnOf(status)] as number])),
      done: row.done as number,
      createdMs: row.created_ms as number,
      finishedMs: (row.finished_ms as number | null) ?? undefined,
      stopsOnFailure: row.stop_grace_ms !== null,
      cancelRequestedMs: (row.cancel_requested_ms as number | null) ?? undefined,
      members: this.#membersOf(batchId),
    };
  }

  /** Whether its last job has ended, or it is forgotten. */
  isFinished(batchId: string): boolean {
    const row = this.#get.get(batchId) as { finished_ms: number | null } | undefined;
    return !row || row.finished_ms !== null;
  }

  /** A job of a batch has gone on. Answers whether its failure stops the rest. */
  moved({ batchId, from, to, done }: BatchMove, nowMs: number): boolean {
    const [a, b] = [columnOf(from), columnOf(to)];
    const counts = from === to ? '' : `${a} = ${a} - 1, ${b} = ${b} + 1, `;
    let move = this.#moves.get(counts);
    if (!move) {
      move = this.#db.prepare(`UPDATE batches SET ${counts}done = done + ? WHERE batch_id = ?`);
      this.#moves.set(counts, move);
    }
    move.run(done, batchId);
    if (from === to || !isTerminal(to)) return false;
    if (this.#finish.run(nowMs, batchId).changes > 0 || to !== JobStatus.FAILED) return false;
    return this.#fail.run(nowMs, batchId).changes > 0;
  }

  /** The rest of its jobs is to be canceled. False: there is none. */
  cancel({ batchId, graceMs }: Stopping, nowMs: number): boolean {
    return this.#cancel.run(graceMs, nowMs, batchId).changes > 0;
  }

  stopping(): Stopping[] {
    return this.#stopping.all() as unknown as Stopping[];
  }

  stopped(batchId: string): void {
    this.#stopped.run(batchId);
  }

  /** Its jobs that have not ended, those first that take the results of others. */
  unended(batchId: string): JobId[] {
    const rows = this.#unended.all(batchId) as { job_id: string; status: number }[];
    return rows.filter(({ status }) => !isTerminal(status)).map(({ job_id }) => job_id);
  }

  /** A job of its is no more. Answers the key that the batch was known by, where that was its last one and it had one. */
  forgotten(batchId: string): { readonly tenant: string; readonly key: string } | undefined {
    if (this.#left.get(batchId)) return undefined;
    const row = this.#delete.get(batchId) as { tenant: string; idempotency_key: string | null } | undefined;
    this.#deleteMembers.run(batchId);
    this.#members.delete(batchId);
    return row && row.idempotency_key !== null ? { tenant: row.tenant, key: row.idempotency_key } : undefined;
  }

  #membersOf(batchId: string): readonly BatchMember[] {
    let members = this.#members.get(batchId);
    if (!members) {
      const row = this.#getMembers.get(batchId) as { members: string };
      members = (JSON.parse(row.members) as [string, string][]).map(([jobId, ref]) => ({ jobId, ref }));
      this.#members.set(batchId, members);
    }
    return members;
  }
}

function columnOf(status: JobStatus): string {
  return JobStatus[status]!.toLowerCase();
}
