// What every job store must do with batches, as the comments of the port say. Knows no backend: a store calls `describeBatchStore` with a factory.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobRequestSchema, MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type Batch, newBatchId } from '../../src/jobs/batches.ts';
import { isTerminal, JobStatus, JobStep, STATUSES, WaitReason } from '../../src/jobs/job.ts';
import type { JobChange, JobStore, Lease, Limits, NewBatch, NewJob } from '../../src/jobs/ports.ts';
import { refusal } from './calls.ts';
import { type JobStoreFactory, type JobStoreSettings, wantedJob } from './job-store.ts';

const { PROCESSING, SUCCEEDED, FAILED, CANCELED } = JobStatus;
const LIMITS: Limits = { maxQueued: 1_000_000, idempotencyMs: 86_400_000 };
const GRACE_MS = 5000;
const SUITE = { concurrency: 4, timeout: 180_000 };
const NEVER = new AbortController().signal;
const RUN = { slot: 'node/0', engine: undefined };
const BROKEN = { reason: 'NO_FACE_IN_SOURCE', message: 'there is no face', retryable: false, killedWorker: false };
const FLAKY = { reason: 'ENGINE_ERROR', message: 'something went wrong', retryable: true, killedWorker: false };

const done = () => ({
  result: create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: randomBytes(32).toString('hex'), frames: 1 }),
  warnings: [],
  timings: create(TimingsSchema, { runSeconds: 1 }),
});

type Wanted = Partial<Omit<NewBatch, 'jobs'>> & { readonly count?: number; readonly job?: (i: number) => Partial<NewJob> };

function wantedBatch({ count = 3, job = () => ({}), ...facts }: Wanted = {}): NewBatch {
  const batchId = newBatchId(Date.now(), randomBytes(12));
  const jobs = Array.from({ length: count }, (_, i) => ({ ...wantedJob(), ...job(i), batchId }));
  return {
    batchId,
    tenant: 'one',
    jobs,
    order: jobs.map((_, i) => i),
    refs: jobs.map((_, i) => (i === 0 ? 'first' : '')),
    idempotencyKey: undefined,
    requestDigest: 'digest',
    stopGraceMs: undefined,
    ...facts,
  };
}

const counts = (batch: Batch | undefined) =>
  batch &&
  Object.fromEntries(STATUSES.filter((status) => batch.counts.get(status)).map((status) => [JobStatus[status], batch.counts.get(status)]));

