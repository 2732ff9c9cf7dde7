// Results as files, named by the SHA-256 of their bytes. Always true here: a file under its key is whole and never changes, its media type
// lies beside it, and both were on disk before `put` answered. One process owns the folder; half files of a dead one are swept at open.
import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { copyFile, constants as fs, link, mkdir, open, readFile, rename, rm, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { JobsError } from '../jobs/errors.ts';
import type { BlobStat, BlobStore, PutOptions } from '../jobs/ports.ts';
import { Arrival } from './arrival.ts';

/** Where signed URLs point; the same prefix as the routes in blobs-http.ts. */
export const BLOB_PATH = '/api/v1/blobs';

/** A SHA-256 in lower-case hex, as keys are. */
export const KEY = /^[0-9a-f]{64}$/;

export interface LocalBlobStoreOptions {
  /** Made when it is not there. */
  readonly dir: string;
  /** Holds the secret that signs URLs; made, for this user only, when it is not there. Default: `url-secret` in `dir`. */
  readonly secretFile?: string;
}

/** The query of a signed URL, as it came. */
export interface SignedQuery {
  readonly expires?: string;
  readonly filename?: string;
  readonly type?: string;
  readonly signature?: string;
}

export interface LocalBlobStore extends BlobStore {
  readonly dir: string;
  /** Path of a key below `dir`, whether or not it is there. */
  pathOf(key: string): string;
  /** Whether a URL is one that `signedUrl` gave and still holds. */
  verifySignedUrl(key: string, query: SignedQuery, nowMs: number): 'ok' | 'tampered' | 'expired';
}

export async function openLocalBlobStore(options: LocalBlobStoreOptions): Promise<LocalBlobStore> {
  const { dir } = options;
  const scratch = join(dir, 'tmp');
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  const secret = await readSecret(options.secretFile ?? join(dir, 'url-secret'));
  return new LocalBlobs(dir, scratch, secret);
}

class LocalBlobs implements LocalBlobStore {
  readonly dir: string;
  readonly #scratch: string;
  readonly #secret: KeyObject;
  /** Begins the names of what this process writes, with the number of the last. */
  readonly #mine = randomBytes(9).toString('hex');
  #writes = 0;
  /** Blobs that are being written, by key: who has the same bytes waits, so that what is found is on the disk. They settle and never reject. */
  readonly #arriving = new Map<string, Promise<void>>();

  constructor(dir: string, scratch: string, secret: Buffer) {
    this.dir = dir;
    this.#scratch = scratch;
    this.#secret = createSecretKey(secret);
  }

  /**
   * A file on the same volume is taken in without copying its bytes, by shared blocks or else, when it has one name only and is this
   * user's, by a second one: give files that are not written to again, such as an engine's output, and none of the callers' own.
   */
  async put(source: AsyncIterable<Uint8Array> | string, mediaType: string, { signal, pin }: PutOptions = {}): Promise<BlobStat> {
    const scratch = join(this.#scratch, `${this.#mine}.${++this.#writes}`);
    try {
      // Somebody may have tidied the data folder up.
      if (!existsSync(this.#scratch)) await mkdir(this.#scratch, { recursive: true });
      await using arrival = await Arrival.of(source, scratch, signal);
      const { key, bytes } = arrival;
      await pin?.(key, false);
      for (let other = this.#arriving.get(key); other; other = this.#arriving.get(key)) await other;
      const known = await this.stat(key);
      // A file of another length is one that the disk has lost; it is made good.
      if (known?.bytes === bytes) return known;
      const writing = this.#write(arrival, `${scratch}.type`, mediaType, pin);
      const arrived = writing.catch(() => {}).finally(() => this.#arriving.delete(key));
      this.#arriving.set(key, arrived);
      await writing;
      return { key, bytes, mediaType };
    } catch (error) {
      throw diskFull(error);
    }
  }

  /** Everything that needs the disk is on its way there at once; the names come last. */
  async #write(arrival: Arrival, typeScratch: string, mediaType: string, pin: PutOptions['pin']): Promise<void> {
    const path = join(this.dir, this.pathOf(arrival.key));
    try {
      const settled = await Promise.allSettled([
        pin?.(arrival.key, true),
        arrival.settle(),
        writeDurably(typeScratch, mediaType),
        makeFolder(this.dir, dirname(path)),
      ]);
      for (const each of settled) if (each.status === 'rejected') throw each.reason;
      // The type first: a blob that is there has one.
      await rename(typeScratch, `${path}.type`);
      await arrival.moveTo(path);
      await syncFolder(dirname(path));
    } catch (error) {
      await rm(typeScratch, { force: true });
      throw error;
    }
  }

  /** Two looks at a local folder, which cost less than a turn of the thread pool. */
  async stat(key: string): Promise<BlobStat | undefined> {
    if (!KEY.test(key)) return undefined;
    const path = join(this.dir, this.pathOf(key));
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found) return undefined;
    try {
      return { key, bytes: found.size, mediaType: readFileSync(`${path}.type`, 'utf8') };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async *get(key: string, range?: { readonly start: number; readonly end: number }): AsyncGenerator<Uint8Array> {
    if (!(await this.stat(key))) throw new JobsError('not_found', 'NO_RESULT', `there is no blob ${key}`);
    yield* createReadStream(join(this.dir, this.pathOf(key)), range);
  }

  async fetch(key: string, toPath: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const path = join(this.dir, KEY.test(key) ? this.pathOf(key) : '');
    try {
      await link(path, toPath).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'EEXIST' || isMissing(error)) throw error;
        // Another disk, or one that has no second names.
        return copyFile(path, toPath, fs.COPYFILE_EXCL | fs.COPYFILE_FICLONE);
      });
    } catch (error) {
      if (!KEY.test(key) || isMissing(error)) throw new JobsError('not_found', 'NO_RESULT', `there is no blob ${key}`);
      throw error;
    }
  }

  async delete(key: string): Promise<void> {
    if (!KEY.test(key)) return;
    const path = join(this.dir, this.pathOf(key));
    for (const file of [path, `${path}.type`]) {
      await unlink(file).catch((error) => {
        if (!isMissing(error)) throw error;
      });
    }
  }

  async signedUrl(key: string, options: { readonly expiresMs: number; readonly filename: string; readonly mediaType: string }) {
    const expires = String(Math.floor(options.expiresMs));
    const { filename, mediaType: type } = options;
    const signature = this.#sign(key, expires, filename, type).toString('base64url');
    return `${BLOB_PATH}/${key}?expires=${expires}&filename=${encodeURIComponent(filename)}&type=${encodeURIComponent(type)}&signature=${signature}`;
  }

  verifySignedUrl(key: string, query: SignedQuery, nowMs: number): 'ok' | 'tampered' | 'expired' {
    const { expires, filename, type, signature } = query;
    const parts = [expires, filename, type, signature];
    if (!KEY.test(key) || !parts.every((part) => typeof part === 'string')) return 'tampered';
    const given = Buffer.from(signature!, 'base64url');
    const due = this.#sign(key, expires!, filename!, type!);
    if (given.length !== due.length || !timingSafeEqual(given, due)) return 'tampered';
    return Number(expires) > nowMs ? 'ok' : 'expired';
  }

  pathOf(key: string): string {
    return join(key.slice(0, 2), key.slice(2, 4), key);
  }

  #sign(key: string, expires: string, filename: string, type: string): Buffer {
    // JSON keeps the parts apart whatever is in them.
    return createHmac('sha256', this.#secret)
      .update(JSON.stringify([key, expires, filename, type]))
      .digest();
  }
}

async function writeDurably(path: string, content: string, mode = 0o644): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Makes a folder two levels below `root` so that it survives power loss. */
async function makeFolder(root: string, folder: string): Promise<void> {
  const made = await mkdir(folder, { recursive: true });
  if (made === undefined) return;
  await syncFolder(dirname(folder));
  await syncFolder(root);
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The secret that signs URLs; the same over restarts, so that URLs live as long as they say. */
async function readSecret(path: string): Promise<Buffer> {
  await mkdir(dirname(path), { recursive: true });
  try {
    await writeDurably(path, randomBytes(32).toString('hex'), 0o600);
    await syncFolder(dirname(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const secret = Buffer.from((await readFile(path, 'utf8')).trim(), 'hex');
  if (secret.length < 32) throw new Error(`${path} does not hold a secret of 32 bytes in hexadecimal: delete it, and a new one is made`);
  return secret;
}

function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** What to throw where a file could not be written. */
export function diskFull(error: unknown, disk = 'the disk of the blob store'): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new JobsError('exhausted', 'STORAGE_FULL', `${disk} is full; free some space and try again`, {
    retryAfterSeconds: 30,
    cause: error,
  });
}
