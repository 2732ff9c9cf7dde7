// How events of a job lie in its stream, and are told to those who watch it. Always true here: the events of one write are together, in one entry and one
// message of the same bytes: the sequence of the first (a varint), and the events, each with its length before it
// (https://protobuf.dev/programming-guides/techniques/#streaming). The entry's id is the sequence of the last.
import { toBinary } from '@bufbuild/protobuf';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { type JobEvent, JobEventSchema } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import type { Sequence } from '../../jobs/ports.ts';

/** In an entry at most, so that a page of entries is not too much at once. */
const TOGETHER = 32;

export interface EncodedEvent {
  readonly sequence: Sequence;
  readonly bytes: Uint8Array;
}

/** The stream of a job, as Redis answers it. */
export type Entry = readonly [id: Buffer, fields: readonly Buffer[]];

/** Events of one write, for submit.lua and commit.lua: the sequence of an entry's last event, and its bytes, of each entry. */
export function encodeEvents(events: readonly JobEvent[]): (string | Uint8Array)[] {
  const entries: (string | Uint8Array)[] = [];
  for (let i = 0; i < events.length; i += TOGETHER) {
    const some = events.slice(i, i + TOGETHER);
    const writer = new BinaryWriter().uint32(some[0]!.sequence);
    for (const event of some) writer.bytes(toBinary(JobEventSchema, event));
    entries.push(`${some.at(-1)!.sequence}`, writer.finish());
  }
  return entries;
}

/** The events of a message, or of an entry. */
export function eventsIn(bytes: Uint8Array): EncodedEvent[] {
  const reader = new BinaryReader(bytes);
  const events: EncodedEvent[] = [];
  for (let sequence = reader.uint32(); reader.pos < reader.len; sequence++) events.push({ sequence, bytes: reader.bytes() });
  return events;
}

/** The events of entries, in their order. */
export function eventsOf(entries: readonly Entry[]): EncodedEvent[] {
  return entries.flatMap(([id, fields]) =>
    // Before schema 3 each event was an entry by itself: its kind, and the event.
    fields.length === 4 ? [{ sequence: Number.parseInt(id.toString(), 10), bytes: fields[3]! }] : eventsIn(fields[1]!),
  );
}
