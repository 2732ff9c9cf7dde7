// What the peers written here share: they get what they serve in the environment, and say their port on standard output.
import type { Server } from 'node:net';
import { fromBinary } from '@bufbuild/protobuf';
import { type GetResponse, GetResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';

/** Jobs as the service's own REST side shows them. */
export function peerJobs(): Array<{ readonly job_id: string }> {
  return JSON.parse(process.env.BENCH_JOBS ?? '[]');
}

/** The same jobs as the service's own gRPC side sends them. */
export function peerMessages(): GetResponse[] {
  const messages: string[] = JSON.parse(process.env.BENCH_MESSAGES ?? '[]');
  return messages.map((message) => fromBinary(GetResponseSchema, Buffer.from(message, 'base64')));
}

export function sayPort(server: Server): void {
  process.stdout.write(`${JSON.stringify({ port: (server.address() as { port: number }).port })}\n`);
}
