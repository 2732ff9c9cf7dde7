// Files by form, in the whole service: what curl and browsers send, and what they never would.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import http2 from 'node:http2';
import net from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { type Service, startService } from './api/service.ts';

const PATH = '/api/v1/uploads';
const picture = (bytes = 100_000) => Buffer.concat([Buffer.from('ffd8ffe000104a464946', 'hex'), randomBytes(bytes - 10)]);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const stored = (service: Service) => readdir(join(service.dir, 'uploads'));

type Part = { readonly head: string; readonly body: Uint8Array | string };
const file = (name: string, body: Uint8Array | string): Part => ({
  head: `Content-Disposition: form-data; name="file"; filename="${name}"\r\nContent-Type: image/jpeg`,
  body,
});
const field = (name: string, body: string): Part => ({ head: `Content-Disposition: form-data; name="${name}"`, body });

/** A form as it goes over the wire, to the letter. */
function form(parts: readonly Part[], { end = '\r\n--b--\r\n', boundary = 'b' } = {}): Buffer {
  const all = parts.flatMap(({ head, body }) => [`--${boundary}\r\n${head}\r\n\r\n`, body, '\r\n']);
  // Each part ends before the next boundary; the last one before the end.
  return Buffer.concat([...all.slice(0, -1), end].map((one) => Buffer.from(one as string)));
}

async function post(service: Service, body: Uint8Array, type = 'multipart/form-data; boundary=b') {
  const response = await fetch(new URL(PATH, service.baseUrl), {
    method: 'POST',
    headers: type === '' ? {} : { 'content-type': type },
    body: body as Uint8Array<ArrayBuffer>,
  });
  const json = (await response.json()) as Json & { uploads: Json[]; message: string };
  return { status: response.status, json };
}

