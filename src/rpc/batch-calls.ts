// Batches on the wire: admit all with every violation and its index, one atomic step of the store, present. Another tenant's batch is not there,
// as far as a caller can tell.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import {
  BatchSchema,
  GetBatchResultsResponseSchema,
  type JobService,
  type SubmitBatchRequest,
  SubmitBatchRequestSchema,
  WatchBatchResponseSchema,
} from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { type Batch, batchNotFound, linkSiblings, MAX_BATCH, newBatchId } from '../jobs/batches.ts';
import type { Identity } from '../jobs/caller.ts';
import type { Engine } from '../jobs/engine.ts';
import { fieldInItem, JobsError, type Violation } from '../jobs/errors.ts';
import { type Job, type JobRequest, JobStatus, newJobId } from '../jobs/job.ts';
import type { JobStore, NewJob, SubmittedBatch } from '../jobs/ports.ts';
import { fewRandomBytes } from '../random-bytes.ts';
import { type AdmissionRules, admit, batchDigest, type CheckReference } from './admission.ts';
import { callerOf } from './authorize.ts';
import { violationsOf } from './interceptors.ts';
import { presenter, type ResultUrls } from './result-urls.ts';
import { limitsOf, newJobFrom, tenantOf, traceparentOf } from './submission.ts';

export interface BatchCallsOptions extends AdmissionRules, ResultUrls {
  readonly store: JobStore;
  readonly engine: (wanted?: string) => Engine;
  /** Throws RESOURCE_EXHAUSTED where the disk has no room for another job. */
  readonly checkRoom: () => Promise<void>;
  readonly idempotencyMs: number;
  readonly maxAttempts: number;
  readonly cancelGraceMs: number;
  readonly watched: { enter(): void; leave(): void };
}

type BatchMethod = 'submitBatch' | 'getBatch' | 'watchBatch' | 'getBatchResults' | 'cancelBatch';

/** Jobs looked at before others have their turn. */
const ADMITTED_AT_ONCE = 16;

export function batchCalls(options: BatchCallsOptions): Pick<ServiceImpl<typeof JobService>, BatchMethod> {
  const { store } = options;
  const present = presenter(options);

  const existing = async (id: string, context: HandlerContext): Promise<Batch> => {
    const batch = await store.batch(id);
    if (!batch || batch.tenant !== tenantOf(context)) throw batchNotFound(id);
    return batch;
  };

  return {
    async submitBatch(request, context) {
      request.idempotencyKey ??= context.requestHeader.get('idempotency-key') ?? undefined;
      const { identity } = callerOf(context);
      // Of the request as it came: references between its jobs are written into it below.
      const digest = request.idempotencyKey === undefined || request.jobs.length > MAX_BATCH ? '' : batchDigest(request);
      const { batch, created } = await submit(request, digest, identity, traceparentOf(context)).catch(async (error: unknown) => {
        const batch = await repeated(request, digest, identity.tenant);
        if (!batch) throw error;
        return { batch, created: false };
      });
      return { batch: shown(batch), created };
    },

    getBatch: async ({ batchId }, context) => ({ batch: shown(await existing(batchId, context)) }),

    async *watchBatch({ batchId, watchToken }, context) {
      await existing(batchId, context);
      options.watched.enter();
      try {
        // Its place is taken before the batch is read, so that nothing falls in between.
        const changes = store.watchBatch(batchId, watchToken || undefined, context.signal);
        if (!watchToken) yield create(WatchBatchResponseSchema, { batch: shown(await existing(batchId, context)) });
        for await (const change of changes) {
          const batch = await store.batch(batchId);
          yield create(WatchBatchResponseSchema, {
            batch: batch && progressOf(batch),
            job: change.job && (await present(change.job)),
            watchToken: change.watchToken,
            reset: change.reset,
          });
        }
      } finally {
        options.watched.leave();
      }
    },

    async getBatchResults({ batchId }, context) {
      const batch = await existing(batchId, context);
      if (batch.finishedMs === undefined) {
        const message = `${batchId} has ${unended(batch)} of ${batch.jobs} jobs that have not ended; watch it or ask again later`;
        throw new JobsError('not_found', 'RESULT_NOT_READY', message, { retryAfterSeconds: 5 });
      }
      const page = await store.list({ tenant: batch.tenant, batchId, pageSize: MAX_BATCH });
      const jobs = new Map(await Promise.all(page.jobs.map(async (job) => [job.jobId, await present(job)] as const)));
      return create(GetBatchResultsResponseSchema, {
        batch: progressOf(batch),
        results: batch.members.map(({ jobId, ref }) => ({ ref, ...resultOf(jobId, jobs.get(jobId)) })),
      });
    },

    async cancelBatch({ batchId }, context) {
      await existing(batchId, context);
      const batch = await store.cancelBatch(batchId, options.cancelGraceMs);
      if (!batch) throw batchNotFound(batchId);
      return { batch: shown(batch) };
    },
  };

  async function submit(
    request: SubmitBatchRequest,
    digest: string,
    identity: Identity,
    traceparent: string | undefined,
  ): Promise<SubmittedBatch> {
    const { tenant } = identity;
    const requests = request.jobs.map(({ job }) => job);
    const jobIds = requests.map(() => newJobId(Date.now(), fewRandomBytes(12)));
    const violations = ofTheBatch(request);
    // Each is looked at in turn: more than may be are not.
    if (requests.length > MAX_BATCH) throw JobsError.invalid(violations);
    const siblings = requests.flatMap((job, i) => (job ? [{ ref: request.jobs[i]!.ref, jobId: jobIds[i]!, request: job }] : []));
    // Where one is missing, places would not be those of the request.
    const links = siblings.length === requests.length ? linkSiblings(siblings) : { order: [], violations: [] };
    violations.push(...links.violations);
    const rules = { ...options, checkReference: amongSiblings(options.checkReference, new Set(jobIds)) };
    const batchId = newBatchId(Date.now(), fewRandomBytes(12));
    const jobs: NewJob[] = [];
    for (const [i, job] of requests.entries()) {
      if (i % ADMITTED_AT_ONCE === 0) await nextTurn();
      if (!job) continue;
      const engine = options.engine(job.engine);
      const admission = await admit(job, tenant, engine, rules);
      violations.push(...admission.violations.map((one) => ({ ...one, field: fieldInItem(i, one.field) })), ...ownKey(job, i));
      const { maxAttempts } = options;
      jobs.push(newJobFrom(job, { identity, engine, admission, digest: '', traceparent, maxAttempts, jobId: jobIds[i]!, batchId }));
    }
    if (violations.length > 0) throw JobsError.invalid(violations);
    await options.checkRoom();
    return await store.submitBatch(
      {
        batchId,
        tenant,
        jobs,
        order: links.order,
        refs: request.jobs.map(({ ref }) => ref),
        idempotencyKey: request.idempotencyKey,
        requestDigest: digest,
        stopGraceMs: request.stopOnFailure ? options.cancelGraceMs : undefined,
      },
      limitsOf(options.policyOf(tenant).quotas, options.idempotencyMs),
    );
  }

  /** A repeat is answered as the first call was, whatever has changed since. */
  async function repeated({ idempotencyKey }: SubmitBatchRequest, digest: string, tenant: string): Promise<Batch | undefined> {
    return idempotencyKey === undefined || digest === '' ? undefined : await store.submittedBatch(tenant, idempotencyKey, digest);
  }
}

