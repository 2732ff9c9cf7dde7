// A result as its engine left it, in a folder that the engine's process can still write to. Always true here: what is read is a plain file of that folder, and never
// what a link leads to, whatever is swapped meanwhile; and what is taken over belongs to nobody else, so that no engine can change it later.
import { createHash, hash as hashOf } from 'node:crypto';
import { closeSync, existsSync, constants as fs, fstatSync, openSync, readSync } from 'node:fs';
import { copyFile, type FileHandle, link, lstat, open, unlink } from 'node:fs/promises';
import { JobsError } from '../jobs/errors.ts';

/** What a file's bytes are. */
export interface Taken {
  /** SHA-256 in lower-case hex. */
  readonly key: string;
  readonly bytes: number;
}

/** Read at once of larger ones. */
const READ_BYTES = 512 * 1024;
/** Files up to this size are read in one go. */
const SMALL_BYTES = 64 * 1024;
/** A link is not followed, and a pipe is not waited on. */
const PLAINLY = fs.O_RDONLY | (fs.O_NOFOLLOW ?? 0) | (fs.O_NONBLOCK ?? 0);
/** What opening ends with where there is nothing, a link, or no file. */
const NO_FILE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EMLINK', 'EISDIR', 'ENXIO', 'ENODEV']);

/** Throws RESULT_NOT_A_FILE where there is no plain file. */
export async function digestFile(path: string, signal: AbortSignal | undefined): Promise<Taken> {
  signal?.throwIfAborted();
  const small = smallFile(path);
  if (small) return { key: hashOf('sha256', small, 'hex'), bytes: small.length };
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of fileChunks(path)) {
    signal?.throwIfAborted();
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { key: hash.digest('hex'), bytes };
}

/** A file's bytes, each chunk good until the next is asked for: a fresh buffer for each read costs as much as hashing it. */
export async function* fileChunks(path: string): AsyncGenerator<Uint8Array> {
  const file = await openPlainly(path);
  try {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    for (let read = await file.read(buffer); read.bytesRead > 0; read = await file.read(buffer)) yield buffer.subarray(0, read.bytesRead);
  } finally {
    await file.close();
  }
}

/**
 * Makes the file at `source` one at `to`, on the disk, at no cost where it can have a second name or share its blocks. `bytes`: as many as had a digest made of
 * them; throws RESULT_CHANGED where it has another number now.
 */
export async function takeFile(source: string, to: string, bytes: number): Promise<void> {
  const file = await openPlainly(source);
  try {
    await linkOrCopy(file, source, to);
  } finally {
    await file.close();
  }
  const taken = await open(to, 'r');
  try {
    const { size } = await taken.stat();
    if (size !== bytes) throw new JobsError('data_loss', 'RESULT_CHANGED', 'the result was written to after it was said to be done');
    await taken.sync();
  } finally {
    await taken.close();
  }
}

async function linkOrCopy(file: FileHandle, source: string, to: string): Promise<void> {
  // Through the descriptor, where the system has names for them: by its own name it could be another file by now.
  const byDescriptor = `/proc/self/fd/${file.fd}`;
  const opened = existsSync(byDescriptor) ? byDescriptor : source;
  try {
    await copyFile(opened, to, fs.COPYFILE_FICLONE_FORCE | fs.COPYFILE_EXCL);
    return;
  } catch {
    // No shared blocks here.
  }
  const { nlink, uid, ino, dev } = await file.stat();
  // An engine that runs as another user could write to its own file for as long as it likes.
  if (nlink === 1 && (process.getuid === undefined || uid === process.getuid())) {
    try {
      await link(source, to);
      const made = await lstat(to);
      if (made.ino === ino && made.dev === dev) return;
      await unlink(to);
    } catch {
      // Another volume, or a file system without links.
    }
  }
  await copyFile(opened, to, fs.COPYFILE_EXCL);
}

/** Undefined: it is larger. Read without a turn of the thread pool for each step. */
function smallFile(path: string): Buffer | undefined {
  let fd: number;
  try {
    fd = openSync(path, PLAINLY);
  } catch (error) {
    throw meaningOf(error);
  }
  try {
    const found = fstatSync(fd);
    if (!found.isFile()) throw notAFile();
    if (found.size > SMALL_BYTES) return undefined;
    const buffer = Buffer.allocUnsafe(found.size);
    return buffer.subarray(0, readSync(fd, buffer, 0, found.size, 0));
  } finally {
    closeSync(fd);
  }
}

async function openPlainly(path: string): Promise<FileHandle> {
  const file = await open(path, PLAINLY).catch((error: unknown) => {
    throw meaningOf(error);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw notAFile();
}

function meaningOf(error: unknown): unknown {
  return NO_FILE.has((error as NodeJS.ErrnoException).code ?? '') ? notAFile() : error;
}

function notAFile(): JobsError {
  return new JobsError('data_loss', 'RESULT_NOT_A_FILE', 'there is no plain file where the result should be');
}
