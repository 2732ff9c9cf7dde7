// `ffjobs keys create | list | revoke | rotate` and `ffjobs audit verify`. Keys are made in the job store of this machine, or by a running service
// for whoever has an administrator's credential (FFJOBS_TOKEN); what is shown is the same. A key is written to standard output once.
import { type Duration, durationMs, type Timestamp, timestampDate, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import { type ApiKey as ApiKeyMessage, Scope as ScopeMessage } from '../../../gen/facefusion/jobs/v1/access_service_pb.js';
import type { Config } from '../../config.ts';
import { SCOPES, type Scope } from '../../jobs/caller.ts';
import { JobsError } from '../../jobs/errors.ts';
import type { ApiKey, KeyAdmin } from '../../jobs/keys.ts';
import { connect } from '../remote/client.ts';
import { CliError, Exit, type ExitCode } from '../remote/errors.ts';
import { duration, many } from '../remote/request.ts';
import { answer, answerJson, say, type Terminal } from '../remote/terminal.ts';
import { type Environment, readSettings } from './settings.ts';

/** What the composition root gives this folder, which knows neither stores nor the audit log's form. */
export interface AccessTools {
  readonly openKeys: (config: Config) => Promise<KeyAdmin & AsyncDisposable>;
  readonly verifyAudit: (path: string, noted?: string) => Promise<AuditReport>;
}

export interface AuditReport {
  readonly files: number;
  readonly lines: number;
  readonly last: { readonly seq: number; readonly hash: string } | undefined;
  readonly tornBytes: number;
  readonly problem: string | undefined;
}

export interface AccessContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  readonly access: AccessTools;
  readonly token: string | undefined;
  finish(code: ExitCode): void;
}

/** A key as it is shown, wherever it comes from. */
interface Shown {
  readonly key_id: string;
  readonly name: string;
  readonly tenant: string;
  readonly scopes: readonly string[];
  readonly tier: string;
  readonly created_at: string | null;
  readonly expire_time: string | null;
  readonly revoked_at: string | null;
  readonly last_used_at: string | null;
  readonly replaced_by: string;
}

interface Wanted {
  readonly name: string;
  readonly tenant: string;
  readonly scopes: readonly Scope[];
  readonly tier: string;
  readonly ttl: Duration | undefined;
}

/** The same four things, done here or by a service. */
interface Keys {
  create(wanted: Wanted): Promise<{ readonly key: Shown; readonly secret: string }>;
  list(tenant: string): Promise<readonly Shown[]>;
  revoke(id: string): Promise<Shown>;
  rotate(
    id: string,
    times: { overlap: Duration | undefined; ttl: Duration | undefined },
  ): Promise<{ key: Shown; secret: string; replaced: Shown }>;
}

const OVERLAP_MS = 24 * 3_600_000;

