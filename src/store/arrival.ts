// Bytes on their way into a store. Always true here: what is stored is what the digest was made of. Small files are stored out of memory; streams, and files of
// another user, who could write to them for as long as it likes, out of a file of ours; and a file of this user, which is not copied, is looked at before and after.
import { createHash, hash as hashOf } from 'node:crypto';
import { type BigIntStats, closeSync, existsSync, constants as fs, readSync } from 'node:fs';
import { copyFile, type FileHandle, link, lstat, open, rename, rm, unlink } from 'node:fs/promises';
import { changed, chunksOf, openPlainly, openPlainlySync } from './result-file.ts';

/** What has its digest for a name is written to by nobody: a job whose input it is may get it as a second name. */
const KEPT_MODE = 0o444;
/** Files up to this size are read in one go. */
const SMALL_BYTES = 64 * 1024;

interface Digested {
  /** SHA-256 in lower-case hex. */
  readonly key: string;
  readonly bytes: number;
}

/** Where the bytes are. */
interface Source {
  chunks(): AsyncIterable<Uint8Array>;
  /** Has them at `scratch`, on the disk. */
  settle(scratch: string): Promise<void>;
  close?(): Promise<void>;
}

/** Whoever has one disposes of it. */
export class Arrival implements AsyncDisposable {
  readonly key: string;
  readonly bytes: number;
  readonly #source: Source;
  readonly #scratch: string;
  /** Something of ours may be at `#scratch`. */
  #made: boolean;

  /**
   * Takes a stream, or the plain file at a path, and makes its digest. `scratch`: where a file of ours may be made; nothing is there before, nor afterwards but
   * what `moveTo` has moved. Throws RESULT_NOT_A_FILE or RESULT_CHANGED, or with the signal's reason.
   */
  static async of(source: AsyncIterable<Uint8Array> | string, scratch: string, signal: AbortSignal | undefined): Promise<Arrival> {
    signal?.throwIfAborted();
    if (typeof source !== 'string') return await Arrival.#copied(scratch, () => takeStream(source, scratch, signal));
    const small = smallFile(source);
    if (small) return new Arrival({ key: hashOf('sha256', small, 'hex'), bytes: small.length }, scratch, inMemory(small), false);
    const file = await openPlainly(source);
    let kept = false;
    try {
      const was = await file.stat({ bigint: true });
      if (isAnothers(was)) return await Arrival.#copied(scratch, () => takeCopy(file, scratch, signal));
      const digested = await digestOf(file, was, signal);
      kept = true;
      return new Arrival(digested, scratch, inPlace(file, source, was), false);
    } finally {
      if (!kept) await file.close();
    }
  }

