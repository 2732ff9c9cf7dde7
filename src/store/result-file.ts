// A result as its engine left it, in a folder that the engine's process can still write to. Always true here: what is read is a plain file of that folder, and never
// what a link leads to, whatever is swapped meanwhile.
import { createHash } from 'node:crypto';
import { closeSync, constants as fs, fstatSync, openSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { JobsError } from '../jobs/errors.ts';

/** Read at once of larger ones. */
const READ_BYTES = 512 * 1024;
/** A link is not followed, and a pipe is not waited on. */
const PLAINLY = fs.O_RDONLY | (fs.O_NOFOLLOW ?? 0) | (fs.O_NONBLOCK ?? 0);
/** What opening ends with where there is nothing, a link, or no file. */
const NO_FILE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EMLINK', 'EISDIR', 'ENXIO', 'ENODEV']);

/** Throws RESULT_NOT_A_FILE where there is no plain file. The caller closes it. */
export async function openPlainly(path: string): Promise<FileHandle> {
  const file = await open(path, PLAINLY).catch((error: unknown) => {
    throw meaningOf(error);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw notAFile();
}

/** As `openPlainly`, without a turn of the thread pool for each step. */
export function openPlainlySync(path: string): { readonly fd: number; readonly size: number } {
  let fd: number;
  try {
    fd = openSync(path, PLAINLY);
  } catch (error) {
    throw meaningOf(error);
  }
  const found = fstatSync(fd);
  if (found.isFile()) return { fd, size: found.size };
  closeSync(fd);
  throw notAFile();
}

/** An open file's first bytes, each chunk good until the next is asked for: a fresh buffer for each read costs as much as hashing it. */
export async function* chunksOf(file: FileHandle, bytes: number): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(READ_BYTES, bytes - at), at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** So many bytes of the file at `path`, as `chunksOf` gives them; throws RESULT_CHANGED at their end where they do not have the digest. */
export async function* knownChunks(
  path: string,
  { sha256, bytes }: { readonly sha256: string; readonly bytes: number },
): AsyncGenerator<Uint8Array> {
  const file = await openPlainly(path);
  try {
    const hash = createHash('sha256');
    for await (const chunk of chunksOf(file, bytes)) {
      hash.update(chunk);
      yield chunk;
    }
    if (hash.digest('hex') !== sha256) throw changed();
  } finally {
    await file.close();
  }
}

export function changed(): JobsError {
  return new JobsError('data_loss', 'RESULT_CHANGED', 'the result was written to after it was said to be done');
}

function meaningOf(error: unknown): unknown {
  return NO_FILE.has((error as NodeJS.ErrnoException).code ?? '') ? notAFile() : error;
}

function notAFile(): JobsError {
  return new JobsError('data_loss', 'RESULT_NOT_A_FILE', 'there is no plain file where the result should be');
}
