// A service that wants to know who calls, as its callers see it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import http2 from 'node:http2';
import net from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { UploadService } from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { verifyAudit } from '../src/access/audit-chain.ts';
import { CallError, connectClient, grpcClient, type Json, restClient } from './api/clients.ts';
import { gate, untilTerminal } from './api/scenarios.ts';
import { type Secured, startSecured, type Who } from './api/secured.ts';
import { startService } from './api/service.ts';

const picture = (more: Json = {}): Json => ({ source_images: ['face.jpg'], target_image: 'target.png', ...more });
const ALL = ['read', 'submit'] as const;

async function failure(call: Promise<unknown>): Promise<CallError> {
  const error = await call.then(
    () => assert.fail('expected a refusal'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof CallError, String(error));
  return error;
}

/** A request with a credential, as it is answered. */
async function ask(
  service: Secured,
  who: Who | undefined,
  path: string,
  init: RequestInit = {},
): Promise<{ status: number; json: Json; headers: Headers }> {
  const headers = new Headers(init.headers);
  if (who) headers.set('authorization', `Bearer ${await service.token(who)}`);
  if (init.body) headers.set('content-type', 'application/json');
  const response = await fetch(new URL(path, service.baseUrl), { ...init, headers, redirect: 'manual' });
  return { status: response.status, json: (await response.json().catch(() => ({}))) as Json, headers: response.headers };
}

describe('tenants', () => {
  let service: Secured;
  before(async () => {
    service = await startSecured(
      {},
      {
        tenants: {
          tiers: { small: { queued_jobs: 1, running_jobs: 1, stored_bytes: 1 } },
          tenants: {
            studio: { denied_options: { mode: ['wild*'] } },
            strict: { attestation: true },
            limited: { tier: 'small' },
          },
        },
      },
    );
    for (const tenant of ['studio', 'other', 'strict', 'limited']) await service.furnish(tenant);
  });
  after(async () => await service?.[Symbol.asyncDispose]());
  const as = async (tenant: string, more: Partial<Who> = {}) =>
    restClient(service.baseUrl, await service.token({ tenant, scopes: ALL, ...more }));

  test('see their own jobs, in lists and live', async () => {
    const [studio, other] = [await as('studio'), await as('other')];
    const { job_id } = await studio.submit(picture({ labels: { order: '1' } }));
    await untilTerminal(studio, job_id as string);
    const job = await studio.get(job_id as string);
    assert.deepEqual([job.tenant, job.submitted_by], ['studio', 'jwt:anna']);
    assert.deepEqual((await other.list({})).jobs, []);
    assert.deepEqual((await other.list({ label: 'order=1' })).jobs, []);
    const { watch_token } = await other.list({});
    const leave = new AbortController();
    const response = await fetch(new URL(`/api/v1/jobs:watch?watch_token=${watch_token}`, service.baseUrl), {
      headers: { 'x-api-key': await service.token({ tenant: 'other', scopes: ALL }), accept: 'application/x-ndjson' },
      signal: leave.signal,
    });
    const { job_id: own } = await other.submit(picture());
    await studio.submit(picture());
    const [first] = await firstLines(response, 1);
    assert.equal(((JSON.parse(first!) as Json).job as Json).job_id, own);
    leave.abort();
  });

  test('have idempotency keys, page tokens and uploads of their own', async () => {
    const [studio, other] = [await as('studio'), await as('other')];
    const request = picture({ idempotency_key: 'order-17' });
    const [one, two] = [await studio.submit(request), await other.submit(request)];
    assert.notEqual(one.job_id, two.job_id);
    const form = new FormData();
    form.set('file', new Blob([await readFile(join(service.inputDir, 'face.jpg'))]), 'face.jpg');
    const uploaded = await fetch(new URL('/api/v1/uploads', service.baseUrl), {
      method: 'POST',
      body: form,
      headers: { 'x-api-key': await service.token({ tenant: 'studio', scopes: ALL }) },
    });
    const [upload] = ((await uploaded.json()) as { uploads: Json[] }).uploads;
    assert.ok(await studio.submit(picture({ source_images: [upload!.uri as string] })));
    const refused = await failure(other.submit(picture({ source_images: [upload!.uri as string] })));
    assert.equal(refused.violations[0]!.field, 'source_images[0]');
    const path = `/api/v1/uploads/${String(upload!.uri).slice('upload://'.length)}`;
    assert.equal((await ask(service, { tenant: 'other', scopes: ALL }, path)).status, 404);
    assert.equal((await ask(service, { tenant: 'studio', scopes: ALL }, path)).status, 200);
    for (const way of ['/api/v1/uploads', '/api/v1/tus']) {
      assert.equal((await ask(service, undefined, way, { method: 'POST' })).status, 401);
      assert.equal(
        (
          await ask(service, { tenant: 'studio', scopes: ['read'] }, way, {
            method: 'POST',
            headers: { 'tus-resumable': '1.0.0', 'upload-length': '1' },
          })
        ).status,
        403,
        way,
      );
      // However the path is written.
      const spelled = way.replace('/api', '/%61pi');
      const answered = (await ask(service, undefined, spelled, { method: 'POST' })).status;
      assert.ok([401, 404].includes(answered), `${spelled}: ${answered}`);
    }
  });

  test('have folders of their own', async () => {
    const other = await as('other');
    await writeFile(join(service.inputDir, 'studio', 'secret.jpg'), await readFile(join(service.inputDir, 'face.jpg')));
    for (const reference of [
      'secret.jpg',
      '../studio/secret.jpg',
      'studio/secret.jpg',
      join(service.inputDir, 'studio', 'secret.jpg'),
      join(service.inputDir, 'face.jpg'),
    ]) {
      const refused = await failure(other.submit(picture({ source_images: [reference] })));
      assert.equal(refused.violations[0]?.field, 'source_images[0]', reference);
    }
    assert.ok(await (await as('studio')).submit(picture({ source_images: ['secret.jpg'] })));
    const { reference_schemes } = await other.capabilities();
    assert.ok(!(reference_schemes as string[]).includes('s3'));
    assert.equal((await failure(other.submit(picture({ output_uri: '/tmp/x' })))).violations[0]!.field, 'output_uri');
  });

  test('do not see what others do with the slots', async () => {
    const studio = await as('studio');
    const held = gate(service.dir);
    const { job_id } = await studio.submit(picture({ parameters: held.parameters }));
    for await (const event of studio.watch(job_id as string)) if (JSON.stringify(event).includes('"processing"')) break;
    const views = await Promise.all(
      [await as('studio'), await as('other'), await as('operators', { scopes: ['read', 'admin'] })].map(async (client) => ({
        slot: ((await client.slots()).slots as Json[])[0]!,
        overview: await client.overview(),
      })),
    );
    assert.deepEqual(
      views.map(({ slot }) => slot.job_id),
      [job_id, null, job_id],
    );
    assert.deepEqual(
      views.map(({ slot }) => slot.pid === null),
      [true, true, false],
    );
    assert.deepEqual(
      views.map(({ overview }) => overview.totals === null),
      [true, true, false],
    );
    assert.deepEqual(
      (views[1]!.overview.queue_by_tenant as Json[]).filter((one) => one.tenant !== 'other'),
      [],
    );
    assert.ok((views[2]!.overview.queue_by_tenant as Json[]).some((one) => one.tenant === 'studio'));
    await held.open();
    await untilTerminal(studio, job_id as string);
  });

  test('have quotas, which the usage shows', async () => {
    const limited = await as('limited');
    const held = gate(service.dir);
    const first = await limited.submit(picture({ parameters: held.parameters }));
    for await (const event of limited.watch(first.job_id as string)) if (JSON.stringify(event).includes('"processing"')) break;
    const second = await limited.submit(picture());
    const waiting = await limited.get(second.job_id as string);
    assert.deepEqual([waiting.status, waiting.wait_reason], ['queued', 'quota']);
    const refused = await failure(limited.submit(picture()));
    assert.deepEqual([refused.code, refused.reason], ['RESOURCE_EXHAUSTED', 'QUOTA_EXCEEDED']);
    const usage = await ask(service, { tenant: 'limited', scopes: ['read'] }, '/api/v1/usage');
    assert.deepEqual(
      [usage.json.queued, usage.json.running],
      [
        { used: 1, limit: 1 },
        { used: 1, limit: 1 },
      ],
    );
    await held.open();
    await untilTerminal(limited, second.job_id as string);
    assert.match((await failure(limited.submit(picture()))).message, /purge jobs whose results are not needed/);
    for (const one of [first, second]) await limited.purge(one.job_id as string);
    assert.ok(await limited.submit(picture()));
    assert.equal((await ask(service, { tenant: 'studio', scopes: ['read'] }, '/api/v1/usage?tenant=limited')).status, 403);
    assert.equal(
      (await ask(service, { tenant: 'studio', scopes: ['read', 'admin'] }, '/api/v1/usage?tenant=limited')).json.tenant,
      'limited',
    );
  });

  test('are asked for consent, and it is kept with the job', async () => {
    const strict = await as('strict');
    for (const attestation of [undefined, '', '   ']) {
      const refused = await failure(strict.submit(picture(attestation === undefined ? {} : { attestation })));
      assert.equal(refused.violations[0]?.field, 'attestation');
    }
    const { job_id } = await strict.submit(picture({ attestation: 'both people agreed on paper' }));
    assert.equal(((await strict.get(job_id as string)).request as Json).attestation, 'both people agreed on paper');
    assert.deepEqual((await strict.validate(picture())).valid, false);
  });

  test('are told who they are', async () => {
    const { json } = await ask(service, { tenant: 'studio', scopes: ['read'], subject: 'bob' }, '/api/v1/identity');
    assert.deepEqual([json.tenant, json.name, json.scopes], ['studio', 'jwt:bob', ['read']]);
    assert.ok(Date.parse(json.expire_time as string) > Date.now());
  });
});

async function firstLines(response: Response, count: number): Promise<string[]> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of response.body!) {
    text += decoder.decode(chunk as Uint8Array, { stream: true });
    if (text.split('\n').length > count) break;
  }
  return text.split('\n').slice(0, count);
}

