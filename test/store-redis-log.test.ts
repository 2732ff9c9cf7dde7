// Where a job's events lie in Redis: in its record while they are few, in a stream from the first that does not fit. Whoever reads them sees one gapless list.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { LogSchema } from '../gen/facefusion/jobs/v1/event_pb.js';
import { MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { openRedisJobStore, type RedisJobStore } from '../src/store/jobs-redis.ts';
import { wantedJob } from './contract/job-store.ts';
import { ownRedis } from './fixtures/redis/own.ts';

const LIMITS = { maxQueued: 1000, idempotencyMs: 86_400_000 };
const NEVER = new AbortController().signal;

const redis = ownRedis();

/** A job that has ended after so many log lines of so many characters, each written by itself. */
async function ended(t: TestContext, lines: number, length: number, maxStoredEvents?: number) {
  const fleet = randomUUID();
  const store = await openRedisJobStore({ url: redis.server.url, fleet, ...(maxStoredEvents && { maxStoredEvents }) });
  t.after(() => store[Symbol.asyncDispose]());
  const { job } = await store.submit(wantedJob(), LIMITS);
  const lease = (await store.claim({ node: 'node' }, NEVER))!;
  await lease.begin({ slot: 'node/0', engine: undefined });
  for (let i = 0; i < lines; i++) await lease.log(create(LogSchema, { message: 'x'.repeat(length) }));
  const result = create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: 'a'.repeat(64) });
  const { sequence } = await lease.complete({ result, warnings: [], timings: create(TimingsSchema, {}) });
  const record = `{${fleet}}:job:${job.jobId}`;
  return { store, jobId: job.jobId, last: sequence, record, stream: `{${fleet}}:events:${job.jobId}` };
}

async function told(store: RedisJobStore, jobId: string, from: number): Promise<number[]> {
  const sequences = [];
  for await (const { sequence } of store.watch(jobId, from, NEVER)) sequences.push(sequence);
  return sequences;
}

describe('the events of a job', { timeout: 60_000 }, () => {
  for (const [what, lines, length, streams] of [
    ['that has few lie in its record', 3, 20, false],
    ['that has many go on in a stream', 40, 60, true],
    ['whose first line is long go on in a stream', 3, 2000, true],
  ] as const)
    it(what, async (t) => {
      const { store, jobId, last, record, stream } = await ended(t, lines, length);
      assert.equal(await redis.client.exists(stream), streams ? 1 : 0);
      assert.ok((await redis.client.hstrlen(record, 'log')) <= 1024);
      for (let from = 0; from < last; from++)
        assert.deepEqual(
          await told(store, jobId, from),
          Array.from({ length: last - from }, (_, i) => from + i + 1),
        );
    });

  it('of which the oldest are trimmed are told from the first that is left on', async (t) => {
    const { store, jobId, last, record } = await ended(t, 60, 60, 8);
    assert.equal(await redis.client.hget(record, 'log'), null, 'the record keeps nothing of what is gone');
    const whole = await told(store, jobId, last - 4);
    assert.deepEqual(whole, [last - 3, last - 2, last - 1, last]);
    const first = [];
    for await (const { event } of store.watch(jobId, 0, NEVER)) first.push(event.case);
    assert.equal(first[0], 'snapshot');
  });
});
