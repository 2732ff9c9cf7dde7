// Jobs and their events as rows. Always true here: a `StoredJob` is immutable and the newest there is, whether it comes from the cache or
// from its row, because this process is the file's only writer and every write goes through `insert`, `update` and `hold`. What `hold` keeps in memory
// alone is a claim: a row without one reads as it must be after a restart, queued.
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { type JobEvent, JobEventSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { type Job, JobRequestSchema, JobSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobStatus } from '../jobs/job.ts';
import type { JobId, JobQuery, Sequence } from '../jobs/ports.ts';
import type { Subject } from '../jobs/steps.ts';
import { Recent } from '../recent.ts';
import { filterScope, pageTokenRefused } from './job-filter.ts';
import type { QueuedJob } from './ready-queue.ts';
import type { Tokens } from './tokens.ts';

/** A job, without its queue position, which is not its own, and what the store alone knows of it. */
export interface StoredJob extends Subject {
  readonly num: number;
  readonly tenant: string;
  readonly score: number;
  readonly readyAtMs: number;
  /** The node that holds its lease; undefined where it is not held. */
  readonly node: string | undefined;
  readonly change: number;
  readonly trimmedTo: Sequence;
}

const EVENT_KIND = { state: 1, progress: 2, log: 3 } as const;

type Row = Record<string, unknown>;
type Bind = string | number | null | Uint8Array;

const COLUMNS =
  'num, tenant, score, ready_ms, deadline_ms, max_attempts, spent, kills, node, result_key, change_no, trimmed_to, state, request, job_id, created_ms';

const LAST_NUM = 'last_num';
const LAST_CHANGE = 'last_change';

/** What a step may change of a row, and how it is read from a job. */
const CHANGING: readonly (readonly [column: string, (stored: StoredJob) => Exclude<Bind, Uint8Array>])[] = Object.entries({
  status: ({ job }) => job.status,
  ready_ms: ({ readyAtMs }) => readyAtMs,
  deadline_ms: ({ deadlineMs }) => deadlineMs ?? null,
  spent: ({ spent }) => spent,
  kills: ({ kills }) => kills,
  node: ({ node }) => node ?? null,
  error_reason: ({ job }) => job.error?.reason ?? null,
  result_key: ({ blob }) => blob ?? null,
  change_no: ({ change }) => change,
  trimmed_to: ({ trimmedTo }) => trimmedTo,
} satisfies Record<string, (stored: StoredJob) => Exclude<Bind, Uint8Array>>);
/** In a set of columns, the bit after those of `CHANGING`. */
const STATE = 1 << CHANGING.length;

export interface JobTableOptions {
  /** Jobs kept decoded. */
  readonly cacheSize: number;
  readonly tokens: Tokens;
  /** Receives the way back of each change of memory. */
  readonly undo: (back: () => void) => void;
}

export class JobTable {
  readonly #db: DatabaseSync;
  readonly #options: JobTableOptions;
  /** Least recently used first. */
  readonly #cache: Recent<StoredJob>;
  /** Held jobs whose claim is in no row, and what their rows say. */
  readonly #held = new Map<string, { readonly now: StoredJob; readonly row: StoredJob }>();
  readonly #statements = new Map<string, StatementSync>();
  readonly #updates = new Map<number, StatementSync>();
  readonly #insertJob;
  readonly #insertEvent;
  readonly #insertLabel;
  readonly #byId;
  readonly #byNum;
  readonly #changes;
  readonly #events;
  readonly #lasting;
  readonly #trim;
  readonly #deleteJob;
  readonly #deleteEvents;
  readonly #deleteLabel;
  readonly #keepMark;
  #nextNum: number;
  #lastChange: number;

  constructor(db: DatabaseSync, options: JobTableOptions) {
    this.#db = db;
    this.#options = options;
    this.#cache = new Recent(options.cacheSize);
    this.#insertJob = db.prepare(
      `INSERT INTO jobs (num, job_id, tenant, status, created_ms, score, ready_ms, deadline_ms, max_attempts, spent, kills, batch_id, change_no,
         trimmed_to, state, request)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, 0, ?, ?)`,
    );
    this.#insertEvent = db.prepare('INSERT INTO events (num, sequence, kind, event) VALUES (?, ?, ?, ?)');
    this.#insertLabel = db.prepare('INSERT INTO labels (label, created_ms, num) VALUES (?, ?, ?)');
    this.#byId = db.prepare(`SELECT ${COLUMNS} FROM jobs WHERE job_id = ?`);
    this.#byNum = db.prepare(`SELECT ${COLUMNS} FROM jobs WHERE num = ?`);
    this.#changes = db.prepare(`SELECT ${COLUMNS} FROM jobs WHERE change_no > ? ORDER BY change_no LIMIT ?`);
    this.#events = db.prepare('SELECT sequence, event FROM events WHERE num = ? AND sequence > ? ORDER BY sequence LIMIT ?');
    this.#lasting = db.prepare(
      `SELECT sequence, event FROM events WHERE num = ? AND sequence > ? AND sequence < ? AND kind <> ${EVENT_KIND.progress}
       ORDER BY sequence LIMIT ?`,
    );
    this.#trim = db.prepare(`DELETE FROM events WHERE num = ? AND sequence <= ? AND kind <> ${EVENT_KIND.state}`);
    this.#deleteJob = db.prepare('DELETE FROM jobs WHERE num = ?');
    this.#deleteEvents = db.prepare('DELETE FROM events WHERE num = ?');
    this.#deleteLabel = db.prepare('DELETE FROM labels WHERE label = ? AND created_ms = ? AND num = ?');
    this.#keepMark = db.prepare('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)');
    const { num, change } = db.prepare('SELECT max(num) AS num, max(change_no) AS change FROM jobs').get() as Record<string, number | null>;
    const mark = db.prepare('SELECT value FROM meta WHERE key = ?');
    const marked = (key: string) => Number(Buffer.from((mark.get(key) as { value: Uint8Array } | undefined)?.value ?? []).toString());
    this.#nextNum = Math.max(num ?? 0, marked(LAST_NUM)) + 1;
    // A gap at each start: change numbers that power loss took away are not given out again, so no token can point past news.
    const last = Math.max(change ?? 0, marked(LAST_CHANGE));
    this.#lastChange = last === 0 ? 0 : last + 1_000_000;
  }

  /** Number of the latest change. */
  get lastChange(): number {
    return this.#lastChange;
  }

  nextChange(): number {
    return ++this.#lastChange;
  }

  get(jobId: string): StoredJob | undefined {
    return this.#known(jobId) ?? this.#read(this.#byId.get(jobId) as Row | undefined);
  }

  /** One that is in the queue: found by its place in the file, of which neighbours in the queue share pages, and not through an index of random ids. */
  queued({ num, jobId }: QueuedJob): StoredJob {
    return this.#known(jobId) ?? this.#read(this.#byNum.get(num) as Row | undefined)!;
  }

  #read(row: Row | undefined): StoredJob | undefined {
    if (!row) return undefined;
    const stored = decode(row);
    this.#cache.set(stored.job.jobId, stored);
    return stored;
  }

  /** Adds a new job and its labels. `num` and `change` are given here. */
  insert(facts: Omit<StoredJob, 'num' | 'change' | 'trimmedTo' | 'node' | 'held' | 'blob' | 'spent' | 'kills'>): StoredJob {
    const stored: StoredJob = {
      ...facts,
      num: this.#nextNum++,
      change: this.nextChange(),
      trimmedTo: 0,
      node: undefined,
      held: false,
      blob: undefined,
      spent: 0,
      kills: 0,
    };
    const { job } = stored;
    const created = timestampMs(job.createdAt!);
    this.#insertJob.run(
      stored.num,
      job.jobId,
      stored.tenant,
      job.status,
      created,
      stored.score,
      stored.readyAtMs,
      stored.deadlineMs ?? null,
      stored.maxAttempts,
      job.batchId ?? null,
      stored.change,
      encodeState(job),
      toBinary(JobRequestSchema, job.request!),
    );
    for (const [key, value] of Object.entries(job.request!.labels)) {
      this.#insertLabel.run(key, created, stored.num);
      this.#insertLabel.run(`${key}=${value}`, created, stored.num);
    }
    this.#changed(stored);
    return stored;
  }

  /** Writes what is new since `before`, the job as it was: the indexes of a column that stays are not touched. */
  update(before: StoredJob, next: StoredJob): void {
    const { jobId } = next.job;
    const held = this.#held.get(jobId);
    const row = held?.row ?? before;
    let columns = 0;
    const bind: Bind[] = [];
    CHANGING.forEach(([, read], i) => {
      const value = read(next);
      if (value === read(row)) return;
      columns |= 1 << i;
      bind.push(value);
    });
    if (next.job !== row.job) {
      columns |= STATE;
      bind.push(encodeState(next.job));
    }
    if (columns !== 0) this.#updating(columns).run(...bind, next.num);
    if (held) {
      this.#held.delete(jobId);
      this.#options.undo(() => this.#held.set(jobId, held));
    }
    this.#changed(next);
  }

  /** Removes a job with its events and labels. */
  delete({ num, job }: StoredJob): void {
    const created = timestampMs(job.createdAt!);
    for (const [key, value] of Object.entries(job.request!.labels)) {
      this.#deleteLabel.run(key, created, num);
      this.#deleteLabel.run(`${key}=${value}`, created, num);
    }
    this.#deleteEvents.run(num);
    this.#deleteJob.run(num);
    this.#cache.delete(job.jobId);
  }

  /** After jobs were deleted: the numbers that they had are not given out again, over a restart either. */
  keepMarks(): void {
    this.#keepMark.run(LAST_NUM, Buffer.from(String(this.#nextNum - 1)));
    this.#keepMark.run(LAST_CHANGE, Buffer.from(String(this.#lastChange)));
  }

  /** Keeps a claim in memory, until the first thing that is written of the job. */
  hold(before: StoredJob, next: StoredJob): void {
    const { jobId } = next.job;
    this.#held.set(jobId, { now: next, row: before });
    this.#options.undo(() => this.#held.delete(jobId));
  }

  appendEvent(num: number, event: JobEvent): void {
    const kind = EVENT_KIND[event.event.case as keyof typeof EVENT_KIND];
    this.#insertEvent.run(num, event.sequence, kind, toBinary(JobEventSchema, event));
  }

  /** Deletes progress and log events up to a sequence. */
  trimEvents(num: number, to: Sequence): void {
    this.#trim.run(num, to);
  }

  /** Stored events after a sequence, in order. */
  events(num: number, after: Sequence, limit: number, known: (sequence: Sequence) => JobEvent | undefined): JobEvent[] {
    return this.#decodeEvents(this.#events.all(num, after, limit) as Row[], known);
  }

  /** As `events`, without progress, and only those before a sequence. */
  lastingEvents(
    num: number,
    after: Sequence,
    before: Sequence,
    limit: number,
    known: (sequence: Sequence) => JobEvent | undefined,
  ): JobEvent[] {
    return this.#decodeEvents(this.#lasting.all(num, after, before, limit) as Row[], known);
  }

  /** Jobs changed after a change number, in the order of their latest change. */
  changedAfter(change: number, limit: number): StoredJob[] {
    return (this.#changes.all(change, limit) as Row[]).map((row) => this.#newest(row));
  }

  /** What a reopened store has to go on with, in one look at the jobs that have not ended: those for its queue, and the ids of those that somebody held. */
  *unended(): Iterable<{ readonly queued: QueuedJob } | { readonly held: JobId }> {
    const rows = this.#db
      .prepare(
        'SELECT num, job_id, tenant, score, ready_ms, deadline_ms, node FROM jobs INDEXED BY jobs_by_status WHERE status IN (?, ?) ORDER BY status, created_ms',
      )
      .iterate(JobStatus.QUEUED, JobStatus.PROCESSING) as Iterable<Row>;
    for (const row of rows) {
      if (row.node !== null) {
        yield { held: row.job_id as string };
        continue;
      }
      const queued: QueuedJob = {
        num: row.num as number,
        jobId: row.job_id as string,
        tenant: row.tenant as string,
        score: row.score as number,
        readyAtMs: row.ready_ms as number,
        deadlineMs: (row.deadline_ms as number | null) ?? undefined,
      };
      yield { queued };
    }
  }

  /** One page, newest first, and the token of the next one. */
  list(query: JobQuery): { readonly jobs: readonly StoredJob[]; readonly nextPageToken: string | undefined } {
    const scope = filterScope(query);
    const after = query.pageToken === undefined ? undefined : this.#place(query.pageToken, scope);
    const statuses = query.statuses?.length ? [...new Set(query.statuses)] : [undefined];
    const rows = statuses.flatMap((status) => this.#page(query, status, after));
    // Each status comes sorted from its index; several are merged here.
    if (statuses.length > 1) {
      rows.sort((a, b) => (b.created_ms as number) - (a.created_ms as number) || (b.num as number) - (a.num as number));
    }
    const last = rows.length > query.pageSize ? rows[query.pageSize - 1] : undefined;
    return {
      jobs: rows.slice(0, query.pageSize).map((row) => this.#newest(row)),
      nextPageToken: last && this.#options.tokens.seal('page', [last.created_ms as number, last.num as number], scope),
    };
  }

  #place(token: string, scope: string): { readonly created: number; readonly num: number } {
    const opened = this.#options.tokens.open('page', token, scope);
    if (!opened) throw pageTokenRefused();
    return { created: opened[0]!, num: opened[1]! };
  }

  #page(query: JobQuery, status: JobStatus | undefined, after: { readonly created: number; readonly num: number } | undefined): Row[] {
    const where: string[] = [];
    const bind: Exclude<Bind, Uint8Array>[] = [];
    const labels = (query.labels ?? []).map(({ key, value }) => (value === undefined ? key : `${key}=${value}`));
    const and = (condition: string, ...values: Exclude<Bind, Uint8Array>[]) => {
      where.push(condition);
      bind.push(...values);
    };
    // The narrowest filter leads, and its index gives the order; the others are checked on what it finds.
    let from: string;
    const time = labels.length > 0 ? 'l' : 'j';
    if (labels.length > 0) {
      from = 'labels AS l CROSS JOIN jobs AS j ON j.num = l.num';
      and('l.label = ?', labels[0]!);
      for (const label of labels.slice(1)) {
        and('EXISTS (SELECT 1 FROM labels AS m WHERE m.label = ? AND m.created_ms = l.created_ms AND m.num = l.num)', label);
      }
    } else if (query.batchId !== undefined) from = 'jobs AS j INDEXED BY jobs_by_batch';
    else if (query.errorReason !== undefined) from = 'jobs AS j INDEXED BY jobs_by_error';
    else if (query.tenant !== undefined && status !== undefined) from = 'jobs AS j INDEXED BY jobs_by_tenant_status';
    else if (status !== undefined) from = 'jobs AS j INDEXED BY jobs_by_status';
    else if (query.tenant !== undefined) from = 'jobs AS j INDEXED BY jobs_by_tenant';
    else from = 'jobs AS j INDEXED BY jobs_by_time';
    if (query.tenant !== undefined) and('j.tenant = ?', query.tenant);
    if (status !== undefined) and('j.status = ?', status);
    if (query.batchId !== undefined) and('j.batch_id = ?', query.batchId);
    if (query.errorReason !== undefined) and('j.error_reason = ?', query.errorReason);
    if (query.createdAfterMs !== undefined) and(`${time}.created_ms >= ?`, query.createdAfterMs);
    if (query.createdBeforeMs !== undefined) and(`${time}.created_ms < ?`, query.createdBeforeMs);
    if (after) and(`(${time}.created_ms, ${time}.num) < (?, ?)`, after.created, after.num);
    const columns = COLUMNS.split(', ').map((column) => `j.${column}`);
    const sql = `SELECT ${columns.join(', ')} FROM ${from}${where.length > 0 ? ` WHERE ${where.join(' AND ')}` : ''}
      ORDER BY ${time}.created_ms DESC, ${time}.num DESC LIMIT ?`;
    return this.#prepared(sql).all(...bind, query.pageSize + 1) as Row[];
  }

  /** Which columns a step changes is one of a few sets; each is prepared once. */
  #updating(columns: number): StatementSync {
    let statement = this.#updates.get(columns);
    if (!statement) {
      const names = CHANGING.flatMap(([column], i) => (columns & (1 << i) ? [column] : []));
      if (columns & STATE) names.push('state');
      statement = this.#db.prepare(`UPDATE jobs SET ${names.map((name) => `${name} = ?`).join(', ')} WHERE num = ?`);
      this.#updates.set(columns, statement);
    }
    return statement;
  }

  /** The shapes of a filter are few; each is prepared once. */
  #prepared(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #newest(row: Row): StoredJob {
    return this.#known(row.job_id as string) ?? decode(row);
  }

  #known(jobId: string): StoredJob | undefined {
    return this.#held.get(jobId)?.now ?? this.#cache.get(jobId);
  }

  #changed(stored: StoredJob): void {
    const { jobId } = stored.job;
    this.#options.undo(() => this.#cache.delete(jobId));
    this.#cache.set(stored.job.jobId, stored);
  }

  #decodeEvents(rows: readonly Row[], known: (sequence: Sequence) => JobEvent | undefined): JobEvent[] {
    return rows.map((row) => known(row.sequence as number) ?? fromBinary(JobEventSchema, row.event as Uint8Array));
  }
}

/** The job as it waits in the queue. */
export function queuedAs({ num, tenant, job, score, readyAtMs, deadlineMs }: StoredJob): QueuedJob {
  return { num, jobId: job.jobId, tenant, score, readyAtMs, deadlineMs };
}

export function encodeState(job: Job): Uint8Array {
  return toBinary(JobSchema, { ...job, request: undefined });
}

function decode(row: Row): StoredJob {
  const job = fromBinary(JobSchema, row.state as Uint8Array);
  job.request = fromBinary(JobRequestSchema, row.request as Uint8Array);
  job.tenant = row.tenant as string;
  return {
    num: row.num as number,
    tenant: row.tenant as string,
    job,
    score: row.score as number,
    readyAtMs: row.ready_ms as number,
    deadlineMs: (row.deadline_ms as number | null) ?? undefined,
    maxAttempts: row.max_attempts as number,
    spent: row.spent as number,
    kills: row.kills as number,
    node: (row.node as string | null) ?? undefined,
    held: row.node !== null,
    blob: (row.result_key as string | null) ?? undefined,
    change: row.change_no as number,
    trimmedTo: row.trimmed_to as number,
  };
}
