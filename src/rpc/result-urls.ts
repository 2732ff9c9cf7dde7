// Signed URLs of results. Always true here: a URL is made when a job is shown, is never stored, and ends before what it leads to.
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { Provenance } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type Job, JobStatus } from '../jobs/job.ts';
import type { BlobStore } from '../jobs/ports.ts';
import { Recent } from '../recent.ts';

export interface ResultUrls {
  readonly blobs: Pick<BlobStore, 'signedUrl'>;
  readonly resultUrlTtlMs: number;
  /** Base of URLs handed out. */
  readonly baseUrl: () => string;
}

/** How long a signed URL is handed out again before a new one is made; the least of this and a tenth of its life. */
const REUSE_URL_MS = 60_000;

/** A job as a caller sees it: with a signed URL of its result, minted when it is read and never stored. */
export function presenter(options: ResultUrls): (job: Job) => Job | Promise<Job> {
  const reuseMs = Math.min(REUSE_URL_MS, options.resultUrlTtlMs / 10);
  // One view for all who read the same job within that time, so that whoever serialises it does so once.
  const views = new WeakMap<Job, { readonly view: Job; readonly untilMs: number }>();
  return (job) => {
    if (!job.result) return job;
    const nowMs = Date.now();
    const known = views.get(job);
    if (known && nowMs < known.untilMs) return known.view;
    if (job.status !== JobStatus.SUCCEEDED || hasExpired(job)) return job;
    const expiresMs = urlExpiry(options, job);
    return signedUrl(options, job, expiresMs).then((resultUrl) => {
      const view = { ...job, resultUrl, provenance: withoutSidecar(job.provenance) };
      views.set(job, { view, untilMs: Math.min(nowMs + reuseMs, expiresMs) });
      return view;
    });
  };
}

/** A manifest that lies beside its file is asked for by itself: it is larger than the rest of a job. */
function withoutSidecar(provenance: Provenance | undefined): Provenance | undefined {
  return provenance && provenance.sidecar.length > 0 ? { ...provenance, sidecar: new Uint8Array() } : provenance;
}

/** When the result's time is up, whether it has been swept yet or not. One that was purged before has no such time any more. */
export function hasExpired({ resultExpireTime, purgedAt }: Job): boolean {
  return resultExpireTime !== undefined && timestampMs(resultExpireTime) <= (purgedAt ? timestampMs(purgedAt) : Date.now());
}

/** A URL does not outlive what it leads to. Milliseconds since 1970. */
export function urlExpiry({ resultUrlTtlMs }: ResultUrls, { resultExpireTime }: Job): number {
  const wanted = Date.now() + resultUrlTtlMs;
  return resultExpireTime ? Math.min(wanted, timestampMs(resultExpireTime)) : wanted;
}

export async function signedUrl(options: ResultUrls, job: Job, expiresMs: number): Promise<string> {
  const { sha256, mediaType } = job.result!;
  const filename = `${job.jobId}.${EXTENSIONS[mediaType] ?? 'bin'}`;
  return absolute(await options.blobs.signedUrl(sha256, { expiresMs, filename, mediaType }), options.baseUrl());
}

/** Of the bases seen last, of which there is one at a time: to parse a URL is dearer than to sign it. */
const origins = new Recent<string>(8);

/** What a blob store gives: a path of this service, which stands as it is, or a URL. */
function absolute(signed: string, base: string): string {
  if (!signed.startsWith('/')) return new URL(signed, base).href;
  let origin = origins.get(base);
  if (origin === undefined) {
    ({ origin } = new URL(base));
    origins.set(base, origin);
  }
  return origin + signed;
}

const EXTENSIONS: Readonly<Record<string, string>> = {
  'image/jpeg': 'jpg',
  'image/png': 'png',
  'image/webp': 'webp',
  'video/mp4': 'mp4',
  'video/webm': 'webm',
  'video/quicktime': 'mov',
  'application/zip': 'zip',
};