describe('uploads by form', { concurrency: 4, timeout: 240_000 }, () => {
  test('curl sends several files, each becomes a reference that jobs take', async () => {
    await using service = await startService();
    const one = picture();
    const two = picture(3_000_000);
    for (const [name, bytes] of [
      ['one.jpg', one],
      ['two.jpg', two],
    ] as const)
      await writeFile(join(service.dir, name), bytes);
    const url = new URL(PATH, service.baseUrl).href;
    const { stdout } = await promisify(execFile)(
      'curl',
      ['-s', '-F', 'source=@one.jpg', '-F', 'note=hello', '-F', 'target=@two.jpg;filename=../été.jpg', url],
      { cwd: service.dir },
    );
    const { uploads } = JSON.parse(stdout) as { uploads: Json[] };
    assert.deepEqual(
      uploads.map(({ field, filename, sha256: digest, bytes, media_type }) => [field, filename, digest, bytes, media_type]),
      [
        ['source', 'one.jpg', sha256(one), '100000', 'image/jpeg'],
        ['target', 'été.jpg', sha256(two), '3000000', 'image/jpeg'],
      ],
    );
    const client = restClient(service.baseUrl);
    const { job_id } = await client.submit({ source_images: [uploads[0]!.uri!], target_image: uploads[1]!.uri! });
    await untilTerminal(client, job_id as string);
    assert.equal((await client.get(job_id as string)).status, 'succeeded');
    const facts = (await (await fetch(`${url}/${String(uploads[0]!.uri).slice('upload://'.length)}`)).json()) as Json;
    assert.equal(facts.sha256, sha256(one));
    assert.equal((await fetch(`${url}/${'0'.repeat(32)}`)).status, 404);
  });

  test('names are for people: nothing in them is followed, and nothing deceives a reader', async () => {
    await using service = await startService();
    const names: readonly [string, string][] = [
      ['../../etc/passwd', 'passwd'],
      ['..\\\\..\\\\boot.ini', 'boot.ini'],
      ['..', ''],
      ['a\0b.jpg', 'ab.jpg'],
      ['invoice\u202egpj.exe', 'invoicegpj.exe'],
      ['\u200f\u2066face\u2069.jpg', 'face.jpg'],
      ['x'.repeat(5000), 'x'.repeat(255)],
      ['%2e%2e%2fetc', '%2e%2e%2fetc'],
      ['$(reboot).jpg', '$(reboot).jpg'],
    ];
    for (const [name, shown] of names) {
      const { status, json } = await post(service, form([file(name, picture())]));
      assert.equal(status, 201, JSON.stringify([name, json]));
      assert.equal(json.uploads[0]!.filename, shown);
    }
    for (const name of await stored(service)) assert.match(name, /^[0-9a-f]{32}$/);
  });

  test('what is no form, or not all of one, is refused in words and leaves nothing', async () => {
    await using service = await startService({ MAX_UPLOAD_BYTES: '1M' });
    const jpeg = picture();
    const good = file('a.jpg', jpeg);
    const many = (count: number, part: Part) => Array.from({ length: count }, () => part);
    const cases: readonly [what: string, body: Uint8Array, status: number, message: RegExp, type?: string][] = [
      ['JSON', Buffer.from('{}'), 415, /multipart\/form-data/, 'application/json'],
      ['the file itself', jpeg, 415, /curl -F/, 'image/jpeg'],
      ['no type', jpeg, 415, /multipart\/form-data/, ''],
      ['a form without files', Buffer.from('a=b'), 415, /multipart\/form-data/, 'application/x-www-form-urlencoded'],
      ['another multipart', form([good]), 415, /multipart\/form-data/, 'multipart/mixed; boundary=b'],
      ['no boundary', form([good]), 400, /boundary/, 'multipart/form-data'],
      ['an empty boundary', form([good]), 400, /boundary|cannot be read|no file/, 'multipart/form-data; boundary='],
      ['a boundary that is too long', form([good]), 400, /boundary/, `multipart/form-data; boundary=${'b'.repeat(300)}`],
      ['another boundary', form([good]), 400, /cannot be read/, 'multipart/form-data; boundary=other'],
      ['nothing', Buffer.alloc(0), 400, /cannot be read|no file/],
      ['the end alone', Buffer.from('--b--\r\n'), 400, /no file/],
      ['no file', form([field('note', 'hello')]), 400, /no file/],
      ['cut in a file', form([good]).subarray(0, 50_000), 400, /cannot be read/],
      ['cut in a header', form([good]).subarray(0, 40), 400, /cannot be read/],
      ['without its end', form([good], { end: '' }), 400, /cannot be read/],
      ['an empty file', form([file('a.jpg', '')]), 400, /empty/],
      ['no media', form([file('a.jpg', '<!doctype html>'.repeat(1000))]), 415, /taken: JPEG/],
      ['no media, after a good one', form([good, file('b.jpg', 'hello')]), 415, /file 2, "b.jpg".*taken: JPEG/],
      ['too large', form([file('a.jpg', picture(1_100_000))]), 413, /at most 1048576 bytes/],
      ['too many files', form(many(21, good)), 400, /at most 20 files/],
      ['too many fields', form([...many(21, field('a', 'b')), good]), 400, /at most 20 fields/],
      ['a field that is too long', form([field('a', 'x'.repeat(70_000)), good]), 400, /longer than 65536 bytes/],
    ];
    for (const [what, body, status, message, type] of cases) {
      const { json, ...got } = await post(service, body, type);
      assert.equal(got.status, status, `${what}: ${JSON.stringify(json)}`);
      assert.match(json.message, message, what);
    }
    assert.deepEqual(await stored(service), []);
    assert.equal(service.logs.filter(({ level }) => (level as number) >= 50).length, 0);
    // The connection of a refused form is as good as new.
    assert.equal((await post(service, form([good]))).status, 201);
  });

  test('a connection that breaks leaves nothing, and costs nobody else anything', async () => {
    await using service = await startService();
    const { hostname, port } = new URL(service.baseUrl);
    const whole = form([file('a.jpg', picture()), file('b.jpg', picture())]);
    for (const sent of [10, 60, 1000, 100_100, 150_000]) {
      const socket = net.connect(Number(port), hostname);
      socket.on('error', () => {});
      socket.write(
        `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: ${whole.length}\r\n\r\n`,
      );
      socket.end(whole.subarray(0, sent));
      socket.resume();
      await once(socket, 'close');
    }
    // The last of them is taken back when its request is over.
    while ((await stored(service)).length > 0) await fetch(`${service.baseUrl}/healthz`);
  });

  test('over HTTP/2, and a refusal that does not wait for the rest of the file', async () => {
    await using service = await startService();
    const session = http2.connect(service.baseUrl);
    const send = (body: Uint8Array, end: boolean) => {
      const stream = session.request({ ':method': 'POST', ':path': PATH, 'content-type': 'multipart/form-data; boundary=b' });
      if (end) stream.end(body);
      else stream.write(body);
      return stream;
    };
    const [headers] = (await once(send(form([file('a.jpg', picture())]), true), 'response')) as [http2.IncomingHttpHeaders];
    assert.equal(headers[':status'], 201);
    const refused = send(form([file('a.jpg', '<!doctype html>'.repeat(1000))], { end: '' }), false);
    const [early] = (await once(refused, 'response')) as [http2.IncomingHttpHeaders];
    assert.equal(early[':status'], 415);
    refused.resume();
    await once(refused, 'close');
    session.close();
  });

  test('over a quota it says so, with when to try again', async () => {
    await using service = await startService({ UPLOAD_QUOTA: '150000' });
    assert.equal((await post(service, form([file('a.jpg', picture())]))).status, 201);
    const { status, json } = await post(service, form([file('a.jpg', picture())]));
    assert.deepEqual([status, json.code], [429, 'RESOURCE_EXHAUSTED']);
    assert.match(json.message, /uploads are kept/);
    assert.equal((await stored(service)).length, 1);
  });
});
