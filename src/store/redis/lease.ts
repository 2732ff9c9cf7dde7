// A lease on a job in Redis, and the writes made through it. Always true here: writes take effect in the order of the calls, one commit at a time,
// which takes along all that has come meanwhile; each commit is worked out from the newest record, and one whose answer was lost is found out about
// before the next, so that nothing is written twice.
import type { JobEvent, Log, Preview, Progress } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import type { EngineInfo, MediaResult, Timings } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { JobsError } from '../../jobs/errors.ts';
import type { Fingerprint } from '../../jobs/fingerprint.ts';
import { type Failure, type Job, WaitReason } from '../../jobs/job.ts';
import {
  type Done,
  type Failed,
  type JobId,
  type Lease,
  type LeaseEnd,
  LeaseEnded,
  type Match,
  type Matched,
  type Rank,
} from '../../jobs/ports.ts';
import {
  begun,
  completed,
  ended,
  eventOf,
  failed,
  givenBack,
  JOINED,
  leaseLost,
  logged,
  progressed,
  refused,
  type Said,
  type Step,
  trimmedTo,
  verdictOf,
  warned,
  wonBy,
} from '../../jobs/steps.ts';
import { applyStep, type Changed, encodeOutcome, present, type RedisJob, type Share } from './record.ts';

/** How a commit ended. */
export type Committed =
  | { readonly outcome: 'done'; readonly stored: RedisJob; readonly position: number | null }
  /** The record has changed; this is what it is now. */
  | { readonly outcome: 'again'; readonly stored: RedisJob; readonly position: number | null }
  /** The token holds nothing any more. */
  | { readonly outcome: 'lost'; readonly stored: RedisJob }
  /** The blob is just being deleted. */
  | { readonly outcome: 'busy' }
  /** What was found of like jobs is so no more. */
  | { readonly outcome: 'shared' };

export interface LeaseHost {
  commit(before: RedisJob, changed: Changed, fence: { readonly token: string; readonly op: string }): Promise<Committed>;
  /** A result and a run of like jobs. */
  look(fingerprint: Fingerprint): Promise<{
    readonly kept: { readonly result: MediaResult; readonly warnings: readonly string[] } | undefined;
    readonly leader: JobId | undefined;
  }>;
  /** Jobs that joined the run show how far it is; soon, and not each time. */
  follow(fingerprint: Fingerprint, progress: Progress): void;
  sendPreview(jobId: JobId, preview: Preview): void;
  /** Milliseconds since 1970, the store's clock. */
  now(): number;
  random(): number;
  /** Progress and log events kept of one job; about a quarter more before they are trimmed. */
  readonly maxStoredEvents: number;
  /** The lease needs no renewal any more. */
  over(lease: RedisLease): void;
  /** Throws where the store is closing. */
  assertOpen(): void;
}

type Kind = 'match' | 'begin' | 'progress' | 'log' | 'warn' | 'pin' | 'complete' | 'fail' | 'refuse' | 'canceled' | 'giveBack';

interface Write {
  readonly kind: Kind;
  readonly ends: boolean;
  readonly run: (stored: RedisJob, nowMs: number) => Changed;
  readonly resolve: (job: Job) => void;
  readonly reject: (error: unknown) => void;
}

const ENDS: ReadonlySet<Kind> = new Set(['complete', 'fail', 'refuse', 'canceled', 'giveBack']);
/** Writes that one commit takes along at most. */
const BATCH = 256;
const BUSY_WAIT_MS = 25;
const BUSY_WAIT_MAX_MS = 1000;

