// Identities, rules, rates and the audit log as one guard of the port. Always true: what it is asked about a call it answers by its parts alone, and
// refusals fill no disk: a caller who is refused without end gets thirty lines a minute, then a count.
import type { DescMethod } from '@bufbuild/protobuf';
import type { Caller, Identity } from '../jobs/caller.ts';
import type { JobsError } from '../jobs/errors.ts';
import type { Allowance, AuditEntry, Guard, Peer, Rule } from '../jobs/guard.ts';
import type { Origin } from './addresses.ts';
import type { AuditLog } from './audit.ts';
import { Expiring } from './expiring.ts';
import type { Identities } from './identities.ts';
import type { Lifetimes } from './lifetimes.ts';
import type { Rates } from './rates.ts';
import { ruleOf } from './rules.ts';

export interface AccessGuardOptions {
  readonly identities: Identities;
  readonly lifetimes: Lifetimes;
  readonly rates: Rates;
  /** Undefined: nothing is noted. */
  readonly audit: AuditLog | undefined;
  readonly originOf: (peer: string | undefined, headers: Headers) => Origin;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** Refusals of one caller that have a line of their own, in each minute. */
const REFUSALS = 30;
const MINUTE_MS = 60_000;

export class AccessGuard implements Guard {
  readonly #options: AccessGuardOptions;
  readonly #now: () => number;
  readonly #refusals = new Expiring<{ lines: number; suppressed: number }>(10_000);

  constructor(options: AccessGuardOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  identify(headers: Headers, peer: Peer): Caller | Promise<Caller> {
    const { identities, originOf } = this.#options;
    const found = identities.identify(headers, peer);
    if (!(found instanceof Promise)) return new AddressedCaller(found, headers, peer, originOf);
    return found.then((identity) => new AddressedCaller(identity, headers, peer, originOf));
  }

  addressOf(headers: Headers, peer: Peer): string {
    return this.#options.originOf(peer.remoteAddress, headers).address;
  }

  ruleOf(method: DescMethod): Rule {
    return ruleOf(method);
  }

  submit(caller: Caller, jobs: number): Promise<Allowance | undefined> {
    return this.#options.rates.submit(caller, jobs);
  }

  hold(identity: Identity, ended: (reason: JobsError) => void): () => void {
    return this.#options.lifetimes.hold(identity, ended);
  }

  get notes(): boolean {
    return this.#options.audit !== undefined;
  }

  assertNotable(): void {
    this.#options.audit?.assertWritable();
  }

  async note(entry: AuditEntry): Promise<void> {
    await this.#options.audit?.record(entry);
  }

  noteRefusal(entry: AuditEntry, from: string): void {
    const { audit } = this.#options;
    if (!audit) return;
    const nowMs = this.#now();
    let count = this.#refusals.get(from, nowMs);
    if (!count) {
      count = { lines: 0, suppressed: 0 };
      this.#refusals.set(from, count, nowMs + MINUTE_MS);
    }
    if (count.lines >= REFUSALS) {
      count.suppressed++;
      return;
    }
    count.lines++;
    void audit.record(entry);
    if (count.lines === REFUSALS) this.#tellLater(entry, count);
  }

  /** One line for all that are left out, when the minute is over. */
  #tellLater(entry: AuditEntry, count: { suppressed: number }): void {
    const { audit } = this.#options;
    const timer = setTimeout(() => {
      if (count.suppressed > 0) void audit!.record({ ...entry, suppressed: count.suppressed });
    }, MINUTE_MS);
    timer.unref();
  }
}

/** The address is looked for when somebody asks: most calls go by without. */
class AddressedCaller implements Caller {
  readonly identity: Identity;
  readonly #headers: Headers;
  readonly #peer: Peer;
  readonly #originOf: AccessGuardOptions['originOf'];
  #origin: Origin | undefined;

  constructor(identity: Identity, headers: Headers, peer: Peer, originOf: AccessGuardOptions['originOf']) {
    this.identity = identity;
    this.#headers = headers;
    this.#peer = peer;
    this.#originOf = originOf;
  }

  get address(): string {
    return this.#found().address;
  }

  get local(): boolean {
    return this.#found().local;
  }

  #found(): Origin {
    this.#origin ??= this.#originOf(this.#peer.remoteAddress, this.#headers);
    return this.#origin;
  }
}
