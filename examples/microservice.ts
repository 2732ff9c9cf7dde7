// A Node microservice before the fleet, over gRPC: `PUT /swap?target=demo/grace_hopper.jpg` with a portrait as its body answers the swapped picture.
// Whoever leaves takes their job along. In a project of your own, `npm install` the package that `npm run build` makes.
//
//   node scripts/node24.mjs examples/microservice.ts
//   curl -T samples/eileen_collins.jpg -o swapped.jpg 'http://127.0.0.1:3000/swap?target=demo/grace_hopper.jpg'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectJobs, JobNotSucceeded } from 'facefusion-jobs/client';

const { FFJOBS_SERVER = 'http://127.0.0.1:8000', FFJOBS_TOKEN, PORT = '3000' } = process.env;
const jobs = connectJobs(FFJOBS_SERVER, { token: FFJOBS_TOKEN });

async function swap(request: IncomingMessage, response: ServerResponse, target: string): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const { signal } = gone;
  const { uri } = await jobs.upload(request, { filename: 'portrait', signal });
  const job = await jobs.submitAndWait({ sourceImages: [uri], target: { case: 'targetImage', value: target } }, { signal });
  const { response: file } = await jobs.result(job.jobId, { signal });
  response.writeHead(200, { 'content-type': file.headers.get('content-type') ?? 'application/octet-stream' });
  await pipeline(Readable.fromWeb(file.body!), response);
}

/** What the caller is told: their own mistakes with the reason, all else without. */
function refusal(error: unknown): { status: number; message: string } {
  if (error instanceof JobNotSucceeded) return { status: 422, message: `${error.reason}: ${error.message}` };
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.InvalidArgument) return { status: 400, message: rawMessage };
  console.error(error);
  return { status: code === Code.ResourceExhausted ? 429 : 502, message: 'not now' };
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url ?? '/', 'http://here');
  const target = url.searchParams.get('target');
  if (request.method !== 'PUT' || url.pathname !== '/swap' || !target) {
    response.writeHead(404).end('PUT /swap?target=PATH with a portrait\n');
    return;
  }
  try {
    await swap(request, response, target);
  } catch (error) {
    if (response.closed) return;
    const { status, message } = refusal(error);
    if (response.headersSent) response.destroy();
    else response.writeHead(status).end(`${message}\n`);
  }
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
for (const end of ['SIGINT', 'SIGTERM'] as const) {
  process.once(end, () => {
    server.close(() => jobs[Symbol.dispose]());
    server.closeIdleConnections();
  });
}
