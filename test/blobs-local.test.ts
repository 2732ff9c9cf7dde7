// The local blob store: the shared contract, its folder, and its signed URLs as an HTTP client sees them.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import http2 from 'node:http2';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import fastify from 'fastify';
import { registerBlobRoutes } from '../src/store/blobs-http.ts';
import { type LocalBlobStore, openLocalBlobStore } from '../src/store/blobs-local.ts';
import { describeBlobStore } from './contract/blob-store.ts';

async function folder(): Promise<string> {
  return await mkdtemp(join(tmpdir(), 'ffjobs-blobs-'));
}

async function filesIn(dir: string): Promise<number> {
  return (await readdir(dir, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile()).length;
}

describeBlobStore('local', async () => {
  const dir = await folder();
  return {
    blobs: await openLocalBlobStore({ dir }),
    reopen: () => openLocalBlobStore({ dir }),
    count: () => filesIn(dir),
    destroy: () => rm(dir, { recursive: true }),
  };
});

async function* each(chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

const NO_PROC = existsSync('/proc/self/fd') ? false : 'machine: open files are read from /proc, which is not here';

/** Undefined: it has been closed meanwhile. */
function linkOf(fd: string): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}

const BYTES = randomBytes(10_000);
const NOW = Date.UTC(2025, 3, 5);

async function open(t: TestContext) {
  const dir = await folder();
  t.after(() => rm(dir, { recursive: true }));
  return { dir, blobs: await openLocalBlobStore({ dir }) };
}

async function putBytes(blobs: LocalBlobStore, bytes: Uint8Array = BYTES) {
  return await blobs.put(
    (async function* () {
      yield bytes;
    })(),
    'video/mp4',
  );
}

describe('the folder of local blobs', () => {
  it('is rid of half files when it is opened', async (t) => {
    const { dir } = await open(t);
    await mkdir(join(dir, 'tmp'), { recursive: true });
    await writeFile(join(dir, 'tmp', 'half'), 'half');
    await openLocalBlobStore({ dir });
    assert.deepEqual(await readdir(join(dir, 'tmp')), []);
  });

  it('leaves a file that it took in where it was, and does not need it any more', async (t) => {
    const { dir, blobs } = await open(t);
    const source = join(dir, 'output.mp4');
    await writeFile(source, BYTES);
    const { key } = await blobs.put(source, 'video/mp4');
    assert.deepEqual(await readFile(source), BYTES);
    await rm(source);
    assert.deepEqual(await readFile(join(dir, blobs.pathOf(key))), BYTES);
  });

  it('takes plain files alone: no link is followed, no pipe waited on', { skip: process.platform === 'win32' }, async (t) => {
    const { dir, blobs } = await open(t);
    await writeFile(join(dir, 'other'), BYTES);
    await symlink(join(dir, 'other'), join(dir, 'link'));
    await mkdir(join(dir, 'folder'));
    execFileSync('mkfifo', [join(dir, 'pipe')]);
    for (const name of ['link', 'folder', 'pipe', 'nothing']) {
      await assert.rejects(blobs.put(join(dir, name), 'video/mp4'), { reason: 'RESULT_NOT_A_FILE' }, name);
    }
    assert.deepEqual(await readdir(join(dir, 'tmp')), []);
  });

  it('is for reading alone, however it came: a job whose input it is may get it as a second name', {
    skip: process.platform === 'win32',
  }, async (t) => {
    const { dir, blobs } = await open(t);
    const file = async (name: string, bytes: number) => {
      await writeFile(join(dir, name), randomBytes(bytes), { mode: 0o666 });
      return await blobs.put(join(dir, name), 'video/mp4');
    };
    for (const { key } of [await putBytes(blobs), await file('small', 100), await file('large', 200_000)]) {
      assert.equal((await stat(join(dir, blobs.pathOf(key)))).mode & 0o777, 0o444);
    }
  });

  it('makes good a file that has lost bytes', async (t) => {
    const { dir, blobs } = await open(t);
    const { key } = await putBytes(blobs);
    await chmod(join(dir, blobs.pathOf(key)), 0o600);
    await truncate(join(dir, blobs.pathOf(key)), 5);
    assert.deepEqual(await putBytes(blobs), await blobs.stat(key));
    assert.deepEqual(await readFile(join(dir, blobs.pathOf(key))), BYTES);
  });

  it('is made again when somebody has removed it', async (t) => {
    const { dir, blobs } = await open(t);
    await rm(dir, { recursive: true });
    const { key } = await putBytes(blobs);
    assert.deepEqual(await readFile(join(dir, blobs.pathOf(key))), BYTES);
    const source = join(dir, 'output.mp4');
    await writeFile(source, BYTES.subarray(1));
    await rm(join(dir, 'tmp'), { recursive: true });
    assert.equal((await blobs.put(source, 'video/mp4')).bytes, BYTES.length - 1);
  });

  it('leaves nothing of a file that is written to after its digest was made', async (t) => {
    const { dir, blobs } = await open(t);
    const source = join(dir, 'output.mp4');
    await writeFile(source, randomBytes(200_000));
    // The same length, and the same name.
    const late = () => writeFile(source, 'x', { flag: 'r+' });
    await assert.rejects(blobs.put(source, 'video/mp4', { pin: late }), { reason: 'RESULT_CHANGED' });
    assert.deepEqual(await readdir(join(dir, 'tmp')), []);
  });

  it('keeps its secret for its own user, and refuses one that is none', async (t) => {
    const { dir } = await open(t);
    const secret = join(dir, 'url-secret');
    assert.equal((await stat(secret)).mode & 0o777, 0o600);
    await writeFile(secret, 'short');
    await assert.rejects(openLocalBlobStore({ dir }), /url-secret does not hold a secret/);
  });
});

describe('signed URLs of local blobs', { concurrency: 4 }, () => {
  /** A server with one blob, asked over a real connection; time stands still. */
  async function served(t: TestContext, options: { filename?: string; mediaType?: string; expiresMs?: number } = {}) {
    const { dir, blobs } = await open(t);
    const clock = { now: NOW };
    const app = fastify();
    registerBlobRoutes(app, blobs, { now: () => clock.now });
    await app.listen({ host: '127.0.0.1', port: 0 });
    t.after(() => app.close());
    const { key } = await putBytes(blobs);
    const { filename = 'job_1.mp4', mediaType = 'video/mp4', expiresMs = NOW + 60_000 } = options;
    const url = await blobs.signedUrl(key, { expiresMs, filename, mediaType });
    const { port } = app.server.address() as AddressInfo;
    const get = (headers: Record<string, string> = {}, method = 'GET', path = url) =>
      fetch(`http://127.0.0.1:${port}${path}`, { method, headers });
    return { dir, blobs, clock, key, url, get };
  }
  const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer());

  it('give the object, its type and its name', async (t) => {
    const { get, key } = await served(t);
    const response = await get();
    assert.equal(response.status, 200);
    const { headers } = response;
    assert.equal(headers.get('content-type'), 'video/mp4');
    assert.equal(headers.get('content-length'), '10000');
    assert.equal(headers.get('accept-ranges'), 'bytes');
    assert.equal(headers.get('etag'), `"${key}"`);
    assert.equal(headers.get('x-content-type-options'), 'nosniff');
    assert.equal(headers.get('cache-control'), 'private, max-age=60, immutable');
    assert.equal(headers.get('content-disposition'), `inline; filename="job_1.mp4"; filename*=UTF-8''job_1.mp4`);
    assert.deepEqual(await bytesOf(response), BYTES);
  });

  it('answer HEAD as GET, without the bytes', async (t) => {
    const { get } = await served(t);
    const response = await get({}, 'HEAD');
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-length'), '10000');
    assert.equal((await bytesOf(response)).length, 0);
  });

  it('give ranges', async (t) => {
    const { get } = await served(t);
    for (const [range, from, to] of [
      ['bytes=0-99', 0, 99],
      ['bytes=9990-', 9990, 9999],
      ['bytes=-10', 9990, 9999],
      ['bytes=5-99999', 5, 9999],
    ] as const) {
      const response = await get({ range });
      assert.equal(response.status, 206, range);
      assert.equal(response.headers.get('content-range'), `bytes ${from}-${to}/10000`);
      assert.deepEqual(await bytesOf(response), BYTES.subarray(from, to + 1));
    }
    const beyond = await get({ range: 'bytes=10000-' });
    assert.equal(beyond.status, 416);
    assert.equal(beyond.headers.get('content-range'), 'bytes */10000');
    assert.equal(((await beyond.json()) as { code: string }).code, 'out_of_range');
  });

  /** Longer than the buffers that an answer has, and no multiple of them. */
  const LONG = randomBytes(3_000_001);
  async function servedLong(t: TestContext) {
    const { blobs, get, url } = await served(t);
    const { key } = await blobs.put(each([LONG]), 'video/mp4');
    const path = await blobs.signedUrl(key, { expiresMs: NOW + 60_000, filename: 'job_1.mp4', mediaType: 'video/mp4' });
    return { blobs, key, url, path, get: (headers: Record<string, string> = {}) => get(headers, 'GET', path) };
  }

  it('give a long object, and long ranges of it, byte for byte, to many at once', async (t) => {
    const { get } = await servedLong(t);
    const ranges = [undefined, [0, 262_143], [1, 262_145], [262_144, 3_000_000], [131_071, 2_999_999], [2_999_999, 3_000_000]] as const;
    await Promise.all(
      ranges.map(async (range) => {
        const [from, to] = range ?? [0, LONG.length - 1];
        const response = await get(range ? { range: `bytes=${from}-${to}` } : {});
        assert.equal(response.status, range ? 206 : 200);
        assert.ok((await bytesOf(response)).equals(LONG.subarray(from, to + 1)), String(range));
      }),
    );
  });

  it('answer requests that a client sends without waiting, each whole and in their order', async (t) => {
    const { get, path } = await servedLong(t);
    const { port, hostname } = new URL((await get({ range: 'bytes=0-0' })).url);
    const socket = connect(Number(port), hostname);
    t.after(() => socket.destroy());
    const request = (range: string) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=${range}\r\nConnection: keep-alive\r\n\r\n`;
    const ranges = [
      [0, 999_999],
      [1_000_000, 1_000_009],
      [5, 2_000_004],
    ] as const;
    socket.write(ranges.map(([from, to]) => request(`${from}-${to}`)).join(''));
    let received = Buffer.alloc(0);
    const bodies: Buffer[] = [];
    for await (const chunk of socket) {
      received = Buffer.concat([received, chunk as Buffer]);
      for (let end = received.indexOf('\r\n\r\n'); end >= 0; end = received.indexOf('\r\n\r\n')) {
        const length = Number(/content-length: (\d+)/i.exec(received.toString('latin1', 0, end))![1]);
        if (received.length < end + 4 + length) break;
        bodies.push(received.subarray(end + 4, end + 4 + length));
        received = received.subarray(end + 4 + length);
      }
      if (bodies.length === ranges.length) break;
    }
    for (const [nth, [from, to]] of ranges.entries()) assert.ok(bodies[nth]?.equals(LONG.subarray(from, to + 1)), `answer ${nth}`);
  });

  it('let go of the file when a client leaves: in the middle, or while its answer waits behind another', { skip: NO_PROC }, async (t) => {
    const { blobs, key, get, path } = await servedLong(t);
    const file = join(blobs.dir, blobs.pathOf(key));
    const isOpen = () => readdirSync('/proc/self/fd').some((fd) => linkOf(fd) === file);
    const { port, hostname } = new URL((await get({ range: 'bytes=0-0' })).url);
    const sockets = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const socket = connect(Number(port), hostname);
        await once(socket, 'connect');
        socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(3));
        // The first bytes have come, and no more are read.
        await once(socket, 'readable');
        return socket;
      }),
    );
    assert.ok(isOpen());
    for (const socket of sockets) socket.destroy();
    while (isOpen()) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.ok((await bytesOf(await get())).equals(LONG));
  });

  it('give it over HTTP/2 too, and let go of it when a stream is reset', { skip: NO_PROC }, async (t) => {
    const { blobs, key, path } = await servedLong(t);
    const app = fastify({ http2: true });
    registerBlobRoutes(app as never, blobs, { now: () => NOW });
    const session = http2.connect(await app.listen({ host: '127.0.0.1', port: 0 }));
    t.after(async () => {
      session.destroy();
      await app.close();
    });
    const whole = session.request({ ':path': path });
    const chunks: Buffer[] = [];
    for await (const chunk of whole) chunks.push(chunk as Buffer);
    assert.ok(Buffer.concat(chunks).equals(LONG));
    const stopped = session.request({ ':path': path });
    await once(stopped, 'response');
    const file = join(blobs.dir, blobs.pathOf(key));
    const isOpen = () => readdirSync('/proc/self/fd').some((fd) => linkOf(fd) === file);
    assert.ok(isOpen());
    stopped.close(http2.constants.NGHTTP2_CANCEL);
    while (isOpen()) await new Promise((resolve) => setTimeout(resolve, 10));
  });

  it('break off where the disk has lost a part, so that nobody takes what came for the whole', async (t) => {
    const { blobs, key, get } = await servedLong(t);
    const path = join(blobs.dir, blobs.pathOf(key));
    await chmod(path, 0o600);
    // More than what the system takes for a client that does not read.
    const bytes = 64 << 20;
    await truncate(path, bytes);
    const answered = await get();
    assert.equal(answered.headers.get('content-length'), String(bytes));
    await truncate(path, 1000);
    await assert.rejects(bytesOf(answered));
  });

  it('heed validators: a copy that is still good, a range of another object', async (t) => {
    const { get, key } = await served(t);
    for (const match of [`"${key}"`, `W/"${key}"`, `"other", "${key}"`, '*']) {
      assert.equal((await get({ 'if-none-match': match })).status, 304, match);
    }
    assert.equal((await get({ 'if-none-match': '"other"' })).status, 200);
    assert.equal((await get({ 'if-none-match': '"other"', 'if-modified-since': new Date(Date.now() + 1e9).toUTCString() })).status, 200);
    assert.equal((await get({ range: 'bytes=0-1', 'if-range': `"${key}"` })).status, 206);
    assert.equal((await get({ range: 'bytes=0-1', 'if-range': '"other"' })).status, 200);
    assert.equal((await get({ 'if-match': `"${key}"` })).status, 200);
    assert.equal((await get({ 'if-match': '"other"' })).status, 412);
  });

  it('are refused once any part is changed', async (t) => {
    const { get, url, key } = await served(t);
    const changed = [
      url.replace(/expires=\d+/, `expires=${NOW + 1e9}`),
      url.replace('job_1.mp4', 'job_2.mp4'),
      url.replace('video%2Fmp4', 'text%2Fhtml'),
      url.replace(
        key,
        key.replace(/^./, (digit) => (digit === '0' ? '1' : '0')),
      ),
      url.replace(/signature=./, (part) => `signature=${part.endsWith('A') ? 'B' : 'A'}`),
      url.replace(/&signature=.*/, ''),
      url.replace(/\?.*/, ''),
      `${url}&signature=again`,
      url.replace(key, '..%2Furl-secret'),
    ];
    for (const path of changed) {
      const response = await get({}, 'GET', path);
      assert.equal(response.status, 403, path);
      assert.equal(((await response.json()) as { code: string }).code, 'permission_denied');
    }
  });

  it('expire, and are not there for what was deleted', async (t) => {
    const { get, clock, blobs, key } = await served(t);
    await blobs.delete(key);
    assert.equal((await get()).status, 404);
    clock.now += 60_000;
    assert.equal((await get()).status, 410);
  });

  it('hold over a restart', async (t) => {
    const { dir, url, key } = await served(t);
    const query = Object.fromEntries(new URL(url, 'http://localhost').searchParams);
    assert.equal((await openLocalBlobStore({ dir })).verifySignedUrl(key, query, NOW), 'ok');
  });

  it('carry any file name, and save what a browser should not open', async (t) => {
    const { get } = await served(t, { filename: 'Übung "1"\r\nX: y (ä).svg', mediaType: 'image/svg+xml' });
    const { headers } = await get();
    assert.equal(
      headers.get('content-disposition'),
      `attachment; filename="_bung _1___X: y (_).svg"; filename*=UTF-8''%C3%9Cbung%20%221%22%0D%0AX%3A%20y%20%28%C3%A4%29.svg`,
    );
    assert.equal(headers.get('content-security-policy'), "default-src 'none'; sandbox");
  });
});
