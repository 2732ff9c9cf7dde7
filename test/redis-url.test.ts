// How operators write where a Redis is, and that what they mistype is refused without their password in the words.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redisPlace } from '../src/store/redis/connection.ts';

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

test('anything else is refused in words that hold none of it', () => {
  for (const url of [
    'redis://ann:sec@ret@redis',
    'redis://:sec/ret@redis',
    'redis://ann:%ret@redis',
    'redis://a,b',
    'redis://redis:70000',
    'redis://redis/one',
    'redis+cluster://a/1',
    'redis+sentinel://a',
    'memcached://ret',
  ]) {
    assert.throws(
      () => redisPlace(url),
      (error: Error) => /FFJOBS_STORE.*%40/.test(error.message) && !error.message.includes('ret@') && !error.message.includes('sec'),
      url,
    );
  }
});
