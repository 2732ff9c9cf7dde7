// Who may call, as the settings say: which identities there are, what strangers may, and what is noted. Always true: a service that others than this
// machine can reach has identities, or its operator has said that it needs none.
import { resolve } from 'node:path';
import { SCOPES, type Scope } from '../jobs/caller.ts';
import { block, bytes, isLoopback, list, oneOf, rate, setting, text, type ValuesOf } from './values.ts';

export interface AccessConfig {
  readonly apiKeys: boolean;
  readonly jwt: JwtConfig | undefined;
  /** JSON file of tenants, tiers and certificates. */
  readonly tenants: string | undefined;
  /** Some way to have an identity is configured: there are tenants. */
  readonly identities: boolean;
  /** Names that callers may use for the service; undefined: any. Only where everybody on this machine may call. */
  readonly hostNames: readonly string[] | undefined;
  /** Scopes of a caller without a credential; undefined: there has to be one. */
  readonly anonymousScopes: readonly Scope[] | undefined;
  /** Submits of such a caller, by address; undefined: no limit. */
  readonly anonymousRate: { readonly points: number; readonly seconds: number } | undefined;
  readonly limitLoopback: boolean;
  readonly trustedProxies: readonly string[];
  /** Path, or stdout; undefined: no audit log. */
  readonly audit: string | undefined;
  readonly auditMaxBytes: number;
  readonly attestation: boolean;
}

export interface JwtConfig {
  /** URL or path of a key set. */
  readonly jwks: string | undefined;
  readonly secretFile: string | undefined;
  readonly issuer: string;
  readonly audience: string;
  /** Empty: all are of the default tenant. */
  readonly tenantClaim: string;
  readonly scopeClaim: string;
  readonly scopePrefix: string;
}

const scope = (entry: string) => ((SCOPES as readonly string[]).includes(entry) ? undefined : `${SCOPES.join(', ')}, with commas between`);

/** Part of `SETTINGS`. */
export const ACCESS_SETTINGS = {
  API_KEYS: setting(oneOf('on', 'off'), 'off', 'on: callers have API keys, made by `ffjobs keys create`'),
  JWT_JWKS: setting(text, undefined, 'callers have tokens (JWT): https URL or file of the key set of their issuer'),
  JWT_SECRET_FILE: setting(text, undefined, 'likewise: file with the secret (at least 32 bytes) that tokens are signed with'),
  JWT_ISSUER: setting(text, undefined, 'claim `iss` that tokens must have'),
  JWT_AUDIENCE: setting(text, undefined, 'claim `aud` that tokens must have'),
  JWT_TENANT_CLAIM: setting(text, 'tenant', 'claim, or JSON pointer such as /org/id, with the tenant; `none`: all are of one tenant'),
  JWT_SCOPE_CLAIM: setting(text, 'scope', 'likewise: scopes, as a text with blanks between or a list'),
  JWT_SCOPE_PREFIX: setting(text, '', 'what stands before each scope of this service in that claim, such as ffjobs:'),
  TENANTS: setting(text, undefined, 'JSON file of tenants: tiers, quotas, roots, buckets, denied options, certificates'),
  ALLOW_ANONYMOUS: setting(oneOf('yes', 'no'), 'no', 'yes: callers without a credential are let in, on other addresses than loopback too'),
  ANONYMOUS_SCOPES: setting(
    list(scope),
    '',
    'what they may: read, submit, admin; default: read,submit, and admin too where only this machine can call',
  ),
  ANONYMOUS_SUBMITS: setting(rate, '5/1m', 'how often each of their addresses may submit; `off` for no limit'),
  LIMIT_LOOPBACK: setting(oneOf('yes', 'no'), 'no', 'yes: that limit is for callers on this machine too'),
  TRUSTED_PROXIES: setting(list(block), '', 'addresses and CIDR blocks of proxies whose X-Forwarded-For is believed, with commas between'),
  AUDIT: setting(
    text,
    'auto',
    'audit log: a file, stdout or off; auto: DATA_DIR/audit/audit.jsonl, unless only this machine can call without identity',
  ),
  AUDIT_MAX_BYTES: setting(bytes, '100M', 'size from which the audit log begins a new file; none is ever deleted'),
  ATTESTATION: setting(oneOf('optional', 'required'), 'optional', 'required: a job without a statement of consent is refused'),
} as const;

/** Beside its own settings those of the port, which say who can reach it. */
type Values = ValuesOf<typeof ACCESS_SETTINGS> & {
  readonly HOST: string | undefined;
  readonly ROLE: string | undefined;
  readonly PUBLIC_URL: string | undefined;
  readonly TLS_CERT: string | undefined;
  readonly TLS_CLIENT_CA: string | undefined;
};

