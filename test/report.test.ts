// What a run says on its way into the job's events: nothing of it after the job's end.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogLevel, Step } from '../gen/facefusion/worker/v1/worker_pb.js';
import { Reporter } from '../src/gpu/report.ts';
import { JobStep } from '../src/jobs/job.ts';
import type { Lease } from '../src/jobs/ports.ts';

function open() {
  const written: string[] = [];
  const warned: string[] = [];
  const lease = {
    job: { jobId: 'job_1', attempt: 1 },
    signal: new AbortController().signal,
    progress: async ({ step }: { step: JobStep }) => void written.push(JobStep[step]),
    log: async ({ message }: { message: string }) => void written.push(message),
  } as unknown as Lease;
  const logger = { warn: (_: object, words: string) => void warned.push(words) };
  return { reporter: new Reporter(lease, logger as never, () => 0), written, warned };
}

test('a step of the service’s own that lasts is told, and one that the end of the job overtakes is not', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const lasting = open();
  lasting.reporter.enter(JobStep.STORING_RESULT);
  t.mock.timers.tick(1000);
  assert.deepEqual(lasting.written, ['STORING_RESULT']);

  const brief = open();
  brief.reporter.enter(JobStep.STORING_RESULT);
  brief.reporter.finish();
  // The end is written meanwhile, which may take its time.
  t.mock.timers.tick(1000);
  assert.deepEqual(brief.written, []);
});

test('what is held back goes out with the end, and what comes later goes nowhere', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { reporter, written, warned } = open();
  const progress = (percent: number) =>
    reporter.progress({ step: Step.PROCESSING, percent, framesDone: 0, framesTotal: 0, framesPerSecond: 0 } as never);
  progress(10);
  progress(20);
  assert.equal(written.length, 1);
  reporter.finish();
  assert.equal(written.length, 2);
  progress(30);
  reporter.storing(1, 2);
  reporter.log(LogLevel.INFO, 'late');
  t.mock.timers.tick(10_000);
  assert.deepEqual([written.length, warned], [2, []]);
});
