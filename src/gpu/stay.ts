// One claimed job's stay on this node: prepared, given a slot, run, stored, ended. Owns its lease, its reporter and its work folder; the scheduler
// says when it has a slot, and whether it has to go.
//
// Always true:
// - The lease ends by exactly one terminal step, made when nothing runs for the job any more and tried until the store takes it; if a defect is in its
//   way, the lease is disposed, which gives the job back.
// - The task of a slot settles only when the worker says `idle` or its process group is dead.
// - A result that is being stored is thrown away by its caller or by the loss of the lease, and by nothing else.
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationMs, type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt';
import { type EngineInfo, EngineInfoSchema, JobStatus, JobStep, type Timings, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Done, RunSchema } from '../../gen/facefusion/worker/v1/worker_pb.js';
import { JobsError } from '../jobs/errors.ts';
import { type Failure, type Job, type MediaResult, WaitReason } from '../jobs/job.ts';
import type { MarkingPlan } from '../jobs/marking.ts';
import { type Done as Completed, type Lease, LeaseEnded, type Match, type Matched, type Rank } from '../jobs/ports.ts';
import type { Span, TraceFacts, Traces } from '../jobs/traces.ts';
import { scratchOf, type WorkFolders } from './folders.ts';
import { type Logger, lastWords } from './process.ts';
import { Reporter } from './report.ts';
import { OUT_OF_MEMORY, type RunEnd, type RunHandle, type Worker } from './worker.ts';

/** What a job needs on this machine, as local files. */
export type Prepared = Pick<
  MessageInitShape<typeof RunSchema>,
  'sourcePaths' | 'sourceAudioPath' | 'targetPath' | 'targetKind' | 'outputFormat' | 'parameters'
> & {
  readonly warnings?: readonly string[];
  /** As far as the run may be one with others; undefined: it is not. */
  readonly like?: Pick<Match, 'fingerprint' | 'runs'> & { readonly keepMs: number };
  /** Undefined: the result is stored as the engine leaves it. */
  readonly marking?: MarkingPlan;
};

export interface StoreContext {
  readonly job: Job;
  readonly done: Done;
  readonly signal: AbortSignal;
  /** `Lease.pin` */
  readonly pin: Lease['pin'];
  /** For bytes that have to be sent elsewhere. */
  readonly report: (done: number, total: number) => void;
  readonly marking: MarkingPlan | undefined;
  /** Of the job, for its caller. */
  readonly warn: (warnings: readonly string[]) => void;
}

/** As far as it goes for a result that is there already. */
export type Delivering = Omit<StoreContext, 'done' | 'pin' | 'marking' | 'warn'>;

/** What is done for a job on this node before and after its run. */
export interface StayOptions {
  /**
   * Brings the job's inputs into `folder`, or as far as they are local says where they are. A failure that the caller should read is returned
   * or thrown as `JobsError`. Ends soon after `signal` aborts, and leaves nothing running. `report` is for bytes that have to come from elsewhere.
   */
  readonly prepare: (
    job: Job,
    folder: string,
    signal: AbortSignal,
    report: (done: number, total: number) => void,
    inputs: Lease['inputs'],
  ) => Promise<Prepared | Failure>;
  /**
   * Before a job takes a place among those whose inputs are brought: until this machine can take more, so that who waits for that delays nobody. Throws
   * `JobsError` where that will not be; ends soon after `signal` aborts.
   */
  readonly admit?: (signal: AbortSignal) => Promise<void>;
  /**
   * What has to be done with a result that is there already, before the job ends with it: `path` is free for its bytes. As `storeResult`, for jobs that
   * want a copy of their own.
   */
  readonly takeResult?: (result: MediaResult, path: string, context: Delivering) => Promise<MediaResult | Failure>;
  /** What this node is called: slots of several nodes have the same names. */
  readonly node: string;
  /**
   * Whether the bytes of a result that is known are there. They need not be where a store was put back from a replica or a copy: the bytes come
   * by another way, and may be late. Not given: they are.
   */
  readonly hasBytes?: (result: MediaResult) => Promise<boolean>;
  /** Told what there was for a job that might be like others. */
  readonly onMatched?: (found: Matched['kind']) => void;
  /** Makes a prepared work folder the engine's, where that runs as another user. */
  readonly handOver?: ((folder: string) => Promise<void>) | undefined;
  /**
   * Stores the engine's output for good, once `pin` has settled for its key. Tried again when it throws; a failure that no further try mends is
   * returned. Ends soon after `signal` aborts.
   */
  readonly storeResult: (outputPath: string, context: StoreContext) => Promise<MediaResult | Failure>;
  /** How long a job's result is kept after its end, in milliseconds; undefined: as long as the job. */
  readonly retentionMs?: (job: Job) => number | undefined;
  /** Before the second try to store a result; four times that before the third one, and so on, up to twenty times. */
  readonly storeRetryMs?: number;
  /** How long a result is kept for a store that is full or away, in milliseconds; then the job fails. Other errors are tried three times. */
  readonly storePatienceMs?: number;
  /** Before a job's end that the store did not take is written again; thrice that after each further try, up to twenty times. */
  readonly writeRetryMs?: number;
  /** Told of each job that this node has ended or put back, as its caller now sees it, with the times of this attempt alone. */
  readonly observe?: (job: Job, attempt: { readonly slot: string | undefined; readonly timings: Timings }) => void;
  /** Undefined: nothing is traced. */
  readonly traces?: Pick<Traces, 'job'> | undefined;
  /** Engine time where the request names none. */
  readonly runTimeoutMs?: number;
  /** From a cancel to SIGKILL. */
  readonly cancelGraceMs: number;
  /** Milliseconds since 1970, the store's clock. */
  readonly now: () => number;
  readonly logger: Logger;
}