describe('what is refused', () => {
  let service: Secured;
  before(async () => {
    service = await startSecured({ MAX_BODY_BYTES: '1G' });
    await service.furnish('studio');
  });
  after(async () => await service?.[Symbol.asyncDispose]());

  test('is refused before its body is read', async () => {
    const { hostname, port } = new URL(service.baseUrl);
    const socket = net.connect(Number(port), hostname);
    socket.write('POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900000000\r\n\r\n{');
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    assert.match(answer, /^HTTP\/1\.1 401 /);
    assert.match(answer, /www-authenticate: Bearer/i);
    assert.match(answer, /connection: close/i);

    const session = http2.connect(service.baseUrl);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/facefusion.jobs.v1.UploadService/Upload',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.write(Buffer.alloc(1000));
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
    const [trailers] = (await once(stream, 'trailers')) as [http2.IncomingHttpHeaders];
    assert.deepEqual([headers[':status'], trailers['grpc-status']], [200, '16']);
    session.destroy();
  });

  test('says what it wants in every protocol', async () => {
    const wrong = `ffj_aaaaaaaaaa_${'a'.repeat(40)}`;
    const clients = [
      restClient(service.baseUrl, wrong),
      connectClient('connect', service.baseUrl, wrong),
      connectClient('grpc-web', service.baseUrl, wrong),
      await grpcClient(service.baseUrl, wrong),
    ];
    for (const client of clients) {
      for (const call of [() => client.get('x'), () => client.watch('x')[Symbol.asyncIterator]().next(), () => client.submit(picture())]) {
        const error = await failure(call());
        assert.deepEqual(
          [error.code, error.reason, error.message],
          ['UNAUTHENTICATED', 'CREDENTIALS_INVALID', 'this is no API key of this service'],
          client.name,
        );
      }
      client.close();
    }
    const nobody = await failure(restClient(service.baseUrl).get('x'));
    assert.match(nobody.message, /send an API key or a token of the identity provider as 'Authorization: Bearer/);
    assert.equal((await fetch(new URL('/healthz', service.baseUrl))).status, 200);
    assert.equal((await fetch(new URL('/api/v1/openapi.json', service.baseUrl))).status, 200);
    const unsigned = await fetch(new URL(`/api/v1/blobs/${'a'.repeat(64)}`, service.baseUrl));
    assert.ok([400, 403].includes(unsigned.status));
  });

  test('is refused in the middle of a stream, when the credential ends', async () => {
    const held = gate(service.dir);
    const owner = restClient(service.baseUrl, await service.token({ tenant: 'studio', scopes: ALL }));
    const { job_id } = await owner.submit(picture({ parameters: held.parameters }));
    const { id, secret } = await service.key({ tenant: 'studio', scopes: ALL });
    const short = await service.token({ tenant: 'studio', scopes: ALL, seconds: -3 });
    const watch = async (client: ReturnType<typeof restClient>, opened: () => void) => {
      for await (const _ of client.watch(job_id as string)) opened();
    };
    const streams = [
      restClient,
      (url: string, key: string) => connectClient('connect', url, key),
      (url: string, key: string) => connectClient('grpc-web', url, key),
    ];
    const watches: Promise<CallError>[] = [];
    const opens: Promise<void>[] = [];
    for (const credential of [secret, short]) {
      for (const open of [...streams.map((one) => one(service.baseUrl, credential)), await grpcClient(service.baseUrl, credential)]) {
        const { promise, resolve } = Promise.withResolvers<void>();
        opens.push(promise);
        // On a slow machine the token may be over before its stream is open, which is refused in the same words.
        watches.push(failure(watch(open, resolve)).finally(resolve));
      }
    }
    await Promise.all(opens);
    const revoked = await ask(service, { tenant: 'operators', scopes: ['admin'] }, `/api/v1/keys/${id}`, { method: 'DELETE' });
    assert.equal(revoked.status, 200);
    const ended = await Promise.all(watches);
    assert.deepEqual(
      ended.map(({ code }) => code),
      ended.map(() => 'UNAUTHENTICATED'),
    );
    assert.match(ended[0]!.message, /was revoked/);
    assert.match(ended.at(-1)!.message, /has expired/);
    await held.open();
    await untilTerminal(owner, job_id as string);
  });

  test('is refused in the middle of an upload, and nothing of it is kept', async () => {
    const token = await service.token({ tenant: 'studio', scopes: ALL, seconds: -3 });
    const uploads = createClient(UploadService, createGrpcTransport({ baseUrl: service.baseUrl }));
    const never = Promise.withResolvers<void>();
    const parts = (async function* () {
      yield { part: { case: 'metadata' as const, value: { filename: 'a.jpg' } } };
      yield { part: { case: 'chunk' as const, value: new Uint8Array(10) } };
      await never.promise;
    })();
    const error = await uploads.upload(parts, { headers: { authorization: `Bearer ${token}` } }).then(
      () => assert.fail('expected a refusal'),
      (thrown: unknown) => ConnectError.from(thrown),
    );
    never.resolve();
    assert.match(error.rawMessage, /has expired/);
  });
});

describe('rates', () => {
  test('are told with each submit, and a caller over them is told when to come again', async (t) => {
    const service = await startSecured(
      {},
      { tenants: { tiers: { slow: { submits_per_minute: 2 } }, tenants: { studio: { tier: 'slow' } } } },
    );
    t.after(() => service[Symbol.asyncDispose]());
    await service.furnish('studio');
    const who: Who = { tenant: 'studio', scopes: ALL };
    const submit = () => ask(service, who, '/api/v1/jobs', { method: 'POST', body: JSON.stringify(picture()) });
    const first = await submit();
    assert.deepEqual([first.status, first.headers.get('ratelimit-limit'), first.headers.get('ratelimit-remaining')], [202, '2', '1']);
    assert.ok(Number(first.headers.get('ratelimit-reset')) > 0);
    assert.equal((await submit()).headers.get('ratelimit-remaining'), '0');
    const over = await submit();
    assert.deepEqual([over.status, over.headers.get('ratelimit-remaining'), over.json.code], [429, '0', 'RESOURCE_EXHAUSTED']);
    assert.ok(Number(over.headers.get('retry-after')) > 0 && Number(over.headers.get('retry-after')) <= 60);
    const grpc = await grpcClient(service.baseUrl, await service.token(who));
    const refused = await failure(grpc.submit(picture()));
    assert.deepEqual([refused.code, refused.reason], ['RESOURCE_EXHAUSTED', 'RATE_LIMITED']);
    assert.ok(refused.retryAfterSeconds! > 0);
    grpc.close();
    // Reading goes on.
    assert.equal((await ask(service, who, '/api/v1/jobs')).status, 200);
  });

  test('of strangers are counted by the address that trusted proxies tell', async (t) => {
    const service = await startService({ TRUSTED_PROXIES: '127.0.0.1' });
    t.after(() => service[Symbol.asyncDispose]());
    const submit = async (from?: string) =>
      (
        await fetch(new URL('/api/v1/jobs', service.baseUrl), {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...(from ? { 'x-forwarded-for': from } : {}) },
          body: JSON.stringify(picture()),
        })
      ).status;
    const many = async (from?: string) => {
      const all: number[] = [];
      for (let i = 0; i < 6; i++) all.push(await submit(from));
      return all;
    };
    assert.deepEqual(await many('203.0.113.1'), [202, 202, 202, 202, 202, 429]);
    assert.deepEqual(await many('6.6.6.6, 203.0.113.1'), [429, 429, 429, 429, 429, 429]);
    assert.equal(await submit('203.0.113.2'), 202);
    assert.deepEqual(await many(), [202, 202, 202, 202, 202, 202]);
  });
});

