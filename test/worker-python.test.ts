// The scheduler with its real neighbours: the Python package with a scripted engine, and the job store in a file.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, type JsonObject } from '@bufbuild/protobuf';
import type { JobEvent } from '../gen/facefusion/jobs/v1/event_pb.js';
import { JobRequestSchema, JobStep, MediaResultSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { Scheduler } from '../src/gpu/scheduler.ts';
import { isTerminal, type Job, JobStatus } from '../src/jobs/job.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { PYTHON, quietLogger } from './fixtures/gpu/rig.ts';

const PACKAGE = join(import.meta.dirname, '..', 'worker');
const { SUCCEEDED, FAILED, CANCELED, QUEUED } = JobStatus;

async function openService(folder: string) {
  const store = await openSqliteJobStore({ path: join(folder, 'jobs.db') });
  const logger = quietLogger();
  const outputs: string[] = [];
  const scheduler = await Scheduler.open({
    node: 'node-1',
    store,
    slots: [{ name: 'slot-0' }],
    worker: {
      command: PYTHON,
      args: ['-m', 'facefusion_worker', '--engine', 'scripted:Scripted'],
      cwd: folder,
      environment: { ...process.env, PYTHONPATH: `${PACKAGE}:${join(PACKAGE, 'tests', 'engines')}` },
    },
    workRoot: join(folder, 'work'),
    prepare: async (job) => ({ outputFormat: 'png', targetPath: '/dev/null', parameters: job.request!.parameters! }),
    storeResult: async (path, { done }) => {
      outputs.push(await readFile(path, 'utf8'));
      return create(MediaResultSchema, { mediaType: done.mediaType, sha256: 'f'.repeat(64), width: done.width, height: done.height });
    },
    logger,
  });
  return {
    store,
    scheduler,
    logger,
    outputs,
    async submit(jobId: string, parameters: JsonObject, maxAttempts = 2): Promise<void> {
      const request = create(JobRequestSchema, { target: { case: 'targetImage', value: 'a.png' }, parameters });
      const limits = { maxQueued: 100, idempotencyMs: 1000 };
      await store.submit({ jobId, tenant: 't', request, requestDigest: jobId, warnings: [], maxAttempts }, limits);
    },
    /** Every event until `met`, or to the end. */
    async events(jobId: string, met: (event: JobEvent) => boolean = () => false): Promise<JobEvent[]> {
      const seen: JobEvent[] = [];
      for await (const event of store.watch(jobId, 0, AbortSignal.timeout(60_000))) {
        seen.push(event);
        if (met(event)) break;
      }
      return seen;
    },
    async ended(jobId: string): Promise<Job> {
      await this.events(jobId);
      const job = await store.get(jobId);
      assert.ok(job && isTerminal(job.status));
      return job;
    },
    async [Symbol.asyncDispose]() {
      await scheduler.drain(0);
      await store[Symbol.asyncDispose]();
    },
  };
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-gpu-'));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const isProcessing = ({ event }: JobEvent) => event.case === 'progress' && event.value.step === JobStep.PROCESSING;

test('a real worker and the real store carry jobs to each of their ends', () =>
  inFolder(async (folder) => {
    await using service = await openService(folder);
    await service.submit('job_20250405_aaaaaaaaaaaa', { steps: 3, log_lines: 2, output: 'hello' });
    await service.submit('job_20250405_bbbbbbbbbbbb', { fail: 'NO_FACE_IN_SOURCE', message: 'no face' });
    await service.submit('job_20250405_cccccccccccc', { crash_at: 0, fail_attempts: 1 });
    const done = await service.ended('job_20250405_aaaaaaaaaaaa');
    assert.deepEqual([done.status, done.progress, done.attempt, done.engine?.name], [SUCCEEDED, 100, 1, 'scripted']);
    const events = await service.events('job_20250405_aaaaaaaaaaaa');
    assert.equal(events.filter(({ event }) => event.case === 'log').length, 2);
    assert.deepEqual(
      events.map(({ sequence }) => sequence),
      events.map((_, i) => i + 1),
    );
    const failed = await service.ended('job_20250405_bbbbbbbbbbbb');
    assert.deepEqual([failed.status, failed.error?.reason, failed.errorMessage], [FAILED, 'NO_FACE_IN_SOURCE', 'no face']);
    // The crash costs one attempt, and the next one succeeds on a new process.
    const again = await service.ended('job_20250405_cccccccccccc');
    assert.deepEqual([again.status, again.attempt], [SUCCEEDED, 2]);
    assert.equal(service.scheduler.slots()[0]!.restarts, 1);
    assert.deepEqual(service.outputs, ['hello', 'scripted']);
  }));

test('a cancel stops a real run whose worker then takes the next job', () =>
  inFolder(async (folder) => {
    await using service = await openService(folder);
    await service.submit('job_20250405_aaaaaaaaaaaa', { steps: 1, hold_file: join(folder, 'go') });
    await service.events('job_20250405_aaaaaaaaaaaa', isProcessing);
    await service.store.cancel('job_20250405_aaaaaaaaaaaa', 5000);
    assert.equal((await service.ended('job_20250405_aaaaaaaaaaaa')).status, CANCELED);
    await service.submit('job_20250405_bbbbbbbbbbbb', {});
    assert.equal((await service.ended('job_20250405_bbbbbbbbbbbb')).status, SUCCEEDED);
    assert.equal(service.scheduler.slots()[0]!.restarts, 0);
  }));

test('a job that a drain gave back runs after the next start, with no attempt lost', () =>
  inFolder(async (folder) => {
    const hold = join(folder, 'go');
    {
      await using service = await openService(folder);
      await service.submit('job_20250405_aaaaaaaaaaaa', { hold_file: hold }, 1);
      await service.submit('job_20250405_bbbbbbbbbbbb', {}, 1);
      await service.events('job_20250405_aaaaaaaaaaaa', isProcessing);
      await service.scheduler.drain(0);
      assert.equal((await service.store.get('job_20250405_aaaaaaaaaaaa'))?.status, QUEUED);
      assert.deepEqual(service.logger.errors, []);
    }
    assert.ok(!existsSync(hold));
    await writeFile(hold, '');
    await using service = await openService(folder);
    assert.equal((await service.ended('job_20250405_aaaaaaaaaaaa')).status, SUCCEEDED);
    assert.equal((await service.ended('job_20250405_bbbbbbbbbbbb')).status, SUCCEEDED);
  }));
