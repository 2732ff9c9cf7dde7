// Raw sockets on one side, the listener under Fastify on the other: what a slow or silent client gets, and what a patient one keeps.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import { Code, type ConnectError } from '@connectrpc/connect';
import Fastify, { type FastifyInstance } from 'fastify';
import { createListener, type ListenerOptions } from '../src/rpc/listener.ts';

const SHORT = { handshakeMs: 150, headersMs: 200, bodyMs: 200, pingMs: 150, idleMs: 60_000, graceMs: 5_000 };
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const SETTINGS = frame(4, 0, 0, Buffer.alloc(0));

interface Served {
  app: FastifyInstance;
  port: number;
  shutdown: AbortController;
  /** Resolves when a request has reached `/wait`, and answers it when called. */
  waiting: Promise<() => void>;
  /** Resolves when so many requests have begun. */
  begun(count: number): Promise<void>;
}

async function serve(options: ListenerOptions = {}): Promise<Served> {
  const shutdown = new AbortController();
  const listener = createListener({ ...SHORT, shutdown, ...options });
  const app = Fastify({ serverFactory: listener.serverFactory, forceCloseConnections: 'idle' });
  const { promise: waiting, resolve } = Promise.withResolvers<() => void>();
  const requests = new EventEmitter();
  let count = 0;
  app.addHook('onRequest', async () => {
    requests.emit('begun', ++count);
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));
  app.get('/', async (request) => `hello over ${request.raw.httpVersion}`);
  app.get('/wait', (_request, reply) => resolve(() => reply.send('done')));
  app.post('/stall', () => new Promise(() => {}));
  app.post('/upload', async (request) => String((await text(request.raw)).length));
  // What a Watch does: headers at once, messages when there are any, and the reason of the shutdown as its last word.
  app.get('/watch', (request, reply) => {
    reply.hijack();
    reply.raw.writeHead(200);
    reply.raw.write('first\n');
    request.raw.socket.on('say', () => reply.raw.write('again\n'));
    shutdown.signal.addEventListener('abort', () => reply.raw.end(`${Code[(shutdown.signal.reason as ConnectError).code]}\n`));
  });
  app.addHook('preClose', listener.close);
  await app.listen({ port: 0, host: '127.0.0.1' });
  const begun = async (wanted: number) => {
    while (count < wanted) await once(requests, 'begun');
  };
  return { app, shutdown, waiting, begun, port: (app.server.address() as AddressInfo).port };
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** POST /upload without its end, as an HPACK block without compression. */
const UPLOAD_HEADERS = (() => {
  const literal = (name: string, value: string) =>
    Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]);
  return Buffer.concat([literal(':method', 'POST'), literal(':path', '/upload'), literal(':scheme', 'http'), literal(':authority', 'x')]);
})();

/** Sends the bytes and resolves with what came back once the other side has closed. */
async function probe(socket: net.Socket, ...parts: (string | Buffer)[]): Promise<string> {
  for (const part of parts) socket.write(part);
  let got = '';
  socket.on('data', (chunk) => {
    got += chunk.toString('latin1');
  });
  await gone(socket);
  return got;
}

/** Resolves when the stream has closed, with an error or without. */
function gone(stream: Duplex): Promise<void> {
  return new Promise((resolve) => stream.on('error', () => {}).once('close', resolve));
}

function get(session: http2.ClientHttp2Session, path: string, headers: object = {}): Promise<string> {
  const stream = session.request({ ':path': path, ...headers });
  return text(stream);
}

