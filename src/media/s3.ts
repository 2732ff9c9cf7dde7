// s3://bucket/key references, on AWS or any server that speaks its protocol. Always true here: only listed buckets and the keys that the caller's
// rule allows are asked for; a large object comes in ranges side by side, all of one version, and has its digest when it is whole.
import { createHash } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { GetObjectCommand, HeadObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import type { Violation } from '../jobs/errors.ts';
import type { Failure } from '../jobs/job.ts';
import { openClient, type S3Connection } from '../s3/client.ts';
import { isListed, placeOf, type S3Place } from '../s3/names.ts';
import { problemOf } from '../s3/problems.ts';
import { Appender } from './appender.ts';
import { type FetchObserver, type MediaResolver, storageFull } from './references.ts';
import { mediaTypeOf, SNIFF_BYTES } from './sniff.ts';

export interface S3Options {
  readonly connection: S3Connection;
  /** Those that a reference may name; `*`: all. */
  readonly buckets: readonly string[];
  /** Whether the caller may read this object at all, for rules such as a prefix for each tenant. */
  readonly mayRead?: (bucket: string, key: string) => boolean;
  readonly maxBytes: number;
  /** Longest transfer, in milliseconds. */
  readonly totalMs: number;
  /** A transfer that brings nothing for so long is given up. */
  readonly idleMs?: number;
  readonly partBytes?: number;
  /** Parts under way at once. */
  readonly parallel?: number;
}

const PART_BYTES = 8 * 1024 * 1024;
const PARALLEL = 4;
const IDLE_MS = 30_000;
/** For a part of which some bytes have come; the SDK itself asks again when none have. */
const PART_TRIES = 4;

class Stopped extends Error {
  override readonly name = 'Stopped';
  readonly failure: Failure;
  constructor(reason: string, message: string, retryable = false) {
    super(message);
    this.failure = { reason, message, retryable };
  }
}

export interface S3 extends MediaResolver, AsyncDisposable {
  /** The same, over the same connections, of other places: for a tenant among others. */
  within(places: Pick<S3Options, 'buckets' | 'mayRead'>): MediaResolver;
}

/** A resolver that holds connections until it is disposed. */
export function openS3(options: S3Options): S3 {
  const client = openClient(options.connection, options.idleMs ?? IDLE_MS);
  const within = (places: Pick<S3Options, 'buckets' | 'mayRead'>): MediaResolver => ({
    schemes: ['s3'],
    async check(reference, field) {
      const found = allowedPlace(reference, places);
      return 'bucket' in found ? undefined : { field, ...found };
    },
    async fetch(reference, toPath, signal, observer) {
      const found = allowedPlace(reference, places);
      if (!('bucket' in found)) return { reason: found.reason, message: found.description, retryable: false };
      return await fetchObject(client, found, toPath, signal, options, observer);
    },
  });
  return {
    ...within(options),
    within,
    async [Symbol.asyncDispose]() {
      client.destroy();
    },
  };
}

function allowedPlace(
  reference: string,
  { buckets, mayRead }: Pick<S3Options, 'buckets' | 'mayRead'>,
): S3Place | Pick<Violation, 'reason' | 'description'> {
  const place = placeOf(reference);
  const wrong = (description: string) => ({ reason: 'INVALID_S3_URI', description });
  if (typeof place === 'string') return wrong(place);
  const { bucket, key } = place;
  if (key === '' || key.endsWith('/')) return wrong('the name of the object is missing after the bucket');
  if (!isListed(bucket, buckets) || mayRead?.(bucket, key) === false) {
    return { reason: 'INPUT_BUCKET_NOT_ALLOWED', description: 'this place is not one that media are fetched from' };
  }
  return place;
}

async function fetchObject(
  client: S3Client,
  place: S3Place,
  toPath: string,
  signal: AbortSignal,
  options: S3Options,
  observer: FetchObserver | undefined,
): Promise<Failure | undefined> {
  signal.throwIfAborted();
  const leaving = new AbortController();
  const late = setTimeout(() => leaving.abort(new Stopped('INPUT_TIMED_OUT', 'the object took too long to come', true)), options.totalMs);
  const transfer = new Transfer(client, place, options, leaving, AbortSignal.any([signal, leaving.signal]), observer);
  let file: FileHandle | undefined;
  let whole = false;
  try {
    const { bytes, etag } = await transfer.head();
    file = await open(toPath, 'wx+');
    const sha256 = await transfer.read(file, bytes, etag);
    observer?.digested(sha256);
    whole = true;
    return undefined;
  } catch (error) {
    signal.throwIfAborted();
    const cause = leaving.signal.aborted ? leaving.signal.reason : error;
    if (cause instanceof Stopped) return cause.failure;
    throw storageFull(cause, 'the disk of the work folder is full');
  } finally {
    clearTimeout(late);
    leaving.abort();
    await file?.close();
    if (file && !whole) await rm(toPath, { force: true });
  }
}

class Transfer {
  readonly #client: S3Client;
  readonly #place: S3Place;
  readonly #options: S3Options;
  readonly #leaving: AbortController;
  readonly #signal: AbortSignal;
  readonly #observer: FetchObserver | undefined;
  #received = 0;

  constructor(
    client: S3Client,
    place: S3Place,
    options: S3Options,
    leaving: AbortController,
    signal: AbortSignal,
    observer: FetchObserver | undefined,
  ) {
    this.#client = client;
    this.#place = place;
    this.#options = options;
    this.#leaving = leaving;
    this.#signal = signal;
    this.#observer = observer;
  }

  async head(): Promise<{ bytes: number; etag: string }> {
    const { maxBytes } = this.#options;
    const facts = await this.#client
      .send(new HeadObjectCommand(this.#input()), { abortSignal: this.#signal })
      .catch((error: unknown) => this.#fail(error));
    const { ContentLength: bytes, ETag: etag, ContentEncoding: encoding } = facts;
    if (bytes === undefined || etag === undefined)
      throw new Stopped('INPUT_UNREACHABLE', 'the store does not say how long the object is', true);
    if (bytes === 0) throw new Stopped('INPUT_NOT_READABLE', 'this object is empty');
    if (bytes > maxBytes) throw new Stopped('INPUT_TOO_LARGE', `a file has at most ${maxBytes} bytes here`);
    if (encoding && !/^(identity|aws-chunked)$/.test(encoding)) {
      throw new Stopped('INPUT_NOT_READABLE', 'this object is kept in an encoding; it must be kept as it is');
    }
    return { bytes, etag };
  }

  /** Writes the whole object; answers its digest. */
  async read(file: FileHandle, bytes: number, etag: string): Promise<string> {
    const size = this.#options.partBytes ?? PART_BYTES;
    const parts = Math.ceil(bytes / size);
    const whole = Array.from({ length: parts }, () => Promise.withResolvers<void>());
    for (const part of whole) part.promise.catch(() => {});
    let next = 0;
    const work = async () => {
      while (next < parts) {
        const part = next++;
        await this.#readPart(file, part * size, Math.min(bytes, (part + 1) * size), bytes, etag);
        whole[part]!.resolve();
      }
    };
    const hash = createHash('sha256');
    // Behind the parts, out of the system's cache: parts come in any order, and are not kept in memory until their turn.
    const digest = async () => {
      const buffer = Buffer.allocUnsafe(Math.min(bytes, 1024 * 1024));
      let at = 0;
      for (const part of whole) {
        await part.promise;
        const end = Math.min(bytes, Math.floor(at / size + 1) * size);
        while (at < end) {
          const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, end - at), at);
          if (bytesRead === 0) throw new Error('the file that was written is shorter than it was');
          hash.update(buffer.subarray(0, bytesRead));
          at += bytesRead;
        }
      }
    };
    const idle = this.#options.idleMs ?? IDLE_MS;
    let seen = 0;
    const watch = setInterval(() => {
      if (this.#received === seen) this.#leaving.abort(new Stopped('INPUT_TIMED_OUT', 'the store sends the object too slowly', true));
      seen = this.#received;
    }, idle);
    const tasks = Array.from({ length: Math.min(parts, this.#options.parallel ?? PARALLEL) }, () =>
      work().catch((error: unknown) => {
        // One part that cannot be had ends the others, and whoever waits for it.
        this.#leaving.abort(error);
        for (const part of whole) part.reject(error);
        throw error;
      }),
    );
    try {
      await Promise.all([...tasks, digest()]);
    } finally {
      clearInterval(watch);
      // Nobody writes to the file when it is closed.
      await Promise.allSettled(tasks);
    }
    return hash.digest('hex');
  }

  async #readPart(file: FileHandle, from: number, to: number, total: number, etag: string): Promise<void> {
    let at = from;
    let head = Buffer.alloc(0);
    for (let tries = 1; at < to; tries++) {
      const writer = new Appender(file, at);
      try {
        const range = total > to - from || at > 0 ? `bytes=${at}-${to - 1}` : undefined;
        const { Body: body } = await this.#client.send(new GetObjectCommand({ ...this.#input(), Range: range, IfMatch: etag }), {
          abortSignal: this.#signal,
        });
        try {
          for await (const chunk of body as unknown as AsyncIterable<Buffer>) {
            this.#signal.throwIfAborted();
            if (at + chunk.length > to) throw new Stopped('INPUT_UNREACHABLE', 'the store sends more than was asked for', true);
            at += chunk.length;
            this.#received += chunk.length;
            if (from === 0 && head.length < SNIFF_BYTES) {
              head = Buffer.concat([head, chunk.subarray(0, SNIFF_BYTES - head.length)]);
              if (head.length === SNIFF_BYTES) judge(head);
            }
            await writer.add(chunk);
            this.#observer?.progress(this.#received, total);
          }
        } finally {
          // Also of a transfer that broke off: it goes on after what it brought.
          await writer.flush();
        }
        if (at < to && tries >= PART_TRIES) throw new Stopped('INPUT_TRUNCATED', 'the store sends less than it announced', true);
      } catch (error) {
        this.#signal.throwIfAborted();
        // What could not be written would be missing from a transfer that went on.
        if (tries >= PART_TRIES || at === from || writer.writtenTo < at || error instanceof Stopped) this.#fail(error);
      }
    }
    if (from === 0) judge(head);
  }

  #input() {
    return { Bucket: this.#place.bucket, Key: this.#place.key };
  }

  /** Throws what an error of the SDK means: `Stopped` where the caller should read it. */
  #fail(error: unknown): never {
    this.#signal.throwIfAborted();
    if (error instanceof Stopped) throw error;
    switch (problemOf(error)) {
      case 'not_found':
      case 'no_bucket':
        throw new Stopped('INPUT_NOT_FOUND', 'there is no such object');
      case 'forbidden':
        throw new Stopped('INPUT_FORBIDDEN', 'the service may not read this object');
      case 'changed':
      case 'range':
        throw new Stopped('INPUT_CHANGED', 'this object changed while it was fetched', true);
      case 'timeout':
        throw new Stopped('INPUT_TIMED_OUT', 'the store does not answer', true);
      case 'unreachable':
        throw new Stopped('INPUT_UNREACHABLE', 'the store cannot be reached', true);
    }
    // The service's own credentials or settings are wrong: for the log, not for the caller.
    throw error;
  }
}

function judge(head: Buffer): void {
  if (mediaTypeOf(head) === undefined) throw new Stopped('INPUT_NOT_READABLE', 'this object is in no format that the service knows');
}
