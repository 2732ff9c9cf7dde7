// What a job store must do that several processes share: what holds between them, and when one of them is cut off, paused or killed. Knows no
// backend: a store calls `describeJobFleet` with a factory.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { create, toJson } from '@bufbuild/protobuf';
import { type JobEvent, LogLevel, LogSchema, ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { type Job, JobSchema, MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobsError } from '../../src/jobs/errors.ts';
import { isTerminal, JobStatus, JobStep, WaitReason } from '../../src/jobs/job.ts';
import { type JobStore, type Lease, LeaseEnded } from '../../src/jobs/ports.ts';
import { collect, patiently, statusOf } from './calls.ts';
import { claimNothing, wantedJob } from './job-store.ts';

export interface Member {
  readonly store: JobStore;
  /** Breaks its connections, once; it may connect again. */
  cut(): void;
}

/** A process of its own that takes a job, begins it and says what becomes of it, a line each. */
export interface Holder {
  line(): Promise<string>;
  /** SIGSTOP; its clocks run on. */
  pause(): void;
  resume(): void;
  kill(): Promise<void>;
}

export interface JobFleet {
  /** One more process's store on the same data. */
  join(): Promise<Member>;
  /** `held`: it has begun a job. Then it waits until its lease ends, tries to complete, and says how that went. */
  holder(): Promise<Holder>;
  /** Ends the server without warning and starts it again. */
  crash(): Promise<void>;
  destroy(): Promise<void>;
}

/** Leases are to last this long, so that a test need not wait for what takes half a minute. */
export const LEASE_MS = 1500;

const LIMITS = { maxQueued: 1_000_000, idempotencyMs: 86_400_000 };
const SUITE = { concurrency: 4, timeout: 120_000 };
const RUN = { slot: 'node/0', engine: undefined };
const NEVER = new AbortController().signal;
const BROKEN = { reason: 'NO', message: 'no', retryable: false, killedWorker: false };
const log = (message: string) => create(LogSchema, { level: LogLevel.INFO, message });
const result = () => ({
  result: create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: 'aa', frames: 1 }),
  warnings: [],
  timings: create(TimingsSchema),
});

async function claim(store: JobStore): Promise<Lease> {
  const lease = await store.claim({ node: 'node' }, NEVER);
  assert.ok(lease);
  return lease;
}

/** One terminal state, at the end, and a sequence without holes. */
function assertWhole(events: readonly JobEvent[]): void {
  assert.deepEqual(
    events.map(({ sequence }) => sequence),
    events.map((_, i) => i + 1),
  );
  const ends = events.filter((event) => isTerminal(statusOf(event) ?? JobStatus.QUEUED));
  assert.deepEqual([ends.length, ends[0]], [1, events.at(-1)]);
}

