// Results as objects of S3 or of a server that speaks its protocol, named by the SHA-256 of their bytes below a prefix that is this store's alone.
// Always true here: an object under its key is whole and has its media type; parts of what was not finished are taken back, those of a dead process
// a day later; nothing is deleted but by key. URLs are the store's own, presigned: the bytes do not pass through this process.
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DeleteObjectCommand, GetObjectCommand, HeadObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { JobsError } from '../jobs/errors.ts';
import type { BlobStat, BlobStore, PutOptions } from '../jobs/ports.ts';
import { problemOfPlace } from '../s3/check.ts';
import { openClient, type S3Connection } from '../s3/client.ts';
import { problemOf, unavailable } from '../s3/problems.ts';
import { abortAbandoned, putObject } from '../s3/put.ts';
import { readObject, saveDigested } from '../s3/read.ts';
import { Arrival } from './arrival.ts';
import { diskFull, KEY } from './blobs-local.ts';
import { disposition } from './disposition.ts';

export interface S3BlobStoreOptions {
  readonly connection: S3Connection;
  /** URL of the store as callers reach it, where that is another one. */
  readonly publicEndpoint?: string;
  readonly bucket: string;
  /** Empty, or ends with '/'. No other job store may use it: what no job of this one refers to is deleted. */
  readonly prefix: string;
  /** `JobStore.id` of the one whose results these are; the place is marked as its own, and refused where it is another's. Not given: nobody asks. */
  readonly jobStore?: string;
  /** Folder for streams whose digest is not known yet; made, and emptied, when the store is opened. */
  readonly scratch: string;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** A request that moves no bytes for so long has failed. */
  readonly idleMs?: number;
  readonly partBytes?: number;
}

/** Names the object that says whose results lie below a prefix. */
export const OWNER = 'job-store';

const IDLE_MS = 60_000;
/** No upload of a process that lives takes so long. */
const ABANDONED_MS = 24 * 3_600_000;
/** The longest that S3 takes. */
const MAX_URL_SECONDS = 7 * 86_400;

/** Throws an `Error` that can be shown when the place cannot be used. */
export async function openS3BlobStore(options: S3BlobStoreOptions): Promise<BlobStore & AsyncDisposable> {
  const { connection, bucket, prefix, scratch, now = Date.now } = options;
  const problem = await problemOfPlace(connection, { bucket, key: prefix });
  if (problem !== undefined) throw new Error(`the blob store s3://${bucket}/${prefix} cannot be used: ${problem.what}: ${problem.fix}`);
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  const client = openClient(connection, options.idleMs ?? IDLE_MS);
  await abortAbandoned(client, bucket, prefix, now() - ABANDONED_MS).catch((error: unknown) => {
    // Some servers cannot list them, and none is needed to go on.
    if (problemOf(error) === undefined) throw error;
  });
  const owner = await ownerOf(client, options);
  if (owner !== options.jobStore) {
    client.destroy();
    const mark = `s3://${bucket}/${prefix}${OWNER}`;
    throw new Error(
      `s3://${bucket}/${prefix} has the results of another job store, and two would delete each other's: give this one a prefix of its own ` +
        `with FFJOBS_BLOBS. If the other one is gone for good, delete ${mark}`,
    );
  }
  return new S3Blobs(client, options);
}

/** Whose results lie below the prefix, once nobody else can say that they are his. */
async function ownerOf(client: S3Client, { jobStore, bucket, prefix }: S3BlobStoreOptions): Promise<string | undefined> {
  if (jobStore === undefined) return undefined;
  const place = { bucket, key: `${prefix}${OWNER}` };
  const body = Buffer.from(jobStore);
  await putObject(client, { place, body: chunksOf(body), bytes: body.length, contentType: 'text/plain', onlyIfAbsent: true });
  const found: Uint8Array[] = [];
  for await (const chunk of readObject(client, place)) found.push(chunk);
  return Buffer.concat(found).toString();
}

async function* chunksOf(body: Buffer): AsyncGenerator<Uint8Array> {
  yield body;
}

class S3Blobs implements BlobStore, AsyncDisposable {
  readonly #client: S3Client;
  readonly #signer: S3Client;
  readonly #options: S3BlobStoreOptions;

  constructor(client: S3Client, options: S3BlobStoreOptions) {
    this.#client = client;
    this.#options = options;
    const { connection, publicEndpoint, idleMs = IDLE_MS } = options;
    this.#signer = publicEndpoint === undefined ? client : openClient({ ...connection, endpoint: publicEndpoint }, idleMs);
  }

  /** A file is read twice, once for its key; a stream goes through the scratch folder. */
  async put(source: AsyncIterable<Uint8Array> | string, mediaType: string, { signal, pin, progress }: PutOptions = {}): Promise<BlobStat> {
    const { scratch } = this.#options;
    // Somebody may have tidied the data folder up.
    if (!existsSync(scratch)) await mkdir(scratch, { recursive: true });
    await using arrival = await Arrival.of(source, join(scratch, randomBytes(12).toString('hex')), signal).catch((error: unknown) => {
      throw diskFull(error);
    });
    return await this.#store(arrival, mediaType, { signal, pin, progress });
  }

