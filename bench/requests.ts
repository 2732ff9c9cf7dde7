// The calls that the benches make, for a load generator: each over REST and over gRPC with the same meaning.
import { create, type JsonObject, toBinary, toJson } from '@bufbuild/protobuf';
import { type JobRequest, JobRequestSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { GetRequestSchema, SubmitRequestSchema, WatchRequestSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import type { Request } from './load/tasks.ts';
import { TARGET } from './service.ts';

type Headers = Readonly<Record<string, string>>;

const SERVICE = '/facefusion.jobs.v1.JobService';

/** A job of the no-op engine; its options are in `engines/noop.py`. */
export function noopJob(parameters: JsonObject = {}): JobRequest {
  return create(JobRequestSchema, { target: { case: 'targetImage', value: TARGET }, outputFormat: 'png', parameters });
}

export function submitByRest(job: JobRequest, waitSeconds?: number): Request {
  return {
    protocol: 'http',
    method: 'POST',
    path: '/api/v1/jobs',
    body: JSON.stringify(toJson(JobRequestSchema, job, { useProtoFieldName: true })),
    ...(waitSeconds === undefined
      ? { status: 202 }
      : { status: 200, headers: { prefer: `wait=${waitSeconds}` }, contains: '"status":"succeeded"' }),
  };
}

export function submitByGrpc(job: JobRequest): Request {
  return {
    protocol: 'grpc',
    path: `${SERVICE}/Submit`,
    message: toBinary(SubmitRequestSchema, create(SubmitRequestSchema, { job })),
  };
}

export function getByRest(jobId: string, headers: Headers = {}): Request {
  return { protocol: 'http', method: 'GET', path: `/api/v1/jobs/${jobId}`, headers, status: 200 };
}

export function getByGrpc(jobId: string, headers: Headers = {}): Request {
  return { protocol: 'grpc', path: `${SERVICE}/Get`, headers, message: toBinary(GetRequestSchema, create(GetRequestSchema, { jobId })) };
}

export function watchBySse(jobId: string): Request {
  return { protocol: 'http', method: 'GET', path: `/api/v1/jobs/${jobId}/events`, headers: { accept: 'text/event-stream' }, status: 200 };
}

export function watchByGrpc(jobId: string): Request {
  return { protocol: 'grpc', path: `${SERVICE}/Watch`, message: toBinary(WatchRequestSchema, create(WatchRequestSchema, { jobId })) };
}
