// A lease on a job in Redis, and the writes made through it. Always true here: writes take effect in the order of the calls, one commit at a time,
// which takes along all that has come meanwhile; each commit is worked out from the newest record, and one whose answer was lost is found out about
// before the next, so that nothing is written twice.
import type { Log, Preview, Progress } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import type { EngineInfo, MediaResult, Timings } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { JobsError } from '../../jobs/errors.ts';
import { type Failure, type Job, transition, WaitReason } from '../../jobs/job.ts';
import { type JobId, type Lease, type LeaseEnd, LeaseEnded, type Rank } from '../../jobs/ports.ts';
import { completed, ended, failed, givenBack, leaseLost, refused, type Step } from '../../jobs/steps.ts';
import { applyStep, type Changed, eventOf, present, type RedisJob } from './record.ts';

/** How a commit ended. */
export type Committed =
  | { readonly outcome: 'done'; readonly position: number | null }
  /** The record has changed; this is what it is now. */
  | { readonly outcome: 'again'; readonly stored: RedisJob; readonly position: number | null }
  /** The token holds nothing any more. */
  | { readonly outcome: 'lost'; readonly stored: RedisJob }
  /** The blob is just being deleted. */
  | { readonly outcome: 'busy' };

export interface LeaseHost {
  commit(before: RedisJob, changed: Changed, fence: { readonly token: string; readonly op: string }): Promise<Committed>;
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

type Kind = 'begin' | 'progress' | 'log' | 'warn' | 'pin' | 'complete' | 'fail' | 'refuse' | 'canceled' | 'giveBack';

interface Write {
  readonly kind: Kind;
  readonly ends: boolean;
  readonly run: (stored: RedisJob) => Changed;
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

  begin(run: { readonly slot: string; readonly engine: EngineInfo | undefined }): Promise<Job> {
    return this.#write('begin', (stored) => {
      this.#percent = 0;
      return applyStep(stored, { change: { type: 'begin', ...run }, lease: 'keep' }, this.#host.now(), { deadlineMs: undefined });
    });
  }

  async progress(progress: Progress): Promise<void> {
    await this.#write('progress', (stored) => {
      const nowMs = this.#host.now();
      this.#percent = Math.max(this.#percent, Math.min(100, progress.percent));
      const { step, estimatedFinishTime: estimatedFinish } = progress;
      const job = transition(stored.job, { type: 'progress', step, percent: this.#percent, estimatedFinish }, nowMs);
      return this.#append(
        stored,
        job,
        { case: 'progress', value: { ...progress, percent: this.#percent, attempt: job.attempt } },
        nowMs,
        true,
      );
    });
  }

  async log(log: Log): Promise<void> {
    await this.#write('log', (stored) => this.#append(stored, { ...stored.job }, { case: 'log', value: log }, this.#host.now(), false));
  }

  preview(preview: Preview): void {
    this.#host.sendPreview(this.job.jobId, preview);
  }

  async warn(warnings: readonly string[]): Promise<void> {
    await this.#write('warn', (stored) => {
      const known = new Set(stored.job.warnings);
      if (warnings.every((warning) => known.has(warning))) return unchanged(stored);
      return applyStep(stored, { change: { type: 'warn', warnings }, lease: 'keep' }, this.#host.now());
    });
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

  complete(done: { readonly result: MediaResult; readonly warnings: readonly string[]; readonly timings: Timings }): Promise<Job> {
    return this.#end('complete', (stored) => completed(stored, done));
  }

  fail(failure: Failure & { readonly killedWorker: boolean; readonly timings?: Timings }): Promise<Job> {
    const { reason, message, retryable, killedWorker, timings } = failure;
    return this.#end('fail', (stored) =>
      failed(stored, { reason, message, retryable }, { killedWorker, timings }, this.#host.now(), this.#host.random()),
    );
  }

  refuse(failure: Failure, timings?: Timings): Promise<Job> {
    return this.#end('refuse', () => refused(failure, timings));
  }

  canceled(timings?: Timings): Promise<Job> {
    return this.#end('canceled', () => ended(timings));
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
    return this.#end('giveBack', step, true);
  }

  #end(kind: Kind, step: (stored: RedisJob) => Step, closing = false): Promise<Job> {
    return this.#write(kind, (stored) => applyStep(stored, step(stored), this.#host.now()), closing);
  }

  #write(kind: Kind, run: (stored: RedisJob) => Changed, closing = false): Promise<Job> {
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

  /** What is waiting up to the first write that ends the lease; a pin alone, because it may have to wait. */
  #nextBatch(): Write[] {
    let count = 0;
    for (const { kind, ends } of this.#queue) {
      if (count === BATCH || (kind === 'pin' && count > 0)) break;
      count++;
      if (ends || kind === 'pin') break;
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
      const ends = last.write.ends ? last.write.kind : undefined;
      // Nothing to write: a warning that is known, a pin that is there.
      if (changed.events.length === 0 && changed.lease !== 'end' && changed.next.blob === this.#stored.blob) {
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
          this.#stored = { ...changed.next, ver: this.#stored.ver + 1, op };
          this.job = changed.next.job;
          if (changed.lease === 'end') this.#finish();
          for (const { write, changed: own } of done) write.resolve(present(own.next, committed.position));
          return;
        case 'busy':
          for (const { write } of done) write.reject(new BlobBusy());
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
    let all = unchanged(this.#stored);
    for (const write of batch) {
      try {
        const changed = write.run(all.next);
        all = { ...changed, events: [...all.events, ...changed.events], visible: all.visible || changed.visible };
        done.push({ write, changed });
      } catch (error) {
        write.reject(error);
      }
    }
    return { done, changed: all };
  }

  #append(stored: RedisJob, job: Job, event: Parameters<typeof eventOf>[1], nowMs: number, visible: boolean): Changed {
    const { maxStoredEvents } = this.#host;
    job.sequence++;
    const trim = job.sequence - stored.trimmedTo > maxStoredEvents * 1.25;
    const trimmedTo = trim ? job.sequence - maxStoredEvents : stored.trimmedTo;
    return { ...unchanged({ ...stored, job, trimmedTo }), events: [eventOf(job, event, nowMs)], visible };
  }

  #finish(): void {
    this.#over = true;
    this.#host.over(this);
  }
}

class BlobBusy extends Error {}

function unchanged(stored: RedisJob): Changed {
  return { next: stored, events: [], lease: 'keep', queue: undefined, visible: false };
}
