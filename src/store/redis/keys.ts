// API keys in Redis, beside the jobs. Always true: what is kept is a hash, from which no key can be made.
import type { ApiKey, KeyStore } from '../../jobs/keys.ts';
import type { Reply } from './connection.ts';

/** Runs keys.lua; throws once the store is closed. */
type RunKeys = (args: readonly (string | number)[]) => Promise<Reply>;

type Row = [facts: Buffer, expires: Buffer | null, revoked: Buffer | null, used: Buffer | null, replaced: Buffer | null];

export class RedisKeys implements KeyStore {
  readonly #run: RunKeys;

  constructor(run: RunKeys) {
    this.#run = run;
  }

  async find(id: string): Promise<ApiKey | undefined> {
    return decode((await this.#run(['find', id])) as Row | null);
  }

  async list(tenant: string | undefined): Promise<readonly ApiKey[]> {
    const keys = ((await this.#run(['list'])) as Row[]).map((row) => decode(row)!);
    // Equal times come in the order of their ids.
    keys.sort((a, b) => b.createdMs - a.createdMs || (a.id < b.id ? -1 : 1));
    return tenant === undefined ? keys : keys.filter((key) => key.tenant === tenant);
  }

  async add(key: ApiKey, replaces?: { readonly id: string; readonly endsMs: number; readonly nowMs: number }): Promise<boolean> {
    const { id, name, tenant, scopes, tier, hash, createdMs } = key;
    const facts = JSON.stringify({ id, name, tenant, scopes, tier, hash: Buffer.from(hash).toString('base64'), createdMs });
    const other = replaces ? [replaces.id, replaces.endsMs, replaces.nowMs] : [];
    return (await this.#run(['add', id, createdMs, facts, key.expiresMs ?? '', ...other])) === 1;
  }

  async revoke(id: string, nowMs: number): Promise<ApiKey | undefined> {
    return decode((await this.#run(['revoke', id, nowMs])) as Row | null);
  }

  async used(times: ReadonlyMap<string, number>): Promise<void> {
    await this.#run(['used', ...[...times].flat()]);
  }
}

function decode(row: Row | null): ApiKey | undefined {
  if (!row) return undefined;
  const [facts, expires, revoked, used, replaced] = row;
  const { hash, ...rest } = JSON.parse(facts.toString()) as Pick<ApiKey, 'id' | 'name' | 'tenant' | 'scopes' | 'tier' | 'createdMs'> & {
    hash: string;
  };
  const time = (value: Buffer | null) => (value ? Number(value) : undefined);
  return {
    ...rest,
    hash: new Uint8Array(Buffer.from(hash, 'base64')),
    expiresMs: time(expires),
    revokedMs: time(revoked),
    lastUsedMs: time(used),
    replacedBy: replaced?.toString(),
  };
}