export function addAccessCommands(program: Command, context: AccessContext): void {
  const { terminal } = context;
  const json = () => program.opts<{ json: boolean }>().json;
  /** With the keys that the surroundings mean: an administrator's credential means the service's. */
  const withKeys = async (run: (keys: Keys) => Promise<void>): Promise<void> => {
    if (context.token !== undefined) {
      using service = connect(program.opts<{ server: string }>().server, { token: context.token });
      await run(remoteKeys(service));
    } else {
      await using keys = await openHere(context);
      await run(localKeys(keys));
    }
    context.finish(Exit.ok);
  };
  const show = (secret: string, key: Shown, more: object = {}) => {
    if (json()) return answerJson(terminal, { secret, key, ...more });
    say(
      terminal,
      `${key.key_id}: tenant ${key.tenant}, scopes ${key.scopes.join(', ')}${key.expire_time ? `, until ${key.expire_time}` : ''}`,
    );
    say(terminal, 'This is the key. It is shown this once; only its hash is kept:');
    answer(terminal, secret);
  };

  const keys = program
    .command('keys')
    .description(
      'API keys: of the job store here while no service uses it, or of a running service, with FFJOBS_TOKEN of an administrator',
    );
  keys
    .command('create')
    .description('make a key, and write it to standard output')
    .option('--name <text>', 'for people', '')
    .option('--tenant <name>', 'whose jobs it is for', 'default')
    .option('--scope <scope>', `${SCOPES.join(', ')} (repeatable; default: read and submit)`, many)
    .option('--tier <name>', 'tier of limits, of those in FFJOBS_TENANTS', '')
    .option('--ttl <duration>', 'ends after this, such as 90d; default: never')
    .action(async (flags: { name: string; tenant: string; scope?: string[]; tier: string; ttl?: string }) => {
      const { name, tenant, tier } = flags;
      const wanted = { name, tenant, tier, scopes: (flags.scope ?? ['read', 'submit']).map(scopeOf), ttl: duration(flags.ttl, '--ttl') };
      await withKeys(async (all) => {
        const { key, secret } = await all.create(wanted);
        show(secret, key);
      });
    });
  keys
    .command('list')
    .description('all keys, those that no longer work included')
    .option('--tenant <name>', 'of one tenant', '')
    .action(({ tenant }: { tenant: string }) =>
      withKeys(async (all) => {
        const found = await all.list(tenant);
        if (json()) for (const key of found) answerJson(terminal, key);
        else if (found.length === 0) say(terminal, 'There are no keys.');
        else for (const key of found) answer(terminal, lineOf(key));
      }),
    );
  keys
    .command('revoke')
    .description('end a key now')
    .argument('<id>', 'as `keys list` shows it')
    .action((id: string) =>
      withKeys(async (all) => {
        const key = await all.revoke(id);
        if (json()) answerJson(terminal, key);
        else answer(terminal, lineOf(key));
      }),
    );
  keys
    .command('rotate')
    .description('make a new key with the rights of an old one, which goes on working for a while')
    .argument('<id>', 'as `keys list` shows it')
    .option('--overlap <duration>', 'how long both work', '24h')
    .option('--ttl <duration>', 'of the new key; default: as long as the old one was made for')
    .action(async (id: string, flags: { overlap: string; ttl?: string }) => {
      const times = { overlap: duration(flags.overlap, '--overlap'), ttl: duration(flags.ttl, '--ttl') };
      await withKeys(async (all) => {
        const { key, secret, replaced } = await all.rotate(id, times);
        show(secret, key, { replaced });
        if (!json()) say(terminal, `The old key ${replaced.key_id} works until ${replaced.expire_time}.`);
      });
    });

  program
    .command('audit')
    .description('the audit log')
    .command('verify')
    .description('read it from end to end, and say whether it is as it was written')
    .argument('[file]', 'its newest file; default: where the settings put it')
    .option('--noted <hash>', 'a hash that was noted elsewhere, which must still be in it')
    .action(async (file: string | undefined, { noted }: { noted?: string }) => {
      const path = file ?? readSettings(context.env, context.cwd).audit;
      if (path === undefined || path === 'stdout') {
        throw new CliError(Exit.invalid, 'these settings keep no audit log in a file: name the file, or set FFJOBS_AUDIT');
      }
      const { problem, lines, files, last, tornBytes } = await context.access.verifyAudit(path, noted).catch((error: unknown) => {
        throw new CliError(Exit.failed, `${path} cannot be read (${(error as NodeJS.ErrnoException).code})`, { cause: error });
      });
      if (json())
        answerJson(terminal, {
          ok: problem === undefined,
          problem: problem ?? null,
          lines,
          files,
          last: last ?? null,
          torn_bytes: tornBytes,
        });
      else if (problem !== undefined) say(terminal, `ffjobs: ${problem}`);
      else {
        answer(
          terminal,
          `${lines} lines in ${files} files are as they were written; the last is ${last?.seq ?? 0}, ${last?.hash ?? 'none'}`,
        );
        if (tornBytes > 0)
          say(terminal, `After it ${tornBytes} bytes of an unfinished line follow: the writer was killed, or is writing now.`);
      }
      context.finish(problem === undefined ? Exit.ok : Exit.failed);
    });
}

async function openHere({ terminal, env, cwd, access }: AccessContext): Promise<KeyAdmin & AsyncDisposable> {
  try {
    const config = readSettings(env, cwd);
    if (!config.apiKeys) say(terminal, 'The service takes keys once FFJOBS_API_KEYS=on is set.');
    return await access.openKeys(config);
  } catch (error) {
    if (!(error instanceof Error) || !/in use by another process/.test(error.message)) throw error;
    const words = `${error.message.split(':')[0]}: set FFJOBS_TOKEN to the key of an administrator, and the running service does it; or stop it first`;
    throw new CliError(Exit.failed, words, { cause: error });
  }
}

