// Watching one job in Redis. News come over PUBLISH with the events themselves; the store has them all (log.lua), and a channel that finds a gap, or
// has heard nothing for a while, reads there. Always true here: a channel's ring is gapless, an event is one object for all its watchers, state and
// log events reach every watcher in order, and a channel lives exactly as long as it has watchers.
import { create, fromBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type JobEvent, JobEventSchema, type Preview } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import { JobsError } from '../../jobs/errors.ts';
import { isTerminal, type Job } from '../../jobs/job.ts';
import type { JobId, Sequence } from '../../jobs/ports.ts';
import { Recent } from '../../recent.ts';
import { Rerun } from '../../rerun.ts';
import { Cursor, END } from '../cursor.ts';
import { Snapshots } from '../snapshots.ts';
import type { RedisConnection } from './connection.ts';
import { type EncodedEvent, encodeEvents, eventsIn, eventsLogged, type Logged } from './event-log.ts';

const RING = 256;
const PAGE = 128;
const DECODED = 1024;
/** Of the message that carries a preview: it has no sequence. */
const PREVIEW = 0;

export interface JobWatchesOptions {
  readonly redis: RedisConnection;
  /** The job as callers see it now. */
  readonly job: (jobId: JobId) => Promise<{ readonly job: Job; readonly trimmedTo: Sequence } | undefined>;
  readonly now: () => number;
  readonly onDefect: (error: unknown) => void;
}

export class JobWatches {
  readonly #options: JobWatchesOptions;
  readonly #channels = new Map<JobId, Channel>();
  /** The newest preview of each job that is on its way. */
  readonly #previews = new Map<JobId, Preview>();

  constructor(options: JobWatchesOptions) {
    this.#options = options;
  }

