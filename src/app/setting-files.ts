// The files that settings name, looked into before anything starts: one that is missing, cannot be read or does not hold what it should is said in words,
// with all others, and not met one at a time by whoever opens it.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { loadPolicies, readSecret } from '../access/access.ts';
import { type Config, policyDefaults } from '../config.ts';
import { openWebhooks } from './webhooks.ts';

/** One sentence a problem, which begins with the setting's name. */
export async function fileProblems(config: Config, nowMs = Date.now()): Promise<readonly string[]> {
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
  const { validTo } = new X509Certificate(cert!);
  return Date.parse(validTo) > nowMs ? [] : [`FFJOBS_TLS_CERT: ${tlsCert} was valid until ${validTo}: get a new certificate`];
}

function certificate(bytes: Buffer): Buffer {
  new X509Certificate(bytes);
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
