// What a run says, on its way into the job's event log. Owned by one job's stay on this node. Always true: the lease hears it in the order
// it was said, and nobody waits for a write, so that a store may make one transaction of what comes together; percent never falls and is 100
// only in the terminal state; at most ten progress events a second are stored, and the last one before the end always is.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { LogLevel, LogSchema, PreviewSchema, type Progress, ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobStep } from '../../gen/facefusion/jobs/v1/job_pb.js';
import * as wire from '../../gen/facefusion/worker/v1/worker_pb.js';
import type { Lease } from '../jobs/ports.ts';
import type { Logger } from './process.ts';
import { Rate } from './rate.ts';

/** Of the ten that a job may store; the other two are for the last one of a run and for the service's own step after it. */
const PROGRESS_PER_SECOND = 8;
/** A step of the service's own that is over sooner is not told. */
const BRIEF_MS = 100;
/** An estimate beyond a month is none. */
const MAX_ETA_SECONDS = 30 * 86_400;
const MAX_LOG_LENGTH = 4096;

const STEPS: Readonly<Record<wire.Step, JobStep | undefined>> = {
  [wire.Step.UNSPECIFIED]: undefined,
  [wire.Step.LOADING_MODELS]: JobStep.LOADING_MODELS,
  [wire.Step.ANALYSING]: JobStep.ANALYSING,
  [wire.Step.EXTRACTING_FRAMES]: JobStep.EXTRACTING_FRAMES,
  [wire.Step.PROCESSING]: JobStep.PROCESSING,
  [wire.Step.ENCODING_OUTPUT]: JobStep.ENCODING_OUTPUT,
  [wire.Step.RESTORING_AUDIO]: JobStep.RESTORING_AUDIO,
};

// Both protos number their levels alike.
const LEVELS: Readonly<Record<wire.LogLevel, LogLevel>> = {
  [wire.LogLevel.UNSPECIFIED]: LogLevel.INFO,
  [wire.LogLevel.DEBUG]: LogLevel.DEBUG,
  [wire.LogLevel.INFO]: LogLevel.INFO,
  [wire.LogLevel.WARN]: LogLevel.WARN,
  [wire.LogLevel.ERROR]: LogLevel.ERROR,
};

export class Reporter {
  readonly #lease: Lease;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #logs = new Rate(100, 20, performance.now());
  readonly #previews = new Rate(2, 2, performance.now());
  #step: JobStep = JobStep.LOADING_MODELS;
  #percent = 0;
  #fetchedPercent = 0;
  /** Monotonic times of the latest stored progress events, oldest first. */
  #stored: number[] = [];
  #storedStep: JobStep | undefined;
  #pending: Progress | undefined;
  /** What is held back is a step of the service's own, not worth an event so far. */
  #isBrief = false;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  /** `now`: milliseconds since 1970, the store's clock. */
  constructor(lease: Lease, logger: Logger, now: () => number) {
    this.#lease = lease;
    this.#logger = logger;
    this.#now = now;
  }

