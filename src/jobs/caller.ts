// Who calls, as every part of the service knows it. Always true: an identity is immutable, made by whoever checked a credential, and says what
// may be done (scopes) and whose jobs are meant (tenant); no scope gives sight of another tenant's jobs.

export const SCOPES = ['read', 'submit', 'admin'] as const;
export type Scope = (typeof SCOPES)[number];

/** The tenant of whoever has no other: all callers of a service without identities, and keys that name none. */
export const DEFAULT_TENANT = 'default';

export interface Identity {
  readonly kind: 'anonymous' | 'key' | 'jwt' | 'certificate';
  readonly tenant: string;
  /** For logs and people: `key:ab12cd34`, `jwt:SUBJECT`, `certificate:SUBJECT`, `anonymous`. Never a secret. */
  readonly name: string;
  readonly scopes: ReadonlySet<Scope>;
  /** Tier of limits that the credential brings; undefined: its tenant's. */
  readonly tier: string | undefined;
  /** Milliseconds since 1970 from which the credential is void; undefined: it does not end by itself. */
  readonly expiresMs: number | undefined;
  /** Figures of all tenants may be shown: the operator's, or there is one tenant only. */
  readonly seesAll: boolean;
}

/** One call's caller. */
export interface Caller {
  readonly identity: Identity;
  /** The address that the call came from, as far as configured proxies tell. */
  readonly address: string;
  /** It came from this machine and no proxy handed it on. */
  readonly local: boolean;
}

/** Names of tenants become names of folders: one path segment, no hidden one. */
export const TENANT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