test('a batch has an entry in the audit log for each statement of consent, with the places of its jobs', async (t) => {
  const service = await startSecured({ ATTESTATION: 'required' });
  t.after(() => service[Symbol.asyncDispose]());
  await service.furnish('studio');
  const client = restClient(service.baseUrl, await service.token({ tenant: 'studio', scopes: ALL }));
  const jobs = ['all agreed', 'anna agreed', 'all agreed'].map((attestation) => ({ job: picture({ attestation }) }));
  const { batch_id } = (await client.submitBatch({ jobs })) as Json;
  const entries = (await readFile(service.auditPath, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Json);
  assert.deepEqual(
    entries.filter((entry) => entry.batch_id === batch_id).map((entry) => [entry.attestation, entry.attested_jobs]),
    [
      ['all agreed', [0, 2]],
      ['anna agreed', [1]],
    ],
  );
  assert.equal((await verifyAudit(service.auditPath)).problem, undefined);
});

test('the audit log says who did what to which job, from where, refusals included, and nothing secret', async (t) => {
  const service = await startSecured({ ATTESTATION: 'required' });
  t.after(() => service[Symbol.asyncDispose]());
  await service.furnish('studio');
  const { id, secret } = await service.key({ tenant: 'studio', scopes: ALL });
  const client = restClient(service.baseUrl, secret);
  const { job_id } = await client.submit(picture({ attestation: 'they agreed' }));
  await untilTerminal(client, job_id as string);
  const url = await client.result(job_id as string);
  await client.purge(job_id as string);
  const form = new FormData();
  form.set('file', new Blob([await readFile(join(service.inputDir, 'face.jpg'))]), 'face.jpg');
  await fetch(new URL('/api/v1/uploads', service.baseUrl), { method: 'POST', body: form, headers: { 'x-api-key': secret } });
  await failure(restClient(service.baseUrl, await service.token({ tenant: 'other', scopes: ALL })).cancel(job_id as string));
  await failure(restClient(service.baseUrl, await service.token({ tenant: 'other', scopes: ['read'] })).submit(picture()));
  await failure(restClient(service.baseUrl, 'ffj_wrong').get(job_id as string));
  for (let i = 0; i < 100; i++) await failure(restClient(service.baseUrl, 'ffj_wrong').get('x'));
  await service.restart();
  const report = await verifyAudit(service.auditPath);
  assert.equal(report.problem, undefined);
  const text = await readFile(service.auditPath, 'utf8');
  const entries = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const told = entries.map(({ action, actor, outcome, job_id: job }) =>
    [action, actor, outcome, job].filter((one) => one !== undefined).join(' '),
  );
  assert.deepEqual(
    told.filter((line) => !line.startsWith('GET ')),
    [
      'service.started ok',
      'AccessService/CreateKey jwt:anna ok',
      `JobService/Submit key:${id} ok ${job_id}`,
      `JobService/GetResult key:${id} ok ${job_id}`,
      `JobService/Purge key:${id} ok ${job_id}`,
      `POST /api/v1/uploads key:${id} ok`,
      `JobService/Cancel jwt:anna not_found ${job_id}`,
      'JobService/Submit jwt:anna permission_denied',
      'service.stopped ok',
      'service.started ok',
    ],
  );
  const submitted = entries.find((entry) => entry.action === 'JobService/Submit')!;
  assert.deepEqual([submitted.attestation, submitted.tenant, submitted.address], ['they agreed', 'studio', '127.0.0.1']);
  assert.equal(entries.find((entry) => entry.action === 'AccessService/CreateKey')!.key_id, id);
  // Bounded, however many there are.
  const wrong = told.filter((line) => line.startsWith('GET ') && line.endsWith('unauthenticated'));
  assert.ok(wrong.length >= 1 && wrong.length <= 30, `${wrong.length}`);
  for (const hidden of [secret, secret.slice(-40), 'signature=', new URL(url).search, 'face.jpg'])
    assert.ok(!text.includes(hidden), hidden);
});

test('a service that cannot note what is done does nothing that would have to be noted', async (t) => {
  const service = await startSecured();
  t.after(() => service[Symbol.asyncDispose]());
  await service.furnish('studio');
  const client = restClient(service.baseUrl, await service.token({ tenant: 'studio', scopes: ALL }));
  const { job_id } = await client.submit(picture());
  await untilTerminal(client, job_id as string);
  const whole = await readFile(service.auditPath);
  await writeFile(service.auditPath, `${whole}tampered\n`);
  await client.cancel(job_id as string);
  const refused = await failure(client.submit(picture()));
  assert.deepEqual([refused.code, refused.reason], ['UNAVAILABLE', 'AUDIT_UNAVAILABLE']);
  assert.equal((await client.get(job_id as string)).job_id, job_id);
  await writeFile(service.auditPath, whole);
  await client.submit(picture());
  assert.equal((await verifyAudit(service.auditPath)).problem, undefined);
});
