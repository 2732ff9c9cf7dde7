// Claims that wait for a job, as every store has them. Always true here: each is answered once, when its caller leaves at the latest; but while somebody
// looks for a job for one, its caller's leaving is kept until that has come to an end, or the job that was found would be nobody's.
import type { Claim, Lease } from '../jobs/ports.ts';

export class WaitingClaims {
  readonly #all = new Set<WaitingClaim>();

  /** Answers as `JobStore.claim`. `begun` is told of the claim as soon as it waits. */
  wait(want: Claim, signal: AbortSignal, begun: (claim: WaitingClaim) => void): Promise<Lease | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<Lease | undefined>();
    const claim = new WaitingClaim(want, signal, {
      resolve,
      reject,
      answered: () => this.#all.delete(claim),
    });
    this.#all.add(claim);
    begun(claim);
    return promise;
  }

  /** Those that nobody looks for a job for, the oldest first. */
  *open(): Iterable<WaitingClaim> {
    for (const claim of this.#all) if (!claim.isTaken) yield claim;
  }

  /** For a store that closes: nothing more will come for those that nobody looks for a job for. */
  end(): void {
    for (const claim of this.open()) claim.settle(undefined);
  }
}

interface Answer {
  readonly resolve: (lease: Lease | undefined) => void;
  readonly reject: (error: unknown) => void;
  /** Told once, before either. */
  readonly answered: () => void;
}

export class WaitingClaim {
  readonly want: Claim;
  readonly #signal: AbortSignal;
  readonly #answer: Answer;
  readonly #onAbort = () => {
    if (!this.#taken) this.settle(undefined);
  };
  #taken = false;

  constructor(want: Claim, signal: AbortSignal, answer: Answer) {
    this.want = want;
    this.#signal = signal;
    this.#answer = answer;
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Somebody looks for a job for it. */
  get isTaken(): boolean {
    return this.#taken;
  }

  get hasLeft(): boolean {
    return this.#signal.aborted;
  }

  /** From now on only `settle`, `fail` or `putBack` ends it. */
  take(): void {
    this.#taken = true;
  }

  /** There was none: it waits on, where its caller does. */
  putBack(): void {
    this.#taken = false;
    if (this.hasLeft) this.settle(undefined);
  }

  settle(lease: Lease | undefined): void {
    this.#end();
    this.#answer.resolve(lease);
  }

  fail(error: unknown): void {
    this.#end();
    this.#answer.reject(error);
  }

  #end(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#answer.answered();
  }
}
