// How jobs and batches come into a fleet's store. Always true here: what a submit is refused for is looked at in the script that would add the job, in one
// order (idempotency, quotas, uploads, jobs whose results it takes); what only this side can judge is judged before, of versions that the script checks.
import { toBinary } from '@bufbuild/protobuf';
import { JobRequestSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { type Batch, membersOf } from '../../jobs/batches.ts';
import { checkBatchInputs, checkInputJobs, inputJobsOf } from '../../jobs/chains.ts';
import { fieldInItem, JobsError } from '../../jobs/errors.ts';
import { type Job, newJob, rankOf, stateOf, WaitReason } from '../../jobs/job.ts';
import type { JobId, Limits, NewBatch, NewJob, Submitted, SubmittedBatch } from '../../jobs/ports.ts';
import { checkUsage, dayOf, quotaExceeded } from '../../jobs/quotas.ts';
import { eventOf, keyReused } from '../../jobs/steps.ts';
import { uploadRefused, uploadsOf } from '../../jobs/uploads.ts';
import type { WebhookRules } from '../../jobs/webhooks.ts';
import { encodeMembers, type RedisBatches } from './batches.ts';
import type { RedisConnection, Reply } from './connection.ts';
import { encodeEvents } from './event-log.ts';
import type { RedisJobs } from './jobs.ts';
import type { Arguments } from './pack.ts';
import { encodeEffects, encodeFacts, encodeState, labelsOf, present, type RedisJob } from './record.ts';

export interface RedisIntakeOptions {
  readonly redis: RedisConnection;
  readonly jobs: RedisJobs;
  readonly batches: RedisBatches;
  readonly now: () => number;
  readonly webhookRules: WebhookRules;
  /** Jobs of a tenant that nodes may hold at once, kept with its last submit; undefined: as before. */
  readonly maxRunning: ((tenant: string) => number | undefined) | undefined;
  /** Something is due in so many milliseconds. */
  readonly dueIn: (ms: number) => void;
}

/** Of a job that takes no other's result. */
const NO_INPUTS = { inputs: '', waits: false };

export class RedisIntake {
  readonly #options: RedisIntakeOptions;

  constructor(options: RedisIntakeOptions) {
    this.#options = options;
  }

  /** See `JobStore.submit`. */
  async submit(wanted: NewJob, limits: Limits): Promise<Submitted> {
    const { redis, jobs, now, webhookRules, dueIn } = this.#options;
    const { tenant, request, jobId, maxAttempts, warnings, submittedBy, traceparent } = wanted;
    const nowMs = now();
    const job = newJob(jobId, request, nowMs, { tenant, warnings, submittedBy, traceparent });
    job.sequence = 1;
    const deadlineMs = deadlineOf(wanted, nowMs);
    const score = rankOf(nowMs, request.priority);
    const key = request.idempotencyKey;
    const uploads = uploadsOf(request);
    const seen = await this.#inputsOf(wanted);
    // What waits says so from the first event on.
    if ('waits' in seen && seen.waits) job.waitReason = WaitReason.ANOTHER_JOB;
    const reply = (await redis.run('submit', [
      jobId,
      tenant,
      nowMs,
      limits.maxQueued,
      this.#mostRunning(tenant),
      mostUsed(limits, nowMs),
      'refusal' in seen ? 'refused' : '',
      key ? [key, wanted.requestDigest, limits.idempotencyMs] : '',
      ...encodeNew(wanted, job, nowMs, 'refusal' in seen ? '' : seen.inputs, '', webhookRules),
    ])) as [Buffer, ...Reply[]];
    switch (reply[0].toString()) {
      case 'reused':
        throw keyReused(key!, reply[1]!.toString());
      case 'full':
        throw quotaExceeded(reply[1] as number, limits.maxQueued);
      case 'used':
        throw usageExceeded(reply, limits, nowMs);
      case 'upload': {
        const id = reply[1]!.toString();
        throw uploadRefused(id, uploads.get(id)!);
      }
      case 'refused':
        throw (seen as { refusal: JobsError }).refusal;
      case 'moved':
        return await this.submit(wanted, limits);
      case 'known':
        return { job: present(jobs.decode(reply[2]!), reply[1] as number | null), created: false };
    }
    const place = reply[1]!.toString();
    const stored: RedisJob = {
      ver: 1,
      tenant,
      place,
      job,
      held: false,
      token: undefined,
      score,
      deadlineMs,
      maxAttempts,
      spent: 0,
      kills: 0,
      blob: undefined,
      trimmedTo: 0,
      op: undefined,
      owed: undefined,
      fingerprint: undefined,
      followers: 0,
      joined: undefined,
    };
    jobs.learn(stored);
    if (deadlineMs !== undefined) dueIn(deadlineMs - nowMs);
    return { job: present(stored, reply[2] as number), created: true };
  }

  /** See `JobStore.submitBatch`. */
  async submitBatch(wanted: NewBatch, limits: Limits): Promise<SubmittedBatch> {
    const { redis, batches, now, webhookRules, dueIn } = this.#options;
    const { batchId, tenant, idempotencyKey: key, jobs } = wanted;
    const nowMs = now();
    const siblings = new Set(jobs.map(({ jobId }) => jobId));
    const ids = jobs.flatMap(({ request }) => inputJobsOf(request).map(({ jobId }) => jobId));
    const seen = await this.#lookAt([...new Set(ids)].filter((id) => !siblings.has(id)));
    const refusal = refusalOf(() => checkBatchInputs(wanted, (id) => seen.get(id)));
    const reply = (await redis.run('submit_batch', [
      batchId,
      tenant,
      nowMs,
      limits.maxQueued,
      this.#mostRunning(tenant),
      mostUsed(limits, nowMs),
      wanted.order.map((i) => batchedJob(jobs[i]!, seen, nowMs, webhookRules)),
      refusal ? 'refused' : '',
      key ? [key, wanted.requestDigest, limits.idempotencyMs] : '',
      wanted.stopGraceMs ?? '',
      encodeMembers(membersOf(wanted)),
    ])) as [Buffer, ...Reply[]];
    switch (reply[0].toString()) {
      case 'reused':
        throw keyReused(key!, reply[1]!.toString());
      case 'full':
        throw quotaExceeded(reply[1] as number, limits.maxQueued, jobs.length);
      case 'used':
        throw usageExceeded(reply, limits, nowMs);
      case 'upload': {
        const [jobId, upload] = [reply[1]!.toString(), reply[2]!.toString()];
        const index = jobs.findIndex((one) => one.jobId === jobId);
        throw uploadRefused(upload, fieldInItem(index, uploadsOf(jobs[index]!.request).get(upload)!));
      }
      case 'refused':
        throw refusal;
      case 'moved':
        return await this.submitBatch(wanted, limits);
      case 'known':
        return { batch: (await batches.get(reply[1]!.toString()))!, created: false };
    }
    for (const { startTimeoutMs } of jobs) if (startTimeoutMs !== undefined) dueIn(startTimeoutMs);
    return { batch: (await batches.get(batchId))!, created: true };
  }

  /** See `JobStore.submitted`. */
  async submitted(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Job | undefined> {
    const jobId = await this.#knownAs(tenant, idempotencyKey, requestDigest);
    return jobId === undefined ? undefined : await this.#options.jobs.shown(jobId);
  }

  /** See `JobStore.submittedBatch`. */
  async submittedBatch(tenant: string, idempotencyKey: string, requestDigest: string): Promise<Batch | undefined> {
    const batchId = await this.#knownAs(tenant, idempotencyKey, requestDigest);
    return batchId === undefined ? undefined : await this.#options.batches.get(batchId);
  }

  /** What an idempotency key stands for. */
  async #knownAs(tenant: string, idempotencyKey: string, requestDigest: string): Promise<string | undefined> {
    const known = (await this.#options.redis.get(`idempotency:${Buffer.byteLength(tenant)}:${tenant}:${idempotencyKey}`))?.toString();
    if (known === undefined) return undefined;
    const at = known.indexOf(' ');
    const id = known.slice(at + 1);
    if (known.slice(0, at) !== requestDigest) throw keyReused(idempotencyKey, id);
    return id;
  }

  /** As the submit scripts want it: '' for any number, '-' as before. */
  #mostRunning(tenant: string): number | '' | '-' {
    const { maxRunning } = this.#options;
    return maxRunning ? (maxRunning(tenant) ?? '') : '-';
  }

  /** The jobs whose results a new one takes, as submit.lua wants them, or why it may not. */
  async #inputsOf({ request, tenant }: NewJob): Promise<{ inputs: string; waits: boolean } | { refusal: JobsError }> {
    const inputs = inputJobsOf(request);
    if (inputs.length === 0) return NO_INPUTS;
    const found = await this.#lookAt([...new Set(inputs.map(({ jobId }) => jobId))]);
    const refusal = refusalOf(() => checkInputJobs(request, tenant, (id) => found.get(id)));
    return refusal ? { refusal } : takenFrom(found.values());
  }

  async #lookAt(ids: readonly JobId[]): Promise<ReadonlyMap<JobId, Job>> {
    const views = await this.#options.jobs.views(ids);
    return new Map(views.flatMap((viewed, i) => (viewed ? [[ids[i]!, viewed.stored.job]] : [])));
  }
}

