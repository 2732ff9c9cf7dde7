// Copies of results in buckets that the operator lists. Always true here: an object that is there already stays as it is, unless an earlier try of
// the same job wrote it; what is written is whole.
import { HeadObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { JobsError } from '../jobs/errors.ts';
import type { Failure } from '../jobs/job.ts';
import { openClient, type S3Connection } from '../s3/client.ts';
import { isListed, placeOf, type S3Place } from '../s3/names.ts';
import { problemOf } from '../s3/problems.ts';
import { putObject } from '../s3/put.ts';
import { disposition } from './disposition.ts';
import { type Copy, type Delivery, exists, failureOf, type Outputs, type Refusal } from './outputs.ts';
import { knownChunks } from './result-file.ts';

export interface S3OutputsOptions {
  readonly connection: S3Connection;
  /** Those that copies may go to; `*`: all. */
  readonly buckets: readonly string[];
  /** Whether the caller may write this object at all, for rules such as a prefix for each tenant. */
  readonly mayWrite?: (bucket: string, key: string) => boolean;
  readonly idleMs?: number;
  readonly partBytes?: number;
}

const IDLE_MS = 60_000;

type Places = Pick<S3OutputsOptions, 'buckets' | 'mayWrite'>;

export interface S3Outputs extends Outputs, AsyncDisposable {
  /** The same, over the same connections, to other places: for a tenant among others. */
  within(places: Places): Outputs;
}

export function openS3Outputs(options: S3OutputsOptions): S3Outputs {
  const client = openClient(options.connection, options.idleMs ?? IDLE_MS);
  const within = (places: Places): Outputs => ({
    check: (uri) => {
      const place = allowedPlace(uri, 'name', places);
      return 'bucket' in place ? undefined : place;
    },
    async deliver(uri, copy, delivery) {
      const place = allowedPlace(uri, copy.filename, places);
      if (!('bucket' in place)) return failureOf(place);
      const failure = await write(client, place, copy, delivery, options).catch((error: unknown) => {
        delivery.signal.throwIfAborted();
        return meaningOf(error);
      });
      return failure ?? { uri: `s3://${place.bucket}/${place.key}` };
    },
  });
  return {
    ...within(options),
    within,
    async [Symbol.asyncDispose]() {
      client.destroy();
    },
  };
}

function allowedPlace(uri: string, filename: string, { buckets, mayWrite }: Places): S3Place | Refusal {
  const named = placeOf(uri);
  if (typeof named === 'string') return { reason: 'INVALID_S3_URI', description: named };
  const { bucket } = named;
  const key = named.key === '' || named.key.endsWith('/') ? named.key + filename : named.key;
  if (!isListed(bucket, buckets) || mayWrite?.(bucket, key) === false) {
    return { reason: 'OUTPUT_NOT_ALLOWED', description: 'this place is not one that results are copied to' };
  }
  return { bucket, key };
}

async function write(
  client: S3Client,
  place: S3Place,
  copy: Copy,
  delivery: Delivery,
  options: S3OutputsOptions,
): Promise<Failure | undefined> {
  const { signal, progress } = delivery;
  const put = (onlyIfAbsent: boolean) =>
    putObject(client, {
      place,
      body: knownChunks(copy.path, copy),
      bytes: copy.bytes,
      contentType: copy.mediaType,
      contentDisposition: disposition(copy.filename, copy.mediaType),
      metadata: { sha256: copy.sha256, 'job-id': copy.jobId },
      onlyIfAbsent,
      signal,
      progress: (done) => progress?.(done, copy.bytes),
      partBytes: options.partBytes,
    });
  if ((await put(true)) === 'written') return undefined;
  const found = await client.send(new HeadObjectCommand({ Bucket: place.bucket, Key: place.key }), { abortSignal: signal });
  const { sha256, 'job-id': jobId } = found.Metadata ?? {};
  if (sha256 === copy.sha256 && found.ContentLength === copy.bytes) return undefined;
  if (jobId !== copy.jobId) return exists();
  // An attempt of this job that was lost after it had delivered; this one's result is another.
  await put(false);
  return undefined;
}

/** A failure where another try would end the same; else throws what is worth one. */
function meaningOf(error: unknown): Failure {
  const problem = problemOf(error);
  switch (problem) {
    case 'not_found':
    case 'no_bucket':
      return { reason: 'OUTPUT_NOT_WRITABLE', message: 'output_uri: there is no such bucket', retryable: false };
    case 'forbidden':
      return { reason: 'OUTPUT_NOT_WRITABLE', message: 'output_uri: the service may not write there', retryable: false };
    case undefined:
      throw error;
    default:
      throw new JobsError('unavailable', 'STORE_UNAVAILABLE', 'the store that the copy goes to cannot be reached or is overloaded', {
        retryAfterSeconds: 5,
        cause: error,
      });
  }
}