  static async #copied(scratch: string, copy: () => Promise<Digested>): Promise<Arrival> {
    try {
      return new Arrival(await copy(), scratch, ofOurs(scratch), true);
    } catch (error) {
      await rm(scratch, { force: true });
      throw error;
    }
  }

  private constructor({ key, bytes }: Digested, scratch: string, source: Source, made: boolean) {
    this.key = key;
    this.bytes = bytes;
    this.#scratch = scratch;
    this.#source = source;
    this.#made = made;
  }

  /** The bytes, each chunk good until the next is asked for. Throws RESULT_CHANGED at their end where they need not be those of the digest. */
  chunks(): AsyncIterable<Uint8Array> {
    return this.#source.chunks();
  }

  /** Has them in a file of ours, on the disk, which may be a second name of the source. Throws RESULT_CHANGED where they need not be those of the digest. */
  async settle(): Promise<void> {
    this.#made = true;
    await this.#source.settle(this.#scratch);
  }

  /** Gives that file its name. */
  async moveTo(path: string): Promise<void> {
    await rename(this.#scratch, path);
    this.#made = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source.close?.();
    if (this.#made) await rm(this.#scratch, { force: true });
  }
}

function inMemory(content: Buffer): Source {
  return {
    async *chunks() {
      yield content;
    },
    async settle(scratch) {
      await using file = await open(scratch, 'wx', KEPT_MODE);
      await file.writeFile(content);
      await file.sync();
    },
  };
}

function ofOurs(path: string): Source {
  return {
    async *chunks() {
      await using file = await open(path);
      yield* chunksOf(file, Number.POSITIVE_INFINITY);
    },
    settle: syncFile,
  };
}

/** A file of this user, whose engine has said that it is done: `was` when its digest was made. */
function inPlace(file: FileHandle, path: string, was: BigIntStats): Source {
  return {
    async *chunks() {
      yield* chunksOf(file, Number(was.size));
      await assertSame(file, was);
    },
    async settle(scratch) {
      await assertSame(file, was);
      await linkOrCopy(file, path, scratch);
      // A second name changes when its facts changed, and nothing of the content.
      await assertSame(file, { ...was, ctimeNs: undefined });
      await syncFile(scratch);
    },
    close: () => file.close(),
  };
}

type Version = Pick<BigIntStats, 'size' | 'mtimeNs'> & { readonly ctimeNs: bigint | undefined };

async function assertSame(file: FileHandle, was: Version): Promise<void> {
  const { size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
  if (size !== was.size || mtimeNs !== was.mtimeNs || (was.ctimeNs !== undefined && ctimeNs !== was.ctimeNs)) throw changed();
}

/** An engine that runs as another user could write to its own file for as long as it likes, whatever the file says of when it was written to. */
function isAnothers({ uid }: BigIntStats): boolean {
  return process.getuid !== undefined && uid !== BigInt(process.getuid());
}

/** Undefined: it is larger. Read without a turn of the thread pool for each step. */
function smallFile(path: string): Buffer | undefined {
  const { fd, size } = openPlainlySync(path);
  try {
    if (size > SMALL_BYTES) return undefined;
    const buffer = Buffer.allocUnsafe(size);
    return buffer.subarray(0, readSync(fd, buffer, 0, size, 0));
  } finally {
    closeSync(fd);
  }
}

async function digestOf(file: FileHandle, was: Version | undefined, signal: AbortSignal | undefined): Promise<Digested> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of chunksOf(file, was ? Number(was.size) : Number.POSITIVE_INFINITY)) {
    signal?.throwIfAborted();
    hash.update(chunk);
    bytes += chunk.length;
  }
  if (was) await assertSame(file, was);
  return { key: hash.digest('hex'), bytes };
}

async function takeStream(source: AsyncIterable<Uint8Array>, to: string, signal: AbortSignal | undefined): Promise<Digested> {
  const hash = createHash('sha256');
  let bytes = 0;
  await using file = await open(to, 'wx', 0o644);
  for await (const chunk of source) {
    signal?.throwIfAborted();
    hash.update(chunk);
    bytes += chunk.length;
    await file.writeFile(chunk);
  }
  signal?.throwIfAborted();
  return { key: hash.digest('hex'), bytes };
}

async function takeCopy(file: FileHandle, to: string, signal: AbortSignal | undefined): Promise<Digested> {
  await copyOpened(file, to, fs.COPYFILE_FICLONE);
  await using copy = await open(to);
  return await digestOf(copy, undefined, signal);
}

/** At no cost where the file can share its blocks or have a second name. */
async function linkOrCopy(file: FileHandle, path: string, to: string): Promise<void> {
  try {
    await copyOpened(file, to, fs.COPYFILE_FICLONE_FORCE);
    return;
  } catch {
    // No shared blocks here.
  }
  const { nlink, ino, dev } = await file.stat();
  if (nlink === 1) {
    try {
      await link(path, to);
      const made = await lstat(to);
      if (made.ino === ino && made.dev === dev) return;
      await unlink(to);
    } catch {
      // Another volume, or a file system without links.
    }
  }
  await copyOpened(file, to, 0);
}

/** Through the descriptor: by its name it could be another file by now. */
async function copyOpened(file: FileHandle, to: string, mode: number): Promise<void> {
  const byDescriptor = `/proc/self/fd/${file.fd}`;
  if (existsSync(byDescriptor)) return await copyFile(byDescriptor, to, mode | fs.COPYFILE_EXCL);
  if (mode === fs.COPYFILE_FICLONE_FORCE) throw new Error('this system has no names for descriptors');
  await using copy = await open(to, 'wx', 0o644);
  for await (const chunk of chunksOf(file, Number.POSITIVE_INFINITY)) await copy.writeFile(chunk);
}

/** As it is kept. Where it has another name, this holds for that one too. */
async function syncFile(path: string): Promise<void> {
  await using file = await open(path);
  await file.chmod(KEPT_MODE);
  await file.sync();
}
