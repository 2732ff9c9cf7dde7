// The jobs of a fleet as one process knows them: read with what is known already, changed by the newest version alone. Always true here: the same version
// is the same object; a step is worked out from a version, and written only while the record is at it.
import { isTerminal, type Job } from '../../jobs/job.ts';
import type { JobId } from '../../jobs/ports.ts';
import { canceledByCaller, type Step } from '../../jobs/steps.ts';
import type { WebhookRules } from '../../jobs/webhooks.ts';
import { Recent } from '../../recent.ts';
import type { RedisConnection, Reply } from './connection.ts';
import type { Committed } from './lease.ts';
import { afterCommit, applyStep, type Changed, decodeJob, encodeCommit, present, type RedisJob } from './record.ts';

export interface RedisJobsOptions {
  readonly redis: RedisConnection;
  readonly now: () => number;
  readonly webhookRules: WebhookRules;
  /** Jobs kept decoded. */
  readonly cacheSize: number;
  /** Told of each commit. `owed`: it means something for other jobs that is still to be written. */
  readonly committed: (changed: Changed, owed: boolean, nowMs: number) => void;
  /** Told of each job that a commit has ended. */
  readonly ended: (job: Job) => void;
}

/** A job, and its position where it is queued: see `present`. */
export interface Viewed {
  readonly stored: RedisJob;
  readonly position: number | null;
}

export class RedisJobs {
  readonly #options: RedisJobsOptions;
  readonly #known: Recent<RedisJob>;

  constructor(options: RedisJobsOptions) {
    this.#options = options;
    this.#known = new Recent(options.cacheSize);
  }

  async shown(id: JobId): Promise<Job | undefined> {
    const viewed = await this.view(id);
    return viewed && present(viewed.stored, viewed.position);
  }

  async view(id: JobId): Promise<Viewed | undefined> {
    const [viewed] = await this.views([id]);
    return viewed;
  }

  /** In the order of the ids; undefined where there is none. */
  async views(ids: readonly JobId[]): Promise<(Viewed | undefined)[]> {
    if (ids.length === 0) return [];
    const had = ids.map((id) => this.#known.get(id));
    const views = (await this.#options.redis.run(
      'view',
      ids.flatMap((id, i) => [id, had[i]?.ver ?? '']),
    )) as ([Buffer, number | null, Reply?] | null)[];
    return views
      .map((view, i) => view && { stored: view[2] ? this.decode(view[2]) : had[i]!, position: view[1] })
      .map((view) => view ?? undefined);
  }

  decode(record: Reply): RedisJob {
    const stored = decodeJob(record, this.#known);
    const { jobId } = stored.job;
    const known = this.#known.get(jobId);
    // The same version is the same object, so that whoever shows it does so once.
    if (known?.ver === stored.ver) return known;
    if (!known || known.ver < stored.ver) this.#known.set(jobId, stored);
    return stored;
  }

  /** One that this process has just written. */
  learn(stored: RedisJob): void {
    this.#known.set(stored.job.jobId, stored);
  }

  forget(id: JobId): void {
    this.#known.delete(id);
  }

  /** A caller's cancel. Unknown: undefined. */
  cancel(id: JobId, graceMs: number): Promise<Viewed | undefined> {
    return this.change(id, (stored) => canceledByCaller(stored, graceMs, stored.followers));
  }

  /** Works a step out from the newest record until it is made. `step` undefined: nothing is to be done. Unknown: undefined. */
  change(id: JobId, step: (stored: RedisJob) => Step | undefined): Promise<Viewed | undefined> {
    return this.alter(id, (stored) => {
      const wanted = step(stored);
      return wanted && applyStep(stored, wanted, this.#options.now());
    });
  }

  /** As `change`, of what is no step. */
  async alter(id: JobId, alter: (stored: RedisJob) => Changed | undefined): Promise<Viewed | undefined> {
    let viewed = await this.view(id);
    for (;;) {
      if (!viewed) return undefined;
      const { stored } = viewed;
      const changed = alter(stored);
      if (!changed) return viewed;
      const committed = await this.commit(stored, changed, { token: '', op: '' });
      if (committed.outcome === 'done') return committed;
      viewed = committed.outcome === 'again' ? committed : await this.view(id);
    }
  }

  /** Writes what was worked out from `before`. `fence`: the lease that writes, and the name of its write, so that one that is sent twice is made once. */
  async commit(before: RedisJob, changed: Changed, fence: { readonly token: string; readonly op: string }): Promise<Committed> {
    const { redis, now, webhookRules, committed, ended } = this.#options;
    const nowMs = now();
    const reply = (await redis.run('commit', encodeCommit(before, changed, fence, nowMs, webhookRules))) as [Buffer, ...Reply[]];
    const outcome = reply[0].toString();
    switch (outcome) {
      case 'done': {
        const stored = afterCommit(changed, before.ver + 1, fence.op || before.op);
        this.learn(stored);
        committed(changed, (reply[2] as number) > 0, nowMs);
        if (isTerminal(stored.job.status) && !isTerminal(before.job.status)) ended(stored.job);
        return { outcome, position: reply[1] as number | null, stored };
      }
      case 'again':
        return { outcome, position: reply[1] as number | null, stored: this.decode(reply[2]!) };
      case 'lost':
        return { outcome, stored: this.decode(reply[1]!) };
      case 'busy':
      case 'shared':
        return { outcome };
    }
    throw new Error(`the record of ${before.job.jobId} is gone from the job store`);
  }
}

/** Whether a caller's cancel is for the lease that holds the job to carry out: one that has left its run to others has ended, and its lease goes on. */
export function isToBeStopped({ job }: RedisJob): boolean {
  return job.cancelRequestedAt !== undefined && !isTerminal(job.status);
}