  /** See `JobStore.watch`. */
  watch(jobId: JobId, after: Sequence | undefined, signal: AbortSignal): AsyncIterable<JobEvent> {
    return { [Symbol.asyncIterator]: () => this.#open(jobId, after, signal) };
  }

  /** Sends the newest preview of those that come in one turn. */
  sendPreview(jobId: JobId, preview: Preview): void {
    const first = !this.#previews.has(jobId);
    this.#previews.set(jobId, preview);
    if (!first) return;
    queueMicrotask(() => {
      const value = this.#previews.get(jobId)!;
      this.#previews.delete(jobId);
      const event = create(JobEventSchema, { time: timestampFromMs(this.#options.now()), event: { case: 'preview', value } });
      const [, message] = encodeEvents([event]) as [string, Uint8Array];
      // Nobody waits for a preview, and the next one is as good.
      this.#options.redis.publish(`watch:${jobId}`, Buffer.from(message)).catch(() => {});
    });
  }

  /** Reads what may have been missed: after the connection was away, and now and then. */
  sweep(): void {
    for (const channel of this.#channels.values()) channel.pull();
  }

  /** Ends every watcher with an error. */
  fail(error: unknown): void {
    for (const channel of [...this.#channels.values()]) channel.fail(error);
  }

  #open(jobId: JobId, after: Sequence | undefined, signal: AbortSignal): Cursor<JobEvent> {
    const channel = this.#channels.get(jobId) ?? new Channel(this.#options, jobId, () => this.#channels.delete(jobId));
    const watcher = new Watcher(channel, after);
    const cursor: Cursor<JobEvent> = new Cursor({ take: () => watcher.take(cursor), release: (left) => channel.leave(left) }, signal);
    if (!signal.aborted) {
      this.#channels.set(jobId, channel);
      channel.enter(cursor);
    }
    return cursor;
  }
}

/** What the watchers of one job share. */
class Channel {
  /** The newest preview; watchers know the number of the one that they were given. */
  preview: { readonly number: number; readonly event: JobEvent | undefined } = { number: 0, event: undefined };
  /** Undefined: not known yet. */
  latest: Sequence | undefined;
  ended = false;
  trimmedTo: Sequence = 0;
  readonly #options: JobWatchesOptions;
  readonly #jobId: JobId;
  readonly #gone: () => void;
  readonly #cursors = new Set<Cursor<JobEvent>>();
  readonly #ring: JobEvent[] = [];
  #since: Sequence = 0;
  /** Events read from the stream, so that watchers at the same place share them. */
  readonly #decoded = new Recent<JobEvent>(DECODED);
  readonly #snapshots = new Snapshots();
  /** The store is away: watchers are told, and come back when it is there again. */
  readonly #pulls = new Rerun(
    () => this.#pull(),
    (error) => this.fail(error),
  );
  #opened = false;
  #closed = false;

  constructor(options: JobWatchesOptions, jobId: JobId, gone: () => void) {
    this.#options = options;
    this.#jobId = jobId;
    this.#gone = gone;
  }

  enter(cursor: Cursor<JobEvent>): void {
    this.#cursors.add(cursor);
    if (this.#opened) return;
    this.#opened = true;
    void this.#start();
  }

  leave(cursor: Cursor<JobEvent>): void {
    this.#cursors.delete(cursor);
    if (this.#cursors.size > 0 || this.#closed) return;
    this.#closed = true;
    this.#gone();
    if (this.#opened) this.#options.redis.forget(`watch:${this.#jobId}`);
  }

  fail(error: unknown): void {
    for (const cursor of [...this.#cursors]) cursor.fail(error);
  }

  /** Sequence of the oldest event that the ring still holds. */
  get oldest(): Sequence {
    return Math.max(this.#since, this.latest! - RING + 1);
  }

  inRing(sequence: Sequence): JobEvent | undefined {
    return sequence >= this.oldest && sequence <= this.latest! ? this.#ring[sequence % RING] : undefined;
  }

  /** Stored events after a sequence, in order; empty where there are none, or the next one is trimmed away. */
  async after(sequence: Sequence): Promise<JobEvent[]> {
    // The first ones may be what the caller has.
    const events = eventsLogged(await this.#read(sequence)).filter((event) => event.sequence > sequence);
    const first = events[0]?.sequence ?? this.latest! + 1;
    if (first > sequence + 1) {
      this.trimmedTo = Math.max(this.trimmedTo, first - 1);
      return [];
    }
    return events.map((event) => this.#event(event));
  }

  async snapshot(reset: boolean): Promise<JobEvent> {
    const found = await this.#options.job(this.#jobId);
    if (!found) throw JobsError.jobNotFound(this.#jobId);
    return this.#snapshots.of(found.job, reset, this.#options.now());
  }

  /** Reads what the store has more than the ring. */
  pull(): void {
    if (this.latest !== undefined && !this.#closed) this.#pulls.ask();
  }

  async #pull(): Promise<void> {
    const logged = await this.#read(this.latest!);
    for (const event of eventsLogged(logged)) {
      const { sequence } = event;
      if (sequence <= this.latest!) continue;
      if (sequence > this.latest! + 1) {
        // Trimmed while nobody here heard of it: the ring begins anew, and watchers with it.
        this.trimmedTo = sequence - 1;
        this.#since = sequence;
      }
      this.#push(this.#event(event));
    }
    // There may be more.
    if (logged.length > PAGE) this.pull();
    this.#wake();
  }

  async #read(after: Sequence): Promise<Logged> {
    return (await this.#options.redis.run('events', [this.#jobId, after, PAGE])) as unknown as Logged;
  }

  async #start(): Promise<void> {
    const { redis, job } = this.#options;
    try {
      await redis.listen(`watch:${this.#jobId}`, (message) => this.#heard(message));
      if (this.#closed) return;
      const found = await job(this.#jobId);
      if (!found) throw JobsError.jobNotFound(this.#jobId);
      this.latest = found.job.sequence;
      this.#since = this.latest + 1;
      this.ended = isTerminal(found.job.status);
      this.trimmedTo = found.trimmedTo;
      // What was said in between, if anything.
      this.pull();
      this.#wake();
    } catch (error) {
      this.fail(error);
    }
  }

  #heard(message: Buffer): void {
    if (this.latest === undefined || this.#closed) return;
    try {
      for (const event of eventsIn(message)) {
        const { sequence } = event;
        if (sequence === PREVIEW) {
          this.preview = { number: this.preview.number + 1, event: fromBinary(JobEventSchema, event.bytes) };
        } else if (sequence === this.latest + 1 && !this.#pulls.isRunning) {
          this.#push(this.#event(event));
        } else if (sequence > this.latest) {
          this.pull();
          return;
        }
      }
      this.#wake();
    } catch (error) {
      this.#options.onDefect(error);
    }
  }

  #event({ sequence, bytes }: EncodedEvent): JobEvent {
    const known = this.inRing(sequence) ?? this.#decoded.get(`${sequence}`);
    if (known) return known;
    const event = fromBinary(JobEventSchema, bytes);
    if (sequence <= this.latest!) this.#decoded.set(`${sequence}`, event);
    return event;
  }

  #push(event: JobEvent): void {
    this.#ring[event.sequence % RING] = event;
    this.latest = event.sequence;
    if (event.event.case === 'state') this.ended = isTerminal(event.event.value.status);
  }

  #wake(): void {
    for (const cursor of [...this.#cursors]) cursor.wake();
  }
}

/** One watcher's place. */
class Watcher {
  readonly #channel: Channel;
  /** The last sequence that was given. */
  #at: Sequence;
  /** The last sequence that was looked at. */
  #seen: Sequence;
  readonly #resumed: boolean;
  /** The snapshot that comes next, if any. */
  #snapshot: 'first' | 'reset' | undefined;
  /** Has caught up once: from then on it may lose progress by being slow. Until then a resumed watcher is replayed everything. */
  #live: boolean;
  /** Undefined: has yet to begin. */
  #previewed: number | undefined;
  #loading = false;
  #loadedSnapshot: JobEvent | undefined;
  /** Read from the stream and not given yet. */
  #page: JobEvent[] = [];

  constructor(channel: Channel, after: Sequence | undefined) {
    this.#channel = channel;
    this.#resumed = after !== undefined;
    this.#live = !this.#resumed;
    this.#at = after ?? 0;
    this.#seen = this.#at;
    this.#snapshot = this.#resumed ? undefined : 'first';
  }

  take(cursor: Cursor<JobEvent>): JobEvent | undefined | typeof END {
    const channel = this.#channel;
    if (channel.latest === undefined || this.#loading) return undefined;
    if (this.#previewed === undefined) {
      this.#previewed = channel.preview.number;
      if (this.#resumed && this.#at > channel.latest) this.#snapshot = 'reset';
    }
    if (!this.#snapshot && this.#page.length === 0 && this.#seen < channel.trimmedTo) this.#snapshot = 'reset';
    if (this.#snapshot) return this.#takeSnapshot(cursor, this.#snapshot === 'reset');
    const paged = this.#fromPage();
    if (paged) return paged;
    if (this.#seen >= channel.latest) {
      if (channel.ended) return END;
      this.#live = true;
      if (this.#previewed === channel.preview.number) return undefined;
      this.#previewed = channel.preview.number;
      return channel.preview.event;
    }
    // A live watcher goes on with what the ring has; what it has missed and must not miss is read below.
    const event = channel.inRing(this.#seen + 1);
    if (event) return this.#give(event);
    this.#load(cursor, channel.after(this.#seen), (page) => {
      this.#page = page;
    });
    return undefined;
  }

  #takeSnapshot(cursor: Cursor<JobEvent>, reset: boolean): JobEvent | undefined {
    const snapshot = this.#loadedSnapshot;
    if (!snapshot) {
      this.#load(cursor, this.#channel.snapshot(reset), (loaded) => {
        this.#loadedSnapshot = loaded;
      });
      return undefined;
    }
    this.#loadedSnapshot = undefined;
    this.#snapshot = undefined;
    this.#live = true;
    this.#at = snapshot.sequence;
    this.#seen = snapshot.sequence;
    return snapshot;
  }

  #fromPage(): JobEvent | undefined {
    for (let event = this.#page.shift(); event; event = this.#page.shift()) {
      if (this.#live && event.event.case === 'progress' && event.sequence < this.#channel.oldest) this.#seen = event.sequence;
      else return this.#give(event);
    }
    return undefined;
  }

  #give(event: JobEvent): JobEvent {
    const skippedAfter = event.sequence === this.#at + 1 ? undefined : this.#at;
    this.#at = event.sequence;
    this.#seen = event.sequence;
    return skippedAfter === undefined ? event : { ...event, skippedAfter };
  }

  #load<T>(cursor: Cursor<JobEvent>, loading: Promise<T>, use: (loaded: T) => void): void {
    this.#loading = true;
    loading.then(
      (loaded) => {
        this.#loading = false;
        use(loaded);
        cursor.wake();
      },
      (error) => cursor.fail(error),
    );
  }
}
