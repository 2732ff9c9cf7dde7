// The events of one write lie together in a job's stream in Redis: what is written is what is read, whatever there is of it.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type JobEvent, JobEventSchema } from '../gen/facefusion/jobs/v1/event_pb.js';
import { type Entry, encodeEvents, eventsIn, eventsOf } from '../src/store/redis/event-log.ts';

const event = (sequence: number): JobEvent =>
  create(JobEventSchema, { sequence, event: { case: 'log', value: { message: 'x'.repeat(sequence % 300) } } });
const run = (first: number, count: number) => Array.from({ length: count }, (_, i) => event(first + i));

/** As Redis would answer them. */
const entriesOf = (events: readonly JobEvent[]): Entry[] => {
  const args = encodeEvents(events);
  return Array.from({ length: args.length / 2 }, (_, i) => [
    Buffer.from(`${args[2 * i]}-0`),
    [Buffer.from('events'), Buffer.from(args[2 * i + 1] as Uint8Array)],
  ]);
};
const read = (entries: readonly Entry[]) => eventsOf(entries).map(({ bytes }) => fromBinary(JobEventSchema, bytes));

describe('events in Redis', () => {
  for (const count of [1, 2, 15, 16, 17, 64, 257]) {
    it(`are read as they were written, ${count} at once`, () => {
      const events = run(7, count);
      const entries = entriesOf(events);
      assert.deepEqual(read(entries), events);
      assert.deepEqual(
        eventsOf(entries).map(({ sequence }) => sequence),
        events.map(({ sequence }) => sequence),
      );
      assert.equal(entries.at(-1)![0].toString(), `${6 + count}-0`, 'an entry has the sequence of its last event');
      assert.ok(entries.every((entry) => eventsOf([entry]).length <= 16));
    });
  }

  it('are read as schema 2 left them, before those that came since', () => {
    const old: Entry[] = run(1, 3).map((one) => [
      Buffer.from(`${one.sequence}-0`),
      [Buffer.from('k'), Buffer.from('log'), Buffer.from('e'), Buffer.from(toBinary(JobEventSchema, one))],
    ]);
    assert.deepEqual(read([...old, ...entriesOf(run(4, 5))]), run(1, 8));
  });

  it('that are broken off are refused', () => {
    const [, bytes] = encodeEvents(run(400, 2)) as [string, Uint8Array];
    assert.throws(() => eventsIn(bytes.subarray(0, bytes.length - 1)));
  });
});
