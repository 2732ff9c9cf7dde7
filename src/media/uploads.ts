// Files that callers gave us, whichever way they came. Always true here: an upload that jobs may name is whole, its digest and type were told from
// its bytes, and its id is ours. What there is, whose it is and how long it stays is the records' affair; where the bytes lie that of UploadBytes.
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { JobsError } from '../jobs/errors.ts';
import type {
  NewUpload,
  ResumableUpload,
  ResumableUploads,
  Upload,
  UploadFacts,
  UploadLimits,
  UploadRecord,
  UploadRecords,
} from '../jobs/ports.ts';
import { displayName, isUploadId, noSuchUpload, uploadIdOf, uploadUri } from '../jobs/uploads.ts';
import type { MediaResolver } from './references.ts';
import { mediaTypeOf, SNIFF_BYTES, UPLOAD_TYPES } from './sniff.ts';
import type { UploadBytes } from './upload-files.ts';

export interface UploadsOptions {
  readonly records: UploadRecords;
  readonly bytes: UploadBytes;
  /** Of one upload. */
  readonly maxBytes: number;
  /** Of one tenant, and how long an upload is kept. */
  readonly limits: UploadLimits;
  /** Told of a sweep that failed; the next one makes up for it. */
  readonly onSweepError?: (error: unknown) => void;
}

export interface Uploads extends ResumableUploads, AsyncDisposable {
  /** Takes the bytes of one file, or throws and keeps nothing. */
  receive(facts: UploadFacts, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Upload>;
  /** A whole upload that the tenant's jobs may name. */
  get(id: string, tenant: string): Promise<Upload | undefined>;
  /** `upload://ID` */
  readonly resolver: MediaResolver;
  /** Deletes what has expired and what no job needs any more. */
  sweep(): Promise<void>;
}

const SWEEP_MS = 600_000;
/** After what could not be written down. */
const SOON_MS = 10_000;
/** Of an upload that does not say its size, room on the disk and quota are held ahead for as much again as has come, within these. */
const LEAST_AHEAD = 1024 * 1024;
const MOST_AHEAD = 64 * LEAST_AHEAD;

/** Opens the store; deletes what a dead process left half-written, what has expired, and what no record names. */
export async function openUploads(options: UploadsOptions): Promise<Uploads> {
  const uploads = new StoredUploads(options);
  for await (const id of options.bytes.ids()) {
    if (!(isUploadId(id) && (await options.records.knows(id)))) await options.bytes.remove(id);
  }
  await uploads.sweep();
  return uploads;
}

/** What this process has seen of an upload's bytes. */
interface Seen {
  readonly hash: Hash;
  bytes: number;
  head: Buffer;
}

/** Why the bytes that a caller sends ended early, if they did. */
interface Broken {
  error?: unknown;
}

class StoredUploads implements Uploads {
  readonly resolver: MediaResolver;
  readonly maxBytes: number;
  readonly ttlMs: number;
  readonly #options: UploadsOptions;
  readonly #timer: NodeJS.Timeout;
  /** By id: of uploads that have been begun or gone on with by this process. */
  readonly #seen = new Map<string, Seen>();
  /** The last of the operations on an upload's bytes, which follow one another. */
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Those that nobody is to have, and whose records do not say so yet. */
  readonly #discarded = new Set<string>();
  #soon: NodeJS.Timeout | undefined;
  /** Bytes that are still to come of what is being received. */
  #expected = 0;

  constructor(options: UploadsOptions) {
    this.#options = options;
    this.maxBytes = options.maxBytes;
    this.ttlMs = options.limits.ttlMs;
    this.resolver = {
      schemes: ['upload'],
      check: async (reference, field, tenant) => {
        const record = await this.#record(reference);
        if (record?.offered && record.whole && record.tenant === tenant) return undefined;
        const unfinished = record?.offered && record.tenant === tenant;
        const description = unfinished ? 'this upload is not finished: send the rest of it first' : noSuchUpload(reference);
        return { field, reason: unfinished ? 'UPLOAD_INCOMPLETE' : 'UPLOAD_NOT_FOUND', description };
      },
      // The job that it is for holds it since submit, even where it has expired since.
      fetch: async (reference, toPath, signal, observer) => {
        const record = await this.#record(reference);
        if (!record?.whole) return { reason: 'INPUT_NOT_FOUND', message: noSuchUpload(reference), retryable: false };
        const failure = await options.bytes.fetch(record.id, record.whole, toPath, signal, observer);
        if (!failure) observer?.digested(record.whole.sha256);
        return failure;
      },
      held: async (reference) => {
        const record = await this.#record(reference);
        if (!record?.whole) return undefined;
        const { bytes, mediaType } = record.whole;
        return { bytes, mediaType, read: () => options.bytes.read(record.id) };
      },
    };
    this.#timer = setInterval(() => this.#tidyUp(), SWEEP_MS);
    this.#timer.unref();
  }

