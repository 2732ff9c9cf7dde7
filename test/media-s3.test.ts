// Inputs from S3: against moto where it behaves, against an origin of our own where it does not.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { CreateBucketCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { openS3, type S3Options } from '../src/media/s3.ts';
import { inTurn, picture, type Serve, startOrigin, status } from './fixtures/media/origin.ts';
import { type S3Server, startS3 } from './fixtures/media/s3-server.ts';

const NEVER = new AbortController().signal;
const credentials = { accessKeyId: 'key', secretAccessKey: 'secret' };
const BYTES = picture(3_000_001);

async function place(t: TestContext, endpoint: string, options: Partial<S3Options> = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-s3-'));
  const s3 = openS3({
    connection: { endpoint, region: 'us-east-1', credentials },
    buckets: ['media'],
    maxBytes: 2 ** 23,
    totalMs: 600_000,
    partBytes: 256 * 1024,
    ...options,
  });
  t.after(async () => {
    await s3[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });
  let files = 0;
  const fetch = async (reference: string, signal = NEVER) => {
    const path = join(dir, `file-${++files}`);
    const digests: string[] = [];
    let last: readonly [number, number | undefined] | undefined;
    const failure = await s3.fetch(reference, path, signal, {
      progress: (...now) => {
        last = now;
      },
      digested: (sha256) => void digests.push(sha256),
    });
    if (failure) {
      assert.deepEqual(await readdir(dir), []);
      return { ...failure, bytes: undefined };
    }
    const bytes = await readFile(path);
    assert.deepEqual(digests, [createHash('sha256').update(bytes).digest('hex')]);
    assert.deepEqual(last, [bytes.length, bytes.length]);
    await rm(path);
    return { bytes, reason: undefined, message: '', retryable: false };
  };
  return { dir, s3, fetch };
}

describe('an object of a store', () => {
  let server: S3Server;
  let endpoint: string;
  let client: S3Client;

  before(async () => {
    server = await startS3('moto');
    ({ client } = server);
    ({ endpoint } = server.connection);
    for (const Bucket of ['media', 'others']) {
      await client.send(new CreateBucketCommand({ Bucket }));
      await client.send(new PutObjectCommand({ Bucket, Key: 'a.jpg', Body: BYTES }));
    }
  });

  after(() => server[Symbol.asyncDispose]());

  it('is written with its digest, whole or in parts side by side', async (t) => {
    for (const options of [
      { partBytes: 2 ** 30 },
      { partBytes: 100_000, parallel: 1 },
      { partBytes: 100_000, parallel: 7 },
      { partBytes: BYTES.length },
    ]) {
      const { fetch } = await place(t, endpoint, options);
      assert.deepEqual((await fetch('s3://media/a.jpg')).bytes, BYTES);
    }
  });

  it('has any key that S3 takes, letter for letter', async (t) => {
    const { fetch } = await place(t, endpoint);
    const small = picture(5000);
    for (const key of ['a b+c%20d.jpg', 'Ünï/日本.jpg', 'a?b=c&d#e.jpg', "it's (1)*!.jpg", 'a//b.jpg', 'a/...jpg', 'a:b@c.jpg']) {
      await client.send(new PutObjectCommand({ Bucket: 'media', Key: key, Body: small }));
      assert.deepEqual((await fetch(`s3://media/${key}`)).bytes, small, key);
    }
  });

  it('that is not there, empty, too large or no medium is refused', async (t) => {
    const { fetch } = await place(t, endpoint, { maxBytes: 3_000_000 });
    await client.send(new PutObjectCommand({ Bucket: 'media', Key: 'empty', Body: '' }));
    await client.send(new PutObjectCommand({ Bucket: 'media', Key: 'words', Body: 'words '.repeat(2000) }));
    await client.send(new PutObjectCommand({ Bucket: 'media', Key: 'packed', Body: BYTES.subarray(0, 5000), ContentEncoding: 'gzip' }));
    for (const [key, reason] of [
      ['none.jpg', 'INPUT_NOT_FOUND'],
      ['empty', 'INPUT_NOT_READABLE'],
      ['a.jpg', 'INPUT_TOO_LARGE'],
      ['words', 'INPUT_NOT_READABLE'],
      ['packed', 'INPUT_NOT_READABLE'],
    ]) {
      const failure = await fetch(`s3://media/${key}`);
      assert.deepEqual([failure.reason, failure.retryable], [reason, false], key);
    }
  });

  it('is of a listed bucket and under the prefix that the rule of the caller allows', async (t) => {
    const { fetch, s3 } = await place(t, endpoint, { mayRead: (_, key) => key.startsWith('tenant-a/') });
    await client.send(new PutObjectCommand({ Bucket: 'media', Key: 'tenant-a/a.jpg', Body: BYTES }));
    assert.deepEqual((await fetch('s3://media/tenant-a/a.jpg')).bytes, BYTES);
    for (const reference of ['s3://media/a.jpg', 's3://others/tenant-a/a.jpg', 's3://media/tenant-b/a.jpg']) {
      assert.equal((await fetch(reference)).reason, 'INPUT_BUCKET_NOT_ALLOWED', reference);
      assert.deepEqual((await s3.check(reference, 'target_image', 'one'))?.field, 'target_image');
    }
    const any = await place(t, endpoint, { buckets: ['*'] });
    assert.deepEqual((await any.fetch('s3://others/a.jpg')).bytes, BYTES);
    assert.equal((await any.fetch('s3://no-such-bucket/a.jpg')).reason, 'INPUT_NOT_FOUND');
  });

  it('leaves nothing behind when its job does', async (t) => {
    const { s3, dir } = await place(t, endpoint, { partBytes: 10_000 });
    const leaving = new AbortController();
    const observer = { progress: () => leaving.abort(new Error('canceled')), digested() {} };
    await assert.rejects(s3.fetch('s3://media/a.jpg', join(dir, 'a'), leaving.signal, observer), /canceled/);
    assert.deepEqual(await readdir(dir), []);
  });
});

describe('a store that misbehaves', { concurrency: 4 }, () => {
  const PATH = '/media/a.jpg';
  const etag = '"one"';
  /** One object as S3 serves it, with `get` in place of a whole answer. */
  const object =
    (get: Serve): Serve =>
    (request, response) => {
      if (request.method !== 'HEAD') get(request, response);
      else response.writeHead(200, { 'content-length': BYTES.length, etag }).end();
    };
  const range = (header: string | undefined) => /^bytes=(\d+)-(\d+)$/.exec(header!)!.slice(1).map(Number) as [number, number];
  const part: Serve = (request, response) => {
    const [from, to] = range(request.headers.range);
    response.writeHead(206, { 'content-length': to - from + 1, etag }).end(BYTES.subarray(from, to + 1));
  };
  const error = (code: number, name: string): Serve => {
    const body = `<?xml version="1.0"?><Error><Code>${name}</Code><Message>words of the store</Message></Error>`;
    return (_, response) => void response.writeHead(code, { 'content-type': 'application/xml' }).end(body);
  };

  it('and takes its time is asked for as many parts at once as it may be, and for no more', async (t) => {
    const origin = await startOrigin();
    t.after(() => origin[Symbol.asyncDispose]());
    const waiting: (() => void)[] = [];
    let asked = 0;
    const parts = 8;
    const slow: Serve = (request, response) => {
      asked++;
      waiting.push(() => part(request, response));
      assert.ok(waiting.length <= 4, 'more at once than it may be');
      // None is answered before four have been asked for, or all of them.
      if (waiting.length === 4 || asked === parts) for (const answer of waiting.splice(0)) answer();
    };
    origin.on(PATH, object(slow));
    const { fetch } = await place(t, `http://127.0.0.1:${origin.port}`, { partBytes: Math.ceil(BYTES.length / parts), parallel: 4 });
    assert.deepEqual((await fetch('s3://media/a.jpg')).bytes, BYTES);
    assert.equal(asked, parts);
  });

  it('and breaks off in the middle of parts is asked for the rest of each', async (t) => {
    await using origin = await startOrigin();
    let breaks = 5;
    const cut: Serve = (request, response) => {
      if (breaks-- <= 0) return part(request, response);
      const [from, to] = range(request.headers.range);
      response.writeHead(206, { 'content-length': to - from + 1, etag });
      response.write(BYTES.subarray(from, from + 50_000), () => response.socket?.end());
    };
    origin.on(PATH, object(cut));
    const { fetch } = await place(t, `http://127.0.0.1:${origin.port}`);
    assert.deepEqual((await fetch('s3://media/a.jpg')).bytes, BYTES);
    assert.ok(origin.requests.every((request) => request.method === 'HEAD' || request.headers['if-match'] === etag));
  });

  const ENDS: readonly [what: string, serve: Serve, reason: string, retryable: boolean][] = [
    ['denies', status(403), 'INPUT_FORBIDDEN', false],
    ['denies the bytes', object(error(403, 'AccessDenied')), 'INPUT_FORBIDDEN', false],
    ['has another version by now', object(inTurn(part, error(412, 'PreconditionFailed'))), 'INPUT_CHANGED', true],
    ['has lost it by now', object(error(404, 'NoSuchKey')), 'INPUT_NOT_FOUND', false],
    ['fails, again and again', error(500, 'InternalError'), 'INPUT_UNREACHABLE', true],
    [
      'says nothing of the length',
      (_, response) => void response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(),
      'INPUT_UNREACHABLE',
      true,
    ],
    ['sends more than it was asked for', object((_, response) => void response.writeHead(206).end(BYTES)), 'INPUT_UNREACHABLE', true],
    [
      'sends less than it announced',
      object((_, response) => void response.writeHead(206).end(BYTES.subarray(0, 10_000))),
      'INPUT_TRUNCATED',
      true,
    ],
  ];
  for (const [what, serve, reason, retryable] of ENDS) {
    it(`is told to the caller: it ${what}`, async (t) => {
      await using origin = await startOrigin();
      origin.on(PATH, serve);
      const { fetch } = await place(t, `http://127.0.0.1:${origin.port}`, { parallel: 2 });
      const failure = await fetch('s3://media/a.jpg');
      assert.deepEqual([failure.reason, failure.retryable], [reason, retryable], failure.message);
      assert.doesNotMatch(failure.message, /words of the store|127\.0\.0\.1|AccessDenied|media\/a/);
    });
  }

  it('or does not know our credentials is the affair of the operator', async (t) => {
    await using origin = await startOrigin();
    origin.on(PATH, object(error(403, 'InvalidAccessKeyId')));
    const { s3, dir } = await place(t, `http://127.0.0.1:${origin.port}`);
    await assert.rejects(s3.fetch('s3://media/a.jpg', join(dir, 'a'), NEVER), { name: 'InvalidAccessKeyId' });
    assert.deepEqual(await readdir(dir), []);
  });

  it('or stands still is given up', async (t) => {
    await using origin = await startOrigin();
    origin.on(
      PATH,
      object((_, response) => {
        response.writeHead(206, { 'content-length': 256 * 1024 });
        response.write(BYTES.subarray(0, 1000));
      }),
    );
    const { fetch } = await place(t, `http://127.0.0.1:${origin.port}`, { idleMs: 100 });
    const failure = await fetch('s3://media/a.jpg');
    assert.deepEqual([failure.reason, failure.retryable], ['INPUT_TIMED_OUT', true]);
  });
});
