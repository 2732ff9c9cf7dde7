// Traces as a collector gets them: a receiver of OTLP stands in for one, and callers bring their own traces or none.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { ROOT, startService } from './api/service.ts';

/** Of the JSON form of OTLP, what is looked at. */
interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { key: string; value: Record<string, unknown> }[];
  readonly links?: readonly { traceId: string; spanId: string }[];
  readonly status: { readonly code?: number };
}
const [SERVER, CONSUMER] = [2, 5];
const ERROR = 2;

async function collector() {
  const spans: Span[] = [];
  const resources: Record<string, unknown>[] = [];
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    assert.equal(request.url, '/v1/traces');
    for (const { resource, scopeSpans } of JSON.parse(text).resourceSpans) {
      resources.push(factsOf(resource.attributes));
      for (const scope of scopeSpans) spans.push(...scope.spans);
    }
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`;
  return { spans, resources, url, [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())) };
}

function factsOf(attributes: Span['attributes']): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const PARENT = '00f067aa0ba902b7';
const traceparent = (flags = '01', trace = TRACE) => `00-${trace}-${PARENT}-${flags}`;
const IMAGE = { source_images: ['face.jpg'], target_image: 'target.png' };

async function submit(baseUrl: string, headers: Record<string, string>, job: Json = {}): Promise<string> {
  const response = await fetch(new URL('/api/v1/jobs', baseUrl), {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ ...IMAGE, ...job }),
  });
  const { job_id } = (await response.json()) as { job_id: string };
  await untilTerminal(restClient(baseUrl), job_id);
  return job_id;
}

test('one trace leads from the caller through the call, the queue, the run and the store', async () => {
  await using received = await collector();
  let logs: readonly Record<string, unknown>[];
  let jobId: string;
  {
    await using service = await startService({ TRACES: 'otlp', TRACES_ENDPOINT: received.url, TRACES_RATIO: '0' });
    // Whole once the service has closed.
    logs = service.logs;
    jobId = await submit(service.baseUrl, { traceparent: traceparent() });
    assert.match(String(((await restClient(service.baseUrl).get(jobId)) as Json).traceparent), new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`));
  }
  const { spans } = received;
  assert.ok(
    spans.every(({ traceId }) => traceId === TRACE),
    'what nobody asked for is not sampled',
  );
  const one = (name: string) => {
    const found = spans.filter((span) => span.name === name);
    assert.equal(found.length, 1, `${name} among ${spans.map((span) => span.name)}`);
    return found[0]!;
  };
  const call = one('facefusion.jobs.v1.JobService/Submit');
  assert.deepEqual([call.parentSpanId, call.kind, call.status.code ?? 0], [PARENT, SERVER, 0]);
  assert.equal(factsOf(call.attributes)['ffjobs.code'], 'ok');
  const job = one('job');
  assert.deepEqual([job.parentSpanId, job.kind], [call.spanId, CONSUMER]);
  assert.deepEqual(
    job.links?.map((link) => [link.traceId, link.spanId]),
    [[TRACE, call.spanId]],
  );
  const facts = factsOf(job.attributes);
  assert.deepEqual([facts['ffjobs.job_id'], facts['ffjobs.status']], [jobId, 'succeeded']);
  const phases = ['queue', 'prepare', 'run', 'store'].map(one);
  for (const phase of phases) {
    assert.equal(phase.parentSpanId, job.spanId, phase.name);
    assert.ok(
      BigInt(phase.startTimeUnixNano) >= BigInt(job.startTimeUnixNano) && BigInt(phase.endTimeUnixNano) <= BigInt(job.endTimeUnixNano),
    );
  }
  // A span begins in whole milliseconds, and ends by a finer clock.
  const MILLISECOND = 1_000_000n;
  for (const [before, after] of [[1, 2] as const, [2, 3] as const])
    assert.ok(BigInt(phases[before]!.endTimeUnixNano) < BigInt(phases[after]!.startTimeUnixNano) + MILLISECOND);
  assert.equal(factsOf(phases[2]!.attributes)['ffjobs.slot'], '0');
  const { 'service.name': name, 'service.version': version } = received.resources[0]!;
  assert.deepEqual([name, version], ['facefusion-jobs', '0.0.0-test']);
  const told = logs.filter(({ trace_id }) => trace_id === TRACE).map(({ msg }) => msg);
  assert.deepEqual(told.toSorted(), ['call', `${jobId} succeeded`]);
});

