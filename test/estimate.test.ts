// What `Validate` says that a job would take.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toJson } from '@bufbuild/protobuf';
import { JobSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { ValidateResponseSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { JobStatus } from '../src/jobs/job.ts';
import type { Overview } from '../src/jobs/ports.ts';
import { estimate } from '../src/rpc/estimate.ts';

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
