// Which job runs where: claims, prepares, gives a slot, runs, stores, ends. Owns its slots, their workers and the work folders.
//
// Always true:
// - One job at a time on a slot: each has a p-queue of concurrency 1, whose task ends only when the worker says `idle` or its process group is
//   dead. `signal` and `timeout` are never passed to `add()`: p-queue then frees the place while the function still runs.
// - A node holds at most as many jobs that have not begun as it has slots, so at most one is claimed ahead for each busy slot; they keep the order in
//   which the store gave them, and the last one goes back when a better one comes.
// - A lease ends by exactly one terminal step, made when nothing runs for the job any more; if that cannot be made, it is disposed, which gives the job back.
import { mkdirSync, rmdirSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationMs, type Timestamp, timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import PQueue from 'p-queue';
import { type EngineInfo, EngineInfoSchema, JobStep, type Timings, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type Slot, SlotSchema, WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Capabilities, Done, RunSchema } from '../../gen/facefusion/worker/v1/worker_pb.js';
import { JobsError } from '../jobs/errors.ts';
import { type Failure, type Job, type MediaResult, WaitReason } from '../jobs/job.ts';
import { type JobStore, type Lease, LeaseEnded } from '../jobs/ports.ts';
import { type Logger, lastWords } from './process.ts';
import { Reporter } from './report.ts';
import { type RunEnd, type RunHandle, Worker, type WorkerOptions } from './worker.ts';

/** What a job needs on this machine, as local files. */
export type Prepared = Pick<
  MessageInitShape<typeof RunSchema>,
  'sourcePaths' | 'sourceAudioPath' | 'targetPath' | 'targetKind' | 'outputFormat' | 'parameters'
> & { readonly warnings?: readonly string[] };

export interface SchedulerOptions {
  readonly node: string;
  readonly store: Pick<JobStore, 'claim'>;
  readonly slots: readonly { readonly name: string; readonly gpu?: number }[];
  readonly worker: WorkerOptions;
  /** Folder of this scheduler alone; what an earlier one left in it is removed. */
  readonly workRoot: string;
  /**
   * Brings the job's inputs into `folder`, or as far as they are local says where they are. A failure that the caller should read is returned
   * or thrown as `JobsError`. Ends soon after `signal` aborts, and leaves nothing running. `report` is for bytes that have to come from elsewhere.
   */
  readonly prepare: (
    job: Job,
    folder: string,
    signal: AbortSignal,
    report: (done: number, total: number) => void,
  ) => Promise<Prepared | Failure>;
  /** Stores the engine's output for good. Tried again when it throws. Ends soon after `signal` aborts. */
  readonly storeResult: (outputPath: string, context: { job: Job; done: Done; signal: AbortSignal }) => Promise<MediaResult>;
  readonly prepareConcurrency?: number;
  readonly storeConcurrency?: number;
  /** Before the second try to store a result; four times that before the third and last. */
  readonly storeRetryMs?: number;
  /** Engine time where the request names none. */
  readonly runTimeoutMs?: number;
  /** From a cancel to SIGKILL. */
  readonly cancelGraceMs?: number;
  /** Milliseconds since 1970, the store's clock. */
  readonly now?: () => number;
  readonly logger: Logger;
}

/** What the engine of the slots is. */
export interface EngineFacts {
  readonly name: string;
  readonly version: string;
  readonly capabilities: Capabilities | undefined;
}

const { IDLE, BUSY, STOPPING } = WorkerState;
const STORE_TRIES = 3;
const WRITE_TRIES = 5;
/** A job that another node may already have is stopped with little ceremony. */
const LOST_GRACE_MS = 500;
/** How long a job claimed ahead waits before something better is looked for. */
const LOOK_AHEAD_AFTER_MS = 20;
const CLAIM_RETRY_MS = 1_000;

interface SlotPlace {
  readonly name: string;
  readonly worker: Worker;
  readonly lane: PQueue;
}

/** Why a job's way through the node ends before its time. */
type Stop = 'canceled' | 'lost' | 'given_back' | 'too_late';

/** One claimed job's stay on this node. */
class Stay {
  readonly lease: Lease;
  readonly reporter: Reporter;
  readonly folder: string;
  controller = new AbortController();
  /** How the slot's task ended; undefined: nothing ran. */
  readonly turn = Promise.withResolvers<RunEnd | 'no_worker' | undefined>();
  readonly timings: Partial<Record<'queuedSeconds' | 'prepareSeconds' | 'runSeconds' | 'storeSeconds' | 'gpuSeconds', number>> = {};
  stepSeconds: Record<string, number> = {};
  phase: 'preparing' | 'waiting' | 'on_slot' | 'storing' | 'over' = 'preparing';
  prepared: Prepared | undefined;
  stopped: Stop | undefined;
  wait: WaitReason = WaitReason.SLOT;
  run: RunHandle | undefined;
  startTimer: NodeJS.Timeout | undefined;
  #leaveLane: (() => void) | undefined;
  readonly #cancelGraceMs: number;

  constructor(lease: Lease, reporter: Reporter, folder: string, cancelGraceMs: number) {
    this.lease = lease;
    this.reporter = reporter;
    this.folder = folder;
    this.#cancelGraceMs = cancelGraceMs;
  }

  get jobId(): string {
    return this.lease.job.jobId;
  }

  /** The first reason stays, but nothing is written for a lost lease whatever was asked before. */
  stop(reason: Stop): void {
    // A result that is being stored is kept: only its caller or the loss of the lease may throw it away.
    if (this.phase === 'over' || (reason === 'given_back' && this.phase === 'storing')) return;
    this.stopped = reason === 'lost' ? reason : (this.stopped ?? reason);
    this.controller.abort();
    // On a slot the task ends by itself, when the worker has.
    if (this.phase === 'waiting') this.turn.resolve(undefined);
    this.run?.stop(reason === 'lost' ? LOST_GRACE_MS : this.#cancelGraceMs);
    this.#leaveLane?.();
  }

  /** The run is over and has a result: a wish to give the job back comes too late. */
  enterStoring(): void {
    this.phase = 'storing';
    this.run = undefined;
    if (this.stopped === 'given_back') {
      this.stopped = undefined;
      this.controller = new AbortController();
    }
  }

  /** Runs `work` in the lane. Stopped before its turn: undefined at once, and the lane passes over it. */
  through<T>(lane: PQueue, work: () => Promise<T>): Promise<T | undefined> {
    if (this.stopped) return Promise.resolve(undefined);
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
}

export class Scheduler implements AsyncDisposable {
  /** The first worker is warm. Never rejects: workers are tried again for ever, and their slots say what is wrong. */
  readonly ready: Promise<void>;
  readonly #ready = Promise.withResolvers<void>();
  readonly #options: SchedulerOptions;
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #cancelGraceMs: number;
  readonly #slots: SlotPlace[] = [];
  readonly #prepareLane: PQueue;
  readonly #storeLane: PQueue;
  readonly #stays = new Map<Stay, Promise<void>>();
  /** Not begun, in the order of service. */
  #held: Stay[] = [];
  readonly #listeners = new Set<() => void>();
  readonly #claims: Promise<void>;
  #claiming: { readonly controller: AbortController; readonly before: Stay | undefined } | undefined;
  #wake: (() => void) | undefined;
  #claimAfter = 0;
  #serial = 0;
  #draining = false;
  #drained: Promise<void> | undefined;
  #drainBy = Number.POSITIVE_INFINITY;
  #drainTimer: NodeJS.Timeout | undefined;

  /** Empties the work folder, starts the workers and claims as soon as one is warm. */
  static async open(options: SchedulerOptions): Promise<Scheduler> {
    await mkdir(options.workRoot, { recursive: true });
    for (const name of await readdir(options.workRoot)) {
      if (FOLDER_NAME.test(name)) await rm(join(options.workRoot, name), { recursive: true, force: true });
    }
    return new Scheduler(options);
  }

  private constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#logger = options.logger;
    this.#now = options.now ?? Date.now;
    this.#cancelGraceMs = options.cancelGraceMs ?? 5_000;
    this.ready = this.#ready.promise;
    this.#prepareLane = new PQueue({ concurrency: options.prepareConcurrency ?? Math.max(2, options.slots.length) });
    this.#storeLane = new PQueue({ concurrency: options.storeConcurrency ?? Math.max(4, 2 * options.slots.length) });
    this.#storeLane.addEventListener('next', () => this.#dispatch());
    for (const { name, gpu } of options.slots) {
      const place = { slot: name, gpu, logger: this.#logger, onChange: () => this.#onWorkerChange() };
      const lane = new PQueue({ concurrency: 1 });
      lane.addEventListener('next', () => this.#dispatch());
      this.#slots.push({ name, worker: new Worker({ cancelGraceMs: this.#cancelGraceMs, ...options.worker }, place), lane });
    }
    this.#claims = this.#claimAll();
  }

  /** As of now, for ListSlots. */
  slots(): Slot[] {
    return this.#slots.map(({ name, worker }) => {
      const facts = worker.facts;
      return create(SlotSchema, {
        slot: name,
        node: this.#options.node,
        gpu: worker.gpu,
        state: worker.state,
        engine: worker.ready && { name: worker.ready.engine, version: worker.ready.engineVersion },
        warmModels: [...facts.warmModels],
        jobId: facts.jobId,
        draining: this.#draining,
        jobsDone: facts.jobsDone,
        restarts: facts.restarts,
        pid: facts.pid,
        memoryBytes: facts.rssBytes > 0 ? BigInt(Math.round(facts.rssBytes)) : undefined,
        since: timestampFromMs(facts.sinceMs),
        problem: facts.problem,
      });
    });
  }

  /** From the first slot whose worker has been warm; undefined before. */
  capabilities(): EngineFacts | undefined {
    const ready = this.#slots.find(({ worker }) => worker.ready)?.worker.ready;
    return ready && { name: ready.engine, version: ready.engineVersion, capabilities: ready.capabilities };
  }

  /** Calls `listener` after each change that `slots` shows; answers how to stop that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Claims no more, gives back what has not begun, lets runs finish for `deadlineMs` and then stops them and gives their jobs back with no attempt
   * spent, stores results, ends the workers. Called again with less time: sooner. Never rejects.
   */
  drain(deadlineMs: number): Promise<void> {
    const by = performance.now() + deadlineMs;
    if (by < this.#drainBy) {
      this.#drainBy = by;
      clearTimeout(this.#drainTimer);
      this.#drainTimer = setTimeout(() => this.#stopAll(), Math.min(Math.max(0, deadlineMs), 2 ** 31 - 1));
    }
    this.#drained ??= this.#drain();
    return this.#drained;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain(0);
  }

  async #drain(): Promise<void> {
    this.#draining = true;
    this.#reconsider();
    for (const stay of [...this.#held]) this.#stop(stay, 'given_back');
    const steps: (() => Promise<unknown>)[] = [
      () => this.#claims,
      () => Promise.all(this.#stays.values()),
      () => Promise.all(this.#slots.map(({ lane }) => lane.onIdle())),
      () => Promise.all(this.#slots.map(({ worker }) => worker.close())),
    ];
    for (const step of steps) {
      await step().catch((error) => this.#logger.error({ err: error }, 'a step of the drain failed; the rest goes on'));
    }
    clearTimeout(this.#drainTimer);
  }

  #stopAll(): void {
    for (const stay of this.#stays.keys()) this.#stop(stay, 'given_back');
  }

  #onWorkerChange(): void {
    if (this.#slots.some(({ worker }) => worker.ready)) this.#ready.resolve();
    this.#dispatch();
    // Jobs are not kept waiting for a node that cannot run any.
    if (this.#capacity === 0) {
      for (const stay of [...this.#held]) {
        stay.wait = WaitReason.MODEL_LOADING;
        this.#stop(stay, 'given_back');
      }
    }
    this.#reconsider();
    for (const listener of this.#listeners) {
      try {
        listener();
      } catch (error) {
        this.#logger.error({ err: error }, 'a listener to the slots failed');
      }
    }
  }

  // --- claiming ---------------------------------------------------------------------------------------------------------------------------

  /** Slots worth claiming for. */
  get #capacity(): number {
    return this.#slots.reduce((up, { worker }) => up + (worker.up ? 1 : 0), 0);
  }

  /** What the next claim is for: any job, one that comes before `before`, or nothing at all. */
  #want(): { readonly before: Stay | undefined } | undefined {
    const capacity = this.#capacity;
    if (this.#draining || capacity === 0) return undefined;
    if (this.#held.length < capacity) return { before: undefined };
    const ahead = this.#slots.some(({ worker }) => worker.state === BUSY || worker.state === STOPPING);
    const last = this.#held.at(-1);
    return ahead && last && this.#held.length === capacity ? { before: last } : undefined;
  }

  /** Something that a claim depends on has changed. */
  #reconsider(): void {
    this.#wake?.();
    if (!this.#claiming) return;
    const want = this.#want();
    if (!want || want.before !== this.#claiming.before) this.#claiming.controller.abort();
  }

  /** Until something changes, or `ms` at most. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === Number.POSITIVE_INFINITY ? undefined : setTimeout(() => this.#wake?.(), ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  async #claimAll(): Promise<void> {
    while (!this.#draining) {
      const early = this.#claimAfter - performance.now();
      const want = this.#want();
      if (!want || early > 0) {
        await this.#pause(want ? early : Number.POSITIVE_INFINITY);
        continue;
      }
      if (want.before && !(await this.#stillWants(want.before))) continue;
      const controller = new AbortController();
      this.#claiming = { controller, before: want.before };
      try {
        const lease = await this.#options.store.claim({ node: this.#options.node, above: want.before?.lease.rank }, controller.signal);
        this.#claiming = undefined;
        if (lease) this.#take(lease, want.before);
        // Nothing though we had not stopped asking: the store is closing.
        else if (!controller.signal.aborted) this.#claimAfter = performance.now() + CLAIM_RETRY_MS;
      } catch (error) {
        this.#claiming = undefined;
        this.#logger.error({ err: error }, 'no job could be claimed; trying again');
        this.#claimAfter = performance.now() + CLAIM_RETRY_MS;
      }
    }
  }

  /** A quick queue passes by without being asked for something better. */
  async #stillWants(before: Stay): Promise<boolean> {
    const askAt = performance.now() + LOOK_AHEAD_AFTER_MS;
    for (let left = LOOK_AHEAD_AFTER_MS; left > 0; left = askAt - performance.now()) {
      await this.#pause(left);
      if (this.#want()?.before !== before) return false;
    }
    return true;
  }

  #take(lease: Lease, before: Stay | undefined): void {
    const { jobId, attempt } = lease.job;
    const folder = join(this.#options.workRoot, `${jobId}.${attempt + 1}.${++this.#serial}`);
    const stay = new Stay(lease, new Reporter(lease, this.#logger, this.#now), folder, this.#cancelGraceMs);
    if (this.#draining) stay.stop('given_back');
    // Only the store can compare ranks. It said that this one comes before `before`, which was the last; among the others its place is a guess.
    const at = before ? this.#held.indexOf(before) : -1;
    if (at === -1) this.#held.push(stay);
    else this.#held.splice(at, 0, stay);
    this.#stays.set(stay, this.#attend(stay));
    const last = this.#held.at(-1);
    if (before && last && this.#held.length > this.#capacity) this.#stop(last, 'given_back');
  }

  #letGo(stay: Stay): void {
    const at = this.#held.indexOf(stay);
    if (at === -1) return;
    this.#held.splice(at, 1);
    this.#reconsider();
  }

  #stop(stay: Stay, reason: Stop): void {
    stay.stop(reason);
    this.#letGo(stay);
  }

  // --- one job ----------------------------------------------------------------------------------------------------------------------------

  /** From claim to the end of the lease. Never rejects. */
  async #attend(stay: Stay): Promise<void> {
    const { lease, jobId } = stay;
    const onLeaseEnd = () => {
      const reason = lease.signal.reason;
      this.#stop(stay, reason instanceof LeaseEnded && reason.end === 'cancel_requested' ? 'canceled' : 'lost');
    };
    try {
      if (lease.signal.aborted) onLeaseEnd();
      else lease.signal.addEventListener('abort', onLeaseEnd, { once: true });
      this.#watchStart(stay);
      await this.#carryOut(stay);
    } catch (error) {
      if (!isLeaseLost(error)) {
        this.#logger.error({ jobId, err: error }, `${jobId} could not be carried through on this node and is given back`);
        this.#claimAfter = performance.now() + CLAIM_RETRY_MS;
      }
    } finally {
      stay.phase = 'over';
      lease.signal.removeEventListener('abort', onLeaseEnd);
      clearTimeout(stay.startTimer);
      stay.reporter.close();
      this.#letGo(stay);
      await this.#tidy(stay);
      this.#stays.delete(stay);
    }
  }

  async #tidy({ jobId, lease, folder }: Stay): Promise<void> {
    try {
      await lease[Symbol.asyncDispose]();
    } catch (error) {
      this.#logger.error({ jobId, err: error }, `the lease on ${jobId} could not be let go`);
    }
    try {
      if (!removeEmpty(folder)) await rm(folder, { recursive: true, force: true });
    } catch (error) {
      this.#logger.error({ jobId, err: error }, `the work folder of ${jobId} could not be removed`);
    }
  }

  async #carryOut(stay: Stay): Promise<void> {
    const prepared = await stay.through(this.#prepareLane, () => this.#prepare(stay));
    if (prepared === undefined || stay.stopped) return this.#endStopped(stay);
    if ('reason' in prepared) return this.#fail(stay, prepared, false);
    stay.reporter.warn(prepared.warnings ?? []);

    stay.prepared = prepared;
    stay.phase = 'waiting';
    this.#dispatch();
    const end = await stay.turn.promise;
    if (end === undefined) return this.#endStopped(stay);
    // The worker went away between the grant and the run: nobody's fault.
    if (end === 'no_worker') return this.#giveBack(stay, WaitReason.MODEL_LOADING);
    if (end.kind !== 'done') return this.#endRun(stay, end);

    stay.enterStoring();
    const result = await this.#store(stay, end.done);
    if (result === undefined) return this.#endStopped(stay);
    if ('reason' in result) return this.#fail(stay, result, false);
    const done = { result, warnings: end.done.warnings, timings: this.#timings(stay) };
    await this.#conclude(stay, () => stay.lease.complete(done));
  }

  /** The job fails when the engine does not run by its start deadline. */
  #watchStart(stay: Stay): void {
    const deadline = stay.lease.startDeadlineMs;
    if (deadline === undefined || stay.phase === 'over') return;
    const left = deadline - this.#now();
    stay.startTimer = setTimeout(
      () => (deadline - this.#now() > 0 ? this.#watchStart(stay) : this.#stop(stay, 'too_late')),
      Math.min(Math.max(0, left), 2 ** 31 - 1),
    );
  }

  async #prepare(stay: Stay): Promise<Prepared | Failure> {
    const started = performance.now();
    try {
      mkdirSync(join(stay.folder, 'tmp'), { recursive: true });
      return await this.#options.prepare(stay.lease.job, stay.folder, stay.controller.signal, (done, total) =>
        stay.reporter.fetching(done, total),
      );
    } catch (error) {
      if (error instanceof JobsError) {
        const reason = error.kind === 'not_found' ? 'INPUT_NOT_FOUND' : 'INPUT_NOT_READABLE';
        return { reason, message: error.message, retryable: error.kind === 'unavailable' || error.kind === 'exhausted' };
      }
      // An abort ends in an error of the fetching's own making.
      if (!stay.stopped) this.#logger.error({ jobId: stay.jobId, err: error }, `the inputs of ${stay.jobId} could not be prepared`);
      const message = 'the inputs could not be prepared; the log of the service says why, under the id of this job';
      return { reason: 'INPUT_NOT_READABLE', message, retryable: true };
    } finally {
      stay.reporter.fetched();
      stay.timings.prepareSeconds = (performance.now() - started) / 1000;
    }
  }

  /** Prepared jobs to free slots, best first. */
  #dispatch(): void {
    // Where results pile up because storing them is slow, running more jobs would only fill the disk.
    if (this.#storeLane.size > this.#slots.length) return;
    for (const slot of this.#slots) {
      if (slot.worker.state !== IDLE || slot.lane.pending > 0 || slot.lane.size > 0) continue;
      const stay = this.#held.find(({ phase }) => phase === 'waiting');
      if (!stay) return;
      stay.phase = 'on_slot';
      void slot.lane.add(() => this.#runOn(slot, stay).then(stay.turn.resolve, stay.turn.reject));
      this.#letGo(stay);
    }
  }

  /** The slot's task: settles only when the slot is free again. */
  async #runOn(slot: SlotPlace, stay: Stay): Promise<RunEnd | 'no_worker' | undefined> {
    const { lease, reporter, timings } = stay;
    if (stay.stopped) return undefined;
    const taken = performance.now();
    const job = await lease.begin({ slot: slot.name, engine: engineInfo(slot.worker) });
    clearTimeout(stay.startTimer);
    timings.queuedSeconds = secondsBetween(job.createdAt, job.updatedAt);
    if (stay.stopped) return undefined;
    if (slot.worker.state !== IDLE) return 'no_worker';

    const { warnings: _, ...inputs } = stay.prepared!;
    const { request } = job;
    stay.run = slot.worker.run({
      run: {
        ...inputs,
        jobId: job.jobId,
        attempt: job.attempt,
        outputPath: this.#outputPath(stay),
        workDir: join(stay.folder, 'tmp'),
        previews: request?.previews ?? false,
      },
      runTimeoutMs: request?.runTimeout ? durationMs(request.runTimeout) : this.#options.runTimeoutMs,
      onProgress: (progress) => reporter.progress(progress),
      onPreview: (preview) => {
        if (request?.previews) reporter.preview(preview);
      },
      onLog: (level, message) => reporter.log(level, message),
    });
    const end = await stay.run.end;
    timings.runSeconds = end.seconds;
    timings.gpuSeconds = (job.timings?.gpuSeconds ?? 0) + (performance.now() - taken) / 1000;
    if (end.kind === 'done') stay.stepSeconds = finiteOf(end.done.stepSeconds);
    return end;
  }

  /** The output in the store, a failure to tell, or undefined: stopped meanwhile. */
  async #store(stay: Stay, done: Done): Promise<MediaResult | Failure | undefined> {
    if (stay.stopped) return undefined;
    const started = performance.now();
    const { signal } = stay.controller;
    stay.reporter.enter(JobStep.STORING_RESULT);
    const stored = await stay.through<MediaResult | Failure | undefined>(this.#storeLane, async () => {
      for (let tried = 1; ; tried++) {
        try {
          return await this.#options.storeResult(this.#outputPath(stay), { job: stay.lease.job, done, signal });
        } catch (error) {
          if (stay.stopped) return undefined;
          const last = tried === STORE_TRIES;
          this.#logger[last ? 'error' : 'warn'](
            { jobId: stay.jobId, err: error, tried },
            `the result of ${stay.jobId} could not be stored`,
          );
          const why = error instanceof JobsError ? error.message : 'the log of the service says why, under the id of this job';
          if (last) return { reason: 'RESULT_NOT_STORED', message: `the result could not be stored: ${why}`, retryable: true };
          await delay((this.#options.storeRetryMs ?? 500) * 4 ** (tried - 1), undefined, { signal }).catch(() => {});
          if (stay.stopped) return undefined;
        }
      }
    });
    stay.timings.storeSeconds = (performance.now() - started) / 1000;
    return stored;
  }

  #outputPath(stay: Stay): string {
    return join(stay.folder, `output.${stay.prepared?.outputFormat}`);
  }

  // --- the ends ---------------------------------------------------------------------------------------------------------------------------

  async #endRun(stay: Stay, end: Exclude<RunEnd, { kind: 'done' }>): Promise<void> {
    if (stay.stopped && !(stay.stopped === 'given_back' && end.kind === 'refused')) return this.#endStopped(stay);
    switch (end.kind) {
      case 'failed':
        return this.#fail(stay, end.failure, end.killed);
      case 'refused':
        return this.#conclude(stay, () => stay.lease.refuse(end.failure, this.#timings(stay)));
      case 'canceled':
        // Not by this job's wish: its worker was closed.
        return this.#giveBack(stay, WaitReason.SLOT);
      case 'timed_out':
        return this.#fail(
          stay,
          { reason: 'RUN_TIMEOUT', message: 'the run took longer than its run_timeout', retryable: false },
          end.killed,
        );
      case 'stalled': {
        const message = 'the engine stopped getting on with this job and its worker was killed';
        return this.#fail(stay, { reason: 'WORKER_STALLED', message, retryable: true }, true);
      }
      case 'crashed': {
        const message = `the worker ${end.exit} while it ran this job${lastWords(end.lastLines)}`;
        return this.#fail(stay, { reason: 'WORKER_CRASHED', message, retryable: true }, true);
      }
    }
  }

  /** Nothing runs for the job any more: says so, in the way that it was stopped for. */
  async #endStopped(stay: Stay): Promise<void> {
    switch (stay.stopped) {
      case 'canceled':
        return this.#conclude(stay, () => stay.lease.canceled(this.#timings(stay)));
      case 'given_back':
        return this.#giveBack(stay, stay.wait);
      case 'too_late': {
        const message = 'the engine could not start on this job within its start_timeout';
        return this.#fail(stay, { reason: 'START_TIMEOUT', message, retryable: false }, false);
      }
    }
    // Lost: another has it, and nothing can be written.
  }

  #fail(stay: Stay, failure: Failure, killedWorker: boolean): Promise<void> {
    return this.#conclude(stay, () => stay.lease.fail({ ...failure, killedWorker, timings: this.#timings(stay) }));
  }

  #giveBack(stay: Stay, wait: WaitReason): Promise<void> {
    return this.#conclude(stay, () => stay.lease.giveBack(wait));
  }

  /** The one terminal step, after everything that was said; tried for a while where the store does not answer. */
  async #conclude(stay: Stay, write: () => Promise<Job>): Promise<void> {
    stay.reporter.finish();
    for (let tried = 1; ; tried++) {
      try {
        await write();
        return;
      } catch (error) {
        if (isLeaseLost(error) || tried === WRITE_TRIES || stay.stopped === 'lost') throw error;
        this.#logger.warn({ jobId: stay.jobId, err: error, tried }, `the end of ${stay.jobId} could not be written; trying again`);
        await delay(50 * 3 ** tried);
      }
    }
  }

  #timings(stay: Stay): Timings {
    return create(TimingsSchema, { ...stay.timings, stepSeconds: stay.stepSeconds });
  }
}

/** job, attempt, serial number: unique, so no engine's cache by path takes one job's file for another's. */
const FOLDER_NAME = /^job_[a-z0-9_]+\.\d+\.\d+$/;

/** Where engine and store have taken their files away, two empty folders are left: done here, for a thread's turn costs ten times as much. */
function removeEmpty(folder: string): boolean {
  try {
    rmdirSync(join(folder, 'tmp'));
    rmdirSync(folder);
    return true;
  } catch {
    return false;
  }
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
