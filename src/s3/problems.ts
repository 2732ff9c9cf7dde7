// What the many errors of the SDK and of sockets mean. One table for all who talk to a store: each says in its own words what follows from it.
import { S3ServiceException } from '@aws-sdk/client-s3';

export type S3Problem =
  | 'not_found' // no such object, or no such bucket where the answer does not tell which
  | 'no_bucket'
  | 'forbidden'
  | 'credentials' // none were found, or the store does not know them
  | 'region' // the bucket is elsewhere
  | 'changed' // a condition of the request does not hold
  | 'conflict' // another writer is at it: try again
  | 'range'
  | 'unsupported' // the server does not know this operation or condition
  | 'timeout'
  | 'unreachable'; // or overloaded, or broken

const BY_NAME: Readonly<Record<string, S3Problem>> = {
  NoSuchBucket: 'no_bucket',
  InvalidAccessKeyId: 'credentials',
  SignatureDoesNotMatch: 'credentials',
  ExpiredToken: 'credentials',
  InvalidToken: 'credentials',
  CredentialsProviderError: 'credentials',
  PermanentRedirect: 'region',
  AuthorizationHeaderMalformed: 'region',
  InvalidRegion: 'region',
  TimeoutError: 'timeout',
  RequestTimeout: 'timeout',
  SlowDown: 'unreachable',
  ConditionalRequestConflict: 'conflict',
  NotImplemented: 'unsupported',
};

const BY_STATUS: Readonly<Record<number, S3Problem>> = {
  301: 'region',
  401: 'forbidden',
  403: 'forbidden',
  404: 'not_found',
  409: 'conflict',
  412: 'changed',
  416: 'range',
  501: 'unsupported',
};

/** Undefined: none that is known, so a defect or an abort. */
export function problemOf(error: unknown): S3Problem | undefined {
  const { name, code, syscall } = error as NodeJS.ErrnoException;
  // The SDK gives a broken connection the name of a timeout.
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'unreachable';
  const named = BY_NAME[name];
  if (named !== undefined) return named;
  const status = error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined;
  if (status !== undefined) return BY_STATUS[status] ?? (status >= 500 || status === 429 ? 'unreachable' : undefined);
  return ['connect', 'read', 'write', 'getaddrinfo'].includes(syscall ?? '') ? 'unreachable' : undefined;
}

/** What a caller is told whose request needs a store of the service's own: `what`, as callers know it. */
export function unavailable(problem: S3Problem, what: string): string {
  return problem === 'timeout' || problem === 'unreachable' || problem === 'conflict'
    ? `${what} cannot be reached or is overloaded; try again`
    : `${what} does not do what the service asks of it: its operator finds the reason in the log`;
}
