// `facefusion-jobs/client` for Node: gRPC over one HTTP/2 connection, which is opened by the first call and closed with the client; large files go up
// over tus beside it.
import { createHash, type Hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Client, Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { Agent, type RequestInit as Init, fetch as undiciFetch } from 'undici';
import type { UploadRequestSchema, UploadResponse, UploadService } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { authorization, bearer, type Token } from './bearer.ts';
import { JobsClient, type UploadOptions } from './client.ts';
import { patience, type RetryOptions } from './retry.ts';
import { sendResuming, type TusFile, type TusPlace, TusUpload } from './tus.ts';

export * from '../../gen/facefusion/jobs/v1/event_pb.js';
export * from '../../gen/facefusion/jobs/v1/job_pb.js';
export type { Batch, WatchBatchResponse } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
export type { UploadResponse } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
export type { BatchInit, CallOptions, JobRequestInit, Result, SubmitAndWaitOptions, UploadOptions, WaitOptions } from './client.ts';
export { JobNotSucceeded, JobsClient } from './client.ts';
export { Code, ConnectError, detailsOf, type ErrorDetails, type Violation } from './errors.ts';
export { isTerminal, statusIn, type WatchOptions } from './watch.ts';
export { verifyWebhook, type WebhookEvent, WebhookVerificationError } from './webhook.ts';

/** A path, bytes, or a stream of them. */
export type FileSource = string | Uint8Array | Blob | AsyncIterable<Uint8Array>;

/** By name: the one that a process has in common is Node's own as soon as anything has used its `fetch`. */
const connections = new Agent();

/** In place of Node 24's own, which ends the process when a server hangs up while the body waits to be read (undici's issue 5360). */
const fetchFile: typeof fetch = async (url, init) =>
  (await undiciFetch(String(url), { ...(init as Init), dispatcher: connections })) as unknown as Response;

export interface ConnectOptions {
  readonly token?: Token;
  readonly retry?: RetryOptions;
}

/** `server`: a URL such as http://127.0.0.1:8000, or host:port. Throws TypeError for what is neither. */
export function connectJobs(server: string, { token, retry }: ConnectOptions = {}): JobsClient<FileSource> {
  const url = urlOf(server);
  // A Watch may be silent for long: pings tell a quiet service from one that is gone.
  const sessionManager = new Http2SessionManager(url, { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 });
  const interceptors: Interceptor[] = [patience(retry)];
  if (token !== undefined) interceptors.push(bearer(token));
  const transport = createGrpcTransport({ baseUrl: url, sessionManager, interceptors });
  const place = { url: `${url}/api/v1/tus`, headers: () => authorization(token), fetch: fetchFile };
  return new JobsClient({
    baseUrl: url,
    transport,
    retry,
    fetch: fetchFile,
    upload: (uploads, source, options) => sendFile(uploads, place, source, options),
    close: () => sessionManager.abort(),
  });
}

/** Without a slash at its end. */
function urlOf(server: string): string {
  const url = server.includes('://') ? server : `http://${server}`;
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new TypeError(`the server is '${server}'; it takes a URL such as http://127.0.0.1:8000, or host:port`);
  return url.replace(/\/+$/, '');
}

/** From so many bytes on a file whose parts can be read again goes up in pieces: what was sent outlives the connection. */
const RESUMABLE_BYTES = 16 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

/** Gives the service a file and compares what arrived with what was sent, by its SHA-256. Throws DATA_LOSS where they differ. */
async function sendFile(
  uploads: Client<typeof UploadService>,
  place: TusPlace,
  source: FileSource,
  options: UploadOptions,
): Promise<UploadResponse> {
  await using opened = await openSource(source);
  const { total, read } = opened;
  const digest = createHash('sha256');
  const answer =
    total !== undefined && read && total >= RESUMABLE_BYTES
      ? await sendPieces(place, { ...opened, total, read }, digest, options)
      : await sendStream(uploads, opened, digest, options);
  if (answer.sha256 !== digest.digest('hex')) {
    throw new ConnectError('the file changed on the way to the service or while it was read: send it again', Code.DataLoss);
  }
  return answer;
}

async function sendPieces(
  place: TusPlace,
  { name, total, read }: Pick<OpenSource, 'name'> & { readonly total: number; readonly read: NonNullable<OpenSource['read']> },
  digest: Hash,
  { filename = name, ...options }: UploadOptions,
): Promise<UploadResponse> {
  let hashed = 0;
  const file: TusFile = {
    name: filename,
    size: total,
    async slice(start, end) {
      const bytes = await read(start, end);
      // A piece that is sent again was seen already, the whole of it or its beginning.
      if (end > hashed) digest.update(bytes.subarray(hashed - start));
      hashed = Math.max(hashed, end);
      return bytes;
    },
  };
  return await sendResuming(new TusUpload(file, place), options);
}

async function sendStream(
  uploads: Client<typeof UploadService>,
  opened: OpenSource,
  digest: Hash,
  { filename, signal, onProgress }: UploadOptions,
): Promise<UploadResponse> {
  const { total } = opened;
  async function* parts(): AsyncGenerator<MessageInitShape<typeof UploadRequestSchema>> {
    const bytes = total === undefined ? undefined : BigInt(total);
    yield { part: { case: 'metadata', value: { filename: filename ?? opened.name, bytes } } };
    let sent = 0;
    for await (const piece of opened.bytes()) {
      for (let at = 0; at < piece.length; at += CHUNK_BYTES) {
        const chunk = piece.subarray(at, at + CHUNK_BYTES);
        digest.update(chunk);
        yield { part: { case: 'chunk', value: chunk } };
        sent += chunk.length;
        onProgress?.(sent, total);
      }
    }
  }
  return await uploads.upload(parts(), { signal });
}

interface OpenSource extends AsyncDisposable {
  readonly name: string;
  /** In bytes. */
  readonly total: number | undefined;
  readonly bytes: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** A part of it, as often as it is wanted; undefined: it is a stream, and read once. */
  readonly read?: (start: number, end: number) => Promise<Uint8Array<ArrayBuffer>>;
}

async function openSource(source: FileSource): Promise<OpenSource> {
  const nothing = { [Symbol.asyncDispose]: async () => {} };
  if (typeof source === 'string') {
    const file = await open(source);
    const { size } = await file.stat();
    return {
      name: basename(source),
      total: size,
      bytes: () => file.createReadStream({ highWaterMark: CHUNK_BYTES, autoClose: false }) as AsyncIterable<Uint8Array>,
      async read(start, end) {
        const bytes = new Uint8Array(end - start);
        let at = 0;
        while (at < bytes.length) {
          const { bytesRead } = await file.read(bytes, at, bytes.length - at, start + at);
          if (bytesRead === 0) throw new ConnectError(`'${source}' has become shorter while it was read: send it again`, Code.DataLoss);
          at += bytesRead;
        }
        return bytes;
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  }
  if (source instanceof Uint8Array) {
    return {
      name: '',
      total: source.length,
      bytes: () => [source],
      read: async (start, end) => new Uint8Array(source.subarray(start, end)),
      ...nothing,
    };
  }
  if (source instanceof Blob) {
    return {
      name: source instanceof File ? source.name : '',
      total: source.size,
      bytes: () => source.stream(),
      read: (start, end) => bytesOf(source.slice(start, end)),
      ...nothing,
    };
  }
  return { name: '', total: undefined, bytes: () => source, ...nothing };
}

async function bytesOf(blob: Blob): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await blob.arrayBuffer());
}
