// Reading one job: over REST beside a FastAPI service that gives the same JSON, over gRPC beside a bare Connect server with the same message.
// Every server has a process of its own and gets the same closed loop; first each answer is compared, so that like is measured with like.
import { deepEqual } from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { equals } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type GetResponse, GetResponseSchema, JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import type { Bench, Group } from '../bench.ts';
import { interleaved, type Measured, median, notRun, type Row, rowOf } from '../figures.ts';
import { LoadGenerator } from '../load/generator.ts';
import type { Request } from '../load/tasks.ts';
import { type Peer, type Served, startFastapi, startNodePeer } from '../peers/start.ts';
import { CannotRun, cpuSeconds } from '../processes.ts';
import { getByGrpc, getByRest, noopJob } from '../requests.ts';
import type { Service } from '../service.ts';

const IN_FLIGHT = 64;
const GRPC_CONNECTIONS = 4;

interface Sample {
  readonly perSecond: number;
  readonly p99Ms: number;
  /** Server CPU of one call; undefined where it cannot be read. */
  readonly cpuMicros: number | undefined;
  /** Share of one core that the load generator used. */
  readonly generatorShare: number;
}

export const get: Group = {
  name: 'get',
  about: 'reading one job over REST and gRPC',

  async *run(bench: Bench): AsyncIterable<Row> {
    await using load = LoadGenerator.start();
    await using lent = await bench.service();
    const { service } = lent;
    const { succeeded, processing, queued } = await threeJobs(service);
    const served = await answersOf(service, [succeeded, processing]);

    const measure = async (server: { port: number; pid: number }, request: Request, seconds: number): Promise<Sample> => {
      const connections = request.protocol === 'grpc' ? GRPC_CONNECTIONS : IN_FLIGHT;
      const before = cpuSeconds(server.pid);
      const done = await load.run({ kind: 'calls', port: server.port, request, connections, inFlight: IN_FLIGHT, seconds });
      const after = cpuSeconds(server.pid);
      if (done.errors > 0) throw new Error(`${done.errors} of ${done.errors + done.calls} calls failed: ${done.firstError}`);
      return {
        perSecond: done.calls / done.seconds,
        p99Ms: done.p99Ms,
        cpuMicros: before === undefined || after === undefined ? undefined : ((after - before) / done.calls) * 1e6,
        generatorShare: done.cpuSeconds / done.seconds,
      };
    };
    const sideBySide = async (contestants: Record<string, readonly [{ port: number; pid: number }, Request]>) => {
      const runs = (seconds: number) =>
        Object.fromEntries(Object.entries(contestants).map(([name, [server, request]]) => [name, () => measure(server, request, seconds)]));
      if (!bench.quick) await interleaved(1, runs(1));
      return Object.fromEntries(
        Object.entries(await interleaved(bench.pick(5, 1), runs(bench.pick(1.5, 0.2)))).map(([name, samples]) => [name, middle(samples)]),
      );
    };

    // REST
    let why = 'a quick run installs no peer';
    let fastapi: Peer | undefined;
    try {
      if (!bench.quick) fastapi = await startFastapi(served);
    } catch (error) {
      if (!(error instanceof CannotRun)) throw error;
      why = error.message;
    }
    {
      await using _ = fastapi;
      await using fastify = await startNodePeer('fastify', served);
      await sameJson(fastify, served);
      if (fastapi) await sameJson(fastapi, served);
      bench.say('REST, in turns');
      const rest = await sideBySide({
        succeeded: [service, getByRest(succeeded)],
        ...(fastapi ? { fastapiSucceeded: [fastapi, getByRest(succeeded)] as const } : {}),
        processing: [service, getByRest(processing)],
        ...(fastapi
          ? {
              fastapiProcessing: [fastapi, getByRest(processing)] as const,
              fastapiModels: [fastapi, { ...getByRest(processing), path: `/models/${processing}` } as Request] as const,
            }
          : {}),
        queued: [service, getByRest(queued)],
        fastify: [fastify, getByRest(succeeded)],
      });
      const target = { kind: 'at least times peer', value: 5 } as const;
      yield versus('REST Get, a job that runs', rest.processing!, 'FastAPI', rest.fastapiProcessing, { target, why });
      yield versus('REST Get, a job with a result (its URL signed anew)', rest.succeeded!, 'FastAPI', rest.fastapiSucceeded, {
        target,
        why,
      });
      yield versus('REST Get, a job that runs, FastAPI keeping models', rest.processing!, 'FastAPI', rest.fastapiModels, { why });
      yield versus('REST Get, a queued job (its position looked up)', rest.queued!, 'FastAPI', rest.fastapiProcessing, { why });
      yield versus('REST Get beside bare Fastify, same JSON', rest.succeeded!, 'Fastify', rest.fastify, {});
    }

    // gRPC
    await using connect = await startNodePeer('connect', served);
    await using grpcJs = await startNodePeer('grpc-js', served);
    await sameMessage(connect, served);
    await sameMessage(grpcJs, served);
    bench.say('gRPC, in turns');
    const grpc = await sideBySide({
      processing: [service, getByGrpc(processing)],
      connectProcessing: [connect, getByGrpc(processing)],
      succeeded: [service, getByGrpc(succeeded)],
      connectSucceeded: [connect, getByGrpc(succeeded)],
      grpcJs: [grpcJs, getByGrpc(succeeded)],
    });
    const target = { kind: 'at least times peer', value: 0.8 } as const;
    yield versus('gRPC Get, a job that runs', grpc.processing!, 'bare Connect', grpc.connectProcessing, { target });
    yield versus('gRPC Get, a job with a result (its URL signed anew)', grpc.succeeded!, 'bare Connect', grpc.connectSucceeded, { target });
    yield versus('gRPC Get beside bare grpc-js, same message', grpc.succeeded!, 'grpc-js', grpc.grpcJs, {});
    for (const jobId of [queued, processing]) await service.clients().jobs.cancel({ jobId });
  },
};

