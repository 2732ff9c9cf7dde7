// What a server must be for a fleet's jobs, looked at once at start; what is not guaranteed with it is said in words.
import type { RedisConnection } from './connection.ts';

const OLDEST = [6, 2] as const;

/** Throws an `Error` in words where the server cannot do what is needed. */
export function checkVersion(facts: ReadonlyMap<string, string>): void {
  const version = facts.get('valkey_version') ?? facts.get('redis_version') ?? '';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
    throw new Error(`this Redis is version ${version || 'unknown'}, and ${OLDEST.join('.')} or newer is needed`);
  }
}

/** Sentences for the log. Throws as `checkVersion` does. */
export async function checkServer(redis: RedisConnection): Promise<string[]> {
  const facts = await redis.facts();
  checkVersion(facts);
  const warnings: string[] = [];
  const policy = facts.get('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction') {
    const what = `Redis has maxmemory-policy ${policy}: when its memory is full it deletes jobs that were accepted`;
    warnings.push(`${what}. Set maxmemory-policy to noeviction`);
  }
  if (facts.get('aof_enabled') !== '1') {
    warnings.push(
      'Redis writes no append-only file: jobs that were accepted are lost when it ends or its machine does. Set appendonly to yes',
    );
  } else {
    const sync = await redis.setting('appendfsync');
    if (sync === undefined) {
      const what = 'Redis does not tell its appendfsync: unless it is `always`, jobs accepted in the last second are lost with the power';
      warnings.push(`${what}; ask whoever runs it`);
    } else if (sync !== 'always') {
      const lost = sync === 'everysec' ? 'the jobs accepted in the last second or two' : 'jobs that were accepted';
      warnings.push(`Redis has appendfsync ${sync}: when the power fails, ${lost} are lost. Set appendfsync to always`);
    }
  }
  return warnings;
}
