// The bytes of uploads on S3 or a server that speaks its protocol, for processes of a fleet alike: whoever has the store reads and goes on with each.
// An upload is a chain of pieces, each an object named by where it begins. Always true here: a piece is written whole, once, by a writer who knew that
// all before it was there, and the store refuses a second one of its name; so the chain never forks, has no holes, and its end is how far the sender
// has come, whoever writes, breaks off or comes late. Nothing is kept that would have to be taken back but the pieces themselves.
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import {
  DeleteObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandInput,
  type ListObjectsV2CommandOutput,
  type S3Client,
} from '@aws-sdk/client-s3';
import { JobsError } from '../jobs/errors.ts';
import type { Failure } from '../jobs/job.ts';
import { isUploadId } from '../jobs/uploads.ts';
import { openClient, type S3Connection } from '../s3/client.ts';
import { problemOf, unavailable } from '../s3/problems.ts';
import { PART_BYTES, putObject } from '../s3/put.ts';
import { readObject, saveDigested } from '../s3/read.ts';
import { type FetchObserver, storageFull } from './references.ts';
import type { UploadBytes } from './upload-files.ts';

export interface S3UploadBytesOptions {
  readonly connection: S3Connection;
  readonly bucket: string;
  /** Ends with '/'. No other job store may use it: uploads that this one does not know are deleted. */
  readonly prefix: string;
  /** A request that moves no bytes for so long has failed. */
  readonly idleMs?: number;
  /** Of a piece, unless its sender sends less at a time. Each write holds two in memory. */
  readonly pieceBytes?: number;
  readonly maxPieces?: number;
}

interface Piece {
  readonly key: string;
  /** Its place in the chain, from 0. */
  readonly nth: number;
  /** Of its first byte, and of the one after its last. */
  readonly start: number;
  readonly end: number;
}

const IDLE_MS = 60_000;
/** More than any upload has. */
const MAX_OFFSET = 10 ** 15 - 1;
/** For senders whose pieces are small: as many requests as it takes to list, read and delete them. */
const MAX_PIECES = 10_000;
const DELETES_AT_ONCE = 16;

export function openS3UploadBytes(options: S3UploadBytesOptions): UploadBytes {
  return new S3UploadBytes(options);
}

class S3UploadBytes implements UploadBytes {
  readonly #options: S3UploadBytesOptions;
  readonly #client: S3Client;

  constructor(options: S3UploadBytesOptions) {
    this.#options = options;
    this.#client = openClient(options.connection, options.idleMs ?? IDLE_MS);
  }

  /** The store has no end; quotas are the records' affair. */
  async checkRoom(): Promise<void> {}

  async create(): Promise<void> {}

  async announce(): Promise<void> {}

