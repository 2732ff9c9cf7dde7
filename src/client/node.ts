// `facefusion-jobs/client` for Node: gRPC over one HTTP/2 connection, which is opened by the first call and closed with the client.
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Client, Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import type { UploadRequestSchema, UploadResponse, UploadService } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { JobsClient, type UploadOptions } from './client.ts';
import { patience, type RetryOptions } from './retry.ts';

export * from '../../gen/facefusion/jobs/v1/event_pb.js';
export * from '../../gen/facefusion/jobs/v1/job_pb.js';
export { JobNotSucceeded, JobsClient } from './client.ts';
export { isTerminal, statusIn } from './watch.ts';
export { verifyWebhook, type WebhookEvent, WebhookVerificationError } from './webhook.ts';

/** A path, bytes, or a stream of them. */
export type FileSource = string | Uint8Array | Blob | AsyncIterable<Uint8Array>;

export interface ConnectOptions {
  /** API key or JWT, sent as `Authorization: Bearer`; a function is asked for each call. */
  readonly token?: string | (() => string | Promise<string>);
  readonly retry?: RetryOptions;
}

/** `url`: such as http://127.0.0.1:8000 */
export function connectJobs(url: string, { token, retry }: ConnectOptions = {}): JobsClient<FileSource> {
  // A Watch may be silent for long: pings tell a quiet service from one that is gone.
  const sessionManager = new Http2SessionManager(url, { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 });
  const interceptors: Interceptor[] = [patience(retry)];
  if (token !== undefined) interceptors.push(bearer(token));
  const transport = createGrpcTransport({ baseUrl: url, sessionManager, interceptors });
  return new JobsClient({ baseUrl: url, transport, upload: sendFile, close: () => sessionManager.abort() });
}

export function bearer(token: NonNullable<ConnectOptions['token']>): Interceptor {
  return (next) => async (request) => {
    request.header.set('authorization', `Bearer ${typeof token === 'string' ? token : await token()}`);
    return next(request);
  };
}

const CHUNK_BYTES = 256 * 1024;

/** Streams a file to the service and compares what arrived with what was sent, by its SHA-256. Throws DATA_LOSS where they differ. */
export async function sendFile(
  uploads: Client<typeof UploadService>,
  source: FileSource,
  { filename, signal, onProgress }: UploadOptions = {},
): Promise<UploadResponse> {
  const digest = createHash('sha256');
  await using opened = await openSource(source);
  const { total } = opened;
  async function* parts(): AsyncGenerator<MessageInitShape<typeof UploadRequestSchema>> {
    const bytes = total === undefined ? undefined : BigInt(total);
    yield { part: { case: 'metadata', value: { filename: filename ?? opened.name, bytes } } };
    let sent = 0;
    for await (const piece of opened.bytes) {
      for (let at = 0; at < piece.length; at += CHUNK_BYTES) {
        const chunk = piece.subarray(at, at + CHUNK_BYTES);
        digest.update(chunk);
        yield { part: { case: 'chunk', value: chunk } };
        sent += chunk.length;
        onProgress?.(sent, total);
      }
    }
  }
  const answer = await uploads.upload(parts(), { signal });
  if (answer.sha256 !== digest.digest('hex')) {
    throw new ConnectError('the file changed on the way to the service or while it was read: send it again', Code.DataLoss);
  }
  return answer;
}

interface OpenSource extends AsyncDisposable {
  readonly name: string;
  /** In bytes. */
  readonly total: number | undefined;
  readonly bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

async function openSource(source: FileSource): Promise<OpenSource> {
  const nothing = { [Symbol.asyncDispose]: async () => {} };
  if (typeof source === 'string') {
    const file = await open(source);
    const { size } = await file.stat();
    return {
      name: basename(source),
      total: size,
      bytes: file.createReadStream({ highWaterMark: CHUNK_BYTES, autoClose: false }) as AsyncIterable<Uint8Array>,
      [Symbol.asyncDispose]: () => file.close(),
    };
  }
  if (source instanceof Uint8Array) return { name: '', total: source.length, bytes: [source], ...nothing };
  if (source instanceof Blob) {
    return { name: source instanceof File ? source.name : '', total: source.size, bytes: source.stream(), ...nothing };
  }
  return { name: '', total: undefined, bytes: source, ...nothing };
}
