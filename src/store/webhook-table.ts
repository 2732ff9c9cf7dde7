// The outbox of webhooks as rows. Always true here: of one job only the oldest delivery that is not dead has a time to be tried, and each host's entry
// says when its first one is due. A delivery that was taken is due again when its lease is over, so that a crash delays it and loses nothing.
import type { DatabaseSync } from 'node:sqlite';
import { fromBinary } from '@bufbuild/protobuf';
import { JobSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Job } from '../jobs/job.ts';
import type { Delivery, DeliveryPage, DeliveryQuery, NewDelivery, Outcome, TakeDeliveries, WebhookOutbox } from '../jobs/webhooks.ts';
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

  constructor(db: DatabaseSync) {
    this.#add = db.prepare(
      `INSERT INTO webhooks (delivery_id, job_id, tenant, url, host, status, created_ms, since_ms, due_ms, state)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#pending = db.prepare('SELECT 1 FROM webhooks WHERE job_id = ? AND dead = 0 LIMIT 1');
    this.#get = db.prepare('SELECT * FROM webhooks WHERE delivery_id = ?');
    this.#first = db.prepare('SELECT min(due_ms) AS due FROM webhooks WHERE host = ? AND due_ms IS NOT NULL');
    this.#setHost = db.prepare('INSERT OR REPLACE INTO webhook_hosts (host, due_ms) VALUES (?, ?)');
    this.#dropHost = db.prepare('DELETE FROM webhook_hosts WHERE host = ?');
    this.#hosts = db.prepare('SELECT host, due_ms FROM webhook_hosts ORDER BY due_ms LIMIT ?');
    this.#due = db.prepare('SELECT * FROM webhooks WHERE host = ? AND due_ms <= ? ORDER BY due_ms, seq LIMIT ?');
    this.#take = db.prepare('UPDATE webhooks SET due_ms = ?, attempts = attempts + 1 WHERE seq = ?');
    this.#delete = db.prepare('DELETE FROM webhooks WHERE delivery_id = ?');
    this.#retry = db.prepare('UPDATE webhooks SET due_ms = ?, error = ? WHERE delivery_id = ?');
    this.#bury = db.prepare('UPDATE webhooks SET due_ms = NULL, dead = 1, error = ? WHERE delivery_id = ?');
    this.#next = db.prepare('SELECT seq, host FROM webhooks WHERE job_id = ? AND dead = 0 ORDER BY seq LIMIT 1');
    this.#wake = db.prepare('UPDATE webhooks SET due_ms = ? WHERE seq = ?');
    this.#list = db.prepare('SELECT * FROM webhooks WHERE tenant = ? AND dead = ? AND seq < ? ORDER BY seq DESC LIMIT ?');
    this.#revive = db.prepare('UPDATE webhooks SET seq = ?, dead = 0, attempts = 0, since_ms = ?, due_ms = ? WHERE delivery_id = ?');
    this.#lastSeq = db.prepare('SELECT max(seq) AS seq FROM webhooks');
    this.#hostsOfJob = db.prepare('SELECT DISTINCT host FROM webhooks WHERE job_id = ?');
    this.#deleteJob = db.prepare('DELETE FROM webhooks WHERE job_id = ?');
  }

  add(delivery: NewDelivery, job: Job, nowMs: number): void {
    const { id, url, host, status } = delivery;
    const due = this.#pending.get(job.jobId) ? null : nowMs;
    this.#add.run(id, job.jobId, job.tenant, url, host, status, nowMs, nowMs, due, encodeState(job));
    if (due !== null) this.#touch(host);
  }

  take({ max, perHost, busy, leaseMs }: TakeDeliveries, nowMs: number): { deliveries: Delivery[]; nextMs: number | undefined } {
    const deliveries: Delivery[] = [];
    const full = [...busy.values()].filter((many) => many >= perHost).length;
    for (const { host, due_ms } of this.#hosts.all(max + full + 1) as { host: string; due_ms: number }[]) {
      if (due_ms > nowMs) return { deliveries, nextMs: due_ms };
      const room = Math.min(max - deliveries.length, perHost - (busy.get(host) ?? 0));
      if (room <= 0) continue;
      for (const row of this.#due.all(host, nowMs, room) as Row[]) {
        this.#take.run(nowMs + leaseMs, row.seq as number);
        deliveries.push({ ...decode(row), attempts: (row.attempts as number) + 1 });
      }
      this.#touch(host);
    }
    return { deliveries, nextMs: undefined };
  }

  settle({ id, attempts }: Delivery, outcome: Outcome, nowMs: number): void {
    const row = this.#get.get(id) as Row | undefined;
    if (!row || row.attempts !== attempts || row.dead !== 0) return;
    if (outcome.type === 'retry') this.#retry.run(outcome.atMs, outcome.error, id);
    else {
      if (outcome.type === 'delivered') this.#delete.run(id);
      else this.#bury.run(outcome.error, id);
      const next = this.#next.get(row.job_id as string) as { seq: number; host: string } | undefined;
      if (next) {
        this.#wake.run(nowMs, next.seq);
        this.#touch(next.host);
      }
    }
    this.#touch(row.host as string);
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
      this.#touch(row.host as string);
    }
    return decode(this.#get.get(id) as Row);
  }

  /** The job is forgotten, and nobody is told of it any more. */
  forgotten(jobId: string): void {
    const hosts = this.#hostsOfJob.all(jobId) as { host: string }[];
    if (hosts.length === 0) return;
    this.#deleteJob.run(jobId);
    for (const { host } of hosts) this.#touch(host);
  }

  #touch(host: string): void {
    const { due } = this.#first.get(host) as { due: number | null };
    if (due === null) this.#dropHost.run(host);
    else this.#setHost.run(host, due);
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

  take(want: TakeDeliveries): Promise<{ deliveries: Delivery[]; nextMs: number | undefined }> {
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
