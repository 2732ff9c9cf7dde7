// The whole service with its results on S3: a job to its end over gRPC and REST, a store that is away for a while, a start that cannot be.
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { GetObjectCommand } from '@aws-sdk/client-s3';
import { grpcClient, type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { type Service, startService } from './api/service.ts';
import { errorAnswer, type FaultyWay, type S3Server, startProxy, startS3 } from './fixtures/media/s3-server.ts';

let server: S3Server;
before(async () => {
  server = await startS3();
});
after(() => server[Symbol.asyncDispose]());

interface Place {
  readonly service: Service;
  readonly bucket: string;
  readonly way: FaultyWay;
}

async function serviceOnS3(t: TestContext, settings: Readonly<Record<string, string>> = {}): Promise<Place> {
  const way = await startProxy(server.connection.endpoint);
  t.after(() => way[Symbol.asyncDispose]());
  const bucket = await server.makeBucket();
  const service = await start(way.endpoint, `s3://${bucket}/results`, settings);
  t.after(() => service[Symbol.asyncDispose]());
  return { service, bucket, way };
}

function start(endpoint: string, blobs: string, settings: Readonly<Record<string, string>> = {}): Promise<Service> {
  const { accessKeyId, secretAccessKey } = server.connection.credentials;
  const env = { ...process.env, AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  return startService({ BLOBS: blobs, S3_ENDPOINT: endpoint, S3_REGION: server.connection.region, ...settings }, { env });
}

const picture = (parameters: Json = {}): Json => ({ source_images: ['face.jpg'], target_image: 'target.png', parameters });

describe('results on S3', () => {
  it('are given by presigned URLs over gRPC and REST, whole and in ranges, and are gone with a purge', async (t) => {
    const { service, bucket } = await serviceOnS3(t, { S3_PUBLIC_ENDPOINT: server.connection.endpoint });
    const rest = restClient(service.baseUrl);
    const grpc = await grpcClient(service.baseUrl);
    const { job_id } = await rest.submit(picture({ output: 'on S3' }));
    const id = job_id as string;
    await untilTerminal(rest, id);
    const job = await rest.get(id);
    assert.equal(job.status, 'succeeded', JSON.stringify(job.error));
    const key = `results/${(job.result as Json).sha256}`;
    assert.deepEqual(await server.keys(bucket), [key]);

    const redirected = await fetch(`${service.baseUrl}/api/v1/jobs/${id}/result`, { redirect: 'manual' });
    assert.equal(redirected.status, 302);
    for (const url of [redirected.headers.get('location')!, await grpc.result(id), job.result_url as string]) {
      assert.ok(url.startsWith(`${server.connection.endpoint}/${bucket}/${key}?`), url);
      const whole = await fetch(url);
      assert.deepEqual([whole.status, await whole.text()], [200, 'on S3']);
      assert.equal(whole.headers.get('content-type'), 'image/png');
      assert.equal(whole.headers.get('content-disposition'), `inline; filename="${id}.png"; filename*=UTF-8''${id}.png`);
      const part = await fetch(url, { headers: { range: 'bytes=3-4' } });
      assert.deepEqual([part.status, part.headers.get('content-range'), await part.text()], [206, 'bytes 3-4/5', 'S3']);
      const known = await fetch(url, { headers: { 'if-none-match': whole.headers.get('etag')! } });
      assert.equal(known.status, 304);
    }

    const url = await grpc.result(id);
    await service.restart();
    const again = restClient(service.baseUrl);
    assert.ok((await fetch(await again.result(id))).ok);
    await again.purge(id);
    assert.deepEqual(await server.keys(bucket), []);
    // Stores differ in what they say of an object that is gone to whoever may not list.
    assert.ok([403, 404].includes((await fetch(url)).status));
  });

  it('wait for a store that is away, while the service answers', async (t) => {
    const { service, way, bucket } = await serviceOnS3(t);
    const client = restClient(service.baseUrl);
    const away = Promise.withResolvers<void>();
    let puts = 0;
    // Each of our tries is three of the SDK's.
    way.fault = ({ method }) => {
      if (method !== 'PUT' && method !== 'HEAD') return undefined;
      if (++puts === 12) away.resolve();
      return errorAnswer(500, 'InternalError');
    };
    const { job_id } = await client.submit(picture());
    await away.promise;
    assert.equal((await client.get(job_id as string)).step, 'storing_result');
    assert.ok((await fetch(`${service.baseUrl}/readyz`)).ok);
    way.fault = undefined;
    await untilTerminal(client, job_id as string);
    const job = await client.get(job_id as string);
    assert.deepEqual([job.status, job.attempt], ['succeeded', 1]);
    assert.equal((await server.keys(bucket)).length, 1);
  });

  it('that cannot be stored at all fail their job, retryable and in words, and leave nothing', async (t) => {
    const { service, way, bucket } = await serviceOnS3(t, { STORE_PATIENCE: '1s', MAX_ATTEMPTS: '1' });
    const client = restClient(service.baseUrl);
    way.fault = ({ method }) => (method === 'PUT' ? errorAnswer(403, 'AccessDenied') : undefined);
    const { job_id } = await client.submit(picture());
    await untilTerminal(client, job_id as string);
    const { status, error } = await client.get(job_id as string);
    const { reason, retryable, message } = error as Json;
    assert.deepEqual([status, reason, retryable], ['failed', 'RESULT_NOT_STORED', true]);
    assert.match(message as string, /^the result could not be stored: the blob store does not do what/);
    assert.doesNotMatch(message as string, /AccessDenied|words of the store|127\.0\.0\.1/);
    way.fault = undefined;
    assert.deepEqual([await server.keys(bucket), await server.uploads(bucket)], [[], []]);
    // The operator finds the cause.
    assert.ok(service.logs.some((line) => JSON.stringify(line).includes('AccessDenied')));
  });

  it('need a place that can be used when the service starts', async () => {
    await assert.rejects(
      start(server.connection.endpoint, 's3://there-is-no-such-bucket/results'),
      /^Error: the blob store s3:\/\/there-is-no-such-bucket\/results\/ cannot be used: there is no bucket 'there-is-no-such-bucket'/,
    );
    await assert.rejects(start('http://127.0.0.1:1', 's3://bucket/results'), /cannot be reached \(ECONNREFUSED\)/);
  });

  it('stay readable by their keys', async (t) => {
    const { service, bucket } = await serviceOnS3(t);
    const client = restClient(service.baseUrl);
    const { job_id } = await client.submit(picture({ output: 'plain' }));
    await untilTerminal(client, job_id as string);
    const { sha256 } = (await client.get(job_id as string)).result as { sha256: string };
    const found = await server.client.send(new GetObjectCommand({ Bucket: bucket, Key: `results/${sha256}` }));
    assert.equal(await found.Body!.transformToString(), 'plain');
    assert.equal(found.ContentType, 'image/png');
  });
});
