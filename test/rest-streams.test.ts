import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { Code, ConnectError, type HandlerContext, type Interceptor } from '@connectrpc/connect';
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import Fastify from 'fastify';
import { createBridge } from '../src/rest/bridge.ts';
import type { Timers } from '../src/rest/streams.ts';
import { createListener } from '../src/rpc/listener.ts';
import { bookstore, event, type Implementation, serve } from './fixtures/rest/bookstore.ts';
import { BookService, type WatchBookRequest, type WatchBookResponse } from './fixtures/rest/bookstore_pb.js';

type Watch = (request: WatchBookRequest, context: HandlerContext) => AsyncIterable<WatchBookResponse>;
const PATH = '/api/v1/books/b1/events';
const TYPE = 'bookstore.v1.WatchBookResponse';

const watching = (watchBook: Watch): Implementation => ({ ...bookstore, watchBook, watchBooks: watchBook });
const three = watching(async function* () {
  yield event(1, { snapshot: { title: 'Emma' } });
  yield event(2, { sale: 3 });
  yield event(0, { sale: 4 });
});

const failing = (error: Error): Watch =>
  async function* () {
    yield* [];
    throw error;
  };

/** A stream that waits for its signal, and says when it began and when it was freed. */
function waiting() {
  const began = Promise.withResolvers<HandlerContext>();
  const freed = Promise.withResolvers<unknown>();
  const watch: Watch = async function* (_request, context) {
    try {
      yield event(1, { sale: 1 });
      began.resolve(context);
      await new Promise((_, reject) => context.signal.addEventListener('abort', () => reject(context.signal.reason)));
    } finally {
      freed.resolve(context.signal.reason);
    }
  };
  return { implementation: watching(watch), began: began.promise, freed: freed.promise };
}

/** Timers that run when the test says so. */
function manual() {
  const set = new Set<{ run: () => void; ms: number }>();
  const start = (run: () => void, ms: number) => {
    const timer = { run, ms };
    set.add(timer);
    return timer;
  };
  const stop = (timer: unknown) => {
    set.delete(timer as { run: () => void; ms: number });
  };
  const timers: Timers = { setTimeout: start, clearTimeout: stop, setInterval: start, clearInterval: stop };
  return { timers, running: set, fire: (ms: number) => [...set].filter((timer) => timer.ms === ms).map((timer) => timer.run()) };
}

function events(body: string): EventSourceMessage[] {
  const all: EventSourceMessage[] = [];
  createParser({ onEvent: (message) => all.push(message) }).feed(body);
  return all;
}

/** A request over a real connection, whose answer is read as it comes. */
async function open(t: TestContext, served: Awaited<ReturnType<typeof serve>>, headers: Record<string, string> = {}, path = PATH) {
  const request = http.get({ port: await served.port(), host: '127.0.0.1', path, headers });
  t.after(() => served.app.close());
  request.on('error', () => {});
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  response.on('error', () => {});
  return { request, response };
}

test('SSE: the id is the event-id field, the event the oneof case, the data what response_body names; an id of 0 is none', async () => {
  const { call } = await serve(three);
  const reply = await call('GET', PATH, undefined, { accept: 'text/event-stream' });
  assert.equal(reply.status, 200);
  assert.equal(reply.headers['content-type'], 'text/event-stream');
  assert.equal(reply.headers['cache-control'], 'no-store');
  assert.equal(reply.headers['x-accel-buffering'], 'no');
  assert.match(reply.body, /^retry: 2000\n\n/);
  const all = events(reply.body);
  assert.deepEqual(
    all.map(({ id, event }) => [id, event]),
    [
      ['1', 'snapshot'],
      ['2', 'sale'],
      [undefined, 'sale'],
    ],
  );
  assert.deepEqual(JSON.parse(all[1]!.data), { sequence: 2, snapshot: null, sale: { copies: 3 } });
});

test('NDJSON: one message a line, whole where there is no response_body', async () => {
  const { call } = await serve(three);
  const flat = await call('GET', PATH);
  assert.equal(flat.headers['content-type'], 'application/x-ndjson');
  assert.deepEqual(
    flat.body
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).sequence),
    [1, 2, 0],
  );
  const whole = await call('GET', '/api/v1/books:watch');
  assert.deepEqual(
    whole.body
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).event.sequence),
    [1, 2, 0],
  );
});

