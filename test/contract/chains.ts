// What every job store does with jobs that take the results of others, as `job://ID`. Knows no backend.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { EngineInfoSchema, MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobsError } from '../../src/jobs/errors.ts';
import { isTerminal, type Job, JobStatus, newJobId, WaitReason } from '../../src/jobs/job.ts';
import type { JobStore, Lease } from '../../src/jobs/ports.ts';
import { type JobStoreFactory, type Wanted, wantedJob } from './job-store.ts';

const { QUEUED, SUCCEEDED, FAILED, CANCELED } = JobStatus;
const LIMITS = { maxQueued: 1_000_000, idempotencyMs: 86_400_000 };
const SUITE = { concurrency: 8, timeout: 120_000 };
const RUN = { slot: 'node/0', engine: create(EngineInfoSchema, { name: 'classical', version: '1' }) };
const TIMINGS = create(TimingsSchema, { runSeconds: 1.5 });
const BROKEN = { reason: 'NO_FACE_IN_SOURCE', message: 'there is no face', retryable: false, killedWorker: false };
const NEVER = new AbortController().signal;

const keyOf = () => randomBytes(32).toString('hex');
const done = (sha256 = keyOf(), more: { retentionMs?: number } = {}) => ({
  result: create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256, frames: 1 }),
  warnings: [],
  timings: TIMINGS,
  ...more,
});

