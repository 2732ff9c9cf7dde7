// What the one port answers beside the RPCs: errors of plain routes, and paths that nobody serves.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Code } from '@connectrpc/connect';
import { pino } from 'pino';
import { JobsError } from '../src/jobs/errors.ts';
import { toConnectError } from '../src/rpc/errors.ts';
import { HealthRegistry, healthService } from '../src/rpc/health.ts';
import { openPort, type Port } from './fixtures/rpc/port.ts';

/** Nothing here is asked for an identity. */
const noOne = () => assert.fail('nobody was to be asked');

test('a plain route that fails gives a reference and logs the cause; a path of nobody is told where to look', async () => {
  const lines: { err?: { message: string }; reference?: string }[] = [];
  const port = await openPort([], {
    guard: { identify: noOne, addressOf: noOne, noteRefusal: noOne, ruleOf: noOne },
    log: pino({}, { write: (line) => void lines.push(JSON.parse(line)) }),
    routes(app) {
      app.get('/broken', async () => {
        throw new Error('the secret cause');
      });
    },
  });
  try {
    const base = port.url;
    const broken = await fetch(new URL('/broken', base));
    const text = await broken.text();
    assert.deepEqual([broken.status, JSON.parse(text).code], [500, 'INTERNAL']);
    assert.doesNotMatch(text, /secret/);
    const { err, reference } = lines.find((line) => line.reference !== undefined) ?? {};
    assert.equal(err?.message, 'the secret cause');
    assert.ok(reference !== undefined && text.includes(reference));

    const nowhere = await fetch(new URL('/nowhere', base));
    const answer = (await nowhere.json()) as { code: string; message: string };
    assert.deepEqual([nowhere.status, answer.code], [404, 'NOT_FOUND']);
    assert.match(answer.message, /nothing at \/nowhere; the API is under \/api\/v1/);
  } finally {
    await port.close();
  }
  assert.deepEqual(port.counted, ['GET /broken internal', 'GET unmatched not_found']);
});

describe('routes that are no rpc', () => {
  let port: Port;
  before(async () => {
    port = await openPort([healthService(new HealthRegistry())], {
      routes(app) {
        app.get('/api/v1/things/:id', async () => 'a thing');
        // As plugins bring theirs: they are there only once all is ready.
        void app.register(async (scope) => {
          scope.post('/api/v1/things', async (_request, reply) => await reply.code(201).send());
          scope.route({ method: ['PATCH', 'DELETE'], url: '/api/v1/things/:id', handler: async (_request, reply) => await reply.send() });
          scope.get('/a.b/*', async () => 'a file');
        });
      },
    });
  });
  after(() => port.close());

  for (const [path, allow] of [
    ['/healthz', 'GET, HEAD, OPTIONS'],
    ['/readyz?now', 'GET, HEAD, OPTIONS'],
    ['/docs', 'GET, HEAD, OPTIONS'],
    ['/a.b/c/d', 'GET, HEAD, OPTIONS'],
    ['/api/v1/openapi.json', 'GET, HEAD, OPTIONS'],
    ['/api/v1/things', 'POST, OPTIONS'],
    ['/api/v1/things/1', 'DELETE, GET, HEAD, PATCH, OPTIONS'],
    ['/grpc.health.v1.Health/Check', 'POST'],
  ] as const) {
    test(`${path} refuses a method that it does not take with 405, and says which it does`, async () => {
      const wrong = await fetch(new URL(path, port.url), { method: 'PUT' });
      assert.deepEqual([wrong.status, wrong.headers.get('allow')], [405, allow]);
      if (path.startsWith('/grpc')) return;
      assert.deepEqual(await wrong.json(), {
        code: 'UNIMPLEMENTED',
        message: `PUT is not possible at ${path.replace('?now', '')}, only ${allow}`,
        details: [],
      });
      const asked = await fetch(new URL(path, port.url), { method: 'OPTIONS' });
      assert.deepEqual([asked.status, asked.headers.get('allow')], [204, allow]);
    });
  }

  for (const path of ['/healthz', '/readyz', '/docs', '/docs/start.js', '/api/v1/openapi.json', '/api/v1/things/1']) {
    test(`${path} answers HEAD as GET, without the body`, async () => {
      const [head, get] = await Promise.all(['HEAD', 'GET'].map((method) => fetch(new URL(path, port.url), { method })));
      const bytes = Buffer.byteLength(await get!.text());
      const facts = (answer: Response) => [answer.status, answer.headers.get('content-type'), answer.headers.get('content-length')];
      assert.deepEqual([facts(head!), await head!.text()], [facts(get!), '']);
      assert.equal(Number(head!.headers.get('content-length')), bytes);
    });
  }

  for (const path of ['/nothing', '/aXb/c', '/api/v1/nothing', '/api/v1/things/1/2', '/api/v1']) {
    test(`${path} is nobody's, whatever the method`, async () => {
      for (const method of ['GET', 'PUT', 'OPTIONS']) {
        const { status, headers } = await fetch(new URL(path, port.url), { method });
        assert.deepEqual([status, headers.get('allow')], [404, null], method);
      }
    });
  }
});

test('what lies behind a refusal is reported, and the caller gets its words alone', () => {
  const reported: unknown[] = [];
  const full = new JobsError('exhausted', 'STORAGE_FULL', 'the disk is full', { cause: new Error('SQLITE_FULL') });
  const told = toConnectError(full, (error) => reported.push(error));
  assert.deepEqual([told.code, told.rawMessage, reported], [Code.ResourceExhausted, 'the disk is full', [full]]);
  toConnectError(JobsError.jobNotFound('job_1'), (error) => reported.push(error));
  assert.equal(reported.length, 1, 'what a caller did wrong is not the log’s affair');
});
