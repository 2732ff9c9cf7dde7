import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { isMessage } from '@bufbuild/protobuf';
import { Code, ConnectError, createContextKey, createContextValues, type HandlerContext, type Interceptor } from '@connectrpc/connect';
import Fastify from 'fastify';
import { QuotaFailureSchema, RetryInfoSchema } from '../gen/google/rpc/error_details_pb.js';
import { createBridge } from '../src/rest/bridge.ts';
import { bookstore, type Implementation, seen, serve } from './fixtures/rest/bookstore.ts';
import { BookService, GetBookRequestSchema, type ListBooksRequest, type UpdateBookRequest } from './fixtures/rest/bookstore_pb.js';

/** A bookstore whose GetBook fails so. */
const failing = (error: unknown): Implementation => ({
  ...bookstore,
  getBook() {
    throw error;
  },
});

describe('answers', () => {
  test('a GET is answered with the field that response_body names, in the dialect', async () => {
    const { call } = await serve();
    const reply = await call('GET', '/api/v1/books/b1');
    assert.equal(reply.status, 200);
    assert.match(String(reply.headers['content-type']), /^application\/json/);
    assert.equal(reply.headers['content-length'], String(Buffer.byteLength(reply.body)));
    assert.deepEqual([reply.json.book_id, reply.json.pages, reply.json.created_at], ['b1', 0, null]);
  });
  test('an additional binding reaches the same method with its own variables', async () => {
    const { call } = await serve();
    assert.equal((await call('GET', '/api/v1/shelves/fiction/books/b1')).json.title, 'fiction');
  });
  test('a response without response_body is whole', async () => {
    const { call } = await serve();
    assert.deepEqual(Object.keys((await call('GET', '/api/v1/books')).json), ['books', 'next_page_token']);
  });
  test('a success has the status, the Location and the Retry-After of the method option', async () => {
    const { call } = await serve();
    const reply = await call('POST', '/api/v1/books', { title: 'Emma' });
    assert.deepEqual([reply.status, reply.headers.location, reply.headers['retry-after']], [202, '/api/v1/books/b%2F1', '1']);
    assert.equal((await call('POST', '/api/v1/books/b1:purge')).status, 202);
  });
  test('an error has none of them', async () => {
    const { call } = await serve();
    const reply = await call('POST', '/api/v1/books', { titel: 'Emma' });
    assert.deepEqual([reply.status, reply.headers.location, reply.headers['retry-after']], [400, undefined, undefined]);
  });
  test('an answer that cannot be written is an error, without the headers of a success', async () => {
    const { call } = await serve({
      createBook(_request, context) {
        context.responseHeader.set('x-mine', 'yes');
        return { book: { bookId: 'b1', createdAt: { seconds: 253402300800n } } };
      },
    });
    const reply = await call('POST', '/api/v1/books', {});
    assert.deepEqual([reply.status, reply.headers.location, reply.headers['x-mine']], [500, undefined, undefined]);
  });
  test('a redirect field becomes 302 and no body, and an empty one an internal error', async () => {
    const { call } = await serve();
    const reply = await call('GET', '/api/v1/books/b1/cover');
    assert.deepEqual([reply.status, reply.headers.location, reply.body], [302, 'https://cdn.example.com/b1.jpg', '']);
    assert.equal((await call('GET', '/api/v1/books/bare/cover')).status, 500);
  });
  for (const [prefer, wait, status] of [
    ['wait=5', 5, 200],
    ['respond-async, wait=5; foo', 5, 200],
    ['wait=3600', 60, 200],
    ['wait="7"', 7, 200],
    ['wait=0', 0, 202],
    ['wait=x', 0, 202],
    ['waiting=5', 0, 202],
    [undefined, 0, 202],
  ] as const) {
    test(`Prefer: ${prefer ?? '(none)'} hands ${wait} seconds on, and what was applied is ${status}`, async () => {
      const { call } = await serve();
      const reply = await call('POST', '/api/v1/books', { title: 'Emma' }, prefer === undefined ? {} : { prefer });
      assert.deepEqual([reply.status, reply.json.pages], [status, wait]);
      assert.equal(reply.headers['preference-applied'], status === 200 ? `wait=${wait}` : undefined);
      assert.equal(reply.headers['retry-after'], status === 200 ? undefined : '1');
    });
  }
  test('a preference that was not applied in time leaves the status as it is', async () => {
    const { call } = await serve();
    assert.equal((await call('POST', '/api/v1/books', { title: 'slow' }, { prefer: 'wait=5' })).status, 202);
  });
  test('HEAD is GET without its body', async () => {
    const { call } = await serve();
    const [head, get] = [await call('HEAD', '/api/v1/books/b1'), await call('GET', '/api/v1/books/b1')];
    assert.deepEqual([head.status, head.body, head.headers['content-length']], [200, '', get.headers['content-length']]);
    assert.equal((await call('HEAD', '/api/v1/books/missing')).status, 404);
    assert.equal((await call('HEAD', '/api/v1/books/b1:purge')).status, 405);
  });
});

