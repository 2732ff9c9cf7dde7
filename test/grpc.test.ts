// Unary calls over gRPC at the level of the wire: by our own short way, and by Connect, which is the measure.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2, { type ClientHttp2Session } from 'node:http2';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { bookstore, type Implementation } from './fixtures/rest/bookstore.ts';
import { type Book, BookSchema, BookService, GetBookRequestSchema, GetBookResponseSchema } from './fixtures/rest/bookstore_pb.js';
import { type Answer, answerOf, envelope, openPort, type Port } from './fixtures/rpc/port.ts';

const PATH = '/bookstore.v1.BookService/GetBook';
const LIMIT = 64 * 1024;

const asking = (bookId: string) => envelope(toBinary(GetBookRequestSchema, create(GetBookRequestSchema, { bookId })));

for (const grpc of ['own', 'connect'] as const) {
  describe(`unary over gRPC, served by ${grpc}`, () => {
    let port: Port;
    let session: ClientHttp2Session;
    let left = Promise.withResolvers<unknown>();
    const shared: { book: Book } = { book: create(BookSchema, { bookId: 'b1', title: 'Emma' }) };
    const implementation: Implementation = {
      ...bookstore,
      async getBook({ bookId }, context) {
        if (bookId === 'shared') return { book: shared.book };
        if (bookId === 'large') return { book: { bookId, title: 'x'.repeat(40_000) } };
        if (bookId === 'headers') {
          context.responseHeader.set('x-head', 'one');
          context.responseTrailer.set('x-tail', 'two');
        }
        if (bookId === 'refused') throw new ConnectError('not this one', Code.NotFound, { 'x-why': 'gone' });
        if (bookId === 'broken') throw new Error('the secret cause');
        if (bookId === 'deaf') await new Promise(() => {});
        if (bookId === 'waiting') {
          await new Promise((resolve) => context.signal.addEventListener('abort', resolve));
          left.resolve(context.signal.reason);
          throw context.signal.reason;
        }
        return { book: { bookId } };
      },
    };
    before(async () => {
      port = await openPort([{ desc: BookService, implementation }], { maxBodyBytes: LIMIT, grpc });
      session = http2.connect(port.url);
    });
    after(async () => {
      session.close();
      await port.close();
    });

    const open = (headers: Record<string, string> = {}) =>
      session.request({ ':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers', ...headers });
    async function ask(body: Buffer, headers: Record<string, string> = {}): Promise<Answer> {
      const stream = open(headers);
      const answer = answerOf(stream);
      stream.end(body);
      return await answer;
    }
    const bookOf = ({ bytes }: Answer) => fromBinary(GetBookResponseSchema, bytes.subarray(5)).book!;

    test('an answer: headers, one message, trailers', async () => {
      const answer = await ask(asking('headers'));
      assert.deepEqual([answer.headers[':status'], answer.headers['content-type']], [200, 'application/grpc+proto']);
      assert.equal(answer.headers['x-head'], 'one');
      assert.ok(answer.headers['x-request-id']);
      assert.deepEqual([answer.trailers['grpc-status'], answer.trailers['x-tail']], ['0', 'two']);
      assert.equal(answer.bytes.readUInt32BE(1), answer.bytes.length - 5);
      assert.equal(bookOf(answer).bookId, 'headers');
      assert.equal(port.counted.at(-1), 'POST bookstore.v1.BookService/GetBook ok');
    });
    test('what many ask for is what it is now, not what it was', async () => {
      for (const title of ['Emma', 'Persuasion', 'Emma']) {
        shared.book = create(BookSchema, { bookId: 'b1', title });
        for (let i = 0; i < 2; i++) assert.equal(bookOf(await ask(asking('shared'))).title, title);
      }
    });
    for (const [name, body, headers, code, message] of [
      ['an error of the implementation', asking('refused'), {}, Code.NotFound, /not this one/],
      ['a defect', asking('broken'), {}, Code.Internal, /internal error/],
      ['no message', Buffer.alloc(0), {}, Code.Unimplemented, /missing input message/],
      ['two messages', Buffer.concat([asking('b1'), asking('b2')]), {}, Code.Unimplemented, /protocol error/],
      ['half a message', asking('b1').subarray(0, 6), {}, Code.InvalidArgument, /protocol error/],
      ['a message that is too large', envelope(Buffer.alloc(LIMIT + 100)), {}, Code.ResourceExhausted, /larger than/],
      ['a compressed message without an encoding', envelope(Buffer.from('x'), 1), {}, Code.Internal, /./],
      ['a malformed deadline', asking('b1'), { 'grpc-timeout': '5 s' }, Code.InvalidArgument, /timeout/],
      [
        'a deadline that passes, over an implementation that does not heed it',
        asking('deaf'),
        { 'grpc-timeout': '50m' },
        Code.DeadlineExceeded,
        /timed out/,
      ],
    ] as const) {
      // Connect waits for an implementation that does not heed its signal.
      if (grpc === 'connect' && name.startsWith('a deadline')) continue;
      test(`${name} ends with its status`, async () => {
        const { headers: given, trailers, bytes } = await ask(body, headers);
        assert.equal(given[':status'], 200);
        assert.equal(Number(trailers['grpc-status']), code, String(trailers['grpc-message']));
        assert.match(decodeURIComponent(String(trailers['grpc-message'])), message);
        assert.doesNotMatch(String(trailers['grpc-message']), /secret/);
        assert.equal(bytes.length, 0);
        if (name.startsWith('an error')) assert.equal(trailers['x-why'], 'gone');
      });
    }
    test('a message that cannot be read is refused', async () => {
      const { trailers } = await ask(envelope(Buffer.from([0x0a, 0xff, 0xff])));
      assert.equal(Number(trailers['grpc-status']), Code.InvalidArgument);
    });
    test('a large answer is compressed for who takes it, and for nobody else', async () => {
      const plain = await ask(asking('large'));
      assert.deepEqual([plain.headers['grpc-encoding'], plain.bytes[0]], [undefined, 0]);
      const small = await ask(asking('large'), { 'grpc-accept-encoding': 'identity,deflate,gzip' });
      assert.deepEqual([small.headers['grpc-encoding'], small.bytes[0]], ['gzip', 1]);
      assert.equal(small.bytes.readUInt32BE(1), small.bytes.length - 5);
      assert.deepEqual(gunzipSync(small.bytes.subarray(5)), plain.bytes.subarray(5));
    });
    test('a caller that leaves aborts its call, which is counted', async () => {
      left = Promise.withResolvers();
      const before = port.counted.length;
      const stream = open();
      stream.on('error', () => {});
      stream.end(asking('waiting'));
      await ask(asking('b1')); // the one before has been read by now
      stream.close(http2.constants.NGHTTP2_CANCEL);
      const reason = await left.promise;
      assert.ok(reason instanceof ConnectError && reason.code === Code.Canceled);
      if (!stream.closed) await once(stream, 'close');
      await port.untilCounted(before + 2);
      assert.match(port.counted.at(-1)!, /canceled$/);
      assert.equal(port.counted.length, before + 2);
    });
  });
}