  async #store(arrival: Arrival, mediaType: string, { signal, pin, progress }: PutOptions): Promise<BlobStat> {
    const { key, bytes } = arrival;
    await pin?.(key, false);
    const known = await this.#stat(key, signal);
    if (known?.bytes === bytes) return known;
    await pin?.(key, true);
    const written = await putObject(this.#client, {
      place: { bucket: this.#options.bucket, key: this.#nameOf(key) },
      body: arrival.chunks(),
      bytes,
      contentType: mediaType,
      // One of another length is not what its key says, and is made good.
      onlyIfAbsent: known === undefined,
      signal,
      progress: progress && ((done) => progress(done, bytes)),
      partBytes: this.#options.partBytes,
    }).catch((error: unknown) => this.#fail(error, signal));
    // Another writer of the same bytes was first, and its type stands.
    return (written === 'exists' ? await this.#stat(key, signal) : undefined) ?? { key, bytes, mediaType };
  }

  stat(key: string): Promise<BlobStat | undefined> {
    return this.#stat(key, undefined);
  }

  async #stat(key: string, signal: AbortSignal | undefined): Promise<BlobStat | undefined> {
    if (!KEY.test(key)) return undefined;
    try {
      const found = await this.#client.send(new HeadObjectCommand(this.#object(key)), { abortSignal: signal });
      return { key, bytes: found.ContentLength ?? 0, mediaType: found.ContentType ?? 'application/octet-stream' };
    } catch (error) {
      if (problemOf(error) === 'not_found') return undefined;
      this.#fail(error, signal);
    }
  }

  /** A transfer that breaks goes on where it was. */
  async fetch(key: string, toPath: string, signal: AbortSignal, progress?: (done: number, total: number) => void): Promise<void> {
    const found = await this.stat(key);
    if (!found) throw noBlob(key);
    try {
      const sha256 = await saveDigested(this.get(key), toPath, signal, progress && ((done) => progress(done, found.bytes)));
      if (sha256 === key) return;
    } catch (error) {
      throw diskFull(error, 'the disk of the work folder');
    }
    // Engines are given what the key says, whatever lies there.
    await rm(toPath, { force: true });
    throw new JobsError('unavailable', 'RESULT_CHANGED', `the bytes of the blob ${key} are not what they were`);
  }

  async *get(key: string, range?: { readonly start: number; readonly end: number }): AsyncGenerator<Uint8Array> {
    if (!KEY.test(key)) throw noBlob(key);
    try {
      yield* readObject(this.#client, { bucket: this.#options.bucket, key: this.#nameOf(key) }, range);
    } catch (error) {
      if (problemOf(error) === 'not_found') throw noBlob(key);
      this.#fail(error, undefined);
    }
  }

  async delete(key: string): Promise<void> {
    if (!KEY.test(key)) return;
    await this.#client.send(new DeleteObjectCommand(this.#object(key))).catch((error: unknown) => {
      if (problemOf(error) !== 'not_found') this.#fail(error, undefined);
    });
  }

  async signedUrl(key: string, options: { readonly expiresMs: number; readonly filename: string; readonly mediaType: string }) {
    const { expiresMs, filename, mediaType } = options;
    const now = this.#options.now?.() ?? Date.now();
    const command = new GetObjectCommand({
      ...this.#object(key),
      ResponseContentType: mediaType,
      ResponseContentDisposition: disposition(filename, mediaType),
      ResponseCacheControl: 'private, immutable',
    });
    const expiresIn = Math.min(MAX_URL_SECONDS, Math.max(1, Math.floor((expiresMs - now) / 1000)));
    return await getSignedUrl(this.#signer, command, { expiresIn, signingDate: new Date(now) }).catch((error: unknown) =>
      this.#fail(error, undefined),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy();
    if (this.#signer !== this.#client) this.#signer.destroy();
  }

  #object(key: string) {
    return { Bucket: this.#options.bucket, Key: this.#nameOf(key) };
  }

  #nameOf(key: string): string {
    return `${this.#options.prefix}${key}`;
  }

  /** Throws what an error of the SDK means to who asked: all that may pass, or be mended by the operator, is worth another try. */
  #fail(error: unknown, signal: AbortSignal | undefined): never {
    signal?.throwIfAborted();
    const problem = problemOf(error);
    if (problem === undefined) throw error;
    throw new JobsError('unavailable', 'STORE_UNAVAILABLE', unavailable(problem, 'the blob store'), { retryAfterSeconds: 5, cause: error });
  }
}

function noBlob(key: string): JobsError {
  return new JobsError('not_found', 'NO_RESULT', `there is no blob ${key}`);
}
