// The operator's file of tenants, tiers and certificates (JSON). Always true: what is read here is whole, checked and defaulted; a name that is not
// known, a value out of range or a tier that is not there stops the start with a sentence that says where and what is allowed.
import { isAbsolute } from 'node:path';
import { DEFAULT_TENANT, SCOPES, type Scope, TENANT_NAME } from '../jobs/caller.ts';
import { LABEL, LABEL_WORDS, type Mark, type Quotas, type TenantPolicy } from '../jobs/tenants.ts';

export interface Tier {
  /** Of a key with this tier, or of all of a tenant's callers; undefined: no limit. */
  readonly submitsPerMinute: number | undefined;
  readonly quotas: Quotas;
}

/** One tenant, as the file has it. */
export interface Tenant extends TenantPolicy {
  readonly submitsPerMinute: number | undefined;
  /** Undefined: the folder of its name under the input root. */
  readonly inputRoot: string | undefined;
  /** `bucket` or `bucket/prefix` that `s3://` inputs may name. */
  readonly inputBuckets: readonly string[];
  /** Folders that `output_uri` may name. */
  readonly outputRoots: readonly string[];
  /** Likewise buckets. */
  readonly outputBuckets: readonly string[];
}

export interface CertificateRule {
  /** A subject, as `openssl x509 -subject -nameopt RFC2253` writes it, or a name of the certificate: `DNS:...`, `URI:...`. */
  readonly subject: string;
  readonly tenant: string;
  readonly scopes: ReadonlySet<Scope>;
}

export interface Policies {
  readonly tiers: ReadonlyMap<string, Tier>;
  /** Of any tenant, listed or not. */
  tenant(name: string): Tenant;
  /** Those that are listed. */
  readonly tenants: ReadonlyMap<string, Tenant>;
  readonly certificates: readonly CertificateRule[];
}

export interface PolicyDefaults {
  readonly queuedJobs: number;
  readonly attestation: boolean;
  readonly mark: Mark;
}

export class PolicyError extends Error {
  override readonly name = 'PolicyError';
}

const NO_QUOTAS: Quotas = { queuedJobs: undefined, runningJobs: undefined, gpuSecondsPerDay: undefined, storedBytes: undefined };
const SIZES: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Policies without a file. */
export function noPolicies(defaults: PolicyDefaults): Policies {
  return readPolicies('{}', defaults);
}

/** Throws `PolicyError` with the first thing that is wrong. */
export function readPolicies(text: string, defaults: PolicyDefaults): Policies {
  const file = new Part(parse(text), '');
  const tiers = new Map<string, Tier>();
  for (const [name, part] of file.parts('tiers')) {
    tiers.set(name, {
      submitsPerMinute: part.number('submits_per_minute', 1, 1_000_000, 'whole'),
      quotas: {
        queuedJobs: part.number('queued_jobs', 0, 10_000_000, 'whole'),
        runningJobs: part.number('running_jobs', 0, 10_000, 'whole'),
        gpuSecondsPerDay: part.number('gpu_seconds_per_day', 0, 1e9),
        storedBytes: part.size('stored_bytes'),
      },
    });
    part.end();
  }
  const tenantOf = (part: Part, base: Tenant): Tenant => {
    const tierName = part.text('tier');
    const tier = tierName === undefined ? undefined : tiers.get(tierName);
    if (tierName !== undefined && !tier)
      part.fail('tier', `'${tierName}' is not among the tiers: ${[...tiers.keys()].join(', ') || 'none'}`);
    const inputRoot = part.text('input_root');
    if (inputRoot !== undefined && !isAbsolute(inputRoot)) part.fail('input_root', 'an absolute path');
    const denied = part.lists('denied_options');
    const tenant: Tenant = {
      submitsPerMinute: tier ? tier.submitsPerMinute : base.submitsPerMinute,
      quotas: tier ? { ...tier.quotas, queuedJobs: tier.quotas.queuedJobs ?? defaults.queuedJobs } : base.quotas,
      weight: part.number('weight', 0.01, 1000) ?? base.weight,
      attestation: part.flag('attestation') ?? base.attestation,
      mark: markOf(part, base.mark),
      inputRoot: inputRoot ?? base.inputRoot,
      inputBuckets: part.buckets('input_buckets') ?? base.inputBuckets,
      outputRoots: part.folders('output_roots') ?? base.outputRoots,
      outputBuckets: part.buckets('output_buckets') ?? base.outputBuckets,
      // A tenant's own list comes on top of what nobody may use.
      denied: new Map([
        ...base.denied,
        ...[...denied].map(([option, values]) => [option, [...(base.denied.get(option) ?? []), ...values]] as const),
      ]),
    };
    part.end();
    return tenant;
  };
  const unlisted: Tenant = {
    submitsPerMinute: undefined,
    quotas: { ...NO_QUOTAS, queuedJobs: defaults.queuedJobs },
    weight: 1,
    attestation: defaults.attestation,
    mark: defaults.mark,
    inputRoot: undefined,
    inputBuckets: [],
    outputRoots: [],
    outputBuckets: [],
    denied: new Map(),
  };
  const everybody = file.part('everybody');
  for (const name of ['input_root', 'output_roots'] as const) {
    if (everybody?.has(name)) everybody.fail(name, 'nothing here: a folder of all tenants would show each the files of the others');
  }
  if (everybody?.has('weight')) everybody.fail('weight', 'nothing here: it is a share against others, and theirs is 1');
  const base = everybody ? tenantOf(everybody, unlisted) : unlisted;
  const tenants = new Map<string, Tenant>();
  for (const [name, part] of file.parts('tenants')) {
    if (!TENANT_NAME.test(name))
      file.fail('tenants', `'${name}' is no name of a tenant: letters, digits, dots, dashes and underscores, at most 64`);
    tenants.set(name, tenantOf(part, base));
  }
  const certificates = file.items('certificates').map((part): CertificateRule => {
    const subject = part.text('subject');
    if (subject === undefined || subject === '') part.fail('subject', 'such as CN=render-01,O=Studio or DNS:render-01.example.com');
    const tenant = part.text('tenant') ?? DEFAULT_TENANT;
    if (!TENANT_NAME.test(tenant)) part.fail('tenant', 'the name of a tenant');
    const scopes = part.strings('scopes') ?? ['read', 'submit'];
    for (const scope of scopes) if (!(SCOPES as readonly string[]).includes(scope)) part.fail('scopes', `a list of ${SCOPES.join(', ')}`);
    part.end();
    return { subject: subject!, tenant, scopes: new Set(scopes as Scope[]) };
  });
  file.end();
  return { tiers, tenants, certificates, tenant: (name) => tenants.get(name) ?? base };
}

