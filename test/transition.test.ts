// Walks of the transition function: whatever happens to a job, in whatever order, what must hold holds.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { JobRequestSchema, MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import {
  type Change,
  type ChangeType,
  IllegalTransition,
  isTerminal,
  type Job,
  JobStatus,
  JobStep,
  newJob,
  newJobId,
  rankOf,
  retryDelayMs,
  stateOf,
  TRANSITIONS,
  transition,
  WaitReason,
} from '../src/jobs/job.ts';

const PAGE = join(import.meta.dirname, '..', 'docs', '02-a-job.md');

const START = Date.UTC(2025, 3, 5);
const failure = fc.record({ reason: fc.constantFrom('ENGINE_ERROR', 'WORKER_CRASHED'), message: fc.string(), retryable: fc.boolean() });
const timings = fc.option(fc.constant(create(TimingsSchema, { runSeconds: 2, gpuSeconds: 3 })), { nil: undefined });
const wait = fc.constantFrom(WaitReason.SLOT, WaitReason.RETRY, WaitReason.MODEL_LOADING);
const warnings = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 3 });
const result = fc.constant(create(MediaResultSchema, { sha256: 'aa', bytes: 1n }));

const changes: { readonly [T in ChangeType]: fc.Arbitrary<Change & { type: T }> } = {
  claim: fc.record({ type: fc.constant('claim') }),
  release: fc.record({ type: fc.constant('release'), wait }),
  wait: fc.record({ type: fc.constant('wait'), wait }),
  begin: fc.record({ type: fc.constant('begin'), slot: fc.constantFrom('0', '1'), engine: fc.constant(undefined) }),
  progress: fc.record({
    type: fc.constant('progress'),
    step: fc.constantFrom(JobStep.ANALYSING, JobStep.PROCESSING),
    percent: fc.double({ min: 0, max: 150, noNaN: true }),
    estimatedFinish: fc.constant(undefined),
  }),
  warn: fc.record({ type: fc.constant('warn'), warnings }),
  succeed: fc.record({ type: fc.constant('succeed'), result, warnings, timings, cached: fc.boolean() }),
  fail: fc.record({ type: fc.constant('fail'), failure, timings }),
  refuse: fc.record({ type: fc.constant('refuse'), failure, timings }),
  requeue: fc.record({ type: fc.constant('requeue'), wait, failure: fc.option(failure, { nil: undefined }), timings }),
  request_cancel: fc.record({ type: fc.constant('request_cancel'), graceMs: fc.nat(9_000) }),
  cancel: fc.record({ type: fc.constant('cancel'), timings }),
  purge: fc.record({ type: fc.constant('purge') }),
};
// Steps that go on are as likely as those that end, so that walks grow long.
const going: fc.Arbitrary<Change> = fc.oneof(
  changes.claim,
  changes.release,
  changes.wait,
  changes.begin,
  changes.progress,
  changes.warn,
  changes.requeue,
);
const walk = fc.array(fc.oneof({ arbitrary: going, weight: 4 }, fc.oneof(...(Object.values(changes) as fc.Arbitrary<Change>[]))), {
  maxLength: 40,
});

const request = create(JobRequestSchema, { sourceImages: ['a'], target: { case: 'targetImage', value: 'b' } });
const fresh = (): Job => newJob('job_20250405_aaaaaaaaaaaa', request, START, { tenant: 'default', warnings: ['w'] });

/** Applies a change, or says that it is not allowed. */
function attempt(job: Job, change: Change, nowMs: number): Job | undefined {
  try {
    return transition(job, change, nowMs);
  } catch (error) {
    assert.ok(error instanceof IllegalTransition);
    return undefined;
  }
}

/** Runs a walk; each allowed step is shown with what was before. Refused changes leave the job as it was. */
function follow(steps: readonly Change[], look: (before: Job, change: Change, after: Job, nowMs: number) => void): Job {
  let job = fresh();
  for (const [i, change] of steps.entries()) {
    const nowMs = START + i + 1;
    const before = structuredClone(job);
    const after = attempt(job, change, nowMs);
    assert.deepEqual(job, before, 'the job given is not touched');
    if (!after) continue;
    look(job, change, after, nowMs);
    job = after;
  }
  return job;
}

const holds = (look: Parameters<typeof follow>[1]) =>
  fc.assert(
    fc.property(walk, (steps) => void follow(steps, look)),
    { numRuns: 500 },
  );

