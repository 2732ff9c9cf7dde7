// How many jobs there are: by status, by tenant, ended by minute. Always true here: counted by the steps that change them and written with
// them, once a group, so that no question scans the jobs.
import type { DatabaseSync } from 'node:sqlite';
import { isTerminal, JobStatus } from '../jobs/job.ts';
import type { Overview } from '../jobs/ports.ts';
import { type Ended, stepsOf } from './throughput.ts';

const MINUTE_MS = 60_000;

export class JobFigures {
  readonly #undo: (back: () => void) => void;
  readonly #totals = new Map<JobStatus, number>();
  readonly #tenants = new Map<string, { queued: number; processing: number }>();
  readonly #addTotal;
  readonly #addEnded;
  readonly #readEnded;
  readonly #readOldest;
  /** Not yet written. */
  #totalsOwed = new Map<JobStatus, number>();
  #endedOwed = new Map<JobStatus, number>();
  #minute = 0;

  /** `undo` receives the way back of each change. */
  constructor(db: DatabaseSync, undo: (back: () => void) => void) {
    this.#undo = undo;
    this.#addTotal = db.prepare('INSERT INTO totals (status, jobs) VALUES (?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs');
    this.#addEnded = db.prepare(
      'INSERT INTO ended (minute, status, jobs) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs',
    );
    this.#readEnded = db.prepare('SELECT minute, status, jobs FROM ended WHERE minute >= ?');
    // One look into an index, whatever is queued.
    this.#readOldest = db.prepare('SELECT created_ms FROM jobs WHERE tenant = ? AND status = ? ORDER BY created_ms LIMIT 1');
    for (const row of db.prepare('SELECT status, jobs FROM totals').all() as { status: number; jobs: number }[]) {
      this.#totals.set(row.status, row.jobs);
    }
  }

  /** A job that a reopened store found; `moved` counts from there. */
  found(tenant: string, status: JobStatus): void {
    this.#count(tenant, status, 1);
  }

  queued(tenant: string): number {
    return this.#tenants.get(tenant)?.queued ?? 0;
  }

  /** Inside a step: a job came, went from one status to another, or is forgotten. */
  moved(tenant: string, from: JobStatus | undefined, to: JobStatus | undefined, nowMs: number): void {
    this.#minute = Math.floor(nowMs / MINUTE_MS);
    this.#move(tenant, from, to);
    this.#undo(() => {
      this.#move(tenant, to, from);
      this.#totalsOwed = new Map();
      this.#endedOwed = new Map();
    });
    if (from !== undefined) add(this.#totalsOwed, from, -1);
    if (to === undefined) return;
    add(this.#totalsOwed, to, 1);
    if (isTerminal(to)) add(this.#endedOwed, to, 1);
  }

  /** Before COMMIT: writes what the group has changed. */
  write(): void {
    if (this.#totalsOwed.size === 0) return;
    for (const [status, jobs] of this.#totalsOwed) if (jobs !== 0) this.#addTotal.run(status, jobs);
    for (const [status, jobs] of this.#endedOwed) this.#addEnded.run(this.#minute, status, jobs);
    this.#totalsOwed = new Map();
    this.#endedOwed = new Map();
  }

  overview(windowMs: number, nowMs: number): Overview {
    const { throughput, stepSeconds, firstMinute, add } = stepsOf(windowMs, nowMs);
    for (const row of this.#readEnded.all(firstMinute) as unknown as Ended[]) add(row);
    return {
      totals: new Map(this.#totals),
      queueByTenant: [...this.#tenants].map(([tenant, { queued, processing }]) => ({
        tenant,
        queued,
        processing,
        oldestQueuedMs: queued === 0 ? undefined : this.#oldestQueuedMs(tenant),
      })),
      throughput,
      stepSeconds,
    };
  }

  #oldestQueuedMs(tenant: string): number | undefined {
    return (this.#readOldest.get(tenant, JobStatus.QUEUED) as { created_ms: number } | undefined)?.created_ms;
  }

  #move(tenant: string, from: JobStatus | undefined, to: JobStatus | undefined): void {
    if (from !== undefined) {
      add(this.#totals, from, -1);
      this.#count(tenant, from, -1);
    }
    if (to !== undefined) {
      add(this.#totals, to, 1);
      this.#count(tenant, to, 1);
    }
  }

  #count(tenant: string, status: JobStatus, by: number): void {
    if (isTerminal(status)) return;
    const counts = this.#tenants.get(tenant) ?? { queued: 0, processing: 0 };
    counts[status === JobStatus.QUEUED ? 'queued' : 'processing'] += by;
    if (counts.queued + counts.processing > 0) this.#tenants.set(tenant, counts);
    else this.#tenants.delete(tenant);
  }
}

function add<K>(counts: Map<K, number>, key: K, by: number): void {
  counts.set(key, (counts.get(key) ?? 0) + by);
}