describe('paths', () => {
  test('a wrong method is 405 and says which are right, as OPTIONS does', async () => {
    const { call } = await serve();
    const wrong = await call('DELETE', '/api/v1/books');
    assert.deepEqual([wrong.status, wrong.headers.allow, wrong.json.code], [405, 'GET, POST, HEAD, OPTIONS', 'UNIMPLEMENTED']);
    const options = await call('OPTIONS', '/api/v1/books');
    assert.deepEqual([options.status, options.headers.allow, options.body], [204, 'GET, POST, HEAD, OPTIONS', '']);
    assert.equal((await call('OPTIONS', '/api/v1/nope')).status, 404);
    assert.equal((await call('POST', '/api/v1/books/b1')).headers.allow, 'DELETE, GET, PATCH, HEAD, OPTIONS');
  });
  for (const path of [
    '/api',
    '/api/v1/nope',
    '/api/v1/books/',
    '/api/v1/books/b1/',
    '/api/v1//books',
    '/api/v1/books/b1:prge',
    '/api/v1/booksX',
    '/api/v1/Books',
  ]) {
    test(`${path} is a 404 in JSON`, async () => {
      const { call } = await serve();
      const reply = await call('GET', path);
      assert.deepEqual([reply.status, reply.json], [404, { code: 'NOT_FOUND', message: `there is nothing at ${path}`, details: [] }]);
    });
  }
  test('a custom verb never reaches the method without it, nor the other way round', async () => {
    const { call } = await serve();
    assert.equal((await call('POST', '/api/v1/books:batch', { requests: [{ title: 'a' }] })).json.books[0].title, 'a');
    assert.equal((await call('POST', '/api/v1/booksbatch', {})).status, 404);
    assert.equal((await call('POST', '/api/v1/books:batchX', {})).status, 404);
    assert.equal((await call('POST', '/api/v1/books/b1', {})).status, 405);
    assert.equal((await call('GET', '/api/v1/books/b1:purge')).status, 405);
    assert.equal((await call('GET', '/api/v1/books/b1%3Apurge')).json.book_id, 'b1:purge');
  });
  test('variables are decoded, and one of several segments keeps its encoded slashes', async () => {
    const { call } = await serve();
    assert.equal((await call('GET', '/api/v1/books/a%2Fb%20%C3%A9')).json.book_id, 'a/b é');
    assert.equal((await call('GET', '/api/v1/shelves/x%2Fy')).json.name, 'shelves/x%2Fy');
    assert.equal((await call('GET', '/api/v1/archives/a/files/b/c%2fd')).json.path, 'archives/a/files/b/c%2fd');
  });
  test('malformed percent-encoding is 400 in JSON, in the path and in the query', async () => {
    const { call } = await serve();
    for (const path of ['/api/v1/books/%zz', '/api/v1/books/%ff', '/api/v1/books?page_token=%zz', '/api/v1/books?%ff=1']) {
      const reply = await call('GET', path);
      assert.deepEqual([reply.status, reply.json.code], [400, 'INVALID_ARGUMENT'], path);
    }
  });
  test('a route that someone registers below the prefix by hand wins', async () => {
    const app = Fastify();
    await app.register(createBridge([{ desc: BookService, implementation: bookstore }], [], { report: () => {} }).plugin);
    app.post('/api/v1/uploads', async () => 'uploaded');
    app.get('/api/v1/uploads/:id', async () => 'an upload');
    assert.equal((await app.inject({ method: 'POST', url: '/api/v1/uploads' })).body, 'uploaded');
    assert.equal((await app.inject('/api/v1/uploads/u1')).body, 'an upload');
    assert.equal((await app.inject('/api/v1/uploads')).json().code, 'NOT_FOUND');
    assert.equal((await app.inject('/api/v1/books/b1')).json().book_id, 'b1');
  });
  test('the absolute form of a request target is understood', async () => {
    const { port, app } = await serve();
    const socket = net.connect(await port(), '127.0.0.1');
    socket.end('GET http://example.com/api/v1/books/b1 HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n\r\n');
    assert.match(await text(socket), /^HTTP\/1\.1 200[\s\S]*"book_id":"b1"/);
    await app.close();
  });
});

