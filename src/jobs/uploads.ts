// What an upload is called, and where a request names one. The names that callers give to files are for people only: they never become paths,
// and what could deceive a reader (control characters, changes of direction, folders) is taken out of them.
import { JobsError } from './errors.ts';
import type { JobRequest } from './job.ts';

const SCHEME = 'upload://';
const ID = /^[0-9a-f]{32}$/;
const MAX_NAME = 255;

export function uploadUri(id: string): string {
  return `${SCHEME}${id}`;
}

/** Id in `upload://ID`; undefined where that cannot be one of ours. */
export function uploadIdOf(reference: string): string | undefined {
  if (reference.slice(0, SCHEME.length).toLowerCase() !== SCHEME) return undefined;
  const id = reference.slice(SCHEME.length);
  return isUploadId(id) ? id : undefined;
}

export function isUploadId(id: string): boolean {
  return ID.test(id);
}

/** The uploads that a request names, each once, with the first field that names it. */
export function uploadsOf(request: JobRequest): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const add = (reference: string | undefined, field: string) => {
    const id = reference === undefined ? undefined : uploadIdOf(reference);
    if (id !== undefined && !found.has(id)) found.set(id, field);
  };
  for (const [i, reference] of request.sourceImages.entries()) add(reference, `source_images[${i}]`);
  add(request.sourceAudio, 'source_audio');
  add(request.target.value, request.target.case === 'targetVideo' ? 'target_video' : 'target_image');
  return found;
}

/** What is wrong with a reference to an upload that is not there for its caller. */
export function noSuchUpload(reference: string): string {
  return `there is no upload ${JSON.stringify(reference)}, or it has expired: upload the file again`;
}

/** A caller's name for a file, as people are shown it. */
export function displayName(name: string): string {
  const plain = (name.toWellFormed().split(/[/\\]/).at(-1) ?? '')
    // Controls, line and paragraph separators, marks and overrides of direction, zero-width characters, the byte order mark.
    .replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '')
    .trim();
  return [...plain].slice(0, MAX_NAME).join('');
}

/** A request names an upload that no job of its tenant may name. */
export function uploadRefused(id: string, field: string): JobsError {
  return JobsError.invalid([{ field, reason: 'UPLOAD_NOT_FOUND', description: noSuchUpload(uploadUri(id)) }]);
}

export function uploadNotFound(id: string): JobsError {
  return new JobsError('not_found', 'UPLOAD_NOT_FOUND', noSuchUpload(uploadUri(id)));
}

export function tooManyUploads(has: number, most: number): JobsError {
  return overQuota(`${has} uploads are kept, and ${most} may be`, { limit_uploads: String(most) });
}

export function tooManyUploadBytes(has: number, more: number, most: number): JobsError {
  return overQuota(`${has} bytes of uploads are kept, and with these ${more} they would be more than the ${most} that may be`, {
    limit_bytes: String(most),
  });
}

function overQuota(what: string, metadata: Readonly<Record<string, string>>): JobsError {
  return new JobsError('exhausted', 'QUOTA_EXCEEDED', `${what}: remove some, or wait until some expire`, {
    retryAfterSeconds: 60,
    metadata,
  });
}
