// Large files over a connection that is cut again and again: what has arrived is not sent again, and what arrives is what was sent.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectJobs } from '../src/client/node.ts';
import { type Service, startService } from './api/service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

const MIB = 1024 * 1024;
const BACKOFF = { baseMs: 5, maxMs: 20, attempts: 12 };

let service: Service;
let folder: string;
let path: string;
let bytes: Buffer;

before(async () => {
  service = await startService();
  folder = await mkdtemp(join(tmpdir(), 'ffjobs-large-'));
  path = join(folder, 'clip.mp4');
  // A video by its first bytes, and more than one piece of an upload.
  bytes = Buffer.concat([Buffer.from('000000186674797069736f6d0000020069736f6d69736f32', 'hex'), randomBytes(40 * MIB)]);
  await writeFile(path, bytes);
});
after(async () => {
  await service[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Between a client and the service: cuts the first connections after so many bytes on their way to the service. */
async function cutting(cuts: readonly number[]) {
  const left = [...cuts];
  const sockets = new Set<Socket>();
  let passed = 0;
  const server = createServer((near) => {
    const { hostname, port } = new URL(service.baseUrl);
    const far = connect(Number(port), hostname);
    sockets.add(near).add(far);
    let own = 0;
    near.on('data', (chunk: Buffer) => {
      passed += chunk.length;
      own += chunk.length;
      // Connections that only ask are left alone: a cut is for one that carries a file.
      if (left.length > 0 && own > left[0]!) {
        left.shift();
        near.destroy();
        far.destroy();
      } else if (!far.write(chunk)) {
        near.pause();
        far.once('drain', () => near.resume());
      }
    });
    far.pipe(near);
    near.on('error', () => far.destroy()).on('close', () => far.destroy());
    far.on('error', () => near.destroy());
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    left: () => left.length,
    passed: () => passed,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test('an upload goes on where it was cut, and no more than what was under way is sent again', async () => {
  await using proxy = await cutting([3 * MIB, 11 * MIB, 6 * MIB]);
  using client = connectJobs(proxy.url);
  const told: number[] = [];
  let losses = 0;
  const upload = await client.upload(path, { backoff: BACKOFF, onProgress: (sent) => told.push(sent), onLost: () => losses++ });
  assert.equal(upload.sha256, createHash('sha256').update(bytes).digest('hex'));
  assert.deepEqual([upload.mediaType, Number(upload.bytes), told.at(-1)], ['video/mp4', bytes.length, bytes.length]);
  assert.deepEqual([proxy.left(), losses], [0, 3]);
  // Each cut costs at most the bytes between the service's disk and the cut.
  assert.ok(proxy.passed() < bytes.length + 3 * 8 * MIB, `${proxy.passed()} bytes for ${bytes.length}`);
});

test('`ffjobs submit` of a large file goes on over a cut connection, and says so', async () => {
  await using proxy = await cutting([9 * MIB, 9 * MIB]);
  const terminal = new FakeTerminal();
  assert.equal(
    await ffjobs(['submit', '--source', 'server:face.jpg', path, '--watch'], terminal, { server: proxy.url, backoff: BACKOFF }),
    0,
    terminal.stderr,
  );
  assert.equal(proxy.left(), 0);
  assert.match(terminal.stderr, /connection was lost; trying again/);
  assert.match(terminal.stderr, /100% {2}41\.9 MB of 41\.9 MB sent/);
  assert.match(terminal.stderr, /succeeded/);
});

test('files go over connections of the client’s own, and none over those of the whole process', async (t) => {
  const common = t.mock.method(globalThis, 'fetch', () => Promise.reject(new Error('not this one')));
  using client = connectJobs(service.baseUrl);
  assert.equal((await client.upload(path)).sha256, createHash('sha256').update(bytes).digest('hex'));
  assert.equal(common.mock.callCount(), 0);
});

test('bytes and Blobs resume too; a service that is gone ends it, and what is refused is told as over gRPC', async () => {
  await using proxy = await cutting([2 * MIB]);
  using client = connectJobs(proxy.url);
  const sent = new Uint8Array(bytes.subarray(0, 20 * MIB));
  const [a, b] = [
    await client.upload(sent, { backoff: BACKOFF, filename: 'a.mp4' }),
    await client.upload(new Blob([sent]), { backoff: BACKOFF }),
  ];
  assert.equal(a.sha256, b.sha256);
  const error = await client.upload(new Uint8Array(17 * MIB), { backoff: BACKOFF }).then(
    () => assert.fail('taken'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ConnectError && error.code === Code.InvalidArgument, String(error));
  await proxy[Symbol.asyncDispose]();
  await assert.rejects(
    client.upload(sent, { backoff: { ...BACKOFF, attempts: 3 } }),
    (lost: ConnectError) => lost.code === Code.Unavailable,
  );
  const left = new AbortController();
  left.abort(new Error('never mind'));
  await assert.rejects(client.upload(sent, { signal: left.signal }), /never mind/);
});
