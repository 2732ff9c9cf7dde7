// The worker of one slot: started, warmed, given runs, stopped, killed, started again. Owned by the scheduler.
//
// Always true:
// - A run settles only on the worker's `idle` word or on the death of its process group, never on a wish, a timeout or an error.
// - A process that was condemned (killed by us, for whatever reason) has no way back to idle: what it still says is not heard.
// - At most one process group of a slot is alive; the next one starts after the last one's every member is gone.
// - `close` leaves no process behind.
import { setTimeout as delay } from 'node:timers/promises';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import {
  type Done,
  type Failed,
  LogLevel,
  Outcome,
  type Preview,
  type Progress,
  type Ready,
  type RunSchema,
} from '../../gen/facefusion/worker/v1/worker_pb.js';
import type { Failure } from '../jobs/job.ts';
import { lastWords, type ProcessOptions, WorkerProcess } from './process.ts';
import { encodeFrame, type WorkerWord } from './wire.ts';

export interface WorkerOptions extends Pick<ProcessOptions, 'command' | 'args' | 'cwd' | 'environment' | 'owner'> {
  /** Variables passed on besides the usual few. */
  readonly passOn?: readonly string[];
  /** From the process's start to `ready`; models may be loaded, even fetched. */
  readonly startTimeoutMs?: number;
  /** Without progress, preview or log for that long a run is taken for hung. */
  readonly stallTimeoutMs?: number;
  /** From `done` or `failed` to `idle`. */
  readonly idleTimeoutMs?: number;
  /** From asking a run to stop for its time limit to SIGKILL. */
  readonly cancelGraceMs?: number;
  /** Each, from `shutdown` to SIGTERM and from there to SIGKILL. */
  readonly shutdownGraceMs?: number;
  /** A process is replaced after that many runs, or when it has grown by that much since its first. */
  readonly recycleAfterJobs?: number;
  readonly recycleGrowthBytes?: number;
  /** Wait before a failed process is started again: doubles from `first` to `most`, with jitter. */
  readonly backoffMs?: { readonly first: number; readonly most: number };
  /** In [0, 1); for the jitter. */
  readonly random?: () => number;
}

/** The slot that a worker is for, and who wants to know of it. */
export interface WorkerPlace extends Pick<ProcessOptions, 'slot' | 'gpu' | 'variables' | 'logger'> {
  /** The worker's state or figures are others now. */
  readonly onChange: () => void;
  /** The engine says of itself, at its first start on this slot, that it cannot run here. It is tried again all the same. */
  readonly onUnfit?: (sentence: string) => void;
}

/** Exit code of a worker whose engine cannot run on this machine; it has said why. */
const EXIT_UNFIT = 70;
/** Reason of a run for which the device's memory did not suffice. */
export const OUT_OF_MEMORY = 'GPU_OUT_OF_MEMORY';

const DEFAULTS = {
  owner: undefined,
  passOn: [] as readonly string[],
  startTimeoutMs: 300_000,
  stallTimeoutMs: 300_000,
  idleTimeoutMs: 30_000,
  cancelGraceMs: 5_000,
  shutdownGraceMs: 3_000,
  recycleAfterJobs: Number.POSITIVE_INFINITY,
  recycleGrowthBytes: Number.POSITIVE_INFINITY,
  backoffMs: { first: 250, most: 30_000 },
  random: Math.random,
};

export type RunOutcome =
  | { readonly kind: 'done'; readonly done: Done }
  | { readonly kind: 'failed'; readonly failure: Failure }
  /** The content analyser's word. */
  | { readonly kind: 'refused'; readonly failure: Failure }
  /** Stopped as asked, by its own word or by its death. */
  | { readonly kind: 'canceled' }
  | { readonly kind: 'timed_out' }
  | { readonly kind: 'stalled' }
  /** The process ended by itself; `exit` says how, in words. */
  | { readonly kind: 'crashed'; readonly exit: string; readonly lastLines: readonly string[] };

/** How a run ended, after how many seconds of engine time, and whether its process died of it. */
export type RunEnd = RunOutcome & { readonly seconds: number; readonly killed: boolean };