  /** The worker's own progress. */
  progress(said: wire.Progress): void {
    const step = STEPS[said.step] ?? this.#step;
    // NaN and infinity are numbers of the wire, and an engine may divide by nought.
    if (said.percent > this.#percent) this.#percent = Math.min(99, said.percent);
    const eta = said.etaSeconds !== undefined && said.etaSeconds >= 0 && said.etaSeconds <= MAX_ETA_SECONDS ? said.etaSeconds : undefined;
    const progress = create(ProgressSchema, {
      step,
      percent: this.#percent,
      framesDone: said.framesDone,
      framesTotal: said.framesTotal,
      framesPerSecond: Number.isFinite(said.framesPerSecond) ? said.framesPerSecond : 0,
      etaSeconds: eta,
      estimatedFinishTime: eta === undefined ? undefined : timestampFromMs(this.#now() + eta * 1000),
      attempt: this.#lease.job.attempt,
    });
    // The last word of a step is stored, unless an engine changes steps faster than events may be stored.
    if (step !== this.#step && this.#roomAt() <= performance.now()) this.#storePending();
    this.#step = step;
    this.#pending = progress;
    this.#offer();
  }

  /** Bytes of the inputs, before the attempt begins: its own percent starts at 0 again. Falls with a transfer that begins anew; the percent does not. */
  fetching(done: number, total: number): void {
    if (total > 0) this.#fetchedPercent = Math.max(this.#fetchedPercent, Math.min(99, (100 * done) / total));
    this.#pending = create(ProgressSchema, {
      step: JobStep.FETCHING_INPUTS,
      percent: this.#fetchedPercent,
      attempt: this.#lease.job.attempt,
      ...bytesOf(done, total),
    });
    this.#offer();
  }

  /** Bytes of the result that have been sent to where it is kept. */
  storing(done: number, total: number): void {
    const { attempt } = this.#lease.job;
    this.#pending = create(ProgressSchema, { step: JobStep.STORING_RESULT, percent: this.#percent, attempt, ...bytesOf(done, total) });
    this.#offer();
  }

  /** Nothing comes any more: what was said of it must be stored before the attempt begins. */
  fetched(): void {
    this.#storePending();
  }

  /** A step of the service's own, the last one. Stored when it lasts: the end of the job says more than that its result was stored before. */
  enter(step: JobStep): void {
    this.#storePending();
    this.#step = step;
    this.#pending = create(ProgressSchema, { step, percent: this.#percent, attempt: this.#lease.job.attempt });
    this.#isBrief = true;
    this.#timer = setTimeout(() => this.#storePending(), BRIEF_MS);
  }

  log(level: wire.LogLevel, message: string): void {
    if (!this.#logs.take(performance.now())) return;
    this.#tellDropped();
    const text = message.length > MAX_LOG_LENGTH ? `${message.slice(0, MAX_LOG_LENGTH - 1)}…` : message;
    void this.#write('log', () => this.#lease.log(create(LogSchema, { level: LEVELS[level] ?? LogLevel.INFO, message: text })));
  }

  preview(said: wire.Preview): void {
    if (!this.#previews.take(performance.now())) return;
    this.#lease.preview(create(PreviewSchema, { jpeg: Buffer.from(said.jpegBase64, 'base64'), frame: said.frame }));
  }

  warn(warnings: readonly string[]): void {
    if (warnings.length > 0) void this.#write('warnings', () => this.#lease.warn(warnings));
  }

  /** The end: what is held back goes out, before whatever is written to the lease next. What is said later has nowhere to go. */
  finish(): void {
    if (!this.#isBrief) this.#storePending();
    this.#tellDropped();
    this.close();
  }

  /** Nothing is held back any more, and nothing is heard; for a job that ends without `finish`. */
  close(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#pending = undefined;
  }

  #offer(): void {
    if (this.#timer) return;
    const now = performance.now();
    const latest = this.#stored.at(-1);
    const even = latest === undefined || this.#pending?.step !== this.#storedStep ? 0 : latest + 1000 / PROGRESS_PER_SECOND;
    const at = Math.max(even, this.#roomAt());
    if (at <= now) this.#storePending();
    else this.#timer = setTimeout(() => this.#storePending(), at - now);
  }

  #roomAt(): number {
    return this.#stored.length < PROGRESS_PER_SECOND ? 0 : this.#stored[0]! + 1000;
  }

  #storePending(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const progress = this.#pending;
    this.#pending = undefined;
    this.#isBrief = false;
    if (progress) this.#store(progress);
  }

  #store(progress: Progress): void {
    this.#stored.push(performance.now());
    if (this.#stored.length > PROGRESS_PER_SECOND) this.#stored.shift();
    this.#storedStep = progress.step;
    void this.#write('progress', () => this.#lease.progress(progress));
  }

  #tellDropped(): void {
    const dropped = this.#logs.takeDropped();
    if (dropped === 0) return;
    const message = `(${dropped} log lines were dropped: too many at once)`;
    void this.#write('log', () => this.#lease.log(create(LogSchema, { level: LogLevel.WARN, message })));
  }

  async #write(what: string, write: () => Promise<void>): Promise<void> {
    if (this.#isOver) return;
    try {
      await write();
    } catch (error) {
      // A lost lease tells so by its signal too, and that ends the run.
      if (this.#lease.signal.aborted) return;
      this.#logger.warn({ jobId: this.#lease.job.jobId, err: error }, `${what} of ${this.#lease.job.jobId} could not be stored`);
    }
  }
}

function bytesOf(done: number, total: number): Pick<Progress, 'bytesDone' | 'bytesTotal'> {
  return { bytesDone: BigInt(Math.round(done)), bytesTotal: BigInt(Math.round(total)) };
}