/** A queue of tasks, some of which run at a time. */
export interface Lane {
  add(task: () => Promise<void>): Promise<unknown>;
}

/** The node that a job stays on. */
export interface Host {
  readonly prepareLane: Lane;
  readonly storeLane: Lane;
  readonly folders: WorkFolders;
  /** Monotonic time after which a store that does not answer is not waited for. */
  readonly deadline: () => number;
  /** It is prepared and wants a slot. */
  readonly onWaiting: () => void;
  /** It wants no slot any more. */
  readonly onLeave: (stay: Stay) => void;
  /** A run has ended well: engine time, and that of its steps by name, in seconds. */
  readonly onRan: (seconds: number, stepSeconds: Readonly<Record<string, number>>) => void;
  /** A defect was in its way. */
  readonly onTrouble: () => void;
}

/** Why a job's way through the node ends before its time. */
export type Stop = 'canceled' | 'lost' | 'given_back' | 'too_late';

const { IDLE } = WorkerState;
const STORE_TRIES = 3;
const WRITE_TRIES = 5;
/** A job that another node may already have is stopped with little ceremony. */
const LOST_GRACE_MS = 500;

export class Stay {
  readonly #lease: Lease;
  readonly #folder: string;
  readonly #options: StayOptions;
  readonly #host: Host;
  readonly #reporter: Reporter;
  /** Of the stay; undefined: the job is not traced. */
  readonly #span: Span | undefined;
  #controller = new AbortController();
  /** How the slot's task ended; undefined: nothing ran. */
  readonly #turn = Promise.withResolvers<RunEnd | 'no_worker' | undefined>();
  readonly #timings: Partial<Record<'queuedSeconds' | 'prepareSeconds' | 'runSeconds' | 'storeSeconds' | 'gpuSeconds', number>> = {};
  #stepSeconds: Record<string, number> = {};
  #phase: 'preparing' | 'waiting' | 'on_slot' | 'storing' | 'over' = 'preparing';
  #prepared: Prepared | undefined;
  #slot: string | undefined;
  #stopped: Stop | undefined;
  #wait: WaitReason = WaitReason.SLOT;
  #run: RunHandle | undefined;
  #startTimer: NodeJS.Timeout | undefined;
  #leaveLane: (() => void) | undefined;
  /** How it ended, for its span; empty: by a defect, or its lease was lost. */
  #ended: TraceFacts = {};
  /** The attempt before this one ran out of memory: this one is made with as little as the engine can, and is the last such. */
  #lowMemory = false;