/** Throws: the script has found a quota used up. */
function usageExceeded(reply: readonly Reply[], limits: Limits, nowMs: number): Error {
  checkUsage({ storedBytes: reply[1] as number, gpuSecondsToday: (reply[2] as number) / 1000 }, limits, nowMs);
  return new Error('the job store refuses for a quota that is not exceeded');
}

/** With which a job's stream begins. */
function firstEvent(job: Job, nowMs: number): string | Uint8Array {
  return encodeEvents([eventOf(job, { case: 'state', value: stateOf(job) }, nowMs)])[1]!;
}

function deadlineOf({ startTimeoutMs }: NewJob, nowMs: number): number | undefined {
  return startTimeoutMs === undefined ? undefined : nowMs + startTimeoutMs;
}

/** A job among the arguments of submit_batch.lua. `seen`: jobs outside of the batch whose results are taken. */
function batchedJob(wanted: NewJob, seen: ReadonlyMap<JobId, Job>, nowMs: number, webhookRules: WebhookRules): Arguments {
  const { jobId, request, tenant, batchId, warnings, submittedBy, traceparent } = wanted;
  const ids = [...new Set(inputJobsOf(request).map((input) => input.jobId))];
  const outside = takenFrom(ids.flatMap((id) => seen.get(id) ?? []));
  const siblings = ids.filter((id) => !seen.has(id)).map((id) => `${id} `);
  const wait = outside.waits || siblings.length > 0 ? WaitReason.ANOTHER_JOB : WaitReason.SLOT;
  const job = newJob(jobId, request, nowMs, { tenant, batchId, warnings, submittedBy, wait, traceparent });
  job.sequence = 1;
  return encodeNew(wanted, job, nowMs, outside.inputs, siblings.join('\n'), webhookRules);
}

