// What an error of the service says beside its code: the messages of `google.rpc` in it, read once, for programs.
import { Code, ConnectError } from '@connectrpc/connect';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.js';

/** One thing that is wrong with a request. */
export interface Violation {
  readonly field: string;
  readonly description: string;
  /** Stable, such as OUT_OF_RANGE. */
  readonly reason: string;
}

export interface ErrorDetails {
  readonly code: Code;
  /** For people. */
  readonly message: string;
  /** Stable, such as QUOTA_EXCEEDED; undefined where the error is not the service's. */
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** All at once. */
  readonly violations: readonly Violation[];
  /** After which the service asks to be asked again, in milliseconds. */
  readonly retryAfterMs: number | undefined;
}

/** Of anything that a call threw. */
export function detailsOf(error: unknown): ErrorDetails {
  const connectError = ConnectError.from(error);
  const [info] = connectError.findDetails(ErrorInfoSchema);
  const violations = connectError.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  return {
    code: connectError.code,
    message: connectError.rawMessage,
    reason: info?.reason,
    metadata: info?.metadata ?? {},
    violations: violations.map(({ field, description, reason }) => ({ field, description, reason })),
    retryAfterMs: retryDelayMs(connectError),
  };
}

/** What the service asks for in `RetryInfo`, in milliseconds. */
export function retryDelayMs(error: ConnectError): number | undefined {
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay === undefined ? undefined : Number(delay.seconds) * 1000 + delay.nanos / 1e6;
}

export { Code, ConnectError };