function versus(
  name: string,
  ours: Sample,
  peerName: string,
  peer: Sample | undefined,
  { target, why }: { readonly target?: Measured['target']; readonly why?: string },
): Row {
  if (!peer && target) return notRun('get', name, `${Math.round(ours.perSecond)} calls/s; no peer to compare with: ${why}`);
  return rowOf('get', {
    name,
    figure: ours.perSecond,
    unit: 'calls/s',
    ...(peer ? { peer: { name: peerName, figure: peer.perSecond } } : {}),
    ...(target ? { target } : {}),
    note: [
      `server CPU ${micros(ours.cpuMicros)} a call${peer ? `, peer ${micros(peer.cpuMicros)}` : ''}`,
      `p99 ${ours.p99Ms.toFixed(1)} ms${peer ? `, peer ${peer.p99Ms.toFixed(1)} ms` : ''}`,
      `load generator ${Math.round(ours.generatorShare * 100)} %${peer ? `, ${Math.round(peer.generatorShare * 100)} %` : ''} of a core`,
    ].join('; '),
  });
}

const micros = (value: number | undefined) => (value === undefined ? 'unknown' : `${Math.round(value)} µs`);

function middle(samples: readonly Sample[]): Sample {
  const cpu = samples.map((sample) => sample.cpuMicros).filter((value) => value !== undefined);
  return {
    perSecond: median(samples.map((sample) => sample.perSecond)),
    p99Ms: median(samples.map((sample) => sample.p99Ms)),
    cpuMicros: cpu.length === samples.length ? median(cpu) : undefined,
    generatorShare: Math.max(...samples.map((sample) => sample.generatorShare)),
  };
}

/** One job that has succeeded, one that runs until the service ends, one that waits behind it. */
async function threeJobs(service: Service): Promise<{ succeeded: string; processing: string; queued: string }> {
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

async function answersOf(service: Service, jobIds: readonly string[]): Promise<Served> {
  const { jobs } = service.clients();
  const json: object[] = [];
  const messages: GetResponse[] = [];
  for (const jobId of jobIds) {
    json.push((await (await fetch(`${service.base}/api/v1/jobs/${jobId}`)).json()) as object);
    messages.push(await jobs.get({ jobId }));
  }
  return { json, messages };
}

async function sameJson(peer: Peer, served: Served): Promise<void> {
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

async function sameMessage(peer: Peer, served: Served): Promise<void> {
  const client = createClient(JobService, createGrpcTransport({ baseUrl: `http://127.0.0.1:${peer.port}` }));
  for (const message of served.messages) {
    const answer = await client.get({ jobId: message.job!.jobId });
    if (!equals(GetResponseSchema, answer, message)) throw new Error('a peer gives another message than the service');
  }
}
