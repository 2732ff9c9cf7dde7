// REST calls are taken before Fastify sees them, and answered as through it: here both ways answer the same requests. What is no rpc's is Fastify's.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { createContextValues } from '@connectrpc/connect';
import Fastify, { type FastifyInstance } from 'fastify';
import { createBridge } from '../src/rest/bridge.ts';
import { bookstore, type Implementation } from './fixtures/rest/bookstore.ts';
import { BookService } from './fixtures/rest/bookstore_pb.js';
import { openPort, type Port } from './fixtures/rpc/port.ts';

const services = (implementation: object) => [{ desc: BookService, implementation }];

async function ask(port: number, method: string, path: string, body = '', headers: Record<string, string> = {}) {
  const type: Record<string, string> = body === '' ? {} : { 'content-type': 'application/json' };
  const request = http.request({ host: '127.0.0.1', port, method, path, agent: false, headers: { ...type, ...headers } });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  const { date, connection, 'keep-alive': keepAlive, 'x-request-id': id, ...rest } = response.headers;
  return { status: response.statusCode, headers: rest, text };
}

describe('in front of Fastify and through it', () => {
  let through: FastifyInstance;
  let front: http.Server;
  const port = (server: { address(): unknown }) => (server.address() as AddressInfo).port;
  before(async () => {
    const implementation: Implementation = {
      ...bookstore,
      getBook: (request, context) => {
        context.responseHeader.append('set-cookie', 'a=1');
        context.responseHeader.append('set-cookie', 'b=2');
        context.responseTrailer.set('x-tail', 'end');
        return bookstore.getBook!(request, context);
      },
    };
    const bridge = createBridge(services(implementation), [], { report: () => {} });
    through = Fastify({ forceCloseConnections: true, frameworkErrors: bridge.frameworkErrors });
    await through.register(bridge.plugin);
    await through.listen({ port: 0, host: '127.0.0.1' });
    front = http.createServer((request, response) => {
      if (!bridge.take(request, response, createContextValues(), {})) through.routing(request, response);
    });
    front.listen(0, '127.0.0.1');
    await once(front, 'listening');
  });
  after(async () => {
    front.close();
    front.closeAllConnections();
    await through.close();
  });

  for (const [method, path, body, status] of [
    ['GET', '/api/v1/books/b1', '', 200],
    ['GET', '/api/v1/books/K%C3%A4se%20%E2%82%AC', '', 200],
    ['GET', '/api/v1/books/b1?shelf=%E2%82%AC', '', 200],
    ['HEAD', '/api/v1/books/b1', '', 200],
    ['GET', 'http://example.com/api/v1/books/b1', '', 200],
    ['GET', '/api/v1/books/missing', '', 404],
    ['GET', '/api/v1/books/b1?unknown=1', '', 400],
    ['GET', '/api/v1/books/%zz', '', 400],
    ['GET', '/api/v1/books/b1/cover', '', 302],
    ['POST', '/api/v1/books', '{"title":"Emma"}', 202],
    ['POST', '/api/v1/books', '{"title":', 400],
    ['POST', '/api/v1/books/b1:purge', '', 202],
    ['OPTIONS', '/api/v1/books/b1', '', 204],
    ['PUT', '/api/v1/books/b1', '', 405],
    ['GET', '/api/v1/nothing', '', 404],
  ] as const) {
    test(`${method} ${path} ${body}`, async () => {
      const [a, b] = await Promise.all([ask(port(front), method, path, body), ask(port(through.server), method, path, body)]);
      assert.equal(a.status, status);
      assert.deepEqual(a, b);
    });
  }
});

describe('the one port', () => {
  let served: Port;
  let port = 0;
  const leaving = Promise.withResolvers<void>();
  const next = async (count: number) => {
    await served.untilCounted(count);
    return served.counted.splice(0);
  };
  before(async () => {
    const implementation = {
      ...bookstore,
      listBooks: async (_request: unknown, { signal }: { signal: AbortSignal }) => {
        leaving.resolve();
        await once(signal, 'abort');
        throw signal.reason;
      },
    };
    served = await openPort(services(bookstore), {
      restServices: services(implementation),
      maxBodyBytes: 1024,
      corsOrigins: ['https://app.example.com'],
      routes: (app) => void app.get('/own', async () => 'mine'),
    });
    port = Number(new URL(served.url).port);
  });
  after(async () => await served.close());

  test('each request is counted once, whoever serves it', async () => {
    for (const [method, path, expected] of [
      ['GET', '/api/v1/books/b1', 'GET bookstore.v1.BookService/GetBook ok'],
      ['GET', '/api/v1/books/missing', 'GET bookstore.v1.BookService/GetBook not_found'],
      ['GET', '/api/v1/books/b1?unknown=1', 'GET unmatched invalid_argument'],
      ['GET', '/api/v1/nothing', 'GET /api/v1/* not_found'],
      ['GET', '/own', 'GET /own ok'],
      ['GET', '/nowhere', 'GET unmatched not_found'],
    ] as const) {
      await ask(port, method, path);
      assert.deepEqual(await next(1), [expected], path);
    }
    const bad = await ask(port, 'GET', '/api/v1/books/b1', '', { host: 'a b' });
    assert.deepEqual([bad.status, await next(1)], [400, ['GET unmatched invalid_argument']]);
  });
  test('a page of a named origin may read the answer, another may not', async () => {
    const [named, other] = await Promise.all(
      ['https://app.example.com', 'https://evil.example.com'].map((origin) => ask(port, 'GET', '/api/v1/books/b1', '', { origin })),
    );
    assert.equal(named!.headers['access-control-allow-origin'], 'https://app.example.com');
    assert.equal(other!.headers['access-control-allow-origin'], undefined);
    assert.deepEqual([named!.headers.vary, other!.headers.vary], ['Origin', 'Origin']);
    await next(2);
  });
  test('over HTTP/2 it is the same answer', async () => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    const stream = session.request({ ':path': '/api/v1/books/b1', 'x-request-id': 'mine' });
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
    let text = '';
    for await (const chunk of stream.setEncoding('utf8')) text += chunk as string;
    session.close();
    const plain = await ask(port, 'GET', '/api/v1/books/b1');
    assert.deepEqual(
      [headers[':status'], headers['content-type'], headers['x-request-id']],
      [200, 'application/json; charset=utf-8', 'mine'],
    );
    assert.equal(headers['content-length'], String(Buffer.byteLength(text)));
    assert.equal(text, plain.text);
    await next(2);
  });
  test('a caller that leaves ends its call, and is counted', async () => {
    const request = http.get({ host: '127.0.0.1', port, path: '/api/v1/books', agent: false });
    request.on('error', () => {});
    await leaving.promise;
    request.destroy();
    assert.match((await next(1))[0]!, /^GET bookstore.v1.BookService\/ListBooks canceled$/);
  });
});
