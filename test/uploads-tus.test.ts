// Uploads by tus, in the whole service: with the client that browsers use, and with requests written by hand where things go wrong.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import * as tus from 'tus-js-client';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { type Service, startService } from './api/service.ts';

const PATH = '/api/v1/tus';
const VERSION = { 'tus-resumable': '1.0.0' };
const MANY = 3_000_000;

/** What begins as a JPEG does; the scripted engine opens nothing. */
const picture = (bytes = MANY) => Buffer.concat([Buffer.from('ffd8ffe000104a464946', 'hex'), randomBytes(bytes - 10)]);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const base64 = (text: string) => Buffer.from(text).toString('base64');

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly json: Json;
}

async function ask(
  service: Service,
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: Uint8Array,
): Promise<Answer> {
  const response = await fetch(new URL(path, service.baseUrl), {
    method,
    headers: { ...VERSION, ...headers },
    body: body as Uint8Array<ArrayBuffer>,
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, json: text === '' ? {} : (JSON.parse(text) as Json) };
}

async function begin(service: Service, bytes: number, headers: Record<string, string> = {}): Promise<string> {
  const { status, headers: given } = await ask(service, 'POST', PATH, { 'upload-length': String(bytes), ...headers });
  assert.equal(status, 201);
  return given.get('location')!;
}

const write = (service: Service, path: string, offset: number, body: Uint8Array) =>
  ask(service, 'PATCH', path, { 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream' }, body);

async function offsetOf(service: Service, path: string): Promise<number> {
  const { status, headers } = await ask(service, 'HEAD', path);
  assert.equal(status, 200);
  return Number(headers.get('upload-offset'));
}

/** Asks until the offset is `wanted`. */
async function untilOffset(service: Service, path: string, wanted: number): Promise<void> {
  for (;;) {
    const { headers } = await ask(service, 'HEAD', path);
    if (headers.get('upload-offset') === String(wanted)) return;
    await pause(5);
  }
}

/** A PATCH whose body is sent by hand. */
function opened(service: Service, path: string, offset: number, bytes: number) {
  const { hostname, port } = new URL(service.baseUrl);
  const headers = { ...VERSION, 'upload-offset': offset, 'content-type': 'application/offset+octet-stream', 'content-length': bytes };
  const request = http.request({ hostname, port, method: 'PATCH', path, headers });
  const answer = once(request, 'response').then(([response]) => (response as http.IncomingMessage).resume().statusCode);
  answer.catch(() => {});
  request.on('error', () => {});
  return { request, answer };
}

const stored = (service: Service) => readdir(join(service.dir, 'uploads'));

describe('an upload by tus', { concurrency: 4, timeout: 240_000 }, () => {
  test('from the client of browsers becomes a reference that jobs take', async () => {
    await using service = await startService();
    const bytes = picture();
    const offered = await new Promise<string | undefined>((resolve, reject) => {
      new tus.Upload(bytes, {
        endpoint: new URL(PATH, service.baseUrl).href,
        chunkSize: 1_000_000,
        metadata: { filename: 'face.jpg', sha256: sha256(bytes) },
        onError: reject,
        onSuccess: ({ lastResponse }) => resolve(lastResponse.getHeader('Upload-Uri')),
      }).start();
    });
    const client = restClient(service.baseUrl);
    const { job_id } = await client.submit({ source_images: [offered!], target_image: offered! });
    await untilTerminal(client, job_id as string);
    assert.equal((await client.get(job_id as string)).status, 'succeeded');

    const id = offered!.slice('upload://'.length);
    const { headers } = await ask(service, 'HEAD', `${PATH}/${id}`);
    assert.deepEqual(
      ['upload-uri', 'upload-sha256', 'upload-media-type', 'upload-offset', 'upload-length'].map((name) => headers.get(name)),
      [offered, sha256(bytes), 'image/jpeg', String(MANY), String(MANY)],
    );
    assert.equal(headers.get('upload-metadata'), `filename ${base64('face.jpg')},sha256 ${base64(sha256(bytes))}`);
    const facts = await ask(service, 'GET', `/api/v1/uploads/${id}`);
    const { expire_time, ...rest } = facts.json;
    assert.deepEqual(rest, { uri: offered, sha256: sha256(bytes), bytes: String(MANY), media_type: 'image/jpeg' });
    assert.equal(Date.parse(expire_time as string), Date.parse(headers.get('upload-expires')!));
  });

  test('goes on after a connection that broke, and after the service was started anew', async () => {
    await using service = await startService();
    const bytes = picture();
    const path = await begin(service, MANY);
    const { request } = opened(service, path, 0, MANY);
    request.write(bytes.subarray(0, 1_000_000));
    // What was sent arrives, and then nothing more.
    await new Promise<void>((resolve) => request.once('socket', (socket) => socket.once('connect', resolve)));
    request.socket!.end();
    await untilOffset(service, path, 1_000_000);
    assert.equal((await write(service, path, 1_000_000, bytes.subarray(1_000_000, 2_000_000))).status, 204);

    await service.restart();
    assert.equal(await offsetOf(service, path), 2_000_000);
    // By HTTP/2, with the rest.
    const session = http2.connect(service.baseUrl);
    const stream = session.request({
      ':method': 'PATCH',
      ':path': path,
      ...VERSION,
      'upload-offset': '2000000',
      'content-type': 'application/offset+octet-stream',
    });
    stream.end(bytes.subarray(2_000_000));
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
    session.close();
    assert.deepEqual([headers[':status'], headers['upload-sha256']], [204, sha256(bytes)]);
  });

  test('is told apart at every step: with wrong offsets, lengths, versions and ids', async () => {
    await using service = await startService({ MAX_UPLOAD_BYTES: '4M' });
    const path = await begin(service, MANY);
    const bytes = picture();
    const none = `${PATH}/${'0'.repeat(32)}`;
    const refused: readonly [string, Promise<Answer>, number, string][] = [
      ['offset ahead', write(service, path, 5, bytes), 409, 'ABORTED'],
      ['unknown', write(service, none, 0, bytes), 404, 'NOT_FOUND'],
      ['unknown, asked after', ask(service, 'HEAD', none), 404, ''],
      ['unknown, removed', ask(service, 'DELETE', none), 404, 'NOT_FOUND'],
      ['no id of ours', write(service, `${PATH}/..%2f..%2fetc`, 0, bytes), 404, 'NOT_FOUND'],
      ['no version', ask(service, 'POST', PATH, { 'tus-resumable': '', 'upload-length': '5' }), 412, 'FAILED_PRECONDITION'],
      ['another version', ask(service, 'POST', PATH, { 'tus-resumable': '0.2.2', 'upload-length': '5' }), 400, 'INVALID_ARGUMENT'],
      ['no length', ask(service, 'POST', PATH), 400, 'INVALID_ARGUMENT'],
      ['empty', ask(service, 'POST', PATH, { 'upload-length': '0' }), 400, 'INVALID_ARGUMENT'],
      ['negative', ask(service, 'POST', PATH, { 'upload-length': '-1' }), 400, 'INVALID_ARGUMENT'],
      ['too large', ask(service, 'POST', PATH, { 'upload-length': '5000000' }), 413, 'RESOURCE_EXHAUSTED'],
      ['more than announced', write(service, path, 0, Buffer.concat([bytes, bytes])), 413, 'RESOURCE_EXHAUSTED'],
      ['no offset', ask(service, 'PATCH', path, { 'content-type': 'application/offset+octet-stream' }, bytes), 403, 'INVALID_ARGUMENT'],
      ['another type', ask(service, 'PATCH', path, { 'upload-offset': '0', 'content-type': 'image/jpeg' }, bytes), 400, 'INVALID_ARGUMENT'],
      ['malformed names', ask(service, 'POST', PATH, { 'upload-length': '5', 'upload-metadata': 'a b c' }), 400, 'INVALID_ARGUMENT'],
      ['malformed digest', ask(service, 'POST', PATH, { 'upload-length': '5', 'upload-metadata': 'sha256 YQ==' }), 400, 'INVALID_ARGUMENT'],
      ['in parts', ask(service, 'POST', PATH, { 'upload-length': '5', 'upload-concat': 'partial' }), 501, 'UNIMPLEMENTED'],
    ];
    for (const [what, answer, status, code] of refused) {
      const { json, ...got } = await answer;
      assert.deepEqual([got.status, json.code ?? ''], [status, code], `${what}: ${JSON.stringify(json)}`);
      assert.ok(code === '' || (json.message as string).length > 0, what);
    }
    assert.equal(await offsetOf(service, path), 0);
    assert.equal((await write(service, path, 0, bytes)).status, 204);
    // What is whole stays as it is.
    assert.equal((await write(service, path, MANY, Buffer.alloc(0))).status, 204);
    assert.equal((await ask(service, 'DELETE', path)).status, 204);
    assert.equal((await ask(service, 'HEAD', path)).status, 404);
    assert.deepEqual(await stored(service), []);
  });

  test('that is no media, or not what was announced, is refused and leaves nothing', async () => {
    await using service = await startService();
    const page = Buffer.from('<!doctype html>'.repeat(1000));
    const html = await begin(service, page.length);
    const { status, json } = await write(service, html, 0, page);
    assert.deepEqual([status, json.code], [415, 'INVALID_ARGUMENT']);
    const bytes = picture();
    const other = await begin(service, MANY, { 'upload-metadata': `sha256 ${base64('0'.repeat(64))}` });
    assert.equal((await write(service, other, 0, bytes.subarray(0, 5))).status, 204);
    const refused = await write(service, other, 5, bytes.subarray(5));
    assert.deepEqual([refused.status, refused.json.code], [400, 'INVALID_ARGUMENT']);
    for (const path of [html, other]) assert.equal((await ask(service, 'HEAD', path)).status, 404);
    assert.deepEqual(await stored(service), []);
  });

  test('of a length that comes later, and with its first bytes at once', async () => {
    await using service = await startService();
    const bytes = picture();
    const created = await ask(
      service,
      'POST',
      PATH,
      { 'upload-defer-length': '1', 'content-type': 'application/offset+octet-stream' },
      bytes.subarray(0, 1000),
    );
    assert.deepEqual([created.status, created.headers.get('upload-offset')], [201, '1000']);
    const path = created.headers.get('location')!;
    assert.equal((await ask(service, 'HEAD', path)).headers.get('upload-defer-length'), '1');
    const last = await ask(
      service,
      'PATCH',
      path,
      { 'upload-offset': '1000', 'upload-length': String(MANY), 'content-type': 'application/offset+octet-stream' },
      bytes.subarray(1000),
    );
    assert.deepEqual([last.status, last.headers.get('upload-sha256')], [204, sha256(bytes)]);
  });

  test('has one writer: another one is refused while it gets on, and takes over when it has stalled', async () => {
    await using service = await startService();
    const bytes = picture();
    const path = await begin(service, MANY);
    const first = opened(service, path, 0, MANY);
    let going = true;
    const sending = (async () => {
      for (let at = 0; going; at += 1000) {
        first.request.write(bytes.subarray(at, at + 1000));
        await pause(50);
      }
    })();
    while ((await ask(service, 'HEAD', path)).status !== 423);
    assert.equal((await write(service, path, 0, bytes)).status, 423);
    going = false;
    await sending;
    // It has stalled now: its client has gone, and its connection does not know.
    let offset = -1;
    while (offset < 0) {
      const { status, headers } = await ask(service, 'HEAD', path);
      assert.ok(status === 423 || status === 200, `${status}`);
      if (status === 200) offset = Number(headers.get('upload-offset'));
    }
    assert.ok(offset >= 1000 && offset % 1000 === 0, `${offset}`);
    const rest = await write(service, path, offset, bytes.subarray(offset));
    assert.deepEqual([rest.status, rest.headers.get('upload-sha256')], [204, sha256(bytes)]);
    first.request.destroy();
  });

  test('over a quota gets 413, on a full disk 507, and the service goes on', async () => {
    {
      await using service = await startService({ UPLOAD_QUOTA: '5M', MAX_UPLOADS: '2' });
      const path = await begin(service, MANY);
      const { status, json } = await ask(service, 'POST', PATH, { 'upload-length': String(MANY) });
      assert.deepEqual([status, json.code], [413, 'RESOURCE_EXHAUSTED']);
      await begin(service, 100);
      assert.equal((await ask(service, 'POST', PATH, { 'upload-length': '100' })).status, 413);
      assert.equal((await ask(service, 'DELETE', path)).status, 204);
      await begin(service, MANY);
    }
    await using service = await startService({ MIN_FREE_BYTES: '1024T' });
    const { status, headers, json } = await ask(service, 'POST', PATH, { 'upload-length': '100' });
    assert.deepEqual([status, json.code, headers.get('retry-after')], [507, 'RESOURCE_EXHAUSTED', '30']);
    assert.deepEqual(await stored(service), []);
    assert.equal((await fetch(`${service.baseUrl}/readyz`)).status, 200);
  });

  test('refused again and again on one connection leaves nothing behind on it', async (t) => {
    await using service = await startService();
    const path = await begin(service, MANY);
    const warnings: Error[] = [];
    const warned = (warning: Error) => void warnings.push(warning);
    process.on('warning', warned);
    t.after(() => process.off('warning', warned));
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    const headers = { ...VERSION, 'upload-offset': '7', 'content-type': 'application/offset+octet-stream' };
    const sockets = new Set<unknown>();
    // More than the listeners that Node takes for a leak.
    for (let i = 0; i < 15; i++) {
      const request = http.request(new URL(path, service.baseUrl), { method: 'PATCH', headers, agent });
      request.end(picture(1000));
      const [response] = (await once(request, 'response')) as [http.IncomingMessage];
      assert.equal(response.statusCode, 409);
      sockets.add(response.socket);
      await once(response.resume(), 'end');
    }
    assert.deepEqual([sockets.size, warnings], [1, []]);
  });

  test('is let in from pages of named origins alone', async () => {
    await using service = await startService({ CORS_ORIGINS: 'https://app.example.com' });
    const preflight = await fetch(new URL(`${PATH}/x`, service.baseUrl), {
      method: 'OPTIONS',
      headers: { origin: 'https://app.example.com', 'access-control-request-method': 'PATCH' },
    });
    assert.match(preflight.headers.get('access-control-allow-methods')!, /PATCH/);
    for (const name of ['Tus-Resumable', 'Upload-Offset', 'Upload-Length', 'Upload-Metadata']) {
      assert.ok(preflight.headers.get('access-control-allow-headers')!.split(', ').includes(name), name);
    }
    const created = await ask(service, 'POST', PATH, { 'upload-length': '100', origin: 'https://app.example.com' });
    assert.equal(created.headers.get('access-control-allow-origin'), 'https://app.example.com');
    for (const name of ['Location', 'Upload-Offset', 'Upload-Uri', 'Upload-Sha256', 'Upload-Expires']) {
      assert.ok(created.headers.get('access-control-expose-headers')!.split(', ').includes(name), name);
    }
    const other = await ask(service, 'POST', PATH, { 'upload-length': '100', origin: 'https://evil.example.com' });
    assert.equal(other.headers.get('access-control-allow-origin'), null);
    // Not a preflight: what the server can do.
    const can = await fetch(new URL(PATH, service.baseUrl), { method: 'OPTIONS' });
    assert.deepEqual([can.status, can.headers.get('tus-version'), can.headers.get('tus-max-size')], [204, '1.0.0', String(20 * 2 ** 30)]);
    assert.match(can.headers.get('tus-extension')!, /creation,creation-with-upload/);
  });
});
