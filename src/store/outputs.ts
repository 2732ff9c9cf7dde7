// Copies of results where callers want them: in a folder that the operator lists, or on S3 (outputs-s3.ts). Always true here: nothing is written
// outside of a listed folder, whatever links or swaps are on the way; what is there already stays as it is; a copy has its name only when it is whole.
import { createHash, randomUUID } from 'node:crypto';
import { closeSync, createReadStream, existsSync, constants as fs, fstatSync, fsyncSync, linkSync, openSync, renameSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { isAbsolute, relative, resolve, sep } from 'node:path';
import { JobsError, type Violation } from '../jobs/errors.ts';
import type { Failure } from '../jobs/job.ts';
import { diskFull } from './blobs-local.ts';
import type { CopiesUnderWay } from './copies-under-way.ts';
import { type FileUnder, type Folder, isLinkInTheWay, openFolder } from './folders-below.ts';
import { knownChunks } from './result-file.ts';

/** What is copied. */
export interface Copy {
  readonly jobId: string;
  /** A file that nobody writes to any more. */
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly mediaType: string;
  /** For places that name a folder only. */
  readonly filename: string;
}

export interface Delivery {
  readonly signal: AbortSignal;
  readonly progress?: (done: number, total: number) => void;
}

export interface Outputs {
  /** At submit: what is wrong with a place, as far as its letters tell. */
  check(uri: string): Refusal | undefined;
  /**
   * Writes the copy, durably and as a whole, and answers where it lies; the same copy twice is one. A failure that no further try mends is answered;
   * a place that is full or away throws `JobsError` exhausted or unavailable.
   */
  deliver(uri: string, copy: Copy, delivery: Delivery): Promise<{ readonly uri: string } | Failure>;
}

export type Refusal = Pick<Violation, 'reason' | 'description'>;

/** By what a URI begins with. Undefined: that kind is not configured. */
export function outputs(kinds: { readonly folders: Outputs | undefined; readonly s3: Outputs | undefined }): Outputs {
  const of = (uri: string) => {
    const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(uri)?.[1]?.toLowerCase();
    return scheme === undefined ? kinds.folders : scheme === 's3' ? kinds.s3 : undefined;
  };
  const taken = [kinds.s3 && 's3://bucket/key', kinds.folders && 'a path under an output folder'].filter(Boolean).join(' or ');
  const refusal = {
    reason: 'OUTPUT_NOT_ALLOWED',
    description: taken
      ? `a result is copied to ${taken} here, and nowhere else`
      : 'results are not copied anywhere here: fetch it, or ask the operator',
  };
  return {
    check: (uri) => {
      const kind = of(uri);
      return kind ? kind.check(uri) : refusal;
    },
    deliver: async (uri, copy, delivery) => (await of(uri)?.deliver(uri, copy, delivery)) ?? failureOf(refusal),
  };
}

export function failureOf({ reason, description }: Refusal): Failure {
  return { reason, message: `output_uri: ${description}`, retryable: false };
}

const MAX_NAME_BYTES = 255;
/** Names of copies that are on their way. */
const UNDER_WAY = '.ffjobs-';

/** Paths under `roots`, which are there; relative ones under the first. Symbolic links below a root are not followed. */
export function folderOutputs(roots: readonly string[], underWay: CopiesUnderWay): Outputs {
  return {
    check: (uri) => {
      const target = targetOf(roots, uri, 'name');
      return 'root' in target ? undefined : target;
    },
    async deliver(uri, copy, delivery) {
      const target = targetOf(roots, uri, copy.filename);
      if (!('root' in target)) return failureOf(target);
      try {
        const failure = await writeCopy(target, copy, delivery, underWay);
        return failure ?? { uri: uri.endsWith('/') ? `${uri}${copy.filename}` : uri };
      } catch (error) {
        delivery.signal.throwIfAborted();
        throw meaningOf(error);
      }
    },
  };
}

/** Where a path leads by its letters alone. */
function targetOf(roots: readonly string[], uri: string, filename: string): FileUnder | Refusal {
  const wrong = (description: string): Refusal => ({ reason: 'INVALID_OUTPUT_PATH', description });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (uri === '' || /[\x00-\x1f\x7f\\]/.test(uri) || !uri.isWellFormed())
    return wrong('a path has no backslashes and no control characters');
  const path = uri.endsWith('/') ? uri + filename : uri;
  const parts = (isAbsolute(path) ? path.slice(1) : path).split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..' || part.startsWith(UNDER_WAY))) {
    return wrong("a path has no '.', '..' or empty parts, and none that begins as the service's own do");
  }
  if (parts.some((part) => Buffer.byteLength(part) > MAX_NAME_BYTES)) return wrong(`a part of a path has at most ${MAX_NAME_BYTES} bytes`);
  const root = isAbsolute(path) ? roots.find((one) => isUnder(one, path)) : roots[0];
  if (root === undefined) return { reason: 'OUTPUT_NOT_ALLOWED', description: 'this is not under a folder that results are copied to' };
  const below = isAbsolute(path) ? relative(resolve(root), path).split(sep) : parts;
  return { root, folders: below.slice(0, -1), name: below.at(-1)! };
}

