// The files that settings name, looked into before anything starts: one that is missing, cannot be read or does not hold what it should is said in words,
// with all others, and not met one at a time by whoever opens it.
import { X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { loadPolicies, readSecret } from '../access/access.ts';
import { type Config, policyDefaults } from '../config.ts';
import { openWebhooks } from './webhooks.ts';

/** Each is one sentence, which begins with the setting's name. */
export interface FileFindings {
  /** What keeps the service from starting. */
  readonly problems: readonly string[];
  /** What does not, and should be mended. */
  readonly warnings: readonly string[];
}

/** Looks into every file but the key that results are signed with, which is read by the process that signs alone. */
export async function fileFindings(config: Config, nowMs = Date.now()): Promise<FileFindings> {
  const [problems, warnings] = await Promise.all([problemsOf(config, nowMs), warningsOf(config, nowMs)]);
  return { problems, warnings };
}

async function problemsOf(config: Config, nowMs: number): Promise<readonly string[]> {
  const { tenants, webhookSecretsFile, jwt } = config;
  const all = await Promise.all([
    of('TENANTS', tenants, () => loadPolicies(tenants, policyDefaults(config))),
    of('JWT_SECRET_FILE', jwt?.secretFile, (path) => readSecret(path)),
    of('JWT_JWKS', isUrl(jwt?.jwks) ? undefined : jwt?.jwks, readKeySet),
    of('WEBHOOK_SECRETS_FILE', webhookSecretsFile ?? (config.webhookUrl === undefined ? undefined : ''), () => openWebhooks(config)),
    of('METRICS_TOKEN_FILE', config.metricsPort === 0 ? undefined : config.metricsTokenFile, readToken),
    tlsProblems(config, nowMs),
  ]);
  return all.flat();
}

/** Of what callers prove who they are with, and who we are. */
async function warningsOf(config: Config, nowMs: number): Promise<readonly string[]> {
  const secrets = {
    TLS_KEY: config.tlsKey,
    JWT_SECRET_FILE: config.jwt?.secretFile,
    WEBHOOK_SECRETS_FILE: config.webhookSecretsFile,
    METRICS_TOKEN_FILE: config.metricsTokenFile,
  };
  const open = Object.entries(secrets).map(async ([name, path]) =>
    path !== undefined && (await isForEverybody(path))
      ? [`FFJOBS_${name}: every user of this machine can read ${path}: chmod 600 ${path}, for the service's own user`]
      : [],
  );
  return (await Promise.all([...open, endingSoon(config.tlsCert, nowMs)])).flat();
}

async function isForEverybody(path: string): Promise<boolean> {
  if (process.platform === 'win32') return false;
  const found = await stat(path).catch(() => undefined);
  return found !== undefined && (found.mode & 0o004) !== 0;
}

const SOON_MS = 30 * 86_400_000;

async function endingSoon(path: string | undefined, nowMs: number): Promise<string[]> {
  if (path === undefined) return [];
  try {
    const { validTo } = new X509Certificate(await readFile(path));
    const left = Date.parse(validTo) - nowMs;
    return left > 0 && left < SOON_MS ? [`FFJOBS_TLS_CERT: ${path} is valid until ${validTo}: get a new certificate before then`] : [];
  } catch {
    // A problem, and told as one.
    return [];
  }
}

const MIN_TOKEN = 16;

/** A token that fits into a header. Throws an `Error` that can be shown. */
export async function readToken(path: string): Promise<string> {
  const token = (await readable(path)).toString().trim();
  if (token.length >= MIN_TOKEN && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new Error(
    `${path} holds no token: it takes at least ${MIN_TOKEN} printable characters, without blanks, such as from \`openssl rand -hex 32\``,
  );
}

async function of(name: string, path: string | undefined, read: (path: string) => Promise<unknown>): Promise<string[]> {
  if (path === undefined) return [];
  try {
    await read(path);
    return [];
  } catch (error) {
    const { message } = error as Error;
    return [message.startsWith('FFJOBS_') ? message : `FFJOBS_${name}: ${message}`];
  }
}

function isUrl(place: string | undefined): boolean {
  return place !== undefined && /^https?:/.test(place);
}

async function readKeySet(path: string): Promise<void> {
  const text = await readable(path);
  let keys: unknown;
  try {
    keys = (JSON.parse(text.toString()) as { keys?: unknown } | null)?.keys;
  } catch {}
  if (!Array.isArray(keys)) throw new Error(`${path} is no key set: it takes JSON with a list "keys" (RFC 7517)`);
}

async function tlsProblems({ tlsCert, tlsKey, tlsClientCa }: Config, nowMs: number): Promise<string[]> {
  if (tlsCert === undefined || tlsKey === undefined) return [];
  const files = await Promise.all([
    opened('TLS_CERT', tlsCert, certificate),
    opened('TLS_KEY', tlsKey, (bytes) => bytes),
    tlsClientCa === undefined ? undefined : opened('TLS_CLIENT_CA', tlsClientCa, certificate),
  ]);
  const problems = files.flatMap((file) => (file && 'problem' in file ? [file.problem] : []));
  if (problems.length > 0) return problems;
  const [cert, key, ca] = files.map((file) => (file && 'bytes' in file ? file.bytes : undefined));
  try {
    createSecureContext({ cert, key, ca });
  } catch (error) {
    const mismatch = /mismatch/i.test((error as Error).message);
    const why = mismatch ? `is not the key of the certificate ${tlsCert}` : `cannot be used (${(error as NodeJS.ErrnoException).code})`;
    return [`FFJOBS_TLS_KEY: ${tlsKey} ${why}: give it the private key that belongs to FFJOBS_TLS_CERT, in PEM and without a passphrase`];
  }
  return [...timeProblem('TLS_CERT', tlsCert, cert!, nowMs), ...(ca ? timeProblem('TLS_CLIENT_CA', tlsClientCa!, ca, nowMs) : [])];
}

/** Of a file of several certificates, as long as none of them is in its time: a signer comes first, and of authorities one may do. */
function timeProblem(name: string, path: string, bytes: Buffer, nowMs: number): string[] {
  const all = certificatesIn(bytes);
  const [first] = all;
  const looked = name === 'TLS_CERT' ? [first!] : all;
  if (looked.some(({ validFrom, validTo }) => Date.parse(validFrom) <= nowMs && nowMs < Date.parse(validTo))) return [];
  const { validFrom, validTo } = looked.at(-1)!;
  if (nowMs < Date.parse(validFrom))
    return [`FFJOBS_${name}: ${path} is not valid before ${validFrom}: look at this machine's clock, or get another certificate`];
  return [`FFJOBS_${name}: ${path} was valid until ${validTo}: get a new certificate`];
}

function certificatesIn(bytes: Buffer): X509Certificate[] {
  const blocks = bytes.toString('latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}

/** Throws where it holds none, or one that is damaged. */
function certificate(bytes: Buffer): Buffer {
  if (certificatesIn(bytes).length === 0) throw new Error('no certificate');
  return bytes;
}

async function opened(
  name: string,
  path: string,
  read: (bytes: Buffer) => Buffer,
): Promise<{ readonly bytes: Buffer } | { readonly problem: string }> {
  try {
    const bytes = await readable(path);
    try {
      return { bytes: read(bytes) };
    } catch {
      return { problem: `FFJOBS_${name}: ${path} holds no certificate in PEM` };
    }
  } catch (error) {
    return { problem: `FFJOBS_${name}: ${(error as Error).message}` };
  }
}

async function readable(path: string): Promise<Buffer> {
  return await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path} cannot be read (${error.code}): correct its name or its mode`, { cause: error });
  });
}
