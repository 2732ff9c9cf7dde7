// What `Validate` says that a job would take.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toJson } from '@bufbuild/protobuf';
import { JobSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { ValidateResponseSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { GetOverviewResponse_RecentRunsSchema } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { JobStatus } from '../src/jobs/job.ts';
import type { Overview } from '../src/jobs/ports.ts';
import { estimate } from '../src/rpc/estimate.ts';
import { RecentRuns } from '../src/rpc/recent-runs.ts';

const run = (runSeconds: number, cached = false, kind: 'targetImage' | 'targetVideo' = 'targetImage') =>
  create(JobSchema, { cached, timings: { runSeconds }, request: { target: { case: kind, value: 'x' } } });

const storeOf = (jobs: readonly ReturnType<typeof run>[], queued = 0, ended: readonly number[] = []) => ({
  overview: async (): Promise<Overview> => ({
    totals: new Map([[JobStatus.QUEUED, queued]]),
    queueByTenant: [],
    throughput: ended.map((count, i) => ({ startMs: i * 60_000, ended: new Map([[JobStatus.SUCCEEDED, count]]) })),
    stepSeconds: 60,
  }),
  list: async () => ({ jobs, nextPageToken: undefined, watchToken: '' }),
});

/** As callers are sent it. */
const sent = async (store: ReturnType<typeof storeOf>) =>
  toJson(ValidateResponseSchema, create(ValidateResponseSchema, { estimate: await estimate(store, 'one', 'image') }));

test('a run is taken to be as the one in the middle of those before it, of the same kind', async () => {
  const runs = [run(1), run(5), run(2), run(60, false, 'targetVideo')];
  assert.deepEqual(await sent(storeOf(runs)), { estimate: { run: '2s', wait: '0s' } });
});

test('what came from the cache says nothing of a run', async () => {
  assert.deepEqual(await sent(storeOf([run(0, true), run(0, true), run(3)])), { estimate: { run: '3s', wait: '0s' } });
});

test('any number of seconds is a duration that can be sent', async () => {
  for (const seconds of [0, 0.0004, 0.9996, 1.9999, 2.5]) {
    assert.deepEqual(await sent(storeOf([run(seconds)])), {
      estimate: { run: `${Math.round(seconds * 1000) / 1000}s`.replace('.5s', '.500s'), wait: '0s' },
    });
  }
});

test('the wait is by the pace of the time in which there was work; unknown where there was none', async () => {
  assert.deepEqual(await sent(storeOf([], 10, [0, 6, 0, 4])), { estimate: { jobsAhead: 10, wait: '120s' } });
  assert.deepEqual(await sent(storeOf([], 10)), { estimate: { jobsAhead: 10 } });
});

const ended = (queuedSeconds: number, runSeconds: number, more: object = {}) =>
  create(JobSchema, { startedAt: { seconds: 1n }, timings: { queuedSeconds, runSeconds }, ...more });

test('the waits and runs of the last jobs are told by their middle and their tail, and asked for once in a while', async () => {
  let nowMs = 0;
  const asked: (string | undefined)[] = [];
  const jobs = Array.from({ length: 40 }, (_, i) => ended(i + 1, 100 - i));
  // What came from the cache did not run, nor did what ended in the queue.
  const besides = [ended(0, 0, { cached: true }), create(JobSchema, { timings: { queuedSeconds: 900 } }), create(JobSchema)];
  const runs = new RecentRuns(
    {
      list: async ({ tenant }) => {
        asked.push(tenant);
        const own = tenant === 'one' ? [...besides, ...jobs] : tenant === 'busy' ? [ended(500, 1)] : [];
        return { jobs: own, nextPageToken: undefined, watchToken: '' };
      },
    },
    () => nowMs,
  );
  const sentRuns = async (...of: Parameters<RecentRuns['of']>) =>
    toJson(GetOverviewResponse_RecentRunsSchema, create(GetOverviewResponse_RecentRunsSchema, await runs.of(...of)));
  assert.deepEqual(await sentRuns('one'), { jobs: 40, medianWait: '20s', waitP95: '38s', medianRun: '80s' });
  assert.deepEqual(await sentRuns('new'), {});
  nowMs = 9_999;
  await Promise.all([sentRuns('one'), sentRuns('one')]);
  assert.deepEqual(asked, ['one', 'new'], 'what is fresh is not asked for again');
  nowMs = 10_001;
  await Promise.all([sentRuns('one'), sentRuns('one')]);
  assert.deepEqual(asked, ['one', 'new', 'one']);
  // Who sees all is told of those who have the most to do too, and a thousand tenants are not all asked for.
  asked.length = 0;
  const queue = (tenant: string, queued: number) => ({ tenant, queued, processing: 0, oldestQueuedMs: undefined });
  const queues = [...Array.from({ length: 1000 }, (_, i) => queue(`t${i}`, 1)), queue('busy', 2)];
  assert.deepEqual(await sentRuns('one', queues), { jobs: 41, medianWait: '21s', waitP95: '39s', medianRun: '80s' });
  assert.ok(asked.length < 8 && asked.includes('busy'), String(asked));
});

test('a store that is away is asked again by the next caller', async () => {
  let away = true;
  const runs = new RecentRuns({
    list: async () => {
      if (away) throw new Error('away');
      return { jobs: [], nextPageToken: undefined, watchToken: '' };
    },
  });
  await assert.rejects(runs.of('one'), /away/);
  away = false;
  assert.deepEqual(await runs.of('one'), { jobs: 0 });
});
