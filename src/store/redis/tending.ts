// The turns of a process's clock: renews the leases that it holds, makes good what others have left, and looks for what may have been missed. Always true
// here: the holder of a lease that could not be renewed is told before the lease can have run out by the store's clock; one turn runs at a time.
import type { JobId } from '../../jobs/ports.ts';
import { NODE_LOST, recovered, startTimedOut } from '../../jobs/steps.ts';
import type { StoreClock } from './clock.ts';
import type { RedisConnection } from './connection.ts';
import type { RedisJobs } from './jobs.ts';
import type { RedisLease } from './lease.ts';

export interface TendingOptions {
  readonly redis: RedisConnection;
  readonly jobs: RedisJobs;
  readonly clock: StoreClock;
  readonly leaseMs: number;
  /** Of this process, by token. */
  readonly leases: ReadonlyMap<string, RedisLease>;
  /** Something is owed to jobs that wait. */
  readonly owed: () => void;
  /** Whatever was said may have been missed; told from time to time. */
  readonly swept: () => void;
  readonly failed: (error: unknown) => void;
}

/** Before a lease runs out by the store's clock its holder is told that it is lost, so that its run has stopped by then. */
const LEASE_MARGIN_MS = 2_000;
/** What was said over PUBLISH and got lost is found after this at the latest. */
const SWEEP_MS = 5_000;
/** Jobs made good in one turn of the sweep. */
const SWEPT_AT_ONCE = 100;

export class Tending {
  readonly #options: TendingOptions;
  #timer: { readonly at: number; readonly handle: NodeJS.Timeout } | undefined;
  /** Beside the turns, which wait for Redis. */
  readonly #stale: NodeJS.Timeout;
  #running: Promise<void> | undefined;
  #lastSweep = 0;
  #ended = false;

  constructor(options: TendingOptions) {
    this.#options = options;
    this.#stale = setInterval(() => this.#dropStale(), this.#marginMs / 4);
    this.#stale.unref();
  }

  /** Has a turn come after so many milliseconds at the latest. */
  arm(ms: number): void {
    if (this.#ended) return;
    const wait = Math.min(Math.max(1, ms + 1), this.#turnMs);
    const at = performance.now() + wait;
    if (this.#timer && this.#timer.at <= at) return;
    clearTimeout(this.#timer?.handle);
    const handle = setTimeout(() => {
      this.#timer = undefined;
      void this.turn();
    }, wait);
    handle.unref();
    this.#timer = { at, handle };
  }

  /** Never rejects. */
  turn(): Promise<void> {
    this.#running ??= this.#turn()
      .catch((error) => this.#options.failed(error))
      .finally(() => {
        this.#running = undefined;
        this.arm(this.#turnMs);
      });
    return this.#running;
  }

  /** No more turns; the last one is under way until `settled` answers. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer?.handle);
    clearInterval(this.#stale);
  }

  async settled(): Promise<void> {
    await this.#running;
  }

  get #marginMs(): number {
    return Math.min(LEASE_MARGIN_MS, this.#options.leaseMs / 4);
  }

  get #turnMs(): number {
    return Math.min(SWEEP_MS, this.#options.leaseMs / 3);
  }

  async #turn(): Promise<void> {
    const { redis, jobs, clock, leaseMs, swept, owed: payOwed } = this.#options;
    const leases = [...this.#options.leases.values()];
    const sent = performance.now();
    const reply = await redis.run('tend', [leaseMs, SWEPT_AT_ONCE, ...leases.map(({ token }) => token)]);
    const [now, due, states, expired, overdue, owed] = reply as [number, Buffer | null, number[], (Buffer | null)[], Buffer[], Buffer[]];
    clock.learn(now, sent, performance.now());
    this.#renewed(leases, states, sent);
    if (due) this.arm(Number(due) - now);
    if (sent - this.#lastSweep > SWEEP_MS - 100) {
      this.#lastSweep = sent;
      redis.probe();
      swept();
    }
    for (let i = 0; i < expired.length; i += 2) {
      const [token, id] = [expired[i]!.toString(), expired[i + 1]?.toString()];
      if (id !== undefined && !this.#ended) await this.#recover(id, token);
    }
    for (const id of overdue) if (!this.#ended) await jobs.change(id.toString(), startTimedOut);
    if (owed.length > 0 && !this.#ended) payOwed();
    if (expired.length + overdue.length >= SWEPT_AT_ONCE) this.arm(0);
  }

  /** `states`: of each lease 0 where it is no more, 2 where its job is to be canceled. */
  #renewed(leases: readonly RedisLease[], states: readonly number[], sent: number): void {
    for (const [i, lease] of leases.entries()) {
      if (states[i] === 0) {
        // It may have ended while this was under way.
        if (this.#options.leases.get(lease.token) === lease) lease.end('lost');
        continue;
      }
      lease.validUntil = sent + this.#options.leaseMs;
      if (states[i] === 2) lease.end('cancel_requested');
    }
  }

  async #recover(id: JobId, token: string): Promise<void> {
    await this.#options.jobs.change(id, (stored) => (stored.token === token ? recovered(stored, NODE_LOST) : undefined));
  }

  /** Tells the holders of leases that could not be renewed in time, while their runs can still be stopped before others have the jobs. */
  #dropStale(): void {
    const soon = performance.now() + this.#marginMs;
    for (const lease of [...this.#options.leases.values()]) if (lease.validUntil <= soon) lease.end('lost');
  }
}
