// API keys as the service knows them, and the port that keeps them. Always true: what is kept is a hash, from which no key can be made.
import type { Scope } from './caller.ts';

export interface ApiKey {
  /** Public part of the key; finds it. */
  readonly id: string;
  readonly name: string;
  readonly tenant: string;
  readonly scopes: readonly Scope[];
  /** Empty: the tenant's. */
  readonly tier: string;
  /** SHA-256 of the whole key. A key is random, so that nothing slower is needed. */
  readonly hash: Uint8Array;
  /** Milliseconds since 1970, as all times here. */
  readonly createdMs: number;
  readonly expiresMs: number | undefined;
  readonly revokedMs: number | undefined;
  readonly lastUsedMs: number | undefined;
  /** Id of the key that it was rotated into. */
  readonly replacedBy: string | undefined;
}

/** Where keys are kept, beside the jobs. Each method is one atomic, durable step, `used` excepted, which may be lost. */
export interface KeyStore {
  find(id: string): Promise<ApiKey | undefined>;
  /** Newest first. */
  list(tenant: string | undefined): Promise<readonly ApiKey[]>;
  /** Adds a key. With `replaces`, that key must work and not be replaced already: it is replaced and ends at `endsMs` or before; false: it was not so. */
  add(key: ApiKey, replaces?: { readonly id: string; readonly endsMs: number; readonly nowMs: number }): Promise<boolean>;
  /** Revokes a key that was not; answers it as it is now; undefined: there is none. */
  revoke(id: string, nowMs: number): Promise<ApiKey | undefined>;
  /** When keys were last used, by id. */
  used(times: ReadonlyMap<string, number>): Promise<void>;
}

export interface NewKey {
  readonly name: string;
  readonly tenant: string;
  readonly scopes: readonly Scope[];
  readonly tier: string;
  readonly ttlMs: number | undefined;
}

export interface CreatedKey {
  readonly key: ApiKey;
  /** The whole key; it cannot be had again. */
  readonly secret: string;
}

/** What may be done with keys, for the rpc and the command line. */
export interface KeyAdmin {
  create(wanted: NewKey): Promise<CreatedKey>;
  list(tenant: string | undefined): Promise<readonly ApiKey[]>;
  /** Unknown: `JobsError` KEY_NOT_FOUND. */
  revoke(id: string): Promise<ApiKey>;
  /** Unknown: KEY_NOT_FOUND. One that works no more or is replaced already: KEY_ENDED. `ttlMs` undefined: as long as the old key was made for. */
  rotate(
    id: string,
    times: { readonly overlapMs: number; readonly ttlMs: number | undefined },
  ): Promise<CreatedKey & { readonly replaced: ApiKey }>;
}