export class RedisLease implements Lease {
  readonly token: string;
  readonly rank: Rank;
  readonly maxAttempts: number;
  readonly startDeadlineMs: number | undefined;
  readonly inputs: ReadonlyMap<JobId, string>;
  /** Monotonic time up to which the store surely has not given the job to another. */
  validUntil: number;
  job: Job;
  readonly #host: LeaseHost;
  readonly #abort = new AbortController();
  #stored: RedisJob;
  #queue: Write[] = [];
  #writing = false;
  /** Highest percent of the attempt. */
  #percent = 0;
  #ops = 0;
  /** The last commit, where nobody knows whether it took effect. */
  #doubt: { readonly op: string; readonly ends: Kind | undefined } | undefined;
  /** It has ended by its own word, or is known to be lost. */
  #over = false;

  constructor(host: LeaseHost, stored: RedisJob, rank: Rank, inputs: ReadonlyMap<JobId, string>, validUntil: number) {
    this.inputs = inputs;
    this.#host = host;
    this.#stored = stored;
    this.token = stored.token!;
    this.rank = rank;
    this.validUntil = validUntil;
    this.job = stored.job;
    this.maxAttempts = stored.maxAttempts;
    this.startDeadlineMs = stored.deadlineMs;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** For the store: tells the holder. */
  end(why: LeaseEnd): void {
    if (this.#over && why !== 'closed') return;
    if (why === 'lost') this.#finish();
    this.#abort.abort(new LeaseEnded(this.job.jobId, why));
  }

  async match({ fingerprint, runs, retentionMs, again }: Match): Promise<Matched> {
    for (;;) {
      const { kept, leader } = await this.#host.look(fingerprint);
      let matched: Matched = { kind: 'run' };
      const decide = (stored: RedisJob, nowMs: number): Changed => {
        const { jobId } = stored.job;
        if (stored.fingerprint === fingerprint) return unchanged(stored);
        // It was to go on with a run, and its inputs are others now.
        if (stored.fingerprint !== undefined) throw new OtherRun();
        if (kept && !runs) {
          const { result, warnings } = kept;
          matched = { kind: 'cached', result, warnings };
          return { ...unchanged({ ...stored, blob: result.sha256 }), lease: 'pin', share: { kind: 'hit', of: fingerprint } };
        }
        // Its holder is about to be told; in a run of others nobody would hear of the cancel any more.
        if (stored.job.cancelRequestedAt) {
          matched = { kind: 'run' };
          return unchanged(stored);
        }
        if (leader === undefined || leader === jobId)
          return { ...unchanged(stored), share: { kind: runs ? 'force' : 'lead', of: fingerprint } };
        if (runs) return unchanged(stored);
        matched = { kind: 'joined' };
        return { ...applyStep(stored, JOINED, nowMs), share: { kind: 'join', of: fingerprint, joined: { retentionMs, again } } };
      };
      try {
        await this.#write('match', decide);
        return matched;
      } catch (error) {
        if (error instanceof OtherRun) await this.#write('match', (stored) => ({ ...unchanged(stored), share: { kind: 'leave', of: '' } }));
        else if (!(error instanceof SharedMoved)) throw error;
      }
    }
  }

  begin(run: { readonly slot: string; readonly engine: EngineInfo | undefined }): Promise<Job> {
    return this.#write('begin', (stored, nowMs) => {
      this.#percent = 0;
      return stepped(stored, begun(stored, run), nowMs);
    });
  }

