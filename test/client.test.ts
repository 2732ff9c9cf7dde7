// What a program of one's own meets in `facefusion-jobs/client`: against the real service, and against one that fails as it is told to.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient, createRouterTransport } from '@connectrpc/connect';
import { Webhook } from 'standardwebhooks';
import { AccessService } from '../gen/facefusion/jobs/v1/access_service_pb.js';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { RetryInfoSchema } from '../gen/google/rpc/error_details_pb.js';
import { JobNotSucceeded, JobsClient } from '../src/client/client.ts';
import { connectJobs, detailsOf, type JobEvent, JobStatus } from '../src/client/node.ts';
import { patience } from '../src/client/retry.ts';
import { isTerminal, statusIn } from '../src/client/watch.ts';
import { verifyWebhook, WebhookVerificationError } from '../src/client/webhook.ts';
import { startService } from './api/service.ts';
import { FakeService } from './cli/fake-service.ts';
import { freePort } from './fixtures/free-port.ts';
import { until } from './fixtures/until.ts';

const REQUEST = { sourceImages: ['face.jpg'], target: { case: 'targetImage' as const, value: 'target.png' } };

describe('against the service', () => {
  test('a job is submitted, waited for, and its result fetched', async () => {
    await using service = await startService();
    using client = connectJobs(service.baseUrl);
    const seen: JobEvent[] = [];
    const job = await client.submitAndWait(
      { ...REQUEST, parameters: { steps: 3, output: 'the picture' } },
      { onEvent: (event) => seen.push(event) },
    );
    assert.equal(job.status, JobStatus.SUCCEEDED);
    assert.equal(statusIn(seen.at(-1)!), JobStatus.SUCCEEDED);
    const { facts, response } = await client.result(job.jobId);
    assert.equal(await response.text(), 'the picture');
    assert.equal(facts?.sha256, job.result?.sha256);
  });

  test('a job that ends otherwise throws with the job and its reason', async () => {
    await using service = await startService();
    using client = connectJobs(service.baseUrl);
    const failing = client.submitAndWait({ ...REQUEST, parameters: { fail: 'NO_SOURCE_FACE', message: 'no face' } });
    await assert.rejects(failing, (error: JobNotSucceeded) => {
      assert.ok(error instanceof JobNotSucceeded);
      assert.equal(error.reason, 'NO_SOURCE_FACE');
      assert.equal(error.job.status, JobStatus.FAILED);
      return true;
    });
    const refused = client.submitAndWait({ ...REQUEST, parameters: { refuse: 'not this' } });
    await assert.rejects(refused, (error: JobNotSucceeded) => error.job.status === JobStatus.REFUSED);
  });

  test('aborting the wait cancels the job, unless it is to go on', async () => {
    await using service = await startService();
    using client = connectJobs(service.baseUrl);
    for (const cancelOnAbort of [true, false]) {
      const leaving = new AbortController();
      let jobId = '';
      const waiting = client.submitAndWait(
        { ...REQUEST, parameters: { hold_file: join(service.dir, `hold-${cancelOnAbort}`) } },
        {
          signal: leaving.signal,
          cancelOnAbort,
          onEvent(event) {
            if (event.event.case === 'snapshot') jobId = event.event.value.job!.jobId;
            if (statusIn(event) === JobStatus.PROCESSING) leaving.abort('it has been left');
          },
        },
      );
      await assert.rejects(waiting, (reason) => reason === 'it has been left');
      if (!cancelOnAbort) await writeFile(join(service.dir, `hold-${cancelOnAbort}`), '');
      const ended = await client.wait(jobId).then(
        (job) => job.status,
        (error: JobNotSucceeded) => error.job.status,
      );
      assert.equal(ended, cancelOnAbort ? JobStatus.CANCELED : JobStatus.SUCCEEDED);
    }
  });

  test('a watch goes on over a restart of the service: no event twice, none missing', async () => {
    await using service = await startService({ PORT: `${await freePort()}`, DRAIN_TIMEOUT: '0s' });
    using client = connectJobs(service.baseUrl);
    const hold = join(service.dir, 'hold');
    const { jobId } = await client.submit({ ...REQUEST, parameters: { steps: 4, hold_file: hold, hold_at: 2 }, maxAttempts: 3 });
    const sequences: number[] = [];
    let restarted: Promise<void> | undefined;
    let losses = 0;
    for await (const event of client.watch(jobId, { after: 0, onLost: () => losses++ })) {
      if (event.sequence > 0) sequences.push(event.sequence);
      // The engine waits now, or is about to.
      if (statusIn(event) === JobStatus.PROCESSING) restarted ??= service.restart().then(() => writeFile(hold, ''));
    }
    await restarted;
    assert.ok(losses > 0, 'the connection was lost');
    assert.deepEqual(
      sequences,
      sequences.map((_, index) => index + 1),
    );
    assert.ok(isTerminal((await client.wait(jobId)).status));
  });

  test('files go up from a path, bytes, a Blob and a stream, and are the same upload to the service', async () => {
    await using service = await startService();
    using client = connectJobs(service.baseUrl);
    const path = join(service.inputDir, 'target.png');
    const bytes = new Uint8Array(await readFile(path));
    async function* stream() {
      for (const byte of bytes) yield Uint8Array.of(byte);
    }
    let told: [number, number | undefined] | undefined;
    const uploads = await Promise.all([
      client.upload(path, { onProgress: (...progress) => (told = progress) }),
      client.upload(bytes, { filename: 'b.png' }),
      client.upload(new File([bytes], 'c.png')),
      client.upload(stream(), { filename: 'd.png' }),
    ]);
    assert.equal(new Set(uploads.map(({ sha256 }) => sha256)).size, 1);
    assert.deepEqual(told, [bytes.length, bytes.length]);
    const job = await client.submitAndWait({ ...REQUEST, target: { case: 'targetImage' as const, value: uploads[2]!.uri } });
    assert.equal(job.status, JobStatus.SUCCEEDED);
  });
});

