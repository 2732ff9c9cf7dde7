// What a Redis is like as the job store of a fleet. Always true: nothing is made or changed there.
import { redisPlace } from '../../redis-place.ts';
import { checkServer } from './checks.ts';
import { RedisConnection } from './connection.ts';
import { schemaProblem } from './schema.ts';

export interface Inspected {
  /** The store, without its password. */
  readonly store: string;
  /** `7.4.1` */
  readonly version: string;
  /** The fleet has something there already. */
  readonly exists: boolean;
  /** What is not guaranteed with it. */
  readonly warnings: readonly string[];
}

/** Throws an `Error` in words where it cannot be used. */
export async function inspectRedisJobStore({
  url,
  fleet,
  timeoutMs,
}: {
  readonly url: string;
  readonly fleet: string;
  readonly timeoutMs?: number;
}): Promise<Inspected> {
  const place = redisPlace(url);
  const redis = new RedisConnection({ place, fleet, log: undefined, timeoutMs });
  await redis.open();
  try {
    const warnings = await checkServer(redis);
    const meta = await redis.hash('meta');
    const { schema, migrating } = meta;
    if (schema !== undefined) {
      const problem = schemaProblem(Number(schema.toString()), migrating && Number(migrating.toString()), place.shown);
      if (problem !== undefined) throw new Error(problem);
    }
    const facts = await redis.facts();
    const version = facts.get('valkey_version') ?? facts.get('redis_version') ?? 'unknown';
    return { store: place.shown, version, exists: schema !== undefined, warnings };
  } finally {
    redis.disconnect();
  }
}