function markOf(part: Part, base: Mark): Mark {
  const [kind, label] = [part.choice('provenance', ['c2pa', 'off']), part.text('label')];
  if (label !== undefined && !LABEL.test(label)) part.fail('label', LABEL_WORDS);
  return { signed: kind === undefined ? base.signed : kind === 'c2pa', label: label ?? base.label };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PolicyError(`this is not JSON: ${(error as Error).message}`);
  }
}

/** One object of the file: hands out its members, each once, and at the end refuses those that nobody asked for. */
class Part {
  readonly #members: Record<string, unknown>;
  readonly #where: string;
  readonly #asked = new Set<string>();

  constructor(value: unknown, where: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new PolicyError(`${where || 'the file'} must be a JSON object`);
    this.#members = value as Record<string, unknown>;
    this.#where = where;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#members, name);
  }

  fail(name: string, allowed: string): never {
    const given = this.has(name) ? JSON.stringify(this.#members[name])?.slice(0, 100) : 'missing';
    throw new PolicyError(`${this.#path(name)} is ${given}; allowed: ${allowed}`);
  }

  end(): void {
    for (const name of Object.keys(this.#members)) {
      if (!this.#asked.has(name)) throw new PolicyError(`there is no '${this.#path(name)}'; there are: ${[...this.#asked].join(', ')}`);
    }
  }

  text(name: string): string | undefined {
    const value = this.#take(name);
    if (value !== undefined && typeof value !== 'string') this.fail(name, 'a text');
    return value as string | undefined;
  }

  choice<const T extends string>(name: string, choices: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value !== undefined && !choices.includes(value as T)) this.fail(name, choices.join(', '));
    return value as T | undefined;
  }

  flag(name: string): boolean | undefined {
    const value = this.#take(name);
    if (value !== undefined && typeof value !== 'boolean') this.fail(name, 'true or false');
    return value as boolean | undefined;
  }

  number(name: string, minimum: number, maximum: number, kind?: 'whole'): number | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    const right = typeof value === 'number' && value >= minimum && value <= maximum && (kind === undefined || Number.isInteger(value));
    if (!right) this.fail(name, `a ${kind === 'whole' ? 'whole ' : ''}number from ${minimum} to ${maximum}`);
    return value as number;
  }

  /** Bytes, as a number or such as `50G`. */
  size(name: string): number | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    const [, count, unit] = /^(\d+)([KMGT]?)$/.exec(String(value)) ?? [];
    const bytes = Number(count) * SIZES[unit ?? '']!;
    if (!(bytes <= 2 ** 50)) this.fail(name, 'a size such as 1048576, 500M, 50G');
    return bytes;
  }

  strings(name: string): readonly string[] | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || !value.every((one) => typeof one === 'string' && one !== '')) this.fail(name, 'a list of texts');
    return value as string[];
  }

  folders(name: string): readonly string[] | undefined {
    const paths = this.strings(name);
    if (paths?.some((path) => !isAbsolute(path))) this.fail(name, 'a list of absolute paths');
    return paths;
  }

  buckets(name: string): readonly string[] | undefined {
    const entries = this.strings(name);
    for (const entry of entries ?? []) {
      if (!/^[a-z\d][a-z\d.-]{1,61}[a-z\d](\/.*)?$/.test(entry)) this.fail(name, 'a list of bucket or bucket/prefix');
    }
    return entries;
  }

  lists(name: string): ReadonlyMap<string, readonly string[]> {
    const part = this.part(name);
    if (!part) return new Map();
    return new Map(Object.keys(part.#members).map((one) => [one, part.strings(one)!]));
  }

  part(name: string): Part | undefined {
    const value = this.#take(name);
    return value === undefined ? undefined : new Part(value, this.#path(name));
  }

  parts(name: string): [string, Part][] {
    const part = this.part(name);
    return part ? Object.keys(part.#members).map((one) => [one, part.part(one)!]) : [];
  }

  items(name: string): Part[] {
    const value = this.#take(name);
    if (value === undefined) return [];
    if (!Array.isArray(value)) this.fail(name, 'a list');
    return (value as unknown[]).map((one, i) => new Part(one, `${this.#path(name)}[${i}]`));
  }

  #take(name: string): unknown {
    this.#asked.add(name);
    return this.has(name) ? this.#members[name] : undefined;
  }

  #path(name: string): string {
    return this.#where === '' ? name : `${this.#where}.${name}`;
  }
}
