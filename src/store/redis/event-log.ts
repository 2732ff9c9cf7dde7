// How events of a job lie in Redis (log.lua), and are told to those who watch it. Always true here: the events of one write are together, in one message
// and one piece of the record's log, or one entry of the stream, of the same bytes (`StoredEvents`); the entry's id is the sequence of the last.
import { toBinary } from '@bufbuild/protobuf';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import type { JobEvent } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import { StoredEventsSchema } from '../../../gen/facefusion/store/v1/events_pb.js';
import type { Sequence } from '../../jobs/ports.ts';

/** In an entry at most, so that a page of entries is not too much at once. */
const TOGETHER = 16;

export interface EncodedEvent {
  readonly sequence: Sequence;
  readonly bytes: Uint8Array;
}

/** Of the stream of a job, as Redis answers it. */
export type Entry = readonly [id: Buffer, fields: readonly Buffer[]];

/** Events of one write, for log.lua: the sequence of an entry's last event, and its bytes, of each entry. */
export function encodeEvents(events: readonly JobEvent[]): (string | Uint8Array)[] {
  const entries: (string | Uint8Array)[] = [];
  for (let i = 0; i < events.length; i += TOGETHER) {
    const some = events.slice(i, i + TOGETHER);
    const first = some[0]!.sequence;
    const bytes = toBinary(StoredEventsSchema, { $typeName: 'facefusion.store.v1.StoredEvents', first, events: some });
    entries.push(`${first + some.length - 1}`, bytes);
  }
  return entries;
}

/** The events of a message, of an entry, or of a log, which is several of them. They are not decoded: most readers have some of them already. */
export function eventsIn(bytes: Uint8Array): EncodedEvent[] {
  const reader = new BinaryReader(bytes);
  const events: EncodedEvent[] = [];
  let sequence = 0;
  while (reader.pos < reader.len) {
    const [field] = reader.tag();
    if (field === StoredEventsSchema.field.first.number) sequence = reader.uint32();
    else events.push({ sequence: sequence++, bytes: reader.bytes() });
  }
  return events;
}

/** The answer of events.lua. */
export type Logged = readonly [log: Buffer | null, ...entries: Entry[]];

/** The events of a job, in their order. */
export function eventsLogged([log, ...entries]: Logged): EncodedEvent[] {
  const events = eventsOf(entries);
  return log ? [...eventsIn(log), ...events] : events;
}

/** The events of entries, in their order. */
export function eventsOf(entries: readonly Entry[]): EncodedEvent[] {
  return entries.flatMap(([id, fields]) =>
    // Before schema 3 each event was an entry by itself: its kind, and the event.
    fields.length === 4 ? [{ sequence: Number.parseInt(id.toString(), 10), bytes: fields[3]! }] : eventsIn(fields[1]!),
  );
}
