// API keys: `ffj_ID_SECRET`, both parts random. Always true: a key is seen whole once, by whoever made it; what is stored finds it (the id) and
// recognises it (a SHA-256, compared in constant time); and whether a wrong key's id exists is told to nobody.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { DEFAULT_TENANT, type Identity, TENANT_NAME } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { ApiKey, CreatedKey, KeyAdmin, KeyStore, NewKey } from '../jobs/keys.ts';

export const KEY_PREFIX = 'ffj_';
const ID_LENGTH = 10;
/** 200 bits. */
const SECRET_LENGTH = 40;
const KEY = /^ffj_([a-z2-7]{10})_[a-z2-7]{40}$/;
const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';
/** How often the times of last use are written. */
const WRITE_USES_MS = 60_000;

export interface KeyringOptions {
  readonly store: KeyStore;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  readonly random?: (bytes: number) => Uint8Array;
  /** Tiers that a key may name. */
  readonly tiers: ReadonlySet<string>;
  /** Told when times of last use could not be written; they are tried again. */
  readonly onProblem?: (error: unknown) => void;
}

export class Keyring implements KeyAdmin, AsyncDisposable {
  readonly #options: KeyringOptions;
  readonly #now: () => number;
  readonly #random: (bytes: number) => Uint8Array;
  readonly #timer: NodeJS.Timeout;
  #uses = new Map<string, number>();
  /** Told of each key that this process has revoked or replaced. */
  onChange: (() => void) | undefined;

  constructor(options: KeyringOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#random = options.random ?? randomBytes;
    this.#timer = setInterval(() => void this.#writeUses(), WRITE_USES_MS);
    this.#timer.unref();
  }

  /** The identity of whoever holds `text`; throws UNAUTHENTICATED where it is no key that works. */
  async verify(text: string): Promise<Identity> {
    const id = KEY.exec(text)?.[1];
    const key = id === undefined ? undefined : await this.#options.store.find(id);
    if (!key || !timingSafeEqual(hashOf(text), key.hash)) {
      throw new JobsError('unauthenticated', 'CREDENTIALS_INVALID', 'this is no API key of this service');
    }
    this.#assertWorks(key);
    this.#uses.set(key.id, this.#now());
    return identityOf(key);
  }

  /** As the key of an identity is now; throws UNAUTHENTICATED when it works no more. */
  async recheck(name: string): Promise<Identity> {
    const key = await this.#options.store.find(name.slice('key:'.length));
    if (!key) throw new JobsError('unauthenticated', 'CREDENTIALS_INVALID', 'the API key is gone');
    this.#assertWorks(key);
    return identityOf(key);
  }

  async create(wanted: NewKey): Promise<CreatedKey> {
    const created = this.#make(wanted, this.#now());
    await this.#options.store.add(created.key);
    return created;
  }

  async list(tenant: string | undefined): Promise<readonly ApiKey[]> {
    const keys = await this.#options.store.list(tenant);
    return keys.map((key) => ({ ...key, lastUsedMs: this.#uses.get(key.id) ?? key.lastUsedMs }));
  }

  async revoke(id: string): Promise<ApiKey> {
    const key = await this.#options.store.revoke(id, this.#now());
    if (!key) throw notFound(id);
    this.onChange?.();
    return key;
  }

  async rotate(
    id: string,
    { overlapMs, ttlMs }: { readonly overlapMs: number; readonly ttlMs: number | undefined },
  ): Promise<CreatedKey & { readonly replaced: ApiKey }> {
    const { store } = this.#options;
    const old = await store.find(id);
    if (!old) throw notFound(id);
    const nowMs = this.#now();
    const madeFor = old.expiresMs === undefined ? undefined : old.expiresMs - old.createdMs;
    const { name, tenant, scopes, tier } = old;
    const created = this.#make({ name, tenant, scopes, tier, ttlMs: ttlMs ?? madeFor }, nowMs);
    if (!(await store.add(created.key, { id, endsMs: nowMs + overlapMs, nowMs }))) {
      const message = `the key ${id} has ended or was rotated before: rotate the one that replaced it, or create a new one`;
      throw new JobsError('failed_precondition', 'KEY_ENDED', message, { metadata: { key_id: id } });
    }
    this.onChange?.();
    return { ...created, replaced: (await store.find(id))! };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#writeUses();
  }

  #make(wanted: NewKey, nowMs: number): CreatedKey {
    const tenant = wanted.tenant || DEFAULT_TENANT;
    const violations = [];
    if (!TENANT_NAME.test(tenant)) {
      const description = 'a tenant has a name of at most 64 letters, digits, dots, dashes and underscores, a letter or digit first';
      violations.push({ field: 'tenant', reason: 'INVALID_NAME', description });
    }
    if (wanted.tier !== '' && !this.#options.tiers.has(wanted.tier)) {
      const known = [...this.#options.tiers].join(', ') || 'none is configured';
      violations.push({ field: 'tier', reason: 'NOT_A_CHOICE', description: `there is no tier '${wanted.tier}'; allowed: ${known}` });
    }
    if (violations.length > 0) throw JobsError.invalid(violations);
    const id = this.#text(ID_LENGTH);
    const secret = `${KEY_PREFIX}${id}_${this.#text(SECRET_LENGTH)}`;
    const key: ApiKey = {
      id,
      name: wanted.name,
      tenant,
      scopes: wanted.scopes.length > 0 ? [...wanted.scopes] : ['read', 'submit'],
      tier: wanted.tier,
      hash: hashOf(secret),
      createdMs: nowMs,
      expiresMs: wanted.ttlMs === undefined ? undefined : nowMs + wanted.ttlMs,
      revokedMs: undefined,
      lastUsedMs: undefined,
      replacedBy: undefined,
    };
    return { key, secret };
  }

  #text(length: number): string {
    return Array.from(this.#random(length), (byte) => BASE32[byte & 31]).join('');
  }

  #assertWorks(key: ApiKey): void {
    if (key.revokedMs !== undefined) throw new JobsError('unauthenticated', 'CREDENTIALS_EXPIRED', `the API key ${key.id} was revoked`);
    if (key.expiresMs !== undefined && key.expiresMs <= this.#now()) {
      throw new JobsError('unauthenticated', 'CREDENTIALS_EXPIRED', `the API key ${key.id} has expired`);
    }
  }

  async #writeUses(): Promise<void> {
    if (this.#uses.size === 0) return;
    const uses = this.#uses;
    this.#uses = new Map();
    try {
      await this.#options.store.used(uses);
    } catch (error) {
      for (const [id, ms] of uses) if (!this.#uses.has(id)) this.#uses.set(id, ms);
      this.#options.onProblem?.(error);
    }
  }
}

function identityOf(key: ApiKey): Identity {
  const scopes = new Set(key.scopes);
  return {
    kind: 'key',
    tenant: key.tenant,
    name: `key:${key.id}`,
    scopes,
    tier: key.tier || undefined,
    expiresMs: key.expiresMs,
    seesAll: scopes.has('admin'),
  };
}

function hashOf(text: string): Uint8Array {
  return createHash('sha256').update(text).digest();
}

function notFound(id: string): JobsError {
  return new JobsError('not_found', 'KEY_NOT_FOUND', `there is no API key '${id}'`, { metadata: { key_id: id } });
}
