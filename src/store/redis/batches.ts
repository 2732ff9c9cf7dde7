// Batches in Redis, and the canceling of what is left of one. Always true here: that a batch is to be stopped is written first, in the step that
// says so; whichever node finds the mark does the rest, each job in a step of its own, and takes the mark away when none is left.
import type { Batch, BatchMember } from '../../jobs/batches.ts';
import { STATUSES } from '../../jobs/job.ts';
import type { JobId } from '../../jobs/ports.ts';
import { Recent } from '../../recent.ts';
import { Rerun } from '../../rerun.ts';
import type { Reply, ScriptName } from './connection.ts';

export interface RedisBatchesOptions {
  readonly cancel: (id: JobId, graceMs: number) => Promise<void>;
  readonly onError: (error: unknown) => void;
}

/** Lists of jobs kept decoded. */
const KEPT = 64;
/** Jobs that are canceled at once; more would only wait for one another. */
const AT_ONCE = 32;

type View = [
  tenant: Buffer,
  jobs: Buffer,
  ...counts: (Buffer | null)[],
  done: Buffer | null,
  created: Buffer,
  finished: Buffer | null,
  grace: Buffer,
  cancel: Buffer | null,
  members: Buffer | null,
];

export class RedisBatches {
  readonly #run: (name: ScriptName, args: readonly (string | number)[]) => Promise<Reply>;
  readonly #options: RedisBatchesOptions;
  readonly #members = new Recent<readonly BatchMember[]>(KEPT);
  readonly #stops = new Map<string, Promise<void>>();
  readonly #looks: Rerun;

  constructor(run: (name: ScriptName, args: readonly (string | number)[]) => Promise<Reply>, options: RedisBatchesOptions) {
    this.#run = run;
    this.#options = options;
    this.#looks = new Rerun(() => this.#look(), options.onError);
  }

  async get(batchId: string): Promise<Batch | undefined> {
    const known = this.#members.get(batchId);
    const view = (await this.#run('batches', ['view', batchId, known ? '' : '1'])) as View | null;
    if (!view) return undefined;
    const [tenant, jobs, ...rest] = view as (Buffer | null)[];
    const counts = rest.splice(0, STATUSES.length);
    const [done, created, finished, grace, cancel, listed] = rest;
    const members = known ?? decodeMembers(listed!);
    if (!known) this.#members.set(batchId, members);
    return {
      batchId,
      tenant: tenant!.toString(),
      jobs: Number(jobs),
      counts: new Map(STATUSES.map((status, i) => [status, Number(counts[i] ?? 0)])),
      done: Number(done ?? 0),
      createdMs: Number(created),
      finishedMs: finished ? Number(finished) : undefined,
      stopsOnFailure: grace!.length > 0,
      cancelRequestedMs: cancel ? Number(cancel) : undefined,
      members,
    };
  }

  /** Whether its last job has ended, or it is forgotten. */
  async isFinished(batchId: string): Promise<boolean> {
    const batch = await this.get(batchId);
    return !batch || batch.finishedMs !== undefined;
  }

  async cancel(batchId: string, graceMs: number, nowMs: number): Promise<Batch | undefined> {
    if ((await this.#run('batches', ['cancel', batchId, graceMs, nowMs])) === 1) await this.#stop(batchId, graceMs);
    return await this.get(batchId);
  }

  /** Goes on with what is marked as to be stopped, by whomever. */
  stopMarked(): void {
    this.#looks.ask();
  }

  /** When nothing is under way any more. */
  async settled(): Promise<void> {
    await this.#looks.settled();
    await Promise.allSettled(this.#stops.values());
  }

  async #look(): Promise<void> {
    const marked = ((await this.#run('batches', ['stopping'])) as Buffer[]).map(String);
    for (let i = 0; i < marked.length; i += 2) await this.#stop(marked[i]!, Number(marked[i + 1]));
  }

  #stop(batchId: string, graceMs: number): Promise<void> {
    let stop = this.#stops.get(batchId);
    if (!stop) {
      stop = this.#cancelAll(batchId, graceMs).finally(() => this.#stops.delete(batchId));
      this.#stops.set(batchId, stop);
    }
    return stop;
  }

  async #cancelAll(batchId: string, graceMs: number): Promise<void> {
    const left = ((await this.#run('batches', ['left', batchId])) as Buffer[]).map(String);
    while (left.length > 0) await Promise.all(left.splice(0, AT_ONCE).map((id) => this.#options.cancel(id, graceMs)));
    await this.#run('batches', ['stopped', batchId]);
  }
}

export function encodeMembers(members: readonly BatchMember[]): string {
  return JSON.stringify(members.map(({ jobId, ref }) => [jobId, ref]));
}

function decodeMembers(text: Buffer): readonly BatchMember[] {
  return (JSON.parse(text.toString()) as [string, string][]).map(([jobId, ref]) => ({ jobId, ref }));
}
