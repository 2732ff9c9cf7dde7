// Keys in memory, for tests of what is above the store; `test/contract/key-store.ts` says how a store behaves, and this one is held to it too.
import type { ApiKey, KeyStore } from '../../src/jobs/keys.ts';

export class MemoryKeys implements KeyStore {
  readonly keys = new Map<string, ApiKey>();
  /** Look-ups so far. */
  finds = 0;

  async find(id: string): Promise<ApiKey | undefined> {
    this.finds++;
    return this.keys.get(id);
  }

  async list(tenant: string | undefined): Promise<readonly ApiKey[]> {
    const all = [...this.keys.values()].sort((a, b) => b.createdMs - a.createdMs || (a.id < b.id ? -1 : 1));
    return all.filter((key) => tenant === undefined || key.tenant === tenant);
  }

  async add(key: ApiKey, replaces?: { readonly id: string; readonly endsMs: number; readonly nowMs: number }): Promise<boolean> {
    if (replaces) {
      const old = this.keys.get(replaces.id);
      const ended = old?.revokedMs !== undefined || (old?.expiresMs !== undefined && old.expiresMs <= replaces.nowMs);
      if (!old || ended || old.replacedBy !== undefined) return false;
      this.keys.set(old.id, { ...old, replacedBy: key.id, expiresMs: Math.min(old.expiresMs ?? replaces.endsMs, replaces.endsMs) });
    }
    this.keys.set(key.id, key);
    return true;
  }

  async revoke(id: string, nowMs: number): Promise<ApiKey | undefined> {
    const key = this.keys.get(id);
    if (key && key.revokedMs === undefined) this.keys.set(id, { ...key, revokedMs: nowMs });
    return this.keys.get(id);
  }

  async used(times: ReadonlyMap<string, number>): Promise<void> {
    for (const [id, ms] of times) {
      const key = this.keys.get(id);
      if (key) this.keys.set(id, { ...key, lastUsedMs: Math.max(key.lastUsedMs ?? 0, ms) });
    }
  }
}
