// JobService and ProcessService over the job store. A call here is thin: admit, one step of the store, present. What a job may become is
// the domain's affair, how a call looks on the wire the server's.
import { setTimeout as delay } from 'node:timers/promises';
import { create, type DescMessage } from '@bufbuild/protobuf';
import { timestampDate, timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { SnapshotSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { type JobRequest, JobRequestSchema, type MediaResult, ProvenanceSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import {
  JobService,
  type ListRequest,
  ListResponseSchema,
  ValidateResponseSchema,
  type WatchJobsRequest,
  WatchJobsResponseSchema,
  type WatchResponse,
  WatchResponseSchema,
} from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../../gen/facefusion/jobs/v1/process_service_pb.js';
import type { Identity } from '../jobs/caller.ts';
import type { Engine } from '../jobs/engine.ts';
import { JobsError } from '../jobs/errors.ts';
import { isTerminal, type Job, JobStatus, stateOf } from '../jobs/job.ts';
import type { JobFilter, JobStore, Submitted } from '../jobs/ports.ts';
import { waitSeconds } from '../rest/call.ts';
import { type AdmissionRules, admit, requestDigest } from './admission.ts';
import { callerOf } from './authorize.ts';
import { batchCalls } from './batch-calls.ts';
import { estimate } from './estimate.ts';
import { violationsOf } from './interceptors.ts';
import { type HeldInput, readInput } from './job-inputs.ts';
import { hasExpired, presenter, type ResultUrls, signedUrl, urlExpiry } from './result-urls.ts';
import { limitsOf, newJobFrom, tenantOf, traceparentOf } from './submission.ts';

export interface JobServiceOptions extends AdmissionRules, ResultUrls {
  readonly store: JobStore;
  /** Throws RESOURCE_EXHAUSTED where the disk has no room for another job. */
  readonly checkRoom: () => Promise<void>;
  /** Deletes the blobs that no job refers to; never rejects. */
  readonly reclaim: () => Promise<void>;
  /** Throws UNAVAILABLE while no worker has said yet what it can do. */
  readonly engine: (wanted?: string) => Engine;
  /** How long an idempotency key is kept, in milliseconds. */
  readonly idempotencyMs: number;
  readonly maxAttempts: number;
  readonly cancelGraceMs: number;
  readonly heldInput: HeldInput;
  /** Told of each stream that begins and ends. */
  readonly watched: { enter(): void; leave(): void };
  /** Deletes the uploads that no job needs any more. */
  readonly sweepUploads: () => Promise<void>;
}

/** Requests that are checked here, contract rules included, so that a caller hears of everything at once. */
export const SELF_VALIDATED: ReadonlySet<DescMessage> = new Set([
  JobService.method.submit.input,
  JobService.method.submitBatch.input,
  JobService.method.validate.input,
  ProcessService.method.swap.input,
  ProcessService.method.enhance.input,
]);

export function createJobService(options: JobServiceOptions): ServiceImpl<typeof JobService> {
  const { store, engine } = options;
  const present = presenter(options);
  const submit = submitter(options);

  /** The caller's job of that id. Another tenant's is not there, as far as a caller can tell. */
  const existing = async (id: string, context: HandlerContext): Promise<Job> => {
    const job = await store.get(id);
    if (!job || job.tenant !== tenantOf(context)) throw JobsError.jobNotFound(id);
    return job;
  };

  return {
    submit: (request, context) => submit(request.job ?? create(JobRequestSchema), context),
    ...batchCalls(options),

    async validate({ job }, context) {
      const tenant = tenantOf(context);
      const admission = await admit(job ?? create(JobRequestSchema), tenant, engine(job?.engine), options);
      return create(ValidateResponseSchema, {
        valid: admission.violations.length === 0,
        violations: admission.violations.map(({ field, description, reason }) => ({ field, description, reason })),
        warnings: [...admission.warnings],
        resolvedParameters: admission.parameters,
        estimate: await estimate(store, tenant, admission.target),
      });
    },

    async get({ jobId }, context) {
      // Asked for more often than all the rest: no promise more than it needs.
      const job = await store.get(jobId);
      if (!job || job.tenant !== tenantOf(context)) throw JobsError.jobNotFound(jobId);
      const view = present(job);
      return { job: view instanceof Promise ? await view : view };
    },
    getStatus: async ({ jobId }, context) => ({ state: stateOf(await existing(jobId, context)) }),

    async getResult({ jobId }, context) {
      const job = withResult(await existing(jobId, context));
      const expiresMs = urlExpiry(options, job);
      return { url: await signedUrl(options, job, expiresMs), expireTime: timestampFromMs(expiresMs), result: job.result };
    },

    async getProvenance({ jobId }, context) {
      const { result, provenance } = withResult(await existing(jobId, context));
      return { jobId, resultSha256: result.sha256, provenance: provenance ?? create(ProvenanceSchema) };
    },

    getInput: async function* ({ jobId, input }, context) {
      const job = await existing(jobId, context);
      yield* readInput((reference) => options.heldInput(reference, tenantOf(context)), job, input, context.signal);
    },

    async *watch({ jobId, afterSequence }, context) {
      const { signal } = context;
      await existing(jobId, context);
      options.watched.enter();
      try {
        for await (const event of store.watch(jobId, afterSequence, signal)) {
          yield event.event.case === 'snapshot' ? await presentSnapshot(event, present) : wrapped(event);
        }
      } finally {
        options.watched.leave();
      }
    },

    async *watchJobs(request, context) {
      const { signal } = context;
      const filter = filterOf(request, tenantOf(context));
      options.watched.enter();
      try {
        for await (const change of store.watchJobs(filter, request.watchToken || undefined, signal)) {
          yield create(WatchJobsResponseSchema, {
            job: change.job && (await present(change.job)),
            watchToken: change.watchToken,
            reset: change.reset,
            leftFilter: !change.matches,
          });
        }
      } finally {
        options.watched.leave();
      }
    },

    async list(request, context) {
      const page = await store.list({
        ...filterOf(request, tenantOf(context)),
        createdAfterMs: request.createdAfter && timestampMs(request.createdAfter),
        createdBeforeMs: request.createdBefore && timestampMs(request.createdBefore),
        pageSize: request.pageSize || 50,
        pageToken: request.pageToken || undefined,
      });
      return create(ListResponseSchema, {
        jobs: await Promise.all(page.jobs.map(present)),
        nextPageToken: page.nextPageToken ?? '',
        watchToken: page.watchToken,
      });
    },

    async cancel({ jobId }, context) {
      await existing(jobId, context);
      const job = await store.cancel(jobId, options.cancelGraceMs);
      if (!job) throw JobsError.jobNotFound(jobId);
      return { job: await present(job) };
    },

    async purge({ jobId }, context) {
      await existing(jobId, context);
      const job = await store.purge(jobId);
      if (!job) throw JobsError.jobNotFound(jobId);
      // Deleted for good is what is durable: a blob store that is away or slow is not waited for.
      await Promise.race([Promise.all([options.reclaim(), options.sweepUploads()]), delay(RECLAIM_WAIT_MS, undefined, { ref: false })]);
      return { job: await present(job) };
    },
  };
}

export function createProcessService(options: JobServiceOptions): ServiceImpl<typeof ProcessService> {
  const submit = submitter(options);
  const shortcut = (processor: string) => async (request: { job?: JobRequest }, context: HandlerContext) => {
    const job = request.job ?? create(JobRequestSchema);
    job.parameters = { ...job.parameters, processors: job.parameters?.processors ?? [processor] };
    return await submit(job, context);
  };
  return { swap: shortcut('face_swapper'), enhance: shortcut('face_enhancer') };
}

/** Admission, then one atomic step of the store; with `Prefer: wait`, until the job has ended or the time is up. */
function submitter(options: JobServiceOptions) {
  const { store, engine } = options;
  const present = presenter(options);
  return async (request: JobRequest, context: HandlerContext): Promise<{ job: Job; created: boolean }> => {
    request.idempotencyKey ??= context.requestHeader.get('idempotency-key') ?? undefined;
    const { identity } = callerOf(context);
    const { job, created } = await submitted(request, identity, context);
    const seconds = context.values.get(waitSeconds);
    const view = present(seconds ? await ended(store, job, seconds, context) : job);
    return { job: view instanceof Promise ? await view : view, created };
  };

  async function submitted(request: JobRequest, identity: Identity, context: HandlerContext): Promise<Submitted> {
    try {
      return await admitted(request, identity, context);
    } catch (error) {
      const job = await repeated(request, identity.tenant);
      if (!job) throw error;
      return { job, created: false };
    }
  }

  async function admitted(request: JobRequest, identity: Identity, context: HandlerContext): Promise<Submitted> {
    const { tenant } = identity;
    const traceparent = traceparentOf(context);
    const wanted = engine(request.engine);
    const admission = await admit(request, tenant, wanted, options);
    if (admission.violations.length > 0) {
      // Paths are those of what the caller sent: over REST the body is the job, elsewhere it is a field of the request.
      const at = context.protocolName === 'rest' ? '' : 'job.';
      throw JobsError.invalid(admission.violations.map((one) => ({ ...one, field: `${at}${one.field}` })));
    }
    await options.checkRoom();
    const digest = request.idempotencyKey === undefined ? '' : requestDigest(request);
    const job = newJobFrom(request, { identity, engine: wanted, admission, digest, traceparent, maxAttempts: options.maxAttempts });
    return await store.submit(job, limitsOf(options.policyOf(tenant).quotas, options.idempotencyMs));
  }

  /** A repeat is answered as the first call was, whatever has changed since: an upload that has expired, an engine that is not up. */
  async function repeated(request: JobRequest, tenant: string): Promise<Job | undefined> {
    if (request.idempotencyKey === undefined || violationsOf(JobRequestSchema, request).length > 0) return undefined;
    return await store.submitted(tenant, request.idempotencyKey, requestDigest(request));
  }
}

/** The job as it is when it has ended, or when the time is up. */
async function ended(store: JobStore, job: Job, seconds: number, context: HandlerContext): Promise<Job> {
  if (!isTerminal(job.status)) {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, seconds * 1000);
    // Who is late leaves its watch to the end of the call: a signal of its own would cost each call more than all the rest here.
    try {
      await Promise.race([lastOf(store.watch(job.jobId, job.sequence, context.signal)), late]);
    } finally {
      clearTimeout(timer);
    }
  }
  const now = (await store.get(job.jobId)) ?? job;
  if (isTerminal(now.status)) context.responseHeader.set('preference-applied', `wait=${seconds}`);
  return now;
}

async function lastOf(events: AsyncIterable<JobEvent>): Promise<void> {
  for await (const event of events) void event;
}

/** How long a purge waits until the bytes are gone too. */
const RECLAIM_WAIT_MS = 5_000;

/** One response object per event object, so that whoever serialises it does so once for all watchers. */
const responses = new WeakMap<JobEvent, WatchResponse>();

function wrapped(event: JobEvent): WatchResponse {
  let response = responses.get(event);
  if (!response) {
    response = create(WatchResponseSchema, { event });
    responses.set(event, response);
  }
  return response;
}

async function presentSnapshot(event: JobEvent, present: (job: Job) => Job | Promise<Job>): Promise<WatchResponse> {
  if (event.event.case !== 'snapshot' || !event.event.value.job) return wrapped(event);
  const value = create(SnapshotSchema, { ...event.event.value, job: await present(event.event.value.job) });
  return create(WatchResponseSchema, { event: { ...event, event: { case: 'snapshot', value } } });
}

function filterOf(request: ListRequest | WatchJobsRequest, tenant: string): JobFilter {
  return {
    tenant,
    statuses: request.status.length > 0 ? request.status : undefined,
    errorReason: request.errorReason || undefined,
    labels: request.label.map((label) => {
      const at = label.indexOf('=');
      return at < 0 ? { key: label } : { key: label.slice(0, at), value: label.slice(at + 1) };
    }),
    batchId: request.batchId || undefined,
  };
}

/** Throws NOT_FOUND, with the reason, where there is no result or none any more. */
function withResult(job: Job): Job & { readonly result: MediaResult } {
  if (hasExpired(job)) {
    const when = timestampDate(job.resultExpireTime!).toISOString();
    throw new JobsError(
      'not_found',
      'RESULT_EXPIRED',
      `the result of ${job.jobId} was kept until ${when}: submit the job again to have it anew`,
    );
  }
  if (job.purgedAt) throw new JobsError('not_found', 'RESULT_PURGED', `the result of ${job.jobId} was purged`);
  if (!isTerminal(job.status)) {
    const retryAfterSeconds = job.estimatedFinishTime ? Math.max(1, (timestampMs(job.estimatedFinishTime) - Date.now()) / 1000) : 2;
    const message = `${job.jobId} is ${nameOf(job.status)} (${job.progress} %); watch it or ask again later`;
    throw new JobsError('not_found', 'RESULT_NOT_READY', message, { retryAfterSeconds: Math.min(60, retryAfterSeconds) });
  }
  if (!job.result) {
    const why = job.errorMessage ? `: ${job.errorMessage}` : '';
    throw new JobsError('not_found', 'NO_RESULT', `${job.jobId} is ${nameOf(job.status)} and has no result${why}`);
  }
  return { ...job, result: job.result };
}

function nameOf(status: JobStatus): string {
  return JobStatus[status]?.toLowerCase() ?? 'unknown';
}
