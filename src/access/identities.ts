// From what a request brings to who calls. Always true: a credential that is there is checked, and one that is not taken is refused, also where
// nobody needs one; what was verified is remembered under its digest, for a short while, so that most calls cost one look-up.
import { hash } from 'node:crypto';
import { DEFAULT_TENANT, type Identity, type Scope } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import { type CertifiedSocket, expiredCertificate } from './certificates.ts';
import { Expiring } from './expiring.ts';
import { KEY_PREFIX, type Keyring } from './keys.ts';
import { LOOKS_LIKE_TOKEN, type Tokens } from './tokens.ts';

type Headers = Readonly<Record<string, string | string[] | undefined>>;

export interface IdentitiesOptions {
  readonly keys?: Keyring;
  readonly tokens?: Tokens;
  readonly certificates?: (socket: CertifiedSocket) => Identity | undefined;
  /** Scopes of a caller without a credential; undefined: there has to be one. */
  readonly anonymous: ReadonlySet<Scope> | undefined;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** How long a token is taken for good once it was verified. Default 15 s. */
  readonly rememberMs?: number;
  /** Likewise a key; one that was revoked goes on working so long on other replicas. Default a second: it costs each key one look-up a second. */
  readonly rememberKeysMs?: number;
  /** Default 10,000. */
  readonly rememberMost?: number;
}

export class Identities {
  readonly #options: IdentitiesOptions;
  readonly #now: () => number;
  readonly #rememberMs: number;
  readonly #rememberKeysMs: number;
  readonly #known: Expiring<Identity>;
  /** One look at a credential for all calls that bring it meanwhile. */
  readonly #verifying = new Map<string, Promise<Identity>>();
  readonly #anonymous: Identity | undefined;
  /** Some way to have an identity is configured. */
  readonly configured: boolean;

  constructor(options: IdentitiesOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#rememberMs = options.rememberMs ?? 15_000;
    this.#rememberKeysMs = options.rememberKeysMs ?? 1000;
    this.#known = new Expiring(options.rememberMost ?? 10_000);
    this.configured = options.keys !== undefined || options.tokens !== undefined || options.certificates !== undefined;
    this.#anonymous = options.anonymous && {
      kind: 'anonymous',
      // Beside tenants with identities, strangers are one of their own.
      tenant: this.configured ? 'anonymous' : DEFAULT_TENANT,
      name: 'anonymous',
      scopes: options.anonymous,
      tier: undefined,
      expiresMs: undefined,
      seesAll: !this.configured || options.anonymous.has('admin'),
    };
  }

  /** Who calls; at once where that is known. Throws, or rejects with, UNAUTHENTICATED or UNAVAILABLE. */
  identify(headers: Headers, socket: object): Identity | Promise<Identity> {
    // Without identities a header of this name is somebody else's affair, a proxy's for example.
    if (!this.configured) return this.#anonymous ?? refuse(this.#ways());
    const credential = credentialOf(headers);
    if (credential !== undefined) {
      const digest = hash('sha256', credential, 'base64');
      return this.#known.get(digest, this.#now()) ?? this.#verifying.get(digest) ?? this.#begin(credential, digest);
    }
    const certified =
      this.#options.certificates && 'getPeerX509Certificate' in socket && this.#options.certificates(socket as CertifiedSocket);
    if (certified) {
      if (certified.expiresMs! > this.#now()) return certified;
      throw expiredCertificate();
    }
    return this.#anonymous ?? refuse(this.#ways());
  }

  /** An identity as it is now. Throws UNAUTHENTICATED when it has ended. */
  async recheck(identity: Identity): Promise<Identity> {
    return identity.kind === 'key' && this.#options.keys ? await this.#options.keys.recheck(identity.name) : identity;
  }

  /** A key was revoked or has a new end. */
  forget(): void {
    this.#known.clear();
  }

  #begin(credential: string, digest: string): Promise<Identity> {
    const verifying = this.#verify(credential, digest).finally(() => this.#verifying.delete(digest));
    this.#verifying.set(digest, verifying);
    return verifying;
  }

  async #verify(credential: string, digest: string): Promise<Identity> {
    const { keys, tokens } = this.#options;
    const found =
      keys && credential.startsWith(KEY_PREFIX)
        ? await keys.verify(credential)
        : tokens && LOOKS_LIKE_TOKEN.test(credential)
          ? await tokens.verify(credential)
          : refuse(`this is no credential of a kind that is taken here; ${this.#ways()}`, 'CREDENTIALS_INVALID');
    const nowMs = this.#now();
    const rememberMs = found.kind === 'key' ? this.#rememberKeysMs : this.#rememberMs;
    this.#known.set(digest, found, Math.min(nowMs + rememberMs, found.expiresMs ?? Number.POSITIVE_INFINITY));
    return found;
  }

  #ways(): string {
    const { keys, tokens, certificates } = this.#options;
    const ways = [keys && 'an API key', tokens && 'a token of the identity provider'].filter((way) => way !== undefined);
    const bearer = ways.length > 0 ? `send ${ways.join(' or ')} as 'Authorization: Bearer ...'` : undefined;
    return [bearer, certificates && 'call with a client certificate'].filter((way) => way !== undefined).join(', or ');
  }
}

/** The text after `Bearer`, or of `X-API-Key`. */
function credentialOf(headers: Headers): string | undefined {
  const { authorization } = headers;
  const key = headers['x-api-key'];
  if (authorization === undefined) return key === undefined || key === '' ? undefined : String(key);
  const [, scheme, credential] = /^([^ ]+) +(.*)$/.exec(String(authorization)) ?? [];
  if (scheme?.toLowerCase() !== 'bearer' || credential === undefined) {
    refuse("the header Authorization is taken as 'Bearer ...' alone", 'CREDENTIALS_INVALID');
  }
  if (key !== undefined && key !== credential) {
    refuse('Authorization and X-API-Key say different things: send one of them', 'CREDENTIALS_INVALID');
  }
  return credential;
}

function refuse(message: string, reason: 'CREDENTIALS_MISSING' | 'CREDENTIALS_INVALID' = 'CREDENTIALS_MISSING'): never {
  throw new JobsError('unauthenticated', reason, message);
}
