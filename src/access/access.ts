// Puts the parts of this folder together as they are configured, and takes them down again: the guard of the port, the keys, the audit log.
import { readFile } from 'node:fs/promises';
import { type RateLimiterAbstract, RateLimiterMemory, RateLimiterRedis } from 'rate-limiter-flexible';
import type { Scope } from '../jobs/caller.ts';
import type { Guard } from '../jobs/guard.ts';
import type { KeyAdmin, KeyStore } from '../jobs/keys.ts';
import { originOf } from './addresses.ts';
import { openAuditLog } from './audit.ts';
import { certificateIdentities } from './certificates.ts';
import { AccessGuard } from './guard.ts';
import { Identities } from './identities.ts';
import { Jwks, jwksAt } from './jwks.ts';
import { Keyring } from './keys.ts';
import { Lifetimes } from './lifetimes.ts';
import { noPolicies, type Policies, type PolicyDefaults, PolicyError, readPolicies } from './policies.ts';
import { type Rate, Rates } from './rates.ts';
import { Tokens } from './tokens.ts';

export interface TokenSettings {
  /** URL or path of the provider's key set. */
  readonly jwks: string | undefined;
  /** File with a shared secret. */
  readonly secretFile: string | undefined;
  readonly issuer: string;
  readonly audience: string;
  readonly tenantClaim: string;
  readonly scopeClaim: string;
  readonly scopePrefix: string;
}

export interface AccessOptions {
  readonly keyStore: KeyStore;
  readonly apiKeys: boolean;
  readonly tokens: TokenSettings | undefined;
  /** The port asks for client certificates. */
  readonly certificates: boolean;
  readonly policies: Policies;
  /** Undefined: a caller has to have an identity. */
  readonly anonymous: readonly Scope[] | undefined;
  readonly anonymousRate: Rate | undefined;
  readonly countLocal: boolean;
  readonly proxies: readonly string[];
  /** Undefined: no audit log. */
  readonly audit: { readonly to: string | ((text: string) => void); readonly maxBytes: number } | undefined;
  /** An `ioredis` client and what keys begin with there, where nodes share the counts of submits; default: each process has its own. */
  readonly counters?: { readonly client: unknown; readonly prefix: string } | undefined;
  readonly version: string;
  /** Told, in words, of what went wrong and was gone on from. */
  readonly onProblem: (error: unknown, what: string) => void;
}

export interface Access extends AsyncDisposable {
  readonly guard: Guard;
  /** Undefined: they are off. */
  readonly keys: KeyAdmin | undefined;
}

const MIN_SECRET_BYTES = 32;

/** Reads the operator's file of tenants. Throws an `Error` that can be shown. */
export async function loadPolicies(path: string | undefined, defaults: PolicyDefaults): Promise<Policies> {
  if (path === undefined) return noPolicies(defaults);
  try {
    return readPolicies(await readFile(path, 'utf8'), defaults);
  } catch (error) {
    if (error instanceof PolicyError) throw new Error(`${path}: ${error.message}`, { cause: error });
    throw unreadable(path, error);
  }
}

/** Throws an `Error` that can be shown. */
export async function openAccess(options: AccessOptions): Promise<Access> {
  const { keyStore, policies, onProblem, audit: auditOptions } = options;
  const keys = options.apiKeys
    ? new Keyring({
        store: keyStore,
        tiers: new Set(policies.tiers.keys()),
        onProblem: (error) => onProblem(error, 'times of last use could not be written; tried again later'),
      })
    : undefined;
  const identities = new Identities({
    keys,
    tokens: options.tokens && (await openTokens(options.tokens, onProblem)),
    certificates: options.certificates ? certificateIdentities(policies.certificates) : undefined,
    anonymous: options.anonymous && new Set(options.anonymous),
  });
  const lifetimes = new Lifetimes({ recheck: (identity) => identities.recheck(identity) });
  if (keys) {
    keys.onChange = () => {
      identities.forget();
      void lifetimes.recheck();
    };
  }
  const audit =
    auditOptions && (await openAuditLog({ ...auditOptions, onProblem: (error) => onProblem(error, 'the audit log could not be written') }));
  const guard = new AccessGuard({
    identities,
    lifetimes,
    rates: new Rates({
      limiter: limiterOf(options.counters),
      anonymous: options.anonymousRate,
      countLocal: options.countLocal,
      policies,
      onProblem: (error) => onProblem(error, 'submits could not be counted, and were let through'),
    }),
    audit,
    originOf: originOf(options.proxies),
  });
  await guard.note({ action: 'service.started', outcome: 'ok', version: options.version });
  return {
    guard,
    keys,
    async [Symbol.asyncDispose]() {
      lifetimes[Symbol.dispose]();
      await keys?.[Symbol.asyncDispose]();
      await guard.note({ action: 'service.stopped', outcome: 'ok' });
      await audit?.[Symbol.asyncDispose]();
    },
  };
}

/** A counter of each rate. One that Redis does not answer says so at once: a limit is not worth a call that hangs. */
export function limiterOf(counters: AccessOptions['counters']): (name: string, rate: Rate) => RateLimiterAbstract {
  return (name, { points, seconds }) => {
    if (!counters) return new RateLimiterMemory({ keyPrefix: name, points, duration: seconds });
    const keyPrefix = `${counters.prefix}${name}`;
    return new RateLimiterRedis({ storeClient: counters.client, keyPrefix, points, duration: seconds, rejectIfRedisNotReady: true });
  };
}

async function openTokens(settings: TokenSettings, onProblem: AccessOptions['onProblem']): Promise<Tokens> {
  const { jwks, secretFile, ...facts } = settings;
  let secret: Uint8Array | undefined;
  if (secretFile !== undefined) {
    secret = await readSecret(secretFile);
  }
  let set: Jwks | undefined;
  if (jwks !== undefined) {
    const load = /^https?:/.test(jwks) ? jwksAt(jwks) : async () => JSON.parse(await readFile(jwks, 'utf8')) as unknown;
    set = new Jwks({ load, onProblem: (error) => onProblem(error, `the keys at ${jwks} could not be read`) });
    // In the background: a provider that is down must not keep the service from starting.
    void set.refresh();
  }
  return new Tokens({ ...facts, jwks: set, secret });
}

/** A shared secret for tokens. Throws an `Error` that can be shown. */
export async function readSecret(path: string): Promise<Uint8Array> {
  const text = await readFile(path).catch((error: unknown) => {
    throw unreadable(path, error);
  });
  // An editor's line end is not part of it.
  const secret = new Uint8Array(Buffer.from(text.toString('latin1').replace(/\r?\n$/, ''), 'latin1'));
  if (secret.length >= MIN_SECRET_BYTES) return secret;
  throw new Error(`the secret in ${path} has ${secret.length} bytes; it takes at least ${MIN_SECRET_BYTES}`);
}

function unreadable(path: string, error: unknown): Error {
  return new Error(`${path} cannot be read (${(error as NodeJS.ErrnoException).code}): correct its name or its mode`, { cause: error });
}
