// What has had its time goes: results, jobs, and the blobs that nobody refers to any more. Always true here: each job goes in a step of its own, so nodes that
// sweep at once do the same and nothing twice; a blob is deleted by one node at a time.
import { JobsError } from '../../jobs/errors.ts';
import type { Expired, JobId } from '../../jobs/ports.ts';
import { expired } from '../../jobs/steps.ts';
import type { RedisConnection } from './connection.ts';
import type { RedisJobs } from './jobs.ts';
import { labelsOf } from './record.ts';

/** How long a blob may take to be deleted before somebody else may try. */
const DELETION_MS = 600_000;

export interface RedisLifetimesOptions {
  readonly redis: RedisConnection;
  readonly jobs: RedisJobs;
  readonly now: () => number;
}

export class RedisLifetimes {
  readonly #options: RedisLifetimesOptions;
  #reclaiming: Promise<void> = Promise.resolve();

  constructor(options: RedisLifetimesOptions) {
    this.#options = options;
  }

  /** See `JobStore.expire`. */
  async expire({ jobTtlMs, max }: { readonly jobTtlMs: number; readonly max: number }): Promise<Expired> {
    const { redis, jobs, now } = this.#options;
    const nowMs = now();
    const entries = (await redis.run('share', ['expire', nowMs, max])) as number;
    const [results, ends] = (await redis.run('due', [nowMs, nowMs - jobTtlMs, max])) as [Buffer[], Buffer[]];
    for (const id of results) await jobs.change(id.toString(), expired);
    let forgotten = 0;
    for (const id of ends) forgotten += await this.#forget(id.toString());
    return { purged: results.length, forgotten, more: results.length === max || ends.length === max || entries === max };
  }

  /** A result that is still there goes first, and with it what its tenant has used. */
  async #forget(id: JobId): Promise<number> {
    const { redis, jobs } = this.#options;
    const found = (await jobs.view(id))?.stored.job;
    if (!found) return 0;
    if (found.result) await jobs.change(id, expired);
    const { idempotencyKey } = found.request!;
    const forgotten = await redis.run('forget', [id, idempotencyKey ?? '', found.batchId ?? '', ...labelsOf(found.request!)]);
    jobs.forget(id);
    return forgotten as number;
  }

  /** See `JobStore.reclaim`. One at a time, so that whoever has asked is answered when what was marked before is gone. */
  reclaim(remove: (key: string) => Promise<void>): Promise<void> {
    const reclaimed = this.#reclaiming.then(() => this.#reclaim(remove));
    this.#reclaiming = reclaimed.catch(() => {});
    return reclaimed;
  }

  async #reclaim(remove: (key: string) => Promise<void>): Promise<void> {
    const { redis } = this.#options;
    const keys = ((await redis.run('reclaim', ['list'])) as Buffer[]).map(String);
    const errors: unknown[] = [];
    for (const key of keys) {
      // A blob store that is away is asked for no more: the marks stay.
      if (errors.some((error) => error instanceof JobsError && error.kind === 'unavailable')) break;
      try {
        if ((await redis.run('reclaim', ['take', key, DELETION_MS])) !== 1) continue;
        const deleted = await remove(key).then(
          () => true,
          (error) => {
            errors.push(error);
            return false;
          },
        );
        await redis.run('reclaim', [deleted ? 'deleted' : 'failed', key]);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}