describe('queries', () => {
  const list = async (query: string) => {
    const { call } = await serve();
    const reply = await call('GET', `/api/v1/books?${query}`);
    const request = seen.request as ListBooksRequest;
    return { reply, request };
  };
  test('nested, repeated, enum, time, duration, wrapper and 64-bit fields are read', async () => {
    const { request } = await list(
      'page_size=5&pageToken=a%20b%2B+c&filter.genre=science_fiction&filter.created_after=2025-04-05T14:15:00Z&filter.longer_than=3.5s' +
        '&filter.in_print=true&filter.any_genre=novel&filter.anyGenre=GENRE_POETRY&filter.any_genre=2&tag=a&tag=&descending=1&min_bytes=-9007199254740993&title=',
    );
    assert.equal(request.pageSize, 5);
    assert.equal(request.pageToken, 'a b+ c');
    assert.equal(request.filter?.genre, 2);
    assert.equal(request.filter?.createdAfter?.seconds, 1743862500n);
    assert.deepEqual([request.filter?.longerThan?.seconds, request.filter?.longerThan?.nanos], [3n, 500_000_000]);
    assert.equal(request.filter?.inPrint, true);
    assert.deepEqual(request.filter?.anyGenre, [1, 3, 2]);
    assert.deepEqual(request.tag, ['a', '']);
    assert.equal(request.descending, true);
    assert.equal(request.minBytes, -9007199254740993n);
    assert.equal(request.title, '');
  });
  test('an empty query and stray ampersands are nothing', async () => {
    assert.equal((await list('&&')).reply.status, 200);
  });
  for (const [query, field, description] of [
    ['pagesize=1', 'pagesize', /is not a query parameter of this method; did you mean "page_size"\?/],
    ['page_size=x', 'page_size', /must be a whole number from 0 to 4294967295, not "x"/],
    ['page_size=', 'page_size', /must be a whole number/],
    ['page_size=1&pageSize=2', 'pageSize', /is given twice/],
    ['filter.genre=x', 'filter.genre', /must be one of/],
    ['filter.nope=x', 'filter.nope', /is not a query parameter/],
    ['filter=x', 'filter', /cannot be given in a query/],
    ['filter.genre.x=1', 'filter.genre.x', /is not a query parameter/],
    ['descending=yes', 'descending', /must be true or false, not "yes"/],
    ['filter.created_after=now', 'filter.created_after', /must be an RFC 3339 time/],
    ['__proto__.x=1', '__proto__.x', /is not a query parameter/],
  ] as const) {
    test(`?${query} is refused and named`, async () => {
      const { reply } = await list(query);
      assert.equal(reply.status, 400);
      const [violation] = reply.json.details[0].field_violations;
      assert.equal(violation.field, field);
      assert.match(violation.description, description);
    });
  }
  test('parameters that are left to others are left alone', async () => {
    const { call } = await serve(bookstore, { ignoredQuery: ['signature'] });
    assert.equal((await call('GET', '/api/v1/books/b1?signature=x')).status, 200);
  });
  test('what the path or the whole body binds is no parameter', async () => {
    const { call } = await serve();
    assert.equal((await call('GET', '/api/v1/books/b1?book_id=b2')).status, 400);
    assert.match((await call('POST', '/api/v1/books?title=x', {})).json.message, /takes all of its fields in the body/);
  });
});

