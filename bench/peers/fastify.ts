// Context for REST: Fastify bare, the same JSON without a schema; and one SSE stream whose bytes are made once for all who listen. Prints
// its port.
import type { ServerResponse } from 'node:http';
import Fastify from 'fastify';
import { peerJobs, sayPort } from './common.ts';

const jobs = new Map(peerJobs().map((job) => [job.job_id, job]));
const app = Fastify();
app.get<{ Params: { id: string } }>('/api/v1/jobs/:id', async (request, reply) => jobs.get(request.params.id) ?? reply.code(404).send());

const listening = new Set<ServerResponse>();
app.get('/api/v1/jobs/:id/events', (request, reply) => {
  reply.hijack();
  reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  listening.add(reply.raw);
  request.raw.on('close', () => listening.delete(reply.raw));
});
let sequence = 0;
setInterval(() => {
  const progress = { percent: 50, frames_done: Date.now() % 2 ** 31, frames_total: 2 ** 31 - 1, attempt: 1 };
  const event = { sequence: ++sequence, time: new Date().toISOString(), progress };
  const bytes = Buffer.from(`id: ${sequence}\nevent: progress\ndata: ${JSON.stringify(event)}\n\n`);
  for (const response of listening) response.write(bytes);
}, 100);

await app.listen({ port: 0, host: '127.0.0.1' });
sayPort(app.server);