export function describeBatchStore(name: string, factory: JobStoreFactory): void {
  const open = async (t: TestContext, settings?: JobStoreSettings) => {
    const opened = await factory(settings);
    t.after(() => opened.destroy());
    return opened;
  };
  const claim = async (store: JobStore): Promise<Lease> => {
    const lease = await store.claim({ node: 'node' }, NEVER);
    assert.ok(lease);
    return lease;
  };

  describe(`${name}: batches`, SUITE, () => {
    it('takes all jobs in one step, in the order asked for, and counts them', async (t) => {
      const { store } = await open(t);
      const wanted = wantedBatch({ count: 5 });
      const { batch, created } = await store.submitBatch(wanted, LIMITS);
      assert.equal(created, true);
      assert.equal(batch.jobs, 5);
      assert.deepEqual(counts(batch), { QUEUED: 5 });
      assert.deepEqual(
        batch.members,
        wanted.jobs.map(({ jobId }, i) => ({ jobId, ref: i === 0 ? 'first' : '' })),
      );
      assert.equal(batch.finishedMs, undefined);
      assert.deepEqual(await store.batch(wanted.batchId), batch);
      const listed = await store.list({ batchId: wanted.batchId, pageSize: 10 });
      assert.deepEqual(
        listed.jobs.map((job) => job.jobId).reverse(),
        batch.members.map(({ jobId }) => jobId),
      );
      assert.ok(listed.jobs.every((job) => job.batchId === wanted.batchId));
      assert.equal((await claim(store)).job.jobId, wanted.jobs[0]!.jobId);
      assert.equal(await store.batch('batch_20250101_aaaaaaaaaaaa'), undefined);
    });

    it('brings jobs in after those whose results they take, and lists them as they were asked for', async (t) => {
      const { store } = await open(t);
      const wanted = wantedBatch({ count: 3, order: [2, 0, 1] });
      const { batch } = await store.submitBatch(wanted, LIMITS);
      assert.equal((await claim(store)).job.jobId, wanted.jobs[2]!.jobId);
      assert.deepEqual(
        batch.members.map(({ jobId }) => jobId),
        wanted.jobs.map(({ jobId }) => jobId),
      );
    });

    it('keeps counts and progress with each step, and finishes with the last', async (t) => {
      const { store, restart } = await open(t);
      const { batchId } = (await store.submitBatch(wantedBatch({ count: 4 }), LIMITS)).batch;
      const first = await claim(store);
      await first.begin(RUN);
      await first.progress(create(ProgressSchema, { step: JobStep.PROCESSING, percent: 40 }));
      let batch = await store.batch(batchId);
      assert.deepEqual(counts(batch), { QUEUED: 3, PROCESSING: 1 });
      assert.equal(batch!.done, 40);
      await first.complete(done());
      const second = await claim(store);
      await second.begin(RUN);
      await second.progress(create(ProgressSchema, { step: JobStep.PROCESSING, percent: 70 }));
      await second.fail(FLAKY);
      batch = await store.batch(batchId);
      assert.deepEqual(counts(batch), { QUEUED: 3, SUCCEEDED: 1 });
      assert.equal(batch!.done, 100, 'a new attempt begins at nothing');
      const third = await claim(store);
      await third.begin(RUN);
      await third.fail(BROKEN);
      assert.deepEqual(counts(await store.batch(batchId)), { QUEUED: 2, SUCCEEDED: 1, FAILED: 1 }, 'a failure stops nothing unasked');
      const again = await restart();
      assert.deepEqual(counts(await again.batch(batchId)), { QUEUED: 2, SUCCEEDED: 1, FAILED: 1 });
      for (const { jobId } of (await again.batch(batchId))!.members) await again.cancel(jobId, GRACE_MS);
      batch = await again.batch(batchId);
      assert.deepEqual(counts(batch), { SUCCEEDED: 1, FAILED: 1, CANCELED: 2 });
      assert.equal(batch!.done, 400);
      assert.ok(batch!.finishedMs! >= batch!.createdMs);
      assert.equal(batch!.cancelRequestedMs, undefined);
    });

    it('refuses all for one, and nothing of it is left', async (t) => {
      const { store } = await open(t);
      const wanted = wantedBatch({
        count: 3,
        job: (i) => (i === 1 ? wantedJob({ request: { sourceImages: [`upload://${'0'.repeat(32)}`] } }) : {}),
      });
      const error = await refusal(store.submitBatch(wanted, LIMITS));
      assert.equal(error.violations[0]?.field, 'jobs[1].job.source_images[0]');
      assert.equal(await store.batch(wanted.batchId), undefined);
      assert.deepEqual((await store.list({ tenant: 'one', pageSize: 10 })).jobs, []);
      assert.equal((await store.usage('one')).queued, 0);
    });

    it('has room for all of a batch or for none, also for two that come at once', async (t) => {
      const { store } = await open(t);
      const tight = { ...LIMITS, maxQueued: 10 };
      const error = await refusal(store.submitBatch(wantedBatch({ count: 11 }), tight));
      assert.equal(error.reason, 'QUOTA_EXCEEDED');
      const outcomes = await Promise.allSettled([6, 6, 6].map((count) => store.submitBatch(wantedBatch({ count }), tight)));
      assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
      assert.equal((await store.usage('one')).queued, 6);
      await store.submitBatch(wantedBatch({ count: 4 }), tight);
      assert.equal((await refusal(store.submit(wantedJob(), tight))).reason, 'QUOTA_EXCEEDED');
    });

    it('answers a repeat with the first batch, and refuses another one under its key', async (t) => {
      const { store, restart } = await open(t);
      const wanted = wantedBatch({ idempotencyKey: 'monday' });
      const repeats = () => wantedBatch({ idempotencyKey: 'monday' });
      const outcomes = await Promise.all([wanted, repeats(), repeats()].map((one) => store.submitBatch(one, LIMITS)));
      assert.deepEqual(outcomes.map(({ created }) => created).sort(), [false, false, true]);
      const [id] = new Set(outcomes.map(({ batch }) => batch.batchId));
      assert.equal(new Set(outcomes.map(({ batch }) => batch.batchId)).size, 1);
      assert.equal((await store.usage('one')).queued, 3);
      const again = await restart();
      assert.equal((await again.submittedBatch('one', 'monday', 'digest'))?.batchId, id);
      assert.equal(await again.submittedBatch('two', 'monday', 'digest'), undefined);
      const job = wantedJob({ request: { idempotencyKey: 'monday' }, requestDigest: 'of a job' });
      for (const other of [
        () => again.submitBatch(wantedBatch({ idempotencyKey: 'monday', requestDigest: 'other' }), LIMITS),
        () => again.submit(job, LIMITS),
      ]) {
        const { reason, metadata } = await refusal(other());
        assert.deepEqual([reason, metadata], ['IDEMPOTENCY_KEY_REUSED', { batch_id: id }]);
      }
    });

    it('cancels what has not ended, running jobs by their leases', async (t) => {
      const { store } = await open(t);
      const { batchId } = (await store.submitBatch(wantedBatch({ count: 100 }), LIMITS)).batch;
      const ended = await claim(store);
      await ended.begin(RUN);
      await ended.complete(done());
      const running = await claim(store);
      await running.begin(RUN);
      const batch = await store.cancelBatch(batchId, GRACE_MS);
      assert.deepEqual(counts(batch), { SUCCEEDED: 1, PROCESSING: 1, CANCELED: 98 });
      assert.ok(batch!.cancelRequestedMs);
      assert.equal(batch!.finishedMs, undefined);
      if (!running.signal.aborted) await new Promise((resolve) => running.signal.addEventListener('abort', resolve, { once: true }));
      await running.canceled();
      const finished = await store.batch(batchId);
      assert.deepEqual(counts(finished), { SUCCEEDED: 1, CANCELED: 99 });
      assert.ok(finished!.finishedMs);
      assert.deepEqual(await store.cancelBatch(batchId, GRACE_MS), finished, 'a finished batch stays as it is');
      assert.equal(await store.cancelBatch('batch_20250101_aaaaaaaaaaaa', GRACE_MS), undefined);
    });

    it('stops the rest when one has failed, where that was asked for', async (t) => {
      const { store } = await open(t);
      const { batchId } = (await store.submitBatch(wantedBatch({ count: 150, stopGraceMs: GRACE_MS }), LIMITS)).batch;
      const bystander = (await store.submitBatch(wantedBatch({ count: 2 }), LIMITS)).batch;
      const flaky = await claim(store);
      await flaky.begin(RUN);
      await flaky.fail(FLAKY);
      assert.equal((await store.batch(batchId))!.cancelRequestedMs, undefined, 'an attempt that will be made again is no failure');
      const broken = await claim(store);
      await broken.begin(RUN);
      const watch = store.watchBatch(batchId, undefined, NEVER)[Symbol.asyncIterator]();
      const first = watch.next();
      await broken.fail(BROKEN);
      await first;
      for (let next = await watch.next(); !next.done; next = await watch.next());
      const batch = await store.batch(batchId);
      assert.deepEqual(counts(batch), { FAILED: 1, CANCELED: 149 });
      assert.ok(batch!.finishedMs && batch!.cancelRequestedMs && batch!.stopsOnFailure);
      assert.deepEqual(counts(await store.batch(bystander.batchId)), { QUEUED: 2 });
    });

    it('tells each change of its jobs, resumes after any of them, and ends with the last', async (t) => {
      const { store } = await open(t);
      const { batchId, members } = (await store.submitBatch(wantedBatch({ count: 3 }), LIMITS)).batch;
      const watch = store.watchBatch(batchId, undefined, NEVER);
      const seen: JobChange[] = [];
      const all = (async () => {
        for await (const change of watch) seen.push(change);
      })();
      await store.submit(wantedJob(), LIMITS);
      for (let i = 0; i < 3; i++) {
        const lease = await claim(store);
        await lease.begin(RUN);
        await lease.complete(done());
      }
      await all;
      const last = new Map(seen.map(({ job }) => [job!.jobId, job!.status]));
      assert.deepEqual(new Set(last.keys()), new Set(members.map(({ jobId }) => jobId)), 'its own jobs and no others');
      assert.ok([...last.values()].every((status) => status === SUCCEEDED));
      const rest: JobChange[] = [];
      for await (const change of store.watchBatch(batchId, seen[0]!.watchToken, NEVER)) rest.push(change);
      assert.ok(rest.length > 0 && rest.every(({ reset }) => !reset));
      const none: JobChange[] = [];
      for await (const change of store.watchBatch(batchId, seen.at(-1)!.watchToken, NEVER)) none.push(change);
      assert.deepEqual(none, [], 'nothing follows the last');
      const resets: boolean[] = [];
      for await (const change of store.watchBatch(batchId, 'of another store', NEVER)) resets.push(change.reset);
      assert.deepEqual(resets, [true]);
    });

    it('leaves a watch that is left, also while it waits', async (t) => {
      const { store } = await open(t);
      const { batchId } = (await store.submitBatch(wantedBatch(), LIMITS)).batch;
      const left = new AbortController();
      const watch = store.watchBatch(batchId, undefined, left.signal)[Symbol.asyncIterator]();
      const next = watch.next();
      left.abort();
      assert.equal((await next).done, true);
    });

    it('has jobs that take the results of others of it, and of jobs outside, and cancels them with it', async (t) => {
      const { store } = await open(t);
      const outside = (await store.submit(wantedJob(), LIMITS)).job.jobId;
      const chained = () => {
        const jobs = [wantedJob(), wantedJob(), wantedJob()];
        const taking = (id: string, target: string) => ({
          request: create(JobRequestSchema, {
            sourceImages: [`job://${id}`],
            target: { case: 'targetImage', value: target },
            parameters: { processors: ['face_swapper'] },
          }),
        });
        // Each takes the result of the one behind it, and the first one more from outside.
        return wantedBatch({
          order: [2, 1, 0],
          job: (i) =>
            [
              { ...jobs[0]!, ...taking(jobs[1]!.jobId, `job://${outside}`) },
              { ...jobs[1]!, ...taking(jobs[2]!.jobId, 'target.jpg') },
              jobs[2]!,
            ][i]!,
        });
      };
      const wanted = chained();
      const [last, middle, first] = wanted.jobs.map(({ jobId }) => jobId) as [string, string, string];
      const { batchId } = (await store.submitBatch(wanted, LIMITS)).batch;
      assert.equal((await store.get(middle))!.waitReason, WaitReason.ANOTHER_JOB);
      const second = (await store.submitBatch(chained(), LIMITS)).batch;
      const stopped = await store.cancelBatch(second.batchId, GRACE_MS);
      assert.deepEqual(counts(stopped), { CANCELED: 3 });
      for (const id of [outside, first, middle, last]) {
        const lease = await claim(store);
        assert.equal(lease.job.jobId, id);
        await lease.begin(RUN);
        await lease.complete(done());
      }
      assert.deepEqual(counts(await store.batch(batchId)), { SUCCEEDED: 3 });
      const broken = chained();
      await store.submitBatch(broken, LIMITS);
      const lease = await claim(store);
      await lease.begin(RUN);
      const watch = store.watchBatch(broken.batchId, undefined, NEVER);
      await lease.fail(BROKEN);
      for await (const change of watch) void change;
      assert.deepEqual(counts(await store.batch(broken.batchId)), { FAILED: 3 });
      assert.equal((await store.get(broken.jobs[0]!.jobId))!.error?.reason, 'INPUT_JOB_FAILED');
      const unknown = wantedBatch({
        count: 2,
        job: (i) =>
          i === 1
            ? {
                request: create(JobRequestSchema, {
                  sourceImages: ['job://job_20250101_aaaaaaaaaaaa'],
                  target: { case: 'targetImage', value: 'x' },
                }),
              }
            : {},
      });
      const error = await refusal(store.submitBatch(unknown, LIMITS));
      assert.deepEqual(
        error.violations.map(({ field, reason }) => [field, reason]),
        [['jobs[1].job.source_images[0]', 'JOB_NOT_FOUND']],
      );
    });

    it('is forgotten with its last job, and its key with it', async (t) => {
      let nowMs = Date.now();
      const { store } = await open(t, { now: () => nowMs });
      const { batchId, members } = (await store.submitBatch(wantedBatch({ count: 2, idempotencyKey: 'key' }), LIMITS)).batch;
      await store.cancel(members[0]!.jobId, GRACE_MS);
      nowMs++;
      await store.expire({ jobTtlMs: 0, max: 10 });
      const half = await store.batch(batchId);
      assert.deepEqual(counts(half), { QUEUED: 1, CANCELED: 1 }, 'what has become of a job is known as long as its batch is');
      await store.cancelBatch(batchId, GRACE_MS);
      nowMs++;
      await store.expire({ jobTtlMs: 0, max: 10 });
      assert.equal(await store.batch(batchId), undefined);
      assert.equal(await store.submittedBatch('one', 'key', 'digest'), undefined);
      assert.equal((await store.submitBatch(wantedBatch({ idempotencyKey: 'key' }), LIMITS)).created, true);
    });

    it('takes a thousand jobs in one step and works them off', async (t) => {
      const { store } = await open(t);
      const { batchId } = (await store.submitBatch(wantedBatch({ count: 1000 }), LIMITS)).batch;
      const leave = new AbortController();
      const finished = (async () => {
        for await (const change of store.watchBatch(batchId, undefined, NEVER)) void change;
        leave.abort();
      })();
      const worker = async () => {
        for (;;) {
          const lease = await store.claim({ node: 'node' }, leave.signal);
          if (!lease) return;
          await lease.begin(RUN);
          if (lease.job.jobId.endsWith('a')) await lease.fail(BROKEN);
          else await lease.complete(done());
        }
      };
      await Promise.all([finished, ...Array.from({ length: 32 }, worker)]);
      const batch = await store.batch(batchId);
      const failed = batch!.members.filter(({ jobId }) => jobId.endsWith('a')).length;
      assert.equal(batch!.counts.get(FAILED) ?? 0, failed);
      assert.equal(batch!.counts.get(SUCCEEDED), 1000 - failed);
      assert.ok(batch!.finishedMs);
      assert.equal((await store.list({ batchId, pageSize: 1000 })).jobs.filter(({ status }) => isTerminal(status)).length, 1000);
      assert.equal(batch!.counts.get(PROCESSING) ?? 0, 0);
      assert.equal(batch!.counts.get(CANCELED) ?? 0, 0);
    });
  });
}
