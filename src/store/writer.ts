// The one writer of the store's database. Always true here: steps run one after another inside a group's transaction; nothing that a step did is
// seen before COMMIT has returned; what is promised to last (a durable step's answer) or shown to the world (`told`) is so only when it is on the
// disk, in the order of the commits; and after a failed sync nothing is promised any more, because nobody knows what the disk has.
import type { DatabaseSync } from 'node:sqlite';
import { JobsError } from '../jobs/errors.ts';
import { fromSqlite } from './sqlite.ts';

interface Step {
  readonly durable: boolean;
  readonly run: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  outcome?: { readonly value: unknown } | { readonly refusal: JobsError };
}

/** What has been committed and waits for the disk. */
interface Unsynced {
  readonly steps: Step[];
  readonly tales: Tale[];
  readonly readers: Pick<Step, 'resolve' | 'reject'>[];
}

interface Tale {
  readonly of: string;
  readonly tell: () => void;
}

export interface WriterOptions {
  /** Brings all that is committed to the disk. */
  readonly sync: () => Promise<void>;
  /** Run before each group with a durable step; throws where it could not be kept. */
  readonly beforeDurable?: () => void;
  /** Work that follows from the steps of a group and belongs into its transaction; run last. Absent work costs nothing. */
  readonly followUp?: { readonly due: () => boolean; readonly run: () => void; readonly failed: (error: unknown) => void };
  /** Run just before each COMMIT, for figures that are written once a group. */
  readonly beforeCommit?: () => void;
  /** Run after each group, whether it committed or not. */
  readonly afterGroup?: () => void;
  /** Run when there may be news for readers. */
  readonly afterTold?: () => void;
  /** The disk has failed: every step is refused with this from now on. */
  readonly onBroken?: (error: JobsError) => void;
  /** Told of what must not happen: an effect after COMMIT or a ROLLBACK that threw. */
  readonly onDefect?: (error: unknown) => void;
}

/**
 * Runs steps in groups. All that were asked for in one turn of the event loop share a transaction, so a lone step waits for nobody. While the disk
 * is busy with a sync, durable steps wait for it together, then share a transaction and the next sync: a flood costs one at a time. A step refuses
 * by throwing `JobsError` before its first write. Any other error takes the group back and runs its steps one by one, so that it hurts only its own.
 * Memory that a step changes is put back through `undo`.
 */
export class Writer {
  readonly #db: DatabaseSync;
  readonly #options: WriterOptions;
  readonly #begin;
  readonly #commit;
  readonly #rollback;
  #queue: Step[] = [];
  /** Steps that wait for the sync that is on its way, and whose they are. */
  #later: Step[] = [];
  readonly #laterOf = new Set<string>();
  #scheduled: NodeJS.Immediate | undefined;
  #undo: (() => void)[] = [];
  #effects: (() => void)[] = [];
  #tales: Tale[] = [];
  /** On its way to the disk. */
  #syncing: Unsynced | undefined;
  /** Committed since that sync began. */
  #unsynced: Unsynced | undefined;
  readonly #untold = new Map<string, number>();
  #broken: JobsError | undefined;

  constructor(db: DatabaseSync, options: WriterOptions) {
    this.#db = db;
    this.#options = options;
    this.#begin = db.prepare('BEGIN IMMEDIATE');
    this.#commit = db.prepare('COMMIT');
    this.#rollback = db.prepare('ROLLBACK');
  }