  constructor(lease: Lease, options: StayOptions, host: Host) {
    this.#lease = lease;
    this.#folder = host.folders.path(lease.job.jobId, lease.job.attempt + 1);
    this.#options = options;
    this.#host = host;
    this.#reporter = new Reporter(lease, options.logger, options.now);
    this.#span = spanOf(lease.job, options);
  }

  get rank(): Rank {
    return this.#lease.rank;
  }

  /** Prepared, and without a slot. */
  get isWaiting(): boolean {
    return this.#phase === 'waiting';
  }

  /** The first reason stays, but nothing is written for a lost lease whatever was asked before. `wait`: what a job that is given back waits for. */
  stop(reason: Stop, wait?: WaitReason): void {
    // A result that is being stored is kept, whatever the node would rather do.
    if (this.#phase !== 'over' && !(reason === 'given_back' && this.#phase === 'storing')) {
      this.#stopped = reason === 'lost' ? reason : (this.#stopped ?? reason);
      this.#wait = wait ?? this.#wait;
      this.#controller.abort();
      // On a slot the task ends by itself, when the worker has.
      if (this.#phase === 'waiting') this.#turn.resolve(undefined);
      this.#run?.stop(reason === 'lost' ? LOST_GRACE_MS : this.#options.cancelGraceMs);
      this.#leaveLane?.();
    }
    this.#host.onLeave(this);
  }

  /** Gives it a slot. Answers the slot's task, which settles only when the slot is free again. */
  granted(slot: string, worker: Worker): () => Promise<void> {
    this.#phase = 'on_slot';
    this.#slot = slot;
    return () => this.#runOn(slot, worker).then(this.#turn.resolve, this.#turn.reject);
  }

  /** From claim to the end of the lease. Called once; never rejects. */
  async attend(): Promise<void> {
    const lease = this.#lease;
    const { logger } = this.#options;
    const onLeaseEnd = () => {
      const reason = lease.signal.reason;
      this.stop(reason instanceof LeaseEnded && reason.end === 'cancel_requested' ? 'canceled' : 'lost');
    };
    try {
      if (lease.signal.aborted) onLeaseEnd();
      else lease.signal.addEventListener('abort', onLeaseEnd, { once: true });
      this.#watchStart();
      await this.#carryOut();
    } catch (error) {
      if (!isLeaseLost(error)) {
        logger.error({ jobId: this.#jobId, err: error }, `${this.#jobId} could not be carried through on this node and is given back`);
        this.#host.onTrouble();
      }
    } finally {
      this.#phase = 'over';
      lease.signal.removeEventListener('abort', onLeaseEnd);
      clearTimeout(this.#startTimer);
      this.#reporter.close();
      this.#host.onLeave(this);
      await this.#tidy();
      this.#span?.end(this.#ended, this.#ended['ffjobs.reason'] as string | undefined);
    }
  }

  get #jobId(): string {
    return this.#lease.job.jobId;
  }

  async #tidy(): Promise<void> {
    const { logger } = this.#options;
    const jobId = this.#jobId;
    try {
      await this.#write(() => this.#lease[Symbol.asyncDispose]());
    } catch (error) {
      logger.error({ jobId, err: error }, `the lease on ${jobId} could not be let go; the next start of the service takes it back`);
    }
    try {
      await this.#host.folders.remove(this.#folder);
    } catch (error) {
      logger.error({ jobId, err: error }, `the work folder of ${jobId} could not be removed`);
    }
  }

  /** Runs `work` in the lane. Stopped before its turn: undefined at once, and the lane passes over it. */
  #through<T>(lane: Lane, work: () => Promise<T>): Promise<T | undefined> {
    if (this.#stopped) return Promise.resolve(undefined);
    const { promise, resolve, reject } = Promise.withResolvers<T | undefined>();
    let left = false;
    this.#leaveLane = () => {
      left = true;
      resolve(undefined);
    };
    void lane.add(async () => {
      if (left) return;
      this.#leaveLane = undefined;
      await work().then(resolve, reject);
    });
    return promise;
  }

  async #carryOut(): Promise<void> {
    const prepared = (await this.#admit()) ?? (await this.#through(this.#host.prepareLane, () => this.#prepare()));
    if (prepared === undefined || this.#stopped) return this.#endStopped();
    if ('reason' in prepared) return this.#fail(prepared, false);
    this.#reporter.warn(prepared.warnings ?? []);

    this.#prepared = prepared;
    const matched = await this.#match(prepared);
    // It waits in the queue for a like run, and its lease has ended.
    if (matched.kind === 'joined') return;
    if (this.#stopped) return this.#endStopped();
    if (matched.kind === 'cached') return this.#endWith(matched);
    this.#phase = 'waiting';
    this.#host.onWaiting();
    const end = await this.#turn.promise;
    if (end === undefined) return this.#endStopped();
    // The worker went away between the grant and the run: nobody's fault.
    if (end === 'no_worker') return this.#giveBack(WaitReason.MODEL_LOADING);
    if (end.kind !== 'done') return this.#endRun(end);

    this.#enterStoring();
    const { done } = end;
    const pin: Lease['pin'] = (key, lasting) => this.#lease.pin(key, lasting);
    const { marking } = prepared;
    const warn = (warnings: readonly string[]) => this.#reporter.warn(warnings);
    const result = await this.#storing((context) => this.#options.storeResult(this.#outputPath, { ...context, done, pin, marking, warn }));
    if (result === undefined) return this.#endStopped();
    if ('reason' in result) return this.#fail(result, false);
    const { like } = prepared;
    const keep = like && { fingerprint: like.fingerprint, ttlMs: like.keepMs };
    await this.#complete({ result, keep, warnings: end.done.warnings });
  }

  /** Whether a like job has been or is: after the inputs are known, and before a slot is asked for. */
  async #match({ like }: Prepared): Promise<Matched> {
    if (!like) return { kind: 'run' };
    const { job } = this.#lease;
    const again = job.request?.outputUri !== undefined;
    const retentionMs = this.#options.retentionMs?.(job);
    const match = (runs: boolean) => this.#lease.match({ fingerprint: like.fingerprint, runs, retentionMs, again });
    let matched = await match(like.runs);
    if (matched.kind === 'cached' && !(await this.#hasBytes(matched.result))) matched = await match(true);
    this.#options.onMatched?.(matched.kind);
    if (matched.kind !== 'run') this.#span?.child(matched.kind).end();
    return matched;
  }

  /** Where nobody can tell now, they are taken to be: whoever asks for them is told. */
  async #hasBytes(result: MediaResult): Promise<boolean> {
    try {
      return (await this.#options.hasBytes?.(result)) ?? true;
    } catch {
      return true;
    }
  }

  /** A like job has made the result before. */
  async #endWith({ result: kept, warnings }: Matched & { readonly kind: 'cached' }): Promise<void> {
    const { takeResult } = this.#options;
    let result: MediaResult | Failure | undefined = kept;
    if (takeResult && this.#lease.job.request?.outputUri !== undefined) {
      this.#phase = 'storing';
      result = await this.#storing((context) => takeResult(kept, this.#outputPath, context));
    }
    if (result === undefined) return this.#endStopped();
    if ('reason' in result) return this.#fail(result, false);
    await this.#complete({ result, warnings });
  }

  async #complete(done: Pick<Completed, 'result' | 'keep' | 'warnings'>): Promise<void> {
    const retentionMs = this.#options.retentionMs?.(this.#lease.job);
    await this.#conclude(() => this.#lease.complete({ ...done, retentionMs, timings: this.#attemptTimings() }));
  }

  /** The job fails when the engine does not run by its start deadline. */
  #watchStart(): void {
    const deadline = this.#lease.startDeadlineMs;
    if (deadline === undefined || this.#phase === 'over') return;
    const left = deadline - this.#options.now();
    this.#startTimer = setTimeout(
      () => (deadline - this.#options.now() > 0 ? this.#watchStart() : this.stop('too_late')),
      Math.min(Math.max(0, left), 2 ** 31 - 1),
    );
  }

  /** A failure, or undefined: it may go on, or was stopped. */
  async #admit(): Promise<Failure | undefined> {
    if (this.#stopped) return undefined;
    try {
      await this.#options.admit?.(this.#controller.signal);
      return undefined;
    } catch (error) {
      return this.#stopped ? undefined : this.#notPrepared(error);
    }
  }

  async #prepare(): Promise<Prepared | Failure> {
    const started = performance.now();
    const span = this.#span?.child('prepare');
    const prepared = await this.#prepareHere(started);
    span?.end({}, 'reason' in prepared ? prepared.reason : undefined);
    return prepared;
  }

  async #prepareHere(started: number): Promise<Prepared | Failure> {
    try {
      this.#host.folders.make(this.#folder);
      const { job, inputs } = this.#lease;
      const report = (done: number, total: number) => this.#reporter.fetching(done, total);
      const prepared = await this.#options.prepare(job, this.#folder, this.#controller.signal, report, inputs);
      if (!('reason' in prepared)) await this.#options.handOver?.(this.#folder);
      return prepared;
    } catch (error) {
      return this.#notPrepared(error);
    } finally {
      this.#reporter.fetched();
      this.#timings.prepareSeconds = (performance.now() - started) / 1000;
    }
  }