export function describeJobFleet(name: string, factory: () => Promise<JobFleet>): void {
  const open = async (t: TestContext): Promise<JobFleet> => {
    const fleet = await factory();
    t.after(() => fleet.destroy());
    return fleet;
  };
  const pair = async (t: TestContext) => {
    const fleet = await open(t);
    const [a, b] = [await fleet.join(), await fleet.join()];
    return { fleet, a: a.store, b: b.store, cutA: () => a.cut() };
  };

  describe(`${name}: several nodes`, SUITE, () => {
    it('see the same jobs, in the same order of service', async (t) => {
      const { a, b } = await pair(t);
      const ids: string[] = [];
      for (let i = 0; i < 6; i++) ids.push((await (i % 2 ? a : b).submit(wantedJob({ tenant: 'xy'[i % 2]! }), LIMITS)).job.jobId);
      // A field that is not set may be there or not, as in any message.
      const said = (jobs: readonly Job[]) => jobs.map((job) => toJson(JobSchema, job));
      for (const id of ids) assert.deepEqual(said([(await a.get(id))!]), said([(await b.get(id))!]));
      const served: string[] = [];
      for (let i = 0; i < 6; i++) served.push((await claim(i % 3 ? a : b)).job.jobId);
      assert.deepEqual(served.toSorted(), ids.toSorted());
      assert.deepEqual(said((await a.list({ pageSize: 10 })).jobs), said((await b.list({ pageSize: 10 })).jobs));
    });

    it('give each job to one of many claims', async (t) => {
      const { a, b } = await pair(t);
      const leave = new AbortController();
      const claims = Array.from({ length: 60 }, (_, i) => (i % 2 ? a : b).claim({ node: 'node' }, leave.signal));
      const got: string[] = [];
      const all = Promise.withResolvers<void>();
      for (const one of claims) void one.then((lease) => lease && got.push(lease.job.jobId) === 40 && all.resolve());
      const jobs = await Promise.all(Array.from({ length: 40 }, (_, i) => (i % 3 ? a : b).submit(wantedJob(), LIMITS)));
      await all.promise;
      leave.abort();
      await Promise.all(claims);
      assert.deepEqual(got.toSorted(), jobs.map(({ job }) => job.jobId).toSorted());
    });

    it('make one job of submits with one key, and hold one quota', async (t) => {
      const { a, b } = await pair(t);
      const one = await Promise.all(
        Array.from({ length: 20 }, (_, i) => (i % 2 ? a : b).submit(wantedJob({ request: { idempotencyKey: 'key' } }), LIMITS)),
      );
      assert.equal(one.filter(({ created }) => created).length, 1);
      assert.equal(new Set(one.map(({ job }) => job.jobId)).size, 1);
      const settled = await Promise.allSettled(
        Array.from({ length: 40 }, (_, i) => (i % 2 ? a : b).submit(wantedJob({ tenant: 'two' }), { ...LIMITS, maxQueued: 10 })),
      );
      assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, 10);
    });

    it('hear of a cancel asked for elsewhere', async (t) => {
      const { a, b } = await pair(t);
      const { job } = await a.submit(wantedJob(), LIMITS);
      const lease = await claim(b);
      await lease.begin(RUN);
      const told = new Promise<void>((resolve) => lease.signal.addEventListener('abort', () => resolve(), { once: true }));
      assert.equal((await a.cancel(job.jobId, 1000))?.status, JobStatus.PROCESSING);
      await told;
      assert.ok(lease.signal.reason instanceof LeaseEnded && lease.signal.reason.end === 'cancel_requested');
      await lease.canceled();
      assert.equal((await a.get(job.jobId))?.status, JobStatus.CANCELED);
    });

    it('watch what others do, and go on where another one stopped', async (t) => {
      const { a, b } = await pair(t);
      const { job } = await a.submit(wantedJob(), LIMITS);
      const live = collect(a.watch(job.jobId, 0, NEVER));
      const lease = await claim(b);
      await lease.begin(RUN);
      for (let i = 0; i < 30; i++) await lease.progress(create(ProgressSchema, { step: JobStep.PROCESSING, percent: i }));
      const half: JobEvent[] = [];
      for await (const event of b.watch(job.jobId, 0, NEVER)) if (half.push(event) === 15) break;
      await lease.complete(result());
      const rest = await collect(a.watch(job.jobId, half.at(-1)!.sequence, NEVER));
      assertWhole([...half, ...rest]);
      assert.deepEqual(await live, [...half, ...rest]);
    });

    it('take each other’s tokens, of lists and of changes', async (t) => {
      const { a, b } = await pair(t);
      for (let i = 0; i < 3; i++) await a.submit(wantedJob(), LIMITS);
      const first = await a.list({ pageSize: 2 });
      const second = await b.list({ pageSize: 2, pageToken: first.nextPageToken });
      assert.equal(new Set([...first.jobs, ...second.jobs].map(({ jobId }) => jobId)).size, 3);
      const { job } = await b.submit(wantedJob(), LIMITS);
      const changes = b.watchJobs({}, first.watchToken, NEVER)[Symbol.asyncIterator]();
      t.after(() => changes.return?.());
      const { value } = await changes.next();
      assert.deepEqual([value.job.jobId, value.reset], [job.jobId, false]);
    });

    it('let nobody refer to a blob that another one is deleting', async (t) => {
      const { a, b } = await pair(t);
      await a.submit(wantedJob(), LIMITS);
      const first = await claim(a);
      await first.pin('aa');
      await first.fail(BROKEN);
      await a.submit(wantedJob(), LIMITS);
      const second = await claim(b);
      const order: string[] = [];
      const [asked, mayDelete] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const reclaiming = a.reclaim(async () => {
        asked.resolve();
        await mayDelete.promise;
        order.push('deleted');
      });
      await asked.promise;
      const pinned = second.pin('aa').then(() => order.push('pinned'));
      await second.log(log('others pass'));
      mayDelete.resolve();
      await Promise.all([reclaiming, pinned]);
      assert.deepEqual(order, ['deleted', 'pinned']);
    });
  });

  describe(`${name}: a node that is lost`, SUITE, () => {
    it('gives its job up when it is killed, its attempt spent', async (t) => {
      const { fleet, a } = await pair(t);
      const { job } = await a.submit(wantedJob({ maxAttempts: 2 }), LIMITS);
      const holder = await fleet.holder();
      assert.equal(await holder.line(), `held ${job.jobId}`);
      await holder.kill();
      const lease = await claim(a);
      assert.deepEqual([lease.job.jobId, lease.job.error?.reason, lease.job.status], [job.jobId, 'NODE_LOST', JobStatus.QUEUED]);
      assert.equal((await lease.begin(RUN)).attempt, 2);
      assert.equal((await lease.fail({ ...BROKEN, retryable: true })).status, JobStatus.FAILED);
      assertWhole(await collect(a.watch(job.jobId, 0, NEVER)));
    });

    it('fails a job whose attempts are used up', async (t) => {
      const { fleet, a } = await pair(t);
      const { job } = await a.submit(wantedJob({ maxAttempts: 1 }), LIMITS);
      const holder = await fleet.holder();
      await holder.line();
      await holder.kill();
      const events = await collect(a.watch(job.jobId, 0, NEVER));
      assertWhole(events);
      const last = events.at(-1)!.event;
      assert.equal(last.case === 'state' && last.value.error?.reason, 'NODE_LOST');
    });

    it('is told that its lease is lost when it wakes from a pause, and what it writes then is refused', async (t) => {
      const { fleet, a } = await pair(t);
      const { job } = await a.submit(wantedJob(), LIMITS);
      const holder = await fleet.holder();
      await holder.line();
      holder.pause();
      const lease = await claim(a);
      await lease.begin(RUN);
      holder.resume();
      assert.equal(await holder.line(), 'ended lost');
      assert.equal(await holder.line(), 'refused LEASE_LOST');
      assert.equal((await lease.complete(result())).status, JobStatus.SUCCEEDED);
      assertWhole(await collect(a.watch(job.jobId, 0, NEVER)));
      await holder.kill();
    });

    it('is canceled for good when its job’s cancel was asked for', async (t) => {
      const { fleet, a } = await pair(t);
      const { job } = await a.submit(wantedJob(), LIMITS);
      const holder = await fleet.holder();
      await holder.line();
      holder.pause();
      await a.cancel(job.jobId, 1000);
      const events = await collect(a.watch(job.jobId, 0, NEVER));
      assert.equal(statusOf(events.at(-1)!), JobStatus.CANCELED);
      await holder.kill();
    });
  });

  describe(`${name}: a server that is lost`, SUITE, () => {
    it('has kept all that it acknowledged, and its clients come back by themselves', async (t) => {
      const { fleet, a, b } = await pair(t);
      const ids = (await Promise.all(Array.from({ length: 50 }, () => a.submit(wantedJob(), LIMITS)))).map(({ job }) => job.jobId);
      const lease = await claim(b);
      await lease.begin(RUN);
      await fleet.crash();
      for (const id of ids) assert.ok(await patiently(() => a.get(id)), `${id} is lost`);
      await patiently(() => lease.log(log('after the crash')));
      const done = await patiently(() => lease.complete(result()));
      assert.equal(done.status, JobStatus.SUCCEEDED);
      const late = await patiently(() => b.submit(wantedJob({ request: { priority: 10 } }), LIMITS));
      assert.equal((await patiently(() => claim(a))).job.jobId, late.job.jobId);
      assertWhole(await collect(a.watch(lease.job.jobId, 0, NEVER)));
    });

    it('and connections that break at any time make nothing happen twice', { timeout: 240_000 }, async (t) => {
      const { a, b, cutA } = await pair(t);
      const count = 24;
      let cutting = true;
      let answered = 0;
      const answer = async <T>(call: () => Promise<T>): Promise<T> => {
        const value = await patiently(call);
        answered++;
        return value;
      };
      const cuts = (async () => {
        for (let before = -1; cutting; ) {
          await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 40));
          // However slow the machine is, something gets through between two cuts.
          if (answered === before) continue;
          before = answered;
          cutA();
        }
      })();
      const stop = new AbortController();
      t.after(() => {
        cutting = false;
        stop.abort();
      });
      const ids: string[] = [];
      const acknowledged = new Map<string, string[]>();
      const submitting = (async () => {
        for (let i = 0; i < count; i++) {
          const wanted = wantedJob({ tenant: `t${i % 3}` });
          await answer(() => a.submit(wanted, LIMITS));
          ids.push(wanted.jobId);
        }
      })();
      const working = async () => {
        const lease = await answer(() => claim(a)).catch(() => undefined);
        if (!lease) return stop.abort();
        const said: string[] = [];
        const { jobId } = lease.job;
        try {
          await answer(() => lease.begin(RUN)).catch((error) => {
            // It took effect the first time, and only the answer was lost.
            if (!/cannot begin/.test(error.message)) throw error;
          });
          for (let i = 0; i < 5; i++) {
            const message = `${jobId} ${lease.job.attempt} ${i}`;
            await lease.log(log(message)).then(
              () => said.push(message),
              (error) => {
                if (!(error instanceof JobsError && error.kind === 'unavailable')) throw error;
              },
            );
          }
          await answer(() => lease.complete(result()));
          acknowledged.set(jobId, said);
        } catch (error) {
          // Lost while it was cut off: the job is another's.
          if (!(error instanceof JobsError && error.reason === 'LEASE_LOST')) throw error;
        }
      };
      const terminal = async () => {
        await submitting;
        await Promise.all(ids.map((id) => collect(b.watch(id, undefined, NEVER))));
      };
      const workers = Array.from({ length: 4 }, async () => {
        while (!stop.signal.aborted)
          await Promise.race([working(), new Promise((resolve) => stop.signal.addEventListener('abort', resolve))]);
      });
      await terminal();
      cutting = false;
      stop.abort();
      await Promise.all([cuts, ...workers]);
      assert.equal((await b.list({ pageSize: 1000 })).jobs.length, count, 'no job twice');
      for (const id of ids) {
        const events = await collect(b.watch(id, 0, NEVER));
        assertWhole(events);
        const messages = events.flatMap(({ event }) => (event.case === 'log' ? [event.value.message] : []));
        assert.equal(new Set(messages).size, messages.length, 'no line twice');
        for (const message of acknowledged.get(id) ?? [])
          assert.ok(messages.includes(message), `'${message}' was acknowledged and is lost`);
      }
      const { queued, running } = await b.usage('t0');
      assert.deepEqual([queued, running], [0, 0]);
    });
  });

  describe(`${name}: placement`, SUITE, () => {
    const heavy = (model: string, tenant = 'one') => wantedJob({ tenant, placement: { engine: 'facefusion', models: [model] } });

    it('gives a node no job of an engine that it does not run', async (t) => {
      const { a, b } = await pair(t);
      const other = await a.submit(wantedJob({ placement: { engine: 'classical', models: [] } }), LIMITS);
      const mine = await a.submit(heavy('x'), LIMITS);
      const want = { node: 'node', engines: ['facefusion'], warmModels: [], coldPenalty: 2 };
      assert.equal((await b.claim(want, NEVER))?.job.jobId, mine.job.jobId);
      assert.equal((await claim(a)).job.jobId, other.job.jobId);
    });

    it('prefers what is warm, and starves neither a cold class nor a cold tenant', async (t) => {
      const { a } = await pair(t);
      const cold = await a.submit(heavy('cold'), LIMITS);
      const coldTenant = await a.submit(heavy('cold', 'alone'), LIMITS);
      for (let i = 0; i < 12; i++) await a.submit(heavy('warm'), LIMITS);
      const want = { node: 'node', engines: ['facefusion'], warmModels: ['warm'], coldPenalty: 3 };
      const served: string[] = [];
      for (let i = 0; i < 14; i++) {
        const lease = (await a.claim(want, NEVER))!;
        served.push(lease.job.jobId);
        await lease.complete(result());
      }
      for (const [what, { job }] of Object.entries({ cold, coldTenant })) {
        const at = served.indexOf(job.jobId);
        assert.ok(at >= 2 && at <= 8, `${what} was served as number ${at}`);
      }
    });

    it('gives a claim for something better a job as cold as the one held, and no cold one for a warm one', async (t) => {
      const { a } = await pair(t);
      const ask = { node: 'node', engines: ['facefusion'], warmModels: ['warm'], coldPenalty: 3 };
      const urgent = () => a.submit(wantedJob({ request: { priority: 2 }, placement: { engine: 'facefusion', models: ['cold'] } }), LIMITS);
      await a.submit(heavy('cold'), LIMITS);
      const cold = (await a.claim(ask, NEVER))!;
      const better = await urgent();
      const instead = (await a.claim({ ...ask, above: cold.rank }, NEVER))!;
      assert.equal(instead.job.jobId, better.job.jobId);
      await cold.complete(result());
      await instead.complete(result());

      await a.submit(heavy('warm'), LIMITS);
      const warm = (await a.claim(ask, NEVER))!;
      await urgent();
      await claimNothing(a, { ...ask, above: warm.rank });
    });

    it('keeps a job given back at its place whatever is warm', async (t) => {
      const { a } = await pair(t);
      const first = await a.submit(heavy('cold'), LIMITS);
      await a.submit(heavy('cold'), LIMITS);
      const lease = await claim(a);
      await lease.giveBack(WaitReason.SLOT);
      assert.equal((await claim(a)).job.jobId, first.job.jobId);
    });
  });
}
