// What went wrong with a call, in words for a person, and whether to try it again.
import { Code, ConnectError } from '@connectrpc/connect';

/** Codes after which the same call may well succeed: the service is away, starting or moving. */
const PASSING: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Unknown,
  Code.Internal,
  Code.Aborted,
  Code.Canceled,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
]);

export function isPassing(error: unknown): boolean {
  return PASSING.has(ConnectError.from(error).code);
}

export function messageOf(error: unknown): string {
  return ConnectError.from(error).rawMessage;
}