  newId(): string {
    return randomBytes(16).toString('hex');
  }

  async receive(facts: UploadFacts, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Upload> {
    const id = this.newId();
    await this.#begin({ ...facts, id, note: '', resumable: false });
    try {
      const record = (await this.#options.records.get(id))!;
      const size = await this.#take(record, 0, bytes, signal);
      return await this.#finish(record, size);
    } catch (error) {
      await this.#discard(id, false);
      throw error;
    }
  }

  async create(id: string, facts: UploadFacts, note: string): Promise<void> {
    if (facts.bytes === 0) throw corrupt('the file is empty');
    await this.#begin({ ...facts, id, note, resumable: true });
  }

  async find(id: string, tenant: string): Promise<ResumableUpload> {
    return await this.#turn(id, async () => {
      const record = await this.#own(id, tenant);
      const { note, length, expiresMs } = record;
      if (record.whole) {
        const { bytes } = record.whole;
        return { id, note, offset: bytes, length: bytes, expiresMs, upload: uploadOf(record, record.whole, expiresMs) };
      }
      const offset = await this.#options.bytes.size(id);
      // Its process died between the last byte and the record.
      const upload = offset === length ? await this.#finish(record, offset) : undefined;
      return { id, note, offset, length, expiresMs: upload?.expiresMs ?? expiresMs, upload };
    });
  }

