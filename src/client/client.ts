// A service's jobs in a program of one's own: the generated clients over one transport, and what every caller would write around them. It
// knows the contract and nothing else of this repository; what differs between Node and browsers (transport, upload) comes in.
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Client, Code, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { AccessService } from '../../gen/facefusion/jobs/v1/access_service_pb.js';
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { type Job, type JobRequestSchema, JobStatus, type MediaResult } from '../../gen/facefusion/jobs/v1/job_pb.js';
import {
  type Batch,
  JobService,
  type SubmitBatchRequestSchema,
  type WatchBatchResponse,
} from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { type UploadResponse, UploadService } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { WebhookService } from '../../gen/facefusion/jobs/v1/webhook_service_pb.js';
import type { ResumeOptions } from './reconnects.ts';
import { backoffMs, LOSSES, pause, type RetryOptions } from './retry.ts';
import { isTerminal, statusIn, type WatchOptions, watch } from './watch.ts';
import { watchBatch } from './watch-batch.ts';

export type JobRequestInit = MessageInitShape<typeof JobRequestSchema>;
export type BatchInit = MessageInitShape<typeof SubmitBatchRequestSchema>;

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface WaitOptions extends Omit<WatchOptions, 'after'> {
  onEvent?(event: JobEvent): void;
}

export interface SubmitAndWaitOptions extends WaitOptions {
  /** Whether a job is canceled when `signal` aborts the wait for it; default true: nobody else knows of it. */
  readonly cancelOnAbort?: boolean;
  /** That could not be done within 10 seconds: the job may go on, and `cancel` of it is to be called again. */
  onCancelFailed?(error: ConnectError, jobId: string): void;
}

export interface UploadOptions extends ResumeOptions {
  /** For people; default: the file's own name. */
  readonly filename?: string | undefined;
  /** Bytes sent, and in all where that is known. */
  onProgress?(sent: number, total: number | undefined): void;
}

/** Sends the bytes of one file and answers with its `upload://ID` (`uri`). */
export type Upload<Source> = (uploads: Client<typeof UploadService>, source: Source, options: UploadOptions) => Promise<UploadResponse>;

export interface Result {
  readonly facts: MediaResult | undefined;
  /** Its body is the file. */
  readonly response: Response;
}

/** A job that ended without a result: failed, canceled or refused; `job` says which and why. */
export class JobNotSucceeded extends Error {
  override readonly name = 'JobNotSucceeded';
  readonly job: Job;
  /** The stable reason, such as NO_FACE_IN_SOURCE. */
  readonly reason: string | undefined;
  constructor(job: Job) {
    super(`${job.jobId} ${JobStatus[job.status].toLowerCase()}${job.error ? `: ${job.error.message} (${job.error.reason})` : ''}`);
    this.job = job;
    this.reason = job.error?.reason;
  }
}

export interface JobsClientOptions<Source> {
  /** Where the service is; signed URLs that it answers without a host are under it. */
  readonly baseUrl: string;
  readonly transport: Transport;
  readonly upload: Upload<Source>;
  readonly retry?: RetryOptions | undefined;
  /** Gets results from their URLs; default: the platform's own. */
  readonly fetch?: (url: URL, init: { readonly signal: AbortSignal | null }) => Promise<Response>;
  /** Ends what the transport holds. */
  readonly close?: () => void;
}

const CANCEL_MS = 10_000;

/** Every rpc is in `jobs`, `process`, `system`, `uploads`, `access` and `webhooks` as the contract has it; errors are `ConnectError`s with the details of `google.rpc`. */
export class JobsClient<Source> implements Disposable {
  readonly jobs: Client<typeof JobService>;
  readonly process: Client<typeof ProcessService>;
  readonly system: Client<typeof SystemService>;
  readonly uploads: Client<typeof UploadService>;
  readonly access: Client<typeof AccessService>;
  readonly webhooks: Client<typeof WebhookService>;
  /** Where the service is. */
  readonly url: string;
  readonly #options: JobsClientOptions<Source>;

  constructor(options: JobsClientOptions<Source>) {
    this.url = options.baseUrl;
    this.#options = options;
    this.jobs = createClient(JobService, options.transport);
    this.process = createClient(ProcessService, options.transport);
    this.system = createClient(SystemService, options.transport);
    this.uploads = createClient(UploadService, options.transport);
    this.access = createClient(AccessService, options.transport);
    this.webhooks = createClient(WebhookService, options.transport);
  }