describe('bodies', () => {
  test('a body that is one field leaves the others to path and query', async () => {
    const { call } = await serve();
    const reply = await call('PATCH', '/api/v1/books/b1?update_mask=title,in_print&dry_run=true', { bookId: 'other', title: 'Emma' });
    const request = seen.request as UpdateBookRequest;
    assert.deepEqual([reply.json.book_id, reply.json.title], ['b1', 'Emma']);
    assert.deepEqual([request.updateMask?.paths, request.dryRun], [['title', 'in_print'], true]);
    assert.equal((await call('PATCH', '/api/v1/books/b1?book.title=x', {})).status, 400);
  });
  test('a body may be a list where the field is one', async () => {
    const { call } = await serve();
    assert.deepEqual((await call('PUT', '/api/v1/books/b1/tags', ['a', 'b'])).json.book.tags, ['a', 'b']);
    assert.equal((await call('PUT', '/api/v1/books/b1/tags', { a: 1 })).json.details[0].field_violations[0].field, 'tags');
  });
  test('violations inside a body that is one field are named as the caller wrote them', async () => {
    const { call } = await serve();
    const reply = await call('PATCH', '/api/v1/books/b1', { author: { nme: 'x' } });
    assert.equal(reply.json.details[0].field_violations[0].field, 'author.nme');
  });
  for (const [what, body, status] of [
    ['no body', undefined, 202],
    ['an empty body', '', 202],
    ['null', 'null', 400],
    ['a list', '[]', 400],
    ['text', '"x"', 400],
    ['broken JSON', '{', 400],
  ] as const) {
    test(`${what} where an object belongs is ${status}`, async () => {
      const { call } = await serve();
      assert.equal((await call('POST', '/api/v1/books', body)).status, status);
    });
  }
  test('a method without a body takes none, an empty one or {}', async () => {
    const { call } = await serve();
    assert.equal((await call('POST', '/api/v1/books/b1:purge', {})).status, 202);
    assert.equal((await call('DELETE', '/api/v1/books/b1', '')).status, 501);
    const reply = await call('POST', '/api/v1/books/b1:purge', { force: true });
    assert.deepEqual([reply.status, reply.json.message], [400, 'this method takes no body']);
  });
  for (const [type, status] of [
    ['application/json', 202],
    ['application/json; charset=utf-8', 202],
    ['Application/JSON;charset="UTF-8"', 202],
    ['application/json; charset=latin1', 415],
    ['application/x-www-form-urlencoded', 415],
    ['text/plain', 415],
    ['nonsense', 415],
  ] as const) {
    test(`a body of type ${type} is ${status}`, async () => {
      const { call } = await serve();
      const reply = await call('POST', '/api/v1/books', '{}', { 'content-type': type });
      assert.equal(reply.status, status, reply.body);
      if (status === 415) assert.equal(reply.json.code, 'INVALID_ARGUMENT');
    });
  }
  test('an encoded body is 415', async () => {
    const { call } = await serve();
    const reply = await call('POST', '/api/v1/books', '{}', { 'content-encoding': 'gzip' });
    assert.deepEqual([reply.status, reply.headers['accept-encoding']], [415, 'identity']);
  });
  test('bytes that are no UTF-8 are 400', async () => {
    const { port, app } = await serve();
    const response = await fetch(`http://127.0.0.1:${await port()}/api/v1/books`, {
      method: 'POST',
      body: Buffer.from([0x22, 0xff, 0x22]),
      headers: { 'content-type': 'application/json' },
    });
    assert.deepEqual([response.status, ((await response.json()) as { message: string }).message], [400, 'the body is not valid UTF-8']);
    await app.close();
  });
  test('a body above the limit is 413 before it is parsed, whether its length is announced or not', async () => {
    const { port, app, call } = await serve(bookstore, { maxBodyBytes: 100 });
    const body = JSON.stringify({ title: 'x'.repeat(200) });
    const announced = await call('POST', '/api/v1/books', body);
    assert.deepEqual(
      [announced.status, announced.json.code, announced.json.message],
      [413, 'RESOURCE_EXHAUSTED', 'the body is larger than 100 bytes'],
    );
    const request = http.request({
      port: await port(),
      host: '127.0.0.1',
      path: '/api/v1/books',
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    request.on('error', () => {});
    request.write(body);
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    assert.deepEqual([response.statusCode, response.headers.connection], [413, 'close']);
    request.destroy();
    await app.close();
    assert.equal(
      (await serve(bookstore, { maxBodyBytes: 100 }).then(({ call }) => call('POST', '/api/v1/books', { title: 'x' }))).status,
      202,
    );
  });
});

describe('errors', () => {
  for (const [code, name, status] of [
    [Code.Canceled, 'CANCELLED', 499],
    [Code.Unknown, 'UNKNOWN', 500],
    [Code.InvalidArgument, 'INVALID_ARGUMENT', 400],
    [Code.DeadlineExceeded, 'DEADLINE_EXCEEDED', 504],
    [Code.NotFound, 'NOT_FOUND', 404],
    [Code.AlreadyExists, 'ALREADY_EXISTS', 409],
    [Code.PermissionDenied, 'PERMISSION_DENIED', 403],
    [Code.ResourceExhausted, 'RESOURCE_EXHAUSTED', 429],
    [Code.FailedPrecondition, 'FAILED_PRECONDITION', 400],
    [Code.Aborted, 'ABORTED', 409],
    [Code.OutOfRange, 'OUT_OF_RANGE', 400],
    [Code.Unimplemented, 'UNIMPLEMENTED', 501],
    [Code.Internal, 'INTERNAL', 500],
    [Code.Unavailable, 'UNAVAILABLE', 503],
    [Code.DataLoss, 'DATA_LOSS', 500],
    [Code.Unauthenticated, 'UNAUTHENTICATED', 401],
  ] as const) {
    test(`${name} is ${status}`, async () => {
      const { call } = await serve(failing(new ConnectError('so it is', code)));
      const reply = await call('GET', '/api/v1/books/b1');
      assert.deepEqual([reply.status, reply.json], [status, { code: name, message: 'so it is', details: [] }]);
    });
  }
  test('details are messages in the dialect, RetryInfo is Retry-After too, and metadata are headers', async () => {
    const details = [
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 1n, nanos: 1 } } },
      { desc: QuotaFailureSchema, value: { violations: [{ subject: 'tenant', description: 'too many' }] } },
    ];
    const { call } = await serve(failing(new ConnectError('slow down', Code.ResourceExhausted, { 'x-tier': 'free' }, details)));
    const reply = await call('GET', '/api/v1/books/b1');
    assert.deepEqual([reply.status, reply.headers['retry-after'], reply.headers['x-tier']], [429, '2', 'free']);
    assert.deepEqual(reply.json.details[0], { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retry_delay: '1.000000001s' });
    assert.equal(reply.json.details[1].violations[0].subject, 'tenant');
  });
  test('an unknown error is hidden behind a reference that the report has too', async () => {
    const reports: [string, unknown][] = [];
    const cause = new Error('SELECT password');
    const { call } = await serve(failing(cause), { report: (...report) => reports.push(report) });
    const reply = await call('GET', '/api/v1/books/b1');
    assert.deepEqual([reply.status, reply.json.code, reply.json.message], [500, 'INTERNAL', 'internal error']);
    assert.equal(reply.json.details[0]['@type'], 'type.googleapis.com/google.rpc.RequestInfo');
    assert.deepEqual(reports, [[reply.json.details[0].request_id, cause]]);
    assert.doesNotMatch(reply.body, /SELECT/);
  });
  test('a method that is not implemented is UNIMPLEMENTED', async () => {
    const { call } = await serve({});
    const reply = await call('GET', '/api/v1/books/b1');
    assert.deepEqual([reply.status, reply.json.message], [501, 'bookstore.v1.BookService.GetBook is not implemented']);
  });
  test('errors of hooks have the same shape', async () => {
    const app = Fastify();
    app.addHook('onRequest', async (request) => {
      const fail = request.headers['x-fail'];
      if (fail === 'rpc') throw new ConnectError('who?', Code.Unauthenticated);
      if (fail === 'http') throw Object.assign(new Error('slow down'), { statusCode: 429 });
      if (fail) throw new Error('secret');
    });
    await app.register(createBridge([{ desc: BookService, implementation: bookstore }], [], { report: () => {} }).plugin);
    const fail = async (how: string) => {
      const reply = await app.inject({ url: '/api/v1/books/b1', headers: { 'x-fail': how } });
      return [reply.statusCode, reply.json().code, reply.json().message];
    };
    assert.deepEqual(await fail('rpc'), [401, 'UNAUTHENTICATED', 'who?']);
    assert.deepEqual(await fail('http'), [429, 'RESOURCE_EXHAUSTED', 'slow down']);
    assert.deepEqual(await fail('other'), [500, 'INTERNAL', 'internal error']);
  });
});

