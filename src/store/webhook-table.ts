// The outbox of webhooks as rows. Always true here: of one job only the oldest delivery that is not dead has a time to be tried; the entries of each tenant and
// of each of its hosts say when their first one is due. A delivery that was taken is due again when its lease is over, so that a crash delays it and loses nothing.
import type { DatabaseSync } from 'node:sqlite';
import { fromBinary } from '@bufbuild/protobuf';
import { JobSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Job } from '../jobs/job.ts';
import {
  type Delivery,
  type DeliveryPage,
  type DeliveryQuery,
  GIVE_WAY,
  type NewDelivery,
  type NewsLimit,
  type Outcome,
  type TakeDeliveries,
  type TakenDeliveries,
  type WebhookOutbox,
} from '../jobs/webhooks.ts';
import { encodeState } from './job-table.ts';

type Row = Record<string, unknown>;
type Step = <T>(durable: boolean, run: () => T) => Promise<T>;

export class WebhookTable {
  readonly #add;
  readonly #pending;
  readonly #get;
  readonly #first;
  readonly #setHost;
  readonly #dropHost;
  readonly #hosts;
  readonly #firstHost;
  readonly #setTenant;
  readonly #dropTenant;
  readonly #tenants;
  readonly #due;
  readonly #take;
  readonly #delete;
  readonly #retry;
  readonly #bury;
  readonly #next;
  readonly #wake;
  readonly #list;
  readonly #revive;
  readonly #lastSeq;
  readonly #hostsOfJob;
  readonly #deleteJob;
  readonly #newsOf;
  readonly #oldestNews;
  #gaveWay = 0;

