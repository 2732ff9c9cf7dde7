// Two jobs never on one slot, and no job lost, whatever engines, callers and the store do at whatever moment. The workers themselves watch: each
// run, with all its descendants, holds a file lock of its slot, and one that finds it taken leaves a mark.
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { WorkerState } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { randomOf } from '../scripts/random.ts';
import { isTerminal, JobStatus } from '../src/jobs/job.ts';
import { alive, openRig, workerOptions } from './fixtures/gpu/rig.ts';

const JOBS = 40;

type Act = readonly [string, unknown];

const COURSES: readonly (readonly Act[])[] = [
  [],
  [],
  [['sleep', 0.02]],
  [['flood', 50]],
  [['late_idle', 0.03]],
  [['slow_stop', 0.02]],
  // An engine that is asked to stop must not say idle while a child of it lives; this one dies with it instead.
  [
    ['deaf', 0],
    ['child', 0],
    ['exit', 1],
  ],
  [['exit', 4]],
  [['kill', 'SIGSEGV']],
  [
    ['deaf', 0],
    ['child', 0],
    ['hang', 0],
  ],
  [['done_then_exit', 2]],
  [['done_no_idle', 0]],
  [['failed', { outcome: 'OUTCOME_ERROR', reason: 'ODD', retryable: true }]],
  [['failed', { outcome: 'OUTCOME_REFUSED', reason: 'CONTENT_REFUSED' }]],
  [['raw', 'noise\n']],
];

for (const seed of [1, Date.now() % 1_000_000]) {
  test(`no slot ever has two runs and every job ends (seed ${seed})`, async () => {
    const random = randomOf(seed).next;
    const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)]!;
    await using rig = await openRig({
      slotCount: 3,
      cancelGraceMs: 40,
      worker: {
        ...workerOptions(),
        stallTimeoutMs: 80,
        idleTimeoutMs: 60,
        recycleAfterJobs: 15,
        backoffMs: { first: 1, most: 5 },
      },
      storeResult: async () => {
        if (random() < 0.05) throw new Error('the disk hiccups');
        await new Promise((resolve) => setTimeout(resolve, random() * 5));
        return create(MediaResultSchema, {});
      },
    });
    const pids = new Set<number>();
    rig.scheduler.onChange(() => {
      for (const { pid } of rig.scheduler.slots()) if (pid !== undefined) pids.add(pid);
    });
    const canceled = new Set<string>();
    // Callers and the store act in the middle of things: on the way of some write, a moment after it, or at the next turn.
    rig.store.beforeWrite = (step, jobId) => {
      const chance = random();
      if (chance > 0.15 || step === 'log') return;
      const act = () => {
        if (chance < 0.1) {
          canceled.add(jobId);
          rig.store.cancel(jobId);
        } else {
          rig.store.lose(jobId, 'waits');
        }
      };
      if (random() < 0.5) queueMicrotask(act);
      else setTimeout(act, random() * 30);
    };
    for (let i = 0; i < JOBS; i++) {
      const score = random() < 0.2 ? Math.floor(random() * JOBS) : undefined;
      rig.store.submit({ id: `job_${i}`, score, do: [['occupy', rig.folder], ...pick(COURSES)] });
    }
    await rig.store.until(() => [...rig.store.entries.values()].every(({ job }) => isTerminal(job.status)));
    rig.store.beforeWrite = () => {};
    await rig.scheduler.drain(0);

    const clashes = (await readdir(rig.folder)).filter((name) => name.endsWith('.clash'));
    assert.deepEqual(clashes, []);
    for (const { job } of rig.store.entries.values()) {
      if (job.status === JobStatus.CANCELED) assert.ok(canceled.has(job.jobId), `${job.jobId} is canceled and nobody asked`);
    }
    assert.deepEqual(await readdir(join(rig.folder, 'work')), []);
    assert.ok(rig.scheduler.slots().every(({ state, jobId }) => state === WorkerState.CLOSED && jobId === undefined));
    assert.deepEqual([...pids].filter(alive), []);
    assert.ok(pids.size > 3);
  });
}
