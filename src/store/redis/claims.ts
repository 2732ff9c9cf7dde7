// How nodes come to jobs. Always true here: a job that Redis has given out becomes a lease of the claim that it was asked for; a claim that waits is asked
// for again whenever there may be something, by two at once at most, and each that finds a job has two more ask.
import type { Claim, Lease } from '../../jobs/ports.ts';
import { type WaitingClaim, WaitingClaims } from '../waiting-claims.ts';
import type { RedisConnection, Reply } from './connection.ts';
import type { RedisJobs } from './jobs.ts';
import { type LeaseHost, RedisLease } from './lease.ts';

export interface RedisClaimsOptions {
  readonly redis: RedisConnection;
  readonly jobs: RedisJobs;
  /** Names this process in the tokens of its leases. */
  readonly instance: string;
  readonly leaseMs: number;
  readonly host: LeaseHost;
  /** Told of each lease that is given out. */
  readonly given: (lease: RedisLease) => void;
  /** The next job that waits for its time is due at (milliseconds since 1970). */
  readonly dueAt: (ms: number) => void;
  /** What a store that closes waits for. */
  readonly track: <T>(call: Promise<T>) => Promise<T>;
}

/** Cold models may cost a job so many turns, where a node does not know better. */
const DEFAULT_PENALTY = 2;
const AT_ONCE = 2;

export class RedisClaims {
  readonly #options: RedisClaimsOptions;
  readonly #waiting = new WaitingClaims();
  #serial = 0;
  /** Counts what may have brought a job. */
  #news = 0;
  #ended = false;

  constructor(options: RedisClaimsOptions) {
    this.#options = options;
  }

  /** See `JobStore.claim`. */
  async claim(want: Claim, signal: AbortSignal): Promise<Lease | undefined> {
    if (this.#ended || signal.aborted) return undefined;
    return await this.#waiting.wait(want, signal, (claim) => void this.#ask(claim));
  }

  /** There may be jobs for the claims that wait. */
  news(): void {
    this.#news++;
    const asked: Claim[] = [];
    for (const claim of this.#waiting.open()) {
      if (asked.filter((want) => sameWant(want, claim.want)).length === AT_ONCE) continue;
      asked.push(claim.want);
      void this.#ask(claim);
    }
  }

  /** For a store that closes: what is being asked for is waited for by whoever waits for `track`. */
  end(): void {
    this.#ended = true;
    this.#waiting.end();
  }

  /** Until it has a job, there is none, or its caller has left. */
  async #ask(claim: WaitingClaim): Promise<void> {
    claim.take();
    try {
      for (let news = -1; news !== this.#news && !claim.hasLeft && !this.#ended; ) {
        news = this.#news;
        const lease = await this.#options.track(this.#claim(claim.want));
        if (!lease) continue;
        claim.settle(lease);
        // There may be more where this came from.
        this.news();
        return;
      }
      if (this.#ended) claim.settle(undefined);
      else claim.putBack();
    } catch (error) {
      if (claim.hasLeft || this.#ended) claim.settle(undefined);
      else claim.fail(error);
    }
  }

  async #claim({ above, engines, warmModels, coldPenalty }: Claim): Promise<RedisLease | undefined> {
    const { redis, jobs, instance, leaseMs, host, given, dueAt } = this.#options;
    const token = `${instance}.${++this.#serial}`;
    const sent = performance.now();
    const reply = (await redis.run('claim', [
      token,
      leaseMs,
      warmModels ? (coldPenalty ?? DEFAULT_PENALTY) : 0,
      engines ? engines.map(encodeURIComponent).join('\n') : '*',
      (warmModels ?? []).map(encodeURIComponent).join('\n'),
      above ? [above.flow, above.score, above.tenant, above.cold ? '1' : ''] : '',
    ])) as [Buffer, ...Reply[]];
    if (reply[0].toString() === 'none') {
      if (reply[1]) dueAt(Number(reply[1]));
      return undefined;
    }
    const stored = jobs.decode(reply[3]!);
    const rank = { flow: Number(reply[1]), score: Number(reply[2]), tenant: stored.tenant, cold: reply[5]!.toString() === '1' };
    const lease = new RedisLease(host, stored, rank, pairsOf(reply[4]!), sent + leaseMs);
    given(lease);
    if (stored.job.cancelRequestedAt) lease.end('cancel_requested');
    return lease;
  }
}

const NONE: ReadonlyMap<string, string> = new Map();

/** A hash as Redis lists it; null: there is none. */
function pairsOf(reply: Reply): ReadonlyMap<string, string> {
  if (reply === null) return NONE;
  const list = reply as Buffer[];
  return new Map(Array.from({ length: list.length / 2 }, (_, i) => [list[2 * i]!.toString(), list[2 * i + 1]!.toString()]));
}

function sameWant(a: Claim, b: Claim): boolean {
  return a.above === b.above && a.coldPenalty === b.coldPenalty && sameNames(a.engines, b.engines) && sameNames(a.warmModels, b.warmModels);
}

function sameNames(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && a.length === b.length && a.every((name, i) => name === b[i]));
}