function localKeys(keys: KeyAdmin): Keys {
  const told = async <T>(call: Promise<T>): Promise<T> => {
    try {
      return await call;
    } catch (error) {
      if (!(error instanceof JobsError)) throw error;
      throw new CliError(error.kind === 'not_found' ? Exit.notFound : Exit.invalid, error.message, { cause: error });
    }
  };
  return {
    async create({ ttl, ...wanted }) {
      const { key, secret } = await told(keys.create({ ...wanted, ttlMs: ttl && durationMs(ttl) }));
      return { key: shown(key), secret };
    },
    list: async (tenant) => (await told(keys.list(tenant || undefined))).map(shown),
    revoke: async (id) => shown(await told(keys.revoke(id))),
    async rotate(id, { overlap, ttl }) {
      const times = { overlapMs: overlap ? durationMs(overlap) : OVERLAP_MS, ttlMs: ttl && durationMs(ttl) };
      const { key, secret, replaced } = await told(keys.rotate(id, times));
      return { key: shown(key), secret, replaced: shown(replaced) };
    },
  };
}

function remoteKeys({ access }: ReturnType<typeof connect>): Keys {
  return {
    async create({ scopes, ...wanted }) {
      const { key, secret } = await access.createKey({ ...wanted, scopes: scopes.map((scope) => SCOPE_MESSAGES[scope]) });
      return { key: shownMessage(key!), secret };
    },
    list: async (tenant) => (await access.listKeys({ tenant })).keys.map(shownMessage),
    revoke: async (keyId) => shownMessage((await access.revokeKey({ keyId })).key!),
    async rotate(keyId, times) {
      const { key, secret, replaced } = await access.rotateKey({ keyId, ...times });
      return { key: shownMessage(key!), secret, replaced: shownMessage(replaced!) };
    },
  };
}

const SCOPE_MESSAGES: Readonly<Record<Scope, ScopeMessage>> = {
  read: ScopeMessage.READ,
  submit: ScopeMessage.SUBMIT,
  admin: ScopeMessage.ADMIN,
};

function shown(key: ApiKey): Shown {
  const at = (ms: number | undefined) => timeOf(ms === undefined ? undefined : timestampFromMs(ms));
  return {
    key_id: key.id,
    name: key.name,
    tenant: key.tenant,
    scopes: key.scopes,
    tier: key.tier,
    created_at: at(key.createdMs),
    expire_time: at(key.expiresMs),
    revoked_at: at(key.revokedMs),
    last_used_at: at(key.lastUsedMs),
    replaced_by: key.replacedBy ?? '',
  };
}

function shownMessage(key: ApiKeyMessage): Shown {
  return {
    key_id: key.keyId,
    name: key.name,
    tenant: key.tenant,
    scopes: key.scopes.map((scope) => ScopeMessage[scope].toLowerCase()),
    tier: key.tier,
    created_at: timeOf(key.createdAt),
    expire_time: timeOf(key.expireTime),
    revoked_at: timeOf(key.revokedAt),
    last_used_at: timeOf(key.lastUsedAt),
    replaced_by: key.replacedBy,
  };
}

function timeOf(time: Timestamp | undefined): string | null {
  return time ? timestampDate(time).toISOString() : null;
}

function lineOf(key: Shown): string {
  const state = key.revoked_at
    ? `revoked ${key.revoked_at}`
    : key.replaced_by
      ? `replaced by ${key.replaced_by}, until ${key.expire_time}`
      : key.expire_time
        ? `until ${key.expire_time}`
        : 'no end';
  const used = key.last_used_at ? `used ${key.last_used_at}` : 'never used';
  return [key.key_id, key.tenant, key.scopes.join(','), key.tier || '-', state, used, key.name].join('  ').trimEnd();
}

function scopeOf(text: string): Scope {
  if ((SCOPES as readonly string[]).includes(text)) return text as Scope;
  throw new CliError(Exit.invalid, `--scope is '${text}'; it takes ${SCOPES.join(', ')}`);
}
