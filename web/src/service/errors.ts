// What went wrong with a call, in words for a person, and whether to try it again.
import { Code, ConnectError } from '@connectrpc/connect';
import { BadRequestSchema, ErrorInfoSchema } from '../../../gen/google/rpc/error_details_pb.js';
import type { Allowed } from '../words/en.ts';
import { words } from '../words/words.ts';

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

/** In the language of the page where it has words for the reason, else as the service says it. */
export function messageOf(error: unknown): string {
  const told = ConnectError.from(error);
  const [violation] = told.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  if (violation && words.value.violations[violation.reason]) return `${violation.field}: ${violationWords(violation)}`;
  const [info] = told.findDetails(ErrorInfoSchema);
  return words.value.errors[info?.reason ?? ''] ?? told.rawMessage;
}

const NOTHING_KNOWN: Omit<Allowed, 'told'> = { minimum: undefined, maximum: undefined, choices: [] };

/** What is wrong with one field, without its name. */
export function violationWords(
  { reason, description }: { readonly reason: string; readonly description: string },
  allowed: Omit<Allowed, 'told'> = NOTHING_KNOWN,
): string {
  return words.value.violations[reason]?.({ ...allowed, told: description }) ?? description;
}
