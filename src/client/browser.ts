// `facefusion-jobs/client` for browsers: Connect over the page's own connections, and tus for files, because browsers send no streams.
import type { Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-web';
import { authorization, bearer, type Token } from './bearer.ts';
import { JobsClient } from './client.ts';
import { patience, type RetryOptions } from './retry.ts';
import { sendResuming, TusUpload } from './tus.ts';

export * from '../../gen/facefusion/jobs/v1/event_pb.js';
export * from '../../gen/facefusion/jobs/v1/job_pb.js';
export type { Batch, WatchBatchResponse } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
export type { UploadResponse } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
export type { BatchInit, CallOptions, JobRequestInit, Result, SubmitAndWaitOptions, UploadOptions, WaitOptions } from './client.ts';
export { JobNotSucceeded, JobsClient } from './client.ts';
export { Code, ConnectError, detailsOf, type ErrorDetails, type Violation } from './errors.ts';
export { isTerminal, statusIn, type WatchOptions } from './watch.ts';

/** A file that was chosen, or bytes. */
export type FileSource = Blob | Uint8Array<ArrayBuffer>;

export interface ConnectOptions {
  readonly token?: Token;
  readonly retry?: RetryOptions;
}

/** Bytes of one request: how much is sent is known a piece at a time. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** `url`: such as https://jobs.example.com. A page of another origin has to be let in by the service (FFJOBS_CORS_ORIGINS). */
export function connectJobs(url: string, { token, retry }: ConnectOptions = {}): JobsClient<FileSource> {
  const baseUrl = url.replace(/\/+$/, '');
  const interceptors: Interceptor[] = [patience(retry)];
  if (token !== undefined) interceptors.push(bearer(token));
  const transport = createConnectTransport({ baseUrl, interceptors, useBinaryFormat: true });
  const place = { url: `${baseUrl}/api/v1/tus`, headers: () => authorization(token), pieceBytes: PIECE_BYTES };
  return new JobsClient({
    baseUrl,
    transport,
    retry,
    upload(_uploads, source, { filename, ...options }) {
      const blob = source instanceof Blob ? source : new Blob([source]);
      const name = filename ?? (blob instanceof File ? blob.name : '');
      return sendResuming(new TusUpload({ name, size: blob.size, slice: (start, end) => blob.slice(start, end) }, place), options);
    },
  });
}
