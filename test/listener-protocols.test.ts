// The whole transport composed: gRPC, Connect, gRPC-Web and REST on one port, with health and reflection, and one close for all.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { fastifyConnectPlugin } from '@connectrpc/connect-fastify';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport, Http2SessionManager } from '@connectrpc/connect-node';
import Fastify, { type FastifyInstance } from 'fastify';
import { createBridge, type Service } from '../src/rest/bridge.ts';
import { HealthRegistry, healthService, ServingStatus } from '../src/rpc/health.ts';
import { createListener } from '../src/rpc/listener.ts';
import { reflectionServices } from '../src/rpc/reflection.ts';
import { bookstore } from './fixtures/rest/bookstore.ts';
import { BookService } from './fixtures/rest/bookstore_pb.js';

describe('one port', () => {
  let app: FastifyInstance;
  let baseUrl: string;
  const health = new HealthRegistry();

  before(async () => {
    const shutdown = new AbortController();
    const listener = createListener({ shutdown, graceMs: 5_000 });
    const services: Service[] = [{ desc: BookService, implementation: bookstore }, healthService(health)];
    const all = [...services, ...reflectionServices(services.map((service) => service.desc))];
    const bridge = createBridge(services, [], { report: () => {}, shutdownSignal: shutdown.signal });
    app = Fastify({ serverFactory: listener.serverFactory, forceCloseConnections: 'idle', frameworkErrors: bridge.frameworkErrors });
    app.addHook('preClose', listener.close);
    await app.register(fastifyConnectPlugin, {
      shutdownSignal: shutdown.signal,
      routes: (router) => {
        for (const { desc, implementation } of all) router.service(desc, implementation);
      },
    });
    await app.register(bridge.plugin);
    baseUrl = await app.listen({ port: 0, host: '127.0.0.1' });
    health.set('', ServingStatus.SERVING);
  });
  after(() => app.close());

  const transports: Record<string, () => Transport> = {
    gRPC: () => createGrpcTransport({ baseUrl }),
    'gRPC-Web over HTTP/1.1': () => createGrpcWebTransport({ baseUrl, httpVersion: '1.1' }),
    'Connect over HTTP/1.1': () => createConnectTransport({ baseUrl, httpVersion: '1.1' }),
    'Connect over HTTP/2 in JSON': () => createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: false }),
  };
  for (const [protocol, transport] of Object.entries(transports)) {
    test(`${protocol} reaches the same implementation`, async () => {
      const client = createClient(BookService, transport());
      assert.equal((await client.getBook({ bookId: 'b1' })).book?.bookId, 'b1');
      await assert.rejects(client.getBook({ bookId: 'missing' }), (error) => ConnectError.from(error).code === Code.NotFound);
    });
  }

  test('REST does, too', async () => {
    const response = await fetch(`${baseUrl}/api/v1/books/b1`);
    assert.equal(((await response.json()) as { book_id: string }).book_id, 'b1');
    assert.equal((await fetch(`${baseUrl}/api/v1/books/missing`)).status, 404);
  });

  test('close ends a health watch with UNAVAILABLE', async () => {
    const sessionManager = new Http2SessionManager(baseUrl);
    const client = createClient(healthService(health).desc, createGrpcTransport({ baseUrl, sessionManager }));
    const statuses = client.watch({})[Symbol.asyncIterator]();
    assert.equal((await statuses.next()).value?.status, ServingStatus.SERVING);
    const [ended] = await Promise.allSettled([statuses.next(), app.close()]);
    assert.equal(ended.status === 'rejected' && ConnectError.from(ended.reason).code, Code.Unavailable);
    sessionManager.abort();
  });
});
