// How long a stream may last: as long as the credential that opened it. Always true: whoever holds an identity is told once when that has ended (by
// its time, or because its key was revoked), within a second where this process knows and within `recheckMs` where another one did it.
import type { Identity } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';

export interface LifetimesOptions {
  /** As an identity is now; throws UNAUTHENTICATED when it has ended. Other errors leave it as it is. */
  readonly recheck: (identity: Identity) => Promise<Identity>;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  readonly sweepMs?: number;
  readonly recheckMs?: number;
}

interface Held {
  expiresMs: number | undefined;
  checkedMs: number;
  readonly holders: Set<(reason: JobsError) => void>;
}

export class Lifetimes implements Disposable {
  readonly #options: Required<LifetimesOptions>;
  readonly #held = new Map<Identity, Held>();
  #sweeping: NodeJS.Timeout | undefined;

  constructor(options: LifetimesOptions) {
    this.#options = { now: Date.now, sweepMs: 1000, recheckMs: 1000, ...options };
  }

  /** Calls `ended` when the identity has; the function returned lets go. */
  hold(identity: Identity, ended: (reason: JobsError) => void): () => void {
    if (identity.kind === 'anonymous') return () => {};
    let held = this.#held.get(identity);
    if (!held) {
      held = { expiresMs: identity.expiresMs, checkedMs: this.#options.now(), holders: new Set() };
      this.#held.set(identity, held);
    }
    // Each call its own holder, whatever function it brings.
    const holder = (reason: JobsError) => ended(reason);
    held.holders.add(holder);
    this.#sweeping ??= setInterval(() => this.#sweep(), this.#options.sweepMs).unref();
    return () => {
      held.holders.delete(holder);
      if (held.holders.size === 0 && this.#held.get(identity) === held) this.#held.delete(identity);
    };
  }

  /** Something has changed: what is held is looked at now. */
  async recheck(): Promise<void> {
    await Promise.all([...this.#held].map(([identity, held]) => this.#check(identity, held)));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sweeping);
    this.#held.clear();
  }

  #sweep(): void {
    const nowMs = this.#options.now();
    for (const [identity, held] of this.#held) {
      if (held.expiresMs !== undefined && held.expiresMs <= nowMs) {
        this.#end(
          identity,
          held,
          new JobsError('unauthenticated', 'CREDENTIALS_EXPIRED', 'the credential that opened this stream has expired'),
        );
      } else if (identity.kind === 'key' && nowMs - held.checkedMs >= this.#options.recheckMs) {
        void this.#check(identity, held);
      }
    }
    if (this.#held.size > 0) return;
    clearInterval(this.#sweeping);
    this.#sweeping = undefined;
  }

  async #check(identity: Identity, held: Held): Promise<void> {
    held.checkedMs = this.#options.now();
    try {
      held.expiresMs = (await this.#options.recheck(identity)).expiresMs;
    } catch (error) {
      if (error instanceof JobsError && error.kind === 'unauthenticated') this.#end(identity, held, error);
    }
  }

  #end(identity: Identity, held: Held, reason: JobsError): void {
    if (this.#held.get(identity) === held) this.#held.delete(identity);
    for (const ended of held.holders) ended(reason);
    held.holders.clear();
  }
}
