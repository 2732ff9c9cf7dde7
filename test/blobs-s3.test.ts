// The blob store on S3: the shared contract, parts that are taken back, URLs as an HTTP client sees them, and a store that misbehaves.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { JobsError } from '../src/jobs/errors.ts';
import { openS3BlobStore, type S3BlobStoreOptions } from '../src/store/blobs-s3.ts';
import { describeBlobStore } from './contract/blob-store.ts';
import { errorAnswer, type FaultyWay, type S3Server, startProxy, startS3 } from './fixtures/media/s3-server.ts';

let server: S3Server;
before(async () => {
  server = await startS3();
});
after(() => server[Symbol.asyncDispose]());

const PART = 5 * 1024 * 1024;
const PREFIX = 'results/of/one/';

/** A store in a bucket of its own. */
async function place(options: Partial<S3BlobStoreOptions> = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-blobs-s3-'));
  const { connection } = server;
  const bucket = await server.makeBucket();
  const all = { connection, bucket, prefix: PREFIX, scratch: join(dir, 'scratch'), partBytes: PART, ...options };
  const opened: Awaited<ReturnType<typeof openS3BlobStore>>[] = [];
  const open = async (more: Partial<S3BlobStoreOptions> = {}) => {
    const blobs = await openS3BlobStore({ ...all, ...more });
    opened.push(blobs);
    return blobs;
  };
  return {
    dir,
    bucket,
    open,
    async destroy() {
      for (const blobs of opened) await blobs[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    },
  };
}

async function opened(t: TestContext, options: Partial<S3BlobStoreOptions> = {}) {
  const there = await place(options);
  t.after(() => there.destroy());
  return { ...there, blobs: await there.open() };
}

describe('a prefix', () => {
  it('is one job store’s', async (t) => {
    const { open, bucket, destroy } = await place();
    t.after(() => destroy());
    await Promise.all([open({ jobStore: 'a'.repeat(32) }), open({ jobStore: 'a'.repeat(32) })]);
    await assert.rejects(
      open({ jobStore: 'b'.repeat(32) }),
      new RegExp(`^Error: s3://${bucket}/${PREFIX} has the results of another job store.* delete s3://${bucket}/${PREFIX}job-store$`),
    );
    await open({ jobStore: 'b'.repeat(32), prefix: `${PREFIX}another/` });
    await open({ jobStore: 'a'.repeat(32) });
  });
});

describeBlobStore('s3', async () => {
  const { bucket, dir, open, destroy } = await place();
  return {
    blobs: await open(),
    reopen: () => open(),
    count: async () =>
      (await server.keys(bucket)).length + (await server.uploads(bucket)).length + (await readdir(join(dir, 'scratch'))).length,
    destroy,
  };
});

async function* bytesOf(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function read(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const isUnavailable = (error: unknown) =>
  error instanceof JobsError && error.reason === 'STORE_UNAVAILABLE' && error.kind === 'unavailable';

describe('blobs on S3', { concurrency: 4 }, () => {
  it('lie under their prefix and nowhere else', async (t) => {
    const { blobs, bucket } = await opened(t);
    const { key } = await blobs.put(bytesOf(randomBytes(10)), 'image/png');
    assert.deepEqual(await server.keys(bucket), [`${PREFIX}${key}`]);
    await blobs.delete(key);
    assert.deepEqual(await server.keys(bucket), []);
  });

  it('of several parts are whole, from a file and from a stream, and told about on the way', async (t) => {
    const { blobs, dir, bucket } = await opened(t);
    for (const size of [PART, PART + 1, 3 * PART, 3 * PART + 12_345]) {
      const bytes = randomBytes(size);
      const path = join(dir, 'file');
      await writeFile(path, bytes);
      const told: number[] = [];
      const { key } = await blobs.put(path, 'video/mp4', { progress: (done, total) => void told.push(done / total) });
      assert.deepEqual(await read(blobs.get(key)), bytes);
      assert.deepEqual(await read(blobs.get(key, { start: size - 7, end: size - 1 })), bytes.subarray(-7));
      assert.equal(told.at(-1), 1);
      assert.deepEqual(
        told,
        told.toSorted((a, b) => a - b),
      );
      await blobs.delete(key);
      assert.equal((await blobs.put(bytesOf(bytes.subarray(0, 9), bytes.subarray(9)), 'video/mp4')).key, key);
      assert.deepEqual(await read(blobs.get(key)), bytes);
    }
    assert.deepEqual(await server.uploads(bucket), []);
  });

  it('that another writer has just written are left as they are', async (t) => {
    const { blobs, bucket } = await opened(t);
    for (const size of [10, PART + 1]) {
      const bytes = randomBytes(size);
      const pin = async (key: string) => {
        // After our look and before our write, as far as a test can do it: the pin comes before both, so the look finds it or the condition does.
        await server.client.send(new PutObjectCommand({ Bucket: bucket, Key: PREFIX + key, Body: bytes, ContentType: 'image/webp' }));
      };
      assert.equal((await blobs.put(bytesOf(bytes), 'image/png', { pin })).mediaType, 'image/webp');
    }
  });

  it('of another length than their key says are made good', async (t) => {
    const { blobs, bucket } = await opened(t);
    const bytes = randomBytes(100);
    const { key } = await blobs.put(bytesOf(bytes), 'image/png');
    await server.client.send(new PutObjectCommand({ Bucket: bucket, Key: PREFIX + key, Body: 'less' }));
    await blobs.put(bytesOf(bytes), 'image/png');
    assert.deepEqual(await read(blobs.get(key)), bytes);
  });

  it('whose upload a dead process began are taken back a day later, page for page', async (t) => {
    const proxy = await startProxy(server.connection.endpoint);
    t.after(() => proxy[Symbol.asyncDispose]());
    const there = await place({ connection: { ...server.connection, endpoint: proxy.endpoint } });
    t.after(() => there.destroy());
    const now = Date.now();
    const upload = (key: string, hours: number) =>
      `<Upload><Key>${key}</Key><UploadId>${key}-id</UploadId><Initiated>${new Date(now - hours * 3_600_000).toISOString()}</Initiated></Upload>`;
    const PAGES = [
      `<IsTruncated>true</IsTruncated><NextKeyMarker>m</NextKeyMarker>${upload(`${PREFIX}old`, 25)}${upload(`${PREFIX}new`, 23)}`,
      // A server may pay no heed to the prefix.
      `<IsTruncated>false</IsTruncated>${upload(`${PREFIX}older`, 1000)}${upload('others/old', 1000)}`,
    ];
    proxy.fault = ({ method, url }) => {
      if (method !== 'GET' || !/[?&]uploads/.test(url!)) return undefined;
      const page = PAGES[url!.includes('key-marker=m') ? 1 : 0];
      return (response) => void response.end(`<ListMultipartUploadsResult>${page}</ListMultipartUploadsResult>`);
    };
    await there.open({ now: () => now });
    const deleted = proxy.requests.filter((request) => request.startsWith('DELETE') && request.includes('uploadId='));
    assert.deepEqual(
      deleted.map((request) => /uploadId=([^&]+)/.exec(decodeURIComponent(request))![1]),
      [`${PREFIX}old-id`, `${PREFIX}older-id`],
    );
  });
});

describe('presigned URLs', { concurrency: 4 }, () => {
  it('give the object, its type, its name and ranges, to whoever holds them', async (t) => {
    const { blobs } = await opened(t);
    const bytes = randomBytes(10_000);
    const { key } = await blobs.put(bytesOf(bytes), 'video/mp4');
    const expiresMs = Date.now() + 60_000;
    const url = new URL(await blobs.signedUrl(key, { expiresMs, filename: 'job "ä".mp4', mediaType: 'video/mp4' }));
    const response = await fetch(url);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-type'), 'video/mp4');
    assert.equal(response.headers.get('content-disposition'), `inline; filename="job ___.mp4"; filename*=UTF-8''job%20%22%C3%A4%22.mp4`);
    assert.ok(response.headers.get('etag'));
    assert.deepEqual(Buffer.from(await response.arrayBuffer()), bytes);
    const part = await fetch(url, { headers: { range: 'bytes=9990-' } });
    assert.equal(part.status, 206);
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), bytes.subarray(9990));
    const seconds = Number(url.searchParams.get('X-Amz-Expires'));
    assert.ok(seconds > 50 && seconds <= 60, `${seconds}`);
    // What a browser should not open is saved.
    const saved = new URL(await blobs.signedUrl(key, { expiresMs, filename: 'a.svg', mediaType: 'image/svg+xml' }));
    assert.match(saved.searchParams.get('response-content-disposition')!, /^attachment;/);
  });

  it('name the store as callers reach it', async (t) => {
    const { blobs } = await opened(t, { publicEndpoint: 'https://s3.example.com' });
    const { key } = await blobs.put(bytesOf(randomBytes(10)), 'image/png');
    const facts = { expiresMs: Date.now() + 3_600_000, filename: 'a.png', mediaType: 'image/png' };
    assert.match(await blobs.signedUrl(key, facts), /^https:\/\/s3\.example\.com\/ffjobs-[0-9a-f]+\/results\/of\/one\/[0-9a-f]{64}\?/);
  });

  it('live a week at the most, as S3 has it', async (t) => {
    const { blobs } = await opened(t);
    const { key } = await blobs.put(bytesOf(randomBytes(10)), 'image/png');
    const url = await blobs.signedUrl(key, { expiresMs: Date.now() + 30 * 86_400_000, filename: 'a', mediaType: 'image/png' });
    assert.equal(new URL(url).searchParams.get('X-Amz-Expires'), '604800');
  });
});

describe('a store on S3 that misbehaves', { concurrency: 4 }, () => {
  async function behindProxy(t: TestContext, options: Partial<S3BlobStoreOptions> = {}) {
    const proxy = await startProxy(server.connection.endpoint);
    const there = await opened(t, { connection: { ...server.connection, endpoint: proxy.endpoint }, ...options });
    t.after(() => proxy[Symbol.asyncDispose]());
    proxy.requests.length = 0;
    return { ...there, proxy };
  }
  const on = (proxy: FaultyWay, pattern: RegExp, answer: ReturnType<typeof errorAnswer>, times = Number.POSITIVE_INFINITY) => {
    proxy.fault = ({ method, url }) => {
      if (times <= 0 || !pattern.test(`${method} ${url}`)) return undefined;
      times--;
      return answer;
    };
  };

  const FAULTS: readonly [what: string, answer: ReturnType<typeof errorAnswer>][] = [
    ['is broken', errorAnswer(500, 'InternalError')],
    ['is overloaded', errorAnswer(503, 'SlowDown')],
    ['lets nobody in', errorAnswer(403, 'AccessDenied')],
    ['has lost its bucket', errorAnswer(404, 'NoSuchBucket')],
    ['hangs up', (response) => void response.destroy()],
  ];
  for (const [what, answer] of FAULTS) {
    it(`and ${what} is worth another try, and nothing half-written stays`, async (t) => {
      const { blobs, proxy, bucket, dir } = await behindProxy(t);
      const bytes = randomBytes(3 * PART);
      on(proxy, /^PUT .*partNumber=2/, answer);
      await assert.rejects(blobs.put(bytesOf(bytes), 'video/mp4'), isUnavailable);
      on(proxy, /^POST .*uploadId=/, answer);
      await assert.rejects(blobs.put(bytesOf(bytes), 'video/mp4'), isUnavailable);
      on(proxy, /^PUT /, answer);
      await assert.rejects(blobs.put(bytesOf(bytes.subarray(1, 100)), 'video/mp4'), isUnavailable);
      assert.deepEqual([await server.keys(bucket), await server.uploads(bucket), await readdir(join(dir, 'scratch'))], [[], [], []]);
      proxy.fault = undefined;
      const { key } = await blobs.put(bytesOf(bytes), 'video/mp4');
      on(proxy, /^DELETE /, answer);
      if (what !== 'has lost its bucket') await assert.rejects(blobs.delete(key), isUnavailable);
      // A URL is made without asking the store.
      on(proxy, /./, answer);
      assert.ok(await blobs.signedUrl(key, { expiresMs: Date.now() + 1e6, filename: 'a', mediaType: 'video/mp4' }));
    });
  }

  it('and fails now and then is asked again', async (t) => {
    const { blobs, proxy } = await behindProxy(t);
    const bytes = randomBytes(2 * PART + 5);
    on(proxy, /partNumber=1/, errorAnswer(500, 'InternalError'), 1);
    const { key } = await blobs.put(bytesOf(bytes), 'video/mp4');
    proxy.fault = undefined;
    assert.deepEqual(await read(blobs.get(key)), bytes);
  });

  it('and breaks off while it sends is asked for the rest', async (t) => {
    const { blobs, proxy } = await behindProxy(t);
    const bytes = randomBytes(300_000);
    const { key } = await blobs.put(bytesOf(bytes), 'video/mp4');
    let breaks = 3;
    proxy.fault = ({ method, headers }) => {
      if (method !== 'GET' || breaks-- <= 0) return undefined;
      const from = Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0);
      return (response) => {
        response.writeHead(from > 0 ? 206 : 200, { 'content-length': bytes.length - from });
        response.write(bytes.subarray(from, from + 70_000), () => response.socket?.end());
      };
    };
    assert.deepEqual(await read(blobs.get(key)), bytes);
  });

  it('and stands still is given up', async (t) => {
    const { blobs, proxy, bucket } = await behindProxy(t, { idleMs: 200 });
    proxy.fault = ({ method }) => (method === 'PUT' ? () => {} : undefined);
    await assert.rejects(blobs.put(bytesOf(randomBytes(100)), 'video/mp4'), isUnavailable);
    proxy.fault = undefined;
    assert.deepEqual(await server.keys(bucket), []);
  });

  it('and knows no conditional writes is looked at before each write', async (t) => {
    const { blobs, proxy } = await behindProxy(t);
    proxy.fault = ({ headers }) => (headers['if-none-match'] === undefined ? undefined : errorAnswer(501, 'NotImplemented'));
    for (const size of [100, PART + 1]) {
      const bytes = randomBytes(size);
      const { key } = await blobs.put(bytesOf(bytes), 'video/mp4');
      assert.deepEqual(await read(blobs.get(key)), bytes);
    }
  });

  it('whose caller leaves in the middle of an upload keeps nothing', async (t) => {
    const { blobs, proxy, bucket } = await behindProxy(t);
    const leaving = new AbortController();
    proxy.fault = ({ url }) => {
      if (url!.includes('partNumber=2')) leaving.abort();
      return undefined;
    };
    await assert.rejects(blobs.put(bytesOf(randomBytes(3 * PART)), 'video/mp4', { signal: leaving.signal }), { name: 'AbortError' });
    assert.deepEqual([await server.keys(bucket), await server.uploads(bucket)], [[], []]);
  });

  it('is found out at the start, in a sentence', async (t) => {
    const proxy = await startProxy(server.connection.endpoint);
    t.after(() => proxy[Symbol.asyncDispose]());
    const there = await place({ connection: { ...server.connection, endpoint: proxy.endpoint } });
    t.after(() => there.destroy());
    const STARTS: readonly [Parameters<typeof on>[1], Parameters<typeof on>[2], RegExp][] = [
      [/^PUT/, errorAnswer(404, 'NoSuchBucket'), /there is no bucket 'ffjobs-[0-9a-f]+' at http.*: make it, or correct the name/],
      [/^PUT/, errorAnswer(403, 'AccessDenied'), /does not let the service in \(AccessDenied\): give its credentials s3:PutObject/],
      [/^GET/, errorAnswer(403, 'AccessDenied'), /does not let the service in/],
      [/^DELETE/, errorAnswer(403, 'AccessDenied'), /does not let the service in/],
      [/^HEAD/, (response) => void response.writeHead(403).end(), /s3:ListBucket/],
      [/^PUT/, errorAnswer(403, 'InvalidAccessKeyId'), /does not take the credentials \(InvalidAccessKeyId\)/],
      [/^PUT/, errorAnswer(400, 'AuthorizationHeaderMalformed'), /is not in us-east-1 .*FFJOBS_S3_REGION/],
      [/./, (response) => void response.destroy(), /cannot be reached \(ECONNRESET\)/],
      [/./, (response) => void response.end('<html>hello</html>'), /answers in a way that is not understood|is it S3/],
    ];
    for (const [pattern, answer, expected] of STARTS) {
      on(proxy, pattern, answer);
      await assert.rejects(there.open(), (error: Error) => {
        assert.match(error.message, /^the blob store s3:\/\/ffjobs-[0-9a-f]+\/results\/of\/one\/ cannot be used: /);
        assert.match(error.message, expected);
        assert.doesNotMatch(error.message, /\n/);
        return true;
      });
    }
    proxy.fault = undefined;
    const nobody = { ...server.connection, endpoint: 'http://127.0.0.1:1' };
    await assert.rejects(there.open({ connection: nobody }), /cannot be reached \(ECONNREFUSED\)/);
    await there.open();
    const left = await server.client
      .send(new GetObjectCommand({ Bucket: there.bucket, Key: `${PREFIX}x` }))
      .catch(({ name }: Error) => name);
    assert.equal(left, 'NoSuchKey');
  });
});