  constructor(db: DatabaseSync) {
    this.#add = db.prepare(
      `INSERT INTO webhooks (delivery_id, job_id, tenant, url, host, status, created_ms, since_ms, due_ms, state, news)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#pending = db.prepare('SELECT 1 FROM webhooks WHERE job_id = ? AND dead = 0 LIMIT 1');
    this.#get = db.prepare('SELECT * FROM webhooks WHERE delivery_id = ?');
    this.#first = db.prepare('SELECT min(due_ms) AS due FROM webhooks WHERE tenant = ? AND host = ? AND due_ms IS NOT NULL');
    this.#setHost = db.prepare('INSERT OR REPLACE INTO webhook_hosts (tenant, host, due_ms) VALUES (?, ?, ?)');
    this.#dropHost = db.prepare('DELETE FROM webhook_hosts WHERE tenant = ? AND host = ?');
    this.#hosts = db.prepare('SELECT host, due_ms FROM webhook_hosts WHERE tenant = ? ORDER BY due_ms LIMIT ?');
    this.#firstHost = db.prepare('SELECT min(due_ms) AS due FROM webhook_hosts WHERE tenant = ?');
    this.#setTenant = db.prepare('INSERT OR REPLACE INTO webhook_tenants (tenant, due_ms) VALUES (?, ?)');
    this.#dropTenant = db.prepare('DELETE FROM webhook_tenants WHERE tenant = ?');
    this.#tenants = db.prepare('SELECT tenant, due_ms FROM webhook_tenants ORDER BY due_ms LIMIT ?');
    this.#due = db.prepare('SELECT * FROM webhooks WHERE tenant = ? AND host = ? AND due_ms <= ? ORDER BY due_ms, seq LIMIT ?');
    this.#take = db.prepare('UPDATE webhooks SET due_ms = ?, attempts = attempts + 1 WHERE seq = ?');
    this.#delete = db.prepare('DELETE FROM webhooks WHERE delivery_id = ?');
    this.#retry = db.prepare('UPDATE webhooks SET due_ms = ?, error = ? WHERE delivery_id = ?');
    this.#bury = db.prepare('UPDATE webhooks SET due_ms = NULL, dead = 1, error = ? WHERE delivery_id = ?');
    this.#next = db.prepare('SELECT seq, host FROM webhooks WHERE job_id = ? AND dead = 0 ORDER BY seq LIMIT 1');
    this.#wake = db.prepare('UPDATE webhooks SET due_ms = ? WHERE seq = ?');
    this.#list = db.prepare('SELECT * FROM webhooks WHERE tenant = ? AND dead = ? AND seq < ? ORDER BY seq DESC LIMIT ?');
    this.#revive = db.prepare(
      'UPDATE webhooks SET seq = ?, dead = 0, news = 0, attempts = 0, since_ms = ?, due_ms = ? WHERE delivery_id = ?',
    );
    this.#lastSeq = db.prepare('SELECT max(seq) AS seq FROM webhooks');
    this.#hostsOfJob = db.prepare('SELECT DISTINCT tenant, host FROM webhooks WHERE job_id = ?');
    this.#deleteJob = db.prepare('DELETE FROM webhooks WHERE job_id = ?');
    this.#newsOf = db.prepare('SELECT waiting FROM webhook_news WHERE tenant = ?');
    this.#oldestNews = db.prepare('SELECT * FROM webhooks WHERE tenant = ? AND news = 1 AND dead = 0 ORDER BY seq LIMIT ?');
  }

  add(delivery: NewDelivery, job: Job, nowMs: number): void {
    const { id, url, host, status, news } = delivery;
    const due = this.#pending.get(job.jobId) ? null : nowMs;
    this.#add.run(id, job.jobId, job.tenant, url, host, status, nowMs, nowMs, due, encodeState(job), Number(news !== undefined));
    if (due !== null) this.#touch(job.tenant, host);
    if (news) this.#makeRoom(job.tenant, news, nowMs);
  }

  /** The oldest that tell of no end are dead, where there are more than may be. */
  #makeRoom(tenant: string, { most, why }: NewsLimit, nowMs: number): void {
    const { waiting } = this.#newsOf.get(tenant) as { waiting: number };
    if (waiting <= most) return;
    for (const row of this.#oldestNews.all(tenant, Math.min(waiting - most, GIVE_WAY)) as Row[]) {
      this.#leave(row, why, nowMs);
      this.#gaveWay++;
    }
  }

  take({ max, perHost, perTenant, underWay, leaseMs }: TakeDeliveries, nowMs: number): TakenDeliveries {
    const hosts = new Counts(underWay.map(({ host }) => host));
    const tenants = new Counts(underWay.map(({ tenant }) => tenant));
    let nextMs: number | undefined;
    const later = (dueMs: number) => {
      nextMs = Math.min(dueMs, nextMs ?? dueMs);
    };
    /** Who is due, of the first so many. */
    const dueOf = <T extends { due_ms: number }>(entries: T[]): T[] => {
      const first = entries.findIndex(({ due_ms }) => due_ms > nowMs);
      if (first === -1) return entries;
      later(entries[first]!.due_ms);
      return entries.slice(0, first);
    };
    // So many hosts have no room at the most when all is given.
    const full = Math.floor((underWay.length + max) / perHost);
    const rowsOf = (tenant: string): Iterator<Row> => {
      const due = dueOf(this.#hosts.all(tenant, perTenant + full + 1) as { host: string; due_ms: number }[]);
      const line = due.map(({ host }) => {
        let rows: Row[] | undefined;
        return {
          many: () => hosts.of(host),
          next: () => {
            rows ??= (this.#due.all(tenant, host, nowMs, perHost) as Row[]).reverse();
            const row = rows.pop();
            if (row) hosts.add(host);
            return row;
          },
        };
      });
      return byTurns(line, perHost);
    };
    const line = dueOf(this.#tenants.all(max + tenants.size + 1) as { tenant: string; due_ms: number }[]).map(({ tenant }) => {
      let rows: Iterator<Row> | undefined;
      return {
        many: () => tenants.of(tenant),
        next: () => {
          rows ??= rowsOf(tenant);
          const { value: row } = rows.next() as IteratorResult<Row, undefined>;
          if (row) tenants.add(tenant);
          return row;
        },
      };
    });
    const deliveries: Delivery[] = [];
    const turns = byTurns(line, perTenant);
    while (deliveries.length < max) {
      const { value: row } = turns.next();
      if (!row) break;
      this.#take.run(nowMs + leaseMs, row.seq as number);
      deliveries.push({ ...decode(row), attempts: (row.attempts as number) + 1 });
    }
    const touched = new Map(deliveries.map((one) => [`${one.host} ${one.tenant}`, one]));
    for (const { tenant, host } of touched.values()) this.#touch(tenant, host);
    const gaveWay = this.#gaveWay;
    this.#gaveWay = 0;
    return { deliveries, nextMs, gaveWay };
  }

  settle({ id, attempts }: Delivery, outcome: Outcome, nowMs: number): void {
    const row = this.#get.get(id) as Row | undefined;
    if (!row || row.attempts !== attempts) return;
    if (row.dead !== 0) {
      // It gave way while it was under way, and has arrived.
      if (outcome.type === 'delivered') this.#delete.run(id);
      return;
    }
    if (outcome.type === 'retry') {
      this.#retry.run(outcome.atMs, outcome.error, id);
      this.#touch(row.tenant as string, row.host as string);
    } else this.#leave(row, outcome.type === 'dead' ? outcome.error : undefined, nowMs);
  }

  /** It is tried no more; the next of its job is. `error` undefined: it is delivered. */
  #leave(row: Row, error: string | undefined, nowMs: number): void {
    const { delivery_id: id, job_id: jobId, tenant, host } = row as Record<string, string>;
    if (error === undefined) this.#delete.run(id!);
    else this.#bury.run(error, id!);
    const next = row.due_ms === null ? undefined : (this.#next.get(jobId!) as { seq: number; host: string } | undefined);
    if (next) {
      this.#wake.run(nowMs, next.seq);
      this.#touch(tenant!, next.host);
    }
    this.#touch(tenant!, host!);
  }

  list({ tenant, dead, pageSize, before = Number.MAX_SAFE_INTEGER }: DeliveryQuery): DeliveryPage {
    const rows = this.#list.all(tenant, Number(dead), before, pageSize) as Row[];
    return { deliveries: rows.map(decode), next: rows.length < pageSize ? undefined : (rows.at(-1)!.seq as number) };
  }

  replay(tenant: string, id: string, nowMs: number): Delivery | undefined {
    const row = this.#get.get(id) as Row | undefined;
    if (!row || row.tenant !== tenant) return undefined;
    if (row.dead !== 0) {
      const { seq } = this.#lastSeq.get() as { seq: number };
      this.#revive.run(seq + 1, nowMs, this.#pending.get(row.job_id as string) ? null : nowMs, id);
      this.#touch(tenant, row.host as string);
    }
    return decode(this.#get.get(id) as Row);
  }

  /** The job is forgotten, and nobody is told of it any more. */
  forgotten(jobId: string): void {
    const hosts = this.#hostsOfJob.all(jobId) as { tenant: string; host: string }[];
    if (hosts.length === 0) return;
    this.#deleteJob.run(jobId);
    for (const { tenant, host } of hosts) this.#touch(tenant, host);
  }

  /** When they are due has changed. */
  #touch(tenant: string, host: string): void {
    const { due } = this.#first.get(tenant, host) as { due: number | null };
    if (due === null) this.#dropHost.run(tenant, host);
    else this.#setHost.run(tenant, host, due);
    const { due: first } = this.#firstHost.get(tenant) as { due: number | null };
    if (first === null) this.#dropTenant.run(tenant);
    else this.#setTenant.run(tenant, first);
  }
}

class Counts {
  readonly #many = new Map<string, number>();

  constructor(names: readonly string[]) {
    for (const name of names) this.add(name);
  }

  get size(): number {
    return this.#many.size;
  }

  of(name: string): number {
    return this.#many.get(name) ?? 0;
  }

  add(name: string): void {
    this.#many.set(name, this.of(name) + 1);
  }
}

/** In a line of the longest due first. `next` undefined: has no more. */
interface Turn<T> {
  /** How many it has. */
  readonly many: () => number;
  readonly next: () => T | undefined;
}

/** What they give, one at a time: who has the fewest is next, and nobody comes to more than `most`. */
function* byTurns<T>(line: readonly Turn<T>[], most: number): Generator<T, undefined> {
  for (let many = 0; many < most; many++) {
    for (const turn of line) {
      const one = turn.many() === many ? turn.next() : undefined;
      if (one !== undefined) yield one;
    }
  }
}

export class SqliteOutbox implements WebhookOutbox {
  onDue = () => {};
  readonly #table: WebhookTable;
  readonly #step: Step;
  readonly now: () => number;

  constructor(table: WebhookTable, step: Step, now: () => number) {
    this.#table = table;
    this.#step = step;
    this.now = now;
  }

  take(want: TakeDeliveries): Promise<TakenDeliveries> {
    return this.#step(false, () => this.#table.take(want, this.now()));
  }

  settle(delivery: Delivery, outcome: Outcome): Promise<void> {
    return this.#step(false, () => this.#table.settle(delivery, outcome, this.now()));
  }

  async list(query: DeliveryQuery): Promise<DeliveryPage> {
    return this.#table.list(query);
  }

  async replay(tenant: string, id: string): Promise<Delivery | undefined> {
    const delivery = await this.#step(true, () => this.#table.replay(tenant, id, this.now()));
    if (delivery) this.onDue();
    return delivery;
  }
}

function decode(row: Row): Delivery {
  return {
    id: row.delivery_id as string,
    url: row.url as string,
    host: row.host as string,
    status: row.status as number,
    tenant: row.tenant as string,
    jobId: row.job_id as string,
    job: fromBinary(JobSchema, row.state as Uint8Array),
    createdMs: row.created_ms as number,
    sinceMs: row.since_ms as number,
    attempts: row.attempts as number,
    dead: row.dead !== 0,
    error: (row.error as string | null) ?? undefined,
  };
}