test('a file that is too large is refused alike, whichever way it comes', async () => {
  await using service = await startService({ MAX_UPLOAD_BYTES: '1M' });
  using client = connectJobs(service.baseUrl);
  const bytes = Buffer.concat([await readFile(join(service.inputDir, 'target.png')), Buffer.alloc(2 ** 20)]);
  async function* unannounced() {
    for (let at = 0; at < bytes.length; at += 2 ** 16) yield bytes.subarray(at, at + 2 ** 16);
  }
  for (const source of [new Uint8Array(bytes), unannounced()]) {
    const { code, reason, retryAfterMs, metadata } = await client.upload(source).then(() => assert.fail(), detailsOf);
    assert.deepEqual([code, reason, retryAfterMs], [Code.ResourceExhausted, 'UPLOAD_TOO_LARGE', undefined]);
    assert.equal(metadata.limit_bytes, String(2 ** 20));
  }
  const form = new FormData();
  form.append('file', new Blob([bytes]), 'target.png');
  const tus = { 'tus-resumable': '1.0.0', 'upload-length': String(bytes.length) };
  for (const [path, init] of [
    ['uploads', { method: 'POST', body: form }],
    ['tus', { method: 'POST', headers: tus }],
  ] as const) {
    const response = await fetch(`${service.baseUrl}/api/v1/${path}`, init);
    const { code } = (await response.json()) as { code: string };
    assert.deepEqual([response.status, response.headers.get('retry-after'), code], [413, null, 'RESOURCE_EXHAUSTED'], path);
  }
});

test('an error tells its code, its reason and every violation', async () => {
  await using service = await startService();
  using client = connectJobs(service.baseUrl);
  const invalid = await client.submit({ ...REQUEST, priority: 99, maxAttempts: 99 }).catch(detailsOf);
  assert.ok('violations' in invalid);
  assert.equal(invalid.code, Code.InvalidArgument);
  assert.deepEqual(invalid.violations.map(({ field }) => field.split('.').at(-1)).sort(), ['max_attempts', 'priority']);
  const missing = await client.jobs.get({ jobId: 'job_20250405_aaaaaaaaaaaa' }).catch(detailsOf);
  assert.ok('violations' in missing);
  assert.deepEqual([missing.code, missing.reason, missing.violations], [Code.NotFound, 'JOB_NOT_FOUND', []]);
  assert.deepEqual(detailsOf(new Error('of nobody')).reason, undefined);
});

