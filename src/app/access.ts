// Who may call, from the settings to the guard of the port, and to what documents and commands say of it.
import { mkdir } from 'node:fs/promises';
import { type Access, type AccessOptions, loadPolicies, openAccess } from '../access/access.ts';
import { Keyring } from '../access/keys.ts';
import type { Policies } from '../access/policies.ts';
import { type Config, policyDefaults } from '../config.ts';
import type { KeyAdmin } from '../jobs/keys.ts';
import type { JobStore } from '../jobs/ports.ts';
import { createLogger, type Logger } from '../telemetry/logs.ts';
import { Closing } from './closing.ts';
import { openStore } from './storage.ts';

export interface AccessParts {
  readonly config: Config;
  readonly version: string;
  readonly log: Logger;
  readonly store: Pick<JobStore, 'keys'>;
  readonly counters: AccessOptions['counters'];
  readonly policies: Policies;
}

/** Tenants as the operator's file has them, the settings where it says nothing. Throws an `Error` that can be shown. */
export async function policiesOf(config: Config): Promise<Policies> {
  return await loadPolicies(config.tenants, policyDefaults(config));
}

/** Throws an `Error` that can be shown. */
export async function openConfiguredAccess({ config, version, log, store, counters, policies }: AccessParts): Promise<Access> {
  const { audit, auditMaxBytes: maxBytes } = config;
  return await openAccess({
    keyStore: store.keys,
    counters,
    apiKeys: config.apiKeys,
    tokens: config.jwt,
    certificates: config.tlsClientCa !== undefined,
    policies,
    anonymous: config.anonymousScopes,
    anonymousRate: config.anonymousRate,
    countLocal: config.limitLoopback,
    proxies: config.trustedProxies,
    audit: audit === undefined ? undefined : { to: audit === 'stdout' ? (text) => void process.stdout.write(text) : audit, maxBytes },
    version,
    onProblem: (error, what) => log.error({ err: error }, what),
  });
}

/** The keys of a service that is not running, or whose job store may be shared. The error of one that is in use is a sentence. */
export async function openKeys(config: Config): Promise<KeyAdmin & AsyncDisposable> {
  const log = createLogger({ level: 'silent', format: 'json', terminal: false });
  const opened = new Closing(log);
  try {
    await mkdir(config.dataDir, { recursive: true });
    const policies = await policiesOf(config);
    const { store } = await openStore(config, policies, log, opened, () => {});
    const keyring = opened.last('keys', new Keyring({ store: store.keys, tiers: new Set(policies.tiers.keys()) }));
    return {
      create: (wanted) => keyring.create(wanted),
      list: (tenant) => keyring.list(tenant),
      revoke: (id) => keyring.revoke(id),
      rotate: (id, times) => keyring.rotate(id, times),
      [Symbol.asyncDispose]: () => opened.close(),
    };
  } catch (error) {
    await opened.close();
    throw error;
  }
}
