// Walks of a job through the steps that leases, callers and the clock make of it: what every store may rely on, whatever comes in whatever order.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { ProgressSchema } from '../gen/facefusion/jobs/v1/event_pb.js';
import { JobRequestSchema, MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { isTerminal, JobStatus, JobStep, newJob, POISON_KILLS, transition, WaitReason } from '../src/jobs/job.ts';
import type { Failed } from '../src/jobs/ports.ts';
import {
  after,
  begun,
  canceledByCaller,
  completed,
  ended,
  endedWith,
  expired,
  failed,
  givenBack,
  inherited,
  inputFailed,
  JOINED,
  NODE_LOST,
  progressed,
  purged,
  ready,
  recovered,
  refused,
  type Step,
  type Subject,
  startTimedOut,
  trimmedTo,
  verdictOf,
  warned,
  wonBy,
} from '../src/jobs/steps.ts';

const START = Date.UTC(2025, 3, 5);
const request = create(JobRequestSchema, { sourceImages: ['a'], target: { case: 'targetImage', value: 'b' } });
const timings = create(TimingsSchema, { gpuSeconds: 1 });
const result = create(MediaResultSchema, { sha256: 'aa', bytes: 1n, outputUri: 's3://mine/out.png' });
const done = { result, warnings: ['w'], timings };
const failure = { reason: 'ENGINE_ERROR', message: 'broken', retryable: false };

function fresh(maxAttempts: number, deadlineMs?: number): Subject {
  const job = newJob('job_20250405_aaaaaaaaaaaa', request, START, { tenant: 'default' });
  job.sequence = 1;
  return { job, held: false, maxAttempts, spent: 0, kills: 0, deadlineMs, blob: undefined };
}

/** What may come, and whether it needs a lease (`true`), a job that nobody holds (`false`) or neither. */
const verbs: Readonly<Record<string, { readonly held?: boolean; readonly step: (subject: Subject) => Step | undefined }>> = {
  begin: { held: true, step: (s) => (s.job.status === JobStatus.QUEUED ? begun(s, { slot: '0', engine: undefined }) : undefined) },
  join: { held: true, step: (s) => (s.job.status === JobStatus.QUEUED && !s.job.cancelRequestedAt ? JOINED : undefined) },
  warn: { held: true, step: (s) => warned(s, ['w']) },
  complete: { held: true, step: (s) => completed(s, done) },
  fail: { held: true, step: (s) => failed(s, { ...failure, killedWorker: false, timings }, START, 0.5) },
  failRetryable: { held: true, step: (s) => failed(s, { ...failure, retryable: true, killedWorker: false, timings }, START, 0.5) },
  kill: { held: true, step: (s) => failed(s, { ...failure, retryable: true, killedWorker: true, timings }, START, 0.5) },
  refuse: { held: true, step: (s) => refused(s, failure, timings) },
  canceled: { held: true, step: (s) => ended(s, timings) },
  giveBack: { held: true, step: (s) => givenBack(s, WaitReason.SLOT, timings) },
  lost: { held: true, step: (s) => recovered(s, NODE_LOST) },
  cancel: { step: (s) => canceledByCaller(s, 1000, 0) },
  leave: { step: (s) => canceledByCaller(s, 1000, 1) },
  overdue: { step: startTimedOut },
  purge: { step: (s) => (isTerminal(s.job.status) ? purged(s) : undefined) },
  expire: { step: (s) => (isTerminal(s.job.status) ? expired(s) : undefined) },
  ready: { held: false, step: ready },
  inherit: { held: false, step: (s) => inherited(s, 1) },
  inputFailed: { held: false, step: (s) => inputFailed(s, 'job_20250405_bbbbbbbbbbbb', undefined) },
  runWon: {
    held: false,
    step: (s) => endedWith(s, wonBy({ ...s, job: { ...s.job, cancelRequestedAt: undefined } }, done)!, { retentionMs: 5, again: false }),
  },
};

type Verb = keyof typeof verbs | 'claim';
const walk = fc.array(fc.oneof({ arbitrary: fc.constant<Verb>('claim'), weight: 6 }, fc.constantFrom<Verb>(...Object.keys(verbs))), {
  maxLength: 40,
});

/** Makes what can be made of a walk; each step is shown with what was before and after it. */
function follow(
  walked: readonly Verb[],
  maxAttempts: number,
  look: (before: Subject, step: Step, next: ReturnType<typeof after>) => void,
): void {
  let subject = fresh(maxAttempts, START + 5000);
  for (const verb of walked) {
    if (verb === 'claim') {
      if (subject.held || subject.job.status !== JobStatus.QUEUED) continue;
      subject = { ...subject, held: true, blob: 'pinned', job: transition(subject.job, { type: 'claim' }, START) };
      continue;
    }
    const { held, step: stepOf } = verbs[verb]!;
    if (held !== undefined && held !== subject.held) continue;
    const step = stepOf(subject);
    if (!step) continue;
    const next = after(subject, step, START + 1);
    look(subject, step, next);
    const { event: _event, ...rest } = next;
    subject = rest;
  }
}

const holds = (look: Parameters<typeof follow>[2]) =>
  fc.assert(
    fc.property(walk, fc.integer({ min: 1, max: 5 }), (walked, maxAttempts) => follow(walked, maxAttempts, look)),
    { numRuns: 2000 },
  );

describe('steps', () => {
  it('say where a job goes that is queued and was held, and that no other goes anywhere', () => {
    holds((before, { queue }, next) => {
      const waits = next.job.status === JobStatus.QUEUED && !next.held;
      if (before.held && waits) assert.ok(queue !== undefined && queue !== 'ready');
      if (!waits) assert.equal(queue, undefined);
    });
  });

  it('end once, and change nothing of a job that has ended but its purge', () => {
    holds((before, { change }, next) => {
      if (!isTerminal(before.job.status)) return;
      assert.equal(next.job.status, before.job.status);
      assert.ok(change === undefined || change.type === 'purge');
      assert.equal(next.event, undefined);
    });
  });

  it('write one event for each step that a caller can see, with the next sequence', () => {
    holds((before, { change }, next) => {
      const seen = change !== undefined && !['release', 'purge'].includes(change.type);
      assert.equal(next.event !== undefined, seen);
      assert.equal(next.job.sequence, before.job.sequence + Number(seen));
      if (next.event) assert.equal((next.event.value as { sequence: number }).sequence, next.job.sequence);
    });
  });

  it('spend an attempt with a failure or a lost node and with nothing else, and no more than there are', () => {
    holds((before, { change }, next) => {
      assert.ok(next.spent <= next.maxAttempts);
      const attempt = next.spent - before.spent;
      assert.ok(attempt === 0 || attempt === 1);
      if (attempt === 1) assert.ok(change?.type === 'fail' || change?.type === 'requeue');
      if (change?.type === 'requeue') assert.ok(next.spent < next.maxAttempts);
    });
  });

  it('refer to what was pinned while the lease lasts, then to the result alone', () => {
    holds((before, _, next) => assert.equal(next.blob, next.held ? before.blob : next.job.result?.sha256));
  });

  it('let a deadline be met by the engine alone', () => {
    holds((before, { change }, next) => assert.equal(next.deadlineMs, change?.type === 'begin' ? undefined : before.deadlineMs));
  });

  it('carry out a cancel that was asked for, whatever else the lease has to say but a refusal', () => {
    holds((before, { lease }, next) => {
      if (!before.held || !before.job.cancelRequestedAt || isTerminal(before.job.status) || lease === 'keep') return;
      assert.ok([JobStatus.CANCELED, JobStatus.REFUSED].includes(next.job.status));
    });
  });
});

describe('a run that jobs share', () => {
  const kill = (message: string): Failed => ({ ...failure, message, retryable: true, killedWorker: true, timings });
  const run = (kills: number): Subject => ({ ...fresh(100), held: true, kills });

  it('ends all of them with the verdict that its own job fails with', () => {
    const subject = run(POISON_KILLS - 1);
    const step = failed(subject, kill('died'), START, 0);
    assert.ok(step.change?.type === 'fail');
    assert.deepEqual(verdictOf(subject, kill('died')), { type: 'fail', failure: step.change.failure });
    assert.match(step.change.failure.message, /^3 workers died on this job, the last one so: died$/);
    assert.equal(verdictOf(run(0), kill('died')), undefined, 'a worker may die of anything');
    assert.ok(verdictOf(run(0), { ...failure, killedWorker: false, ofRun: true, timings }));
  });

  it('gives them its result without the copy that was made for its own job', () => {
    const won = wonBy(run(0), done)!;
    assert.equal(won.result.outputUri, undefined);
    const step = endedWith(fresh(1), won, { retentionMs: 5, again: false })!;
    assert.ok(step.change?.type === 'succeed' && step.change.cached && step.change.retentionMs === 5);
    assert.equal(endedWith(fresh(1), won, { retentionMs: 5, again: true })!.queue, 'ready');
  });

  it('counts on for its heir', () => {
    assert.equal(inherited(fresh(1), 2)!.kills, 2);
    assert.equal(inherited({ ...fresh(1), kills: 3 }, 2)!.kills, 3);
  });
});

describe('what a run says', () => {
  it('is an event with the next sequence, and nothing once the job has ended', () => {
    const subject = fresh(1);
    const progress = create(ProgressSchema, { step: JobStep.PROCESSING, percent: 40 });
    const said = progressed(subject, progress, 50, START)!;
    assert.equal(said.job.sequence, 2);
    assert.ok(said.event.case === 'progress' && said.event.value.percent === 50);
    const { job } = after({ ...subject, held: true }, completed(subject, done), START);
    assert.equal(progressed({ ...subject, job }, progress, 60, START), undefined);
  });

  it('is trimmed a quarter at a time', () => {
    const at = (sequence: number) => trimmedTo({ ...fresh(1).job, sequence }, 0, 100);
    assert.equal(at(125), 0);
    assert.equal(at(126), 26);
  });
});