export function describeChains(name: string, factory: JobStoreFactory): void {
  const open = async (t: TestContext) => {
    const opened = await factory();
    t.after(() => opened.destroy());
    return opened;
  };
  const submit = async (store: JobStore, more: Wanted = {}): Promise<Job> => (await store.submit(wantedJob(more), LIMITS)).job;
  /** A job whose target is the result of another one. */
  const after = (of: string, more: Wanted = {}): Wanted => ({
    ...more,
    request: { ...more.request, target: { case: 'targetImage', value: `job://${of}` } },
  });
  const claim = async (store: JobStore): Promise<Lease> => {
    const lease = await store.claim({ node: 'node' }, NEVER);
    assert.ok(lease);
    return lease;
  };
  const finish = async (store: JobStore, key?: string): Promise<Job> => {
    const lease = await claim(store);
    await lease.begin(RUN);
    return await lease.complete(done(key));
  };
  const ended = async (store: JobStore, id: string): Promise<Job> => {
    for await (const event of store.watch(id, undefined, NEVER)) void event;
    const job = (await store.get(id))!;
    assert.ok(isTerminal(job.status));
    return job;
  };
  /** Until a waiting job is ready: its next event says so. */
  const released = async (store: JobStore, id: string): Promise<void> => {
    for await (const event of store.watch(id, 1, NEVER)) if (event.event.case === 'state') return;
  };
  const nothing = async (store: JobStore): Promise<void> => {
    const leave = new AbortController();
    const claimed = store.claim({ node: 'node' }, leave.signal);
    await store.submit(wantedJob({ tenant: 'witness' }), { ...LIMITS, maxQueued: 0 }).catch(() => {});
    leave.abort();
    assert.equal(await claimed, undefined);
  };
  const violation = async (call: Promise<unknown>) => {
    const error = await call.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof JobsError, `refused with ${error}`);
    assert.equal(error.reason, 'INVALID_REQUEST');
    assert.equal(error.violations.length, 1);
    return error.violations[0]!;
  };
  const reclaimed = async (store: JobStore): Promise<string[]> => {
    const keys: string[] = [];
    await store.reclaim(async (key) => void keys.push(key));
    return keys;
  };

  describe(`${name}: a job that takes another one's result`, SUITE, () => {
    it('waits for it, keeps its place, and has the bytes when it is claimed', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const second = await submit(store, after(first.jobId));
      assert.deepEqual([second.status, second.waitReason, second.queuePosition], [QUEUED, WaitReason.ANOTHER_JOB, 1]);
      const third = await submit(store);
      const lease = await claim(store);
      assert.equal(lease.job.jobId, first.jobId);
      assert.equal(lease.inputs.size, 0);
      await lease.begin(RUN);
      const { result } = await lease.complete(done());
      await released(store, second.jobId);
      assert.equal((await store.get(second.jobId))?.waitReason, WaitReason.SLOT);
      // Before the one that came after it.
      const next = await claim(store);
      assert.equal(next.job.jobId, second.jobId);
      assert.deepEqual([...next.inputs], [[first.jobId, result!.sha256]]);
      assert.equal((await claim(store)).job.jobId, third.jobId);
    });

    it('is ready at once where that has succeeded', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const key = keyOf();
      await finish(store, key);
      const second = await submit(store, after(first.jobId));
      assert.deepEqual([second.waitReason, second.queuePosition], [WaitReason.SLOT, 0]);
      assert.deepEqual([...(await claim(store)).inputs], [[first.jobId, key]]);
    });

    it('waits for each of several', async (t) => {
      const { store } = await open(t);
      const [a, b] = [await submit(store), await submit(store)];
      const both: NonNullable<Wanted['request']> = {
        sourceImages: [`job://${a.jobId}`, `job://${b.jobId}`],
        target: { case: 'targetImage', value: `job://${a.jobId}` },
      };
      const waiting = await submit(store, { request: both });
      await finish(store);
      const lease = await claim(store);
      assert.equal(lease.job.jobId, b.jobId);
      assert.equal((await store.get(waiting.jobId))?.waitReason, WaitReason.ANOTHER_JOB);
      await lease.begin(RUN);
      await lease.complete(done());
      const last = await claim(store);
      assert.equal(last.job.jobId, waiting.jobId);
      assert.deepEqual([...last.inputs.keys()].sort(), [a.jobId, b.jobId].sort());
    });

    it('has one state event more when it becomes ready, and a gapless sequence', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const second = await submit(store, after(first.jobId));
      await finish(store);
      await finish(store);
      const sequences: number[] = [];
      const waits: WaitReason[] = [];
      for await (const { sequence, event } of store.watch(second.jobId, 0, NEVER)) {
        sequences.push(sequence);
        if (event.case === 'state' && event.value.status === QUEUED) waits.push(event.value.waitReason);
      }
      assert.deepEqual(sequences, [1, 2, 3, 4]);
      assert.deepEqual(waits, [WaitReason.ANOTHER_JOB, WaitReason.SLOT]);
    });

    it('keeps the bytes when that is purged or forgotten, until it has ended itself', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const key = keyOf();
      const waiting = await submit(store, after(first.jobId));
      await finish(store, key);
      const late = await submit(store, after(first.jobId));
      await store.purge(first.jobId);
      await store.expire({ jobTtlMs: -1000, max: 10 });
      assert.equal(await store.get(first.jobId), undefined);
      assert.deepEqual(await reclaimed(store), []);
      for (const { jobId } of [waiting, late]) {
        const lease = await claim(store);
        assert.equal(lease.job.jobId, jobId);
        assert.deepEqual([...lease.inputs.values()], [key]);
        await lease.begin(RUN);
        assert.deepEqual(await reclaimed(store), []);
        await lease.fail(BROKEN);
      }
      assert.deepEqual(await reclaimed(store), [key]);
    });

    it('keeps them over a retry and a restart', async (t) => {
      const { store, restart } = await open(t);
      const first = await submit(store);
      const key = keyOf();
      await finish(store, key);
      await submit(store, after(first.jobId));
      await store.purge(first.jobId);
      const lease = await claim(store);
      await lease.begin(RUN);
      await lease.giveBack(WaitReason.SLOT);
      const reopened = await restart();
      assert.deepEqual(await reclaimed(reopened), []);
      const again = await claim(reopened);
      assert.deepEqual([...again.inputs], [[first.jobId, key]]);
    });

    it('tells its own result from the bytes that it takes, where they are the same', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const key = keyOf();
      await finish(store, key);
      const second = await submit(store, after(first.jobId));
      await store.purge(first.jobId);
      assert.equal((await finish(store, key)).jobId, second.jobId);
      assert.deepEqual(await reclaimed(store), []);
      await store.purge(second.jobId);
      assert.deepEqual(await reclaimed(store), [key]);
    });

    it('waits over a restart', async (t) => {
      const { store, restart } = await open(t);
      const first = await submit(store);
      const second = await submit(store, after(first.jobId));
      const reopened = await restart();
      assert.deepEqual(
        [(await reopened.get(second.jobId))?.waitReason, (await reopened.get(second.jobId))?.queuePosition],
        [WaitReason.ANOTHER_JOB, 1],
      );
      await finish(reopened);
      assert.equal((await claim(reopened)).job.jobId, second.jobId);
    });
  });

  describe(`${name}: a job whose input will not come`, SUITE, () => {
    const ends: Readonly<Record<string, (store: JobStore, id: string) => Promise<unknown>>> = {
      fails: async (store) => {
        const lease = await claim(store);
        await lease.begin(RUN);
        await lease.fail(BROKEN);
      },
      'is canceled': (store, id) => store.cancel(id, 0),
      'is refused': async (store) => {
        const lease = await claim(store);
        await lease.begin(RUN);
        await lease.refuse({ reason: 'CONTENT_REFUSED', message: 'no', retryable: false });
      },
      'is canceled while it runs': async (store, id) => {
        const lease = await claim(store);
        await lease.begin(RUN);
        await store.cancel(id, 0);
        await lease.canceled();
      },
    };
    for (const [how, end] of Object.entries(ends)) {
      it(`fails with its own reason when that ${how}, and so do those that wait for it in turn`, async (t) => {
        const { store } = await open(t);
        const first = await submit(store);
        const second = await submit(store, after(first.jobId));
        const third = await submit(store, after(second.jobId));
        await end(store, first.jobId);
        for (const [job, of] of [
          [second, first],
          [third, second],
        ] as const) {
          const { status, error, sequence } = await ended(store, job.jobId);
          assert.deepEqual([status, error?.reason, error?.retryable, sequence], [FAILED, 'INPUT_JOB_FAILED', false, 2]);
          assert.ok(error?.message.includes(of.jobId), error?.message);
        }
        await nothing(store);
        assert.equal((await store.overview(60_000)).totals.get(QUEUED) ?? 0, 0);
      });
    }

    it('is long in a chain, and costs each one step', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      let last = first;
      for (let i = 0; i < 300; i++) last = await submit(store, after(last.jobId));
      await store.cancel(first.jobId, 0);
      assert.equal((await ended(store, last.jobId)).error?.reason, 'INPUT_JOB_FAILED');
    });

    it('does not wait for a job that is tried again', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const second = await submit(store, after(first.jobId));
      const lease = await claim(store);
      await lease.begin(RUN);
      await lease.fail({ ...BROKEN, retryable: true });
      assert.equal((await store.get(second.jobId))?.status, QUEUED);
      await store.cancel(first.jobId, 0);
      assert.equal((await ended(store, second.jobId)).status, FAILED);
    });

    it('is canceled as any other, and lets go what it has', async (t) => {
      const { store } = await open(t);
      const [a, b] = [await submit(store), await submit(store)];
      const waiting = await submit(store, after(b.jobId, { request: { sourceImages: [`job://${a.jobId}`] } }));
      const key = keyOf();
      await finish(store, key);
      await store.purge(a.jobId);
      assert.deepEqual(await reclaimed(store), []);
      assert.equal((await store.cancel(waiting.jobId, 0))?.status, CANCELED);
      assert.deepEqual(await reclaimed(store), [key]);
      assert.equal((await finish(store)).status, SUCCEEDED);
      assert.equal((await store.get(waiting.jobId))?.status, CANCELED);
      await nothing(store);
    });

    it('fails when it has not started in its time, waiting or not', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const second = await submit(store, after(first.jobId, { startTimeoutMs: 20 }));
      assert.equal((await ended(store, second.jobId)).error?.reason, 'START_TIMEOUT');
      await finish(store);
      assert.equal((await store.get(second.jobId))?.status, FAILED);
    });
  });

  describe(`${name}: a submit that names jobs`, SUITE, () => {
    it('is refused alike for a job that is not there and for one of another tenant', async (t) => {
      const { store } = await open(t);
      const foreign = await submit(store, { tenant: 'two' });
      const unknown = newJobId(Date.now(), randomBytes(12));
      const violations = await Promise.all([foreign.jobId, unknown].map((id) => violation(submit(store, after(id)))));
      assert.deepEqual(
        violations.map(({ field, reason }) => [field, reason]),
        [
          ['target_image', 'JOB_NOT_FOUND'],
          ['target_image', 'JOB_NOT_FOUND'],
        ],
      );
      assert.equal(violations[0]!.description.replace(foreign.jobId, unknown), violations[1]!.description);
    });

    it('is refused for a job that has ended without a result, or has lost it', async (t) => {
      const { store } = await open(t);
      const canceled = await submit(store);
      await store.cancel(canceled.jobId, 0);
      const purged = await submit(store);
      await finish(store);
      await store.purge(purged.jobId);
      const said: string[] = [];
      for (const { jobId } of [canceled, purged]) {
        const { reason, description } = await violation(submit(store, after(jobId)));
        assert.equal(reason, 'NO_RESULT');
        said.push(description);
      }
      assert.match(said[0]!, /was canceled/);
      assert.match(said[1]!, /was purged/);
      assert.equal((await store.overview(60_000)).totals.get(QUEUED) ?? 0, 0);
    });

    it('is refused where the result is of another kind', async (t) => {
      const { store } = await open(t);
      const video = await submit(store, { request: { target: { case: 'targetVideo', value: 'a.mp4' } } });
      const { reason, field } = await violation(submit(store, { request: { sourceImages: ['a.png', `job://${video.jobId}`] } }));
      assert.deepEqual([reason, field], ['INPUT_WRONG_KIND', 'source_images[1]']);
      const frames = await submit(store, { request: { target: { case: 'targetVideo', value: 'a.mp4' }, outputFormat: 'zip' } });
      for (const target of ['targetVideo', 'targetImage'] as const) {
        const { description } = await violation(submit(store, { request: { target: { case: target, value: `job://${frames.jobId}` } } }));
        assert.match(description, /is an archive of frames$/);
      }
      // A picture that speaks is a video.
      const spoken = await submit(store, { request: { target: { case: 'targetImage', value: 'a.png' }, outputFormat: 'mp4' } });
      await submit(store, { request: { target: { case: 'targetVideo', value: `job://${spoken.jobId}` } } });
      const sound = { sourceAudio: `job://${video.jobId}`, target: { case: 'targetVideo', value: `job://${video.jobId}` } } as const;
      assert.equal((await submit(store, { request: sound })).waitReason, WaitReason.ANOTHER_JOB);
    });

    it('gives the job that its key stands for, whatever has become of the other one', async (t) => {
      const { store } = await open(t);
      const first = await submit(store);
      const wanted = after(first.jobId, { request: { idempotencyKey: 'key' } });
      const second = await submit(store, wanted);
      await store.cancel(first.jobId, 0);
      await ended(store, second.jobId);
      const again = await store.submit(wantedJob(wanted), LIMITS);
      assert.deepEqual([again.created, again.job.jobId], [false, second.jobId]);
    });

    it('races the end of the other one: it waits, has the bytes, or is refused, and nothing else', async (t) => {
      const { store } = await open(t);
      for (let round = 0; round < 10; round++) {
        const first = await submit(store);
        const lease = await claim(store);
        await lease.begin(RUN);
        const fails = round % 2 === 0;
        const submits = Array.from({ length: 6 }, () =>
          store.submit(wantedJob(after(first.jobId)), LIMITS).catch((error: JobsError) => error),
        );
        const [settled] = await Promise.all([Promise.all(submits), fails ? lease.fail(BROKEN) : lease.complete(done())]);
        for (const one of settled) {
          if (one instanceof JobsError) {
            assert.ok(fails && one.violations[0]?.reason === 'NO_RESULT', one.message);
          } else if (fails) {
            assert.equal((await ended(store, one.job.jobId)).error?.reason, 'INPUT_JOB_FAILED');
          } else {
            const taken = await claim(store);
            assert.equal(taken.inputs.size, 1);
            await taken.begin(RUN);
            await taken.complete(done());
          }
        }
      }
    });
  });
}