/** One sentence a problem; what is not set because it was wrong is passed over. */
export function accessProblems(v: Values): string[] {
  const problems: string[] = [];
  const { tokens, identities, local } = reachOf(v);
  if (v.HOST !== undefined && !local && !identities && v.ALLOW_ANONYMOUS !== 'yes') {
    problems.push(
      `FFJOBS_HOST is '${v.HOST}', and anybody who reaches it could use the service: there are no identities configured. ` +
        'Set FFJOBS_API_KEYS=on (or FFJOBS_JWT_JWKS, or FFJOBS_TLS_CLIENT_CA), listen on 127.0.0.1, or set FFJOBS_ALLOW_ANONYMOUS=yes if that is what you want',
    );
  }
  for (const name of ['JWT_ISSUER', 'JWT_AUDIENCE'] as const) {
    if (tokens && v[name] === undefined)
      problems.push(`FFJOBS_${name} is missing: without it tokens that were made for others would be taken`);
  }
  if (v.JWT_JWKS !== undefined && /^[a-z]+:\/\//i.test(v.JWT_JWKS) && !isSafeUrl(v.JWT_JWKS)) {
    problems.push(`FFJOBS_JWT_JWKS is '${v.JWT_JWKS}'; allowed: an https URL (http on this machine alone), or the path of a file`);
  }
  // A worker of a fleet has to know that there are identities, and answers nobody.
  if (v.TLS_CLIENT_CA !== undefined && v.TLS_CERT === undefined && v.ROLE !== 'worker')
    problems.push('FFJOBS_TLS_CLIENT_CA needs FFJOBS_TLS_CERT and FFJOBS_TLS_KEY');
  if (v.TLS_CLIENT_CA !== undefined && v.TENANTS === undefined) {
    problems.push('FFJOBS_TLS_CLIENT_CA needs FFJOBS_TENANTS, which says for whom certificates stand');
  }
  if (identities && v.ALLOW_ANONYMOUS !== 'yes' && v.ANONYMOUS_SCOPES?.length) {
    problems.push('FFJOBS_ANONYMOUS_SCOPES says what strangers may, and none are let in: set FFJOBS_ALLOW_ANONYMOUS=yes, or leave it out');
  }
  return problems;
}

/** Of values without problems. */
export function accessConfig(v: Values, cwd: string, dataDir: string): AccessConfig {
  const { tokens, identities, local } = reachOf(v);
  const path = (value: string | undefined) => (value === undefined ? undefined : resolve(cwd, value));
  return {
    apiKeys: v.API_KEYS === 'on',
    jwt: tokens
      ? Object.freeze({
          jwks: v.JWT_JWKS !== undefined && /^https?:/.test(v.JWT_JWKS) ? v.JWT_JWKS : path(v.JWT_JWKS),
          secretFile: path(v.JWT_SECRET_FILE),
          issuer: v.JWT_ISSUER!,
          audience: v.JWT_AUDIENCE!,
          tenantClaim: v.JWT_TENANT_CLAIM === 'none' ? '' : v.JWT_TENANT_CLAIM!,
          scopeClaim: v.JWT_SCOPE_CLAIM!,
          scopePrefix: v.JWT_SCOPE_PREFIX!,
        })
      : undefined,
    tenants: path(v.TENANTS),
    identities,
    hostNames: identities || v.ALLOW_ANONYMOUS === 'yes' || !isLoopback(v.HOST!) ? undefined : ownNames(v.HOST!, v.PUBLIC_URL),
    anonymousScopes: identities && v.ALLOW_ANONYMOUS !== 'yes' ? undefined : anonymousScopes(v.ANONYMOUS_SCOPES, local && !identities),
    anonymousRate: v.ANONYMOUS_SUBMITS,
    limitLoopback: v.LIMIT_LOOPBACK === 'yes',
    trustedProxies: Object.freeze([...v.TRUSTED_PROXIES!]),
    audit: auditOf(v.AUDIT!, dataDir, cwd, identities || !local),
    auditMaxBytes: v.AUDIT_MAX_BYTES!,
    attestation: v.ATTESTATION === 'required',
  };
}

/** `local`: nobody but this machine can call. */
function reachOf(v: Values): { readonly tokens: boolean; readonly identities: boolean; readonly local: boolean } {
  const tokens = v.JWT_JWKS !== undefined || v.JWT_SECRET_FILE !== undefined;
  const identities = v.API_KEYS === 'on' || tokens || v.TLS_CLIENT_CA !== undefined;
  // A worker's port tells its health and serves nothing.
  const local = v.ROLE === 'worker' || (v.HOST !== undefined && isLoopback(v.HOST));
  return { tokens, identities, local };
}

/** Whoever can reach a service that only this machine can may do everything with it. */
function anonymousScopes(given: readonly string[] | undefined, onlyLocal: boolean): readonly Scope[] {
  if (given?.length) return Object.freeze([...given] as Scope[]);
  return Object.freeze<Scope[]>(onlyLocal ? ['read', 'submit', 'admin'] : ['read', 'submit']);
}

function auditOf(given: string, dataDir: string, cwd: string, reachable: boolean): string | undefined {
  if (given === 'off') return undefined;
  if (given === 'auto') return reachable ? resolve(dataDir, 'audit', 'audit.jsonl') : undefined;
  return given === 'stdout' ? given : resolve(cwd, given);
}

function isSafeUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname } = new URL(text);
  return protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname.replace(/^\[|\]$/g, '')));
}

/** What a service on loopback is called by those who mean it. */
function ownNames(host: string, publicUrl: string | undefined): readonly string[] {
  const names = ['localhost', '127.0.0.1', '[::1]', host.includes(':') ? `[${host}]` : host];
  if (publicUrl !== undefined) names.push(new URL(publicUrl).hostname);
  return Object.freeze(names.map((name) => name.toLowerCase()));
}