describe('a result', () => {
  /** A client that is told the next URL each time it asks for one, and where it is to be had and is not. */
  async function told(t: TestContext, paths: readonly string[], losses?: number) {
    const server = createHttpServer((request, response) => {
      if (request.url === '/cut') response.destroy();
      else response.writeHead(request.url === '/whole' ? 200 : 503).end('the picture');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => void server.close().closeAllConnections());
    const nobody = createServer().listen(0, '127.0.0.1');
    await once(nobody, 'listening');
    const [here, nowhere] = [server, nobody].map((one) => `http://127.0.0.1:${(one.address() as AddressInfo).port}`);
    await once(nobody.close(), 'close');
    const left = [...paths];
    const transport = createRouterTransport(({ service }) => {
      service(JobService, {
        getResult() {
          const path = left.shift()!;
          return { url: `${path === '/gone' ? nowhere : here}${path}`, result: { sha256: 'digest' } };
        },
      });
    });
    const upload = () => Promise.reject(new Error('not here'));
    return { left, client: new JobsClient({ baseUrl: here!, transport, upload, retry: { losses } }) };
  }

  test('is asked for again where the replica that signed its URL has gone', async (t) => {
    const { client, left } = await told(t, ['/gone', '/cut', '/busy', '/whole']);
    const { response, facts } = await client.result('job_1');
    assert.deepEqual([await response.text(), facts?.sha256, left], ['the picture', 'digest', []]);
  });

  test('that is not to be had ends in an error, and at once when the caller leaves', async (t) => {
    const { client, left } = await told(t, ['/busy', '/busy', '/busy', '/busy', '/whole'], 2);
    await assert.rejects(
      client.result('job_1'),
      (error: ConnectError) => error.code === Code.Unavailable && /HTTP 503/.test(error.message),
    );
    assert.equal(left.length, 2);
    const leaving = AbortSignal.abort(new Error('enough'));
    await assert.rejects(client.result('job_1', { signal: leaving }));
    assert.equal(left.at(-1), '/whole');
  });
});

describe('a service that asks for patience', () => {
  test('is asked for a new key once, when the connection breaks: a second one nobody would know of', async () => {
    let [made, asked] = [0, 0];
    const transport = createRouterTransport(
      ({ service }) =>
        service(AccessService, {
          createKey() {
            made++;
            throw new ConnectError('gone', Code.Unavailable);
          },
          listKeys() {
            if (asked++ === 0) throw new ConnectError('gone', Code.Unavailable);
            return {};
          },
        }),
      { transport: { interceptors: [patience()] } },
    );
    const access = createClient(AccessService, transport);
    await assert.rejects(access.createKey({}), (error: ConnectError) => error.code === Code.Unavailable);
    await access.listKeys({});
    assert.deepEqual([made, asked], [1, 2]);
  });

  const limited = () =>
    new ConnectError('slow down', Code.ResourceExhausted, undefined, [
      { desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay: { nanos: 1_000_000 } }) },
    ]);

  test('is asked again after the time that it names', async () => {
    await using service = await FakeService.start();
    const waits: number[] = [];
    using client = connectJobs(service.url, { retry: { onWait: (_error, delayMs) => waits.push(delayMs) } });
    service.failures.set('submit', limited);
    const submitted = client.submit(REQUEST);
    await until(() => waits.length >= 2);
    service.failures.clear();
    await submitted;
    assert.ok(waits.every((wait) => wait === 1));
  });

  test('is not asked again when that would take too long, or when it names no time', async () => {
    await using service = await FakeService.start();
    using client = connectJobs(service.url, { retry: { patienceMs: 0 } });
    service.failures.set('submit', limited);
    await assert.rejects(client.submit(REQUEST), (error: ConnectError) => error.code === Code.ResourceExhausted);
    service.failures.set('submit', () => new ConnectError('no', Code.ResourceExhausted));
    using patient = connectJobs(service.url);
    await assert.rejects(patient.submit(REQUEST), (error: ConnectError) => error.code === Code.ResourceExhausted);
  });

  test('a submission is sent again under its key when the connection breaks, and without a key it is not', async () => {
    await using service = await FakeService.start();
    using client = connectJobs(service.url);
    let broken = 0;
    const lose = () => {
      broken++;
      service.failures.clear();
      return new ConnectError('gone', Code.Unavailable);
    };
    service.failures.set('submit', lose);
    await client.submit(REQUEST);
    assert.equal(broken, 1);
    service.failures.set('submit', lose);
    await assert.rejects(client.jobs.submit({ job: REQUEST }), (error: ConnectError) => error.code === Code.Unavailable);
  });
});

