// How jobs and batches come in, inside the caller's transaction. Always true here: a submit refuses before its first write, in one order: idempotency, quotas,
// uploads, jobs whose results it takes.
import type { Batch } from '../jobs/batches.ts';
import { checkBatchInputs, checkInputJobs, inputJobsOf, NEVER_MS } from '../jobs/chains.ts';
import { inItem } from '../jobs/errors.ts';
import { newJob, rankOf, stateOf, WaitReason } from '../jobs/job.ts';
import type { Limits, NewBatch, NewJob } from '../jobs/ports.ts';
import { quotaExceeded } from '../jobs/quotas.ts';
import { uploadsOf } from '../jobs/uploads.ts';
import type { BatchTable } from './batch-table.ts';
import type { IdempotencyKeys } from './idempotency.ts';
import type { InputJobs } from './input-jobs.ts';
import type { JobFigures } from './job-figures.ts';
import type { JobNews } from './job-news.ts';
import { type JobTable, queuedAs, type StoredJob } from './job-table.ts';
import type { ReadyQueue } from './ready-queue.ts';
import type { TenantUsage } from './tenant-usage.ts';
import type { UploadTable } from './upload-records.ts';

export interface JobIntakeOptions {
  readonly table: JobTable;
  readonly queue: ReadyQueue;
  readonly figures: JobFigures;
  readonly news: JobNews;
  readonly inputs: InputJobs;
  readonly keys: IdempotencyKeys;
  readonly usage: TenantUsage;
  readonly uploads: UploadTable;
  readonly batches: BatchTable;
  readonly now: () => number;
}

export class JobIntake {
  readonly #options: JobIntakeOptions;

  constructor(options: JobIntakeOptions) {
    this.#options = options;
  }

  submit(wanted: NewJob, limits: Limits): { readonly stored: StoredJob; readonly created: boolean } {
    const { table, uploads, keys, now } = this.#options;
    const nowMs = now();
    const { tenant, request, requestDigest: digest, jobId } = wanted;
    const key = request.idempotencyKey;
    const known = key === undefined ? undefined : this.submitted(tenant, key, digest, nowMs);
    if (known) return { stored: known, created: false };
    this.#checkQuota(tenant, limits, 1, nowMs);
    uploads.check(request, tenant);
    checkInputJobs(request, tenant, (id) => table.get(id)?.job);
    const stored = this.#add(wanted, nowMs);
    if (key !== undefined) keys.keep(tenant, key, digest, jobId, nowMs, limits.idempotencyMs);
    return { stored, created: true };
  }

  submitBatch(wanted: NewBatch, limits: Limits): { readonly batch: Batch; readonly created: boolean } {
    const { table, uploads, batches, keys, now } = this.#options;
    const nowMs = now();
    const { tenant, idempotencyKey: key, requestDigest: digest, batchId, jobs } = wanted;
    const known = key === undefined ? undefined : this.submittedBatch(tenant, key, digest, nowMs);
    if (known) return { batch: known, created: false };
    this.#checkQuota(tenant, limits, jobs.length, nowMs);
    for (const [i, { request }] of jobs.entries()) {
      if (uploadsOf(request).size > 0) inItem(i, () => uploads.check(request, tenant));
    }
    checkBatchInputs(wanted, (id) => table.get(id)?.job);
    batches.insert(wanted, nowMs);
    for (const i of wanted.order) this.#add(jobs[i]!, nowMs);
    if (key !== undefined) keys.keep(tenant, key, digest, batchId, nowMs, limits.idempotencyMs);
    return { batch: batches.get(batchId)!, created: true };
  }

  /** See `JobStore.submitted`. Changes nothing. */
  submitted(tenant: string, key: string, digest: string, nowMs: number): StoredJob | undefined {
    const id = this.#options.keys.find(tenant, key, digest, nowMs);
    return id === undefined ? undefined : this.#options.table.get(id);
  }

  /** See `JobStore.submittedBatch`. Changes nothing. */
  submittedBatch(tenant: string, key: string, digest: string, nowMs: number): Batch | undefined {
    const id = this.#options.keys.find(tenant, key, digest, nowMs);
    return id === undefined ? undefined : this.#options.batches.get(id);
  }

  #checkQuota(tenant: string, limits: Limits, jobs: number, nowMs: number): void {
    const { figures, usage } = this.#options;
    const queued = figures.queued(tenant);
    if (queued + jobs > limits.maxQueued) throw quotaExceeded(queued, limits.maxQueued, jobs);
    usage.check(tenant, limits, nowMs);
  }

  /** A job that may come in: record, queue and first event. The jobs whose results it takes are there. */
  #add(wanted: NewJob, nowMs: number): StoredJob {
    const { table, queue, figures, news, uploads, inputs } = this.#options;
    const { tenant, request, batchId, warnings, submittedBy, traceparent } = wanted;
    const taken = new Map(inputJobsOf(request).map(({ jobId }) => [jobId, table.get(jobId)!.job.result?.sha256]));
    const waits = [...taken.values()].includes(undefined);
    const wait = waits ? WaitReason.ANOTHER_JOB : WaitReason.SLOT;
    const job = newJob(wanted.jobId, request, nowMs, { tenant, batchId, warnings, submittedBy, wait, traceparent });
    job.sequence = 1;
    const stored = table.insert({
      tenant,
      job,
      score: rankOf(nowMs, request.priority),
      readyAtMs: waits ? NEVER_MS : 0,
      maxAttempts: wanted.maxAttempts,
      deadlineMs: wanted.startTimeoutMs === undefined ? undefined : nowMs + wanted.startTimeoutMs,
    });
    uploads.use(stored.num, request);
    for (const [of, key] of taken) inputs.take(stored.num, of, key);
    news.event(stored, { case: 'state', value: stateOf(job) }, nowMs);
    news.status(undefined, job, nowMs);
    figures.moved(tenant, undefined, job.status, nowMs);
    queue.add(queuedAs(stored), nowMs);
    return stored;
  }
}