  async announce(id: string, tenant: string, bytes: number): Promise<void> {
    await this.#turn(id, async () => {
      await this.#own(id, tenant);
      if (bytes === 0) throw corrupt('the file is empty');
      if (bytes > this.maxBytes) throw tooLarge(this.maxBytes);
      await this.#options.records.announce(id, bytes, this.#options.limits);
      await this.#options.bytes.announce(id, bytes);
    });
  }

  async append(id: string, tenant: string, offset: number, bytes: AsyncIterable<Uint8Array>): Promise<number> {
    return await this.#turn(id, async () => {
      const record = await this.#own(id, tenant);
      const { length } = record;
      const there = record.whole?.bytes ?? (await this.#options.bytes.size(id));
      if (there !== offset) {
        throw new JobsError('aborted', 'UPLOAD_CONFLICT', `${there} bytes are here: go on from there, not from ${offset}`, {
          metadata: { offset: String(there) },
        });
      }
      if (record.whole) return there;
      try {
        const size = await this.#take(record, offset, bytes, undefined);
        if (size === length) await this.#finish(record, size);
        return size;
      } catch (error) {
        if (error instanceof JobsError && error.kind === 'invalid') await this.#discard(id, true);
        throw error;
      }
    });
  }

  async remove(id: string, tenant: string): Promise<void> {
    await this.#own(id, tenant);
    await this.#options.records.release(id);
    await this.sweep();
  }

  async get(id: string, tenant: string): Promise<Upload | undefined> {
    const record = await this.#options.records.get(id);
    if (!record?.whole || !record.offered || record.tenant !== tenant) return undefined;
    return uploadOf(record, record.whole, record.expiresMs);
  }

  async sweep(): Promise<void> {
    await this.#releaseDiscarded();
    // Out of turn: one that is still being received must not hold up the others. Its writer finds no record when it looks next.
    await this.#options.records.reclaim(async (id) => {
      this.#seen.delete(id);
      await this.#options.bytes.remove(id);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    clearTimeout(this.#soon);
    await Promise.allSettled(this.#turns.values());
    await this.#options.bytes[Symbol.asyncDispose]();
  }

  /** What was seen of uploads that another process has finished or removed. */
  async #forget(): Promise<void> {
    for (const id of this.#seen.keys()) {
      const record = await this.#options.records.get(id);
      if (!this.#turns.has(id) && (!record || record.whole)) this.#seen.delete(id);
    }
  }

  async #begin(upload: NewUpload): Promise<void> {
    const { records, bytes, limits, maxBytes } = this.#options;
    if (upload.bytes !== undefined && upload.bytes > maxBytes) throw tooLarge(maxBytes);
    await bytes.checkRoom(this.#expected + (upload.bytes ?? 0));
    // The record first: bytes that no record names are nobody's.
    await records.begin({ ...upload, filename: displayName(upload.filename) }, limits);
    try {
      await bytes.create(upload.id, upload.bytes);
    } catch (error) {
      await this.#discard(upload.id, upload.resumable);
      throw error;
    }
    this.#seen.set(upload.id, { hash: createHash('sha256'), bytes: 0, head: Buffer.alloc(0) });
  }

  /** Adds what comes after `offset`, and answers how many bytes are there then. */
  async #take(record: UploadRecord, offset: number, source: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined): Promise<number> {
    const { id } = record;
    const seen = this.#seen.get(id);
    // A restart, or a write that broke: what is there is not what was hashed. It is read again in the end.
    if (seen && seen.bytes !== offset) this.#seen.delete(id);
    const { bytes, records } = this.#options;
    const broken: Broken = {};
    try {
      await bytes.append(id, offset, this.#watched(record, offset, source, signal, broken));
    } catch (error) {
      // The store's: whether what was hashed is there, or what another process had for this place, is not known.
      if (error !== broken.error) this.#seen.delete(id);
      throw error;
    }
    try {
      await this.#own(id, record.tenant);
    } catch (error) {
      // It was removed meanwhile, by another process perhaps before the last bytes were written.
      if (!(await records.get(id))?.whole) await bytes.remove(id);
      throw error;
    }
    return await bytes.size(id);
  }

  /** Passes on what comes, within the limits, and looks at it on the way. */
  async *#watched(
    { id, length }: UploadRecord,
    offset: number,
    source: AsyncIterable<Uint8Array>,
    signal: AbortSignal | undefined,
    broken: Broken,
  ): AsyncGenerator<Uint8Array> {
    const { records, bytes, limits, maxBytes } = this.#options;
    const seen = this.#seen.get(id);
    let size = offset;
    let checkedTo = offset;
    /** This upload's share of what is expected. */
    let expected = 0;
    const expect = (more: number) => {
      this.#expected += more - expected;
      expected = more;
    };
    try {
      for await (const chunk of source) {
        signal?.throwIfAborted();
        size += chunk.length;
        if (size > (length ?? maxBytes)) throw length === undefined ? tooLarge(maxBytes) : tooMany(length);
        if (size > checkedTo) {
          checkedTo = size + Math.min(MOST_AHEAD, Math.max(LEAST_AHEAD, size));
          const ahead = length ?? Math.min(checkedTo, maxBytes);
          expect(ahead - (size - chunk.length));
          await bytes.checkRoom(this.#expected);
          await records.reserve(id, ahead, limits).catch(async (error: unknown) => {
            if (length !== undefined || !isOverQuota(error)) throw error;
            // Nobody knows how much more there is: as long as what has come fits, it goes on.
            checkedTo = size;
            await records.reserve(id, size, limits);
          });
        }
        expect(Math.max(0, expected - chunk.length));
        if (seen) look(seen, chunk);
        yield chunk;
      }
      signal?.throwIfAborted();
    } catch (error) {
      broken.error = error;
      throw error;
    } finally {
      expect(0);
    }
  }

  async #finish(record: UploadRecord, size: number): Promise<Upload> {
    const { id } = record;
    const { records, bytes, limits } = this.#options;
    if (size === 0) throw corrupt('the file is empty');
    await bytes.finish(id);
    const seen = this.#seen.get(id);
    const { sha256, head } = seen?.bytes === size ? { sha256: seen.hash.copy().digest('hex'), head: seen.head } : await this.#reread(id);
    const whole = { sha256, bytes: size, mediaType: acceptedType(head) };
    checkAgainst(record, whole);
    const expiresMs = await records.complete(id, whole, limits);
    this.#seen.delete(id);
    return uploadOf(record, whole, expiresMs);
  }

  async #reread(id: string): Promise<{ readonly sha256: string; readonly head: Buffer }> {
    const hash = createHash('sha256');
    let head = Buffer.alloc(0);
    for await (const chunk of this.#options.bytes.read(id)) {
      if (head.length < SNIFF_BYTES) head = Buffer.concat([head, chunk.subarray(0, SNIFF_BYTES - head.length)]);
      hash.update(chunk);
    }
    return { sha256: hash.digest('hex'), head };
  }

  /** Of one that nobody is to have. Where its record cannot be written now, which is so on a full disk, a sweep that comes soon does it. */
  async #discard(id: string, resumable: boolean): Promise<void> {
    const { records, bytes, onSweepError } = this.#options;
    try {
      await records.release(id);
      await this.sweep();
    } catch (error) {
      if (isNotFound(error)) return;
      onSweepError?.(error);
      this.#discarded.add(id);
      this.#soon ??= setTimeout(() => {
        this.#soon = undefined;
        this.#tidyUp();
      }, SOON_MS).unref();
      // They may be what the disk is full of, and of one in pieces their length is asked for while there is a record.
      if (!resumable) await bytes.remove(id).catch((failure: unknown) => onSweepError?.(failure));
    }
  }

  /** Of those whose records could not be written. */
  async #releaseDiscarded(): Promise<void> {
    for (const id of this.#discarded) {
      try {
        await this.#options.records.release(id);
      } catch (error) {
        if (!isNotFound(error)) return this.#options.onSweepError?.(error);
      }
      this.#discarded.delete(id);
    }
  }

  #tidyUp(): void {
    void this.sweep()
      .then(() => this.#forget())
      .catch((error) => this.#options.onSweepError?.(error));
  }

  async #record(reference: string): Promise<UploadRecord | undefined> {
    const id = uploadIdOf(reference);
    return id === undefined ? undefined : await this.#options.records.get(id);
  }

  /** The record of an upload that its caller may go on with. */
  async #own(id: string, tenant: string): Promise<UploadRecord> {
    const record = isUploadId(id) ? await this.#options.records.get(id) : undefined;
    if (record?.offered && record.tenant === tenant) return record;
    throw new JobsError('not_found', 'UPLOAD_NOT_FOUND', noSuchUpload(uploadUri(id)));
  }

  /** Runs after what was asked for before on the same upload. */
  async #turn<T>(id: string, run: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(id) ?? Promise.resolve()).then(run, run);
    this.#turns.set(id, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(id) === turn) this.#turns.delete(id);
    }
  }
}

