// The peer for media on their way in: a bare Node pipeline, request -> SHA-256 -> file -> fsync, over HTTP/1.1 and over h2c. What arrives is answered
// with its digest and removed. Prints its ports.
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const folder = await mkdtemp(join(process.env.BENCH_FOLDER!, 'peer-'));
let nth = 0;

async function take(body: Readable): Promise<string> {
  const path = join(folder, String(nth++));
  const hash = createHash('sha256');
  await pipeline(
    body,
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk);
        yield chunk;
      }
    },
    createWriteStream(path),
  );
  const file = await open(path);
  await file.sync();
  await file.close();
  await rm(path);
  return hash.digest('hex');
}

const first = http.createServer({ requestTimeout: 0 }, async (request, response) => response.end(await take(request)));
const second = http2.createServer();
second.on('session', (session) => session.setLocalWindowSize(4 << 20));
second.on('stream', async (stream) => {
  const digest = await take(stream);
  stream.respond({ ':status': 200 });
  stream.end(digest);
});
first.listen(0, '127.0.0.1', () =>
  second.listen(0, '127.0.0.1', () => {
    const port = (server: http.Server | http2.Http2Server) => (server.address() as AddressInfo).port;
    process.stdout.write(`${JSON.stringify({ port: port(first), h2: port(second) })}\n`);
  }),
);
