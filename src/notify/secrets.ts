// Secrets that webhooks are signed with, by tenant, from the operator's file. They are read once, and are in no message and no log.

const SECRET = /^whsec_[A-Za-z0-9+/]{32,}={0,2}$/;
const LINE = /^(?:([A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+)?(\S+)$/;

/**
 * A line a secret: `TENANT whsec_...`, or `whsec_...` for all tenants that have none of their own; `#` begins a comment. Several of one tenant all sign.
 * Throws an `Error` that can be shown, which names the line and nothing of it.
 */
export function webhookSecrets(text: string): (tenant: string) => readonly string[] {
  const own = new Map<string, string[]>();
  const common: string[] = [];
  for (const [i, raw] of text.split('\n').entries()) {
    const line = raw.replace(/#.*$/, '').trim();
    if (line === '') continue;
    const [, tenant, secret] = LINE.exec(line) ?? [];
    if (secret === undefined || !SECRET.test(secret)) {
      throw new Error(`line ${i + 1} is no webhook secret: write TENANT whsec_... or whsec_..., with at least 24 random bytes in base64`);
    }
    if (tenant === undefined) common.push(secret);
    else own.set(tenant, [...(own.get(tenant) ?? []), secret]);
  }
  return (tenant) => own.get(tenant) ?? common;
}
