// What the peers answer: jobs as the service itself gives them, in both forms. Always true: a peer that gives another answer than the service breaks the
// bench before any load starts, so that like is measured with like.
import { deepEqual } from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { equals } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type GetResponse, GetResponseSchema, JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { noopJob } from '../requests.ts';
import type { Service } from '../service.ts';
import type { Peer, Served } from './start.ts';

/** One job that has succeeded, one that runs until it is cancelled, one that waits behind it. */
export async function threeJobs(service: Service): Promise<{ succeeded: string; processing: string; queued: string }> {
  const { jobs } = service.clients();
  const submit = async (parameters: Parameters<typeof noopJob>[0]) => (await jobs.submit({ job: noopJob(parameters) })).job!.jobId;
  const until = async (jobId: string, status: JobStatus) => {
    for (const deadline = Date.now() + 20_000; Date.now() < deadline; await sleep(20)) {
      if ((await jobs.getStatus({ jobId })).state!.status === status) return jobId;
    }
    throw new Error(`${jobId} was not ${JobStatus[status]} within 20 s`);
  };
  const succeeded = await until(await submit({}), JobStatus.SUCCEEDED);
  const processing = await until(await submit({ hold_seconds: 3600 }), JobStatus.PROCESSING);
  return { succeeded, processing, queued: await submit({}) };
}

export async function answersOf(service: Service, jobIds: readonly string[]): Promise<Served> {
  const { jobs } = service.clients();
  const json: object[] = [];
  const messages: GetResponse[] = [];
  for (const jobId of jobIds) {
    json.push((await (await fetch(`${service.base}/api/v1/jobs/${jobId}`, { headers: service.headers })).json()) as object);
    messages.push(await jobs.get({ jobId }));
  }
  return { json, messages };
}

export async function sameJson(peer: Peer, served: Served): Promise<void> {
  for (const job of served.json as Array<{ job_id: string }>) {
    const answer = await (await fetch(`http://127.0.0.1:${peer.port}/api/v1/jobs/${job.job_id}`)).json();
    deepEqual(normalised(answer), normalised(job), 'the peer gives other JSON than the service: its models are to be brought up to date');
  }
}

/** Without what writers of JSON may differ in: fractions of a second with or without trailing zeros; a null that the other leaves out. */
function normalised(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normalised);
  if (typeof value === 'string' && /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)) return Date.parse(value);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, entry]) => entry !== null)
      .map(([name, entry]) => [name, normalised(entry)]),
  );
}

export async function sameMessage(peer: Peer, served: Served): Promise<void> {
  const client = createClient(JobService, createGrpcTransport({ baseUrl: `http://127.0.0.1:${peer.port}` }));
  for (const message of served.messages) {
    const answer = await client.get({ jobId: message.job!.jobId });
    if (!equals(GetResponseSchema, answer, message)) throw new Error('a peer gives another message than the service');
  }
}
