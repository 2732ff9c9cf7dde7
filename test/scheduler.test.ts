import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JobStatus } from '../src/jobs/job.ts';
import { openRig } from './fixtures/gpu/rig.ts';

test('a job goes from its claim through a worker to its result', async () => {
  await using rig = await openRig();
  rig.store.submit({ id: 'job_1', do: [['progress', ['STEP_PROCESSING', 50]]] });
  await rig.store.until(() => rig.store.history.length === 1);
  assert.deepEqual(rig.store.history, ['job_1: complete']);
  assert.equal(rig.store.job('job_1').status, JobStatus.SUCCEEDED);
});