/** A new job for intake.lua. `inputs` and `siblings`: whose results it takes, of others and of its batch. */
function encodeNew(wanted: NewJob, job: Job, nowMs: number, inputs: string, siblings: string, webhookRules: WebhookRules): Arguments {
  const { request, maxAttempts } = wanted;
  return [
    job.jobId,
    classOf(wanted),
    rankOf(nowMs, request.priority),
    deadlineOf(wanted, nowMs) ?? '',
    encodeState(job),
    toBinary(JobRequestSchema, request),
    encodeFacts({ maxAttempts, spent: 0, kills: 0, trimmedTo: 0 }),
    firstEvent(job, nowMs),
    job.batchId ?? '',
    [...uploadsOf(request).keys()].join('\n'),
    inputs,
    siblings,
    encodeEffects(undefined, job, nowMs, webhookRules),
    ...labelsOf(request),
  ];
}

/** What a tenant may have used for a new job to come in, as intake.lua wants it. */
function mostUsed({ storedBytes, gpuSecondsPerDay }: Limits, nowMs: number): Arguments | '' {
  if (storedBytes === undefined && gpuSecondsPerDay === undefined) return '';
  return [dayOf(nowMs), storedBytes ?? '', gpuSecondsPerDay === undefined ? '' : gpuSecondsPerDay * 1000];
}

/** Jobs whose results a new one takes, as submit.lua wants them, and whether one of them has not ended. */
function takenFrom(jobs: Iterable<Job>): { readonly inputs: string; readonly waits: boolean } {
  const blobs = [...jobs].map(({ jobId, result }) => [jobId, result?.sha256 ?? ''] as const);
  return { inputs: blobs.map(([id, blob]) => `${id} ${blob}`).join('\n'), waits: blobs.some(([, blob]) => blob === '') };
}

function refusalOf(check: () => void): JobsError | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (error instanceof JobsError) return error;
    throw error;
  }
}

/** What a node must run, and have warm, for a job: `ENGINE|MODEL,MODEL`. */
function classOf({ placement }: NewJob): string {
  if (!placement) return '|';
  return `${encodeURIComponent(placement.engine ?? '')}|${[...placement.models].sort().map(encodeURIComponent).join(',')}`;
}
