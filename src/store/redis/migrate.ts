// Brings what a fleet has in Redis to the schema of this version. Always true here: each piece is moved by one script that leaves nothing half done, a store that is
// on its way is opened by nobody, and who was broken off is gone on from by whoever runs it again, at the same time too.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { JobsError } from '../../jobs/errors.ts';
import { redisPlace } from '../../redis-place.ts';
import { checkVersion } from './checks.ts';
import { RedisConnection } from './connection.ts';
import { newerSchema, SCHEMA } from './schema.ts';

/** `NNN-what.lua` brings schema NNN - 1 to NNN: with `P`, the prefix of keys, it moves about `MOST` things and returns how many, 0 where none is left. */
const FOLDER = join(import.meta.dirname, 'migrations');
/** So that a piece takes some milliseconds. */
const AT_ONCE = 500;

export interface MigrateOptions {
  readonly url: string;
  readonly fleet: string;
  readonly timeoutMs?: number;
  /** Told of each schema that it has come to, and of how many things were moved for it. */
  readonly report?: (schema: number, moved: number) => void;
  /** Other steps, for tests. */
  readonly steps?: Steps;
}

/** By the schema that each leads to. */
export type Steps = ReadonlyMap<number, string>;

export interface Migration {
  /** For people. */
  readonly store: string;
  /** undefined: there is no store yet. */
  readonly schemas: { readonly from: number; readonly to: number } | undefined;
}

/** Throws an `Error` in words where it cannot be done. */
export async function migrateRedisJobStore({ url, fleet, timeoutMs, report, steps = shippedSteps() }: MigrateOptions): Promise<Migration> {
  const place = redisPlace(url);
  const store = place.shown;
  const to = Math.max(1, ...steps.keys());
  const redis = new RedisConnection({ place, fleet, log: undefined, timeoutMs });
  await redis.open();
  try {
    checkVersion(await redis.facts());
    // Where the server does not tell, nothing is begun.
    await redis.listeners('ready');
    const [found, goesOn] = (await redis.evaluate(BEGIN, [to])) as [Buffer | null, Buffer | null];
    if (found === null) return { store, schemas: undefined };
    const from = Number(found.toString());
    if (from > to) throw new Error(newerSchema(from, to, store));
    if (!(from >= 1)) throw new Error(`the job store ${store} has schema ${found}, which no version has made`);
    if (from === to) return { store, schemas: { from, to } };
    const others = await redis.listeners('ready');
    if (others > 0) {
      // What has begun before stays on its way: part of it may be moved.
      if (goesOn === null) await redis.evaluate(LEAVE, []);
      throw new Error(
        `${others} ${others === 1 ? 'process uses' : 'processes use'} the job store ${store}: stop every node of the fleet '${fleet}', then migrate`,
      );
    }
    for (let schema = from + 1; schema <= to; schema++) {
      const text = steps.get(schema);
      if (text === undefined) throw new Error(`there is no step from schema ${schema - 1} to ${schema}`);
      let moved = 0;
      for (let more = -1; more !== 0; ) {
        more = (await redis.evaluate(stepOf(text), [schema, to, AT_ONCE])) as number;
        moved += more;
      }
      report?.(schema, moved);
    }
    return { store, schemas: { from, to } };
  } catch (error) {
    if (!(error instanceof JobsError)) throw error;
    throw new Error(
      `the job store ${store} was not migrated to its end: ${(error.cause as Error).message}; run it again when that is mended`,
      {
        cause: error,
      },
    );
  } finally {
    redis.disconnect();
  }
}

/** Those that come with this version. */
export function shippedSteps(): Steps {
  const steps = new Map(
    readdirSync(FOLDER)
      .filter((name) => /^\d{3}-.*\.lua$/.test(name))
      .map((name) => [Number(name.slice(0, 3)), readFileSync(join(FOLDER, name), 'utf8')]),
  );
  if (steps.size !== SCHEMA - 1) throw new Error(`schema ${SCHEMA} needs ${SCHEMA - 1} migrations, and there are ${steps.size}`);
  return steps;
}

/** Answers the schema, and to which one the store was on its way already. */
const BEGIN = `
local meta = redis.call('HMGET', KEYS[1] .. 'meta', 'schema', 'migrating')
if meta[1] and tonumber(meta[1]) >= 1 and tonumber(meta[1]) < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1] .. 'meta', 'migrating', ARGV[1]) end
return meta`;

const LEAVE = `return redis.call('HDEL', KEYS[1] .. 'meta', 'migrating')`;

/** Moves the next things, and says that the store has come to that schema when there are none. Somebody else may have done it meanwhile. */
const stepOf = (text: string) => `
local P, MOST = KEYS[1], tonumber(ARGV[3])
if tonumber(redis.call('HGET', P .. 'meta', 'schema')) ~= ARGV[1] - 1 then return 0 end
local function step()
${text}
end
local moved = step()
if moved == 0 then
  redis.call('HSET', P .. 'meta', 'schema', ARGV[1])
  if ARGV[1] == ARGV[2] then redis.call('HDEL', P .. 'meta', 'migrating') end
end
return moved`;
