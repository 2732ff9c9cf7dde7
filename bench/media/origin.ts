// The other side of the media bench, a process of its own: serves one large video over HTTP and as an object of S3, and takes objects in. It keeps
// nothing that is large. Usage: origin.ts BYTES; says its port.
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const BLOCK = Buffer.alloc(1024 * 1024);
for (let at = 0, state = 1; at < BLOCK.length; at += 4) {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  BLOCK.writeUInt32LE(state, at);
}
const HEAD = Buffer.from('000000186674797069736f6d0000020069736f6d69736f32', 'hex');
const SMALL = 1024 * 1024;
const ETAG = '"one"';

const bytes = Number(process.argv[2]);
/** Small objects are kept: the service tries the store with one. */
const objects = new Map<string, Buffer>();

createServer((request, response) => {
  serve(request, response).catch(() => response.destroy());
})
  .listen(0, '127.0.0.1')
  .on('listening', function (this: { address(): unknown }) {
    process.stdout.write(`${(this.address() as AddressInfo).port}\n`);
  });

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url!, 'http://localhost');
  const { method } = request;
  if (method === 'GET' && url.pathname.endsWith('/media.mp4')) return await sendVideo(request, response);
  if (method === 'HEAD' && url.pathname.endsWith('/media.mp4')) {
    return void response.writeHead(200, { 'content-length': bytes, etag: ETAG, 'content-type': 'video/mp4' }).end();
  }
  if (method === 'PUT') return await take(request, response, url.pathname);
  if (method === 'POST') {
    request.resume();
    const begun = url.searchParams.has('uploads');
    const name = begun ? 'InitiateMultipartUploadResult' : 'CompleteMultipartUploadResult';
    return void response.end(`<?xml version="1.0"?><${name}>${begun ? '<UploadId>1</UploadId>' : `<ETag>${ETAG}</ETag>`}</${name}>`);
  }
  if (method === 'DELETE') {
    objects.delete(url.pathname);
    return void response.writeHead(204).end();
  }
  if (url.searchParams.has('uploads'))
    return void response.end('<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>');
  // Of uploads, of which there are none.
  if (url.searchParams.has('list-type')) return void response.end('<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>');
  const object = objects.get(url.pathname);
  if (object)
    return void response.writeHead(200, { 'content-length': object.length, etag: ETAG }).end(method === 'HEAD' ? undefined : object);
  response
    .writeHead(404, { 'content-type': 'application/xml' })
    .end(method === 'HEAD' ? undefined : '<Error><Code>NoSuchKey</Code></Error>');
}

async function sendVideo(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const from = range ? Number(range[1]) : 0;
  const to = range?.[2] ? Number(range[2]) + 1 : bytes;
  const length = { 'content-length': to - from, etag: ETAG, 'content-type': 'video/mp4' };
  response.writeHead(range ? 206 : 200, range ? { ...length, 'content-range': `bytes ${from}-${to - 1}/${bytes}` } : length);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  for (let at = from; at < to; ) {
    const block = at < HEAD.length ? HEAD.subarray(at) : BLOCK;
    const chunk = block.subarray(0, Math.min(block.length, to - at));
    at += chunk.length;
    if (!response.write(chunk)) await once(response, 'drain', { signal: gone.signal });
  }
  response.end();
}

async function take(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= SMALL) chunks.push(chunk);
  }
  if (size <= SMALL) objects.set(path, Buffer.concat(chunks));
  response.writeHead(200, { etag: ETAG }).end();
}
