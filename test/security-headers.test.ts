// What browsers are told with every answer, good or bad; which pages of other origins may call; and what the OpenAPI document says of both ways in that it
// does not make of descriptors: credentials and uploads.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import type { Json } from './api/clients.ts';
import { type Secured, startSecured } from './api/secured.ts';
import { type Service, startService } from './api/service.ts';

const ORIGIN = 'https://app.example.com';
const JOB = JSON.stringify({ source_images: ['face.jpg'], target_image: 'target.png' });

function assertEvery(headers: Headers, what: string): void {
  assert.equal(headers.get('x-content-type-options'), 'nosniff', what);
  assert.equal(headers.get('referrer-policy'), 'no-referrer', what);
}

function assertApi(headers: Headers, what: string): void {
  assertEvery(headers, what);
  assert.equal(headers.get('cache-control'), 'no-store', what);
  assert.equal(headers.get('content-security-policy'), "default-src 'none'; frame-ancestors 'none'", what);
}

describe('answers of the API', () => {
  let service: Service;
  before(async () => {
    service = await startService({ MAX_BODY_BYTES: '64K' });
  });
  after(() => service[Symbol.asyncDispose]());
  const ask = (path: string, init: RequestInit = {}) => fetch(new URL(path, service.baseUrl), { redirect: 'manual', ...init });
  const post = (path: string, body: string | FormData, type = 'application/json') =>
    ask(path, { method: 'POST', body, headers: typeof body === 'string' ? { 'content-type': type } : {} });

  test('are kept nowhere, run nothing and are shown in no frame, whatever they say', async () => {
    const { job_id } = (await (await post('/api/v1/jobs', JOB)).json()) as { job_id: string };
    const form = new FormData();
    form.set('file', new File([Buffer.from('ffd8ffe000104a46494600010100000100010000ffd9', 'hex')], 'a.jpg'));
    const service_ = '/facefusion.jobs.v1.JobService';
    for (const [what, status, answer] of [
      ['a job', 200, ask(`/api/v1/jobs/${job_id}`)],
      ['a new job', 202, post('/api/v1/jobs', JOB)],
      ['a job that is not valid', 400, post('/api/v1/jobs', '{"target_image": 3}')],
      ['no JSON', 400, post('/api/v1/jobs', '{')],
      ['no job', 404, ask('/api/v1/jobs/job_20250405_aaaaaaaaaaaa')],
      ['nothing below the API', 404, ask('/api/v1/nothing')],
      ['nothing anywhere', 404, ask('/nothing')],
      ['another method', 405, ask('/api/v1/jobs', { method: 'PATCH' })],
      ['another type', 415, post('/api/v1/jobs', 'x', 'text/plain')],
      ['too much', 413, post('/api/v1/jobs', JSON.stringify({ x: 'x'.repeat(100_000) }))],
      ['a form', 201, post('/api/v1/uploads', form)],
      ['a form that is none', 415, post('/api/v1/uploads', '{}')],
      ['an upload that is not there', 404, ask('/api/v1/uploads/0123456789abcdef0123456789abcdef')],
      ['tus', 412, post('/api/v1/tus', '', 'application/offset+octet-stream')],
      ['the document', 200, ask('/api/v1/openapi.json')],
      ['health', 200, ask('/healthz')],
      ['readiness', 200, ask('/readyz')],
      ['Connect', 200, post(`${service_}/List`, '{}')],
      ['Connect, an error', 404, post(`${service_}/Get`, JSON.stringify({ job_id: 'job_20250405_aaaaaaaaaaaa' }))],
      ['gRPC-Web', 200, post(`${service_}/List`, '\0\0\0\0\0', 'application/grpc-web+proto')],
    ] as const) {
      const { status: got, headers, body } = await answer;
      await body?.cancel();
      assert.equal(got, status, what);
      assertApi(headers, what);
    }
    const events = await ask(`/api/v1/jobs/${job_id}/events`, { headers: { accept: 'text/event-stream' } });
    await events.body?.cancel();
    assertApi(events.headers, 'a stream');
  });

  test('also where it is no request at all, or one for another host', async () => {
    const raw = async (bytes: string) => {
      const socket = connect(Number(new URL(service.baseUrl).port), '127.0.0.1');
      socket.end(bytes);
      const [head = ''] = (await text(socket)).split('\r\n\r\n');
      const [status = '', ...lines] = head.split('\r\n');
      return {
        status: status.split(' ')[1],
        headers: new Headers(lines.map((line) => line.split(/: (.*)/).slice(0, 2) as [string, string])),
      };
    };
    for (const [bytes, status] of [
      ['nonsense\r\n\r\n', '400'],
      [`GET / HTTP/1.1\r\nhost: x\r\nlong: ${'x'.repeat(20_000)}\r\n\r\n`, '431'],
      ['GET / HTTP/1.1\r\nhost: a b\r\n\r\n', '400'],
      ['GET /healthz HTTP/1.1\r\nhost: rebound.example\r\n\r\n', '421'],
    ] as const) {
      const answer = await raw(bytes);
      assert.equal(answer.status, status, bytes.slice(0, 40));
      assertApi(answer.headers, bytes.slice(0, 40));
    }
  });

  test('pages and results have policies of their own', async () => {
    const docs = await ask('/docs');
    assertEvery(docs.headers, 'docs');
    assert.match(docs.headers.get('content-security-policy')!, /script-src 'self'.*frame-ancestors 'none'/);
    const job = (await (
      await ask('/api/v1/jobs', { method: 'POST', body: JOB, headers: { 'content-type': 'application/json', prefer: 'wait=30' } })
    ).json()) as { job_id: string; result_url: string };
    const result = await ask(job.result_url);
    await result.body?.cancel();
    assertEvery(result.headers, 'a result');
    assert.match(result.headers.get('cache-control')!, /private, max-age=\d+, immutable/);
    assert.match(result.headers.get('content-security-policy')!, /default-src 'none'; sandbox/);
  });
});