describe('one port in the clear', () => {
  let served: Served;
  let session: http2.ClientHttp2Session;
  let watch: http2.ClientHttp2Stream;
  const heard: string[] = [];

  before(async () => {
    served = await serve();
    session = http2.connect(`http://127.0.0.1:${served.port}`);
    watch = session.request({ ':path': '/watch' });
    watch.on('data', (chunk) => heard.push(String(chunk)));
    await once(watch, 'data');
  });
  after(async () => {
    session.destroy();
    await served.app.close();
  });

  const connect = () => net.connect(served.port, '127.0.0.1');

  test('HTTP/1.1 and HTTP/2 are both answered', async () => {
    assert.equal(await (await fetch(`http://127.0.0.1:${served.port}/`)).text(), 'hello over 1.1');
    assert.equal(await get(session, '/'), 'hello over 2.0');
  });

  test('the protocol is told even when the first bytes come one by one', async () => {
    const socket = connect().setNoDelay(true);
    await once(socket, 'connect');
    const request = 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n';
    for (const byte of request.slice(0, 4)) {
      socket.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.match(await probe(socket, request.slice(4)), /^HTTP\/1\.1 404/);
    const second = connect().setNoDelay(true);
    for (const byte of PREFACE.slice(0, 4)) {
      second.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    // The server's own SETTINGS frame is the first thing that an HTTP/2 server says.
    second.write(PREFACE.slice(4));
    const [first] = (await once(second, 'data')) as [Buffer];
    assert.equal(first[3], 4);
    second.destroy();
  });

  test('a silent client is cut off', async () => assert.equal(await probe(connect()), ''));
  test('half of a preface is cut off', async () => {
    await probe(connect(), 'PR');
    await probe(connect(), PREFACE.slice(0, 20));
  });
  test('a preface without settings is cut off', async () => {
    await probe(connect(), PREFACE);
  });
  test('HTTP/1.1: slow headers get 408', async () =>
    assert.match(await probe(connect(), 'GET / HTTP/1.1\r\nhost: x\r\n'), /^HTTP\/1\.1 408/));
  test('HTTP/1.1: a body that stalls gets 408', async () => {
    assert.match(await probe(connect(), 'POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nsome'), /^HTTP\/1\.1 408/);
  });
  test('HTTP/2: headers that never end are cut off', async () => {
    await probe(connect(), PREFACE, SETTINGS, frame(1, 0, 1, UPLOAD_HEADERS));
  });
  test('HTTP/2: a body that stalls is reset with ENHANCE_YOUR_CALM, and its session lives', async () => {
    const stream = session.request({ ':path': '/upload', ':method': 'POST' });
    stream.write('some');
    await gone(stream);
    assert.equal(stream.rstCode, http2.constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });
  test('HTTP/2: a client that answers no ping is cut off', async () => {
    await probe(connect(), PREFACE, SETTINGS, frame(4, 1, 0, Buffer.alloc(0)));
  });
  test('a drip of a byte at a time does not keep a body alive', async () => {
    const stream = session.request({ ':path': '/upload', ':method': 'POST' });
    const drip = setInterval(() => stream.write('.'), 20);
    await gone(stream);
    clearInterval(drip);
    assert.equal(stream.rstCode, http2.constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });

  for (const version of ['1.1', '2']) {
    test(`HTTP/${version}: an upload that takes longer than the body timer and keeps sending survives`, async () => {
      let body: NodeJS.WritableStream;
      let answer: Promise<string>;
      if (version === '2') {
        const stream = session.request({ ':path': '/upload', ':method': 'POST' });
        body = stream;
        answer = text(stream);
      } else {
        const request = http.request({ port: served.port, host: '127.0.0.1', path: '/upload', method: 'POST' });
        body = request;
        answer = once(request, 'response').then(([response]) => text(response as http.IncomingMessage));
      }
      const chunk = Buffer.alloc(2048, 'x');
      const started = performance.now();
      let sent = 0;
      while (performance.now() - started < 3 * SHORT.bodyMs) {
        body.write(chunk);
        sent += chunk.length;
        await new Promise((resolve) => setTimeout(resolve, 25));
      }
      body.end();
      assert.equal(await answer, String(sent));
    });
  }

  test("HTTP/2: a body that waits here to be read stalls no other, and is not its sender's fault", async () => {
    const stalled = session.request({ ':path': '/stall', ':method': 'POST' });
    stalled.write(Buffer.alloc(200_000));
    const other = session.request({ ':path': '/upload', ':method': 'POST' });
    other.end(Buffer.alloc(200_000, 'x'));
    assert.equal(await text(other), '200000');
    await new Promise((resolve) => setTimeout(resolve, 2 * SHORT.bodyMs));
    assert.equal(stalled.closed, false);
    stalled.on('error', () => {}).close();
  });

  test('Expect: 100-continue is granted, another expectation refused', async () => {
    const granted = await probe(
      connect(),
      'POST /upload HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody',
    );
    assert.match(granted, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200/);
    assert.match(await probe(connect(), 'GET / HTTP/1.1\r\nhost: x\r\nexpect: miracles\r\nconnection: close\r\n\r\n'), /^HTTP\/1\.1 417/);
  });
  test('CONNECT is refused on both protocols', async () => {
    assert.match(await probe(connect(), 'CONNECT example.com:80 HTTP/1.1\r\nhost: example.com\r\n\r\n'), /^HTTP\/1\.1 405/);
    const stream = session.request({ ':method': 'CONNECT', ':authority': 'example.com:80' });
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
    assert.equal(headers[':status'], 405);
    stream.close();
  });
  test('an upgrade that is not offered is left aside', async () => {
    const got = await probe(connect(), 'GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n');
    assert.match(got, /^HTTP\/1\.1 200[\s\S]*hello over 1\.1/);
  });

  test('after all that, the stream that was open all the while still speaks', async () => {
    assert.equal(watch.closed, false);
    assert.deepEqual(heard, ['first\n']);
    assert.equal(await get(session, '/'), 'hello over 2.0');
  });
});

test('an HTTP/2 session without a stream is closed in time', async () => {
  const { app, port } = await serve({ idleMs: 100 });
  const session = http2.connect(`http://127.0.0.1:${port}`);
  await get(session, '/');
  await once(session, 'close');
  await app.close();
});

describe('when all connections are taken', () => {
  const ASKS = 'GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n';

  test('the one that has been idle for longest makes room, whatever it speaks', async () => {
    const { app, port } = await serve({ maxConnections: 3, handshakeMs: 60_000, headersMs: 60_000 });
    const answered = net.connect(port, '127.0.0.1');
    answered.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    await once(answered, 'data');
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on('error', () => {});
    assert.equal(await get(session, '/'), 'hello over 2.0');
    const silent = net.connect(port, '127.0.0.1');
    await once(silent, 'connect');
    for (const idle of [answered, session, silent]) {
      const closed = idle instanceof net.Socket ? gone(idle) : once(idle, 'close');
      // Stays, as the youngest.
      const next = net.connect(port, '127.0.0.1');
      next.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
      await once(next, 'data');
      await closed;
    }
    await app.close();
  });

  test('one that waits for an answer or watches keeps its place, and who comes is turned away', async () => {
    const { app, port, waiting } = await serve({ maxConnections: 2 });
    const waits = probe(net.connect(port, '127.0.0.1'), ASKS.replace('/', '/wait'));
    const session = http2.connect(`http://127.0.0.1:${port}`);
    const watch = session.request({ ':path': '/watch' });
    await once(watch, 'data');
    const answer = await waiting;
    assert.equal(await probe(net.connect(port, '127.0.0.1'), ASKS), '');
    answer();
    assert.match(await waits, /done$/);
    assert.match(await probe(net.connect(port, '127.0.0.1'), ASKS), /hello over 1\.1/);
    session.destroy();
    await app.close();
  });
});

test('a limit that is no positive number is refused at the start', () => {
  assert.throws(() => createListener({ bodyMs: 0 }), /bodyMs must be a positive number, not 0/);
});

test('close lets a call in flight finish, ends streams with UNAVAILABLE, drops idle connections, and takes no new ones', async () => {
  const { app, port, waiting, shutdown } = await serve({ handshakeMs: 5000 });
  const agent = new http.Agent({ keepAlive: true });
  const idle = http.get({ port, host: '127.0.0.1', agent, path: '/' });
  const [answer] = (await once(idle, 'response')) as [http.IncomingMessage];
  await text(answer);
  const session = http2.connect(`http://127.0.0.1:${port}`);
  const watch = session.request({ ':path': '/watch' });
  await once(watch, 'data');
  const rest = text(watch);
  const silent = net.connect(port, '127.0.0.1');
  await once(silent, 'connect');
  const inFlight = fetch(`http://127.0.0.1:${port}/wait`).then((response) => response.text());
  const finish = await waiting;

  const dropped = Promise.all([gone(silent), once(session, 'close')]);
  const closing = app.close();
  assert.equal(await rest, 'Unavailable\n');
  assert.ok(shutdown.signal.aborted);
  await dropped;
  const late = net.connect(port, '127.0.0.1');
  await assert.rejects(once(late, 'connect'), /ECONNREFUSED/);
  finish();
  assert.equal(await inFlight, 'done');
  await closing;
  agent.destroy();
});

test('close waits for a body that comes, and not for one that its sender has left', async () => {
  const { app, port, begun } = await serve({ bodyMs: 60_000, graceMs: 60_000, graceBodyMs: 200 });
  const head = 'POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\n\r\n';
  const half = (more: string) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.write(head + more);
    return socket;
  };
  const left = half('x');
  const session = http2.connect(`http://127.0.0.1:${port}`);
  const stream = session.request({ ':method': 'POST', ':path': '/upload' }, { endStream: false });
  stream.write('x');
  const coming = half('x');
  const [answer, ended, reset] = [probe(coming), probe(left), gone(stream)];
  await begun(3);
  const closing = app.close();
  const drip = setInterval(() => coming.write('x'), 50);
  assert.match(await ended, /^HTTP\/1\.1 503 .*retry-after: 2/is);
  await reset;
  assert.match(await answer, /^HTTP\/1\.1 200/);
  clearInterval(drip);
  await closing;
});

test('close destroys what is left after the grace, and every call of it is the same promise', async () => {
  const shutdown = new AbortController();
  const listener = createListener({ ...SHORT, graceMs: 100, shutdown });
  const server = listener.serverFactory(() => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const stuck = net.connect(port, '127.0.0.1');
  stuck.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
  await once(server, 'request');
  const first = listener.close();
  assert.equal(listener.close(), first);
  await Promise.all([first, gone(stuck)]);
});

describe('one port over TLS', () => {
  let served: Served;
  const scratch = mkdtempSync(join(tmpdir(), 'listener-'));
  const connect = (ALPNProtocols: string[]) =>
    tls.connect({ port: served.port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols });

  before(async () => {
    const [key, cert] = [join(scratch, 'key.pem'), join(scratch, 'cert.pem')];
    const subject = ['-subj', '/CN=localhost', '-days', '1', '-nodes'];
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-keyout', key, '-out', cert, ...subject],
      { stdio: 'ignore' },
    );
    served = await serve({ tls: { key: readFileSync(key), cert: readFileSync(cert) } });
  });
  after(async () => {
    await served.app.close();
    rmSync(scratch, { recursive: true });
  });

  test('ALPN chooses the protocol, and a client without it gets HTTP/1.1', async () => {
    const session = http2.connect(`https://127.0.0.1:${served.port}`, { rejectUnauthorized: false });
    assert.equal(await get(session, '/'), 'hello over 2.0');
    session.close();
    const socket = tls.connect({ port: served.port, host: '127.0.0.1', rejectUnauthorized: false });
    assert.match(await probe(socket, 'GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'), /hello over 1\.1/);
  });
  test('clients that are slow with handshake, headers, settings or bodies are cut off', async () => {
    await Promise.all([
      probe(net.connect(served.port, '127.0.0.1')),
      probe(connect(['http/1.1'])),
      probe(connect(['http/1.1']), 'GET / HTTP/1.1\r\n'),
      probe(connect(['http/1.1']), 'POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nsome'),
      probe(connect(['h2'])),
      probe(connect(['h2']), PREFACE),
      probe(connect(['h2']), PREFACE, SETTINGS, frame(1, 0, 1, UPLOAD_HEADERS)),
    ]);
  });
  test('close ends its streams and sessions', async () => {
    const session = http2.connect(`https://127.0.0.1:${served.port}`, { rejectUnauthorized: false });
    const watch = session.request({ ':path': '/watch' });
    await once(watch, 'data');
    const rest = text(watch);
    const closed = once(session, 'close');
    await served.app.close();
    assert.equal(await rest, 'Unavailable\n');
    await closed;
  });
});
