// A client stream that is refused in its middle, over every protocol that carries one: the answer comes while the sender still sends, who is not listened to
// any longer than it takes to tell it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2, { type ClientHttp2Session } from 'node:http2';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect';
import { UploadRequestSchema, UploadResponseSchema, UploadService } from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { answerOf, envelope, openPort, type Port } from './fixtures/rpc/port.ts';

const PATH = '/facefusion.jobs.v1.UploadService/Upload';
const MIB = 1024 * 1024;
const LIMIT = 200_000;
/** In a message's trailer it is encoded. */
const ENOUGH = /this(?:%20| )is(?:%20| )enough/;
const MESSAGE_LIMIT = 64 * 1024;
const message = envelope(
  toBinary(UploadRequestSchema, create(UploadRequestSchema, { part: { case: 'chunk', value: Buffer.alloc(16 * 1024, 1) } })),
);
const TYPES = { gRPC: 'application/grpc+proto', 'gRPC-Web': 'application/grpc-web+proto', Connect: 'application/connect+proto' };

describe('a client stream that is refused in its middle, or not', { timeout: 60_000 }, () => {
  let port: Port;
  let session: ClientHttp2Session;
  const implementation: ServiceImpl<typeof UploadService> = {
    async upload(requests) {
      let bytes = 0;
      for await (const { part } of requests) {
        if (part.case === 'chunk') bytes += part.value.length;
        if (bytes > LIMIT) throw new ConnectError('this is enough', Code.ResourceExhausted);
      }
      return create(UploadResponseSchema, { bytes: BigInt(bytes) });
    },
  };

  before(async () => {
    port = await openPort([{ desc: UploadService, implementation }], { maxBodyBytes: MESSAGE_LIMIT });
    session = http2.connect(port.url);
  });
  after(async () => {
    session.close();
    await port.close();
  });

  test('is sent half a megabyte ahead of its reader, and no more', async () => {
    const fresh = http2.connect(port.url);
    const [{ initialWindowSize }] = (await once(fresh, 'remoteSettings')) as [http2.Settings];
    assert.equal(initialWindowSize, 512 * 1024);
    fresh.close();
  });

  for (const [protocol, type] of Object.entries(TYPES)) {
    test(`${protocol} over HTTP/2 ends, and its session goes on`, async () => {
      const send = () => session.request({ ':method': 'POST', ':path': PATH, 'content-type': type, te: 'trailers' });
      const stream = send();
      const told: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => told.push(chunk));
      let trailers: http2.IncomingHttpHeaders = {};
      stream.on('trailers', (given) => {
        trailers = given;
      });
      // By the server: its own end would be that of what it has to send.
      const reset = new Promise<void>((resolve) => stream.once('aborted', resolve));
      let sent = 0;
      while (!stream.closed) {
        sent += message.length;
        if (stream.write(message)) await new Promise(setImmediate);
        else await Promise.race([once(stream, 'drain'), reset]);
      }
      await reset;
      assert.match(Buffer.concat(told).toString() + trailers['grpc-message'], ENOUGH);
      stream.destroy();
      assert.equal(stream.rstCode, http2.constants.NGHTTP2_NO_ERROR);
      assert.ok(sent < 16 * MIB, `${sent} bytes were sent`);
      const next = send();
      const answered = once(next, 'response') as Promise<[http2.IncomingHttpHeaders]>;
      next.resume().end(message);
      assert.equal((await answered)[0][':status'], 200);
      await once(next, 'close');
    });

    test(`${protocol} over HTTP/2 ends at a message over the limit, before that is there`, async () => {
      const stream = session.request({ ':method': 'POST', ':path': PATH, 'content-type': type, te: 'trailers' });
      const answer = answerOf(stream);
      stream.write(envelope(Buffer.alloc(MESSAGE_LIMIT + 1)).subarray(0, 100));
      const { bytes, trailers } = await answer;
      assert.match(bytes.toString() + decodeURIComponent(String(trailers['grpc-message'])), /larger than|maxBytes/i);
    });
  }

  for (const protocol of ['gRPC-Web', 'Connect'] as const) {
    const begun = async () => {
      const socket = net.connect(Number(new URL(port.url).port), '127.0.0.1');
      let told = '';
      socket.on('data', (chunk: Buffer) => {
        told += chunk.toString('latin1');
      });
      socket.on('error', () => {});
      socket.write(`POST ${PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: ${TYPES[protocol]}\r\ntransfer-encoding: chunked\r\n\r\n`);
      const chunk = Buffer.concat([Buffer.from(`${message.length.toString(16)}\r\n`), message, Buffer.from('\r\n')]);
      const until = async (pattern: RegExp) => {
        while (!pattern.test(told)) await once(socket, 'data');
      };
      return { socket, chunk, until, told: () => told };
    };

    test(`${protocol} over HTTP/1.1 is told while it sends, and its connection goes on when it ends`, async () => {
      const { socket, chunk, until, told } = await begun();
      for (let i = 0; i * 16 * 1024 <= LIMIT; i++) socket.write(chunk);
      await until(new RegExp(`${ENOUGH.source}[\\s\\S]*\\r\\n0\\r\\n\\r\\n`));
      socket.write(`${chunk.length.toString(16)}\r\n`);
      socket.write(Buffer.concat([chunk, Buffer.from('\r\n0\r\n\r\n')]));
      socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n');
      await until(/"status":"ok"/);
      assert.equal(told().match(/HTTP\/1\.1 200/g)?.length, 2);
      socket.destroy();
    });

    test(`${protocol} over HTTP/1.1 is cut off where it does not look for its answer`, async () => {
      const { socket, chunk, told } = await begun();
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      const drained = () => new Promise<void>((resolve) => socket.once('drain', resolve));
      let sent = 0;
      while (!socket.destroyed && sent < 512 * MIB) {
        sent += chunk.length;
        if (socket.write(chunk)) await new Promise(setImmediate);
        else await Promise.race([drained(), closed]);
      }
      await closed;
      assert.match(told(), ENOUGH);
      assert.ok(sent < 64 * MIB, `${sent} bytes were sent`);
    });
  }
});