/** What the contract says of the batch itself; of its jobs it is asked with all that else is said of them. */
function ofTheBatch(request: SubmitBatchRequest): Violation[] {
  return violationsOf(SubmitBatchRequestSchema, request).filter(({ field }) => !/^jobs\[\d+\]\.job\./.test(field));
}

function ownKey({ idempotencyKey }: JobRequest, index: number): Violation[] {
  if (idempotencyKey === undefined) return [];
  const description = 'a job of a batch has no key of its own: give the batch one';
  return [{ field: fieldInItem(index, 'idempotency_key'), reason: 'NOT_ALLOWED', description }];
}

/** Looks at each reference once, however many jobs name it, and takes what the jobs of the batch will be for what is there. */
function amongSiblings(check: CheckReference, siblings: ReadonlySet<string>): CheckReference {
  const seen = new Map<string, Promise<Violation | undefined>>();
  return async (reference, field, tenant) => {
    const key = `${field.replace(/\[\d+\]$/, '')} ${reference}`;
    let looked = seen.get(key);
    if (!looked) {
      looked = check(reference, field, tenant);
      seen.set(key, looked);
    }
    const violation = await looked;
    const sibling = /^job:\/\/(.+)$/i.exec(reference)?.[1];
    if (violation?.reason === 'JOB_NOT_FOUND' && sibling !== undefined && siblings.has(sibling)) return undefined;
    return violation && { ...violation, field };
  };
}

function unended({ counts }: Batch): number {
  return (counts.get(JobStatus.QUEUED) ?? 0) + (counts.get(JobStatus.PROCESSING) ?? 0);
}

/** A batch as a caller sees it. */
function shown(batch: Batch) {
  return create(BatchSchema, { ...facts(batch), jobIds: batch.members.map(({ jobId }) => jobId) });
}

/** The same without what is long and never changes. */
function progressOf(batch: Batch) {
  return create(BatchSchema, facts(batch));
}

function facts({ batchId, jobs, counts, done, createdMs, finishedMs, stopsOnFailure, cancelRequestedMs }: Batch) {
  const count = (status: JobStatus) => counts.get(status) ?? 0;
  return {
    batchId,
    jobs,
    queued: count(JobStatus.QUEUED),
    processing: count(JobStatus.PROCESSING),
    succeeded: count(JobStatus.SUCCEEDED),
    failed: count(JobStatus.FAILED),
    canceled: count(JobStatus.CANCELED),
    refused: count(JobStatus.REFUSED),
    progress: Math.floor(done / jobs),
    createdAt: timestampFromMs(createdMs),
    finishedAt: finishedMs === undefined ? undefined : timestampFromMs(finishedMs),
    stopOnFailure: stopsOnFailure,
    cancelRequestedAt: cancelRequestedMs === undefined ? undefined : timestampFromMs(cancelRequestedMs),
  } satisfies MessageInitShape<typeof BatchSchema>;
}

function resultOf(jobId: string, job: Job | undefined) {
  return { jobId, status: job?.status, result: job?.result, resultUrl: job?.resultUrl, error: job?.error };
}
