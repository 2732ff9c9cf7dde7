// A job's inputs, given out again to be shown beside its result. Always true: only files that the service holds itself are read, at the pace of who
// asks, and nothing of what was refused or purged is.
import { create } from '@bufbuild/protobuf';
import type { JobRequest } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type GetInputResponse, GetInputResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { JobsError } from '../jobs/errors.ts';
import { type Job, JobStatus } from '../jobs/job.ts';

export interface HeldFile {
  readonly bytes: number;
  readonly mediaType: string;
  read(): AsyncIterable<Uint8Array>;
}

/** A tenant's file that the service holds; undefined: it holds none of that reference. */
export type HeldInput = (reference: string, tenant: string) => Promise<HeldFile | undefined>;

/** Largest chunk of one message. */
const CHUNK_BYTES = 256 * 1024;

/** Facts, then chunks. `input` as violations name it; empty: the target. */
export async function* readInput(
  held: (reference: string) => Promise<HeldFile | undefined>,
  job: Job,
  input: string,
  signal: AbortSignal,
): AsyncGenerator<GetInputResponse> {
  if (job.status === JobStatus.REFUSED) {
    throw new JobsError(
      'failed_precondition',
      'INPUT_NOT_SHOWN',
      `${job.jobId} was refused by the content check: its inputs are not shown`,
    );
  }
  const reference = referenceOf(job.request, input || 'target');
  const file = job.purgedAt || reference === undefined ? undefined : await held(reference);
  if (!file) {
    const message = `the service does not hold the input '${input || 'target'}' of ${job.jobId}; it holds uploads and files under its input root, until they are deleted`;
    throw new JobsError('not_found', 'INPUT_NOT_HELD', message);
  }
  const { bytes, mediaType } = file;
  yield create(GetInputResponseSchema, { part: { case: 'facts', value: { mediaType, bytes: BigInt(bytes) } } });
  for await (const chunk of file.read()) {
    for (let at = 0; at < chunk.length; at += CHUNK_BYTES) {
      signal.throwIfAborted();
      yield create(GetInputResponseSchema, { part: { case: 'chunk', value: chunk.subarray(at, at + CHUNK_BYTES) } });
    }
  }
}

function referenceOf(request: JobRequest | undefined, input: string): string | undefined {
  if (input === 'target') return request?.target.value;
  if (input === 'source_audio') return request?.sourceAudio;
  return request?.sourceImages[Number(/\d+/.exec(input)?.[0])];
}
