// Uploads on S3, shared by the processes of a fleet: any of them goes on with what another one began, two that write at once do no harm, and a worker
// on another machine has the bytes.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { DeleteObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import type { JobsError } from '../src/jobs/errors.ts';
import { openS3UploadBytes, type S3UploadBytesOptions } from '../src/media/upload-s3.ts';
import { openUploads, type Uploads } from '../src/media/uploads.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { type Service, startService, untilWarm } from './api/service.ts';
import { refusal } from './contract/calls.ts';
import { errorAnswer, type FaultyWay, type S3Server, startProxy, startS3 } from './fixtures/media/s3-server.ts';

const NEVER = new AbortController().signal;
const HOUR_MS = 3_600_000;
const PIECE = 4096;
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const jpeg = (bytes: number) => Buffer.concat([Buffer.from('ffd8ffe000104a464946', 'hex'), randomBytes(bytes - 10)]);

let redis: RedisServer;
let s3: S3Server;
before(async () => {
  [redis, s3] = await Promise.all([startRedis(), startS3()]);
});
after(async () => {
  await redis[Symbol.asyncDispose]();
  await s3[Symbol.asyncDispose]();
});

interface Fleet {
  readonly a: Uploads;
  readonly b: Uploads;
  readonly bucket: string;
  readonly home: string;
  /** Between `a` and the store. */
  readonly way: FaultyWay;
  /** Begins one through `a`. */
  begin(bytes: Uint8Array): Promise<string>;
}

/** Two processes of one fleet. */
async function fleet(t: TestContext, options: Partial<S3UploadBytesOptions> = {}): Promise<Fleet> {
  const home = await mkdtemp(join(tmpdir(), 'ffjobs-uploads-s3-'));
  const bucket = await s3.makeBucket();
  const way = await startProxy(s3.connection.endpoint);
  const opened: AsyncDisposable[] = [way];
  const open = async (endpoint: string) => {
    const store = await openRedisJobStore({ url: redis.url, fleet: basename(home) });
    const bytes = openS3UploadBytes({ connection: { ...s3.connection, endpoint }, bucket, prefix: 'u/', pieceBytes: PIECE, ...options });
    const limits = { maxUploads: 100, maxBytes: 1e9, ttlMs: HOUR_MS };
    const uploads = await openUploads({ records: store.uploads, bytes, maxBytes: 1e8, limits });
    opened.push(store, uploads);
    return uploads;
  };
  const [a, b] = [await open(way.endpoint), await open(s3.connection.endpoint)];
  t.after(async () => {
    for (const one of opened.toReversed()) await one[Symbol.asyncDispose]();
    await rm(home, { recursive: true });
  });
  const begin = async (bytes: Uint8Array) => {
    const id = a.newId();
    await a.create(id, { tenant: 'one', filename: 'a.jpg', bytes: bytes.length, sha256: sha256(bytes) }, '');
    return id;
  };
  return { a, b, bucket, home, way, begin };
}

