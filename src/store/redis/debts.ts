// What the ends of jobs mean for others, written soon after. Always true here: a debt stands in the record of the job that it is owed to, written in the step
// that made it; whoever pays it writes it away in the job's own step, so that it is paid once, and if this process dies before, the sweep of another pays.
import type { JobId } from '../../jobs/ports.ts';
import { endedWith, inherited, inputFailed, ready } from '../../jobs/steps.ts';
import { Rerun } from '../../rerun.ts';
import type { RedisConnection } from './connection.ts';
import type { RedisJobs } from './jobs.ts';
import { decodeOutcome } from './record.ts';

/** Jobs that are paid before it is looked again. */
const AT_ONCE = 100;

export interface DebtsOptions {
  readonly redis: RedisConnection;
  readonly jobs: RedisJobs;
  /** What a store that closes waits for. */
  readonly track: <T>(call: Promise<T>) => Promise<T>;
  readonly failed: (error: unknown) => void;
}

export class Debts {
  readonly #options: DebtsOptions;
  readonly #payments: Rerun;
  #ended = false;

  constructor(options: DebtsOptions) {
    this.#options = options;
    this.#payments = new Rerun(() => options.track(this.#payAll()), options.failed);
  }

  /** Something is owed: paid soon. */
  pay(): void {
    if (!this.#ended) this.#payments.ask();
  }

  /** No more is paid by this process. */
  end(): void {
    this.#ended = true;
  }

  async #payAll(): Promise<void> {
    if (this.#ended) return;
    const ids = (await this.#options.redis.run('owed', [AT_ONCE])) as Buffer[];
    for (const id of ids) if (!this.#ended) await this.#pay(id.toString());
    // Paying one may owe another something: a chain.
    if (ids.length > 0) this.pay();
  }

  async #pay(id: JobId): Promise<void> {
    const { jobs } = this.#options;
    const owed = (await jobs.view(id))?.stored.owed;
    if (owed === undefined) return;
    const [what, facts] = owed.split(/ (.*)/s) as [string, string | undefined];
    const job = what === 'failed' ? (await jobs.view(facts!))?.stored.job : undefined;
    const outcome = what === 'won' || what === 'verdict' ? decodeOutcome(facts!) : undefined;
    await jobs.change(id, (stored) => {
      if (stored.owed !== owed) return undefined;
      if (what === 'failed') return inputFailed(stored, facts!, job);
      if (outcome) return endedWith(stored, outcome, stored.joined ?? { retentionMs: undefined, again: false });
      return what === 'lead' ? inherited(stored, Number(facts)) : ready(stored);
    });
  }
}
