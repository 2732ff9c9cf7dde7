// Watching one job. A watcher is a cursor and no queue: it reads the ring of its job's latest events, or pages from the table when it is
// behind. Always true here: an event is one object for all its watchers, state and log events reach every watcher in order, and a job's
// channel lives exactly as long as it has watchers.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type JobEvent, JobEventSchema, type Preview } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobsError } from '../jobs/errors.ts';
import type { Job } from '../jobs/job.ts';
import type { JobId, Sequence } from '../jobs/ports.ts';
import { Cursor, END } from './cursor.ts';
import { Snapshots } from './snapshots.ts';

const RING = 256;
const PAGE = 64;
const DECODED = 1024;

type Known = (sequence: Sequence) => JobEvent | undefined;

/** What the watchers read, as committed. */
export interface EventSource {
  /** How many events of a job are committed and have yet to be published. */
  untold(jobId: JobId): number;
  job(jobId: JobId): { readonly num: number; readonly job: Job; readonly ended: boolean; readonly trimmedTo: Sequence } | undefined;
  /** Stored events after a sequence. `known` gives those that are already decoded. */
  events(num: number, after: Sequence, limit: number, known: Known): JobEvent[];
  /** State and log events after one sequence and before another. */
  lastingEvents(num: number, after: Sequence, before: Sequence, limit: number, known: Known): JobEvent[];
  now(): number;
}

export class JobEvents {
  readonly #source: EventSource;
  readonly #channels = new Map<JobId, Channel>();

  constructor(source: EventSource) {
    this.#source = source;
  }

  /** When it may be told: an event for whoever watches. `ended`: it is the job's last one. */
  publish(jobId: JobId, event: JobEvent, ended: boolean): void {
    this.#channels.get(jobId)?.push(event, ended);
  }

  /** After COMMIT: progress and log events up to a sequence are gone. */
  trimmed(jobId: JobId, to: Sequence): void {
    const channel = this.#channels.get(jobId);
    if (channel) channel.trimmedTo = to;
  }