async function* bytesOf(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

/** Sends `first`, and `rest` when it is let go. */
function halting(first: Uint8Array, rest: Uint8Array) {
  const { promise: halted, resolve: atHalt } = Promise.withResolvers<void>();
  const { promise: going, resolve: go } = Promise.withResolvers<void>();
  const bytes = (async function* () {
    yield first;
    atHalt();
    await going;
    yield rest;
  })();
  return { bytes, halted, go };
}

const fetchTo = (uploads: Uploads, id: string, path: string) => uploads.resolver.fetch(`upload://${id}`, path, NEVER);

describe('uploads on S3', { concurrency: 4, timeout: 240_000 }, () => {
  it('go on in another process, piece by piece, and have the digest of all', async (t) => {
    const { a, b, home, begin } = await fleet(t);
    const bytes = jpeg(10 * PIECE + 17);
    const id = await begin(bytes);
    let at = 0;
    for (const [uploads, to] of [
      [a, PIECE],
      [b, 3 * PIECE + 5],
      [a, 3 * PIECE + 6],
      [b, 9 * PIECE],
      [a, bytes.length],
    ] as const) {
      assert.equal((await uploads.find(id, 'one')).offset, at);
      assert.equal(await uploads.append(id, 'one', at, bytesOf(bytes.subarray(at, to))), to);
      at = to;
    }
    for (const uploads of [a, b]) assert.equal((await uploads.get(id, 'one'))?.sha256, sha256(bytes));
    assert.equal(await fetchTo(b, id, join(home, 'copy')), undefined);
    assert.deepEqual(await readFile(join(home, 'copy')), bytes);
  });

  it('that two processes write at once are the bytes of one of them, and the other is told', async (t) => {
    const { a, b, home, begin } = await fleet(t);
    const bytes = jpeg(6 * PIECE);
    const id = await begin(bytes);
    const stalled = halting(randomBytes(PIECE - 1), randomBytes(2 * PIECE));
    const late = refusal(a.append(id, 'one', 0, stalled.bytes));
    await stalled.halted;
    assert.equal(await b.append(id, 'one', 0, bytesOf(bytes.subarray(0, 3 * PIECE))), 3 * PIECE);
    stalled.go();
    assert.deepEqual([(await late).kind, (await late).reason], ['aborted', 'UPLOAD_CONFLICT']);
    // As long as what `a` has seen, which are other bytes.
    assert.equal((await a.find(id, 'one')).offset, 3 * PIECE);
    assert.equal(await a.append(id, 'one', 3 * PIECE, bytesOf(bytes.subarray(3 * PIECE))), bytes.length);
    assert.equal((await b.get(id, 'one'))?.sha256, sha256(bytes));
    assert.equal(await fetchTo(b, id, join(home, 'copy')), undefined);
    assert.deepEqual(await readFile(join(home, 'copy')), bytes);
  });

  it('that a crowd of writers sends at once are whole', async (t) => {
    const { a, b, begin } = await fleet(t);
    const bytes = jpeg(12 * PIECE + 100);
    const id = await begin(bytes);
    const send = async (uploads: Uploads) => {
      for (;;) {
        const { offset, upload } = await uploads.find(id, 'one');
        if (upload) return upload.sha256;
        const some = bytes.subarray(offset, offset + 1 + Math.floor(Math.random() * 3 * PIECE));
        await uploads.append(id, 'one', offset, bytesOf(some)).catch((error: unknown) => {
          assert.equal((error as JobsError).reason, 'UPLOAD_CONFLICT');
        });
      }
    };
    assert.deepEqual(await Promise.all([send(a), send(b)]), [sha256(bytes), sha256(bytes)]);
  });

  it('that are removed while another process writes leave nothing', async (t) => {
    const { a, b, bucket, begin } = await fleet(t);
    const bytes = jpeg(3 * PIECE);
    const id = await begin(bytes);
    const stalled = halting(bytes.subarray(0, PIECE + 1), bytes.subarray(PIECE + 1));
    const late = refusal(a.append(id, 'one', 0, stalled.bytes));
    await stalled.halted;
    await b.remove(id, 'one');
    stalled.go();
    assert.equal((await late).reason, 'UPLOAD_NOT_FOUND');
    assert.deepEqual(await s3.keys(bucket), []);
  });

  it('whose store is away are refused for now, keep what came, and go on', async (t) => {
    const { a, way, bucket, begin } = await fleet(t);
    const bytes = jpeg(3 * PIECE);
    const id = await begin(bytes);
    let puts = 0;
    way.fault = ({ method }) => (method === 'PUT' && ++puts > 1 ? errorAnswer(503, 'SlowDown') : undefined);
    const refused = await refusal(a.append(id, 'one', 0, bytesOf(bytes)));
    assert.deepEqual([refused.kind, refused.reason], ['unavailable', 'STORE_UNAVAILABLE']);
    assert.equal((await a.find(id, 'one')).offset, PIECE);
    await assert.rejects(a.receive({ tenant: 'one', filename: 'x' }, bytesOf(bytes), NEVER), { reason: 'STORE_UNAVAILABLE' });
    way.fault = undefined;
    assert.equal(await a.append(id, 'one', PIECE, bytesOf(bytes.subarray(PIECE))), bytes.length);
    await a.sweep();
    assert.equal((await s3.keys(bucket)).length, 3);
    assert.deepEqual(await s3.uploads(bucket), []);
  });

  it('know a piece of their own whose answer was lost', async (t) => {
    const { a, way, begin } = await fleet(t);
    const bytes = jpeg(PIECE);
    const id = await begin(bytes);
    let lost = 0;
    way.fault = (request) => {
      if (request.method !== 'PUT' || lost++ > 0) return undefined;
      // It arrives, and its answer does not.
      return (response: ServerResponse) => {
        const chunks: Buffer[] = [];
        request.on('data', (chunk: Buffer) => chunks.push(chunk));
        request.on('end', () => {
          const headers = { ...(request.headers as Record<string, string>) };
          delete headers.host;
          delete headers.connection;
          delete headers['content-length'];
          void fetch(s3.connection.endpoint + request.url, { method: 'PUT', headers, body: Buffer.concat(chunks) }).then((answer) => {
            assert.equal(answer.status, 200);
            response.destroy();
          });
        });
      };
    };
    assert.equal(await a.append(id, 'one', 0, bytesOf(bytes)), PIECE);
    assert.ok(lost > 1);
    assert.equal((await a.get(id, 'one'))?.sha256, sha256(bytes));
  });

  it('that are not any more what they were do not reach an engine', async (t) => {
    const { a, bucket, home } = await fleet(t);
    const bytes = jpeg(3 * PIECE);
    const one = await a.receive({ tenant: 'one', filename: 'x' }, bytesOf(bytes), NEVER);
    const id = one.uri.slice('upload://'.length);
    const [last, , first] = await s3.keys(bucket);
    const copy = join(home, 'copy');
    await s3.client.send(new PutObjectCommand({ Bucket: bucket, Key: first!, Body: randomBytes(PIECE) }));
    assert.deepEqual([(await fetchTo(a, id, copy))?.reason, existsSync(copy)], ['INPUT_CHANGED', false]);
    await s3.client.send(new DeleteObjectCommand({ Bucket: bucket, Key: last! }));
    assert.deepEqual([(await fetchTo(a, id, copy))?.reason, existsSync(copy)], ['INPUT_CHANGED', false]);
  });

  it('in too many pieces are refused in words', async (t) => {
    const { a, begin } = await fleet(t, { maxPieces: 3 });
    const bytes = jpeg(100);
    const id = await begin(bytes);
    for (let at = 0; at < 3; at++) await a.append(id, 'one', at, bytesOf(bytes.subarray(at, at + 1)));
    const { reason, message } = await refusal(a.append(id, 'one', 3, bytesOf(bytes.subarray(3))));
    assert.equal(reason, 'UPLOAD_TOO_MANY_PIECES');
    assert.match(message, /send larger pieces/);
  });
});

describe('a fleet of two replicas of the API and a worker, each with a disk of its own', { timeout: 360_000 }, () => {
  let worker: Service;
  let replicas: [Service, Service];
  let bucket: string;
  before(async () => {
    bucket = await s3.makeBucket();
    const { endpoint, region, credentials } = s3.connection;
    const env = { ...process.env, AWS_ACCESS_KEY_ID: credentials.accessKeyId, AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey };
    const settings = { STORE: redis.url, FLEET: 'uploads', BLOBS: `s3://${bucket}/blobs`, S3_ENDPOINT: endpoint, S3_REGION: region };
    const start = (role: string, node: string) => startService({ ...settings, ROLE: role, NODE: node }, { env });
    worker = await start('worker', 'gpu-1');
    replicas = [await start('api', 'api-1'), await start('api', 'api-2')];
    for (const { baseUrl } of replicas) await untilWarm(baseUrl);
  });
  after(async () => {
    for (const service of [...(replicas ?? []), worker]) await service?.[Symbol.asyncDispose]();
  });

  /** Submitted through the second replica, run on the worker. */
  async function run(uri: string): Promise<void> {
    const client = restClient(replicas[1].baseUrl);
    const { job_id } = await client.submit({ source_images: [uri], target_image: uri });
    await untilTerminal(client, job_id as string);
    const { status, error } = await client.get(job_id as string);
    assert.equal(status, 'succeeded', JSON.stringify(error));
    await client.purge(job_id as string);
  }

  it('runs a job on what came in a form through one replica', async () => {
    const form = new FormData();
    form.append('file', new Blob([jpeg(100_000)]), 'face.jpg');
    const answer = await fetch(`${replicas[0].baseUrl}/api/v1/uploads`, { method: 'POST', body: form });
    const { uploads } = (await answer.json()) as { uploads: [Json] };
    await run(uploads[0].uri as string);
    // The last job that named it is purged.
    assert.deepEqual(await s3.keys(bucket), []);
  });

  it('runs a job on what came by tus, half through one replica and half through the other', async () => {
    const bytes = jpeg(300_001);
    const tus = { 'tus-resumable': '1.0.0' };
    const created = await fetch(`${replicas[0].baseUrl}/api/v1/tus`, {
      method: 'POST',
      headers: { ...tus, 'upload-length': String(bytes.length) },
    });
    const path = created.headers.get('location')!;
    const write = (service: Service, from: number, to: number) =>
      fetch(new URL(path, service.baseUrl), {
        method: 'PATCH',
        headers: { ...tus, 'upload-offset': String(from), 'content-type': 'application/offset+octet-stream' },
        body: new Uint8Array(bytes.subarray(from, to)),
      });
    assert.equal((await write(replicas[0], 0, 150_000)).status, 204);
    const asked = await fetch(new URL(path, replicas[1].baseUrl), { method: 'HEAD', headers: tus });
    assert.equal(asked.headers.get('upload-offset'), '150000');
    assert.equal((await write(replicas[1], 100_000, 150_000)).status, 409);
    const last = await write(replicas[1], 150_000, bytes.length);
    assert.deepEqual([last.status, last.headers.get('upload-sha256')], [204, sha256(bytes)]);
    await run(last.headers.get('upload-uri')!);
    assert.deepEqual(await s3.keys(bucket), []);
    assert.deepEqual(await s3.uploads(bucket), []);
  });
});
