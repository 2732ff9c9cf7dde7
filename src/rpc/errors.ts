// The one mapper from what this service throws to what an RPC caller sees, as a ConnectError; the REST bridge takes it from there.
// A JobsError keeps its words; anything else becomes INTERNAL with a reference. Causes go to the log alone.
import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.js';
import { type ErrorKind, JobsError } from '../jobs/errors.ts';

/** ErrorInfo.domain of every reason of ours. */
const ERROR_DOMAIN = 'facefusion.jobs';

const CODES: Readonly<Record<ErrorKind, Code>> = {
  invalid: Code.InvalidArgument,
  unauthenticated: Code.Unauthenticated,
  denied: Code.PermissionDenied,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  failed_precondition: Code.FailedPrecondition,
  exhausted: Code.ResourceExhausted,
  // As gRPC itself refuses a message over its limit; no RetryInfo goes with it.
  too_large: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
  unimplemented: Code.Unimplemented,
  aborted: Code.Aborted,
  data_loss: Code.DataLoss,
};

/** Told what callers are not: what lies behind an INTERNAL, with the reference that they got, and a JobsError that has a cause. */
export type Report = (error: unknown, reference?: string) => void;

export function toConnectError(error: unknown, report: Report): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof JobsError) {
    if (error.cause !== undefined) report(error);
    // gRPC carries it percent-encoded, which half a character is not.
    const mapped = new ConnectError(error.message.toWellFormed(), CODES[error.kind], undefined, undefined, error);
    mapped.details = details(error);
    // Of HTTP the other half of RESOURCE_EXHAUSTED, which there is 429: come again.
    if (error.kind === 'too_large') Object.assign(mapped, { status: 413 });
    if (error.kind === 'unauthenticated') mapped.metadata.set('www-authenticate', 'Bearer');
    if (error.reason === 'RATE_LIMITED') setRateHeaders(mapped.metadata, error.metadata);
    return mapped;
  }
  if (error instanceof Error && error.name === 'AbortError') return new ConnectError('the call was canceled', Code.Canceled);
  const reference = randomUUID();
  report(error, reference);
  return new ConnectError(`internal error; the operator finds it in the log as ${reference}`, Code.Internal);
}

/**
 * What a route that is no rpc throws, for the server's error handler to answer: as an rpc would fail, apart from the reasons that have an HTTP
 * status of their own there. What is not ours is passed on as it is.
 */
export function toHttpError(error: unknown, statuses: Readonly<Record<string, number>>, report: Report): unknown {
  if (!(error instanceof JobsError)) return error;
  const mapped = toConnectError(error, report);
  const status = statuses[error.reason] ?? statuses[error.violations[0]?.reason ?? ''];
  return status === undefined ? mapped : Object.assign(mapped, { status });
}

/** What is left of a rate, in the headers that its clients look for (draft-ietf-httpapi-ratelimit-headers-06). */
export function setRateHeaders(
  headers: Headers,
  left: { readonly limit?: unknown; readonly remaining?: unknown; readonly reset?: unknown },
): void {
  for (const name of ['limit', 'remaining', 'reset'] as const) {
    if (left[name] !== undefined) headers.set(`ratelimit-${name}`, String(left[name]));
  }
}

function details(error: JobsError): ConnectError['details'] {
  const list: ConnectError['details'] = [
    {
      desc: ErrorInfoSchema,
      value: create(ErrorInfoSchema, { reason: error.reason, domain: ERROR_DOMAIN, metadata: { ...error.metadata } }),
    },
  ];
  if (error.violations.length > 0) {
    const fieldViolations = error.violations.map(({ field, description, reason }) => ({ field, description, reason }));
    list.push({ desc: BadRequestSchema, value: create(BadRequestSchema, { fieldViolations }) });
  }
  if (error.retryAfterSeconds !== undefined) {
    const retryDelay = durationFromMs(Math.ceil(error.retryAfterSeconds * 1000));
    list.push({ desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay }) });
  }
  return list;
}
