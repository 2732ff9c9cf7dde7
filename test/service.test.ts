// What the service promises beyond one call: restarts, drains, waiting callers, uploads, metrics, logs.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { Validator } from '@seriousme/openapi-schema-validator';
import { UploadService } from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { Health } from '../gen/grpc/health/v1/health_pb.js';
import { ServingStatus } from '../src/rpc/health.ts';
import { type Json, restClient } from './api/clients.ts';
import { gate, runs, untilTerminal } from './api/scenarios.ts';
import { python, ROOT, type Service, startService } from './api/service.ts';
import { freePort } from './fixtures/free-port.ts';

const picture = (parameters: Json = {}, more: Json = {}): Json => ({
  source_images: ['face.jpg'],
  target_image: 'target.png',
  parameters,
  ...more,
});

async function post(service: Service, body: Json, headers: Record<string, string> = {}) {
  const response = await fetch(new URL('/api/v1/jobs', service.baseUrl), {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  return { status: response.status, headers: response.headers, json: (await response.json()) as Json };
}

describe('a restart', () => {
  test('keeps what was queued in its order, and tries again what ran, with no attempt spent by the drain', async () => {
    await using service = await startService({ DRAIN_TIMEOUT: '0s' });
    const held = gate(service.dir);
    const client = restClient(service.baseUrl);
    const running = await client.submit(picture({ ...held.parameters }, { max_attempts: 1 }));
    for await (const event of client.watch(running.job_id as string)) if (runs(event)) break;
    const waiting = [await client.submit(picture()), await client.submit(picture()), await client.submit(picture())];
    const before = await client.get(running.job_id as string);
    await service.restart();
    const again = restClient(service.baseUrl);
    const resumed: number[] = [];
    const following = (async () => {
      for await (const event of again.watch(running.job_id as string, before.sequence as number)) resumed.push(event.sequence as number);
    })();
    await held.open();
    await following;
    assert.deepEqual(
      resumed,
      resumed.map((_, i) => (before.sequence as number) + 1 + i),
    );
    const first = await again.get(running.job_id as string);
    assert.equal(first.status, 'succeeded');
    assert.equal(first.attempt, 2);
    const ended: number[] = [];
    for (const job of waiting) {
      await untilTerminal(again, job.job_id as string);
      const { status, started_at } = await again.get(job.job_id as string);
      assert.equal(status, 'succeeded');
      ended.push(Date.parse(started_at as string));
    }
    assert.deepEqual(
      ended,
      ended.toSorted((a, b) => a - b),
    );
  });

  test('a drain lets the running job finish, and its watcher sees the end', async () => {
    await using service = await startService({ DRAIN_TIMEOUT: '60s' });
    const held = gate(service.dir);
    const client = restClient(service.baseUrl);
    const { job_id } = await client.submit(picture(held.parameters));
    const events: Json[] = [];
    let closing: Promise<void> | undefined;
    for await (const event of client.watch(job_id as string)) {
      events.push(event);
      if (runs(event) && !closing) {
        closing = service.app.close();
        await held.open();
      }
    }
    await closing;
    assert.equal((events.at(-1)!.state as Json).status, 'succeeded');
  });
});

describe('Prefer: wait', () => {
  test('answers 200 with the finished job, or 202 with the unfinished one when the time is up', async () => {
    await using service = await startService();
    const done = await post(service, picture(), { prefer: 'wait=30' });
    assert.equal(done.status, 200);
    assert.equal(done.headers.get('preference-applied'), 'wait=30');
    assert.equal(done.json.status, 'succeeded');
    const held = gate(service.dir);
    const late = await post(service, picture(held.parameters), { prefer: 'wait=1' });
    assert.equal(late.status, 202);
    assert.equal(late.headers.get('preference-applied'), null);
    await held.open();
    await untilTerminal(restClient(service.baseUrl), late.json.job_id as string);
  });
});

describe('headers', () => {
  test('Idempotency-Key works as the field does; request ids come back and are logged', async () => {
    await using service = await startService();
    const key = randomUUID();
    const [a, b] = await Promise.all([
      post(service, picture(), { 'idempotency-key': key }),
      post(service, picture(), { 'idempotency-key': key }),
    ]);
    assert.equal(a.json.job_id, b.json.job_id);
    const other = await post(service, picture({ steps: 2 }), { 'idempotency-key': key });
    assert.equal(other.status, 409);
    const id = randomUUID();
    const named = await post(service, picture(), { 'x-request-id': id, authorization: 'Bearer not-for-logs' });
    assert.equal(named.headers.get('x-request-id'), id);
    await untilTerminal(restClient(service.baseUrl), named.json.job_id as string);
    assert.ok(service.logs.some((line) => line.request_id === id));
    assert.ok(!JSON.stringify(service.logs).includes('not-for-logs'));
  });
});

test('a repeat under the same key is answered as the first call was, though its input is gone', async () => {
  await using service = await startService();
  const key = { 'idempotency-key': randomUUID() };
  const first = await post(service, picture(), key);
  await rm(join(service.inputDir, 'face.jpg'));
  const [again, without] = await Promise.all([post(service, picture(), key), post(service, picture())]);
  assert.deepEqual([again.status, again.json.job_id], [202, first.json.job_id]);
  assert.deepEqual([without.status, without.json.code], [400, 'INVALID_ARGUMENT']);
});

describe('uploads', () => {
  test('a file sent over gRPC becomes a reference that jobs take; what is not as said is refused', async () => {
    await using service = await startService();
    const client = createClient(UploadService, createGrpcTransport({ baseUrl: service.baseUrl }));
    const bytes = Buffer.concat([Buffer.from('ffd8ffe000104a464946', 'hex'), randomBytes(3_000_000)]);
    const parts = (metadata: object) =>
      (async function* () {
        yield { part: { case: 'metadata' as const, value: { filename: 'face.jpg', ...metadata } } };
        for (let at = 0; at < bytes.length; at += 1 << 20)
          yield { part: { case: 'chunk' as const, value: bytes.subarray(at, at + (1 << 20)) } };
      })();
    const upload = await client.upload(parts({ bytes: BigInt(bytes.length) }));
    assert.match(upload.uri, /^upload:\/\//);
    assert.equal(upload.bytes, BigInt(bytes.length));
    assert.equal(upload.mediaType, 'image/jpeg');
    const rest = restClient(service.baseUrl);
    const job = await rest.submit({ source_images: [upload.uri], target_image: upload.uri });
    await untilTerminal(rest, job.job_id as string);
    assert.equal((await rest.get(job.job_id as string)).status, 'succeeded');
    await assert.rejects(client.upload(parts({ sha256: '0'.repeat(64) })), /sha-?256|digest/i);
    await assert.rejects(client.upload(parts({ bytes: 17n })), /bytes/);
    await assert.rejects(rest.submit({ source_images: ['upload://nothing'], target_image: upload.uri }), /source_images\[0\]/);
  });
});

describe('operators', () => {
  test('metrics count every request once, REST and RPC alike, and those that fail before they are parsed', async () => {
    const port = `${await freePort()}`;
    await using service = await startService({ METRICS_PORT: port });
    const client = restClient(service.baseUrl);
    const { job_id } = await client.submit(picture());
    await untilTerminal(client, job_id as string);
    await fetch(new URL('/api/v1/jobs', service.baseUrl), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"source_',
    });
    await fetch(new URL('/nowhere', service.baseUrl));
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    assert.match(text, /api_requests_total\{method="POST",endpoint="facefusion.jobs.v1.JobService\/Submit",code="ok"\} 1/);
    assert.match(text, /api_requests_total\{method="POST",endpoint="[^"]+",code="invalid_argument"\} 1/);
    assert.match(text, /api_requests_total\{method="GET",endpoint="[^"]+",code="not_found"\} 1/);
    assert.match(text, /jobs\{status="succeeded"\} 1/);
    assert.match(text, /queue_depth 0/);
    assert.match(text, /slots\{state="(idle|busy)"\} 1/);
    assert.match(text, /watchers 0/);
    assert.match(text, /worker_restarts_total 0/);
  });

  test('metrics are on loopback wherever the service listens, and with a token for who has it alone', async () => {
    const port = `${await freePort()}`;
    const file = join(tmpdir(), `metrics-token-${process.pid}`);
    await writeFile(file, `${'t'.repeat(32)}\n`);
    try {
      await using service = await startService({ METRICS_PORT: port, METRICS_TOKEN_FILE: file, HOST: '0.0.0.0', ALLOW_ANONYMOUS: 'yes' });
      assert.equal(service.config.metricsHost, '127.0.0.1');
      const ask = (authorization?: string) =>
        fetch(`http://127.0.0.1:${port}/metrics`, { headers: authorization === undefined ? {} : { authorization } });
      for (const wrong of [undefined, '', 'Bearer ', `Bearer ${'t'.repeat(31)}`, `Basic ${'t'.repeat(32)}`, 't'.repeat(32)]) {
        const answer = await ask(wrong);
        assert.equal(answer.status, 401, wrong);
        assert.doesNotMatch(await answer.text(), /api_requests_total/);
      }
      assert.match(await (await ask(`Bearer ${'t'.repeat(32)}`)).text(), /api_requests_total/);
      for (const addresses of Object.values(networkInterfaces())) {
        for (const { address, family, internal } of addresses ?? []) {
          if (internal || family !== 'IPv4') continue;
          await assert.rejects(fetch(`http://${address}:${port}/metrics`), 'not on other addresses of this machine');
        }
      }
    } finally {
      await rm(file);
    }
  });

  test('health says what serves, and /readyz which engine', async () => {
    await using service = await startService();
    const health = createClient(Health, createGrpcTransport({ baseUrl: service.baseUrl }));
    for (const name of ['', 'facefusion.jobs.v1.JobService', 'facefusion.jobs.workers']) {
      assert.equal((await health.check({ service: name })).status, ServingStatus.SERVING, name);
    }
    const ready = await fetch(new URL('/readyz', service.baseUrl));
    assert.equal(ready.status, 200);
    assert.equal(((await ready.json()) as Json).engine, 'scripted');
  });

  test('a second service on the same data folder is refused in words', async () => {
    await using service = await startService();
    const { startApp } = await import('../src/app.ts');
    const surroundings = { env: process.env, root: ROOT, version: '0', terminal: false };
    await assert.rejects(startApp({ ...service.config, logLevel: 'silent' }, surroundings), /another|already|in use/i);
  });
});

test('memory of a device that runs out costs one attempt, and the job runs again on a fresh worker', async () => {
  await using service = await startService();
  const client = restClient(service.baseUrl);
  const starved = { fail: 'GPU_OUT_OF_MEMORY', retryable: true };
  const once = await client.submit(picture({ ...starved, fail_attempts: 1 }));
  const always = await client.submit(picture(starved, { max_attempts: 5 }));
  await untilTerminal(client, once.job_id as string);
  await untilTerminal(client, always.job_id as string);
  const [first, second] = [await client.get(once.job_id as string), await client.get(always.job_id as string)];
  assert.deepEqual([first.status, first.attempt], ['succeeded', 2]);
  assert.deepEqual([second.status, second.attempt, (second.error as Json).reason], ['failed', 2, 'GPU_OUT_OF_MEMORY']);
});

describe('a worker that dies', () => {
  test('costs its job one attempt and no other job anything', async () => {
    await using service = await startService();
    const client = restClient(service.baseUrl);
    const crashes = await client.submit(picture({ crash_at: 0, fail_attempts: 1 }));
    const other = await client.submit(picture());
    await untilTerminal(client, crashes.job_id as string);
    await untilTerminal(client, other.job_id as string);
    const job = await client.get(crashes.job_id as string);
    assert.equal(job.status, 'succeeded');
    assert.equal(job.attempt, 2);
    assert.equal((await client.get(other.job_id as string)).attempt, 1);
  });

  test('again and again with the same job fails that job as poisonous', async () => {
    await using service = await startService();
    const client = restClient(service.baseUrl);
    const { job_id } = await client.submit(picture({ crash_at: 0 }, { max_attempts: 10 }));
    await untilTerminal(client, job_id as string);
    const job = await client.get(job_id as string);
    assert.equal(job.status, 'failed');
    assert.equal((job.error as Json).reason, 'JOB_KILLS_WORKERS');
    assert.equal(job.attempt, 3);
  });
});

describe('other clients', () => {
  const venv = existsSync(join(ROOT, '.venv', 'bin', 'python'));
  test("Python's grpcio submits, watches and fetches through reflection", {
    skip: venv ? false : 'no worker environment; npm test makes one',
  }, async () => {
    await using service = await startService();
    const address = new URL(service.baseUrl).host;
    const script = join(ROOT, 'test', 'api', 'grpcio_client.py');
    const { stdout } = await promisify(execFile)(python(), [script, address, 'face.jpg', 'target.png'], { timeout: 120_000 });
    const seen = JSON.parse(stdout) as { status: string; kinds: string[]; sequences: number[]; missing: string; url: string };
    assert.equal(seen.status, 'JOB_STATUS_SUCCEEDED');
    assert.equal(seen.kinds[0], 'snapshot');
    assert.equal(seen.missing, 'NOT_FOUND');
    assert.deepEqual(
      seen.sequences,
      seen.sequences.toSorted((a, b) => a - b),
    );
    assert.equal((await fetch(seen.url)).status, 200);
  });
});

describe('the documents', () => {
  test('OpenAPI 3.1 of the whole service is valid, names every route, and /docs shows it without another host', async () => {
    await using service = await startService();
    const document = (await (await fetch(new URL('/api/v1/openapi.json', service.baseUrl))).json()) as Json;
    const { valid, errors } = await new Validator().validate(structuredClone(document));
    assert.ok(valid, JSON.stringify(errors));
    const paths = Object.keys(document.paths as Json);
    for (const path of [
      '/api/v1/jobs',
      '/api/v1/jobs:batch',
      '/api/v1/jobs/{job_id}:purge',
      '/api/v1/jobs/{job_id}/events',
      '/api/v1/slots',
    ]) {
      assert.ok(paths.includes(path), `${path} in ${paths.join(' ')}`);
    }
    const page = await fetch(new URL('/docs', service.baseUrl));
    assert.equal(page.status, 200);
    const html = await page.text();
    const links = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, link]) => link!);
    for (const link of links) {
      assert.ok(!/^(https?:)?\/\//.test(link), link);
      assert.equal((await fetch(new URL(link, page.url))).status, 200, link);
    }
  });
});

describe('watching over REST', () => {
  test('by Accept: SSE, NDJSON, or a line of text for curl; previews only when asked for', async () => {
    await using service = await startService();
    const client = restClient(service.baseUrl);
    const held = gate(service.dir);
    const { job_id } = await client.submit(picture({ steps: 3, preview: true, ...held.parameters }, { previews: true }));
    const url = new URL(`/api/v1/jobs/${job_id}/events`, service.baseUrl);
    const kinds: string[] = [];
    for await (const event of client.watch(job_id as string)) {
      kinds.push(event.kind);
      if (runs(event)) await held.open();
    }
    assert.ok(kinds.includes('preview'));
    const lines = (await (await fetch(url, { headers: { accept: 'application/x-ndjson' } })).text()).trim().split('\n');
    assert.equal(((JSON.parse(lines[0]!) as Json).snapshot as Json).reset, false);
    const text = await (await fetch(url, { headers: { accept: 'text/plain' } })).text();
    assert.match(text, new RegExp(`${job_id as string}  succeeded\n$`));
    const sse = await fetch(url, { headers: { accept: 'text/event-stream' } });
    assert.match(sse.headers.get('content-type')!, /text\/event-stream/);
    assert.match(await sse.text(), /id: \d+\nevent: snapshot\ndata: \{/);
    const past = await fetch(url, {
      headers: { accept: 'text/event-stream', 'last-event-id': String((await client.get(job_id as string)).sequence) },
    });
    assert.equal(past.status, 204);
  });

  test('WatchJobs tells every change of matching jobs, and resumes by its token', async () => {
    await using service = await startService();
    const client = restClient(service.baseUrl);
    const label = randomUUID();
    const before = (await client.list({ label: [`run=${label}`] })) as Json;
    const leaving = new AbortController();
    const follow = async function* (token: string) {
      const url = new URL(`/api/v1/jobs:watch?label=run%3D${label}&watch_token=${encodeURIComponent(token)}`, service.baseUrl);
      const response = await fetch(url, { headers: { accept: 'application/x-ndjson' }, signal: leaving.signal });
      let text = '';
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        const lines = text.split('\n');
        text = lines.pop()!;
        for (const line of lines) yield JSON.parse(line) as Json;
      }
    };
    const { job_id } = await client.submit(picture({}, { labels: { run: label } }));
    let token = '';
    for await (const change of follow(before.watch_token as string)) {
      assert.equal((change.job as Json).job_id, job_id);
      token = change.watch_token as string;
      if ((change.job as Json).status === 'succeeded') break;
    }
    const next = await client.submit(picture({}, { labels: { run: label } }));
    for await (const change of follow(token)) {
      assert.equal((change.job as Json).job_id, next.job_id);
      if ((change.job as Json).status === 'succeeded') break;
    }
    leaving.abort();
  });
});

describe('a page of another origin', () => {
  const ORIGIN = 'http://localhost:5173';
  const submit = (url: string, origin: string) =>
    fetch(new URL('/facefusion.jobs.v1.JobService/List', url), {
      method: 'POST',
      headers: { origin, 'content-type': 'application/json' },
      body: '{}',
    });

  test('may call where its origin is named, over Connect, REST and SSE; others may not', async () => {
    await using service = await startService({ CORS_ORIGINS: `https://app.example.com,${ORIGIN}` });
    for (const path of ['/facefusion.jobs.v1.JobService/Submit', '/api/v1/jobs']) {
      const preflight = await fetch(new URL(path, service.baseUrl), {
        method: 'OPTIONS',
        headers: {
          origin: ORIGIN,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'content-type,idempotency-key',
        },
      });
      assert.equal(preflight.status, 204, path);
      assert.equal(preflight.headers.get('access-control-allow-origin'), ORIGIN);
      assert.match(preflight.headers.get('access-control-allow-headers')!, /Content-Type.*Connect-Protocol-Version.*Idempotency-Key/);
      assert.match(preflight.headers.get('access-control-allow-methods')!, /DELETE/);
    }
    const answer = await submit(service.baseUrl, ORIGIN);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('access-control-allow-origin'), ORIGIN);
    assert.match(answer.headers.get('access-control-expose-headers')!, /Grpc-Status/);
    const { json } = await post(service, picture());
    for (const accept of ['text/event-stream', 'application/x-ndjson']) {
      const events = await fetch(new URL(`/api/v1/jobs/${json.job_id}/events`, service.baseUrl), { headers: { origin: ORIGIN, accept } });
      assert.equal(events.headers.get('access-control-allow-origin'), ORIGIN, accept);
      await events.body!.cancel();
    }
    assert.equal((await submit(service.baseUrl, 'https://evil.example')).headers.get('access-control-allow-origin'), null);
  });

  test('gets nothing where none is named, and everything with *', async () => {
    await using service = await startService();
    assert.equal((await submit(service.baseUrl, ORIGIN)).headers.get('access-control-allow-origin'), null);
    await using open = await startService({ CORS_ORIGINS: '*' });
    assert.equal((await submit(open.baseUrl, ORIGIN)).headers.get('access-control-allow-origin'), '*');
  });
});

test('without the console the address itself leads to the documentation, whose example is a job', async () => {
  await using service = await startService({ CONSOLE: 'off' });
  const page = await fetch(service.baseUrl);
  assert.equal(new URL(page.url).pathname, '/docs');
  const document = (await (await fetch(new URL('/api/v1/openapi.json', service.baseUrl))).json()) as {
    paths: Record<string, { post: { requestBody: { content: Record<string, { example: Json }> } } }>;
  };
  const { example } = document.paths['/api/v1/jobs']!.post.requestBody.content['application/json']!;
  const { json } = await post(service, { ...example, source_images: ['face.jpg'], target_image: 'target.png', parameters: {} });
  assert.equal(json.status, 'queued');
  assert.deepEqual(Object.keys(example), ['source_images', 'target_image', 'parameters']);
});
