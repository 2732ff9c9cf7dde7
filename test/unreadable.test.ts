// A message that cannot be read is its sender's fault, in words, over every protocol that carries Protobuf; one that can be read is, whatever it was
// compressed with.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import { after, before, describe, test } from 'node:test';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { create, toBinary } from '@bufbuild/protobuf';
import { ListRequestSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { type Service, startService } from './api/service.ts';

/** Field 1 as bytes of a length that is not there. */
const UNREADABLE = Buffer.from([0x0a, 0xff, 0x7f, 0x01]);
const READABLE = Buffer.from(toBinary(ListRequestSchema, create(ListRequestSchema, { pageSize: 3 })));

function framed(message: Buffer, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

for (const served of ['own', 'connect'] as const) {
  describe(`Protobuf, gRPC served by ${served}`, () => {
    let service: Service;
    before(async () => {
      service = await startService({ GRPC: served, MAX_BODY_BYTES: '64K' });
    });
    after(() => service[Symbol.asyncDispose]());

    const post = async (path: string, body: Buffer, headers: Record<string, string>) => {
      const answer = await fetch(new URL(path, service.baseUrl), { method: 'POST', body, headers });
      return { status: answer.status, headers: answer.headers, text: Buffer.from(await answer.arrayBuffer()).toString('latin1') };
    };
    const overGrpc = async (path: string, body: Buffer, headers: Record<string, string> = {}) => {
      const session = http2.connect(service.baseUrl);
      const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...headers });
      let trailers: http2.IncomingHttpHeaders = {};
      stream.on('response', (given) => (trailers = { ...trailers, ...given }));
      stream.on('trailers', (given) => (trailers = { ...trailers, ...given }));
      stream.resume();
      stream.end(body);
      await once(stream, 'close');
      session.destroy();
      return { status: String(trailers['grpc-status']), message: decodeURIComponent(String(trailers['grpc-message'] ?? '')) };
    };
    const LIST = '/facefusion.jobs.v1.JobService/List';
    const WATCH = '/facefusion.jobs.v1.JobService/WatchJobs';
    const UPLOAD = '/facefusion.jobs.v1.UploadService/Upload';

    test('Connect: 400 and invalid_argument', async () => {
      for (const [body, encoding] of [
        [UNREADABLE, {}],
        [gzipSync(UNREADABLE), { 'content-encoding': 'gzip' }],
        [brotliCompressSync(UNREADABLE), { 'content-encoding': 'br' }],
      ] as const) {
        const { status, text } = await post(LIST, body, { 'content-type': 'application/proto', ...encoding });
        assert.equal(status, 400, text);
        const json = JSON.parse(text) as { code: string; message: string };
        assert.equal(json.code, 'invalid_argument');
        assert.match(json.message, /^the message cannot be read: /);
      }
      for (const [body, encoding] of [
        [READABLE, {}],
        [gzipSync(READABLE), { 'content-encoding': 'gzip' }],
      ] as const) {
        assert.equal((await post(LIST, body, { 'content-type': 'application/proto', ...encoding })).status, 200);
      }
      assert.equal((await post(LIST, Buffer.alloc(100_000), { 'content-type': 'application/proto' })).status, 429, 'too long, as ever');
      assert.equal((await post(LIST, Buffer.from('x'), { 'content-type': 'application/proto', 'content-encoding': 'gzip' })).status, 400);
    });

    test('Connect streams: the same at their end', async () => {
      for (const path of [WATCH, UPLOAD]) {
        const { status, text } = await post(path, framed(UNREADABLE), { 'content-type': 'application/connect+proto' });
        assert.equal(status, 200);
        assert.match(text, /"code":"invalid_argument","message":"the message cannot be read: /, path);
      }
    });

    test('gRPC-Web: status 3', async () => {
      for (const [path, body, headers] of [
        [LIST, framed(UNREADABLE), {}],
        [LIST, framed(gzipSync(UNREADABLE), 1), { 'grpc-encoding': 'gzip' }],
        [LIST, framed(UNREADABLE, 2), {}],
        [LIST, framed(UNREADABLE, 128), {}],
        [LIST, Buffer.concat([framed(UNREADABLE), Buffer.from('more')]), {}],
        [WATCH, framed(UNREADABLE), {}],
        [UPLOAD, framed(UNREADABLE), {}],
      ] as const) {
        const { headers: given, text } = await post(path, body, { 'content-type': 'application/grpc-web+proto', ...headers });
        const status = given.get('grpc-status') ?? /grpc-status: (\d+)/.exec(text)?.[1];
        assert.equal(status, '3', `${path} ${text}`);
        assert.match(decodeURIComponent(given.get('grpc-message') ?? text), /the message cannot be read: /);
      }
      const { text } = await post(LIST, framed(gzipSync(READABLE), 1), {
        'content-type': 'application/grpc-web+proto',
        'grpc-encoding': 'gzip',
      });
      assert.match(text, /grpc-status: 0/);
    });

    test('gRPC: status 3', async () => {
      for (const path of [LIST, WATCH, UPLOAD]) {
        const { status, message } = await overGrpc(path, framed(UNREADABLE));
        assert.equal(status, '3', `${path} ${message}`);
        assert.match(message, /the message cannot be read: /);
      }
      assert.equal((await overGrpc(LIST, framed(gzipSync(UNREADABLE), 1), { 'grpc-encoding': 'gzip' })).status, '3');
      assert.equal((await overGrpc(LIST, framed(gzipSync(READABLE), 1), { 'grpc-encoding': 'gzip' })).status, '0');
    });

    test('none of it is a defect', () => {
      assert.deepEqual(
        service.logs.filter(({ level }) => Number(level) >= 50),
        [],
      );
    });
  });
}
