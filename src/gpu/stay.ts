// One claimed job's stay on this node: prepared, given a slot, run, stored, ended. Owns its lease and its work folder; the scheduler says when it has a slot, and
// whether it has to go.
//
// Always true:
// - The lease ends (ending.ts) when nothing runs for the job any more.
// - The task of a slot settles only when the worker says `idle` or its process group is dead.
// - A result that is being stored is thrown away by its caller or by the loss of the lease, and by nothing else.
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { durationMs } from '@bufbuild/protobuf/wkt';
import { type EngineInfo, EngineInfoSchema, JobStep } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { isPassing, JobsError } from '../jobs/errors.ts';
import { type Failure, type Job, type MediaResult, WaitReason } from '../jobs/job.ts';
import { type Lease, LeaseEnded, type Matched, type Rank } from '../jobs/ports.ts';
import { Account, type AccountOptions } from './account.ts';
import { Ending, type EndingOptions, isLeaseLost } from './ending.ts';
import { scratchOf, type WorkFolders } from './folders.ts';
import { lastWords } from './process.ts';
import { Reporter } from './report.ts';
import { type StoringOptions, storePatiently } from './storing.ts';
import type { Delivering, Prepared, ReportBytes, Work } from './work.ts';
import { OUT_OF_MEMORY, type RunEnd, type RunHandle, type Worker } from './worker.ts';

export interface StayOptions extends Work, AccountOptions, EndingOptions, StoringOptions {
  /** What this node is called: slots of several nodes have the same names. */
  readonly node: string;
  /** Told what there was for a job that might be like others. */
  readonly onMatched?: (found: Matched['kind']) => void;
  /** Engine time where the request names none. */
  readonly runTimeoutMs?: number;
  /** From a cancel to SIGKILL. */
  readonly cancelGraceMs: number;
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
/** A job that another node may already have is stopped with little ceremony. */
const LOST_GRACE_MS = 500;

export class Stay {
  readonly #lease: Lease;
  readonly #folder: string;
  readonly #options: StayOptions;
  readonly #host: Host;
  readonly #reporter: Reporter;
  readonly #account: Account;
  readonly #ending: Ending;
  #controller = new AbortController();
  /** How the slot's task ended; undefined: nothing ran. */
  readonly #turn = Promise.withResolvers<RunEnd | 'no_worker' | undefined>();
  #phase: 'preparing' | 'waiting' | 'on_slot' | 'storing' | 'over' = 'preparing';
  #prepared: Prepared | undefined;
  #slot: string | undefined;
  #stopped: Stop | undefined;
  #wait: WaitReason = WaitReason.SLOT;
  #run: RunHandle | undefined;
  #startTimer: NodeJS.Timeout | undefined;
  #leaveLane: (() => void) | undefined;
  /** The attempt before this one ran out of memory: this one is made with as little as the engine can, and is the last such. */
  #lowMemory = false;

