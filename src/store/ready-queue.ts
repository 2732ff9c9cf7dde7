// The order of service over all queued jobs that nobody holds. Always true here: it mirrors what is committed, plus what the running group
// has done and can take back. Tenants share by weight through virtual time (start-time fair queueing: each claim moves its tenant on by
// 1/weight); within a tenant the lower score is first. Kept in memory, so that a claim or a position costs the same at 100,000 queued jobs.
import { NEVER_MS } from '../jobs/chains.ts';
import type { Rank } from '../jobs/ports.ts';
import { SortedList } from './sorted-list.ts';

export interface QueuedJob {
  readonly num: number;
  readonly jobId: string;
  readonly tenant: string;
  readonly score: number;
  /** Not to be claimed before. */
  readonly readyAtMs: number;
  /** To be failed when still queued by then. */
  readonly deadlineMs: number | undefined;
}

interface Flow {
  readonly tenant: string;
  readonly weight: number;
  /** Virtual start of the tenant's next job. Changed only while the flow is out of the sorted list. */
  virtual: number;
  readonly jobs: SortedList<QueuedJob>;
}

export interface Taken {
  readonly job: QueuedJob;
  readonly rank: Rank;
  /** The tenant's virtual time from now on. */
  readonly virtual: number;
}

export interface ReadyQueueOptions {
  /** Share of each tenant, 1 where absent. */
  readonly weights?: Readonly<Record<string, number>>;
  /** Whether a tenant may have one more job running; default: always. */
  readonly mayRun?: (tenant: string) => boolean;
  /** Receives the way back of each change. */
  readonly undo: (back: () => void) => void;
}

const text = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

export class ReadyQueue {
  readonly #options: ReadyQueueOptions;
  readonly #jobs = new Map<string, QueuedJob>();
  readonly #flows = new Map<string, Flow>();
  /** Flows that have a job ready. */
  readonly #active = new SortedList<Flow>((a, b) => a.virtual - b.virtual || text(a.tenant, b.tenant));
  readonly #delayed = new SortedList<QueuedJob>((a, b) => a.readyAtMs - b.readyAtMs || a.num - b.num);
  readonly #deadlines = new SortedList<QueuedJob>((a, b) => a.deadlineMs! - b.deadlineMs! || a.num - b.num);
  /** Virtual start of the job claimed last: where a tenant comes in that had nothing queued. */
  #virtual = 0;

  constructor(options: ReadyQueueOptions) {
    this.#options = options;
  }

  /** What a reopened store has, before its first step: the tenants' virtual times and the jobs that nobody held. */
  restore(flows: Iterable<{ readonly tenant: string; readonly virtual: number }>, jobs: Iterable<QueuedJob>, nowMs: number): void {
    for (const { tenant, virtual } of flows) this.#flow(tenant).virtual = virtual;
    for (const job of jobs) this.#insert(job, nowMs, true);
    // Virtual time goes on where the tenant that is next stands.
    this.#virtual = this.#active.first()?.virtual ?? Math.max(0, ...[...this.#flows.values()].map((flow) => flow.virtual));
  }

