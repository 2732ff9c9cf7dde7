// Media references: what a caller may name as input, by scheme, and the local files under the input root. Always true here: a file is judged
// by its opened descriptor and not by its name, so nothing outside the root is ever read, whatever is swapped while we look. The looks are
// synchronous: each costs microseconds on a local disk, and a turn of the thread pool ten times that.
import { hash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  createWriteStream,
  constants as fs,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { copyFile, link, rm } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { JobsError, type Violation } from '../jobs/errors.ts';
import type { Failure } from '../jobs/job.ts';
import { mediaTypeOf, SNIFF_BYTES } from './sniff.ts';

/** Takes references of some schemes. `file` stands for references without a scheme. */
export interface MediaResolver {
  readonly schemes: readonly string[];
  /** At submit: what is wrong with a tenant's reference, as far as that can be told without fetching. `field` is its path in the request. */
  check(reference: string, field: string, tenant: string): Promise<Violation | undefined>;
  /**
   * At prepare: writes the file to `toPath`, which must not be there. Answers why it cannot be had, when that is the reference's fault;
   * throws when it is ours, or with the signal's reason. Leaves nothing behind then.
   */
  fetch(reference: string, toPath: string, signal: AbortSignal, observer?: FetchObserver): Promise<Failure | undefined>;
  /** The file of a job's reference, for showing it; undefined: it is gone. Only of schemes whose files are held here. */
  held?(reference: string): Promise<HeldFile | undefined>;
}

export interface HeldFile {
  readonly bytes: number;
  /** Told by its content. */
  readonly mediaType: string;
  /** From the first byte on; what it holds is let go when the reader leaves. */
  read(): AsyncIterable<Uint8Array>;
}

/** Told what a fetch learns on its way. */
export interface FetchObserver {
  /** Bytes that have come so far and, when it is known, of how many. Falls when a transfer begins anew. */
  progress(done: number, total: number | undefined): void;
  /** SHA-256 of the whole file in lower-case hex, from those that see all bytes anyway; before `fetch` ends well. */
  digested(sha256: string): void;
  /** The first bytes of the file, `SNIFF_BYTES` of them where there are so many, from those that have them at hand anyway; before `fetch` ends well. */
  began?(head: Uint8Array): void;
}

const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;
/** Longest reference of the contract. */
const MAX_LENGTH = 4096;

/** One resolver of all their schemes. Two of one scheme are a defect. */
export function mediaReferences(resolvers: readonly MediaResolver[]): MediaResolver {
  const byScheme = new Map<string, MediaResolver>();
  for (const resolver of resolvers) {
    for (const scheme of resolver.schemes) {
      if (byScheme.has(scheme)) throw new Error(`two resolvers for the scheme '${scheme}'`);
      byScheme.set(scheme, resolver);
    }
  }
  const schemes = [...byScheme.keys()];
  const resolverOf = (reference: string) => {
    const scheme = SCHEME.exec(reference)?.[1]?.toLowerCase();
    return scheme === 'file' ? undefined : byScheme.get(scheme ?? 'file');
  };
  const unsupported = (reference: string) => {
    const scheme = SCHEME.exec(reference)?.[1];
    if (scheme?.toLowerCase() === 'file') return 'give the path alone, without file://';
    const taken = schemes.map((one) => (one === 'file' ? 'a path under the input root' : `${one}://`)).join(', ');
    return scheme === undefined ? `local paths are not taken here; taken: ${taken}` : `${scheme}:// is not taken here; taken: ${taken}`;
  };
  return {
    schemes,
    async check(reference, field, tenant) {
      const resolver = resolverOf(reference);
      if (resolver) return await resolver.check(reference, field, tenant);
      return { field, reason: 'UNSUPPORTED_SCHEME', description: unsupported(reference) };
    },
    async fetch(reference, toPath, signal, observer) {
      const resolver = resolverOf(reference);
      if (resolver) return await resolver.fetch(reference, toPath, signal, observer);
      return { reason: 'INPUT_NOT_READABLE', message: unsupported(reference), retryable: false };
    },
    held: async (reference) => await resolverOf(reference)?.held?.(reference),
  };
}

/** Paths under `root`, relative or absolute. Symbolic links may lead anywhere under it. Percent signs and the like are plain characters. */
export function localFiles(root: string): MediaResolver {
  return {
    schemes: ['file'],
    async check(reference, field) {
      const opened = openUnder(root, reference);
      if (typeof opened !== 'number') return { field, ...opened };
      closeSync(opened);
      return undefined;
    },
    async fetch(reference, toPath, signal, observer) {
      const opened = openUnder(root, reference);
      if (typeof opened === 'number') {
        const whole = await copyOpened(opened, toPath, signal);
        if (whole) {
          observer?.began?.(whole.subarray(0, SNIFF_BYTES));
          observer?.digested(hash('sha256', whole, 'hex'));
        }
        return undefined;
      }
      const { reason, description } = opened;
      return {
        reason: reason === 'INPUT_NOT_FOUND' ? reason : 'INPUT_NOT_READABLE',
        message: `${printable(reference)}: ${description}`,
        retryable: false,
      };
    },
    async held(reference) {
      const opened = openUnder(root, reference);
      if (typeof opened !== 'number') return undefined;
      try {
        const head = Buffer.alloc(SNIFF_BYTES);
        const mediaType = mediaTypeOf(head.subarray(0, readSync(opened, head, 0, head.length, 0))) ?? 'application/octet-stream';
        const { size: bytes } = fstatSync(opened);
        return { bytes, mediaType, read: () => readUnder(root, reference, bytes) };
      } finally {
        closeSync(opened);
      }
    },
  };
}

const READ_BYTES = 256 * 1024;

/** Judged again when it is opened; never more of it than was told. */
async function* readUnder(root: string, reference: string, bytes: number): AsyncGenerator<Uint8Array> {
  const fd = openUnder(root, reference);
  if (typeof fd !== 'number' || bytes === 0) return;
  yield* createReadStream('', { fd, start: 0, end: bytes - 1, highWaterMark: READ_BYTES }) as AsyncIterable<Uint8Array>;
}

/** Files up to this size are copied by one read and one write. */
const SMALL_BYTES = 256 * 1024;

/** Copies an opened file, at no cost where the file system can share its blocks, and closes it. Answers the bytes of a small one, which were all read. */
export async function copyOpened(fd: number, toPath: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
  try {
    signal.throwIfAborted();
    const { size } = fstatSync(fd);
    if (size <= SMALL_BYTES) {
      const buffer = Buffer.allocUnsafe(size);
      const bytes = buffer.subarray(0, readSync(fd, buffer, 0, size, 0));
      writeFileSync(toPath, bytes, { flag: 'wx' });
      return bytes;
    }
    try {
      // Through the descriptor: by its name it could be another file by now.
      await copyFile(`/proc/self/fd/${fd}`, toPath, fs.COPYFILE_FICLONE_FORCE | fs.COPYFILE_EXCL);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
      await copyBytes(fd, toPath, signal);
    }
    return undefined;
  } finally {
    closeSync(fd);
  }
}

async function copyBytes(fd: number, toPath: string, signal: AbortSignal): Promise<void> {
  try {
    await pipeline(createReadStream('', { fd, start: 0, autoClose: false }), createWriteStream(toPath, { flags: 'wx' }), { signal });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') await rm(toPath, { force: true });
    signal.throwIfAborted();
    throw storageFull(error, 'the disk of the work folder is full');
  }
}

/** What to throw for an error of writing: a full disk is told to the caller as `message`, who may try again. */
export function storageFull(error: unknown, message: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new JobsError('exhausted', 'STORAGE_FULL', message, { retryAfterSeconds: 30, cause: error });
}

/** A second name for a file of ours that nobody changes any more, or a copy where there can be none. */
export async function linkOrCopy(fromPath: string, toPath: string, signal: AbortSignal): Promise<void> {
  try {
    await link(fromPath, toPath);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
    await copyOpened(openSync(fromPath, 'r'), toPath, signal);
  }
}

type Refusal = Pick<Violation, 'reason' | 'description'>;

const refusal = (reason: string, description: string): Refusal => ({ reason, description });
const NOT_A_FILE = refusal('NOT_A_FILE', 'this is not a plain file');
const MANY_NAMES = refusal(
  'OUTSIDE_INPUT_ROOT',
  'this file has another name (a hard link), which may lie outside of the input root; put a copy of it here',
);
const OUTSIDE = refusal('OUTSIDE_INPUT_ROOT', 'this leads out of the input root; give a path under it');

/** Descriptor of the file under `root` that a reference names, opened for reading; the caller closes it. */
function openUnder(root: string, reference: string): number | Refusal {
  const path = lexically(root, reference);
  if (typeof path !== 'string') return path;
  let fd: number;
  try {
    // A pipe or a device is not even opened, unless it is swapped in this instant; then it is opened without waiting and refused below.
    if (!statSync(path).isFile()) return NOT_A_FILE;
    fd = openSync(path, fs.O_RDONLY | (fs.O_NONBLOCK ?? 0));
  } catch (error) {
    return refusalOf(error);
  }
  let verdict: Refusal | undefined;
  try {
    verdict = judge(root, path, fd);
  } catch (error) {
    closeSync(fd);
    return refusalOf(error);
  }
  if (verdict === undefined) return fd;
  closeSync(fd);
  return verdict;
}

/** Where a reference points by its letters alone, which must be under the root before the disk is asked anything. */
function lexically(root: string, reference: string): string | Refusal {
  if (reference.includes('\0')) return refusal('INVALID_PATH', 'a path has no NUL character');
  if (reference === '') return refusal('INVALID_PATH', 'a path is not empty');
  if (Buffer.byteLength(reference) > MAX_LENGTH) return refusal('INVALID_PATH', `a path has at most ${MAX_LENGTH} bytes`);
  if (reference.split(/[/\\]/).includes('..')) return refusal('INVALID_PATH', "a path has no '..' in it");
  const path = isAbsolute(reference) ? resolve(reference) : join(root, reference);
  return isUnder(resolve(root), path) ? path : OUTSIDE;
}

function judge(root: string, path: string, fd: number): Refusal | undefined {
  const found = fstatSync(fd);
  const real = realPathOf(path, fd);
  if (real === undefined || !isUnder(realpathSync.native(root), real)) return OUTSIDE;
  if (!found.isFile()) return NOT_A_FILE;
  // Where its other names are nobody can tell.
  if (found.nlink > 1) return MANY_NAMES;
  if (found.size === 0) return refusal('EMPTY_FILE', 'this file is empty');
  return undefined;
}

/** The real path of what is open. Where the system cannot tell, the name's, if it still is the same file and no link. */
function realPathOf(path: string, fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    const real = realpathSync.native(path);
    const [named, opened] = [lstatSync(real), fstatSync(fd)];
    return named.ino === opened.ino && named.dev === opened.dev ? real : undefined;
  }
}

function isUnder(root: string, path: string): boolean {
  const way = relative(root, path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

function refusalOf(error: unknown): Refusal {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return refusal('INPUT_NOT_FOUND', 'there is no such file under the input root');
    case 'EACCES':
    case 'EPERM':
      return refusal('INPUT_NOT_READABLE', 'the service may not read this file; check its owner and mode');
    case 'ELOOP':
      return refusal('INVALID_PATH', 'too many symbolic links');
    case 'ENAMETOOLONG':
      return refusal('INVALID_PATH', 'a name in this path is too long');
    case 'ENXIO':
    case 'ENODEV':
      return NOT_A_FILE;
    default:
      throw error;
  }
}

/** Control characters would garble logs and terminals. */
function printable(reference: string): string {
  return JSON.stringify(reference).slice(1, -1);
}
