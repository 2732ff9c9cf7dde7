// Which job runs where: claims jobs, lets each stay (stay.ts), and gives slots to those that are ready. Owns its slots, their workers and the work
// folders.
//
// Always true:
// - One job at a time on a slot: each has a p-queue of concurrency 1, whose task ends only when the worker says `idle` or its process group is
//   dead. `signal` and `timeout` are never passed to `add()`: p-queue then frees the place while the function still runs.
// - A node holds at most as many jobs that have not begun as it offers slots, so at most one is claimed ahead for each busy slot; they keep the order in
//   which the store gave them, and the last one goes back when a better one comes or a slot is not offered any more.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import PQueue from 'p-queue';
import { type Slot, SlotSchema, WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Capabilities } from '../../gen/facefusion/worker/v1/worker_pb.js';
import { WaitReason } from '../jobs/job.ts';
import type { JobStore, Lease } from '../jobs/ports.ts';
import { type RemoveFolder, WorkFolders } from './folders.ts';
import { type Preference, Preferences, samePreference } from './preference.ts';
import type { Logger } from './process.ts';
import { type Host, Stay, type StayOptions } from './stay.ts';
import { isWarm, Worker, type WorkerOptions } from './worker.ts';

export interface SchedulerOptions extends Omit<StayOptions, 'cancelGraceMs' | 'now'> {
  readonly store: Pick<JobStore, 'claim'>;
  readonly slots: readonly SlotPlan[];
  readonly worker: WorkerOptions;
  /** Folder of this scheduler alone; what an earlier one left in it is removed. */
  readonly workRoot: string;
  /** For folders that are not this process's user's. */
  readonly removeFolder?: RemoveFolder | undefined;
  readonly prepareConcurrency?: number;
  readonly storeConcurrency?: number;
  /** From a cancel to SIGKILL. */
  readonly cancelGraceMs?: number;
  /** Milliseconds since 1970, the store's clock. */
  readonly now?: () => number;
  /** Whether a slot is to be given jobs now; told of changes by `reconsiderOffers`. Default: each is. What runs on one that is not offered any more goes on. */
  readonly isOffered?: (slot: string) => boolean;
  /** How busy a GPU is, 0..1, where its driver tells. */
  readonly gpuUtilization?: (gpu: number) => number | undefined;
}

export interface SlotPlan {
  readonly name: string;
  readonly gpu?: number | undefined;
  /** Environment variables of its worker alone. */
  readonly variables?: Readonly<Record<string, string>> | undefined;
}

/** What the engine of the slots is. */
export interface EngineFacts {
  readonly name: string;
  readonly version: string;
  /** Tells one set of model files from another; empty: the version does. */
  readonly models: string;
  readonly capabilities: Capabilities | undefined;
}

const { IDLE, BUSY, STOPPING } = WorkerState;
/** How long a job claimed ahead waits before something better is looked for. */
const LOOK_AHEAD_AFTER_MS = 20;
const CLAIM_RETRY_MS = 1_000;

interface SlotPlace {
  readonly name: string;
  readonly worker: Worker;
  readonly lane: PQueue;
}

/** The claim that waits in the store. */
interface Claiming {
  readonly controller: AbortController;
  readonly before: Stay | undefined;
  readonly preference: Preference | undefined;
}

export class Scheduler implements AsyncDisposable {
  /** The first worker is warm. Never rejects: workers are tried again for ever, and their slots say what is wrong. */
  readonly ready: Promise<void>;
  readonly #ready = Promise.withResolvers<void>();
  /** Settles if the engine of a slot says at its first start that it cannot run on this machine, with its sentence. Never rejects. */
  readonly unfit: Promise<string>;
  readonly #unfit = Promise.withResolvers<string>();
  readonly #options: SchedulerOptions;
  readonly #logger: Logger;
  readonly #stayOptions: StayOptions;
  readonly #host: Host;
  readonly #slots: SlotPlace[] = [];
  readonly #prepareLane: PQueue;
  readonly #storeLane: PQueue;
  readonly #stays = new Map<Stay, Promise<void>>();
  /** Not begun, in the order of service. */
  #held: Stay[] = [];
  readonly #listeners = new Set<() => void>();
  readonly #claims: Promise<void>;
  readonly #preferences = new Preferences();
  #claiming: Claiming | undefined;
  #wake: (() => void) | undefined;
  #claimAfter = 0;
  #draining = false;
  #drained: Promise<void> | undefined;
  #drainBy = Number.POSITIVE_INFINITY;
  #drainTimer: NodeJS.Timeout | undefined;