for (const [accept, plain, expected] of [
  [undefined, false, 'application/x-ndjson'],
  ['*/*', false, 'application/x-ndjson'],
  ['*/*', true, 'text/plain; charset=utf-8'],
  [undefined, true, 'text/plain; charset=utf-8'],
  ['text/event-stream', true, 'text/event-stream'],
  ['application/json', true, 'application/x-ndjson'],
  ['application/x-ndjson', true, 'application/x-ndjson'],
  ['text/plain', true, 'text/plain; charset=utf-8'],
  ['text/*', false, 'text/event-stream'],
  ['text/html, text/event-stream;q=0.5, application/json;q=0.9', true, 'application/x-ndjson'],
  ['text/html, */*;q=0.1', false, 'application/x-ndjson'],
  ['application/x-ndjson;q=0, */*', false, 'text/event-stream'],
  ['TEXT/EVENT-STREAM', false, 'text/event-stream'],
  ['text/plain', false, 406],
  ['image/png', true, 406],
] as const) {
  test(`Accept: ${accept ?? '(none)'}${plain ? ' with a text form' : ''} is ${expected}`, async () => {
    const { call } = await serve(three, plain ? { text: { [TYPE]: () => 'line\n' } } : {});
    const reply = await call('GET', PATH, undefined, accept === undefined ? {} : { accept });
    if (typeof expected === 'number') assert.deepEqual([reply.status, reply.json.code], [expected, 'INVALID_ARGUMENT']);
    else assert.equal(reply.headers['content-type'], expected);
  });
}

for (const [how, headers, query, expected] of [
  ['the header', { 'last-event-id': '41' }, '', 41],
  ['the parameter', {}, '?last_event_id=41', 41],
  ['the header, when there are both', { 'last-event-id': '41' }, '?last_event_id=7&count=2', 41],
  ['nothing', {}, '?count=2', undefined],
  ['an encoded parameter', {}, '?last_event_id=%34%31', 41],
  ['an empty header', { 'last-event-id': '' }, '', undefined],
  ['the field itself', {}, '?after_sequence=5', 5],
  ['the header, when the field is there too', { 'last-event-id': '41' }, '?after_sequence=5', 41],
] as const) {
  test(`a stream is resumed from ${how}`, async () => {
    let after: number | undefined;
    const { call } = await serve(
      watching(async function* (request) {
        after = request.afterSequence;
        yield event(1, { sale: 1 });
      }),
    );
    const reply = await call('GET', PATH + query, undefined, { accept: 'text/event-stream', ...headers });
    assert.equal(reply.status, 200);
    assert.equal(after, expected);
  });
}

test('a Last-Event-ID that the field cannot hold is 400, and names the field', async () => {
  const { call } = await serve(three);
  for (const id of ['x', '-1', '1.5', '99999999999']) {
    const reply = await call('GET', PATH, undefined, { accept: 'text/event-stream', 'last-event-id': id });
    assert.deepEqual([reply.status, reply.json.details[0].field_violations[0].field], [400, 'after_sequence']);
  }
});

test('a resumed stream with nothing more to say is 204; one that was not resumed is an empty 200', async () => {
  const { call } = await serve(watching(async function* () {}));
  const sse = { accept: 'text/event-stream' };
  assert.equal((await call('GET', PATH, undefined, { ...sse, 'last-event-id': '9' })).status, 204);
  assert.equal((await call('GET', PATH, undefined, sse)).status, 200);
  const ndjson = await call('GET', PATH, undefined, { 'last-event-id': '9' });
  assert.deepEqual([ndjson.status, ndjson.body], [200, '']);
});

test('an error before the first message has a status of its own', async () => {
  const { call } = await serve(watching(failing(new ConnectError('no such book', Code.NotFound))));
  for (const accept of ['text/event-stream', 'application/x-ndjson']) {
    const reply = await call('GET', PATH, undefined, { accept });
    assert.deepEqual([reply.status, reply.json], [404, { code: 'NOT_FOUND', message: 'no such book', details: [] }]);
  }
});