  /** Queues a job that has come, or that waits for another attempt. */
  add(job: QueuedJob, nowMs: number): void {
    const flow = this.#flow(job.tenant);
    const before = flow.virtual;
    this.#insert(job, nowMs);
    this.#options.undo(() => {
      this.#delete(job);
      this.#moveTo(flow, before);
    });
  }

  /** Puts a claimed job back at its place: the tenant is not charged for the claim. Answers the tenant's virtual time. */
  giveBack(job: QueuedJob, nowMs: number): number {
    const flow = this.#flow(job.tenant);
    const before = flow.virtual;
    // A tenant that had nothing else queued meanwhile comes just before the others, and gains no turns for the time it was away.
    const from = flow.jobs.size > 0 ? before : Math.max(before, this.#virtual);
    this.#moveTo(flow, from - 1 / flow.weight);
    const returned = flow.virtual;
    this.#insert(job, nowMs, true);
    this.#options.undo(() => {
      this.#delete(job);
      this.#moveTo(flow, before);
    });
    return returned;
  }

  remove(jobId: string): QueuedJob | undefined {
    const job = this.#jobs.get(jobId);
    if (!job) return undefined;
    const ready = this.#delete(job);
    this.#options.undo(() => this.#insert(job, ready ? job.readyAtMs : job.readyAtMs - 1, true));
    return job;
  }

  /** Jobs that wait for others and not for the clock. */
  waiting(): QueuedJob[] {
    return [...this.#jobs.values()].filter(({ readyAtMs }) => readyAtMs === NEVER_MS);
  }

  /** Whether `take` would give a job. */
  has(above: Rank | undefined): boolean {
    return this.#next(above) !== undefined;
  }

  /** The next job in order, were it claimed now. */
  first(): QueuedJob | undefined {
    return this.#next(undefined)?.jobs.first();
  }

  /** Takes out the next job in order; with `above`, only one that comes before that rank. */
  take(above: Rank | undefined): Taken | undefined {
    const flow = this.#next(above);
    if (!flow) return undefined;
    const job = flow.jobs.first()!;
    const rank: Rank = { flow: flow.virtual, score: job.score, tenant: job.tenant };
    const systemBefore = this.#virtual;
    this.#delete(job);
    this.#moveTo(flow, rank.flow + 1 / flow.weight);
    this.#virtual = Math.max(this.#virtual, rank.flow);
    this.#options.undo(() => {
      this.#virtual = systemBefore;
      this.#moveTo(flow, rank.flow);
      this.#insert(job, job.readyAtMs, true);
    });
    return { job, rank, virtual: flow.virtual };
  }

  /** Makes ready what was waiting for its time. */
  promote(nowMs: number): void {
    for (let job = this.#delayed.first(); job && job.readyAtMs <= nowMs; job = this.#delayed.first()) {
      this.#delayed.remove(job);
      this.#enter(job, false);
    }
  }

  /** Jobs whose deadline has passed; they stay until removed. */
  overdue(nowMs: number): QueuedJob[] {
    const late: QueuedJob[] = [];
    for (const job of this.#deadlines) {
      if (job.deadlineMs! > nowMs) break;
      late.push(job);
    }
    return late;
  }

  /** When `promote` will next have something. */
  nextReadyMs(): number | undefined {
    return this.#delayed.first()?.readyAtMs;
  }

  /** When `overdue` will next have something. */
  nextDeadlineMs(): number | undefined {
    return this.#deadlines.first()?.deadlineMs;
  }

  /**
   * Jobs that would be served before this one if nothing else came, 0 for the next; of a job that waits for its retry, as if it were ready.
   * undefined: not in the queue. Costs one step per tenant that has jobs ready.
   */
  position(jobId: string): number | undefined {
    const job = this.#jobs.get(jobId);
    if (!job) return undefined;
    const own = this.#flow(job.tenant);
    const ahead = own.jobs.rank(job);
    const start = (own.jobs.size > 0 ? own.virtual : Math.max(own.virtual, this.#virtual)) + ahead / own.weight;
    let position = ahead;
    for (const flow of this.#active) {
      if (flow.virtual > start) break;
      if (flow === own) continue;
      const turns = (start - flow.virtual) * flow.weight;
      // At equal virtual time the tenants' names decide, as they do in #active.
      const whole = Math.round(turns);
      const served = Math.abs(turns - whole) < 1e-9 ? whole + (flow.tenant < own.tenant ? 1 : 0) : Math.ceil(turns);
      position += Math.min(flow.jobs.size, served);
    }
    return position;
  }

  #next(above: Rank | undefined): Flow | undefined {
    const mayRun = this.#options.mayRun ?? (() => true);
    if (!above) {
      for (const flow of this.#active) if (mayRun(flow.tenant)) return flow;
      return undefined;
    }
    for (const flow of this.#active) {
      if (flow.tenant === above.tenant || !mayRun(flow.tenant)) continue;
      if (flow.virtual < above.flow || (flow.virtual === above.flow && flow.tenant < above.tenant)) return flow;
      break;
    }
    // The job with that rank goes back for the one that comes before it: no more of its tenant's are held than now.
    const own = this.#flows.get(above.tenant);
    const head = own?.jobs.first();
    return head && head.score < above.score ? own : undefined;
  }

  #flow(tenant: string): Flow {
    let flow = this.#flows.get(tenant);
    if (!flow) {
      const jobs = new SortedList<QueuedJob>((a, b) => a.score - b.score || a.num - b.num);
      flow = { tenant, weight: this.#options.weights?.[tenant] ?? 1, virtual: 0, jobs };
      this.#flows.set(tenant, flow);
    }
    return flow;
  }

  #insert(job: QueuedJob, nowMs: number, keepPlace = false): void {
    this.#jobs.set(job.jobId, job);
    if (job.deadlineMs !== undefined) this.#deadlines.add(job);
    if (job.readyAtMs > nowMs) this.#delayed.add(job);
    else this.#enter(job, keepPlace);
  }

  #enter(job: QueuedJob, keepPlace: boolean): void {
    const flow = this.#flow(job.tenant);
    if (flow.jobs.size === 0) {
      if (!keepPlace) flow.virtual = Math.max(flow.virtual, this.#virtual);
      this.#active.add(flow);
    }
    flow.jobs.add(job);
  }

  /** True: it was among the ready ones. */
  #delete(job: QueuedJob): boolean {
    this.#jobs.delete(job.jobId);
    if (job.deadlineMs !== undefined) this.#deadlines.remove(job);
    const flow = this.#flow(job.tenant);
    if (!flow.jobs.remove(job)) {
      this.#delayed.remove(job);
      return false;
    }
    if (flow.jobs.size === 0) this.#active.remove(flow);
    return true;
  }

  #moveTo(flow: Flow, virtual: number): void {
    const active = flow.jobs.size > 0;
    if (active) this.#active.remove(flow);
    flow.virtual = virtual;
    if (active) this.#active.add(flow);
  }
}