  async progress(progress: Progress): Promise<void> {
    await this.#write('progress', (stored, nowMs) => {
      const { fingerprint, followers } = stored;
      if (fingerprint !== undefined && followers > 0) this.#host.follow(fingerprint, progress);
      this.#percent = Math.max(this.#percent, Math.min(100, progress.percent));
      return this.#say(stored, progressed(stored, progress, this.#percent, nowMs), nowMs);
    });
  }

  async log(log: Log): Promise<void> {
    await this.#write('log', (stored, nowMs) => this.#say(stored, logged(stored, log), nowMs));
  }

  preview(preview: Preview): void {
    this.#host.sendPreview(this.job.jobId, preview);
  }

  async warn(warnings: readonly string[]): Promise<void> {
    await this.#write('warn', (stored, nowMs) => stepped(stored, warned(stored, warnings), nowMs));
  }

  async pin(key: string): Promise<void> {
    for (let wait = BUSY_WAIT_MS; ; wait = Math.min(wait * 2, BUSY_WAIT_MAX_MS)) {
      try {
        await this.#write('pin', (stored) => ({ ...unchanged({ ...stored, blob: key }), lease: 'pin' }));
        return;
      } catch (error) {
        if (!(error instanceof BlobBusy)) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  complete(done: Done): Promise<Job> {
    const { keep } = done;
    return this.#end(
      'complete',
      (stored) => completed(stored, done),
      (stored) => {
        // Told to nobody, and not kept.
        if (!keep && stored.fingerprint === undefined) return undefined;
        const won = wonBy(stored, done);
        const kept = keep && { fingerprint: keep.fingerprint, expiresMs: this.#host.now() + keep.ttlMs };
        return won && { kind: 'won', of: won.result.sha256, facts: encodeOutcome(won), keep: kept };
      },
    );
  }

  fail(failure: Failed): Promise<Job> {
    return this.#end(
      'fail',
      (stored, nowMs) => failed(stored, failure, nowMs, this.#host.random()),
      (stored) => {
        const verdict = verdictOf(stored, failure);
        return verdict && { kind: 'verdict', of: '', facts: encodeOutcome(verdict) };
      },
    );
  }

  refuse(failure: Failure, timings?: Timings): Promise<Job> {
    return this.#end(
      'refuse',
      (stored) => refused(stored, failure, timings),
      () => ({ kind: 'verdict', of: '', facts: encodeOutcome({ type: 'refuse', failure }) }),
    );
  }

  canceled(timings?: Timings): Promise<Job> {
    return this.#end('canceled', (stored) => ended(stored, timings));
  }

  giveBack(wait: WaitReason, timings?: Timings): Promise<Job> {
    return this.#end('giveBack', (stored) => givenBack(stored, wait, timings));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#over) return;
    try {
      await this.giveBack(WaitReason.SLOT);
    } catch (error) {
      // Ended already, or the store has closed and given it back itself.
      if (!(error instanceof JobsError && (error.reason === 'LEASE_LOST' || error.reason === 'SHUTTING_DOWN'))) throw error;
    }
  }

  /** For a store that closes: ends the lease by a step of its own, after what was asked for before. */
  release(step: (stored: RedisJob) => Step): Promise<Job> {
    return this.#end('giveBack', step, undefined, true);
  }

  /** `share`: what the end of the run is for those that joined it. */
  #end(
    kind: Kind,
    step: (stored: RedisJob, nowMs: number) => Step,
    share: (stored: RedisJob) => Share | undefined = () => undefined,
    closing = false,
  ): Promise<Job> {
    return this.#write(kind, (stored, nowMs) => ({ ...stepped(stored, step(stored, nowMs), nowMs), share: share(stored) }), closing);
  }

  #write(kind: Kind, run: (stored: RedisJob, nowMs: number) => Changed, closing = false): Promise<Job> {
    if (!closing) this.#host.assertOpen();
    const { promise, resolve, reject } = Promise.withResolvers<Job>();
    this.#queue.push({ kind, ends: ENDS.has(kind), run, resolve, reject });
    if (!this.#writing) {
      this.#writing = true;
      // In a turn of its own, so that what is asked for together is one commit.
      queueMicrotask(() => void this.#drain());
    }
    return promise;
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#nextBatch();
      if (this.#over) {
        for (const { reject } of batch) reject(leaseLost(this.job.jobId));
        continue;
      }
      await this.#commit(batch);
    }
    this.#writing = false;
  }

  /** What is waiting up to the first write that ends the lease; a pin or a match alone, because it may have to wait. */
  #nextBatch(): Write[] {
    let count = 0;
    for (const { kind, ends } of this.#queue) {
      const alone = kind === 'pin' || kind === 'match';
      if (count === BATCH || (alone && count > 0)) break;
      count++;
      if (ends || alone) break;
    }
    return this.#queue.splice(0, count);
  }

  async #commit(batch: readonly Write[]): Promise<void> {
    const percent = this.#percent;
    for (;;) {
      this.#percent = percent;
      const { done, changed } = this.#workOut(batch);
      if (done.length === 0) return;
      const last = done.at(-1)!;
      const ends = changed.lease === 'end' ? last.write.kind : undefined;
      // Nothing to write: a warning that is known, a pin that is there.
      if (changed.events.length === 0 && changed.lease !== 'end' && !changed.share && changed.next.blob === this.#stored.blob) {
        for (const { write, changed: own } of done) write.resolve(present(own.next, null));
        return;
      }
      const op = `${this.token}:${++this.#ops}`;
      let committed: Committed;
      try {
        committed = await this.#host.commit(this.#stored, changed, { token: this.token, op });
      } catch (error) {
        this.#doubt = { op, ends };
        for (const { write } of done) write.reject(error);
        return;
      }
      const doubt = this.#doubt;
      this.#doubt = undefined;
      switch (committed.outcome) {
        case 'done':
          this.#stored = committed.stored;
          this.job = changed.next.job;
          if (changed.lease === 'end') this.#finish();
          for (const { write, changed: own } of done) write.resolve(present(own.next, committed.position));
          return;
        case 'busy':
          for (const { write } of done) write.reject(new BlobBusy());
          return;
        case 'shared':
          for (const { write } of done) write.reject(new SharedMoved());
          return;
        case 'lost':
          this.#finish();
          if (doubt?.ends !== undefined && committed.stored.op === doubt.op && doubt.ends === ends) {
            // It was written the first time, and only the answer was lost.
            this.job = committed.stored.job;
            last.write.resolve(present(committed.stored, null));
          } else {
            this.#abort.abort(new LeaseEnded(this.job.jobId, 'lost'));
          }
          // What has been resolved stays so.
          for (const { write } of done) write.reject(leaseLost(this.job.jobId));
          return;
        case 'again':
          this.#stored = committed.stored;
          this.job = committed.stored.job;
      }
    }
  }

  /** What a batch makes of the record. A write that cannot be made is refused alone. */
  #workOut(batch: readonly Write[]): { readonly done: { readonly write: Write; readonly changed: Changed }[]; readonly changed: Changed } {
    const done: { write: Write; changed: Changed }[] = [];
    const nowMs = this.#host.now();
    const events: JobEvent[] = [];
    let last = unchanged(this.#stored);
    let visible = false;
    for (const write of batch) {
      try {
        last = write.run(last.next, nowMs);
        events.push(...last.events);
        visible ||= last.visible;
        done.push({ write, changed: last });
      } catch (error) {
        write.reject(error);
      }
    }
    return { done, changed: { ...last, events, visible } };
  }

  #say(stored: RedisJob, said: Said | undefined, nowMs: number): Changed {
    if (!said) return unchanged(stored);
    const { job, event, visible } = said;
    const next = { ...stored, job, trimmedTo: trimmedTo(job, stored.trimmedTo, this.#host.maxStoredEvents) };
    return { ...unchanged(next), events: [eventOf(job, event, nowMs)], visible };
  }

  #finish(): void {
    this.#over = true;
    this.#host.over(this);
  }
}

class BlobBusy extends Error {}
class SharedMoved extends Error {}
class OtherRun extends Error {}

function stepped(stored: RedisJob, step: Step | undefined, nowMs: number): Changed {
  return step ? applyStep(stored, step, nowMs) : unchanged(stored);
}

function unchanged(stored: RedisJob): Changed {
  return { next: stored, events: [], lease: 'keep', queue: undefined, visible: false };
}