function isUnder(root: string, path: string): boolean {
  const way = relative(resolve(root), path);
  return way !== '' && !isAbsolute(way) && way.split(sep)[0] !== '..';
}

const LINK_IN_THE_WAY: Refusal = { reason: 'OUTPUT_NOT_ALLOWED', description: 'a part of this path is a link or a file' };

async function writeCopy(
  { root, folders, name }: FileUnder,
  copy: Copy,
  delivery: Delivery,
  underWay: CopiesUnderWay,
): Promise<Failure | undefined> {
  try {
    using folder = openFolder(root, folders, 'make');
    const part = `${UNDER_WAY}${copy.jobId}.${randomUUID()}.part`;
    const end = await underWay.begin(copy.jobId, { root, folders, name: part });
    const temporary = folder.at(part);
    try {
      const file = await open(temporary, fs.O_WRONLY | fs.O_CREAT | fs.O_EXCL | fs.O_NOFOLLOW, 0o644);
      try {
        await writeAll(file, copy, delivery);
        await file.sync();
      } finally {
        await file.close();
      }
      return await giveName(folder, temporary, name, copy);
    } finally {
      await rm(temporary, { force: true });
      await end();
    }
  } catch (error) {
    if (isLinkInTheWay(error)) return failureOf(LINK_IN_THE_WAY);
    throw error;
  }
}

async function writeAll(file: FileHandle, copy: Copy, { signal, progress }: Delivery): Promise<void> {
  let done = 0;
  for await (const chunk of knownChunks(copy.path, copy)) {
    signal.throwIfAborted();
    await file.writeFile(chunk);
    done += chunk.length;
    progress?.(done, copy.bytes);
  }
}

/** A second name fails where there is one already, which a new name for the first would not. */
async function giveName(folder: Folder, temporary: string, name: string, copy: Copy): Promise<Failure | undefined> {
  const path = folder.at(name);
  try {
    linkSync(temporary, path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return (await isCopy(path, copy)) ? undefined : exists();
    // A file system without links: looked at first, then.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'ENOSYS') throw error;
    if (existsSync(path)) return (await isCopy(path, copy)) ? undefined : exists();
    renameSync(temporary, path);
  }
  fsyncSync(folder.fd);
  return undefined;
}

export function exists(): Failure {
  const message = 'output_uri: there is something else already, and it is not overwritten; name a new place';
  return { reason: 'OUTPUT_EXISTS', message, retryable: false };
}

/** Whether what lies there is this very copy, from a try whose end was not written down. */
async function isCopy(path: string, { bytes, sha256 }: Copy): Promise<boolean> {
  let fd: number;
  try {
    fd = openSync(path, fs.O_RDONLY | fs.O_NOFOLLOW | fs.O_NONBLOCK);
  } catch {
    return false;
  }
  try {
    const found = fstatSync(fd);
    if (!found.isFile() || found.size !== bytes) return false;
    const hash = createHash('sha256');
    for await (const chunk of createReadStream('', { fd, autoClose: false, start: 0 })) hash.update(chunk as Buffer);
    return hash.digest('hex') === sha256;
  } finally {
    closeSync(fd);
  }
}

/** What may pass or be mended by the operator is worth another try. */
function meaningOf(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined || error instanceof JobsError) return error;
  const full = diskFull(error);
  if (full instanceof JobsError) {
    return new JobsError('exhausted', 'STORAGE_FULL', 'the disk of the output folder is full', { retryAfterSeconds: 30, cause: error });
  }
  return new JobsError(
    'unavailable',
    'STORE_UNAVAILABLE',
    'the output folder cannot be written: its operator finds the reason in the log',
    {
      retryAfterSeconds: 30,
      cause: error,
    },
  );
}
