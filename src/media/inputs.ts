// A job's inputs as local files for the engine: fetched in parallel into its own folder, told apart by content, under names that the service
// chose. No name or path of a caller ever reaches the engine.
import { closeSync, openSync, readSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { Failure, JobRequest } from '../jobs/job.ts';
import type { MediaResolver } from './references.ts';
import { mediaTypeOf, SNIFF_BYTES } from './sniff.ts';

export interface Inputs {
  readonly sourcePaths: readonly string[];
  readonly sourceAudioPath: string;
  readonly targetPath: string;
  readonly targetType: string;
}

type Kind = 'image' | 'video' | 'audio';

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
  resolver: MediaResolver,
  request: JobRequest,
  folder: string,
  signal: AbortSignal,
): Promise<Inputs | Failure> {
  const leaving = new AbortController();
  const either = AbortSignal.any([signal, leaving.signal]);
  const one = async (reference: string, field: string, name: string, kind: Kind): Promise<{ path: string; type: string } | Failure> => {
    try {
      const fetched = await fetchOne(resolver, reference, { field, name, kind }, folder, either);
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
    return each.value as { path: string; type: string };
  });
  const sources = files.slice(1, 1 + request.sourceImages.length);
  return {
    sourcePaths: sources.map(({ path }) => path),
    sourceAudioPath: request.sourceAudio === undefined ? '' : files.at(-1)!.path,
    targetPath: files[0]!.path,
    targetType: files[0]!.type,
  };
}

async function fetchOne(
  resolver: MediaResolver,
  reference: string,
  { field, name, kind }: { field: string; name: string; kind: Kind },
  folder: string,
  signal: AbortSignal,
): Promise<{ path: string; type: string } | Failure> {
  const unnamed = join(folder, name);
  const failure = await resolver.fetch(reference, unnamed, signal);
  if (failure) return { ...failure, message: `${field}: ${failure.message}` };
  const type = typeOf(unnamed);
  if (type === undefined) {
    return { reason: 'INPUT_NOT_READABLE', message: `${field}: this is in no format that the service knows`, retryable: false };
  }
  const found = type.slice(0, type.indexOf('/'));
  if (found !== kind && !(kind === 'audio' && found === 'video')) {
    return { reason: 'INPUT_WRONG_KIND', message: `${field}: ${WORDS[kind]} is wanted here, and this is ${type}`, retryable: false };
  }
  const path = `${unnamed}.${EXTENSIONS[type]}`;
  renameSync(unnamed, path);
  return { path, type };
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

/** The format of a result that a request does not name: the target's where the engine writes it, else the first that it writes. */
export function resultFormat(targetType: string, formats: readonly string[]): string {
  const own = EXTENSIONS[targetType];
  return own !== undefined && formats.includes(own) ? own : (formats[0] ?? '');
}