describe('interceptors and context', () => {
  test('an implementation sees what Connect would show it', async () => {
    const { call } = await serve();
    await call('GET', '/api/v1/books/b1?shelf=x', undefined, { 'x-caller': 'me', cookie: 'a=b' });
    const context = seen.context as HandlerContext;
    assert.ok(isMessage(seen.request, GetBookRequestSchema));
    assert.equal(context.method, BookService.method.getBook);
    assert.equal(context.service, BookService);
    assert.equal(context.protocolName, 'rest');
    assert.equal(context.requestMethod, 'GET');
    assert.match(context.url, /^http:\/\/localhost(:80)?\/api\/v1\/books\/b1\?shelf=x$/);
    assert.equal(context.requestHeader.get('X-Caller'), 'me');
    assert.equal(context.timeoutMs(), undefined);
  });

  const key = createContextKey('nobody');
  const order: string[] = [];
  const named =
    (name: string): Interceptor =>
    (next) =>
    async (request) => {
      order.push(`${name} in`);
      const response = await next(request);
      order.push(`${name} out`);
      return response;
    };
  test('they run in the order that Connect gives them: the first is outermost', async () => {
    const { call } = await serve(bookstore, {}, [named('a'), named('b')]);
    await call('GET', '/api/v1/books/b1');
    assert.deepEqual(order, ['a in', 'b in', 'b out', 'a out']);
  });
  test('one that spreads request and response loses nothing, and what it replaces is what is seen', async () => {
    const spread: Interceptor = (next) => async (request) => {
      const header = new Headers(request.header);
      header.set('x-added', 'yes');
      request.contextValues.set(key, 'somebody');
      const response = await next({ ...request, header } as typeof request);
      return { ...response, header: new Headers({ 'x-answer': 'changed' }) } as typeof response;
    };
    const look: Interceptor = (next) => async (request) => {
      assert.equal(request.header.get('x-added'), 'yes');
      assert.equal(request.contextValues.get(key), 'somebody');
      assert.equal(request.signal.aborted, false);
      assert.match(request.url, /books\/b1$/);
      const response = await next({ ...request });
      assert.equal(response.header.get('x-from'), 'implementation');
      return { ...response };
    };
    const implementation: Implementation = {
      getBook(request, context) {
        assert.equal(context.requestHeader.get('x-added'), 'yes');
        assert.equal(context.values.get(key), 'somebody');
        assert.equal(context.timeoutMs(), undefined);
        context.responseHeader.set('x-from', 'implementation');
        context.responseTrailer.set('x-last', 'word');
        return { book: { bookId: request.bookId } };
      },
    };
    const { call } = await serve(implementation, {}, [spread, look]);
    const reply = await call('GET', '/api/v1/books/b1');
    assert.deepEqual(
      [reply.status, reply.headers['x-answer'], reply.headers['x-from'], reply.headers['trailer-x-last']],
      [200, 'changed', undefined, 'word'],
    );
  });
  test('one may answer itself, refuse, or change the message', async () => {
    const change: Interceptor = (next) => async (request) => {
      if (request.stream) return next(request);
      if (request.header.has('x-refuse')) throw new ConnectError('no', Code.PermissionDenied);
      return next({ ...request, message: { ...request.message, bookId: 'changed' } } as typeof request);
    };
    const { call } = await serve(bookstore, {}, [change]);
    assert.equal((await call('GET', '/api/v1/books/b1')).json.book_id, 'changed');
    assert.equal((await call('GET', '/api/v1/books/b1', undefined, { 'x-refuse': '1' })).status, 403);
  });
  test('context values may come from the request', async () => {
    const { call } = await serve(bookstore, { contextValues: (request) => createContextValues().set(key, request.ip) });
    await call('GET', '/api/v1/books/b1');
    assert.equal((seen.context as HandlerContext).values.get(key), '127.0.0.1');
  });
  test('headers that the implementation sets go out', async () => {
    const { call } = await serve({
      getBook(_request, context) {
        context.responseHeader.append('set-cookie', 'a=1');
        context.responseHeader.append('set-cookie', 'b=2');
        return {};
      },
    });
    assert.deepEqual((await call('GET', '/api/v1/books/b1')).headers['set-cookie'], ['a=1', 'b=2']);
  });
});

