// Closed-loop load: so many requests in flight, each answer followed at once by the next request.
import { setTimeout as sleep } from 'node:timers/promises';
import { fromBinary } from '@bufbuild/protobuf';
import { SubmitResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { percentile } from '../figures.ts';
import { GrpcReader, grpcHeaders, grpcMessage, H2Client } from './h2.ts';
import { Http1Client, requestBytes } from './http1.ts';
import type { Calls, CallsDone, Request, Submits, SubmitsDone } from './tasks.ts';

/** One request in flight: resolves with its body when the answer was the expected one, else throws. */
type Caller = (collect: boolean) => Promise<Buffer | string>;

async function callers(port: number, request: Request, connections: number, inFlight: number): Promise<{ calls: Caller[]; close(): void }> {
  if (request.protocol === 'http') {
    // One request at a time a connection: HTTP/1.1 has no other way that clients use.
    const clients = await Promise.all(Array.from({ length: inFlight }, () => Http1Client.connect(port)));
    const bytes = requestBytes(request.method, request.path, port, request.headers ?? {}, request.body);
    const { status, busyStatus, contains } = request;
    return {
      calls: clients.map((client) => async (collect) => {
        let response = await client.send(bytes, collect || contains !== undefined);
        while (response.status === busyStatus) {
          await sleep(1);
          response = await client.send(bytes, collect || contains !== undefined);
        }
        if (response.status !== status) throw new Error(`HTTP status ${response.status} instead of ${status}`);
        if (contains !== undefined && !response.body.includes(contains))
          throw new Error(`no ${contains} in ${response.body.slice(0, 300)}`);
        return response.body;
      }),
      close: () => clients.forEach((client) => void client.close()),
    };
  }
  const clients = await Promise.all(Array.from({ length: connections }, () => H2Client.connect(port)));
  const headers = grpcHeaders(port, request.path, request.headers);
  const body = grpcMessage(request.message);
  return {
    calls: Array.from({ length: inFlight }, (_, index) => {
      const client = clients[index % clients.length]!;
      return (collect) =>
        new Promise((resolve, reject) => {
          let bytes = 0;
          const parts: Buffer[] = [];
          client.request(headers, body, {
            data(chunk) {
              bytes += chunk.length;
              if (collect) parts.push(Buffer.from(chunk));
            },
            end: (ok) => (ok && bytes >= 5 ? resolve(Buffer.concat(parts)) : reject(new Error('the gRPC call failed'))),
          });
        });
    }),
    close: () => clients.forEach((client) => void client.close()),
  };
}

export async function calls(task: Calls): Promise<CallsDone> {
  const { calls, close } = await callers(task.port, task.request, task.connections, task.inFlight);
  const latencies: number[] = [];
  let errors = 0;
  let firstError: string | undefined;
  let started = 0;
  const limit = task.count ?? Number.POSITIVE_INFINITY;
  const cpu = process.cpuUsage();
  const begin = performance.now();
  const end = task.seconds === undefined ? Number.POSITIVE_INFINITY : begin + task.seconds * 1000;
  await Promise.all(
    calls.map(async (call) => {
      while (started < limit && performance.now() < end) {
        started++;
        const at = performance.now();
        try {
          await call(false);
          latencies.push(performance.now() - at);
        } catch (error) {
          errors++;
          firstError ??= (error as Error).message;
          if (errors > 1000) return; // a server that is gone answers very fast
        }
        if (task.pauseMs !== undefined) await sleep(task.pauseMs);
      }
    }),
  );
  const seconds = (performance.now() - begin) / 1000;
  const used = process.cpuUsage(cpu);
  close();
  return {
    calls: latencies.length,
    errors,
    firstError,
    seconds,
    cpuSeconds: (used.user + used.system) / 1e6,
    p50Ms: percentile(latencies, 50),
    p99Ms: percentile(latencies, 99),
  };
}

export async function submits(task: Submits): Promise<SubmitsDone> {
  const { calls, close } = await callers(task.port, task.request, 1, 1);
  const done: Array<SubmitsDone['submits'][number]> = [];
  for (let index = 0; index < task.count; index++) {
    const startNs = process.hrtime.bigint();
    const body = await calls[0]!(true);
    const ackMs = Number(process.hrtime.bigint() - startNs) / 1e6;
    done.push({ jobId: jobIdOf(body), startNs, ackMs });
    await sleep(task.pauseMs);
  }
  close();
  return { submits: done };
}

function jobIdOf(body: Buffer | string): string {
  if (typeof body === 'string') return (JSON.parse(body) as { job_id: string }).job_id;
  let jobId = '';
  new GrpcReader().push(body, (message) => {
    jobId = fromBinary(SubmitResponseSchema, message).job!.jobId;
  });
  return jobId;
}
