// API keys in the job store's file. Always true: a key is replaced once; a key that has ended stays in the list.
import type { DatabaseSync } from 'node:sqlite';
import type { Scope } from '../jobs/caller.ts';
import type { ApiKey, KeyStore } from '../jobs/keys.ts';

/** Runs a step of the store; answers after COMMIT. */
type RunStep = <T>(durable: boolean, run: () => T) => Promise<T>;

type Row = Record<string, unknown>;

const COLUMNS = 'key_id, name, tenant, scopes, tier, hash, created_ms, expires_ms, revoked_ms, last_used_ms, replaced_by';

export class SqliteKeys implements KeyStore {
  readonly #step: RunStep;
  readonly #assertOpen: () => void;
  readonly #find;
  readonly #all;
  readonly #ofTenant;
  readonly #insert;
  readonly #replace;
  readonly #revoke;
  readonly #use;

  /** `assertOpen` throws once the file is closed. */
  constructor(db: DatabaseSync, step: RunStep, assertOpen: () => void) {
    this.#step = step;
    this.#assertOpen = assertOpen;
    this.#find = db.prepare(`SELECT ${COLUMNS} FROM api_keys WHERE key_id = ?`);
    this.#all = db.prepare(`SELECT ${COLUMNS} FROM api_keys ORDER BY created_ms DESC, key_id`);
    this.#ofTenant = db.prepare(`SELECT ${COLUMNS} FROM api_keys WHERE tenant = ? ORDER BY created_ms DESC, key_id`);
    this.#insert = db.prepare(`INSERT INTO api_keys (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)`);
    this.#replace = db.prepare(
      `UPDATE api_keys SET replaced_by = ?, expires_ms = min(coalesce(expires_ms, ?2), ?2)
       WHERE key_id = ?3 AND replaced_by IS NULL AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?4)`,
    );
    this.#revoke = db.prepare('UPDATE api_keys SET revoked_ms = ? WHERE key_id = ? AND revoked_ms IS NULL');
    this.#use = db.prepare('UPDATE api_keys SET last_used_ms = max(coalesce(last_used_ms, 0), ?) WHERE key_id = ?');
  }

  async find(id: string): Promise<ApiKey | undefined> {
    this.#assertOpen();
    const row = this.#find.get(id) as Row | undefined;
    return row && decode(row);
  }

  async list(tenant: string | undefined): Promise<readonly ApiKey[]> {
    this.#assertOpen();
    const rows = (tenant === undefined ? this.#all.all() : this.#ofTenant.all(tenant)) as Row[];
    return rows.map(decode);
  }

  async add(key: ApiKey, replaces?: { readonly id: string; readonly endsMs: number; readonly nowMs: number }): Promise<boolean> {
    return await this.#step(true, () => {
      if (replaces && this.#replace.run(key.id, replaces.endsMs, replaces.id, replaces.nowMs).changes === 0) return false;
      this.#insert.run(key.id, key.name, key.tenant, key.scopes.join(' '), key.tier, key.hash, key.createdMs, key.expiresMs ?? null);
      return true;
    });
  }

  async revoke(id: string, nowMs: number): Promise<ApiKey | undefined> {
    return await this.#step(true, () => {
      this.#revoke.run(nowMs, id);
      const row = this.#find.get(id) as Row | undefined;
      return row && decode(row);
    });
  }

  async used(times: ReadonlyMap<string, number>): Promise<void> {
    await this.#step(false, () => {
      for (const [id, ms] of times) this.#use.run(ms, id);
    });
  }
}

function decode(row: Row): ApiKey {
  const optional = <T>(value: unknown) => (value ?? undefined) as T | undefined;
  return {
    id: row.key_id as string,
    name: row.name as string,
    tenant: row.tenant as string,
    scopes: (row.scopes as string).split(' ') as Scope[],
    tier: row.tier as string,
    hash: row.hash as Uint8Array,
    createdMs: row.created_ms as number,
    expiresMs: optional(row.expires_ms),
    revokedMs: optional(row.revoked_ms),
    lastUsedMs: optional(row.last_used_ms),
    replacedBy: optional(row.replaced_by),
  };
}