describe('transition', () => {
  it('allows exactly what the table says, and goes where it says', () => {
    fc.assert(
      fc.property(walk, fc.oneof(...(Object.values(changes) as fc.Arbitrary<Change>[])), (steps, change) => {
        const job = follow(steps, () => {});
        const expected = TRANSITIONS[job.status][change.type];
        assert.equal(attempt(job, change, START)?.status, expected);
      }),
      { numRuns: 1000 },
    );
  });

  it('never leaves a terminal status, and only a purge changes a job that has ended', () => {
    holds((before, change, after) => {
      if (!isTerminal(before.status)) return;
      assert.equal(change.type, 'purge');
      assert.equal(after.status, before.status);
      assert.ok(after.purgedAt);
      assert.equal(after.result, undefined);
      assert.deepEqual(after.finishedAt, before.finishedAt);
    });
  });

  it('counts an attempt with each begin and with nothing else', () => {
    holds((before, { type }, after) => assert.equal(after.attempt, before.attempt + (type === 'begin' ? 1 : 0)));
  });

  it('keeps progress whole, within 0 and 100, and rising within an attempt', () => {
    holds((before, { type }, after) => {
      assert.ok(Number.isInteger(after.progress) && after.progress >= 0 && after.progress <= 100);
      if (type === 'begin' || type === 'requeue') assert.equal(after.progress, 0);
      else assert.ok(after.progress >= before.progress);
      if (after.status === JobStatus.SUCCEEDED) assert.equal(after.progress, 100);
    });
  });

  it('adds up the time that slots were held, and keeps the phases of the last attempt', () => {
    holds((before, change, after) => {
      const attempt = 'timings' in change ? change.timings : undefined;
      assert.equal(after.timings?.gpuSeconds ?? 0, (before.timings?.gpuSeconds ?? 0) + (attempt?.gpuSeconds ?? 0));
      assert.equal(after.timings?.runSeconds, (attempt ?? before.timings)?.runSeconds);
    });
  });

  it('moves the clock of the last update, sets each other time once, and leaves the sequence to the store', () => {
    holds((before, _, after, nowMs) => {
      assert.equal(timestampMs(after.updatedAt!), nowMs);
      assert.deepEqual(after.createdAt, before.createdAt);
      for (const time of ['startedAt', 'cancelRequestedAt', 'forceStopAt', 'finishedAt'] as const) {
        if (before[time]) assert.deepEqual(after[time], before[time], time);
      }
      assert.equal(after.sequence, before.sequence);
    });
  });

  it('shows a result only on success, an error only on failure, refusal or a job that waits, a slot only while it runs', () => {
    holds((_, __, after) => {
      if (after.result) assert.equal(after.status, JobStatus.SUCCEEDED);
      if (after.error) assert.notEqual(after.status, JobStatus.SUCCEEDED);
      if (after.status === JobStatus.CANCELED) assert.equal(after.error, undefined);
      assert.equal(after.error?.message, after.errorMessage);
      assert.equal(after.slot !== undefined, after.status === JobStatus.PROCESSING);
      assert.equal(after.step === JobStep.DONE, isTerminal(after.status));
      assert.equal(after.finishedAt !== undefined, isTerminal(after.status));
      if (isTerminal(after.status)) assert.equal(after.estimatedFinishTime, undefined);
      if (after.status === JobStatus.PROCESSING || isTerminal(after.status)) assert.equal(after.waitReason, WaitReason.UNSPECIFIED);
    });
  });

  it('keeps warnings, each once', () => {
    holds((before, _, after) => {
      assert.equal(new Set(after.warnings).size, after.warnings.length);
      for (const warning of before.warnings) assert.ok(after.warnings.includes(warning));
    });
  });

  it('gives a state that says what the job says', () => {
    holds((_, __, after) => {
      const state = stateOf(after);
      const { $typeName: _name, ...fields } = state;
      for (const [field, value] of Object.entries(fields)) assert.deepEqual(value, after[field as keyof Job], field);
    });
  });
});

describe('what the transitions stand on', () => {
  it('an id says the day and is drawn from 60 random bits', () => {
    const random = Uint8Array.from({ length: 12 }, (_, i) => i * 37);
    assert.match(newJobId(START, random), /^job_20250405_[a-z2-7]{12}$/);
    assert.notEqual(newJobId(START, random), newJobId(START, random.toReversed()));
  });

  it('a step of priority is a minute', () => {
    assert.equal(rankOf(START, 0) - rankOf(START, 1), 60_000);
    assert.ok(rankOf(START, 10) > rankOf(START - 600_001, 0));
  });

  it('retries wait longer each time, from half a second to a minute', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 50 }), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (spent, random) => {
        const delay = retryDelayMs(spent, random);
        assert.ok(delay >= 500 && delay <= 60_000);
        assert.ok(retryDelayMs(spent + 1, 0) >= retryDelayMs(spent, 0));
      }),
    );
  });
});

it('the picture of page 2 has each change of status, and no other', () => {
  const drawn = [...readFileSync(PAGE, 'utf8').matchAll(/^ +(\w+) --> (\w+)/gm)].map(([, from, to]) => `${from} ${to}`);
  const name = (status: JobStatus) => JobStatus[status]!.toLowerCase();
  const known = Object.entries(TRANSITIONS).flatMap(([from, changes]) =>
    Object.values(changes)
      .filter((to) => to !== Number(from))
      .map((to) => `${name(Number(from))} ${name(to)}`),
  );
  assert.deepEqual(drawn.sort(), [...new Set(known)].sort());
});