  /** After COMMIT: the job is no more, and whoever still reads its past is told. */
  forgotten(jobId: JobId): void {
    for (const cursor of [...(this.#channels.get(jobId)?.cursors ?? [])]) cursor.fail(JobsError.jobNotFound(jobId));
  }

  preview(jobId: JobId, preview: Preview): void {
    const channel = this.#channels.get(jobId);
    if (!channel) return;
    const time = timestampFromMs(this.#source.now());
    channel.preview = {
      number: channel.preview.number + 1,
      event: create(JobEventSchema, { time, event: { case: 'preview', value: preview } }),
    };
    channel.wake();
  }

  /** See `JobStore.watch`. An unknown job is told when the iteration begins. */
  watch(jobId: JobId, after: Sequence | undefined, signal: AbortSignal): AsyncIterable<JobEvent> {
    return { [Symbol.asyncIterator]: () => this.#open(jobId, after, signal) };
  }

  /** Ends every watcher with an error. */
  fail(error: unknown): void {
    for (const channel of [...this.#channels.values()]) for (const cursor of [...channel.cursors]) cursor.fail(error);
  }

  #open(jobId: JobId, after: Sequence | undefined, signal: AbortSignal): Cursor<JobEvent> {
    let channel = this.#channels.get(jobId);
    if (!channel) {
      const found = this.#source.job(jobId);
      if (!found) throw JobsError.jobNotFound(jobId);
      channel = new Channel(this.#source, jobId, found);
    }
    const watcher = new Watcher(channel, after);
    const { cursors } = channel;
    const cursor = new Cursor<JobEvent>(
      {
        take: () => watcher.take(),
        release: (left) => {
          cursors.delete(left);
          if (cursors.size === 0) this.#channels.delete(jobId);
        },
      },
      signal,
    );
    if (!signal.aborted) {
      this.#channels.set(jobId, channel);
      cursors.add(cursor);
    }
    return cursor;
  }
}

/** What the watchers of one job share. */
class Channel {
  readonly source: EventSource;
  readonly num: number;
  readonly cursors = new Set<Cursor<JobEvent>>();
  /** The newest preview; watchers know the number of the one that they were given. */
  preview: { readonly number: number; readonly event: JobEvent | undefined } = { number: 0, event: undefined };
  latest: Sequence;
  ended: boolean;
  trimmedTo: Sequence;
  readonly #jobId: JobId;
  readonly #ring: JobEvent[] = [];
  readonly #since: Sequence;
  /** Events read from the table, oldest read first, so that watchers at the same place share them. */
  readonly #decoded = new Map<Sequence, JobEvent>();
  readonly #snapshots = new Snapshots();

  constructor(source: EventSource, jobId: JobId, at: NonNullable<ReturnType<EventSource['job']>>) {
    this.source = source;
    this.#jobId = jobId;
    this.num = at.num;
    const untold = source.untold(jobId);
    this.latest = at.job.sequence - untold;
    this.#since = this.latest + 1;
    this.ended = at.ended && untold === 0;
    this.trimmedTo = at.trimmedTo;
  }

  /** The job is further than may be told; what comes is published soon. */
  get isAhead(): boolean {
    return this.source.untold(this.#jobId) > 0;
  }

  /** Sequence of the oldest event that the ring still holds. */
  get oldest(): Sequence {
    return Math.max(this.#since, this.latest - RING + 1);
  }

  push(event: JobEvent, ended: boolean): void {
    this.#ring[event.sequence % RING] = event;
    this.latest = event.sequence;
    this.ended = ended;
    this.wake();
  }

  wake(): void {
    for (const cursor of this.cursors) cursor.wake();
  }

  readonly known: Known = (sequence) =>
    sequence >= this.oldest && sequence <= this.latest ? this.#ring[sequence % RING] : this.#decoded.get(sequence);

  /** The first stored event after a sequence, none left out. */
  after(sequence: Sequence): JobEvent | undefined {
    const known = this.known(sequence + 1);
    if (known) return known;
    const page = this.source.events(this.num, sequence, PAGE, this.known);
    for (const event of page) this.#keep(event);
    return page[0];
  }

  /** The first event after a sequence for a reader that was too slow: progress that the ring no longer holds is left out. */
  lastingAfter(sequence: Sequence): JobEvent | undefined {
    const known = this.known(sequence + 1);
    if (known) return known;
    const [event] = this.source.lastingEvents(this.num, sequence, this.oldest, 1, this.known);
    if (event) this.#keep(event);
    return event ?? this.known(this.oldest);
  }

  snapshot(reset: boolean): JobEvent {
    return this.#snapshots.of(this.source.job(this.#jobId)!.job, reset, this.source.now());
  }

  #keep(event: JobEvent): void {
    if (event.sequence >= this.oldest) return;
    this.#decoded.set(event.sequence, event);
    if (this.#decoded.size > DECODED) this.#decoded.delete(this.#decoded.keys().next().value!);
  }
}

/** One watcher's place. */
class Watcher {
  readonly #channel: Channel;
  #at: Sequence;
  /** The snapshot that comes next, if any. */
  #snapshot: 'first' | 'reset' | undefined;
  /** Has caught up once: from then on it may lose progress by being slow. Until then a resumed watcher is replayed everything. */
  #live: boolean;
  #previewed: number;

  constructor(channel: Channel, after: Sequence | undefined) {
    this.#channel = channel;
    this.#live = after === undefined;
    this.#at = after ?? 0;
    this.#previewed = channel.preview.number;
    if (after === undefined) this.#snapshot = 'first';
    else if (after > channel.latest) this.#snapshot = 'reset';
  }

  take(): JobEvent | undefined | typeof END {
    const channel = this.#channel;
    if (!this.#snapshot && this.#at < channel.trimmedTo) this.#snapshot = 'reset';
    if (this.#snapshot) {
      if (channel.isAhead) return undefined;
      const snapshot = channel.snapshot(this.#snapshot === 'reset');
      this.#snapshot = undefined;
      this.#live = true;
      this.#at = snapshot.sequence;
      return snapshot;
    }
    if (this.#at >= channel.latest) {
      if (channel.ended) return END;
      this.#live = true;
      if (this.#previewed === channel.preview.number) return undefined;
      this.#previewed = channel.preview.number;
      return channel.preview.event;
    }
    const event = this.#live ? channel.lastingAfter(this.#at) : channel.after(this.#at);
    if (!event) throw new Error(`event ${this.#at + 1} of ${channel.latest} is not in the store`);
    const skippedAfter = event.sequence === this.#at + 1 ? undefined : this.#at;
    this.#at = event.sequence;
    return skippedAfter === undefined ? event : { ...event, skippedAfter };
  }
}