describe('pages of other origins, where callers have to say who they are', () => {
  let service: Secured;
  before(async () => {
    const tenants = { tiers: { slow: { submits_per_minute: 1 } }, tenants: { studio: { tier: 'slow' } } };
    service = await startSecured({ CORS_ORIGINS: ORIGIN }, { tenants });
    await service.furnish('studio');
  });
  after(() => service[Symbol.asyncDispose]());
  const WAYS = [
    ['REST', '/api/v1/jobs', 'application/json', JOB],
    ['Connect', '/facefusion.jobs.v1.JobService/Submit', 'application/json', JSON.stringify({ job: JSON.parse(JOB) })],
    ['gRPC-Web', '/facefusion.jobs.v1.JobService/Submit', 'application/grpc-web+proto', '\0\0\0\0\0'],
  ] as const;
  const call = (path: string, type: string, body: string, headers: Record<string, string> = {}) =>
    fetch(new URL(path, service.baseUrl), { method: 'POST', body, headers: { origin: ORIGIN, 'content-type': type, ...headers } });

  for (const [name, path, type, body] of WAYS) {
    test(`${name}: a preflight needs no credential, and a page may read why it was refused`, async () => {
      const asked =
        'authorization,x-api-key,content-type,connect-protocol-version,connect-timeout-ms,x-grpc-web,grpc-timeout,idempotency-key';
      const preflight = await fetch(new URL(path, service.baseUrl), {
        method: 'OPTIONS',
        headers: { origin: ORIGIN, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
      });
      assert.equal(preflight.status, 204);
      assert.equal(preflight.headers.get('access-control-allow-origin'), ORIGIN);
      const allowed = preflight.headers.get('access-control-allow-headers')!.toLowerCase().split(', ');
      for (const header of asked.split(',')) assert.ok(allowed.includes(header), header);
      const refused = await call(path, type, body);
      await refused.body?.cancel();
      assert.equal(refused.headers.get('access-control-allow-origin'), ORIGIN);
      assert.ok(refused.status === 401 || refused.headers.get('grpc-status') === '16', `${refused.status}`);
      const exposed = refused.headers.get('access-control-expose-headers')!.toLowerCase().split(', ');
      for (const header of [
        'grpc-status',
        'grpc-message',
        'grpc-status-details-bin',
        'www-authenticate',
        'retry-after',
        'x-request-id',
        'location',
      ])
        assert.ok(exposed.includes(header), header);
      assert.equal(refused.headers.get('vary'), 'Origin');
      const other = await fetch(new URL(path, service.baseUrl), {
        method: 'OPTIONS',
        headers: { origin: 'https://evil.example', 'access-control-request-method': 'POST' },
      });
      await other.body?.cancel();
      assert.equal(other.headers.get('access-control-allow-origin'), null);
    });
  }

  test('a page may read how often it may submit', async () => {
    const { secret } = await service.key({ tenant: 'studio', scopes: ['submit'] });
    let last: Response | undefined;
    for (let i = 0; i < 2; i++) last = await call('/api/v1/jobs', 'application/json', JOB, { authorization: `Bearer ${secret}` });
    assert.equal(last!.status, 429);
    assertApi(last!.headers, 'over the rate');
    const exposed = last!.headers.get('access-control-expose-headers')!.toLowerCase().split(', ');
    for (const name of ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset', 'retry-after']) {
      assert.ok(exposed.includes(name), name);
      assert.notEqual(last!.headers.get(name), null, name);
    }
  });

  test('where no origin is named no answer says anything about them', async () => {
    await using closed = await startService();
    for (const method of ['OPTIONS', 'POST']) {
      const answer = await fetch(new URL('/api/v1/jobs', closed.baseUrl), {
        method,
        headers: { origin: ORIGIN, 'access-control-request-method': 'POST', 'content-type': 'application/json' },
      });
      await answer.body?.cancel();
      assert.deepEqual(
        [...answer.headers.keys()].filter((name) => name.startsWith('access-control-')),
        [],
      );
    }
  });
});

interface Document {
  readonly paths: Record<string, Record<string, { readonly operationId: string }>>;
  readonly security?: object[];
  readonly components: { readonly securitySchemes?: Record<string, Json> };
}

describe('the OpenAPI document', () => {
  const documentOf = async (service: Service) =>
    (await (await fetch(new URL('/api/v1/openapi.json', service.baseUrl))).json()) as unknown as Document;

  test('says how callers prove who they are, where they have to', async () => {
    await using open = await startService();
    const without = await documentOf(open);
    assert.equal(without.security, undefined);
    assert.equal(without.components.securitySchemes, undefined);
    await using secured = await startSecured();
    const document = await documentOf(secured);
    assert.deepEqual(document.security, [{ bearer: [] }, { apiKey: [] }]);
    const { bearer, apiKey } = document.components.securitySchemes!;
    assert.equal(bearer!.scheme, 'bearer');
    assert.deepEqual([apiKey!.in, apiKey!.name], ['header', 'X-API-Key']);
    assert.ok((await new Validator().validate(document as unknown as Record<string, unknown>)).valid);
    await using both = await startSecured({ ALLOW_ANONYMOUS: 'yes' });
    assert.deepEqual((await documentOf(both)).security, [{}, { bearer: [] }, { apiKey: [] }]);
  });

  test('has every way to upload that there is, and each is there', async () => {
    await using service = await startSecured();
    const document = await documentOf(service);
    const described = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.entries(operations)
        .filter(([, { operationId }]) => operationId.startsWith('Uploads_'))
        .map(([method]) => `${method.toUpperCase()} ${path}`),
    );
    assert.deepEqual(described.toSorted(), [
      'DELETE /api/v1/tus/{id}',
      'GET /api/v1/uploads/{id}',
      'HEAD /api/v1/tus/{id}',
      'PATCH /api/v1/tus/{id}',
      'POST /api/v1/tus',
      'POST /api/v1/uploads',
    ]);
    const { secret } = await service.key({ tenant: 'studio', scopes: ['read', 'submit'] });
    for (const operation of described) {
      const [method, path] = operation.split(' ') as [string, string];
      const send = (headers: Record<string, string>) =>
        fetch(new URL(path.replace('{id}', '0123456789abcdef0123456789abcdef'), service.baseUrl), {
          method,
          headers: { 'tus-resumable': '1.0.0', 'upload-length': '5', 'upload-offset': '0', ...headers },
          ...(method === 'PATCH' ? { body: 'hello' } : {}),
        });
      assert.equal((await send({})).status, 401, operation);
      const answer = await send({ 'x-api-key': secret, 'content-type': 'application/offset+octet-stream' });
      const body = await answer.text();
      assert.doesNotMatch(body, /there is nothing at|there is no operation/, operation);
      assert.ok(answer.status < 500, operation);
    }
  });
});
