// What watching costs: a watcher holds no events of its own, a channel lives as long as its watchers, and leaving frees all of it.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { type JobEvent, JobEventSchema } from '../gen/facefusion/jobs/v1/event_pb.js';
import { JobSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { type EventSource, JobEvents } from '../src/store/job-events.ts';

/** A job whose events are kept in an array, and how often the watchers asked for what. */
function fake() {
  const stored: JobEvent[] = [];
  const asked = { job: 0, events: 0, lasting: 0 };
  const source: EventSource = {
    job: () => {
      asked.job++;
      return { num: 1, job: create(JobSchema, { jobId: 'job', sequence: stored.length }), ended: false, trimmedTo: 0 };
    },
    events: (_, after, limit, known) => {
      asked.events++;
      return stored.slice(after, after + limit).map((event) => known(event.sequence) ?? structuredClone(event));
    },
    untold: () => 0,
    lastingEvents: (_, after, before, limit) => {
      asked.lasting++;
      const lasting = stored.filter(({ sequence, event }) => sequence > after && sequence < before && event.case !== 'progress');
      return lasting.slice(0, limit);
    },
    now: () => 0,
  };
  const events = new JobEvents(source);
  const add = (kind: 'progress' | 'log') => {
    const event = create(JobEventSchema, { sequence: stored.length + 1 });
    event.event =
      kind === 'log'
        ? { case: 'log', value: { $typeName: 'facefusion.jobs.v1.Log', level: 2, message: '' } }
        : {
            case: 'progress',
            value: {
              $typeName: 'facefusion.jobs.v1.Progress',
              step: 6,
              percent: 1,
              framesDone: 0,
              framesTotal: 0,
              framesPerSecond: 0,
              attempt: 1,
              bytesDone: 0n,
              bytesTotal: 0n,
            },
          };
    stored.push(event);
    events.publish('job', event, false);
  };
  return { events, add, asked, stored };
}

describe('watchers of one job', () => {
  it('that leave free their channel and their hold on the signal, while waiting too', async () => {
    const { events, add, asked } = fake();
    const leave = new AbortController();
    const watchers = Array.from({ length: 100 }, () => events.watch('job', undefined, leave.signal)[Symbol.asyncIterator]());
    for (const watcher of watchers) await watcher.next();
    const waiting = watchers.map((watcher) => watcher.next());
    assert.equal(getEventListeners(leave.signal, 'abort').length, 100);
    for (const watcher of watchers.slice(0, 99)) await watcher.return?.();
    assert.equal(getEventListeners(leave.signal, 'abort').length, 1);
    for (const one of await Promise.all(waiting.slice(0, 99))) assert.equal(one.done, true);
    add('log');
    assert.equal((await waiting[99]!).done, false, 'who stays is told');
    leave.abort();
    assert.equal(getEventListeners(leave.signal, 'abort').length, 0);
    const before = asked.job;
    await events.watch('job', undefined, new AbortController().signal)[Symbol.asyncIterator]().next();
    assert.equal(asked.job, before + 2, 'the channel was dropped and is made anew: once for it, once for the snapshot');
  });

  it('that read along never touch the table', async () => {
    const { events, add, asked } = fake();
    const watcher = events.watch('job', undefined, new AbortController().signal)[Symbol.asyncIterator]();
    await watcher.next();
    for (let i = 1; i <= 1000; i++) {
      add('progress');
      assert.equal(((await watcher.next()).value as JobEvent).sequence, i);
    }
    assert.deepEqual([asked.events, asked.lasting], [0, 0]);
    await watcher.return?.();
  });

  it('that are slow hold nothing of what they have not read', async () => {
    const { events, add } = fake();
    const watcher = events.watch('job', undefined, new AbortController().signal)[Symbol.asyncIterator]();
    await watcher.next();
    const first = new WeakRef({});
    let kept: WeakRef<object> = first;
    // Events are made in a turn of their own, so that nothing but the channel can hold them.
    const burst = async (count: number, from: JobEvents) => {
      for (let i = 1; i <= count; i++) {
        const event = create(JobEventSchema, { sequence: i });
        if (i === 1) kept = new WeakRef(event);
        from.publish('job', event, false);
      }
    };
    await burst(1000, events);
    await new Promise((resolve) => setImmediate(resolve));
    const { setFlagsFromString } = await import('node:v8');
    const { runInNewContext } = await import('node:vm');
    setFlagsFromString('--expose-gc');
    (runInNewContext('gc') as () => void)();
    assert.notEqual(kept, first);
    assert.equal(kept.deref(), undefined, 'the oldest event is held by nobody');
    add('log');
    await watcher.return?.();
  });

  it('that replay together read each page once', async () => {
    const { events, add, asked } = fake();
    for (let i = 0; i < 500; i++) add('progress');
    const signal = new AbortController().signal;
    const watchers = Array.from({ length: 20 }, () => events.watch('job', 0, signal)[Symbol.asyncIterator]());
    for (let i = 0; i < 500; i++) {
      const [first, ...others] = await Promise.all(watchers.map((watcher) => watcher.next()));
      for (const other of others) assert.equal(other.value, first!.value);
    }
    assert.equal(asked.events, Math.ceil(500 / 64));
    for (const watcher of watchers) await watcher.return?.();
  });
});
