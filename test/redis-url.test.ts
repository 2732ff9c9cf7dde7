// How operators write where a Redis is, and that what they mistype is told where settings are read, without a piece of their password in the words.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError, readConfig } from '../src/config.ts';
import { redisPlace } from '../src/redis-place.ts';
import { ROOT } from './api/service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

const one = (host: string, port: number) => [{ host, port }];

test('one server, a cluster, sentinels, with and without TLS, login and database', () => {
  const plain = { kind: 'server', tls: false, username: undefined, password: undefined, database: 0, master: undefined } as const;
  for (const [url, place] of [
    ['redis://redis', { ...plain, hosts: one('redis', 6379), shown: 'redis://redis' }],
    ['redis://[::1]:7000/3', { ...plain, hosts: one('::1', 7000), database: 3, shown: 'redis://[::1]:7000/3' }],
    [
      'rediss://ann:p%40ss%2F@redis.example.com:6380',
      {
        ...plain,
        tls: true,
        username: 'ann',
        password: 'p@ss/',
        hosts: one('redis.example.com', 6380),
        shown: 'rediss://ann:***@redis.example.com:6380',
      },
    ],
    ['redis://:hush@redis', { ...plain, password: 'hush', hosts: one('redis', 6379), shown: 'redis://:***@redis' }],
    ['redis+cluster://a:1,b', { ...plain, kind: 'cluster', hosts: [...one('a', 1), ...one('b', 6379)], shown: 'redis+cluster://a:1,b' }],
    [
      'redis+sentinel://:hush@a,b/jobs/2',
      {
        ...plain,
        kind: 'sentinel',
        password: 'hush',
        hosts: [...one('a', 26_379), ...one('b', 26_379)],
        master: 'jobs',
        database: 2,
        shown: 'redis+sentinel://:***@a,b/jobs/2',
      },
    ],
  ] as const)
    assert.deepEqual(redisPlace(url), place);
});

/** Of each of them any part with `secret` in it may be a password that was not written as it should be. */
const WRONG: readonly [url: string, says: RegExp][] = [
  ['redis://ann:sec@secret@redis', /as its percent code \(@ is %40/],
  ['redis://:sec/secret@redis', /\/ is %2F/],
  ['redis://:secret?@redis', /\? is %3F/],
  ['redis://:secret#@redis', /# is %23/],
  ['redis://redis/0?password=secret', /nothing follows the database/],
  ['redis://ann:%secret@redis', /a % in the user or the password is written as %25/],
  ['redis://ann:secret', /a port is a whole number from 1 to 65535/],
  ['redis://:secret', /a host is a name or an address/],
  ['redis://', /a host is a name or an address/],
  ['redis://sec ret', /as its percent code/],
  ['redis://[::secret]', /one of IPv6 in brackets/],
  ['redis://::1:6379', /one of IPv6 in brackets/],
  ['redis://redis:70000', /a port is a whole number from 1 to 65535/],
  ['redis://redis:0', /a port/],
  ['redis://redis:', /a port/],
  ['redis://a,b', /several hosts are those of a Cluster or of Sentinels/],
  ['redis://redis/secret', /the database is a whole number from 0 to/],
  ['redis://redis/-1', /the database/],
  ['redis://redis/0x10', /the database/],
  ['redis://redis/1e3', /the database/],
  ['redis://redis/1.5', /the database/],
  ['redis://redis/4294967296', /the database/],
  ['redis://redis/1/secret', /nothing follows the database/],
  ['redis+cluster://a/1', /a Cluster has the database 0 alone/],
  ['redis+cluster://a,,b', /a host/],
  ['redis+sentinel://a', /the name of the Sentinels' service follows the hosts/],
  ['redis+sentinel://a,b/jobs/secret', /the database/],
  ['redis+sentinels://:secret@a/jobs', /it begins with none of these schemes/],
  ['REDIS://:secret@redis', /it begins with none of these schemes/],
];

for (const [url, says] of WRONG) {
  test(`${url} is refused where settings are read, and by who connects, in words that hold none of it`, () => {
    const told = (error: Error) => {
      assert.match(error.message, /^FFJOBS_STORE.*redis\+sentinel:\/\//);
      assert.match(error.message, says);
      assert.doesNotMatch(error.message.replaceAll('PASSWORD', ''), /secret|\bsec\b/);
      return true;
    };
    assert.throws(() => redisPlace(url), told);
    assert.throws(
      () => readConfig({ FFJOBS_STORE: url }, '/srv'),
      (error: Error) => error instanceof ConfigError && error.problems.length === 1 && told(error),
    );
  });
}

test('another scheme altogether is refused with those that there are', () => {
  for (const url of ['memcached://:secret', 'rdis://ann:secret@redis', 'secrets:x', 'postgres://ann:secret@db/jobs'])
    assert.throws(
      () => readConfig({ FFJOBS_STORE: url }, '/srv'),
      /^ConfigError: FFJOBS_STORE is '(?![^']*:secret)[^']*'; allowed: sqlite:PATH, redis:/,
    );
});

test('`config check` and `doctor` say so before anything starts, and list no part of it', async () => {
  const cwd = mkdtempSync(join(tmpdir(), 'ffjobs-redis-url-'));
  try {
    const env = { FFJOBS_STORE: 'redis://ann:sec@secret@redis/x', FFJOBS_METRICS_PORT: 'off', FFJOBS_PORT: '0' };
    for (const command of [['config', 'check'], ['doctor']])
      for (const json of [[], ['--json']]) {
        const terminal = new FakeTerminal();
        const code = await ffjobs([...command, ...json], terminal, { env, cwd, root: ROOT });
        const all = terminal.stdout + terminal.stderr;
        assert.equal(code, 1, all);
        assert.match(all, /FFJOBS_STORE.*@ is %40/s);
        assert.doesNotMatch(all, /secret|sec@/);
      }
  } finally {
    rmSync(cwd, { recursive: true });
  }
});