  /** Empties the work folder, starts the workers and claims as soon as one is warm. */
  static async open(options: SchedulerOptions): Promise<Scheduler> {
    // One job runs on a slot, one waits for it, and one or two are being stored; short ones come back several at once, after a pause of the disk.
    // A folder that was made the engine's is not another job's again.
    const spare = options.handOver ? 0 : 8 + 8 * options.slots.length;
    return new Scheduler(options, await WorkFolders.open(options.workRoot, spare, options.removeFolder));
  }

  private constructor(options: SchedulerOptions, folders: WorkFolders) {
    this.#options = options;
    this.#logger = options.logger;
    this.#stayOptions = { ...options, cancelGraceMs: options.cancelGraceMs ?? 5_000, now: options.now ?? Date.now };
    this.ready = this.#ready.promise;
    this.unfit = this.#unfit.promise;
    this.#prepareLane = new PQueue({ concurrency: options.prepareConcurrency ?? Math.max(2, options.slots.length) });
    this.#storeLane = new PQueue({ concurrency: options.storeConcurrency ?? Math.max(4, 2 * options.slots.length) });
    this.#storeLane.addEventListener('next', () => this.#dispatch());
    for (const { name, gpu, variables } of options.slots) {
      const onUnfit = (sentence: string) => this.#unfit.resolve(sentence);
      const place = { slot: name, gpu, variables, logger: this.#logger, onChange: () => this.#onWorkerChange(), onUnfit };
      const lane = new PQueue({ concurrency: 1 });
      lane.addEventListener('next', () => this.#dispatch());
      this.#slots.push({ name, worker: new Worker({ cancelGraceMs: this.#stayOptions.cancelGraceMs, ...options.worker }, place), lane });
    }
    this.#host = {
      prepareLane: this.#prepareLane,
      storeLane: this.#storeLane,
      folders,
      deadline: () => this.#drainBy,
      onWaiting: () => this.#dispatch(),
      onLeave: (stay) => this.#letGo(stay),
      onRan: (seconds, stepSeconds) => this.#preferences.learn(seconds, stepSeconds),
      onTrouble: () => {
        this.#claimAfter = performance.now() + CLAIM_RETRY_MS;
      },
    };
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
        gpuUtilization: worker.gpu === undefined ? undefined : this.#options.gpuUtilization?.(worker.gpu),
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
        upSince: facts.upSinceMs === undefined ? undefined : timestampFromMs(facts.upSinceMs),
        nextStartAt: facts.nextStartMs === undefined ? undefined : timestampFromMs(facts.nextStartMs),
        problem: facts.problem,
      });
    });
  }

  /** Whether one of its workers is. */
  get isWarm(): boolean {
    return this.#slots.some(({ worker: { state } }) => isWarm(state));
  }

  /** From the first slot whose worker has been warm; undefined before. */
  capabilities(): EngineFacts | undefined {
    const ready = this.#slots.find(({ worker }) => worker.ready)?.worker.ready;
    return ready && { name: ready.engine, version: ready.engineVersion, models: ready.modelDigest, capabilities: ready.capabilities };
  }

  /** `isOffered` answers otherwise now: jobs that were claimed for what is not offered any more go back with no attempt spent. */
  reconsiderOffers(): void {
    while (this.#held.length > this.#capacity) this.#held.at(-1)!.stop('given_back');
    this.#dispatch();
    this.#reconsider();
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
    for (const stay of [...this.#held]) stay.stop('given_back');
    const steps: (() => Promise<unknown>)[] = [
      () => this.#claims,
      () => Promise.all(this.#stays.values()),
      () => Promise.all(this.#slots.map(({ lane }) => lane.onIdle())),
      () => Promise.all(this.#slots.map(({ worker }) => worker.close())),
      () => this.#host.folders.close(),
    ];
    for (const step of steps) {
      await step().catch((error) => this.#logger.error({ err: error }, 'a step of the drain failed; the rest goes on'));
    }
    clearTimeout(this.#drainTimer);
  }

  #stopAll(): void {
    for (const stay of this.#stays.keys()) stay.stop('given_back');
  }

  #onWorkerChange(): void {
    if (this.#slots.some(({ worker }) => worker.ready)) this.#ready.resolve();
    this.#dispatch();
    // Jobs are not kept waiting for a node that cannot run any.
    if (this.#capacity === 0) {
      for (const stay of [...this.#held]) stay.stop('given_back', WaitReason.MODEL_LOADING);
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

  get #offered(): readonly SlotPlace[] {
    const { isOffered } = this.#options;
    return isOffered ? this.#slots.filter(({ name }) => isOffered(name)) : this.#slots;
  }

  /** Slots worth claiming for. */
  get #capacity(): number {
    return this.#offered.reduce((up, { worker }) => up + (worker.up ? 1 : 0), 0);
  }

  /** What the next claim is for: any job, one that comes before `before`, or nothing at all. */
  #want(): { readonly before: Stay | undefined } | undefined {
    const capacity = this.#capacity;
    if (this.#draining || capacity === 0) return undefined;
    if (this.#held.length < capacity) return { before: undefined };
    const ahead = this.#offered.some(({ worker }) => worker.state === BUSY || worker.state === STOPPING);
    const last = this.#held.at(-1);
    return ahead && last && this.#held.length === capacity ? { before: last } : undefined;
  }

  get #preference(): Preference | undefined {
    return this.#preferences.of(this.#offered.map(({ worker }) => worker));
  }

  /** Something that a claim depends on has changed. */
  #reconsider(): void {
    this.#wake?.();
    if (!this.#claiming) return;
    const want = this.#want();
    const { before, preference, controller } = this.#claiming;
    if (!want || want.before !== before || !samePreference(this.#preference, preference)) controller.abort();
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
      const preference = this.#preference;
      this.#claiming = { controller, before: want.before, preference };
      try {
        const lease = await this.#options.store.claim(
          { node: this.#options.node, above: want.before?.rank, ...preference },
          controller.signal,
        );
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
    const stay = new Stay(lease, this.#stayOptions, this.#host);
    if (this.#draining) stay.stop('given_back');
    // Only the store can compare ranks. It said that this one comes before `before`, which was the last; among the others its place is a guess.
    const at = before ? this.#held.indexOf(before) : -1;
    if (at === -1) this.#held.push(stay);
    else this.#held.splice(at, 0, stay);
    this.#stays.set(
      stay,
      stay.attend().finally(() => this.#stays.delete(stay)),
    );
    // A better one has come, or there are fewer slots than when it was asked for.
    if (this.#held.length > this.#capacity) this.#held.at(-1)!.stop('given_back');
  }

  #letGo(stay: Stay): void {
    const at = this.#held.indexOf(stay);
    if (at === -1) return;
    this.#held.splice(at, 1);
    this.#reconsider();
  }

  /** Prepared jobs to free slots, best first. */
  #dispatch(): void {
    // Where results pile up because storing them is slow, running more jobs would only fill the disk.
    if (this.#storeLane.size > this.#slots.length) return;
    for (const slot of this.#offered) {
      if (slot.worker.state !== IDLE || slot.lane.pending > 0 || slot.lane.size > 0) continue;
      const stay = this.#held.find(({ isWaiting }) => isWaiting);
      if (!stay) return;
      void slot.lane.add(stay.granted(slot.name, slot.worker));
      this.#letGo(stay);
    }
  }
}
