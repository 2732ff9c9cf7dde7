// From an engine's output to a result that callers can fetch, and a copy of it where the job wants one. Always true: a mark is the last thing that is done to the
// bytes, before their digest is taken; a result that was to be marked and could not be is never stored.
import { dirname, extname } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Delivering, StoreContext, Work } from '../gpu/work.ts';
import type { Failure, MediaResult } from '../jobs/job.ts';
import type { BlobStore } from '../jobs/ports.ts';
import type { Marked, Marker } from '../provenance/marker.ts';
import type { Outputs } from '../store/outputs.ts';

export interface ResultsOptions {
  readonly blobs: BlobStore;
  readonly outputs: (tenant: string) => Outputs;
  /** There where some plan of a mark is. */
  readonly marker: Pick<Marker, 'mark'> | undefined;
  /** Takes a job's folder from the engine, where that is another user; undefined: it is ours. */
  readonly takeBack: ((folder: string) => Promise<void>) | undefined;
}

const MEDIA_TYPE = /^[a-z]+\/[a-z0-9][a-z0-9.+-]{0,80}$/;

export function resultsIn({ blobs, outputs, marker, takeBack }: ResultsOptions): Pick<Work, 'storeResult' | 'takeResult' | 'hasBytes'> {
  const copy = (path: string, result: MediaResult, context: Delivering) => copied(outputs(context.job.tenant), path, result, context);
  return {
    async storeResult(outputPath, context) {
      const { done, signal, pin, report, warn } = context;
      const mediaType = mediaTypeOf(done);
      // What is read from here on is read with the service's own rights.
      await takeBack?.(dirname(outputPath));
      const marked = await mark(marker, outputPath, mediaType, context);
      if (marked && 'reason' in marked) return marked;
      if (marked) warn(marked.warnings);
      const path = marked?.path ?? outputPath;
      const { key, bytes } = await blobs.put(path, mediaType, { signal, pin, progress: report });
      const { width, height, frames, durationSeconds } = done;
      const facts = { mediaType, bytes: BigInt(bytes), sha256: key, width, height, frames, durationSeconds };
      return await copy(path, create(MediaResultSchema, { ...facts, provenance: marked?.provenance }), context);
    },
    async takeResult(result, path, context) {
      await blobs.fetch(result.sha256, path, context.signal, context.report);
      return await copy(path, result, context);
    },
    hasBytes: async ({ sha256 }) => (await blobs.stat(sha256)) !== undefined,
  };
}

/** Undefined: it is not to be. */
async function mark(
  marker: ResultsOptions['marker'],
  path: string,
  mediaType: string,
  { marking, signal }: StoreContext,
): Promise<Marked | Failure | undefined> {
  if (!marking) return undefined;
  if (!marker) throw new Error('a result is to be marked, and there is nothing to mark it with');
  return await marker.mark(path, dirname(path), mediaType, marking, signal);
}

/** It becomes a header: what does not look like one is not passed on as one. */
function mediaTypeOf({ mediaType }: StoreContext['done']): string {
  return MEDIA_TYPE.test(mediaType) ? mediaType : 'application/octet-stream';
}

/** The result, with where its copy lies if its job wants one. */
async function copied(
  outputs: Outputs,
  path: string,
  result: MediaResult,
  { job, signal, report }: Delivering,
): Promise<MediaResult | Failure> {
  const wanted = job.request?.outputUri;
  if (!wanted) return result;
  const { sha256, mediaType } = result;
  const filename = `${job.jobId}${extname(path)}`;
  const copy = { jobId: job.jobId, path, sha256, bytes: Number(result.bytes), mediaType, filename };
  const delivered = await outputs.deliver(wanted, copy, { signal, progress: report });
  return 'reason' in delivered ? delivered : { ...result, outputUri: delivered.uri };
}
