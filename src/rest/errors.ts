// The one mapper from errors to REST answers: `{"code","message","details"}` with the HTTP status that google.rpc.Code gives to the code. Always
// true: what an implementation threw by accident never leaves the process; the caller gets a reference, the log gets the cause under it.
import { randomUUID } from 'node:crypto';
import { create, createRegistry, type Registry } from '@bufbuild/protobuf';
import { type Any, AnySchema, anyPack } from '@bufbuild/protobuf/wkt';

import { Code, ConnectError } from '@connectrpc/connect';
import {
  BadRequestSchema,
  file_google_rpc_error_details,
  RequestInfoSchema,
  RetryInfoSchema,
} from '../../gen/google/rpc/error_details_pb.js';
import { JSON_TYPE } from './exchange.ts';
import { createJsonWriter } from './json-writer.ts';

/** One field that was refused: its path in proto names, and a sentence whose subject is the field. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** An answer that is an error. Header names are in lower case. */
export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** Told of every error that the caller does not get to see, with the reference that it got instead. */
export type ReportError = (reference: string, cause: unknown) => void;

/** Names of the gRPC codes as google.rpc.Code spells them, and the HTTP status that it maps each to. */
const CODES: Readonly<Record<Code, readonly [name: string, status: number]>> = {
  [Code.Canceled]: ['CANCELLED', 499],
  [Code.Unknown]: ['UNKNOWN', 500],
  [Code.InvalidArgument]: ['INVALID_ARGUMENT', 400],
  [Code.DeadlineExceeded]: ['DEADLINE_EXCEEDED', 504],
  [Code.NotFound]: ['NOT_FOUND', 404],
  [Code.AlreadyExists]: ['ALREADY_EXISTS', 409],
  [Code.PermissionDenied]: ['PERMISSION_DENIED', 403],
  [Code.ResourceExhausted]: ['RESOURCE_EXHAUSTED', 429],
  [Code.FailedPrecondition]: ['FAILED_PRECONDITION', 400],
  [Code.Aborted]: ['ABORTED', 409],
  [Code.OutOfRange]: ['OUT_OF_RANGE', 400],
  [Code.Unimplemented]: ['UNIMPLEMENTED', 501],
  [Code.Internal]: ['INTERNAL', 500],
  [Code.Unavailable]: ['UNAVAILABLE', 503],
  [Code.DataLoss]: ['DATA_LOSS', 500],
  [Code.Unauthenticated]: ['UNAUTHENTICATED', 401],
};

/** INVALID_ARGUMENT with a google.rpc.BadRequest. The message is made of the violations unless one is given. */
export function badRequest(violations: readonly FieldViolation[], message?: string): ConnectError {
  const [first, ...others] = violations;
  const summary = first
    ? `${first.field ? `${first.field} ` : ''}${first.description}${others.length ? ` (and ${others.length} more)` : ''}`
    : 'invalid request';
  const details = violations.length ? [{ desc: BadRequestSchema, value: { fieldViolations: violations.map((v) => ({ ...v })) } }] : [];
  return new ConnectError(message ?? summary, Code.InvalidArgument, undefined, details);
}

/** An error of HTTP alone (wrong method, media type, size), which has a status that no gRPC code maps to. */
export class HttpError extends ConnectError {
  readonly status: number;
  constructor(status: number, code: Code, message: string, headers?: Record<string, string>) {
    super(message, code, headers);
    // ConnectError sets its own prototype for the sake of old compilers' output; an own property needs none.
    this.status = status;
  }
}

/** `Allow` (RFC 9110, section 10.2.1) of a path that takes these methods; HEAD goes with GET, and OPTIONS says which there are. */
export function allowOf(methods: readonly string[]): string {
  return [...new Set([...methods, ...(methods.includes('GET') ? ['HEAD'] : []), 'OPTIONS'])].join(', ');
}

/** The answer to a method that a path does not take. */
export function notPossible(method: string, path: string, allow: string): HttpError {
  return new HttpError(405, Code.Unimplemented, `${method} is not possible at ${path}, only ${allow}`, { allow });
}

export interface ErrorMapper {
  /** The answer to give. An AbortError or a reason that is a ConnectError is that error; anything else unknown is reported and hidden. */
  answer(error: unknown): ErrorAnswer;
}

/**
 * Makes the mapper. Details are printed when their type is one of google.rpc's error details or is in `registry`, else as base64.
 */
export function createErrorMapper(report: ReportError, registry?: Registry): ErrorMapper {
  const writer = createJsonWriter(
    registry ? createRegistry(file_google_rpc_error_details, registry) : createRegistry(file_google_rpc_error_details),
  );
  const writeAny = writer.message(AnySchema);
  return {
    answer(thrown) {
      const error = thrown instanceof ConnectError ? thrown : hide(thrown, report);
      const [name, status] = CODES[error.code] ?? CODES[Code.Unknown];
      const headers: Record<string, string> = {};
      error.metadata.forEach((value, key) => {
        headers[key] = value;
      });
      headers['content-type'] = JSON_TYPE;
      const details: string[] = [];
      for (const detail of error.details) {
        try {
          details.push(writeAny(toAny(detail)));
        } catch (cause) {
          // An answer without one of its details is better than none.
          report(randomUUID(), cause);
        }
      }
      const retry = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
      if (retry) headers['retry-after'] ??= String(Math.max(0, Math.ceil(Number(retry.seconds) + retry.nanos / 1e9)));
      const body = `{"code":"${name}","message":${JSON.stringify(error.rawMessage)},"details":[${details.join(',')}]}`;
      return { status: 'status' in error && typeof error.status === 'number' ? error.status : status, headers, body };
    },
  };
}

function toAny(detail: ConnectError['details'][number]): Any {
  if ('desc' in detail) return anyPack(detail.desc, create(detail.desc, detail.value));
  return create(AnySchema, { typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value });
}

function hide(cause: unknown, report: ReportError): ConnectError {
  const reference = randomUUID();
  report(reference, cause);
  return new ConnectError(
    'internal error',
    Code.Internal,
    undefined,
    [{ desc: RequestInfoSchema, value: { requestId: reference } }],
    cause,
  );
}
