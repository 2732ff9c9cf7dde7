// Files that callers gave us, kept until they expire. Always true here: an upload that has a description beside it is whole, its digest and
// type were told from its bytes, and its name is ours. Its id says when it expires, so sweeping reads names only.
import { createHash, randomBytes } from 'node:crypto';
import { openSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { JobsError } from '../jobs/errors.ts';
import type { Upload, UploadFacts } from '../jobs/ports.ts';
import { copyOpened, type MediaResolver } from './references.ts';
import { mediaTypeOf, SNIFF_BYTES, UPLOAD_TYPES } from './sniff.ts';

export interface UploadsOptions {
  /** Made when it is not there; this process alone uses it. */
  readonly dir: string;
  readonly maxBytes: number;
  /** How long an upload is kept, in milliseconds. */
  readonly ttlMs: number;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

export interface Uploads extends AsyncDisposable {
  /** Takes the bytes of one file, or throws and keeps nothing. */
  receive(facts: UploadFacts, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Upload>;
  /** `upload://ID` */
  readonly resolver: MediaResolver;
  /** Deletes what has expired. */
  sweep(): Promise<void>;
}

const SWEEP_MS = 600_000;
/** When it expires, in seconds, and 128 random bits. */
const ID = /^([0-9a-z]{1,9})-[0-9a-f]{32}$/;

/** Opens the store; deletes what has expired and what a dead process left half-written. */
export async function openUploads(options: UploadsOptions): Promise<Uploads> {
  const scratch = join(options.dir, 'tmp');
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  const uploads = new LocalUploads(options, scratch);
  await uploads.sweep({ halves: true });
  return uploads;
}

class LocalUploads implements Uploads {
  readonly resolver: MediaResolver;
  readonly #options: UploadsOptions;
  readonly #now: () => number;
  readonly #scratch: string;
  readonly #timer: NodeJS.Timeout;
  #sweeping: Promise<void> = Promise.resolve();

  constructor(options: UploadsOptions, scratch: string) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#scratch = scratch;
    this.resolver = {
      schemes: ['upload'],
      check: async (reference, field) => {
        if (await this.#find(reference)) return undefined;
        return { field, reason: 'UPLOAD_NOT_FOUND', description: this.#missing(reference) };
      },
      fetch: async (reference, toPath, signal) => {
        const id = await this.#find(reference);
        const fd = id === undefined ? undefined : opened(this.#dataPath(id));
        if (fd === undefined) return { reason: 'INPUT_NOT_FOUND', message: this.#missing(reference), retryable: false };
        await copyOpened(fd, toPath, signal);
        return undefined;
      },
    };
    // A sweep that fails is made up for by the next one.
    this.#timer = setInterval(() => void this.sweep().catch(() => {}), SWEEP_MS);
    this.#timer.unref();
  }

  async receive(facts: UploadFacts, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Upload> {
    const { maxBytes, ttlMs } = this.#options;
    if (facts.bytes !== undefined && facts.bytes > maxBytes) throw tooLarge(maxBytes);
    const temporary = join(this.#scratch, randomBytes(12).toString('hex'));
    try {
      const got = await this.#write(temporary, bytes, signal);
      checkAgainst(facts, got);
      const expiresMs = Math.ceil((this.#now() + ttlMs) / 1000) * 1000;
      const id = `${(expiresMs / 1000).toString(36)}-${randomBytes(16).toString('hex')}`;
      const upload: Upload = { uri: `upload://${id}`, ...got, expiresMs };
      const about = await open(`${temporary}.json`, 'wx');
      try {
        await about.writeFile(JSON.stringify({ ...upload, filename: facts.filename }));
        await about.sync();
      } finally {
        await about.close();
      }
      await rename(temporary, this.#dataPath(id));
      // The description makes it an upload, so it comes last.
      await rename(`${temporary}.json`, this.#aboutPath(id));
      await syncFolder(this.#options.dir);
      return upload;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
      throw new JobsError('exhausted', 'STORAGE_FULL', 'the disk for uploads is full; try again later', {
        retryAfterSeconds: 30,
        cause: error,
      });
    } finally {
      await Promise.all([rm(temporary, { force: true }), rm(`${temporary}.json`, { force: true })]);
    }
  }

  sweep({ halves = false }: { readonly halves?: boolean } = {}): Promise<void> {
    const swept = this.#sweeping.then(() => this.#sweep(halves));
    this.#sweeping = swept.catch(() => {});
    return swept;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#sweeping;
  }

  async #write(path: string, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal) {
    const { maxBytes } = this.#options;
    const hash = createHash('sha256');
    let count = 0;
    let head = Buffer.alloc(0);
    let mediaType: string | undefined;
    const file = await open(path, 'wx');
    try {
      for await (const chunk of bytes) {
        signal.throwIfAborted();
        count += chunk.length;
        if (count > maxBytes) throw tooLarge(maxBytes);
        if (mediaType === undefined) {
          head = Buffer.concat([head, chunk.subarray(0, SNIFF_BYTES - head.length)]);
          // Judged as soon as it can be, so that a wrong file is not sent in full.
          if (head.length >= SNIFF_BYTES) mediaType = acceptedType(head);
        }
        hash.update(chunk);
        await file.writeFile(chunk);
      }
      signal.throwIfAborted();
      if (count === 0) throw corrupt('the file is empty');
      mediaType ??= acceptedType(head);
      await file.sync();
    } finally {
      await file.close();
    }
    return { sha256: hash.digest('hex'), bytes: count, mediaType };
  }

  /** Id of an upload that is there. */
  async #find(reference: string): Promise<string | undefined> {
    const id = reference.replace(/^upload:\/\//i, '');
    const expires = expiryOf(id);
    if (expires === undefined || expires <= this.#now()) return undefined;
    try {
      await readFile(this.#aboutPath(id));
      return id;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  async #sweep(halves: boolean): Promise<void> {
    const names = new Set(await readdir(this.#options.dir));
    for (const name of names) {
      const id = name.replace(/\.json$/, '');
      const expires = expiryOf(id);
      if (expires === undefined) continue;
      if (expires > this.#now() && !(halves && !names.has(`${id}.json`))) continue;
      // The description first: what has one is whole.
      await rm(this.#aboutPath(id), { force: true });
      await rm(this.#dataPath(id), { force: true });
    }
  }

  #missing(reference: string): string {
    return `there is no upload ${JSON.stringify(reference)}, or it has expired: upload the file again`;
  }

  #dataPath(id: string): string {
    return join(this.#options.dir, id);
  }

  #aboutPath(id: string): string {
    return join(this.#options.dir, `${id}.json`);
  }
}

function expiryOf(id: string): number | undefined {
  const seconds = ID.exec(id)?.[1];
  return seconds === undefined ? undefined : Number.parseInt(seconds, 36) * 1000;
}

function checkAgainst(facts: UploadFacts, got: { readonly sha256: string; readonly bytes: number }): void {
  if (facts.bytes !== undefined && facts.bytes !== got.bytes) {
    throw corrupt(`${facts.bytes} bytes were announced and ${got.bytes} came: send the file again`);
  }
  if (facts.sha256 !== undefined && facts.sha256 !== got.sha256) {
    throw corrupt('the bytes that came have another SHA-256 than was announced: send the file again');
  }
}

function acceptedType(head: Uint8Array): string {
  const type = mediaTypeOf(head);
  if (type !== undefined) return type;
  const description = `this is no kind of file that is taken; taken: ${UPLOAD_TYPES.join(', ')}`;
  throw JobsError.invalid([{ field: 'file', reason: 'UNSUPPORTED_MEDIA_TYPE', description }]);
}

function tooLarge(maxBytes: number): JobsError {
  return new JobsError('invalid', 'UPLOAD_TOO_LARGE', `a file has at most ${maxBytes} bytes here`, {
    metadata: { limit_bytes: String(maxBytes) },
  });
}

function corrupt(message: string): JobsError {
  return new JobsError('invalid', 'UPLOAD_CORRUPT', message);
}

/** Descriptor of a file; undefined where there is none. */
function opened(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch {
    return undefined;
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