describe('deadlines and signals', () => {
  const hanging = (heed: boolean) => {
    const began = Promise.withResolvers<HandlerContext>();
    const implementation: Implementation = {
      getBook: (_request, context) =>
        new Promise((_, reject) => {
          if (heed) context.signal.addEventListener('abort', () => reject(context.signal.reason));
          began.resolve(context);
        }),
    };
    return { implementation, began: began.promise };
  };
  for (const header of [{ 'connect-timeout-ms': '30' }, { 'x-server-timeout': '0.03' }] as Record<string, string>[]) {
    for (const heed of [true, false]) {
      test(`${Object.keys(header)[0]} ends a call that ${heed ? 'heeds' : 'does not heed'} its signal with 504`, async () => {
        const { implementation, began } = hanging(heed);
        const { call } = await serve(implementation);
        const reply = await call('GET', '/api/v1/books/b1', undefined, header);
        assert.deepEqual([reply.status, reply.json.code], [504, 'DEADLINE_EXCEEDED']);
        assert.ok((await began).timeoutMs()! <= 30);
      });
    }
  }
  test('a deadline that is malformed or too long is 400', async () => {
    const { call } = await serve(bookstore, { maxTimeoutMs: 1000 });
    for (const timeout of ['x', '-1', '12345678901', '1001']) {
      assert.equal((await call('GET', '/api/v1/books/b1', undefined, { 'connect-timeout-ms': timeout })).status, 400);
    }
    assert.equal((await call('GET', '/api/v1/books/b1', undefined, { 'connect-timeout-ms': '1000' })).status, 200);
  });
  test('a deadline that is further away than timers reach is no deadline that has passed', async () => {
    const { call } = await serve({ getBook: () => new Promise((resolve) => setTimeout(resolve, 20, {})) });
    assert.equal((await call('GET', '/api/v1/books/b1', undefined, { 'connect-timeout-ms': '9999999999' })).status, 200);
  });
  test('a client that leaves aborts the signal', async () => {
    const { implementation, began } = hanging(true);
    const { port, app } = await serve(implementation);
    const request = http.get({ port: await port(), host: '127.0.0.1', path: '/api/v1/books/b1' });
    request.on('error', () => {});
    const { signal } = await began;
    request.destroy();
    await once(signal, 'abort');
    assert.equal((signal.reason as ConnectError).code, Code.Canceled);
    await app.close();
  });
  test('a shutdown aborts the signal, and its error is the answer', async () => {
    const { implementation, began } = hanging(true);
    const shutdown = new AbortController();
    const { call } = await serve(implementation, { shutdownSignal: shutdown.signal });
    const reply = call('GET', '/api/v1/books/b1');
    await began;
    shutdown.abort(new ConnectError('going', Code.Unavailable));
    assert.deepEqual([(await reply).status, (await reply).json.message], [503, 'going']);
  });
  test('the signal of a call that is over is aborted, as Connect does it', async () => {
    let signal: AbortSignal | undefined;
    const { call } = await serve({
      getBook(_request, context) {
        signal = context.signal;
        return {};
      },
    });
    await call('GET', '/api/v1/books/b1');
    assert.equal(signal?.aborted, true);
  });
});