test('an error in mid-stream is the last thing in the stream, in its format, and an unknown one is hidden', async () => {
  const reported: unknown[] = [];
  const { call } = await serve(
    watching(async function* (request) {
      yield event(1, { sale: 1 });
      throw request.count ? new Error('secret') : new ConnectError('sold out', Code.ResourceExhausted);
    }),
    { text: { [TYPE]: () => 'line\n' }, report: (_reference, cause) => reported.push(cause) },
  );
  const error = { code: 'RESOURCE_EXHAUSTED', message: 'sold out', details: [] };
  const sse = events((await call('GET', PATH, undefined, { accept: 'text/event-stream' })).body);
  assert.deepEqual([sse[1]!.event, JSON.parse(sse[1]!.data)], ['error', error]);
  const lines = (await call('GET', PATH, undefined, { accept: 'application/x-ndjson' })).body.trimEnd().split('\n');
  assert.deepEqual(JSON.parse(lines[1]!), { error });
  assert.equal((await call('GET', PATH)).body, 'line\nerror: RESOURCE_EXHAUSTED: sold out\n');
  const hidden = await call('GET', `${PATH}?count=1`);
  assert.equal(hidden.body, 'line\nerror: INTERNAL: internal error\n');
  assert.equal((reported[0] as Error).message, 'secret');
});

test('the headers of a quiet stream go out after the wait, and a comment after each silence', async (t) => {
  const { timers, fire, running } = manual();
  const resume = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  const served = await serve(
    watching(async function* () {
      asked.resolve();
      await resume.promise;
      yield event(1, { sale: 1 });
      yield event(2, { sale: 2 });
    }),
    { timers, headerWaitMs: 100, keepAliveMs: 15_000 },
  );
  const opened = open(t, served, { accept: 'text/event-stream' });
  await asked.promise;
  await new Promise((resolve) => setImmediate(resolve));
  fire(100);
  const { response } = await opened;
  assert.equal(response.statusCode, 200);
  const read = async () => String(((await once(response, 'data')) as [Buffer])[0]);
  assert.equal(await read(), 'retry: 2000\n\n');
  fire(15_000);
  assert.equal(await read(), ': keep-alive\n\n');
  resume.resolve();
  assert.match(await text(response), /id: 1[\s\S]*id: 2/);
  assert.equal(running.size, 0);
});

test('a client that leaves aborts the signal and ends the iterable', async (t) => {
  const { implementation, began, freed } = waiting();
  const served = await serve(implementation);
  const { request } = await open(t, served);
  const { signal } = await began;
  const left = performance.now();
  request.destroy();
  const reason = (await freed) as ConnectError;
  assert.equal(reason.code, Code.Canceled);
  assert.ok(signal.aborted);
  // Before a keep-alive could have noticed.
  assert.ok(performance.now() - left < 10_000);
});

test('an iterable that is suspended when its client leaves gets return()', async (t) => {
  const returned = Promise.withResolvers<void>();
  const payload = 'x'.repeat(1 << 16);
  const served = await serve(
    watching(async function* () {
      try {
        for (let i = 1; ; i++) yield event(i, { snapshot: { title: payload } });
      } finally {
        returned.resolve();
      }
    }),
  );
  const { request, response } = await open(t, served);
  response.pause();
  request.destroy();
  await returned.promise;
});