  /** Accepted jobs are not lost, and one request is one job: it is given an idempotency key, so that it can be sent again safely. */
  async submit(request: JobRequestInit, { signal }: CallOptions = {}): Promise<Job> {
    const job = { ...request, idempotencyKey: request.idempotencyKey ?? randomKey() };
    const answer = await this.jobs.submit({ job }, { signal });
    return answer.job!;
  }

  /** All of its jobs are accepted or none; one request is one batch, as with `submit`. */
  async submitBatch(request: BatchInit, { signal }: CallOptions = {}): Promise<Batch> {
    const answer = await this.jobs.submitBatch({ ...request, idempotencyKey: request.idempotencyKey ?? randomKey() }, { signal });
    return answer.batch!;
  }

  /** How a batch goes until it has finished, over lost connections too; each change with the batch as it is then. */
  watchBatch(batchId: string, options?: ResumeOptions): AsyncGenerator<WatchBatchResponse, void> {
    return watchBatch(this.jobs, batchId, options);
  }

  /** A job's events until it has ended, in order and without gaps, over lost connections too. */
  watch(jobId: string, options?: WatchOptions): AsyncGenerator<JobEvent, void> {
    return watch(this.jobs, jobId, options);
  }

  /** The job when it has ended well, with its result and a signed URL to it. Throws `JobNotSucceeded` when it ended otherwise. */
  async wait(jobId: string, { onEvent, ...options }: WaitOptions = {}): Promise<Job> {
    for await (const event of this.watch(jobId, options)) {
      onEvent?.(event);
      if (isTerminal(statusIn(event))) break;
    }
    const { job } = await this.jobs.get({ jobId }, { signal: options.signal });
    if (job?.status !== JobStatus.SUCCEEDED) throw new JobNotSucceeded(job!);
    return job;
  }

  /** As `submit` and `wait`. An aborted wait throws the signal's reason, whatever came of the cancel that follows from it. */
  async submitAndWait(
    request: JobRequestInit,
    { cancelOnAbort = true, onCancelFailed, ...options }: SubmitAndWaitOptions = {},
  ): Promise<Job> {
    const { jobId } = await this.submit(request, options);
    try {
      return await this.wait(jobId, options);
    } catch (error) {
      // A job that has ended meanwhile is told as it ended.
      if (!options.signal?.aborted || error instanceof JobNotSucceeded) throw error;
      // Not under the signal, which has ended everything that is.
      const canceling = cancelOnAbort ? this.jobs.cancel({ jobId }, { timeoutMs: CANCEL_MS }) : undefined;
      await canceling?.catch((failure) => onCancelFailed?.(ConnectError.from(failure), jobId));
      throw options.signal.reason;
    }
  }

  /** Gives the service a file, and answers with its `uri`, which takes the place of a path or URL in a request. */
  upload(source: Source, options: UploadOptions = {}): Promise<UploadResponse> {
    return this.#options.upload(this.uploads, source, options);
  }

  /**
   * The finished job's file, to be streamed. Throws NOT_FOUND with reason RESULT_NOT_READY before that, and UNAVAILABLE where the URL is answered by nobody
   * or with an error, again and again.
   */
  async result(jobId: string, { signal }: CallOptions = {}): Promise<Result> {
    for (let tried = 0; ; tried++) {
      // Signed anew each time: the replica that the last one leads to may be gone.
      const { url, result } = await this.jobs.getResult({ jobId }, { signal });
      try {
        return { facts: result, response: await this.#fetchResult(new URL(url, this.url), signal) };
      } catch (error) {
        if (signal?.aborted || tried >= (this.#options.retry?.losses ?? LOSSES)) throw error;
        await pause(backoffMs(tried), signal);
      }
    }
  }

  async #fetchResult(url: URL, signal: AbortSignal | undefined): Promise<Response> {
    const failed = (why: string, cause?: unknown) =>
      new ConnectError(`the result could not be fetched from ${url.origin}: ${why}`, Code.Unavailable, undefined, undefined, cause);
    let response: Response;
    try {
      response = await (this.#options.fetch ?? fetch)(url, { signal: signal ?? null });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw failed(String((error as Error).cause ?? error), error);
    }
    if (response.ok) return response;
    await response.body?.cancel();
    throw failed(`HTTP ${response.status}`);
  }

  [Symbol.dispose](): void {
    this.#options.close?.();
  }
}

/** 128 random bits. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
