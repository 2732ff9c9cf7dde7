// Callers that are known by the certificate of their TLS connection. Always true: a certificate counts only when its chain leads to the configured
// authority; whose it is says the operator's list; and a connection is looked at once.
import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Identity } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { CertificateRule } from './policies.ts';

type Verdict = Identity | JobsError | undefined;

/** The part of a TLS socket that is asked. */
export type CertifiedSocket = Pick<TLSSocket, 'authorized' | 'authorizationError' | 'getPeerX509Certificate'>;

/** Answers who a connection's certificate stands for; undefined: it has none. Throws UNAUTHENTICATED on one that is not taken. */
export function certificateIdentities(rules: readonly CertificateRule[]): (socket: CertifiedSocket) => Identity | undefined {
  const known = new WeakMap<object, { readonly verdict: Verdict }>();
  return (socket) => {
    let found = known.get(socket);
    if (!found) {
      found = { verdict: judge(rules, socket) };
      known.set(socket, found);
    }
    if (found.verdict instanceof JobsError) throw found.verdict;
    return found.verdict;
  };
}

function judge(rules: readonly CertificateRule[], socket: CertifiedSocket): Verdict {
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) return undefined;
  if (!socket.authorized && String(socket.authorizationError).includes('CERT_HAS_EXPIRED')) return expiredCertificate();
  if (!socket.authorized) return refusal(`the client certificate is not taken (${String(socket.authorizationError)})`);
  const names = namesOf(certificate);
  const rule = rules.find((one) => names.includes(canonical(one.subject)));
  if (!rule) return refusal(`the client certificate ${names[0]} stands for no tenant here`);
  return {
    kind: 'certificate',
    tenant: rule.tenant,
    name: `certificate:${rule.subject}`,
    scopes: rule.scopes,
    tier: undefined,
    expiresMs: Date.parse(certificate.validTo),
    seesAll: rule.scopes.has('admin'),
  };
}

export function expiredCertificate(): JobsError {
  return new JobsError('unauthenticated', 'CREDENTIALS_EXPIRED', 'the client certificate has expired');
}

function refusal(message: string): JobsError {
  return new JobsError('unauthenticated', 'CREDENTIALS_INVALID', message);
}

/** The subject, most specific part first (RFC 4514), then the alternative names with their types. */
function namesOf({ subject, subjectAltName }: X509Certificate): string[] {
  // One part a line, escaped, in the certificate's order.
  const parts = (subject ?? '').split('\n').filter((part) => part !== '');
  // A name with a comma or a quote is written in quotes: one that could pretend to be two makes all of them count for nothing.
  const alternatives = subjectAltName === undefined || subjectAltName.includes('"') ? [] : subjectAltName.split(', ');
  return [parts.reverse().join(','), ...alternatives].map(canonical);
}

/** Blanks after commas and the case of types and of host names make no difference. */
function canonical(name: string): string {
  if (/^DNS:/i.test(name)) return `DNS:${name.slice(4).toLowerCase()}`;
  return name
    .replaceAll(/(?<!\\),\s+/g, ',')
    .replaceAll(/(^|(?<!\\),)([A-Za-z]+)=/g, (_, before: string, type: string) => `${before}${type.toUpperCase()}=`);
}
