// JobService and ProcessService over the job store. A call here is thin: admit, one step of the store, present. What a job may become is
// the domain's affair, how a call looks on the wire the server's.
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { create, type DescMessage } from '@bufbuild/protobuf';
import { durationMs, timestampDate, timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { SnapshotSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { type JobRequest, JobRequestSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
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
import { JobsError } from '../jobs/errors.ts';
import { isTerminal, type Job, JobStatus, newJobId, stateOf } from '../jobs/job.ts';
import { placementOf } from '../jobs/placement.ts';
import type { BlobStore, JobFilter, JobStore, Limits, Submitted } from '../jobs/ports.ts';
import type { Quotas } from '../jobs/tenants.ts';
import { waitSeconds } from '../rest/call.ts';
import { type Admission, type AdmissionRules, admit, type Engine, refuseUnimplemented, requestDigest } from './admission.ts';
import { callerOf } from './authorize.ts';
import { violationsOf } from './interceptors.ts';

export interface JobServiceOptions extends AdmissionRules {
  readonly store: JobStore;
  readonly blobs: Pick<BlobStore, 'signedUrl'>;
  /** Deletes the blobs that no job refers to; never rejects. */
  readonly reclaim: () => Promise<void>;
  /** Throws UNAVAILABLE while no worker has said yet what it can do. */
  readonly engine: (wanted?: string) => Engine;
  /** How long an idempotency key is kept, in milliseconds. */
  readonly idempotencyMs: number;
  readonly maxAttempts: number;
  readonly cancelGraceMs: number;
  readonly resultUrlTtlMs: number;
  /** Base of URLs handed out. */
  readonly baseUrl: () => string;
  /** Told of each stream that begins and ends. */
  readonly watched: { enter(): void; leave(): void };
  /** Deletes the uploads that no job needs any more. */
  readonly sweepUploads: () => Promise<void>;
}

/** Requests that are checked here, contract rules included, so that a caller hears of everything at once. */
export const SELF_VALIDATED: ReadonlySet<DescMessage> = new Set([
  JobService.method.submit.input,
  JobService.method.validate.input,
  ProcessService.method.swap.input,
  ProcessService.method.enhance.input,
]);

const notYet = (what: string) => () => {
  throw new JobsError('unimplemented', 'NOT_AVAILABLE_YET', `${what} are not part of this version yet; submit the jobs one by one`);
};

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
    submit: async (request, context) => await submit(request.job ?? create(JobRequestSchema), context),
    submitBatch: notYet('batches'),
    getBatch: notYet('batches'),
    watchBatch: notYet('batches') as ServiceImpl<typeof JobService>['watchBatch'],
    cancelBatch: notYet('batches'),

    async validate({ job }, context) {
      const tenant = tenantOf(context);
      const admission = await admit(job ?? create(JobRequestSchema), tenant, engine(job?.engine), options);
      return create(ValidateResponseSchema, {
        valid: admission.violations.length === 0,
        violations: admission.violations.map(({ field, description, reason }) => ({ field, description, reason })),
        warnings: [...admission.warnings],
        resolvedParameters: admission.parameters,
        estimate: await estimate(store, tenant, admission),
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
      const job = await existing(jobId, context);
      if (hasExpired(job)) {
        const when = timestampDate(job.resultExpireTime!).toISOString();
        throw new JobsError(
          'not_found',
          'RESULT_EXPIRED',
          `the result of ${jobId} was kept until ${when}: submit the job again to have it anew`,
        );
      }
      if (job.purgedAt) throw new JobsError('not_found', 'RESULT_PURGED', `the result of ${jobId} was purged`);
      if (!isTerminal(job.status)) {
        const retryAfterSeconds = job.estimatedFinishTime ? Math.max(1, (timestampMs(job.estimatedFinishTime) - Date.now()) / 1000) : 2;
        const message = `${jobId} is ${nameOf(job.status)} (${job.progress} %); watch it or ask again later`;
        throw new JobsError('not_found', 'RESULT_NOT_READY', message, { retryAfterSeconds: Math.min(60, retryAfterSeconds) });
      }
      if (!job.result) {
        const why = job.errorMessage ? `: ${job.errorMessage}` : '';
        throw new JobsError('not_found', 'NO_RESULT', `${jobId} is ${nameOf(job.status)} and has no result${why}`);
      }
      const expiresMs = urlExpiry(options, job);
      return { url: await signedUrl(options, job, expiresMs), expireTime: timestampFromMs(expiresMs), result: job.result };
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
    refuseUnimplemented(request);
    const { identity } = callerOf(context);
    const { job, created } = await admitted(request, identity).catch(async (error: unknown) => {
      const job = await repeated(request, identity.tenant);
      if (!job) throw error;
      return { job, created: false };
    });
    const seconds = context.values.get(waitSeconds);
    return { job: await present(seconds ? await ended(store, job, seconds, context) : job), created };
  };

  async function admitted(request: JobRequest, { kind, name, tenant }: Identity): Promise<Submitted> {
    const wanted = engine(request.engine);
    const admission = await admit(request, tenant, wanted, options);
    if (admission.violations.length > 0) throw JobsError.invalid(admission.violations);
    return await store.submit(
      {
        jobId: newJobId(Date.now(), randomBytes(12)),
        tenant,
        request,
        requestDigest: request.idempotencyKey === undefined ? '' : requestDigest(request),
        warnings: admission.warnings,
        submittedBy: kind === 'anonymous' ? undefined : name,
        maxAttempts: request.maxAttempts ?? options.maxAttempts,
        startTimeoutMs: request.startTimeout && durationMs(request.startTimeout),
        placement: placementOf(wanted.name, admission.parameters, admission.processors),
      },
      limitsOf(options.policyOf(tenant).quotas, options.idempotencyMs),
    );
  }

  /** A repeat is answered as the first call was, whatever has changed since: an upload that has expired, an engine that is not up. */
  async function repeated(request: JobRequest, tenant: string): Promise<Job | undefined> {
    if (request.idempotencyKey === undefined || violationsOf(JobRequestSchema, request).length > 0) return undefined;
    return await store.submitted(tenant, request.idempotencyKey, requestDigest(request));
  }
}

async function ended(store: JobStore, job: Job, seconds: number, context: HandlerContext): Promise<Job> {
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(seconds * 1000)]);
  if (!isTerminal(job.status)) {
    for await (const event of store.watch(job.jobId, job.sequence, signal)) void event;
  }
  const now = (await store.get(job.jobId)) ?? job;
  if (isTerminal(now.status)) context.responseHeader.set('preference-applied', `wait=${seconds}`);
  return now;
}

function tenantOf(context: HandlerContext): string {
  return callerOf(context).identity.tenant;
}

function limitsOf({ queuedJobs, gpuSecondsPerDay, storedBytes }: Quotas, idempotencyMs: number): Limits {
  return { maxQueued: queuedJobs ?? Number.MAX_SAFE_INTEGER, idempotencyMs, gpuSecondsPerDay, storedBytes };
}

/** How long a purge waits until the bytes are gone too. */
const RECLAIM_WAIT_MS = 5_000;

/** How long a signed URL is handed out again before a new one is made; the least of this and a tenth of its life. */
const REUSE_URL_MS = 60_000;

/** A job as a caller sees it: with a signed URL of its result, minted when it is read and never stored. */
function presenter(options: JobServiceOptions): (job: Job) => Job | Promise<Job> {
  const reuseMs = Math.min(REUSE_URL_MS, options.resultUrlTtlMs / 10);
  // One view for all who read the same job within that time, so that whoever serialises it does so once.
  const views = new WeakMap<Job, { readonly view: Job; readonly untilMs: number }>();
  return (job) => {
    if (!job.result || job.status !== JobStatus.SUCCEEDED || hasExpired(job)) return job;
    const nowMs = Date.now();
    const known = views.get(job);
    if (known && nowMs < known.untilMs) return known.view;
    const expiresMs = urlExpiry(options, job);
    return signedUrl(options, job, expiresMs).then((resultUrl) => {
      const view = { ...job, resultUrl };
      views.set(job, { view, untilMs: Math.min(nowMs + reuseMs, expiresMs) });
      return view;
    });
  };
}

/** When the result's time is up, whether it has been swept yet or not. One that was purged before has no such time any more. */
function hasExpired({ resultExpireTime, purgedAt }: Job): boolean {
  return resultExpireTime !== undefined && timestampMs(resultExpireTime) <= (purgedAt ? timestampMs(purgedAt) : Date.now());
}

/** A URL does not outlive what it leads to. Milliseconds since 1970. */
function urlExpiry({ resultUrlTtlMs }: JobServiceOptions, { resultExpireTime }: Job): number {
  const wanted = Date.now() + resultUrlTtlMs;
  return resultExpireTime ? Math.min(wanted, timestampMs(resultExpireTime)) : wanted;
}

async function signedUrl(options: JobServiceOptions, job: Job, expiresMs: number): Promise<string> {
  const { sha256, mediaType } = job.result!;
  const filename = `${job.jobId}.${EXTENSIONS[mediaType] ?? 'bin'}`;
  return new URL(await options.blobs.signedUrl(sha256, { expiresMs, filename, mediaType }), options.baseUrl()).href;
}

const EXTENSIONS: Readonly<Record<string, string>> = {
  'image/jpeg': 'jpg',
  'image/png': 'png',
  'image/webp': 'webp',
  'video/mp4': 'mp4',
  'video/webm': 'webm',
  'video/quicktime': 'mov',
};

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

function nameOf(status: JobStatus): string {
  return JobStatus[status]?.toLowerCase() ?? 'unknown';
}

/** From the last jobs of the same kind and the throughput of the last hour; fields stay unset where nothing is known. */
async function estimate(store: JobStore, tenant: string, { target }: Admission) {
  const [overview, recent] = await Promise.all([
    store.overview(3_600_000),
    store.list({ tenant, statuses: [JobStatus.SUCCEEDED], pageSize: 20 }),
  ]);
  const wanted = target === 'video' ? 'targetVideo' : 'targetImage';
  const runs = recent.jobs
    .filter((job) => job.request?.target.case === wanted && job.timings)
    .map((job) => job.timings!.runSeconds)
    .sort((a, b) => a - b);
  const jobsAhead = overview.totals.get(JobStatus.QUEUED) ?? 0;
  // Time without work says nothing of the pace.
  const busy = overview.throughput.map((step) => [...step.ended.values()].reduce((a, b) => a + b, 0)).filter((ended) => ended > 0);
  const ended = busy.reduce((a, b) => a + b, 0);
  const perJob = ended > 0 ? (busy.length * overview.stepSeconds) / ended : undefined;
  return {
    jobsAhead,
    run: runs.length > 0 ? duration(runs[runs.length >> 1]!) : undefined,
    wait: jobsAhead === 0 ? duration(0) : perJob === undefined ? undefined : duration(jobsAhead * perJob),
  };
}

function duration(seconds: number) {
  const whole = Math.floor(seconds);
  return { seconds: BigInt(whole), nanos: Math.round((seconds - whole) * 1000) * 1_000_000 };
}
