import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { WorkerState } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { JobStatus } from '../src/jobs/job.ts';
import { alive, openRig } from './fixtures/gpu/rig.ts';

test('a drain lets the running job finish, gives back what waits, and leaves no process', async () => {
  await using rig = await openRig();
  rig.store.submit({ id: 'job_running', do: [['sleep', 0.2]] });
  await rig.store.until(() => rig.scheduler.slots()[0]!.jobId === 'job_running');
  rig.store.submit({ id: 'job_ahead' });
  rig.store.submit({ id: 'job_queued' });
  await rig.store.until(() => rig.store.leaseOf('job_ahead') !== undefined);
  const { pid } = rig.scheduler.slots()[0]!;
  const drained = rig.scheduler.drain(60_000);
  assert.equal(rig.scheduler.drain(60_000), drained);
  assert.equal(rig.scheduler.slots()[0]!.draining, true);
  await drained;
  assert.deepEqual(rig.store.history, ['job_ahead: give back', 'job_running: complete']);
  assert.deepEqual([rig.store.job('job_ahead').attempt, rig.store.claimsPending], [0, 0]);
  assert.equal(rig.store.leaseOf('job_queued'), undefined);
  assert.deepEqual([rig.scheduler.slots()[0]!.state, alive(pid!)], [WorkerState.CLOSED, false]);
  assert.deepEqual(rig.logger.errors, []);
});

test('a run that does not end by the deadline is stopped and its job given back, no attempt counted', async () => {
  await using rig = await openRig({ slotCount: 2, cancelGraceMs: 100 });
  await rig.store.until(() => rig.scheduler.slots().every(({ state }) => state === WorkerState.IDLE));
  rig.store.submit({ id: 'job_gentle', do: [['wait', 0]] });
  rig.store.submit({ id: 'job_hung', do: [['hang', 0]] });
  await rig.store.until(() => rig.scheduler.slots().every(({ jobId }) => jobId !== undefined));
  await rig.scheduler.drain(50);
  assert.deepEqual(rig.store.history, ['job_gentle: give back', 'job_hung: give back']);
  for (const id of ['job_gentle', 'job_hung']) {
    assert.deepEqual([rig.store.job(id).status, rig.store.entries.get(id)!.uncounted], [JobStatus.QUEUED, 1]);
  }
});

test('a drain called again with less time ends sooner', async () => {
  await using rig = await openRig();
  rig.store.submit({ id: 'job_1', do: [['wait', 0]] });
  await rig.store.until(() => rig.scheduler.slots()[0]!.jobId === 'job_1');
  const drained = rig.scheduler.drain(3_600_000);
  void rig.scheduler.drain(10);
  await drained;
  assert.deepEqual(rig.store.history, ['job_1: give back']);
});

test('a result that is being stored is kept past the deadline', async () => {
  const started = Promise.withResolvers<void>();
  const stored = Promise.withResolvers<void>();
  await using rig = await openRig({
    storeResult: async () => {
      started.resolve();
      await stored.promise;
      return create(MediaResultSchema, {});
    },
  });
  rig.store.submit({ id: 'job_1' });
  await started.promise;
  const drained = rig.scheduler.drain(0);
  // Timers of one length go off in the order in which they were set: the drain's own comes first.
  setTimeout(stored.resolve, 0);
  await drained;
  assert.deepEqual(rig.store.history, ['job_1: complete']);
});

test('inputs that are being fetched are let go', async () => {
  const started = Promise.withResolvers<void>();
  await using rig = await openRig({
    prepare: (_, __, signal) =>
      new Promise((_resolve, reject) => {
        started.resolve();
        signal.addEventListener('abort', () => reject(signal.reason));
      }),
  });
  rig.store.submit({ id: 'job_1' });
  await started.promise;
  await rig.scheduler.drain(60_000);
  assert.deepEqual(rig.store.history, ['job_1: give back']);
});

test('a caller who cancels during a drain gets a canceled job', async () => {
  await using rig = await openRig();
  rig.store.submit({ id: 'job_1', do: [['wait', 0]] });
  await rig.store.until(() => rig.scheduler.slots()[0]!.jobId === 'job_1');
  const drained = rig.scheduler.drain(60_000);
  rig.store.cancel('job_1');
  await drained;
  assert.deepEqual(rig.store.history, ['job_1: canceled']);
});

test('a drain before any worker is warm ends', async () => {
  await using rig = await openRig();
  await rig.scheduler.drain(60_000);
  assert.equal(rig.scheduler.slots()[0]!.state, WorkerState.CLOSED);
});
