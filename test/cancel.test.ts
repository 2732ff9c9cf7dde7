import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { WorkerState } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { JobsError } from '../src/jobs/errors.ts';
import { JobStatus } from '../src/jobs/job.ts';
import { alive, openRig } from './fixtures/gpu/rig.ts';

/** Settles when the signal aborts. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

test('a job canceled while its inputs are fetched is canceled when the fetching has ended', async () => {
  const order: string[] = [];
  const started = Promise.withResolvers<void>();
  await using rig = await openRig({
    prepare: async (_, __, signal) => {
      started.resolve();
      await aborted(signal);
      await new Promise((resolve) => setImmediate(resolve));
      order.push('fetching ended');
      throw signal.reason;
    },
  });
  rig.store.submit({ id: 'job_1' });
  await started.promise;
  rig.store.cancel('job_1');
  await rig.store.until(() => rig.store.history.length === 1);
  order.push(...rig.store.history);
  assert.deepEqual(order, ['fetching ended', 'job_1: canceled']);
  assert.deepEqual(rig.logger.errors, []);
});

test('a job canceled before its turn to be fetched is canceled at once', async () => {
  const started = Promise.withResolvers<void>();
  await using rig = await openRig({
    slotCount: 2,
    prepareConcurrency: 1,
    prepare: async (job, _, signal) => {
      assert.equal(job.jobId, 'job_1');
      started.resolve();
      await aborted(signal);
      throw signal.reason;
    },
  });
  await rig.store.until(() => rig.scheduler.slots().every(({ state }) => state === WorkerState.IDLE));
  rig.store.submit({ id: 'job_1' });
  rig.store.submit({ id: 'job_2' });
  await started.promise;
  await rig.store.until(() => rig.store.leaseOf('job_2') !== undefined);
  rig.store.cancel('job_2');
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_2: canceled']);
});

test('a job that waits for room on the disk delays nobody, and leaves when it is canceled', async () => {
  let asked = 0;
  await using rig = await openRig({
    slotCount: 2,
    prepareConcurrency: 1,
    admit: async (signal) => {
      if (++asked > 1) return;
      await aborted(signal);
      throw signal.reason;
    },
  });
  await rig.store.until(() => rig.scheduler.slots().every(({ state }) => state === WorkerState.IDLE));
  rig.store.submit({ id: 'job_1' });
  rig.store.submit({ id: 'job_2' });
  await rig.store.until(() => rig.store.history.length === 1);
  rig.store.cancel('job_1');
  await rig.store.until(() => rig.store.history.length === 2);
  assert.deepEqual(rig.store.history, ['job_2: complete', 'job_1: canceled']);
});

test('a job for which there is no room in time is tried again', async () => {
  await using rig = await openRig({
    admit: async () => {
      throw new JobsError('exhausted', 'STORAGE_FULL', 'the disk is nearly full');
    },
  });
  rig.store.submit({ id: 'job_1' });
  await rig.store.until(() => rig.store.history.length === 1);
  const { status, error } = rig.store.job('job_1');
  // By another node, or here when there is room.
  assert.deepEqual([status, error?.reason, error?.retryable], [JobStatus.QUEUED, 'STORAGE_FULL', true]);
});

test('a job canceled while it waits for a slot never runs', async () => {
  await using rig = await openRig();
  rig.store.submit({ id: 'job_1', do: [['wait', 0]] });
  await rig.store.until(() => rig.scheduler.slots()[0]!.jobId === 'job_1');
  rig.store.submit({ id: 'job_2' });
  await rig.store.until(() => rig.store.leaseOf('job_2') !== undefined);
  rig.store.cancel('job_2');
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_2: canceled']);
  assert.equal(rig.store.job('job_2').attempt, 0);
  assert.equal(rig.scheduler.slots()[0]!.jobId, 'job_1');
});

test('a running job is stopped by the engine, whose worker stays', async () => {
  await using rig = await openRig({ cancelGraceMs: 10_000 });
  rig.store.submit({ id: 'job_1', do: [['slow_stop', 0.1]] });
  await rig.store.until(() => rig.scheduler.slots()[0]!.jobId === 'job_1');
  const { pid } = rig.scheduler.slots()[0]!;
  rig.store.cancel('job_1');
  assert.equal(rig.scheduler.slots()[0]!.state, WorkerState.STOPPING);
  assert.equal(rig.store.job('job_1').status, JobStatus.PROCESSING);
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_1: canceled']);
  const [slot] = rig.scheduler.slots();
  assert.deepEqual([slot!.state, slot!.pid, slot!.restarts], [WorkerState.IDLE, pid, 0]);
});

test('an engine that ignores the cancel is killed with its descendants, and only then is the job canceled', async () => {
  await using rig = await openRig({ cancelGraceMs: 100 });
  rig.store.submit({
    id: 'job_1',
    do: [
      ['deaf', 0],
      ['child', 0],
      ['hang', 0],
    ],
  });
  await rig.store.until(() => (rig.store.logs.get('job_1')?.length ?? 0) > 0);
  const pids = [rig.scheduler.slots()[0]!.pid!, Number(rig.store.logs.get('job_1')![0]!.split(' ')[1])];
  assert.ok(pids.every(alive));
  let aliveAtEnd: boolean[] = [];
  rig.store.beforeWrite = (step) => {
    if (step === 'canceled') aliveAtEnd = pids.map(alive);
  };
  const asked = performance.now();
  rig.store.cancel('job_1');
  await rig.store.until(() => rig.store.history.length === 1);
  assert.ok(performance.now() - asked >= 95);
  assert.deepEqual(rig.store.history, ['job_1: canceled']);
  assert.deepEqual(aliveAtEnd, [false, false]);
  rig.store.submit({ id: 'job_2' });
  await rig.store.until(() => rig.store.history.length === 2);
});

test('a job canceled while its result is stored is canceled when the storing has ended', async () => {
  const started = Promise.withResolvers<void>();
  await using rig = await openRig({
    storeResult: async (_, { signal }) => {
      started.resolve();
      await aborted(signal);
      throw signal.reason;
    },
  });
  rig.store.submit({ id: 'job_1' });
  await started.promise;
  rig.store.cancel('job_1');
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_1: canceled']);
});

test('a job canceled while it waits to be stored is canceled at once', async () => {
  const stored = Promise.withResolvers<void>();
  await using rig = await openRig({
    storeConcurrency: 1,
    storeResult: async () => {
      await stored.promise;
      return create(MediaResultSchema, {});
    },
  });
  rig.store.submit({ id: 'job_1' });
  rig.store.submit({ id: 'job_2' });
  await rig.store.until(() => rig.scheduler.slots()[0]!.jobsDone === 2);
  rig.store.cancel('job_2');
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_2: canceled']);
  stored.resolve();
  await rig.store.until(() => rig.store.history.length === 2);
});

test('a job canceled between claim and begin, or just as it begins, is canceled', async () => {
  await using rig = await openRig();
  rig.store.beforeWrite = (step, jobId) => {
    if (step === 'begin') queueMicrotask(() => rig.store.cancel(jobId));
  };
  rig.store.submit({ id: 'job_1', do: [['wait', 0]] });
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_1: canceled']);
  rig.store.beforeWrite = () => {};
  rig.store.submit({ id: 'job_2' });
  await rig.store.until(() => rig.store.history.length === 2);
});

test('a crash after a cancel is the cancel', async () => {
  await using rig = await openRig({ cancelGraceMs: 10_000 });
  rig.store.submit({
    id: 'job_1',
    do: [
      ['sleep', 0.2],
      ['exit', 1],
    ],
  });
  await rig.store.until(() => rig.scheduler.slots()[0]!.jobId === 'job_1');
  rig.store.cancel('job_1');
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_1: canceled']);
});