test('a client that does not read stops the iterable, and gets everything once it reads', async (t) => {
  let made = 0;
  const total = 400;
  const served = await serve(
    watching(async function* () {
      for (made = 1; made <= total; made++) yield event(made, { snapshot: { title: 'x'.repeat(1 << 16) } });
    }),
  );
  const { response } = await open(t, served);
  response.pause();
  // Stopped: no message was made in between two looks.
  for (let before = -1; before !== made; ) {
    before = made;
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  assert.ok(made < total, `${made} messages were made for a client that reads none`);
  assert.equal((await text(response)).trimEnd().split('\n').length, total);
});

test('one message object is written once for all its subscribers, in each format', async () => {
  let rendered = 0;
  const message = event(1, { sale: 1 });
  const { call } = await serve(
    watching(async function* () {
      yield message;
    }),
    { text: { [TYPE]: () => `line ${++rendered}\n` } },
  );
  assert.equal((await call('GET', PATH)).body, 'line 1\n');
  assert.equal((await call('GET', PATH)).body, 'line 1\n');
  assert.equal(events((await call('GET', PATH, undefined, { accept: 'text/event-stream' })).body).length, 1);
});

test('a shutdown ends streams with its own error, also ones that come too late', async (t) => {
  const { implementation, began, freed } = waiting();
  const shutdown = new AbortController();
  const served = await serve(implementation, { shutdownSignal: shutdown.signal });
  const { response } = await open(t, served, { accept: 'text/event-stream' });
  await began;
  shutdown.abort(new ConnectError('going', Code.Unavailable));
  const all = events(await text(response));
  assert.deepEqual([all[1]!.event, JSON.parse(all[1]!.data).code], ['error', 'UNAVAILABLE']);
  assert.equal(((await freed) as ConnectError).code, Code.Unavailable);
  const late = await served.call('GET', PATH);
  assert.deepEqual([late.status, late.json.code], [503, 'UNAVAILABLE']);
});

test('a deadline ends a stream with DEADLINE_EXCEEDED', async (t) => {
  const { implementation } = waiting();
  const { response } = await open(t, await serve(implementation), { 'connect-timeout-ms': '50' });
  assert.match(await text(response), /"error":\{"code":"DEADLINE_EXCEEDED"/);
});

test('interceptors see a stream, may wrap it, and set headers that go out with it', async () => {
  const wrap: Interceptor = (next) => async (request) => {
    assert.equal(request.stream, true);
    const response = await next({ ...request });
    assert.ok(response.stream);
    response.header.set('x-wrapped', 'yes');
    const { message } = response;
    const twice = async function* () {
      for await (const one of message) {
        yield one;
        yield one;
      }
    };
    return { ...response, message: twice() };
  };
  const { call } = await serve(three, {}, [wrap]);
  const reply = await call('GET', PATH);
  assert.equal(reply.headers['x-wrapped'], 'yes');
  assert.equal(reply.body.trimEnd().split('\n').length, 6);
});

test('HEAD says the type and calls nothing', async () => {
  const { call } = await serve(watching(() => assert.fail('called')));
  const reply = await call('HEAD', PATH, undefined, { accept: 'text/event-stream' });
  assert.deepEqual([reply.status, reply.headers['content-type'], reply.body], [200, 'text/event-stream', '']);
});

test('calls and streams go over HTTP/2 through the one port, and end when their client resets them', async () => {
  const { implementation, began, freed } = waiting();
  const shutdown = new AbortController();
  const listener = createListener({ shutdown });
  const app = Fastify({ serverFactory: listener.serverFactory, forceCloseConnections: 'idle' });
  app.addHook('preClose', listener.close);
  await app.register(
    createBridge([{ desc: BookService, implementation }], [], { report: () => {}, shutdownSignal: shutdown.signal }).plugin,
  );
  const session = http2.connect(await app.listen({ port: 0, host: '127.0.0.1' }));
  const stream = session.request({ ':path': PATH, accept: 'text/event-stream' });
  const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
  assert.equal(headers[':status'], 200);
  await once(stream, 'data');
  await began;
  for (const [path, body, status] of [
    ['/api/v1/books', '{"title":"Emma"}', 202],
    ['/api/v1/books/b1:purge', undefined, 202],
    ['/api/v1/books', '{"titel":"Emma"}', 400],
  ] as const) {
    const call = session.request(
      { ':path': path, ':method': 'POST', ...(body && { 'content-type': 'application/json' }) },
      { endStream: !body },
    );
    if (body) call.end(body);
    const [answer] = (await once(call, 'response')) as [http2.IncomingHttpHeaders];
    assert.equal(answer[':status'], status);
    await text(call);
  }
  stream.close(http2.constants.NGHTTP2_CANCEL);
  assert.equal(((await freed) as ConnectError).code, Code.Canceled);
  session.close();
  await app.close();
});
