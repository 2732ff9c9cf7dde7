// What every job store does with like jobs: results kept for them, and runs that they share. Knows no backend.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { EngineInfoSchema, MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { isTerminal, type Job, JobStatus, JobStep, WaitReason } from '../../src/jobs/job.ts';
import type { Done, JobStore, Lease, LeaseEnded, Match } from '../../src/jobs/ports.ts';
import { type JobStoreFactory, type JobStoreSettings, type Wanted, wantedJob } from './job-store.ts';

const { QUEUED, PROCESSING, SUCCEEDED, FAILED, CANCELED, REFUSED } = JobStatus;
const LIMITS = { maxQueued: 1_000_000, idempotencyMs: 86_400_000 };
const SUITE = { concurrency: 8, timeout: 120_000 };
const RUN = { slot: 'node/0', engine: create(EngineInfoSchema, { name: 'classical', version: '1' }) };
const TIMINGS = create(TimingsSchema, { runSeconds: 1.5 });
const NEVER = new AbortController().signal;
const BROKEN = { reason: 'NO_FACE_IN_SOURCE', message: 'there is no face', retryable: false, killedWorker: false, ofRun: true };
const FLAKY = { reason: 'ENGINE_ERROR', message: 'something went wrong', retryable: true, killedWorker: false, ofRun: true };
const CRASH = { reason: 'WORKER_CRASHED', message: 'the worker died', retryable: true, killedWorker: true };
const DAY_MS = 86_400_000;

const hex = () => randomBytes(32).toString('hex');
const like = (fingerprint: string, more: Partial<Match> = {}): Match => ({
  fingerprint,
  runs: false,
  retentionMs: undefined,
  again: false,
  ...more,
});
const done = (sha256: string, fingerprint?: string, ttlMs = DAY_MS): Done => ({
  result: create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256, frames: 1, outputUri: 's3://mine/alone' }),
  keep: fingerprint === undefined ? undefined : { fingerprint, ttlMs },
  warnings: ['careful'],
  timings: TIMINGS,
});