test('an aborted wait throws its reason though the job could not be canceled, which is told beside it', async () => {
  await using service = await FakeService.start();
  using client = connectJobs(service.url, { retry: { patienceMs: 0 } });
  service.failures.set('cancel', () => new ConnectError('not now', Code.Unavailable));
  const leaving = new AbortController();
  const reason = new Error('the caller has gone');
  const told: [ConnectError, string][] = [];
  const left = client.submitAndWait(REQUEST, {
    signal: leaving.signal,
    onEvent: () => leaving.abort(reason),
    onCancelFailed: (...failure) => told.push(failure),
  });
  await assert.rejects(left, (error) => error === reason);
  const [[failure, jobId] = []] = told;
  assert.equal(told.length, 1);
  assert.deepEqual([failure?.code, jobId], [Code.Unavailable, [...service.jobs.keys()][0]]);

  // Who is not listening is given the reason too.
  const alone = new AbortController();
  await assert.rejects(
    client.submitAndWait(REQUEST, { signal: alone.signal, onEvent: () => alone.abort(reason) }),
    (error) => error === reason,
  );
});

test('a server is a URL or host:port; what is neither is said at once', async () => {
  await using service = await FakeService.start();
  const { origin, host } = new URL(service.url);
  for (const server of [`${origin}/`, host]) {
    using client = connectJobs(server);
    assert.equal(client.url, origin);
    assert.match((await client.submit(REQUEST)).jobId, /^job_/);
  }
  for (const server of ['', 'not a host', 'ftp://127.0.0.1', 'http://'])
    assert.throws(() => connectJobs(server), { name: 'TypeError', message: /^the server is '.*'; it takes a URL such as http:\/\/127/ });
});

test('a token goes along with each call', async () => {
  await using service = await FakeService.start();
  let asked = 0;
  using client = connectJobs(service.url, { token: async () => `token-${++asked}` });
  await client.submit(REQUEST);
  await client.system.getCapabilities({});
  assert.equal(asked, 2);
});

describe('webhooks', () => {
  const secret = `whsec_${Buffer.from('a secret of 24 bytes ...').toString('base64')}`;
  const body = JSON.stringify({ type: 'job.succeeded', timestamp: '2025-04-05T14:15:00Z', data: { job_id: 'job_20250405_abc' } });
  const headers = (at = new Date(), text = body) => ({
    'webhook-id': 'msg_1',
    'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
    'webhook-signature': new Webhook(secret).sign('msg_1', at, text),
  });

  test('a delivery of ours is read', () => {
    const event = verifyWebhook(Buffer.from(body), new Headers(headers()), secret);
    assert.deepEqual([event.id, event.type, event.data.job_id], ['msg_1', 'job.succeeded', 'job_20250405_abc']);
    assert.equal(verifyWebhook(body, headers(), secret).type, 'job.succeeded');
  });

  test('one that was changed, is old, unsigned or signed by another is refused', () => {
    const refused = (text: string, given: Record<string, string>, key = secret) =>
      assert.throws(() => verifyWebhook(text, given, key), WebhookVerificationError);
    refused(body.replace('succeeded', 'failed'), headers());
    refused(body, headers(new Date(Date.now() - 6 * 60_000)));
    refused(body, {});
    refused(body, { ...headers(), 'webhook-id': 'msg_2' });
    refused(body, headers(), `whsec_${Buffer.from('another one of 24 bytes.').toString('base64')}`);
  });
});
