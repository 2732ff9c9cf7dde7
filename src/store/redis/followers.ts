// Jobs that joined a run show how far it is. At most once in a while for each run, whatever comes meanwhile; what gets lost is made up for by what comes next.
import type { Progress } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import type { Fingerprint } from '../../jobs/fingerprint.ts';
import { eventOf, FOLLOW_MS, followed } from '../../jobs/steps.ts';
import { Recent } from '../../recent.ts';
import type { RedisConnection } from './connection.ts';
import type { RedisJobs } from './jobs.ts';

/** Runs whose last time is kept. */
const KEPT = 1000;

export interface FollowersOptions {
  readonly redis: RedisConnection;
  readonly jobs: RedisJobs;
  readonly now: () => number;
}

export class Followers {
  readonly #options: FollowersOptions;
  readonly #toldMs = new Recent<number>(KEPT);

  constructor(options: FollowersOptions) {
    this.#options = options;
  }

  /** Whether they are to be told again; then it is taken as done. */
  isDue(fingerprint: Fingerprint): boolean {
    const nowMs = performance.now();
    if (nowMs - (this.#toldMs.get(fingerprint) ?? Number.NEGATIVE_INFINITY) < FOLLOW_MS) return false;
    this.#toldMs.set(fingerprint, nowMs);
    return true;
  }

  async tell(fingerprint: Fingerprint, progress: Progress): Promise<void> {
    const { redis, jobs, now } = this.#options;
    const ids = (await redis.run('share', ['joined', fingerprint])) as Buffer[];
    for (const id of ids) {
      await jobs.alter(id.toString(), (stored) => {
        if (stored.fingerprint !== fingerprint || stored.held) return undefined;
        const nowMs = now();
        const said = followed(stored, progress, nowMs);
        if (!said) return undefined;
        const { job, event, visible } = said;
        return { next: { ...stored, job }, events: [eventOf(job, event, nowMs)], lease: 'keep', queue: undefined, visible };
      });
    }
  }
}
