// A job's inputs as local files for the engine: fetched in parallel into its own folder, told apart by content, examined, under names that the
// service chose. No name or path of a caller ever reaches the engine, and no file that was not examined.
import { createHash, hash as hashOf } from 'node:crypto';
import { closeSync, createReadStream, openSync, readFileSync, readSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Failure, JobRequest } from '../jobs/job.ts';
import type { Facts, Kind, Probe } from './probe.ts';
import type { MediaResolver } from './references.ts';
import { mediaTypeOf, SNIFF_BYTES } from './sniff.ts';

export interface Inputs {
  readonly sourcePaths: readonly string[];
  readonly sourceAudioPath: string;
  readonly targetPath: string;
  readonly targetType: string;
  /** SHA-256 of the target, the sources in order, and the sound if there is one. */
  readonly digests: readonly string[];
  /** Media types, likewise. */
  readonly types: readonly string[];
  /** Undefined: nothing is examined here. */
  readonly targetFacts: Facts | undefined;
}

export interface FetchingOptions {
  readonly resolver: MediaResolver;
  /** Undefined: the engine takes files as they come. */
  readonly probe: Probe | undefined;
  /** Bytes that have come of all inputs that tell how long they are. Inputs at hand tell nothing. */
  readonly report?: (done: number, total: number) => void;
}

interface File {
  readonly path: string;
  readonly type: string;
  readonly digest: string;
  readonly facts: Facts | undefined;
}

const EXTENSIONS: Readonly<Record<string, string>> = {
  'image/jpeg': 'jpg',
  'image/png': 'png',
  'image/webp': 'webp',
  'video/mp4': 'mp4',
  'video/quicktime': 'mov',
  'video/webm': 'webm',
  'video/x-matroska': 'mkv',
  'video/x-msvideo': 'avi',
  'audio/wav': 'wav',
  'audio/mpeg': 'mp3',
  'audio/mp4': 'm4a',
  'audio/flac': 'flac',
  'audio/ogg': 'ogg',
};

/** Fetches what `request` names into `folder`. A failure is the caller's to read; anything else is thrown. */
export async function fetchInputs(
  options: FetchingOptions,
  request: JobRequest,
  folder: string,
  signal: AbortSignal,
): Promise<Inputs | Failure> {
  const leaving = new AbortController();
  const either = AbortSignal.any([signal, leaving.signal]);
  const transfers = new Transfers(options.report);
  const one = async (reference: string, field: string, name: string, kind: Kind): Promise<File | Failure> => {
    try {
      const fetched = await fetchOne(options, reference, { field, name, kind }, folder, either, transfers);
      // One input that cannot be had makes the others pointless.
      if ('reason' in fetched) leaving.abort(new Error(fetched.message));
      return fetched;
    } catch (error) {
      leaving.abort(error);
      throw error;
    }
  };
  const kind: Kind = request.target.case === 'targetVideo' ? 'video' : 'image';
  const settled = await Promise.allSettled([
    one(request.target.value ?? '', kind === 'video' ? 'target_video' : 'target_image', 'target', kind),
    ...request.sourceImages.map((reference, i) => one(reference, `source_images[${i}]`, `source-${i}`, 'image')),
    ...(request.sourceAudio === undefined ? [] : [one(request.sourceAudio, 'source_audio', 'audio', 'audio')]),
  ]);
  const failure = settled.find((each) => each.status === 'fulfilled' && 'reason' in each.value);
  if (failure?.status === 'fulfilled') return failure.value as Failure;
  const files = settled.map((each) => {
    if (each.status === 'rejected') throw signal.aborted ? signal.reason : (leaving.signal.reason ?? each.reason);
    return each.value as File;
  });
  const sources = files.slice(1, 1 + request.sourceImages.length);
  return {
    sourcePaths: sources.map(({ path }) => path),
    sourceAudioPath: request.sourceAudio === undefined ? '' : files.at(-1)!.path,
    targetPath: files[0]!.path,
    targetType: files[0]!.type,
    digests: files.map(({ digest }) => digest),
    types: files.map(({ type }) => type),
    targetFacts: files[0]!.facts,
  };
}

/** The bytes of all transfers of a job together. */
class Transfers {
  readonly #report: FetchingOptions['report'];
  readonly #known = new Map<string, { readonly done: number; readonly total: number }>();

  constructor(report: FetchingOptions['report']) {
    this.#report = report;
  }

  progress(name: string, done: number, total: number | undefined): void {
    if (total === undefined) return;
    this.#known.set(name, { done, total });
    const all = [...this.#known.values()];
    this.#report?.(
      all.reduce((sum, each) => sum + each.done, 0),
      all.reduce((sum, each) => sum + each.total, 0),
    );
  }
}

async function fetchOne(
  { resolver, probe }: FetchingOptions,
  reference: string,
  { field, name, kind }: { field: string; name: string; kind: Kind },
  folder: string,
  signal: AbortSignal,
  transfers: Transfers,
): Promise<File | Failure> {
  const about = (failure: Failure): Failure => ({ ...failure, message: `${field}: ${failure.message}` });
  const unnamed = join(folder, name);
  let digest: string | undefined;
  let type: string | undefined;
  const failure = await resolver.fetch(reference, unnamed, signal, {
    progress: (done, total) => transfers.progress(name, done, total),
    digested: (sha256) => {
      digest = sha256;
    },
    began: (head) => {
      type = mediaTypeOf(head);
    },
  });
  if (failure) return about(failure);
  type ??= typeOf(unnamed);
  if (type === undefined) {
    return about({ reason: 'INPUT_NOT_READABLE', message: 'this is in no format that the service knows', retryable: false });
  }
  const found = type.slice(0, type.indexOf('/'));
  if (found !== kind && !(kind === 'audio' && found === 'video')) {
    return about({ reason: 'INPUT_WRONG_KIND', message: `${WORDS[kind]} is wanted here, and this is ${type}`, retryable: false });
  }
  digest ??= await digestOf(unnamed, signal);
  const verdict = await probe?.probe(unnamed, { digest, kind, mediaType: type }, signal);
  if (verdict && 'reason' in verdict) return about(verdict);
  const path = `${unnamed}.${EXTENSIONS[type]}`;
  renameSync(unnamed, path);
  return { path, type, digest, facts: verdict };
}

const WORDS: Readonly<Record<Kind, string>> = { image: 'a picture', video: 'a video', audio: 'sound' };

/** Of a file in the job's own folder, which is on a local disk: a look costs less than a turn of the thread pool. */
function typeOf(path: string): string | undefined {
  const fd = openSync(path, 'r');
  try {
    const head = Buffer.allocUnsafe(SNIFF_BYTES);
    return mediaTypeOf(head.subarray(0, readSync(fd, head, 0, SNIFF_BYTES, 0)));
  } finally {
    closeSync(fd);
  }
}

/** Read in one go up to this size: a stream costs a job more than all else that is done to a small file. */
const SMALL_BYTES = 64 * 1024;

async function digestOf(path: string, signal: AbortSignal): Promise<string> {
  if (statSync(path).size <= SMALL_BYTES) return hashOf('sha256', readFileSync(path), 'hex');
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024, signal })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** The format of a result that a request does not name: the target's where the engine writes it, else the first that it writes. */
export function resultFormat(targetType: string, formats: readonly string[]): string {
  const own = EXTENSIONS[targetType];
  return own !== undefined && formats.includes(own) ? own : (formats[0] ?? '');
}