  #notPrepared(error: unknown): Failure {
    if (error instanceof JobsError) {
      // A full disk is no fault of the input.
      const other = error.kind === 'exhausted' ? error.reason : 'INPUT_NOT_READABLE';
      const reason = error.kind === 'not_found' ? 'INPUT_NOT_FOUND' : other;
      return { reason, message: error.message, retryable: error.kind === 'unavailable' || error.kind === 'exhausted' };
    }
    // An abort ends in an error of the fetching's own making.
    if (!this.#stopped) {
      this.#options.logger.error({ jobId: this.#jobId, err: error }, `the inputs of ${this.#jobId} could not be prepared`);
    }
    const message = 'the inputs could not be prepared; the log of the service says why, under the id of this job';
    return { reason: 'INPUT_NOT_READABLE', message, retryable: true };
  }

  async #runOn(slot: string, worker: Worker): Promise<RunEnd | 'no_worker' | undefined> {
    const timings = this.#timings;
    if (this.#stopped) return undefined;
    const taken = performance.now();
    this.#lowMemory = this.#lease.job.error?.reason === OUT_OF_MEMORY;
    const job = await this.#lease.begin({ slot: `${this.#options.node}/${slot}`, engine: engineInfo(worker) });
    clearTimeout(this.#startTimer);
    timings.queuedSeconds = secondsBetween(job.createdAt, job.updatedAt);
    if (this.#stopped) return undefined;
    if (worker.state !== IDLE) return 'no_worker';

    const { warnings: _, like: __, marking: ___, ...inputs } = this.#prepared!;
    const { request } = job;
    const span = this.#span?.child('run', { 'ffjobs.slot': slot, 'ffjobs.engine': job.engine?.name, 'ffjobs.attempt': job.attempt });
    this.#run = worker.run({
      run: {
        ...inputs,
        jobId: job.jobId,
        attempt: job.attempt,
        outputPath: this.#outputPath,
        workDir: scratchOf(this.#folder),
        previews: request?.previews ?? false,
        lowMemory: this.#lowMemory,
      },
      runTimeoutMs: request?.runTimeout ? durationMs(request.runTimeout) : this.#options.runTimeoutMs,
      onProgress: (progress) => this.#reporter.progress(progress),
      onPreview: (preview) => {
        if (request?.previews) this.#reporter.preview(preview);
      },
      onLog: (level, message) => this.#reporter.log(level, message),
    });
    const end = await this.#run.end;
    span?.end(factsOfRun(end), end.kind === 'failed' ? end.failure.reason : FAULTS.has(end.kind) ? end.kind : undefined);
    timings.runSeconds = end.seconds;
    timings.gpuSeconds = (performance.now() - taken) / 1000;
    if (end.kind === 'done') {
      this.#stepSeconds = finiteOf(end.done.stepSeconds);
      this.#host.onRan(end.seconds, this.#stepSeconds);
    }
    return end;
  }

  /** The run is over and has a result: a wish to give the job back comes too late. */
  #enterStoring(): void {
    this.#phase = 'storing';
    this.#run = undefined;
    if (this.#stopped === 'given_back') {
      this.#stopped = undefined;
      this.#controller = new AbortController();
    }
  }

  /** The output in the store, a failure to tell, or undefined: stopped meanwhile. */
  async #storing(store: (context: Delivering) => Promise<MediaResult | Failure>): Promise<MediaResult | Failure | undefined> {
    if (this.#stopped) return undefined;
    const started = performance.now();
    const lease = this.#lease;
    const { signal } = this.#controller;
    this.#reporter.enter(JobStep.STORING_RESULT);
    const span = this.#span?.child('store');
    const context = { job: lease.job, signal, report: (sent: number, total: number) => this.#reporter.storing(sent, total) };
    const stored = await this.#through<MediaResult | Failure | undefined>(this.#host.storeLane, async () => {
      for (let tried = 1; ; tried++) {
        try {
          return await store(context);
        } catch (error) {
          if (this.#stopped) return undefined;
          const waited = performance.now() - started;
          const patience = isPassing(error) && performance.now() < this.#host.deadline() ? (this.#options.storePatienceMs ?? 0) : 0;
          const last = tried >= STORE_TRIES && waited >= patience;
          this.#options.logger[last ? 'error' : 'warn'](
            { jobId: this.#jobId, err: error, tried },
            `the result of ${this.#jobId} could not be stored`,
          );
          const why = error instanceof JobsError ? error.message : 'the log of the service says why, under the id of this job';
          if (last) return { reason: 'RESULT_NOT_STORED', message: `the result could not be stored: ${why}`, retryable: true };
          const first = this.#options.storeRetryMs ?? 500;
          await delay(Math.min(first * 4 ** (tried - 1), 20 * first), undefined, { signal }).catch(() => {});
          if (this.#stopped) return undefined;
        }
      }
    });
    this.#timings.storeSeconds = (performance.now() - started) / 1000;
    span?.end({ 'ffjobs.bytes': stored && 'bytes' in stored ? Number(stored.bytes) : undefined }, failureOf(stored));
    return stored;
  }

  get #outputPath(): string {
    return join(this.#folder, `output.${this.#prepared?.outputFormat}`);
  }

  // --- the ends ---------------------------------------------------------------------------------------------------------------------------

  async #endRun(end: Exclude<RunEnd, { kind: 'done' }>): Promise<void> {
    if (this.#stopped && !(this.#stopped === 'given_back' && end.kind === 'refused')) return this.#endStopped();
    switch (end.kind) {
      case 'failed': {
        const inVain = this.#lowMemory && end.failure.reason === OUT_OF_MEMORY;
        return this.#fail(inVain ? { ...end.failure, retryable: false } : end.failure, end.killed, true);
      }
      case 'refused':
        return this.#conclude(() => this.#lease.refuse(end.failure, this.#attemptTimings()));
      case 'canceled':
        // Not by this job's wish: its worker was closed.
        return this.#giveBack(WaitReason.SLOT);
      case 'timed_out':
        return this.#fail({ reason: 'RUN_TIMEOUT', message: 'the run took longer than its run_timeout', retryable: false }, end.killed);
      case 'stalled': {
        const message = 'the engine stopped getting on with this job and its worker was killed';
        return this.#fail({ reason: 'WORKER_STALLED', message, retryable: true }, true);
      }
      case 'crashed': {
        const message = `the worker ${end.exit} while it ran this job${lastWords(end.lastLines)}`;
        return this.#fail({ reason: 'WORKER_CRASHED', message, retryable: true }, true);
      }
    }
  }

  /** Nothing runs for the job any more: says so, in the way that it was stopped for. */
  async #endStopped(): Promise<void> {
    switch (this.#stopped) {
      case 'canceled':
        return this.#conclude(() => this.#lease.canceled(this.#attemptTimings()));
      case 'given_back':
        return this.#giveBack(this.#wait);
      case 'too_late': {
        const message = 'the engine could not start on this job within its start_timeout';
        return this.#fail({ reason: 'START_TIMEOUT', message, retryable: false }, false);
      }
    }
    // Lost: another has it, and nothing can be written.
  }

  /** `ofRun`: it is the engine's word on what it was given. */
  #fail(failure: Failure, killedWorker: boolean, ofRun = false): Promise<void> {
    return this.#conclude(() => this.#lease.fail({ ...failure, killedWorker, ofRun, timings: this.#attemptTimings() }));
  }

  #giveBack(wait: WaitReason): Promise<void> {
    return this.#conclude(() => this.#lease.giveBack(wait, this.#attemptTimings()));
  }

  /** What an operator reads of a job: how it ended, or why it is tried again. One that is merely put back is not worth a line. */
  #tell(job: Job): void {
    const { logger, observe } = this.#options;
    const { jobId, status, attempt, slot, error } = job;
    observe?.(job, { slot: this.#slot, timings: this.#attemptTimings() });
    this.#ended = { 'ffjobs.status': JobStatus[status].toLowerCase(), 'ffjobs.attempts': attempt, 'ffjobs.reason': error?.reason };
    const facts = { jobId, trace_id: this.#span?.traceId, attempt, slot, reason: error?.reason, problem: error?.message };
    if (status === JobStatus.FAILED) logger.warn(facts, `${jobId} failed`);
    else if (status !== JobStatus.QUEUED) logger.info(facts, `${jobId} ${JobStatus[status].toLowerCase()}`);
    else if (error) logger.warn(facts, `${jobId} is tried again`);
    else logger.debug(facts, `${jobId} is put back in the queue`);
  }

  /** The one terminal step, after everything that was said. */
  #conclude(write: () => Promise<Job>): Promise<void> {
    this.#reporter.finish();
    return this.#write(async () => this.#tell(await write()));
  }

  /**
   * Ends a lease. Tried until a store that is full or away takes it, or a drain's time is up: the job would else stay with a node that does nothing
   * for it any more. Other errors are defects, and are given up on.
   */
  async #write(write: () => PromiseLike<unknown>): Promise<void> {
    const first = this.#options.writeRetryMs ?? 150;
    for (let tried = 1; ; tried++) {
      try {
        await write();
        return;
      } catch (error) {
        const again = tried < WRITE_TRIES || (isPassing(error) && performance.now() < this.#host.deadline());
        if (isLeaseLost(error) || this.#stopped === 'lost' || !again) throw error;
        this.#options.logger.warn(
          { jobId: this.#jobId, err: error, tried },
          `the end of ${this.#jobId} could not be written; trying again`,
        );
        await delay(Math.min(first * 3 ** (tried - 1), 20 * first));
      }
    }
  }

  #attemptTimings(): Timings {
    return create(TimingsSchema, { ...this.#timings, stepSeconds: this.#stepSeconds });
  }
}

/** From the submit on, with the wait in the queue in it; of a later attempt, from its claim on. */
function spanOf({ jobId, tenant, traceparent, attempt, createdAt }: Job, { traces, now }: StayOptions): Span | undefined {
  if (!traces || traceparent === undefined) return undefined;
  const startMs = attempt === 0 && createdAt ? Math.min(timestampMs(createdAt), now()) : undefined;
  const span = traces.job(traceparent, { 'ffjobs.job_id': jobId, 'ffjobs.tenant': tenant }, startMs);
  if (startMs !== undefined) span.child('queue', {}, startMs).end();
  return span;
}

const FAULTS: ReadonlySet<RunEnd['kind']> = new Set(['timed_out', 'stalled', 'crashed']);

function factsOfRun(end: RunEnd): TraceFacts {
  const steps = end.kind === 'done' ? Object.entries(finiteOf(end.done.stepSeconds)) : [];
  return {
    'ffjobs.outcome': end.kind,
    ...Object.fromEntries(steps.map(([name, seconds]) => [`ffjobs.seconds.${name.toLowerCase()}`, seconds])),
  };
}

function failureOf(stored: MediaResult | Failure | undefined): string | undefined {
  return stored && 'reason' in stored ? stored.reason : undefined;
}

/** Somewhere is full or away: time may mend it. */
function isPassing(error: unknown): boolean {
  return error instanceof JobsError && (error.kind === 'unavailable' || error.kind === 'exhausted');
}

function isLeaseLost(error: unknown): boolean {
  return error instanceof JobsError && error.reason === 'LEASE_LOST';
}

function engineInfo({ ready }: Worker): EngineInfo | undefined {
  return ready && create(EngineInfoSchema, { name: ready.engine, version: ready.engineVersion });
}

function finiteOf(seconds: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(seconds).filter(([, value]) => Number.isFinite(value)));
}

function secondsBetween(from: Timestamp | undefined, to: Timestamp | undefined): number {
  return from && to ? Math.max(0, timestampMs(to) - timestampMs(from)) / 1000 : 0;
}