  /**
   * Answers after COMMIT. `durable`: after a sync too, so that it survives power loss; else it survives the end of the process. Steps `of` the same
   * run in the order in which they were asked for.
   */
  step<T>(durable: boolean, run: () => T, of?: string): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const step: Step = { durable, run, resolve: resolve as (value: unknown) => void, reject };
      if (this.#broken) reject(this.#broken);
      else if (this.#syncing && (durable || (of !== undefined && this.#laterOf.has(of)))) {
        this.#later.push(step);
        if (of !== undefined) this.#laterOf.add(of);
      } else {
        this.#queue.push(step);
        this.wake();
      }
    });
  }

  /** Sees to the follow-up work soon. */
  wake(): void {
    this.#scheduled ??= setImmediate(() => this.#flush());
  }

  /** Throws when the disk has failed. */
  assertSound(): void {
    if (this.#broken) throw this.#broken;
  }

  /** Inside a step: how to take back a change of memory, should the transaction fail. */
  undo(back: () => void): void {
    this.#undo.push(back);
  }

  /** Inside a step: what to do once it is committed; before its caller is answered. For what is nobody's business but the caller's. */
  committed(effect: () => void): void {
    this.#effects.push(effect);
  }

  /** Inside a step: what to do once it may be shown: on the disk where the step is durable, and after all that was to be told before. */
  told(of: string, tell: () => void): void {
    this.#tales.push({ of, tell });
  }

  /** How much of one there is to tell that is committed and not yet told. */
  untold(of: string): number {
    return this.#untold.get(of) ?? 0;
  }

  /** When all that is committed now has been told. */
  async allTold(): Promise<void> {
    const last = this.#unsynced ?? this.#syncing;
    if (last) await new Promise<unknown>((resolve, reject) => last.readers.push({ resolve, reject }));
  }

  /** Runs what is waiting, and answers when it is on the disk. */
  async finish(): Promise<void> {
    while (this.#queue.length + this.#later.length > 0 || this.#syncing) {
      this.#flush();
      await this.allTold().catch(() => {});
    }
  }

  #flush(): void {
    clearImmediate(this.#scheduled);
    this.#scheduled = undefined;
    const group = this.#queue;
    this.#queue = [];
    this.#run(group);
    this.#options.afterGroup?.();
  }

  #run(group: readonly Step[]): void {
    const { followUp } = this.#options;
    const failed = this.#transaction(group, true);
    if (failed === undefined) return;
    if (failed.at === 'commit' || group.length + Number(failed.at === 'follow-up') <= 1) {
      const error = fromSqlite(failed.error);
      for (const step of group) step.reject(error);
      if (failed.at !== 'step') followUp?.failed(error);
      return;
    }
    for (const step of group) {
      const alone = this.#transaction([step], false);
      if (alone) step.reject(fromSqlite(alone.error));
    }
    this.#run([]);
  }

  /** One transaction with all of the group; undefined when it committed, else nothing of it has happened. */
  #transaction(group: readonly Step[], withFollowUp: boolean): { at: 'step' | 'follow-up' | 'commit'; error: unknown } | undefined {
    const { followUp, beforeCommit } = this.#options;
    if (group.length === 0 && !(withFollowUp && followUp?.due())) return undefined;
    let at: 'step' | 'follow-up' | 'commit' = 'commit';
    try {
      this.assertSound();
      at = 'step';
      if (group.some((step) => step.durable)) this.#options.beforeDurable?.();
      this.#begin.run();
      for (const step of group) step.outcome = outcomeOf(step);
      at = 'follow-up';
      if (withFollowUp && followUp?.due()) followUp.run();
      at = 'commit';
      beforeCommit?.();
      this.#commit.run();
    } catch (error) {
      this.#rollBack();
      for (const back of this.#undo.reverse()) back();
      this.#undo = [];
      this.#effects = [];
      this.#tales = [];
      return { at, error };
    }
    const [effects, tales] = [this.#effects, this.#tales];
    this.#undo = [];
    this.#effects = [];
    this.#tales = [];
    this.#carryOut(effects);
    for (const step of group) if (!step.durable) settle(step);
    this.#afterCommit(
      group.filter((step) => step.durable),
      tales,
    );
    return undefined;
  }

  /** Durable steps wait for a sync of their own, and what is to be told waits behind what was to be told before. */
  #afterCommit(steps: readonly Step[], tales: readonly Tale[]): void {
    if (steps.length === 0 && !this.#syncing) {
      this.#tell(tales);
      return;
    }
    for (const { of } of tales) this.#untold.set(of, this.untold(of) + 1);
    this.#unsynced ??= { steps: [], tales: [], readers: [] };
    this.#unsynced.steps.push(...steps);
    this.#unsynced.tales.push(...tales);
    if (!this.#syncing) this.#sync();
  }

  #sync(): void {
    const batch = this.#unsynced!;
    this.#syncing = batch;
    this.#unsynced = undefined;
    this.#options.sync().then(
      () => this.#synced(batch),
      (error) => this.#break(error),
    );
  }

  #synced(batch: Unsynced): void {
    this.#syncing = undefined;
    this.#settle(batch);
    // Without a durable step, what came meanwhile only waited for its turn to be told.
    if (this.#unsynced && this.#unsynced.steps.length === 0) {
      const behind = this.#unsynced;
      this.#unsynced = undefined;
      this.#settle(behind);
    } else if (this.#unsynced) this.#sync();
    if (this.#later.length === 0) return;
    this.#queue.push(...this.#later);
    this.#later = [];
    this.#laterOf.clear();
    this.#flush();
  }

  #settle(batch: Unsynced): void {
    for (const { of } of batch.tales) {
      const left = this.untold(of) - 1;
      if (left > 0) this.#untold.set(of, left);
      else this.#untold.delete(of);
    }
    this.#tell(batch.tales);
    for (const step of batch.steps) settle(step);
    for (const { resolve } of batch.readers) resolve(undefined);
  }

  #tell(tales: readonly Tale[]): void {
    this.#carryOut(tales.map(({ tell }) => tell));
    this.#options.afterTold?.();
  }

  #break(cause: unknown): void {
    const error = new JobsError(
      'unavailable',
      'STORE_UNAVAILABLE',
      'the disk of the job store has failed; see the log, and restart the service',
      {
        retryAfterSeconds: 30,
        cause,
      },
    );
    this.#broken = error;
    const refused = [this.#syncing!, this.#unsynced].flatMap((batch) => (batch ? [...batch.steps, ...batch.readers] : []));
    const waiting = [...this.#queue, ...this.#later];
    this.#syncing = undefined;
    this.#unsynced = undefined;
    this.#queue = [];
    this.#later = [];
    for (const { reject } of [...refused, ...waiting]) reject(error);
    this.#options.onBroken?.(error);
  }

  #carryOut(effects: readonly (() => void)[]): void {
    for (const effect of effects) {
      try {
        effect();
      } catch (error) {
        this.#options.onDefect?.(error);
      }
    }
  }

  #rollBack(): void {
    // SQLite ends the transaction itself after some errors, a full disk among them.
    if (!this.#db.isTransaction) return;
    try {
      this.#rollback.run();
    } catch (error) {
      this.#options.onDefect?.(error);
    }
  }
}

function outcomeOf(step: Step): NonNullable<Step['outcome']> {
  try {
    return { value: step.run() };
  } catch (error) {
    if (error instanceof JobsError) return { refusal: error };
    throw error;
  }
}

function settle({ outcome, resolve, reject }: Step): void {
  if (outcome && 'refusal' in outcome) reject(outcome.refusal);
  else resolve(outcome?.value);
}