  async size(id: string): Promise<number> {
    return (await this.#last(id))?.end ?? 0;
  }

  async append(id: string, offset: number, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const last = offset === 0 ? undefined : await this.#last(id);
    if ((last?.end ?? 0) !== offset) throw overtaken();
    const writer = new PieceWriter(this.#options.pieceBytes ?? PART_BYTES, offset, (last?.nth ?? -1) + 1, (start, nth, bytes) =>
      this.#put(id, start, nth, bytes),
    );
    try {
      for await (const chunk of chunks) await writer.add(chunk);
    } finally {
      await writer.end();
    }
  }

  async finish(): Promise<void> {}

  async *read(id: string, end = Number.POSITIVE_INFINITY): AsyncGenerator<Uint8Array> {
    for (const piece of await this.#pieces(id)) {
      if (piece.start >= end) return;
      const range = piece.end > end ? { start: 0, end: end - piece.start - 1 } : undefined;
      try {
        yield* readObject(this.#client, this.#place(piece.key), range);
      } catch (error) {
        this.#fail(error);
      }
    }
  }

  async fetch(
    id: string,
    whole: { readonly sha256: string; readonly bytes: number },
    toPath: string,
    signal: AbortSignal,
    observer?: FetchObserver,
  ): Promise<Failure | undefined> {
    const progress = observer && ((done: number) => observer.progress(done, whole.bytes));
    const sha256 = await saveDigested(this.read(id), toPath, signal, progress).catch((error: unknown) => {
      throw storageFull(error, 'the disk of the work folder is full');
    });
    if (sha256 === whole.sha256) return undefined;
    await rm(toPath, { force: true });
    const message = 'the bytes of this upload are not there any more as they were uploaded: upload the file again';
    return { reason: 'INPUT_CHANGED', message, retryable: false };
  }

  async remove(id: string): Promise<void> {
    // The last ones first, as they are listed: a chain that was not deleted to its beginning is still one.
    let deleting: Promise<unknown>[] = [];
    for await (const { key } of this.#listed(id)) {
      deleting.push(this.#client.send(new DeleteObjectCommand(this.#object(key))).catch((error: unknown) => this.#failUnlessGone(error)));
      if (deleting.length < DELETES_AT_ONCE) continue;
      await settled(deleting);
      deleting = [];
    }
    await settled(deleting);
  }

  /** What is not named as an upload is not ours. */
  async *ids(): AsyncGenerator<string> {
    const { prefix } = this.#options;
    for await (const { CommonPrefixes: folders } of this.#pages({ Prefix: prefix, Delimiter: '/' })) {
      for (const { Prefix: folder } of folders ?? []) {
        const id = folder?.slice(prefix.length, -1) ?? '';
        if (isUploadId(id)) yield id;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy();
  }

  async #put(id: string, start: number, nth: number, chunks: readonly Uint8Array[]): Promise<void> {
    const most = this.#options.maxPieces ?? MAX_PIECES;
    if (nth >= most) {
      const words = `this upload has ${most} pieces, and more may not be: remove it and send larger pieces, of 8 MiB or more`;
      throw new JobsError('too_large', 'UPLOAD_TOO_MANY_PIECES', words, { metadata: { limit_pieces: String(most) } });
    }
    const key = `${this.#options.prefix}${id}/${nameOf(start, nth)}`;
    const writer = randomBytes(12).toString('hex');
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    const outcome = await putObject(this.#client, {
      place: this.#place(key),
      body: each(chunks),
      bytes,
      contentType: 'application/octet-stream',
      metadata: { writer },
      onlyIfAbsent: true,
      partBytes: bytes,
    }).catch((error: unknown) => this.#fail(error));
    // A request whose answer was lost is made again, and finds what it wrote itself.
    if (outcome === 'exists' && (await this.#writerOf(key)) !== writer) throw overtaken();
  }

  async #writerOf(key: string): Promise<string | undefined> {
    const found = await this.#client.send(new HeadObjectCommand(this.#object(key))).catch((error: unknown) => this.#failUnlessGone(error));
    return found?.Metadata?.writer;
  }

  async #last(id: string): Promise<Piece | undefined> {
    // Named so that the last comes first.
    for await (const piece of this.#listed(id, 1)) return piece;
    return undefined;
  }

  async #pieces(id: string): Promise<readonly Piece[]> {
    const pieces: Piece[] = [];
    for await (const piece of this.#listed(id)) pieces.push(piece);
    return pieces.reverse();
  }

  /** From the last to the first. */
  async *#listed(id: string, pageSize?: number): AsyncGenerator<Piece> {
    const folder = `${this.#options.prefix}${id}/`;
    for await (const { Contents: objects } of this.#pages({ Prefix: folder, MaxKeys: pageSize })) {
      for (const { Key: key, Size: bytes } of objects ?? []) {
        const piece = key === undefined ? undefined : pieceOf(key, key.slice(folder.length), bytes ?? 0);
        if (piece) yield piece;
      }
    }
  }

  async *#pages(input: Omit<ListObjectsV2CommandInput, 'Bucket'>): AsyncGenerator<ListObjectsV2CommandOutput> {
    let next: string | undefined;
    do {
      const page: ListObjectsV2CommandOutput = await this.#client
        .send(new ListObjectsV2Command({ Bucket: this.#options.bucket, ...input, ContinuationToken: next }))
        .catch((error: unknown) => this.#fail(error));
      yield page;
      next = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (next !== undefined);
  }

  #place(key: string) {
    return { bucket: this.#options.bucket, key };
  }

  #object(key: string) {
    return { Bucket: this.#options.bucket, Key: key };
  }

  #failUnlessGone(error: unknown): undefined {
    if (problemOf(error) !== 'not_found') this.#fail(error);
  }

  /** Throws what an error of the SDK means to who asked. */
  #fail(error: unknown): never {
    const problem = problemOf(error);
    if (problem === undefined) throw error;
    throw new JobsError('unavailable', 'STORE_UNAVAILABLE', unavailable(problem, 'the store of uploads'), {
      retryAfterSeconds: 5,
      cause: error,
    });
  }
}

type PutPiece = (start: number, nth: number, chunks: readonly Uint8Array[]) => Promise<void>;

/** Cuts what it is given into pieces, and writes one after the other, while the next is collected. */
class PieceWriter {
  readonly #pieceBytes: number;
  readonly #put: PutPiece;
  #at: number;
  #nth: number;
  #collected: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(pieceBytes: number, at: number, nth: number, put: PutPiece) {
    this.#pieceBytes = pieceBytes;
    this.#at = at;
    this.#nth = nth;
    this.#put = put;
  }

  async add(chunk: Uint8Array): Promise<void> {
    for (let rest = chunk; rest.length > 0; ) {
      const taken = rest.subarray(0, this.#pieceBytes - this.#bytes);
      this.#collected.push(taken);
      this.#bytes += taken.length;
      rest = rest.subarray(taken.length);
      if (this.#bytes < this.#pieceBytes) continue;
      await this.#writing;
      this.#write();
    }
  }

  /** Writes what is left, unless a piece before it could not be written: then throws its error. */
  async end(): Promise<void> {
    await this.#writing;
    if (this.#bytes > 0) this.#write();
    await this.#writing;
  }

  #write(): void {
    this.#writing = this.#put(this.#at, this.#nth++, this.#collected);
    // Its error is thrown to whoever waits for it next.
    this.#writing.catch(() => {});
    this.#at += this.#bytes;
    this.#collected = [];
    this.#bytes = 0;
  }
}

/** Stores list names in ascending order: what begins last is named so that it comes first, and one look finds the end of a chain. */
function nameOf(start: number, nth: number): string {
  return `${String(MAX_OFFSET - start).padStart(15, '0')}-${nth}`;
}

function pieceOf(key: string, name: string, bytes: number): Piece | undefined {
  const [, place, nth] = /^(\d{15})-(\d+)$/.exec(name) ?? [];
  if (place === undefined) return undefined;
  const start = MAX_OFFSET - Number(place);
  return { key, nth: Number(nth), start, end: start + bytes };
}

async function* each(chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

/** Throws the first error when all have ended. */
async function settled(all: readonly Promise<unknown>[]): Promise<void> {
  for (const one of await Promise.allSettled(all)) if (one.status === 'rejected') throw one.reason;
}

function overtaken(): JobsError {
  return new JobsError(
    'aborted',
    'UPLOAD_CONFLICT',
    'another request has gone on with this upload: ask how far it is, and go on from there',
  );
}