export function describeSharedRuns(name: string, factory: JobStoreFactory): void {
  const open = async (t: TestContext, settings?: JobStoreSettings) => {
    const opened = await factory(settings);
    t.after(() => opened.destroy());
    return opened;
  };
  const submit = async (store: JobStore, wanted: Wanted = {}): Promise<Job> => (await store.submit(wantedJob(wanted), LIMITS)).job;
  const claim = async (store: JobStore): Promise<Lease> => {
    const lease = await store.claim({ node: 'node' }, NEVER);
    assert.ok(lease);
    return lease;
  };
  const ended = async (store: JobStore, id: string): Promise<Job> => {
    for await (const event of store.watch(id, undefined, NEVER)) void event;
    const job = (await store.get(id))!;
    assert.ok(isTerminal(job.status));
    return job;
  };
  const reclaimed = async (store: JobStore): Promise<string[]> => {
    const keys: string[] = [];
    await store.reclaim(async (key) => void keys.push(key));
    return keys;
  };
  /** A job that runs, and others that joined its run. */
  const shared = async (store: JobStore, count: number, fingerprint = hex(), more: Partial<Match> = {}) => {
    // With one attempt each, so that none comes back while the others go on.
    const first = await submit(store, { maxAttempts: 1 });
    const lease = await claim(store);
    assert.equal((await lease.match(like(fingerprint))).kind, 'run');
    await lease.begin(RUN);
    const joined: Job[] = [];
    for (let i = 0; i < count; i++) {
      joined.push(await submit(store, { maxAttempts: 1 }));
      assert.equal((await (await claim(store)).match(like(fingerprint, more))).kind, 'joined');
    }
    return { first, lease, joined, fingerprint };
  };
  const kept = async (store: JobStore, fingerprint: string, key: string, ttlMs?: number): Promise<Job> => {
    await submit(store);
    const lease = await claim(store);
    assert.equal((await lease.match(like(fingerprint))).kind, 'run');
    await lease.begin(RUN);
    await lease.pin(key);
    return await lease.complete(done(key, fingerprint, ttlMs));
  };

  describe(`${name}: the ends of jobs`, SUITE, () => {
    it('are told once each, whatever ends a job: a run, one that it joined, a cancel, a deadline, a job that it waits for', async (t) => {
      const told = new Map<string, Job[]>();
      const onEnded = (job: Job) => void told.set(job.jobId, [...(told.get(job.jobId) ?? []), job]);
      const { store } = await open(t, { onEnded });
      const { first, lease, joined } = await shared(store, 2);
      assert.equal(told.size, 0, 'none has ended');
      const key = hex();
      await lease.pin(key);
      await lease.complete(done(key));
      const late = await submit(store, { startTimeoutMs: 1 });
      const canceled = await submit(store);
      await store.cancel(canceled.jobId, 1000);
      const input = await submit(store);
      const waiter = await submit(store, { request: { sourceImages: [`job://${input.jobId}`] } });
      await store.cancel(input.jobId, 1000);
      const ends = new Map<string, JobStatus>([
        ...[first, ...joined].map(({ jobId }) => [jobId, SUCCEEDED] as const),
        ...[canceled, input].map(({ jobId }) => [jobId, CANCELED] as const),
        ...[late, waiter].map(({ jobId }) => [jobId, FAILED] as const),
      ]);
      for (const [id, status] of ends) assert.equal((await ended(store, id)).status, status);
      await store.purge(first.jobId);
      assert.deepEqual([...told].map(([id, jobs]) => [id, ...jobs.map(({ status }) => status)]).sort(), [...ends].sort());
    });
  });

  describe(`${name}: a kept result`, SUITE, () => {
    it('ends a like job without a run, with a reference of its own', async (t) => {
      const { store } = await open(t);
      const [fingerprint, key] = [hex(), hex()];
      const first = await kept(store, fingerprint, key);
      assert.equal(first.result?.outputUri, 's3://mine/alone');
      const { jobId } = await submit(store);
      const lease = await claim(store);
      const matched = await lease.match(like(fingerprint));
      assert.ok(matched.kind === 'cached');
      assert.deepEqual([matched.result.sha256, matched.result.outputUri], [key, undefined]);
      assert.deepEqual(matched.warnings, first.warnings);
      assert.ok(matched.warnings.length > 0, 'what its engine warned of');
      const job = await lease.complete({ result: matched.result, warnings: [], timings: TIMINGS });
      assert.deepEqual([job.jobId, job.status, job.cached, job.attempt, job.progress], [jobId, SUCCEEDED, true, 0, 100]);
      await store.purge(first.jobId);
      assert.deepEqual(await reclaimed(store), []);
      await store.purge(jobId);
      assert.deepEqual(await reclaimed(store), [key]);
    });

    it('outlives its job, is found after a restart, and goes in its time', async (t) => {
      let nowMs = Date.now();
      const { store, restart } = await open(t, { now: () => nowMs });
      const [fingerprint, key] = [hex(), hex()];
      await kept(store, fingerprint, key, DAY_MS);
      await store.expire({ jobTtlMs: -1000, max: 100 });
      assert.deepEqual(await reclaimed(store), []);
      const reopened = await restart();
      await submit(reopened);
      const lease = await claim(reopened);
      assert.equal((await lease.match(like(fingerprint))).kind, 'cached');
      await lease.fail({ ...BROKEN, ofRun: false });
      nowMs += DAY_MS;
      await reopened.expire({ jobTtlMs: 2 * DAY_MS, max: 100 });
      assert.deepEqual(await reclaimed(reopened), [key]);
      await submit(reopened);
      assert.equal((await (await claim(reopened)).match(like(fingerprint))).kind, 'run');
    });

    it('is not taken by a job that runs in any case, and is replaced by what that makes', async (t) => {
      const { store } = await open(t);
      const [fingerprint, old, fresh] = [hex(), hex(), hex()];
      const first = await kept(store, fingerprint, old);
      await submit(store);
      const lease = await claim(store);
      assert.equal((await lease.match(like(fingerprint, { runs: true }))).kind, 'run');
      await lease.begin(RUN);
      await lease.complete(done(fresh, fingerprint));
      await store.purge(first.jobId);
      assert.deepEqual(await reclaimed(store), [old]);
      await submit(store);
      const matched = await (await claim(store)).match(like(fingerprint));
      assert.equal(matched.kind === 'cached' && matched.result.sha256, fresh);
    });

    it('is gone with a purge of any job that has it, but not from one that has just taken it', async (t) => {
      const { store } = await open(t);
      const [fingerprint, key] = [hex(), hex()];
      const first = await kept(store, fingerprint, key);
      await submit(store);
      const lease = await claim(store);
      assert.equal((await lease.match(like(fingerprint))).kind, 'cached');
      await store.purge(first.jobId);
      assert.deepEqual(await reclaimed(store), []);
      await submit(store);
      assert.equal((await (await claim(store)).match(like(fingerprint))).kind, 'run');
      const { jobId } = await lease.complete(done(key));
      await store.purge(jobId);
      assert.deepEqual(await reclaimed(store), [key]);
    });

    it('races a purge: what a job took is there', async (t) => {
      const { store } = await open(t);
      for (let round = 0; round < 10; round++) {
        const [fingerprint, key] = [hex(), hex()];
        const first = await kept(store, fingerprint, key);
        await submit(store);
        const lease = await claim(store);
        const [matched] = await Promise.all([lease.match(like(fingerprint)), store.purge(first.jobId)]);
        const gone = await reclaimed(store);
        assert.deepEqual(gone, matched.kind === 'cached' ? [] : [key]);
        await lease.fail(BROKEN);
        await reclaimed(store);
      }
    });

    it('is not kept of a run that failed or was refused', async (t) => {
      const { store } = await open(t);
      const fingerprint = hex();
      for (const end of ['fail', 'refuse'] as const) {
        await submit(store);
        const lease = await claim(store);
        assert.equal((await lease.match(like(fingerprint))).kind, 'run');
        await lease.begin(RUN);
        await lease[end](BROKEN);
      }
      await submit(store);
      assert.equal((await (await claim(store)).match(like(fingerprint))).kind, 'run');
    });
  });

  describe(`${name}: a shared run`, SUITE, () => {
    it('ends all jobs that joined it, each with its own reference', async (t) => {
      const { store } = await open(t);
      const { first, lease, joined } = await shared(store, 3);
      const waiting = (await store.get(joined[0]!.jobId))!;
      assert.deepEqual([waiting.status, waiting.waitReason, waiting.attempt], [QUEUED, WaitReason.ANOTHER_JOB, 0]);
      const key = hex();
      await lease.pin(key);
      await lease.complete(done(key));
      for (const { jobId } of joined) {
        const { status, cached, result, warnings, attempt } = await ended(store, jobId);
        assert.deepEqual(
          [status, cached, result?.sha256, result?.outputUri, warnings, attempt],
          [SUCCEEDED, true, key, undefined, ['careful'], 0],
        );
      }
      await store.purge(first.jobId);
      for (const { jobId } of joined) {
        assert.deepEqual(await reclaimed(store), []);
        await store.purge(jobId);
      }
      assert.deepEqual(await reclaimed(store), [key]);
      const { totals } = await store.overview(60_000);
      assert.deepEqual([totals.get(QUEUED) ?? 0, totals.get(PROCESSING) ?? 0, totals.get(SUCCEEDED)], [0, 0, 4]);
    });

    it('is followed by those that joined, in a gapless sequence of their own', async (t) => {
      const { store } = await open(t);
      const { lease, joined } = await shared(store, 1);
      const { jobId } = joined[0]!;
      await lease.progress(create(ProgressSchema, { step: JobStep.PROCESSING, percent: 40 }));
      const seen: number[] = [];
      let percent = 0;
      const events = store.watch(jobId, 0, NEVER);
      for await (const { sequence, event } of events) {
        seen.push(sequence);
        if (event.case === 'progress') {
          percent = event.value.percent;
          await lease.complete(done(hex()));
        }
      }
      assert.equal(percent, 40);
      assert.deepEqual(
        seen,
        seen.map((_, i) => i + 1),
      );
    });

    it('has room for a job that would do something with the result itself: it is claimed again, and takes it', async (t) => {
      const { store } = await open(t);
      const { lease, joined, fingerprint } = await shared(store, 1, hex(), { again: true });
      await lease.complete(done(hex(), fingerprint));
      const again = await claim(store);
      assert.equal(again.job.jobId, joined[0]!.jobId);
      assert.equal((await again.match(like(fingerprint, { again: true }))).kind, 'cached');
    });

    it('is not joined by a job that runs in any case, nor by one of another kind', async (t) => {
      const { store } = await open(t);
      const { fingerprint } = await shared(store, 0);
      await submit(store);
      assert.equal((await (await claim(store)).match(like(fingerprint, { runs: true }))).kind, 'run');
      await submit(store);
      assert.equal((await (await claim(store)).match(like(hex()))).kind, 'run');
    });

    it('loses a canceled job at once, and goes on', async (t) => {
      const { store } = await open(t);
      const { lease, joined } = await shared(store, 2);
      assert.equal((await store.cancel(joined[0]!.jobId, 1000))?.status, CANCELED);
      assert.equal(lease.signal.aborted, false);
      await lease.complete(done(hex()));
      assert.equal((await ended(store, joined[1]!.jobId)).status, SUCCEEDED);
      assert.equal((await store.get(joined[0]!.jobId))?.status, CANCELED);
    });

    it('outlives its first job: that leaves at once, and the result is for the others', async (t) => {
      const { store } = await open(t);
      const { first, lease, joined, fingerprint } = await shared(store, 2);
      const key = hex();
      await lease.pin(key);
      const left = (await store.cancel(first.jobId, 1000))!;
      assert.deepEqual([left.status, left.forceStopAt], [CANCELED, undefined]);
      assert.equal(lease.signal.aborted, false);
      await store.purge(first.jobId);
      assert.deepEqual(await reclaimed(store), []);
      await lease.progress(create(ProgressSchema, { step: JobStep.PROCESSING, percent: 60 }));
      await submit(store);
      assert.equal((await (await claim(store)).match(like(fingerprint))).kind, 'joined');
      await lease.complete(done(key, fingerprint));
      for (const { jobId } of joined) assert.equal((await ended(store, jobId)).result?.sha256, key);
      const after = (await store.get(first.jobId))!;
      assert.deepEqual([after.status, after.result, after.sequence], [CANCELED, undefined, left.sequence]);
      assert.equal((await store.usage('one')).running, 0);
      assert.deepEqual(await reclaimed(store), []);
    });

    it('stops when the last one leaves', async (t) => {
      const { store } = await open(t);
      const { first, lease, joined, fingerprint } = await shared(store, 1);
      const key = hex();
      await lease.pin(key);
      await store.cancel(first.jobId, 1000);
      const aborted = new Promise((resolve) =>
        lease.signal.addEventListener('abort', () => resolve((lease.signal.reason as LeaseEnded).end)),
      );
      await store.cancel(joined[0]!.jobId, 1000);
      assert.equal(await aborted, 'cancel_requested');
      // The run that is being stopped is nobody's to join.
      await submit(store);
      assert.equal((await (await claim(store)).match(like(fingerprint))).kind, 'run');
      await lease.canceled();
      assert.deepEqual(await reclaimed(store), [key]);
      assert.equal((await store.get(first.jobId))?.status, CANCELED);
    });

    it('is over with the engine’s verdict on the content, for all', async (t) => {
      const { store } = await open(t);
      for (const [end, status] of [
        ['fail', FAILED],
        ['refuse', REFUSED],
      ] as const) {
        const { lease, joined } = await shared(store, 2);
        await lease[end](BROKEN);
        for (const { jobId } of joined) {
          const job = await ended(store, jobId);
          assert.deepEqual([job.status, job.error?.reason, job.attempt], [status, BROKEN.reason, 0]);
        }
      }
    });

    const otherwise: Readonly<Record<string, (store: JobStore, lease: Lease) => Promise<unknown>>> = {
      'fails and may be tried again': (_, lease) => lease.fail(FLAKY),
      'runs out of its own time': (_, lease) => lease.fail({ ...BROKEN, reason: 'RUN_TIMEOUT', ofRun: false }),
      'is given back': (_, lease) => lease.giveBack(WaitReason.SLOT),
      'fails after its first job has left': async (store, lease) => {
        await store.cancel(lease.job.jobId, 0);
        await lease.fail(FLAKY);
      },
    };
    for (const [how, end] of Object.entries(otherwise)) {
      it(`that ${how} goes on with the oldest of the others, and no attempt of its is spent`, async (t) => {
        const { store } = await open(t);
        const { lease, joined, fingerprint } = await shared(store, 2);
        await end(store, lease);
        let heir = await claim(store);
        // What was given back is at its old place, before the others: it joins those.
        if (heir.job.jobId === lease.job.jobId) {
          assert.equal((await heir.match(like(fingerprint))).kind, 'joined');
          heir = await claim(store);
        }
        assert.equal(heir.job.jobId, joined[0]!.jobId);
        assert.equal((await heir.match(like(fingerprint))).kind, 'run');
        assert.equal((await heir.begin(RUN)).attempt, 1);
        const key = hex();
        await heir.complete(done(key));
        assert.equal((await ended(store, joined[1]!.jobId)).result?.sha256, key);
        if (how === 'is given back') assert.equal((await ended(store, lease.job.jobId)).result?.sha256, key);
      });
    }

    it('that kills its workers is known to, whoever goes on with it', async (t) => {
      const { store } = await open(t);
      const { lease, joined, fingerprint } = await shared(store, 4);
      await lease.fail(CRASH);
      for (let i = 0; i < 2; i++) {
        const heir = await claim(store);
        assert.equal((await heir.match(like(fingerprint))).kind, 'run');
        await heir.begin(RUN);
        await heir.fail(CRASH);
      }
      for (const { jobId } of joined.slice(2)) assert.equal((await ended(store, jobId)).error?.reason, 'JOB_KILLS_WORKERS');
    });

    it('is left by a job whose inputs are others by then', async (t) => {
      const { store } = await open(t);
      const { lease, joined, fingerprint } = await shared(store, 2);
      await lease.fail(FLAKY);
      const heir = await claim(store);
      assert.equal(heir.job.jobId, joined[0]!.jobId);
      assert.equal((await heir.match(like(hex()))).kind, 'run');
      const next = await claim(store);
      assert.equal(next.job.jobId, joined[1]!.jobId);
      assert.equal((await next.match(like(fingerprint))).kind, 'run');
    });

    it('is over with the service: its jobs go on by themselves', async (t) => {
      const { store, restart } = await open(t);
      const { lease, joined, fingerprint } = await shared(store, 2);
      const key = hex();
      await lease.pin(key);
      await store.cancel(lease.job.jobId, 0);
      const reopened = await restart();
      const heir = await claim(reopened);
      assert.equal(heir.job.jobId, joined[0]!.jobId);
      assert.equal((await heir.match(like(fingerprint))).kind, 'run');
      await heir.begin(RUN);
      // A store whose runs are known to this process alone gives the other one out again, which joins.
      const leave = new AbortController();
      const other = reopened
        .claim({ node: 'node' }, leave.signal)
        .then(async (lease) => lease && (await lease.match(like(fingerprint))).kind);
      assert.deepEqual(await reclaimed(reopened), [key]);
      await heir.complete(done(key));
      for (const { jobId } of joined) assert.equal((await ended(reopened, jobId)).status, SUCCEEDED);
      leave.abort();
      assert.ok([undefined, 'joined'].includes(await other));
    });

    it('of many jobs is one run', async (t) => {
      const { store } = await open(t);
      const fingerprint = hex();
      const jobs = await Promise.all(Array.from({ length: 40 }, () => submit(store)));
      let runs = 0;
      const work = async () => {
        for (;;) {
          const lease = await store.claim({ node: 'node' }, stop.signal);
          if (!lease) return;
          const matched = await lease.match(like(fingerprint));
          if (matched.kind === 'joined') continue;
          if (matched.kind === 'run') {
            runs++;
            await lease.begin(RUN);
            await lease.progress(create(ProgressSchema, { step: JobStep.PROCESSING, percent: 50 }));
          }
          await lease.complete(matched.kind === 'cached' ? { ...done(hex()), result: matched.result } : done(hex(), fingerprint));
        }
      };
      const stop = new AbortController();
      const workers = Promise.all([work(), work(), work()]);
      await Promise.all(jobs.map(({ jobId }) => ended(store, jobId)));
      stop.abort();
      await workers;
      assert.equal(runs, 1);
      const results = await Promise.all(jobs.map(({ jobId }) => store.get(jobId)));
      assert.equal(new Set(results.map((job) => job?.result?.sha256)).size, 1);
      assert.equal(results.filter((job) => job?.cached).length, 39);
    });
  });
}

export function describeLateCancels(name: string, factory: JobStoreFactory): void {
  it(`${name}: a job that is to be canceled joins no run, in which nobody would hear of that`, async (t) => {
    const { store, destroy } = await factory();
    t.after(destroy);
    const fingerprint = hex();
    const claimed = async () => {
      await store.submit(wantedJob({}), LIMITS);
      return (await store.claim({ node: 'node' }, NEVER))!;
    };
    const first = await claimed();
    assert.equal((await first.match(like(fingerprint))).kind, 'run');
    await first.begin(RUN);
    for (let round = 0; round < 10; round++) {
      const late = await claimed();
      const { jobId } = late.job;
      const [, { kind }] = await Promise.all([store.cancel(jobId, 1000), late.match(like(fingerprint))]);
      // It had joined before, and the cancel took it out again; or its holder is told, and ends it.
      if (kind === 'run') await late.canceled();
      assert.equal((await store.get(jobId))?.status, CANCELED, `round ${round}: ${kind}`);
    }
    assert.equal(first.signal.aborted, false);
    assert.equal((await first.complete(done(hex()))).status, SUCCEEDED);
  });
}
