// From an admitted request to what the store is given, for a job alone and for one of a batch.
import { durationMs } from '@bufbuild/protobuf/wkt';
import type { HandlerContext } from '@connectrpc/connect';
import type { Identity } from '../jobs/caller.ts';
import type { Engine } from '../jobs/engine.ts';
import { type JobRequest, newJobId } from '../jobs/job.ts';
import { placementOf } from '../jobs/placement.ts';
import type { JobId, Limits, NewJob } from '../jobs/ports.ts';
import type { Quotas } from '../jobs/tenants.ts';
import { fewRandomBytes } from '../random-bytes.ts';
import type { Admission } from './admission.ts';
import { callerOf } from './authorize.ts';
import { callKey } from './interceptors.ts';

export interface Submission {
  readonly identity: Identity;
  /** That it will run on. */
  readonly engine: Engine;
  readonly admission: Admission;
  /** Of the request; empty where it has no idempotency key. */
  readonly digest: string;
  /** Where the request names none. */
  readonly maxAttempts: number;
  /** Of the call, where it is traced. */
  readonly traceparent: string | undefined;
  readonly jobId?: JobId;
  readonly batchId?: string;
}

export function newJobFrom(request: JobRequest, submission: Submission): NewJob {
  const { identity, engine, admission, digest, maxAttempts, traceparent, jobId, batchId } = submission;
  return {
    jobId: jobId ?? newJobId(Date.now(), fewRandomBytes(12)),
    tenant: identity.tenant,
    batchId,
    request,
    requestDigest: digest,
    warnings: admission.warnings,
    traceparent,
    submittedBy: identity.kind === 'anonymous' ? undefined : identity.name,
    maxAttempts: request.maxAttempts ?? maxAttempts,
    startTimeoutMs: request.startTimeout && durationMs(request.startTimeout),
    placement: placementOf(engine.name, admission.parameters, admission.processors),
  };
}

/** Where the call is in its trace; undefined: it is not traced. */
export function traceparentOf(context: Pick<HandlerContext, 'values'>): string | undefined {
  return context.values.get(callKey)?.span?.traceparent;
}

export function tenantOf(context: HandlerContext): string {
  return callerOf(context).identity.tenant;
}

export function limitsOf({ queuedJobs, gpuSecondsPerDay, storedBytes }: Quotas, idempotencyMs: number): Limits {
  return { maxQueued: queuedJobs ?? Number.MAX_SAFE_INTEGER, idempotencyMs, gpuSecondsPerDay, storedBytes };
}