  constructor(lease: Lease, options: StayOptions, host: Host) {
    this.#lease = lease;
    this.#folder = host.folders.path(lease.job.jobId, lease.job.attempt + 1);
    this.#options = options;
    this.#host = host;
    this.#reporter = new Reporter(lease, options.logger, options.now);
    this.#account = new Account(lease.job, options);
    const ended = { lease, reporter: this.#reporter, account: this.#account, slot: () => this.#slot };
    this.#ending = new Ending({ ...ended, isLost: () => this.#stopped === 'lost', deadline: host.deadline }, options);
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
    const { signal } = this.#lease;
    const { logger } = this.#options;
    const onLeaseEnd = () =>
      this.stop(signal.reason instanceof LeaseEnded && signal.reason.end === 'cancel_requested' ? 'canceled' : 'lost');
    try {
      if (signal.aborted) onLeaseEnd();
      else signal.addEventListener('abort', onLeaseEnd, { once: true });
      this.#watchStart();
      await this.#carryOut();
    } catch (error) {
      if (!isLeaseLost(error)) {
        logger.error({ jobId: this.#jobId, err: error }, `${this.#jobId} could not be carried through on this node and is given back`);
        this.#host.onTrouble();
      }
    } finally {
      this.#phase = 'over';
      signal.removeEventListener('abort', onLeaseEnd);
      clearTimeout(this.#startTimer);
      this.#reporter.close();
      this.#host.onLeave(this);
      await this.#tidy();
      this.#account.close();
    }
  }

  get #jobId(): string {
    return this.#lease.job.jobId;
  }

  get #outputPath(): string {
    return join(this.#folder, `output.${this.#prepared?.outputFormat}`);
  }

  async #tidy(): Promise<void> {
    const { logger } = this.#options;
    const jobId = this.#jobId;
    try {
      await this.#ending.letGo();
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
    if ('reason' in prepared) return this.#ending.fail(prepared);
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
    if (end === 'no_worker') return this.#ending.giveBack(WaitReason.MODEL_LOADING);
    if (end.kind !== 'done') return this.#endRun(end);
    return this.#endDone(end, prepared);
  }

  // --- before the run -----------------------------------------------------------------------------------------------------------------------

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

  #prepare(): Promise<Prepared | Failure> {
    const { job, inputs } = this.#lease;
    const { prepare, handOver } = this.#options;
    const report: ReportBytes = (done, total) => this.#reporter.fetching(done, total);
    return this.#account.preparing(async () => {
      try {
        this.#host.folders.make(this.#folder);
        const prepared = await prepare(job, this.#folder, this.#controller.signal, report, inputs);
        if (!('reason' in prepared)) await handOver?.(this.#folder);
        return prepared;
      } catch (error) {
        return this.#notPrepared(error);
      } finally {
        this.#reporter.fetched();
      }
    });
  }

  #notPrepared(error: unknown): Failure {
    if (error instanceof JobsError) {
      // A full disk is no fault of the input.
      const other = error.kind === 'exhausted' ? error.reason : 'INPUT_NOT_READABLE';
      const reason = error.kind === 'not_found' ? 'INPUT_NOT_FOUND' : other;
      return { reason, message: error.message, retryable: isPassing(error) };
    }
    // An abort ends in an error of the fetching's own making.
    if (!this.#stopped) {
      this.#options.logger.error({ jobId: this.#jobId, err: error }, `the inputs of ${this.#jobId} could not be prepared`);
    }
    const message = 'the inputs could not be prepared; the log of the service says why, under the id of this job';
    return { reason: 'INPUT_NOT_READABLE', message, retryable: true };
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
    this.#account.matched(matched.kind);
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

  // --- the run ------------------------------------------------------------------------------------------------------------------------------

  async #runOn(slot: string, worker: Worker): Promise<RunEnd | 'no_worker' | undefined> {
    if (this.#stopped) return undefined;
    this.#account.tookSlot();
    this.#lowMemory = this.#lease.job.error?.reason === OUT_OF_MEMORY;
    const job = await this.#lease.begin({ slot: `${this.#options.node}/${slot}`, engine: engineInfo(worker) });
    clearTimeout(this.#startTimer);
    this.#account.begun(job);
    if (this.#stopped) return undefined;
    if (worker.state !== IDLE) return 'no_worker';
    this.#run = this.#start(job, worker);
    const ended = this.#account.running(slot, job);
    const end = await this.#run.end;
    ended(end);
    if (end.kind === 'done') this.#host.onRan(end.seconds, this.#account.stepSeconds);
    return end;
  }

  #start({ jobId, attempt, request }: Job, worker: Worker): RunHandle {
    const { warnings: _, like: __, marking: ___, ...inputs } = this.#prepared!;
    const previews = request?.previews ?? false;
    return worker.run({
      run: {
        ...inputs,
        jobId,
        attempt,
        outputPath: this.#outputPath,
        workDir: scratchOf(this.#folder),
        previews,
        lowMemory: this.#lowMemory,
      },
      runTimeoutMs: request?.runTimeout ? durationMs(request.runTimeout) : this.#options.runTimeoutMs,
      onProgress: (progress) => this.#reporter.progress(progress),
      onPreview: (preview) => {
        if (previews) this.#reporter.preview(preview);
      },
      onLog: (level, message) => this.#reporter.log(level, message),
    });
  }

  // --- the ends -----------------------------------------------------------------------------------------------------------------------------

  /** The run is over and has a result. */
  async #endDone({ done }: RunEnd & { readonly kind: 'done' }, { like, marking }: Prepared): Promise<void> {
    this.#run = undefined;
    // A wish to give the job back comes too late.
    if (this.#stopped === 'given_back') {
      this.#stopped = undefined;
      this.#controller = new AbortController();
    }
    const pin: Lease['pin'] = (key, lasting) => this.#lease.pin(key, lasting);
    const warn = (warnings: readonly string[]) => this.#reporter.warn(warnings);
    // What its caller wants gone by then stays for nobody else.
    const keepMs = Math.min(like?.keepMs ?? 0, this.#retentionMs ?? Number.POSITIVE_INFINITY);
    const keep = like && { fingerprint: like.fingerprint, ttlMs: keepMs };
    await this.#endStoring({ keep, warnings: done.warnings }, (context) =>
      this.#options.storeResult(this.#outputPath, { ...context, done, pin, marking, warn }),
    );
  }

  /** A like job has made the result before. */
  async #endWith({ result, warnings }: Matched & { readonly kind: 'cached' }): Promise<void> {
    // No engine is waited for any more.
    clearTimeout(this.#startTimer);
    const { takeResult } = this.#options;
    if (takeResult && this.#lease.job.request?.outputUri !== undefined) {
      await this.#endStoring({ warnings }, (context) => takeResult(result, this.#outputPath, context));
    } else {
      await this.#ending.complete({ result, warnings, retentionMs: this.#retentionMs });
    }
  }

  /** Brings the result to where it is kept, and ends with what comes of that. */
  async #endStoring(
    ends: Pick<Parameters<Ending['complete']>[0], 'keep' | 'warnings'>,
    store: (context: Delivering) => Promise<MediaResult | Failure>,
  ): Promise<void> {
    this.#phase = 'storing';
    const result = this.#stopped ? undefined : await this.#account.storing(() => this.#storing(store));
    if (result === undefined) return this.#endStopped();
    if ('reason' in result) return this.#ending.fail(result);
    return this.#ending.complete({ ...ends, result, retentionMs: this.#retentionMs });
  }

  /** The output in the store, a failure to tell, or undefined: stopped meanwhile. */
  #storing(store: (context: Delivering) => Promise<MediaResult | Failure>): Promise<MediaResult | Failure | undefined> {
    const { job } = this.#lease;
    const { signal } = this.#controller;
    const since = performance.now();
    this.#reporter.enter(JobStep.STORING_RESULT);
    const context: Delivering = { job, signal, report: (sent, total) => this.#reporter.storing(sent, total) };
    const stored = { jobId: job.jobId, since, signal, deadline: this.#host.deadline };
    return this.#through(this.#host.storeLane, () => storePatiently(() => store(context), stored, this.#options));
  }

  get #retentionMs(): number | undefined {
    return this.#options.retentionMs?.(this.#lease.job);
  }

  async #endRun(end: Exclude<RunEnd, { kind: 'done' }>): Promise<void> {
    if (this.#stopped && !(this.#stopped === 'given_back' && end.kind === 'refused')) return this.#endStopped();
    switch (end.kind) {
      case 'failed': {
        const inVain = this.#lowMemory && end.failure.reason === OUT_OF_MEMORY;
        const failure = inVain ? { ...end.failure, retryable: false } : end.failure;
        return this.#ending.fail(failure, { killedWorker: end.killed, ofRun: true });
      }
      case 'refused':
        return this.#ending.refuse(end.failure);
      case 'canceled':
        // Not by this job's wish: its worker was closed.
        return this.#ending.giveBack(WaitReason.SLOT);
      case 'timed_out': {
        const message = 'the run took longer than its run_timeout';
        return this.#ending.fail({ reason: 'RUN_TIMEOUT', message, retryable: false }, { killedWorker: end.killed });
      }
      case 'stalled': {
        const message = 'the engine stopped getting on with this job and its worker was killed';
        return this.#ending.fail({ reason: 'WORKER_STALLED', message, retryable: true }, { killedWorker: true });
      }
      case 'crashed': {
        const message = `the worker ${end.exit} while it ran this job${lastWords(end.lastLines)}`;
        return this.#ending.fail({ reason: 'WORKER_CRASHED', message, retryable: true }, { killedWorker: true });
      }
    }
  }

  /** Nothing runs for the job any more: says so, in the way that it was stopped for. */
  async #endStopped(): Promise<void> {
    switch (this.#stopped) {
      case 'canceled':
        return this.#ending.canceled();
      case 'given_back':
        return this.#ending.giveBack(this.#wait);
      case 'too_late': {
        const message = 'the engine could not start on this job within its start_timeout';
        return this.#ending.fail({ reason: 'START_TIMEOUT', message, retryable: false });
      }
    }
    // Lost: another has it, and nothing can be written.
  }
}

function engineInfo({ ready }: Worker): EngineInfo | undefined {
  return ready && create(EngineInfoSchema, { name: ready.engine, version: ready.engineVersion });
}