test('over gRPC the trace is in the metadata, and a batch is in one', async () => {
  await using received = await collector();
  {
    await using service = await startService({ TRACES: 'otlp', TRACES_ENDPOINT: received.url, TRACES_RATIO: '0' });
    const jobs = createClient(JobService, createGrpcTransport({ baseUrl: service.baseUrl }));
    const job = { sourceImages: ['face.jpg'], target: { case: 'targetImage' as const, value: 'target.png' } };
    const headers = { traceparent: traceparent() };
    const { batch } = await jobs.submitBatch({ jobs: [{ job }, { job }] }, { headers });
    const client = restClient(service.baseUrl);
    const page = await fetch(new URL(`/api/v1/jobs?batch_id=${batch!.batchId}`, service.baseUrl));
    for (const one of ((await page.json()) as { jobs: { job_id: string }[] }).jobs) await untilTerminal(client, one.job_id);
  }
  const [call, ...others] = received.spans.filter(({ kind }) => kind === SERVER);
  assert.deepEqual(
    [call!.name, call!.traceId, call!.parentSpanId, others.length],
    ['facefusion.jobs.v1.JobService/SubmitBatch', TRACE, PARENT, 0],
  );
  const stays = received.spans.filter(({ name }) => name === 'job');
  assert.deepEqual(
    stays.map(({ traceId, parentSpanId }) => [traceId, parentSpanId]),
    [
      [TRACE, call!.spanId],
      [TRACE, call!.spanId],
    ],
  );
});

test('a caller decides whether it is sampled, and what is no trace begins one', async () => {
  await using received = await collector();
  const other = 'a'.repeat(32);
  {
    await using service = await startService({ TRACES: 'otlp', TRACES_ENDPOINT: received.url, TRACES_RATIO: '1' });
    await submit(service.baseUrl, { traceparent: traceparent('00', other) });
    for (const bad of ['', 'x', `00-${'0'.repeat(32)}-${PARENT}-01`, traceparent().repeat(40), `ff-${TRACE}-${PARENT}-01`]) {
      await fetch(new URL('/api/v1/jobs?page_size=1', service.baseUrl), { headers: { traceparent: bad } });
    }
    for (const path of ['/healthz', '/readyz']) await fetch(new URL(path, service.baseUrl));
  }
  assert.equal(received.spans.filter(({ traceId }) => traceId === other).length, 0);
  const lists = received.spans.filter(({ name }) => name.endsWith('JobService/List'));
  assert.deepEqual([lists.length, new Set(lists.map(({ traceId }) => traceId)).size], [5, 5]);
  assert.ok(lists.every(({ parentSpanId, traceId }) => !parentSpanId && traceId !== TRACE));
  assert.equal(received.spans.filter(({ attributes }) => /healthz|readyz/.test(String(factsOf(attributes)['http.route']))).length, 0);
});

test('what goes wrong is an error where it went wrong, and a caller’s mistake is none', async () => {
  await using received = await collector();
  {
    await using service = await startService({ TRACES: 'otlp', TRACES_ENDPOINT: received.url, TRACES_RATIO: '0' });
    const headers = { traceparent: traceparent() };
    await submit(service.baseUrl, headers, { parameters: { fail: 'NO_FACE_IN_SOURCE' } });
    await fetch(new URL('/api/v1/jobs/job_20250405_aaaaaaaaaaaa', service.baseUrl), { headers });
  }
  const errors = received.spans
    .filter(({ status }) => status.code === ERROR)
    .map((span) => [span.name, factsOf(span.attributes)['error.type']]);
  assert.deepEqual(errors.toSorted(), [
    ['job', 'NO_FACE_IN_SOURCE'],
    ['run', 'NO_FACE_IN_SOURCE'],
  ]);
  const missing = received.spans.find(({ name }) => name.endsWith('JobService/Get'))!;
  assert.equal(factsOf(missing.attributes)['ffjobs.code'], 'not_found');
});

test('a collector that is away costs spans and nothing else', async () => {
  const service = await startService({ TRACES: 'otlp', TRACES_ENDPOINT: 'http://127.0.0.1:9/v1/traces' });
  const jobId = await submit(service.baseUrl, {});
  assert.equal((await restClient(service.baseUrl).get(jobId)).status, 'succeeded');
  await service[Symbol.asyncDispose]();
  assert.ok(
    service.logs.some(({ msg }) => String(msg).includes('spans could not be sent')),
    'it is told',
  );
});

// The client of Prometheus brings the API of it along, for exemplars.
test('off, no package of it is loaded', async () => {
  const script = `
import { registerHooks } from 'node:module';
const loaded = [];
registerHooks({ resolve: (name, context, next) => { if (name.includes('opentelemetry') && !context.parentURL?.includes('prom-client')) loaded.push(name); return next(name, context); } });
const { startService } = await import('./test/api/service.ts');
const service = await startService(process.argv[1] === 'on' ? { TRACES: 'otlp' } : {});
await service[Symbol.asyncDispose]();
process.stdout.write(String(loaded.length));`;
  const loaded = async (how: string) =>
    Number((await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, how], { cwd: join(ROOT) })).stdout);
  assert.equal(await loaded('off'), 0);
  assert.ok((await loaded('on')) > 4);
});
