// Reading one job: over REST beside a FastAPI service that gives the same JSON, over gRPC beside a bare Connect server with the same message.
// Every server has a process of its own and gets the same closed loop; first each answer is compared, so that like is measured with like.
import type { Bench, Group } from '../bench.ts';
import { sideBySide, versus } from '../contest.ts';
import type { Row } from '../figures.ts';
import { LoadGenerator } from '../load/generator.ts';
import type { Request } from '../load/tasks.ts';
import { answersOf, sameJson, sameMessage, threeJobs } from '../peers/served.ts';
import { fastapiOrWhyNot, startNodePeer } from '../peers/start.ts';
import { getByGrpc, getByRest } from '../requests.ts';

export const get: Group = {
  name: 'get',
  about: 'reading one job over REST and gRPC',

  async *run(bench: Bench): AsyncIterable<Row> {
    await using load = LoadGenerator.start();
    await using lent = await bench.service();
    const { service } = lent;
    const { succeeded, processing, queued } = await threeJobs(service);
    const served = await answersOf(service, [succeeded, processing]);

    // REST
    const { fastapi, why } = await fastapiOrWhyNot(served, bench.quick);
    {
      await using _ = fastapi;
      await using fastify = await startNodePeer('fastify', served);
      await sameJson(fastify, served);
      if (fastapi) await sameJson(fastapi, served);
      bench.say('REST, in turns');
      const rest = await sideBySide(bench, load, {
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
      yield versus('get', 'REST Get, a job that runs', rest.processing!, 'FastAPI', rest.fastapiProcessing, { target, why });
      yield versus('get', 'REST Get, a job with a result (its URL signed anew)', rest.succeeded!, 'FastAPI', rest.fastapiSucceeded, {
        target,
        why,
      });
      yield versus('get', 'REST Get, a job that runs, FastAPI keeping models', rest.processing!, 'FastAPI', rest.fastapiModels, { why });
      yield versus('get', 'REST Get, a queued job (its position looked up)', rest.queued!, 'FastAPI', rest.fastapiProcessing, { why });
      yield versus('get', 'REST Get beside bare Fastify, same JSON', rest.succeeded!, 'Fastify', rest.fastify, {});
    }

    // gRPC
    await using connect = await startNodePeer('connect', served);
    await using grpcJs = await startNodePeer('grpc-js', served);
    await sameMessage(connect, served);
    await sameMessage(grpcJs, served);
    bench.say('gRPC, in turns');
    const grpc = await sideBySide(bench, load, {
      processing: [service, getByGrpc(processing)],
      connectProcessing: [connect, getByGrpc(processing)],
      succeeded: [service, getByGrpc(succeeded)],
      connectSucceeded: [connect, getByGrpc(succeeded)],
      grpcJs: [grpcJs, getByGrpc(succeeded)],
    });
    const target = { kind: 'at least times peer', value: 0.8 } as const;
    yield versus('get', 'gRPC Get, a job that runs', grpc.processing!, 'bare Connect', grpc.connectProcessing, { target });
    yield versus('get', 'gRPC Get, a job with a result (its URL signed anew)', grpc.succeeded!, 'bare Connect', grpc.connectSucceeded, {
      target,
    });
    yield versus('get', 'gRPC Get beside bare grpc-js, same message', grpc.succeeded!, 'grpc-js', grpc.grpcJs, {});
    for (const jobId of [queued, processing]) await service.clients().jobs.cancel({ jobId });
  },
};