export interface RunRequest {
  readonly run: MessageInitShape<typeof RunSchema> & { readonly jobId: string; readonly attempt: number };
  /** Engine time. */
  readonly runTimeoutMs?: number;
  onProgress(progress: Progress): void;
  onPreview(preview: Preview): void;
  onLog(level: LogLevel, message: string): void;
}

export interface RunHandle {
  /** Never rejects; settles when nothing runs for it any more. */
  readonly end: Promise<RunEnd>;
  /** Asks the engine to stop and kills its process group after `graceMs`. Again with less grace: sooner. */
  stop(graceMs: number): void;
}

const { STARTING, IDLE, BUSY, STOPPING, BACKING_OFF, CLOSED } = WorkerState;

/** Whether a worker in that state runs jobs, or will when it is done with its own. */
export function isWarm(state: WorkerState): boolean {
  return state === IDLE || state === BUSY || state === STOPPING;
}
const MAX_MESSAGE_LENGTH = 4096;
/** Callers match on reasons: what does not look like one is not passed on as one. */
const REASON = /^[A-Z][A-Z0-9_]{1,62}$/;

interface Run {
  readonly request: RunRequest;
  readonly startedAt: number;
  readonly settle: (end: RunEnd) => void;
  stallBy: number;
  runBy: number;
  killBy: number;
  idleBy: number;
  /** What the engine said first. */
  verdict: RunOutcome | undefined;
  /** Why we end it; its outcome where the engine has no better word. */
  cause: 'canceled' | 'timed_out' | 'stalled' | undefined;
}

export class Worker implements AsyncDisposable {
  readonly slot: string;
  readonly gpu: number | undefined;
  readonly #options: CompleteOptions;
  readonly #place: WorkerPlace;
  readonly #supervision: Promise<void>;
  #state: WorkerState = STARTING;
  #sinceMs = Date.now();
  /** Milliseconds since 1970: when the process got ready; when the next one is started. */
  #upSinceMs: number | undefined;
  #nextStartMs: number | undefined;
  #child: WorkerProcess | undefined;
  #run: Run | undefined;
  #ready: Ready | undefined;
  #problem: string | undefined;
  /** Why the process that is being started will not get ready, as far as it or the clock has said. */
  #startProblem: string | undefined;
  #rssBytes = 0;
  #firstRssBytes = 0;
  #warmModels: readonly string[] = [];
  #jobsDone = 0;
  #jobsOfChild = 0;
  #restarts = 0;
  /** Processes in a row that ended on their own without having finished a run; those of them that were never ready. */
  #failures = 0;
  #failedStarts = 0;
  #startBy = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #closing = new AbortController();
  #closed: Promise<void> | undefined;

  /** Starts at once. */
  constructor(options: WorkerOptions, place: WorkerPlace) {
    this.slot = place.slot;
    this.gpu = place.gpu;
    this.#place = place;
    this.#options = complete(options);
    this.#supervision = this.#supervise();
  }

  get state(): WorkerState {
    return this.#state;
  }

  /** Has been warm and is not failing to start: worth claiming jobs for, though it may be busy or on its way back. */
  get up(): boolean {
    return this.#ready !== undefined && this.#failedStarts === 0 && !this.#closing.signal.aborted;
  }

  /** Of the latest process that got ready. */
  get ready(): Ready | undefined {
    return this.#ready;
  }

  /** For ListSlots. */
  get facts() {
    return {
      sinceMs: this.#sinceMs,
      upSinceMs: this.#upSinceMs,
      nextStartMs: this.#nextStartMs,
      pid: this.#child?.pid,
      problem: this.#problem,
      rssBytes: this.#rssBytes,
      warmModels: this.#warmModels,
      jobsDone: this.#jobsDone,
      restarts: this.#restarts,
      jobId: this.#run?.request.run.jobId,
    };
  }

