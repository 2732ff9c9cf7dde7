// AccessService: who the caller is, what its tenant has used, and the API keys. Who may ask for what is said where all rules are.
import { create } from '@bufbuild/protobuf';
import { durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  type AccessService,
  type ApiKey as ApiKeyMessage,
  ApiKeySchema,
  CreateKeyResponseSchema,
  GetIdentityResponseSchema,
  GetUsageResponseSchema,
  ListKeysResponseSchema,
  RevokeKeyResponseSchema,
  RotateKeyResponseSchema,
  Scope as ScopeMessage,
} from '../../gen/facefusion/jobs/v1/access_service_pb.js';
import type { Scope } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { ApiKey, KeyAdmin } from '../jobs/keys.ts';
import type { JobStore } from '../jobs/ports.ts';
import type { TenantPolicy } from '../jobs/tenants.ts';
import { callerOf } from './authorize.ts';

export interface AccessServiceOptions {
  /** Undefined: this service takes no API keys. */
  readonly keys: KeyAdmin | undefined;
  readonly store: Pick<JobStore, 'usage'>;
  readonly policyOf: (tenant: string) => TenantPolicy;
}

const OVERLAP_MS = 24 * 3_600_000;
const SCOPES: Readonly<Record<Scope, ScopeMessage>> = {
  read: ScopeMessage.READ,
  submit: ScopeMessage.SUBMIT,
  admin: ScopeMessage.ADMIN,
};

export function createAccessService(options: AccessServiceOptions): ServiceImpl<typeof AccessService> {
  const keys = (): KeyAdmin => {
    if (options.keys) return options.keys;
    throw new JobsError(
      'failed_precondition',
      'KEYS_OFF',
      'this service takes no API keys: its operator turns them on with FFJOBS_API_KEYS=on',
    );
  };
  return {
    getIdentity(_request, context) {
      const { tenant, name, scopes, expiresMs } = callerOf(context).identity;
      return create(GetIdentityResponseSchema, {
        tenant,
        name,
        scopes: [...scopes].map((scope) => SCOPES[scope]),
        expireTime: time(expiresMs),
      });
    },

    async getUsage({ tenant: asked }, context) {
      const { identity } = callerOf(context);
      const tenant = asked || identity.tenant;
      if (tenant !== identity.tenant && !identity.scopes.has('admin')) {
        throw new JobsError('denied', 'SCOPE_MISSING', "what another tenant has used is for the scope 'admin'", {
          metadata: { scope: 'admin' },
        });
      }
      const { queued, running, gpuSecondsToday, storedBytes } = await options.store.usage(tenant);
      const { quotas } = options.policyOf(tenant);
      return create(GetUsageResponseSchema, {
        tenant,
        queued: { used: queued, limit: quotas.queuedJobs },
        running: { used: running, limit: quotas.runningJobs },
        gpuSecondsToday: { used: gpuSecondsToday, limit: quotas.gpuSecondsPerDay },
        storedBytes: { used: BigInt(storedBytes), limit: quotas.storedBytes === undefined ? undefined : BigInt(quotas.storedBytes) },
      });
    },

    async createKey({ name, tenant, scopes, tier, ttl }) {
      const wanted = { name, tenant, scopes: scopes.map(scopeOf), tier, ttlMs: ttl && durationMs(ttl) };
      const { key, secret } = await keys().create(wanted);
      return create(CreateKeyResponseSchema, { key: messageOf(key), secret });
    },

    listKeys: async ({ tenant }) => create(ListKeysResponseSchema, { keys: (await keys().list(tenant || undefined)).map(messageOf) }),

    revokeKey: async ({ keyId }) => create(RevokeKeyResponseSchema, { key: messageOf(await keys().revoke(keyId)) }),

    async rotateKey({ keyId, overlap, ttl }) {
      const times = { overlapMs: overlap ? durationMs(overlap) : OVERLAP_MS, ttlMs: ttl && durationMs(ttl) };
      const { key, secret, replaced } = await keys().rotate(keyId, times);
      return create(RotateKeyResponseSchema, { key: messageOf(key), secret, replaced: messageOf(replaced) });
    },
  };
}

function scopeOf(message: ScopeMessage): Scope {
  const [scope] = Object.entries(SCOPES).find(([, value]) => value === message)!;
  return scope as Scope;
}

function messageOf(key: ApiKey): ApiKeyMessage {
  return create(ApiKeySchema, {
    keyId: key.id,
    name: key.name,
    tenant: key.tenant,
    scopes: key.scopes.map((scope) => SCOPES[scope]),
    tier: key.tier,
    createdAt: time(key.createdMs),
    expireTime: time(key.expiresMs),
    revokedAt: time(key.revokedMs),
    lastUsedAt: time(key.lastUsedMs),
    replacedBy: key.replacedBy ?? '',
  });
}

function time(ms: number | undefined) {
  return ms === undefined ? undefined : timestampFromMs(ms);
}
