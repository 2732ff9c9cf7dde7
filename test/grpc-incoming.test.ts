// Client streams over gRPC at the level of the wire: by our own way, and by Connect, which is the measure; and messages however the network cuts them.
import assert from 'node:assert/strict';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import http2, { type ClientHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { PassThrough } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect';
import {
  type UploadRequest,
  UploadRequestSchema,
  UploadResponseSchema,
  UploadService,
} from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { IncomingMessages } from '../src/rpc/grpc-incoming.ts';
import { answerOf, envelope, openPort, type Port } from './fixtures/rpc/port.ts';

const PATH = '/facefusion.jobs.v1.UploadService/Upload';
const LIMIT = 4 * 1024 * 1024;
const MIB = 1024 * 1024;
const SPLIT = { field: 'chunk', maxBytes: MIB };
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

type Part = NonNullable<MessageInitShape<typeof UploadRequestSchema>['part']>;

function encoded(part: Part): Uint8Array {
  return toBinary(UploadRequestSchema, create(UploadRequestSchema, { part }));
}

const metadata = (filename: string) => envelope(encoded({ case: 'metadata', value: { filename } }));
const chunk = (bytes: Uint8Array) => envelope(encoded({ case: 'chunk', value: bytes }));

describe('messages of a client stream', () => {
  const reader = (split: typeof SPLIT | undefined) => {
    const stream = new PassThrough();
    return { stream, messages: new IncomingMessages(stream as unknown as ServerHttp2Stream, LIMIT, UploadRequestSchema, split) };
  };
  const read = async (messages: AsyncIterable<unknown>) => {
    const names: string[] = [];
    const bytes: Uint8Array[] = [];
    let pieces = 0;
    for await (const { part } of messages as AsyncIterable<UploadRequest>) {
      if (part.case === 'metadata') names.push(part.value.filename);
      if (part.case !== 'chunk') continue;
      pieces++;
      bytes.push(part.value);
    }
    return { names, pieces, sha256: sha256(Buffer.concat(bytes)) };
  };

  test('are the same however they are cut, whole or in pieces', async () => {
    for (let round = 0; round < 60; round++) {
      const split = round % 3 === 0 ? undefined : SPLIT;
      const most = [2, 17, 5000, 40_000][round % 4]!;
      const sent: Uint8Array[] = [];
      const frames = [metadata('a.jpg')];
      for (let i = 0; i < 12; i++) {
        const bytes = randomBytes([0, 1, randomInt(300), randomInt(3 * most + 1)][randomInt(4)]!);
        sent.push(bytes);
        // One with a field that this version does not know is no chunk alone.
        frames.push(
          i % 5 === 4 ? envelope(Buffer.concat([encoded({ case: 'chunk', value: bytes }), Buffer.from([0x98, 6, 1])])) : chunk(bytes),
        );
        if (i === 6) frames.push(metadata('b.jpg'));
      }
      const wire = Buffer.concat(frames);
      const { stream, messages } = reader(split);
      const got = read(messages);
      for (let at = 0; at < wire.length; ) {
        const end = at + 1 + (at < 100 ? randomInt(2) : randomInt(most));
        if (!stream.write(wire.subarray(at, end))) await once(stream, 'drain');
        at = end;
      }
      stream.end();
      const { names, sha256: digest } = await got;
      assert.deepEqual([names, digest], [['a.jpg', 'b.jpg'], sha256(Buffer.concat(sent))]);
    }
  });

  test('are handed on before they are whole where that means the same, and else not', async () => {
    const bytes = randomBytes(MIB);
    const { stream, messages } = reader(SPLIT);
    const wire = chunk(bytes);
    stream.write(wire.subarray(0, 1000));
    const first = (await messages.next()).value as UploadRequest;
    assert.equal((first.part.value as Uint8Array).length, 1000 - (wire.length - MIB));
    await messages.return();

    const { stream: other, messages: whole } = reader({ ...SPLIT, maxBytes: MIB - 1 });
    const got = read(whole);
    other.write(wire.subarray(0, 1000));
    other.end(wire.subarray(1000));
    assert.deepEqual(await got, { names: [], pieces: 1, sha256: sha256(bytes) });
  });

  test('hold their sender back while nobody takes them', async () => {
    const { stream, messages } = reader(SPLIT);
    const frame = chunk(randomBytes(64 * 1024));
    while (stream.write(frame)) await new Promise(setImmediate);
    assert.ok(stream.isPaused());
    let drained = false;
    stream.once('drain', () => {
      drained = true;
    });
    while (!drained) await messages.next();
    await messages.return();
  });
});

for (const grpc of ['own', 'connect'] as const) {
  describe(`a client stream over gRPC, served by ${grpc}`, { timeout: 120_000 }, () => {
    let port: Port;
    let session: ClientHttp2Session;
    let seen = Promise.withResolvers<unknown>();
    const left = Promise.withResolvers<void>();
    const implementation: ServiceImpl<typeof UploadService> = {
      async upload(requests, context) {
        const hash = createHash('sha256');
        let bytes = 0n;
        try {
          for await (const { part } of requests) {
            if (part.case === 'metadata' && part.value.filename === 'refused') throw new ConnectError('not this one', Code.NotFound);
            if (part.case === 'metadata' && part.value.filename === 'deaf') await new Promise(() => {});
            if (part.case === 'metadata' && part.value.filename === 'leaving') left.resolve();
            if (part.case !== 'chunk') continue;
            hash.update(part.value);
            bytes += BigInt(part.value.length);
          }
        } catch (error) {
          seen.resolve(error);
          throw error;
        }
        context.responseHeader.set('x-head', 'one');
        return { sha256: hash.digest('hex'), bytes };
      },
    };
    before(async () => {
      const splittable = { 'facefusion.jobs.v1.UploadService.Upload': SPLIT };
      port = await openPort([{ desc: UploadService, implementation }], { maxBodyBytes: LIMIT, splittable, grpc });
      session = http2.connect(port.url);
    });
    after(async () => {
      session.close();
      await port.close();
    });

    const open = (headers: Record<string, string> = {}) => {
      const stream = session.request({ ':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers', ...headers });
      stream.on('error', () => {});
      return stream;
    };
    const send = async (body: Buffer, headers: Record<string, string> = {}) => {
      const stream = open(headers);
      const answer = answerOf(stream);
      stream.end(body);
      return await answer;
    };

    test('gives one answer to all its messages, once they have ended', async () => {
      const sent = [MIB, 0, 1, 300_000].map((bytes) => randomBytes(bytes));
      const { status, headers, bytes } = await send(Buffer.concat([metadata('a'), ...sent.map(chunk)]));
      assert.deepEqual([status, headers['x-head'], headers['content-type']], [0, 'one', 'application/grpc+proto']);
      const response = fromBinary(UploadResponseSchema, bytes.subarray(5));
      assert.deepEqual([response.sha256, response.bytes], [sha256(Buffer.concat(sent)), BigInt(MIB + 300_001)]);
      assert.equal((await send(Buffer.alloc(0))).status, 0);
      assert.equal(port.counted.at(-1), 'POST facefusion.jobs.v1.UploadService/Upload ok');
    });

    const cut = chunk(randomBytes(1000)).subarray(0, 500);
    for (const [name, body, code] of [
      ['a message against the rules of the contract', chunk(randomBytes(MIB + 1)), Code.InvalidArgument],
      ['a message that is compressed without an encoding', envelope(Buffer.from('x'), 1), Code.Internal],
      ['a message that ends early', Buffer.concat([metadata('a'), cut]), Code.InvalidArgument],
      ['an envelope that ends early', metadata('a').subarray(0, 3), Code.InvalidArgument],
      ['what its implementation refuses', metadata('refused'), Code.NotFound],
    ] as const) {
      test(`ends with its status at ${name}`, async () => assert.equal((await send(body)).status, code));
    }

    // Connect waits for all of it, and for an implementation that does not heed its signal.
    const ours = grpc === 'own' ? test : () => {};
    ours('is refused at once for a message over the limit, while its sender goes on', async () => {
      const stream = open();
      const answer = answerOf(stream);
      stream.write(envelope(Buffer.alloc(LIMIT + 1)));
      const { status, trailers } = await answer;
      assert.equal(status, Code.ResourceExhausted);
      assert.match(decodeURIComponent(String(trailers['grpc-message'])), /larger than the limit/);
    });
    ours('ends in time over an implementation that does not', async () => {
      const stream = open({ 'grpc-timeout': '50m' });
      const answer = answerOf(stream);
      stream.write(metadata('deaf'));
      assert.equal((await answer).status, Code.DeadlineExceeded);
    });

    test('that its client leaves ends for the implementation too', { timeout: 60_000 }, async () => {
      seen = Promise.withResolvers();
      const other = http2.connect(`http://127.0.0.1:${(session.socket.remotePort as number).toString()}`);
      const stream = other.request({ ':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers' });
      stream.on('error', () => {});
      stream.write(metadata('leaving'));
      await left.promise;
      // Not a reset of the stream: Node's client ends it properly before. The end of its side of the connection is all that the server hears.
      other.destroy();
      assert.equal(ConnectError.from(await seen.promise).code, grpc === 'own' ? Code.Canceled : Code.Unknown);
    });
  });
}