function look(seen: Seen, chunk: Uint8Array): void {
  if (seen.head.length < SNIFF_BYTES) {
    seen.head = Buffer.concat([seen.head, chunk.subarray(0, SNIFF_BYTES - seen.head.length)]);
    // As soon as it can be told, so that a wrong file is not sent in full.
    if (seen.head.length >= SNIFF_BYTES) acceptedType(seen.head);
  }
  seen.hash.update(chunk);
  seen.bytes += chunk.length;
}

function uploadOf({ id }: UploadRecord, whole: NonNullable<UploadRecord['whole']>, expiresMs: number): Upload {
  return { uri: uploadUri(id), ...whole, expiresMs };
}

function checkAgainst(announced: Pick<UploadRecord, 'length' | 'sha256'>, got: { readonly sha256: string; readonly bytes: number }): void {
  if (announced.length !== undefined && announced.length !== got.bytes) {
    throw corrupt(`${announced.length} bytes were announced and ${got.bytes} came: send the file again`);
  }
  if (announced.sha256 !== undefined && announced.sha256 !== got.sha256) {
    throw corrupt('the bytes that came have another SHA-256 than was announced: send the file again');
  }
}

function acceptedType(head: Uint8Array): string {
  const type = mediaTypeOf(head);
  if (type !== undefined) return type;
  const description = `this is no kind of file that is taken; taken: ${UPLOAD_TYPES.join(', ')}`;
  throw JobsError.invalid([{ field: 'file', reason: 'UNSUPPORTED_MEDIA_TYPE', description }]);
}

function isNotFound(error: unknown): boolean {
  return error instanceof JobsError && error.reason === 'UPLOAD_NOT_FOUND';
}

function isOverQuota(error: unknown): boolean {
  return error instanceof JobsError && error.reason === 'QUOTA_EXCEEDED';
}

function tooLarge(maxBytes: number): JobsError {
  return new JobsError('too_large', 'UPLOAD_TOO_LARGE', `a file has at most ${maxBytes} bytes here`, {
    metadata: { limit_bytes: String(maxBytes) },
  });
}

function tooMany(length: number): JobsError {
  return corrupt(`${length} bytes were announced and more came: send the file again`);
}

function corrupt(message: string): JobsError {
  return new JobsError('invalid', 'UPLOAD_CORRUPT', message);
}
