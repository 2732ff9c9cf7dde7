// How a call ends, for people and for scripts: every status of the service has one exit code, and an error is told with its violations.
import { Code, ConnectError } from '@connectrpc/connect';
import { JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { BadRequestSchema } from '../../../gen/google/rpc/error_details_pb.js';
import { detailsOf, type Violation } from '../../client/errors.ts';

/** Exit codes of `ffjobs`; the README has the same table. */
export const Exit = {
  ok: 0,
  /** The job failed, or something broke that has no code of its own. */
  failed: 1,
  /** Wrong usage, or a request that the service does not take. */
  invalid: 2,
  /** Refused by the content analyser. */
  refused: 3,
  canceled: 4,
  notFound: 5,
  /** The service cannot be reached or does not answer in time. */
  unreachable: 6,
  /** Not allowed for this caller. */
  denied: 7,
  /** Over a quota or rate; try later. */
  exhausted: 8,
  interrupted: 130,
} as const;
export type ExitCode = (typeof Exit)[keyof typeof Exit];

/** An end that the command line itself decides on. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exit: ExitCode;
  constructor(exit: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exit = exit;
  }
}

/** As the service would say it, of violations that were looked for before, or are told by other names. */
export function refused(message: string, violations: readonly Violation[]): ConnectError {
  const fieldViolations = violations.map(({ field, description, reason }) => ({ field, description, reason }));
  return new ConnectError(message, Code.InvalidArgument, undefined, [{ desc: BadRequestSchema, value: { fieldViolations } }]);
}

export interface Explanation {
  readonly exit: ExitCode;
  /** gRPC's name of the status, lower case; `usage` and the like for our own. */
  readonly code: string;
  readonly message: string;
  readonly reason: string | undefined;
  readonly violations: readonly Violation[];
  readonly retryAfterSeconds: number | undefined;
}

const EXIT_OF_CODE: Readonly<Record<Code, ExitCode>> = {
  [Code.Canceled]: Exit.interrupted,
  [Code.Unknown]: Exit.failed,
  [Code.InvalidArgument]: Exit.invalid,
  [Code.DeadlineExceeded]: Exit.unreachable,
  [Code.NotFound]: Exit.notFound,
  [Code.AlreadyExists]: Exit.invalid,
  [Code.PermissionDenied]: Exit.denied,
  [Code.ResourceExhausted]: Exit.exhausted,
  [Code.FailedPrecondition]: Exit.invalid,
  [Code.Aborted]: Exit.failed,
  [Code.OutOfRange]: Exit.invalid,
  [Code.Unimplemented]: Exit.invalid,
  [Code.Internal]: Exit.failed,
  [Code.Unavailable]: Exit.unreachable,
  [Code.DataLoss]: Exit.failed,
  [Code.Unauthenticated]: Exit.denied,
};

const EXIT_OF_STATUS: Readonly<Record<JobStatus, ExitCode>> = {
  [JobStatus.UNSPECIFIED]: Exit.failed,
  [JobStatus.QUEUED]: Exit.ok,
  [JobStatus.PROCESSING]: Exit.ok,
  [JobStatus.SUCCEEDED]: Exit.ok,
  [JobStatus.FAILED]: Exit.failed,
  [JobStatus.CANCELED]: Exit.canceled,
  [JobStatus.REFUSED]: Exit.refused,
};

export function exitOfStatus(status: JobStatus): ExitCode {
  return EXIT_OF_STATUS[status];
}

/** Anything thrown, as one explanation. `server` is named where nothing answered. */
export function explain(error: unknown, server: string): Explanation {
  const none = { reason: undefined, violations: [], retryAfterSeconds: undefined };
  if (error instanceof CliError) return { ...none, exit: error.exit, code: codeName(error.exit), message: error.message };
  if (!(error instanceof ConnectError)) {
    return { ...none, exit: Exit.failed, code: 'failed', message: error instanceof Error ? error.message : String(error) };
  }
  const { reason, violations, retryAfterMs } = detailsOf(error);
  const nobody = error.code === Code.Unavailable && reason === undefined;
  return {
    exit: EXIT_OF_CODE[error.code],
    code: Code[error.code].replace(/(?<!^)[A-Z]/g, '_$&').toLowerCase(),
    message: nobody
      ? `cannot reach the service at ${server} (${error.rawMessage}); start one with \`ffjobs serve\`, or name another with --server or FFJOBS_SERVER`
      : error.rawMessage,
    reason,
    violations,
    retryAfterSeconds: retryAfterMs === undefined ? undefined : retryAfterMs / 1000,
  };
}

/** Lines for a person: the violations if there are any, since the message only repeats the first, else the message. */
export function explanationLines(explanation: Explanation): string[] {
  const lines =
    explanation.violations.length > 0
      ? [
          'ffjobs: the request was not taken:',
          // To a person the job is all of the request.
          ...explanation.violations.map(({ field, description }) => `  ${field.replace(/^job\./, '')}: ${description}`),
        ]
      : [`ffjobs: ${explanation.message}`];
  if (explanation.retryAfterSeconds !== undefined) lines.push(`Try again in ${Math.ceil(explanation.retryAfterSeconds)} s.`);
  return lines;
}

export function explanationJson({ code, message, reason, violations, retryAfterSeconds }: Explanation): object {
  return { error: { code, message, reason: reason ?? null, violations, retry_after_seconds: retryAfterSeconds ?? null } };
}

function codeName(exit: ExitCode): string {
  const [name = 'failed'] = Object.entries(Exit).find(([, value]) => value === exit) ?? [];
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