  /** Only an idle worker takes a run; asking another one is the caller's defect and throws. */
  run(request: RunRequest): RunHandle {
    const child = this.#child;
    if (this.#state !== IDLE || !child) throw new Error(`worker of ${this.slot} is ${WorkerState[this.#state]}, not idle`);
    const { promise, resolve } = Promise.withResolvers<RunEnd>();
    const now = performance.now();
    const run: Run = {
      request,
      startedAt: now,
      settle: resolve,
      stallBy: now + this.#options.stallTimeoutMs,
      runBy: now + (request.runTimeoutMs ?? Number.POSITIVE_INFINITY),
      killBy: Number.POSITIVE_INFINITY,
      idleBy: Number.POSITIVE_INFINITY,
      verdict: undefined,
      cause: undefined,
    };
    this.#run = run;
    this.#enter(BUSY);
    child.send(encodeFrame({ case: 'run', value: request.run }));
    this.#watchTime();
    return { end: promise, stop: (graceMs) => this.#stop(run, 'canceled', graceMs) };
  }

  /** Ends the process, gently at first, and waits for its death; a run that is still on is stopped with no grace. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    if (this.#run) this.#stop(this.#run, 'canceled', 0);
    else if (this.#child) await this.#shutDown(this.#child);
    await this.#supervision;
  }

  async #supervise(): Promise<void> {
    const { logger } = this.#place;
    while (!this.#closing.signal.aborted) {
      this.#jobsOfChild = 0;
      this.#firstRssBytes = 0;
      this.#startProblem = undefined;
      this.#startBy = performance.now() + this.#options.startTimeoutMs;
      const child = new WorkerProcess(
        { ...this.#options, ...this.#place },
        {
          word: (word) => this.#hear(child, word),
          output: (line) => this.#run?.request.onLog(LogLevel.INFO, line),
        },
      );
      this.#child = child;
      this.#enter(STARTING);
      this.#watchTime();
      const death = await child.died;
      const wasStarting = this.#state === STARTING;
      this.#child = undefined;
      this.#upSinceMs = undefined;
      this.#rssBytes = 0;
      this.#warmModels = [];
      const run = this.#run;
      if (run) this.#settle(run, run.verdict ?? (run.cause ? { kind: run.cause } : { kind: 'crashed', ...death }), true);
      if (this.#closing.signal.aborted) break;

      this.#restarts++;
      if (wasStarting) this.#failedStarts++;
      if (wasStarting || !child.condemned) {
        this.#failures++;
        this.#problem = this.#startProblem ?? `the worker ${death.exit}${lastWords(death.lastLines)}`;
        const unfit = wasStarting && death.code === EXIT_UNFIT && this.#startProblem !== undefined;
        // Its own sentence says it all; the lines before it are those of a start that went well so far.
        const fields = unfit ? { slot: this.slot } : { slot: this.slot, exit: death.exit, lastLines: death.lastLines };
        logger.error(fields, `worker of ${this.slot} failed: ${this.#problem}`);
        if (unfit && this.#restarts === 1) this.#place.onUnfit?.(this.#problem);
        const { first, most } = this.#options.backoffMs;
        const cap = Math.min(most, first * 2 ** (this.#failures - 1));
        const pause = cap / 2 + (cap / 2) * this.#options.random();
        this.#nextStartMs = Date.now() + pause;
        this.#enter(BACKING_OFF);
        await delay(pause, undefined, { signal: this.#closing.signal }).catch(() => {});
        this.#nextStartMs = undefined;
      }
    }
    clearTimeout(this.#timer);
    this.#enter(CLOSED);
  }

  #enter(state: WorkerState): void {
    this.#state = state;
    this.#sinceMs = Date.now();
    this.#place.onChange();
  }

  #hear(child: WorkerProcess, word: WorkerWord): void {
    if (child.condemned || child !== this.#child) return;
    const run = this.#run;
    switch (word.case) {
      case 'ready':
        if (this.#state !== STARTING) return;
        this.#ready = word.value;
        this.#warmModels = word.value.warmModels;
        this.#failedStarts = 0;
        this.#problem = undefined;
        this.#startBy = Number.POSITIVE_INFINITY;
        this.#upSinceMs = Date.now();
        this.#enter(IDLE);
        return;
      case 'heartbeat':
        // Proves life, not progress: a run is judged by what it says.
        this.#rssBytes = Number.isFinite(word.value.rssBytes) ? word.value.rssBytes : 0;
        return;
      case 'progress':
        if (!run || !concerns(run, word.value)) return;
        run.stallBy = performance.now() + this.#options.stallTimeoutMs;
        run.request.onProgress(word.value);
        return;
      case 'preview':
        if (!run || !concerns(run, word.value)) return;
        run.stallBy = performance.now() + this.#options.stallTimeoutMs;
        run.request.onPreview(word.value);
        return;
      case 'log':
        if (run && concerns(run, word.value)) {
          run.stallBy = performance.now() + this.#options.stallTimeoutMs;
          run.request.onLog(word.value.level, word.value.message);
        } else if (word.value.jobId === '') {
          // Why it does not start is told once, with its end.
          if (this.#state === STARTING && word.value.level === LogLevel.ERROR) this.#startProblem = word.value.message;
          else this.#place.logger.info({ slot: this.slot }, word.value.message);
        }
        return;
      case 'done':
      case 'failed':
        if (!run || run.verdict || !concerns(run, word.value)) return;
        run.verdict = word.case === 'done' ? { kind: 'done', done: word.value } : verdictOf(word.value, run.cause);
        run.idleBy = performance.now() + this.#options.idleTimeoutMs;
        this.#watchTime();
        return;
      case 'idle':
        if (!run || !concerns(run, word.value)) return;
        this.#rssBytes = Number.isFinite(word.value.rssBytes) ? word.value.rssBytes : 0;
        this.#warmModels = word.value.warmModels;
        this.#failures = 0;
        this.#jobsOfChild++;
        this.#becomeFree(child, run);
        return;
    }
  }

  #becomeFree(child: WorkerProcess, run: Run): void {
    if (this.#jobsOfChild === 1) this.#firstRssBytes = this.#rssBytes;
    const grown = this.#rssBytes - this.#firstRssBytes;
    // What is left of a device's memory after it ran out is in pieces: only the end of the process gives it back whole.
    const starved = run.verdict?.kind === 'failed' && run.verdict.failure.reason === OUT_OF_MEMORY;
    const worn = starved || this.#jobsOfChild >= this.#options.recycleAfterJobs || grown >= this.#options.recycleGrowthBytes;
    const silent: RunOutcome = {
      kind: 'failed',
      failure: { reason: 'ENGINE_ERROR', message: 'the engine ended the run without a word on its result', retryable: true },
    };
    this.#settle(run, run.verdict ?? (run.cause ? { kind: run.cause } : silent), false);
    if (worn) {
      this.#place.logger.info({ slot: this.slot, jobs: this.#jobsOfChild, grown }, `recycling the worker of ${this.slot}`);
      void this.#shutDown(child);
    } else {
      this.#enter(IDLE);
    }
  }

  #settle(run: Run, outcome: RunOutcome, killed: boolean): void {
    this.#run = undefined;
    this.#jobsDone++;
    run.settle({ ...outcome, seconds: (performance.now() - run.startedAt) / 1000, killed });
  }

  #stop(run: Run, cause: 'canceled' | 'timed_out', graceMs: number): void {
    const child = this.#child;
    if (this.#run !== run || !child || child.condemned) return;
    if (!run.cause) {
      run.cause = cause;
      child.send(encodeFrame({ case: 'cancel', value: { jobId: run.request.run.jobId } }));
      this.#enter(STOPPING);
    }
    run.killBy = Math.min(run.killBy, performance.now() + graceMs);
    if (graceMs <= 0) child.kill();
    else this.#watchTime();
  }

  /** From here on the process only ends: `shutdown`, SIGTERM, SIGKILL. */
  async #shutDown(child: WorkerProcess): Promise<void> {
    const starting = this.#state === STARTING;
    child.condemned = true;
    this.#startBy = Number.POSITIVE_INFINITY;
    this.#enter(STOPPING);
    // One that still loads does not listen yet, and has nothing to put down.
    if (!starting) {
      child.send(encodeFrame({ case: 'shutdown', value: {} }));
      if (await child.diedWithin(this.#options.shutdownGraceMs)) return;
    }
    child.signal('SIGTERM');
    if (await child.diedWithin(this.#options.shutdownGraceMs)) return;
    child.kill();
    await child.died;
  }

  // One timer for all time limits of a worker, armed for the nearest: limits mostly move away, so a run costs no timer of its own.
  #watchTime(): void {
    const run = this.#run;
    let due = this.#startBy;
    if (run && !this.#child?.condemned) due = Math.min(run.killBy, run.verdict ? run.idleBy : Math.min(run.stallBy, run.runBy));
    if (due >= this.#timerAt || due === Number.POSITIVE_INFINITY) return;
    clearTimeout(this.#timer);
    this.#timerAt = due;
    // Longer than a timer takes: looked at again then.
    this.#timer = setTimeout(() => this.#judgeTime(), Math.min(2 ** 31 - 1, Math.max(0, due - performance.now())));
  }

  #judgeTime(): void {
    this.#timerAt = Number.POSITIVE_INFINITY;
    const { child, run, now } = { child: this.#child, run: this.#run, now: performance.now() };
    if (!child || child.condemned) return;
    const { logger } = this.#place;
    const fields = { slot: this.slot, jobId: run?.request.run.jobId };
    if (this.#state === STARTING) {
      if (now >= this.#startBy) {
        this.#startProblem = `the worker was not ready within ${this.#options.startTimeoutMs / 1000} s${lastWords(child.lastLines)}`;
        child.kill();
      }
    } else if (run) {
      if (now >= run.killBy) {
        logger.warn(fields, `the engine on ${this.slot} did not stop in time: killed`);
        child.kill();
      } else if (run.verdict) {
        if (now >= run.idleBy) {
          logger.error(fields, `the engine on ${this.slot} has ended its run and does not become idle: killed`);
          child.kill();
        }
      } else if (now >= run.runBy) {
        run.runBy = Number.POSITIVE_INFINITY;
        this.#stop(run, 'timed_out', this.#options.cancelGraceMs);
      } else if (now >= run.stallBy) {
        logger.error(fields, `the run on ${this.slot} has not moved for ${this.#options.stallTimeoutMs / 1000} s: killed`);
        run.cause ??= 'stalled';
        child.kill();
      }
    }
    this.#watchTime();
  }
}

type CompleteOptions = Required<Omit<WorkerOptions, 'owner'>> & Pick<WorkerOptions, 'owner'>;

/** Every option, in range; one that is given as undefined takes its default. */
function complete(options: WorkerOptions): CompleteOptions {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const complete = { ...DEFAULTS, ...given } as CompleteOptions;
  for (const [name, value] of Object.entries(complete)) {
    // Also NaN is not more than 0.
    if (typeof value === 'number' && !(value > 0)) throw new RangeError(`${name} of a worker is ${value} and must be more than 0`);
  }
  return complete;
}

function concerns(run: Run, word: { readonly jobId: string; readonly attempt: number }): boolean {
  return word.jobId === run.request.run.jobId && word.attempt === run.request.run.attempt;
}

function verdictOf(failed: Failed, cause: Run['cause']): RunOutcome {
  const failure: Failure = {
    reason: REASON.test(failed.reason) ? failed.reason : 'ENGINE_ERROR',
    message: failed.message.slice(0, MAX_MESSAGE_LENGTH),
    retryable: failed.retryable,
  };
  if (failed.outcome === Outcome.REFUSED) return { kind: 'refused', failure: { ...failure, retryable: false } };
  // Asked to stop: an error on the way out is the stop, in whatever words.
  if (cause) return { kind: cause };
  if (failed.outcome === Outcome.CANCELED) {
    return {
      kind: 'failed',
      failure: { ...failure, message: failure.message || 'the engine stopped without being asked', retryable: true },
    };
  }
  return { kind: 'failed', failure };
}
