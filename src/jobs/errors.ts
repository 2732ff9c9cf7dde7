// The one error type of the service. Its reasons are a closed set and stable: callers match on them, edges map them to codes, people read
// the message, which says what was wrong, what is allowed and what to do. Anything else that is thrown is a defect and becomes INTERNAL.

/** Where the error belongs for a caller; each edge (gRPC, REST) has one total mapping of these. */
export type ErrorKind =
  | 'invalid' // the request itself is wrong
  | 'unauthenticated' // nobody knows who calls
  | 'denied' // known, and not allowed
  | 'not_found'
  | 'already_exists'
  | 'failed_precondition' // right request, wrong state
  | 'exhausted' // quota, rate or capacity; try later
  | 'too_large' // more than may ever come at once; as it is it is never taken
  | 'unavailable' // a part of the service is not there; try again
  | 'unimplemented'
  | 'aborted' // lost a race; safe to repeat
  | 'data_loss';

/** Every reason that a call can be refused with. Failed jobs have reasons of their own (`Failure`), of which engines bring some. */
export type ErrorReason =
  | 'INVALID_REQUEST'
  | 'CREDENTIALS_MISSING'
  | 'CREDENTIALS_INVALID'
  | 'CREDENTIALS_EXPIRED'
  | 'IDENTITY_UNAVAILABLE'
  | 'SCOPE_MISSING'
  | 'RATE_LIMITED'
  | 'KEYS_OFF'
  | 'KEY_NOT_FOUND'
  | 'KEY_ENDED'
  | 'AUDIT_UNAVAILABLE'
  | 'JOB_NOT_FOUND'
  | 'BATCH_NOT_FOUND'
  | 'DELIVERY_NOT_FOUND'
  | 'NODE_NOT_FOUND'
  | 'SLOT_NOT_FOUND'
  | 'RESULT_NOT_READY'
  | 'RESULT_PURGED'
  | 'RESULT_EXPIRED'
  | 'NO_RESULT'
  | 'INPUT_NOT_HELD'
  | 'INPUT_NOT_SHOWN'
  | 'JOB_NOT_TERMINAL'
  | 'IDEMPOTENCY_KEY_REUSED'
  | 'QUOTA_EXCEEDED'
  | 'ENGINE_NOT_READY'
  | 'ENGINE_CANNOT_START'
  | 'PROVENANCE_CANNOT_SIGN'
  | 'TENANT_NOT_SERVED'
  | 'SHUTTING_DOWN'
  | 'LEASE_LOST'
  | 'UPLOAD_NOT_FOUND'
  | 'UPLOAD_TOO_LARGE'
  | 'UPLOAD_CORRUPT'
  | 'UPLOAD_CONFLICT'
  | 'UPLOAD_TOO_MANY_PIECES'
  | 'RESULT_NOT_A_FILE'
  | 'STORE_UNAVAILABLE'
  | 'STORAGE_FULL'
  | 'RESULT_CHANGED';

/** One thing wrong with one field. `field` is its dotted path in the request. */
export interface Violation {
  readonly field: string;
  readonly description: string;
  /** Upper snake case, for programs: UNKNOWN_OPTION, WRONG_TYPE, NOT_A_CHOICE, OUT_OF_RANGE ... */
  readonly reason: string;
}

/** They may travel in a header: more than these help nobody. */
const MAX_VIOLATIONS = 50;

export interface JobsErrorOptions {
  readonly violations?: readonly Violation[];
  /** Seconds after which the same call may succeed. */
  readonly retryAfterSeconds?: number;
  /** Facts for programs, sent as ErrorInfo.metadata. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Logged, never sent. */
  readonly cause?: unknown;
}

export class JobsError extends Error {
  override readonly name = 'JobsError';
  readonly kind: ErrorKind;
  readonly reason: ErrorReason;
  readonly violations: readonly Violation[];
  readonly retryAfterSeconds: number | undefined;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(kind: ErrorKind, reason: ErrorReason, message: string, options: JobsErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.reason = reason;
    this.violations = options.violations ?? [];
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.metadata = options.metadata ?? {};
  }

  static invalid(violations: readonly Violation[]): JobsError {
    const [first] = violations;
    const more = violations.length > 1 ? ` (and ${violations.length - 1} more)` : '';
    return new JobsError('invalid', 'INVALID_REQUEST', `${first ? `${first.field}: ${first.description}` : 'invalid request'}${more}`, {
      violations:
        violations.length <= MAX_VIOLATIONS
          ? violations
          : [
              ...violations.slice(0, MAX_VIOLATIONS),
              { field: '', reason: 'MORE', description: `${violations.length - MAX_VIOLATIONS} more are not listed` },
            ],
    });
  }

  static jobNotFound(id: string): JobsError {
    return new JobsError('not_found', 'JOB_NOT_FOUND', `there is no job '${id}'`, { metadata: { job_id: id } });
  }
}

/** Somewhere is full or away: time may mend it. */
export function isPassing(error: unknown): error is JobsError {
  return error instanceof JobsError && (error.kind === 'unavailable' || error.kind === 'exhausted');
}

/** Has a refusal say which job of a batch it is about. */
export function inItem<T>(index: number, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof JobsError) || error.violations.length === 0) throw error;
    throw JobsError.invalid(error.violations.map((one) => ({ ...one, field: fieldInItem(index, one.field) })));
  }
}

/** Path in a batch of what is `field` in the request of one of its jobs. */
export function fieldInItem(index: number, field: string): string {
  return field === '' ? `jobs[${index}].job` : `jobs[${index}].job.${field}`;
}
