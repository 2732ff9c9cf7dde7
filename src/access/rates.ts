// How often a caller may submit. Always true: all callers of one count share one truth, in this process or, over replicas, in Redis; and a call that
// is refused for asking too much at once costs the caller nothing of what is left.
import type { RateLimiterAbstract, RateLimiterRes } from 'rate-limiter-flexible';
import type { Caller } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { Allowance } from '../jobs/guard.ts';
import { limitKeyOf } from './addresses.ts';
import type { Policies } from './policies.ts';

export interface Rate {
  readonly points: number;
  readonly seconds: number;
}

export interface RatesOptions {
  /** A counter of its own for each rate, in memory or in Redis. */
  readonly limiter: (name: string, rate: Rate) => RateLimiterAbstract;
  /** Of submits of callers without an identity, by address; undefined: no limit. */
  readonly anonymous: Rate | undefined;
  /** Whether callers on this machine are counted too. */
  readonly countLocal: boolean;
  readonly policies: Policies;
  /** Told when the counter could not be asked; the call is let through then, since a limit is no lock. */
  readonly onProblem?: (error: unknown) => void;
}

const MINUTE = 60;

export class Rates {
  readonly #options: RatesOptions;
  readonly #limiters = new Map<string, RateLimiterAbstract>();

  constructor(options: RatesOptions) {
    this.#options = options;
  }

  /** Takes `jobs` submits from what the caller has left; undefined: there is no limit. Throws RESOURCE_EXHAUSTED with the time to wait. */
  async submit(caller: Caller, jobs: number): Promise<Allowance | undefined> {
    const found = this.#countOf(caller);
    if (!found) return undefined;
    const { rate, key } = found;
    if (jobs > rate.points) {
      const message = `${jobs} jobs at once are more than the ${rate.points} that you may submit in ${rate.seconds} s: send fewer at a time`;
      throw new JobsError('exhausted', 'RATE_LIMITED', message, { metadata: { limit: String(rate.points) } });
    }
    const limiter = this.#limiter(rate);
    try {
      return allowance(rate, await limiter.consume(key, jobs));
    } catch (refused) {
      if (refused instanceof Error) {
        this.#options.onProblem?.(refused);
        return undefined;
      }
      // Of several at once the ones that would have fitted are not lost.
      if (jobs > 1) await limiter.reward(key, jobs).catch(() => {});
      const left = allowance(rate, refused as RateLimiterRes);
      const message = `at most ${rate.points} jobs in ${rate.seconds} s may be submitted here; try again in ${left.resetSeconds} s`;
      throw new JobsError('exhausted', 'RATE_LIMITED', message, {
        retryAfterSeconds: left.resetSeconds,
        metadata: { limit: String(left.limit), remaining: '0', reset: String(left.resetSeconds) },
      });
    }
  }

  #countOf(caller: Caller): { rate: Rate; key: string } | undefined {
    const { identity } = caller;
    const { anonymous, countLocal, policies } = this.#options;
    if (identity.kind === 'anonymous') {
      if (!anonymous || (!countLocal && caller.local)) return undefined;
      return { rate: anonymous, key: `address:${limitKeyOf(caller.address)}` };
    }
    const own = identity.tier === undefined ? undefined : policies.tiers.get(identity.tier);
    const points = own ? own.submitsPerMinute : policies.tenant(identity.tenant).submitsPerMinute;
    if (points === undefined) return undefined;
    return { rate: { points, seconds: MINUTE }, key: own ? identity.name : `tenant:${identity.tenant}` };
  }

  #limiter(rate: Rate): RateLimiterAbstract {
    const name = `${rate.points}/${rate.seconds}`;
    let limiter = this.#limiters.get(name);
    if (!limiter) {
      limiter = this.#options.limiter(name, rate);
      this.#limiters.set(name, limiter);
    }
    return limiter;
  }
}

function allowance(rate: Rate, res: RateLimiterRes): Allowance {
  return {
    limit: rate.points,
    remaining: Math.max(0, res.remainingPoints),
    resetSeconds: Math.max(1, Math.ceil(Math.max(0, res.msBeforeNext) / 1000)),
  };
}
