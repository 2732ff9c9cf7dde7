// JSON Web Tokens (RFC 7519) of an identity provider. Always true: a token is taken only with a signature by a key of the configured kind (which
// algorithms those are does not depend on the token), the configured issuer and audience, and an end.
import { errors, type JWTPayload, jwtVerify } from 'jose';
import { DEFAULT_TENANT, type Identity, SCOPES, type Scope, TENANT_NAME } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { Jwks } from './jwks.ts';

export interface TokensOptions {
  /** Public keys of the provider. */
  readonly jwks?: Jwks;
  /** Shared secret, at least 32 bytes, for tokens with an HMAC. */
  readonly secret?: Uint8Array;
  readonly issuer: string;
  readonly audience: string;
  /** Where the tenant stands: the name of a claim, or a JSON pointer (RFC 6901, `/a/b`) into the claims. Empty: all are of the tenant `default`. */
  readonly tenantClaim: string;
  /** Likewise: a text with blanks between, or a list. */
  readonly scopeClaim: string;
  /** Before each scope's name, for example `ffjobs:`; what does not begin so is not ours. */
  readonly scopePrefix: string;
  /** Differences of clocks that are put up with, in seconds. */
  readonly toleranceSeconds?: number;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

const SIGNATURES = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'];
const HMACS = ['HS256', 'HS384', 'HS512'];
const MAX_NAME = 128;

/** Compact serialisation; longer than any header that the port takes is not even looked at. */
export const LOOKS_LIKE_TOKEN = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;

export class Tokens {
  readonly #options: TokensOptions;

  constructor(options: TokensOptions) {
    this.#options = options;
  }

  /** The identity that a token stands for. Throws UNAUTHENTICATED, or UNAVAILABLE where the provider's keys cannot be had. */
  async verify(token: string): Promise<Identity> {
    return this.#identityOf(await this.#claims(token));
  }

  async #claims(token: string): Promise<JWTPayload> {
    const { jwks, secret, issuer, audience, toleranceSeconds = 5, now = Date.now } = this.#options;
    const checks = {
      issuer,
      audience,
      clockTolerance: toleranceSeconds,
      requiredClaims: ['exp'],
      currentDate: new Date(now()),
    };
    try {
      const symmetric = secret !== undefined && (jwks === undefined || HMACS.includes(algorithmOf(token)));
      const { payload } = symmetric
        ? await jwtVerify(token, secret, { ...checks, algorithms: HMACS })
        : await jwtVerify(token, jwks!.key, { ...checks, algorithms: SIGNATURES });
      return payload;
    } catch (error) {
      throw refusalOf(error);
    }
  }

  #identityOf(claims: JWTPayload): Identity {
    const { tenantClaim, scopeClaim, scopePrefix, toleranceSeconds = 5 } = this.#options;
    const tenant = tenantClaim === '' ? DEFAULT_TENANT : claimAt(claims, tenantClaim);
    if (typeof tenant !== 'string' || !TENANT_NAME.test(tenant)) {
      throw invalid(`the token's claim '${tenantClaim}' names no tenant (letters, digits, dots, dashes and underscores, at most 64)`);
    }
    const given = claimAt(claims, scopeClaim);
    const words = typeof given === 'string' ? given.split(' ') : Array.isArray(given) ? given.map(String) : [];
    const scopes = new Set<Scope>();
    for (const word of words) {
      const name = word.startsWith(scopePrefix) ? word.slice(scopePrefix.length) : '';
      if ((SCOPES as readonly string[]).includes(name)) scopes.add(name as Scope);
    }
    return {
      kind: 'jwt',
      tenant,
      name: `jwt:${printable(claims.sub ?? '')}`,
      scopes,
      tier: undefined,
      expiresMs: (claims.exp! + toleranceSeconds) * 1000,
      seesAll: scopes.has('admin'),
    };
  }
}

/** Of the header, which nobody has vouched for yet: it chooses between two ways that are both configured, and each checks it again. */
function algorithmOf(token: string): string {
  try {
    const header = JSON.parse(Buffer.from(token.slice(0, token.indexOf('.')), 'base64url').toString('utf8')) as { alg?: unknown };
    return typeof header.alg === 'string' ? header.alg : '';
  } catch {
    return '';
  }
}

function claimAt(claims: JWTPayload, where: string): unknown {
  if (!where.startsWith('/')) return Object.hasOwn(claims, where) ? claims[where] : undefined;
  let at: unknown = claims;
  for (const step of where.slice(1).split('/')) {
    const name = step.replaceAll('~1', '/').replaceAll('~0', '~');
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) return undefined;
    at = (at as Record<string, unknown>)[name];
  }
  return at;
}

/** What is wrong is told as far as it helps whoever holds the token, and never what was expected of a signature. */
function refusalOf(error: unknown): unknown {
  if (error instanceof JobsError || !(error instanceof errors.JOSEError)) return error;
  if (error instanceof errors.JWTExpired)
    return new JobsError('unauthenticated', 'CREDENTIALS_EXPIRED', 'the token has expired: get a new one');
  if (error instanceof errors.JWTClaimValidationFailed)
    return invalid(`the token's claim '${error.claim}' is missing or not the one expected`);
  return invalid('the token is not valid here');
}

function invalid(message: string): JobsError {
  return new JobsError('unauthenticated', 'CREDENTIALS_INVALID', message);
}

function printable(subject: string): string {
  return subject.replaceAll(/[^\x21-\x7e]/g, '_').slice(0, MAX_NAME);
}
