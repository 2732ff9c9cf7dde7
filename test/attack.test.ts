// What hostile callers send: the service answers in words, never with an error of its own, and goes on. Seeded; FUZZ=N sends N times as much, FUZZ_SEED
// repeats a run. `npm run fuzz` is the long run.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import http2 from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { randomOf } from '../scripts/random.ts';
import { python, ROOT, type Service, startService } from './api/service.ts';
import { follow } from './fixtures/child.ts';

const TIMES = Number(process.env.FUZZ ?? 1);
const SEED = Number(process.env.FUZZ_SEED ?? Date.now() % 1_000_000);

/** The first bytes of one, as the text of them. */
const JPEG = Buffer.from('ffd8ffe000104a46494600010100000100010000ffd9', 'hex').toString('latin1');

describe(`hostile callers (seed ${SEED})`, () => {
  const random = randomOf(SEED).next;
  const below = (limit: number) => Math.floor(random() * limit);
  const pick = <T>(list: readonly T[]) => list[below(list.length)]!;
  let service: Service;
  before(async () => {
    service = await startService({ MAX_BODY_BYTES: '8M' });
  });
  after(() => service[Symbol.asyncDispose]());

  const post = (path: string, body: string | Buffer, headers: Record<string, string> = {}) =>
    fetch(service.baseUrl + path, { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } });
  const job = (more: object) => JSON.stringify({ source_images: ['face.jpg'], target_image: 'target.png', ...more });

  /** Sends bytes on a connection of their own; answers what comes back until it ends, or `ms` after the last byte. */
  async function raw(bytes: Uint8Array, ms = 300): Promise<Buffer> {
    const socket = connect(Number(new URL(service.baseUrl).port), '127.0.0.1');
    const chunks: Buffer[] = [];
    socket.on('error', () => {});
    socket.setTimeout(ms, () => socket.destroy());
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.write(bytes);
    await once(socket, 'close').catch(() => {});
    return Buffer.concat(chunks);
  }

  /** Nothing failed inside, and nothing of the inside was shown. */
  function assertDecent(answer: string, what: string): void {
    const status = /^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? '';
    // 505: the library's answer to a two-way stream over HTTP/1.1.
    assert.ok(!status.startsWith('5') || status === '501' || status === '505', `${what}: ${answer.slice(0, 500)}`);
    assert.doesNotMatch(answer, /node_modules|\.ts:\d|\n\s+at |\/worker\/|SQLITE/, what);
  }
  /** Of this process, which is the service too; the bound is far above what a run of any length has shown, and far below a leak of a kilobyte a case. */
  function assertFlat(): void {
    const { heapUsed, external } = process.memoryUsage();
    assert.ok(heapUsed + external < 400 * 2 ** 20, `${Math.round((heapUsed + external) / 2 ** 20)} MB are held`);
  }
  function assertNoDefect(): void {
    const defects = service.logs.filter((line) => Number(line.level) >= 50);
    assert.deepEqual(defects, []);
  }

  test('what is too much is refused with a bounded answer, before it costs anything', async () => {
    const many = (count: number, one: (i: number) => string) => Object.fromEntries(Array.from({ length: count }, (_, i) => [one(i), i]));
    for (const [what, body, field] of [
      ['sources', job({ source_images: Array(30_000).fill('face.jpg') }), 'source_images'],
      ['options', job({ parameters: many(30_000, (i) => `option_${i}`) }), 'parameters'],
      ['long names', job({ parameters: many(900, (i) => `${'x'.repeat(3000)}${i}`) }), 'parameters.'],
      ['list', job({ parameters: { warnings: Array(100_000).fill('w'), processors: Array(100_000).fill('p') } }), 'elements'],
      ['labels', job({ labels: many(100_000, (i) => `label_${i}`) }), 'elements'],
      [
        'depth',
        `{"source_images":["face.jpg"],"target_image":"target.png","parameters":{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}}`,
        '',
      ],
      ['depth of objects', `{"parameters":${'{"a":'.repeat(200_000)}1${'}'.repeat(200_000)}}`, ''],
    ] as const) {
      const response = await post('/api/v1/jobs', body);
      const text = await response.text();
      assert.equal(response.status, 400, `${what}: ${text.slice(0, 300)}`);
      assert.ok(text.length < 40_000, `${what}: ${text.length} bytes of answer`);
      assert.ok(text.includes(field), `${what}: ${text.slice(0, 300)}`);
    }
    const labels = Array.from({ length: 1000 }, (_, i) => `label=k${i}=v`).join('&');
    for (const path of ['/api/v1/jobs', '/api/v1/jobs:watch']) {
      const response = await fetch(`${service.baseUrl}${path}?${labels}`);
      assert.equal(response.status, 400, await response.text());
    }
    assertNoDefect();
  });

  test('bytes that are no request get the error of every other one', async () => {
    for (const [head, status] of [
      ['GET / HTTP/1.1\r\nHost x\r\n\r\n', 400],
      ['POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
      ['POST /facefusion.jobs.v1.JobService/Get HTTP/1.1\r\nHost: a b\r\nContent-Length: 0\r\n\r\n', 400],
      ['POST /facefusion.jobs.v1.JobService/Get HTTP/1.1\r\nHost: a:99999\r\nContent-Length: 0\r\n\r\n', 400],
      [`GET / HTTP/1.1\r\nHost: x\r\nA: ${'a'.repeat(20_000)}\r\n\r\n`, 431],
    ] as const) {
      const answer = (await raw(Buffer.from(head))).toString();
      assert.ok(answer.startsWith(`HTTP/1.1 ${status} `), answer);
      const body = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)) as { code: string; message: string; details: unknown[] };
      assert.deepEqual([typeof body.code, typeof body.message, body.details], ['string', 'string', []]);
    }
  });

  test('a call that the library gives up on is answered too', async () => {
    // Its parser quotes the text around a mistake, cut in the middle of this character, and gRPC has no way to carry half of one.
    const json = `{"jobId":${'\u{1F600}'.repeat(40)}}`;
    for (let shift = 0; shift < 4; shift++) {
      const body = Buffer.from(`${' '.repeat(shift)}${json}`);
      const frame = Buffer.concat([Buffer.alloc(5), body]);
      frame.writeUInt32BE(body.length, 1);
      const response = await post('/facefusion.jobs.v1.JobService/Get', frame, { 'content-type': 'application/grpc-web+json' });
      const text = await response.text();
      assert.ok(response.status < 500, `${response.status} ${text}`);
    }
  });

  test('a deadline beyond what a timer takes is no deadline now', async () => {
    for (const [type, headers] of [
      ['application/json', { 'connect-timeout-ms': '9999999999' }],
      ['application/grpc-web+json', { 'grpc-timeout': '99999999H' }],
    ] as const) {
      const json = Buffer.from('{}');
      const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, json.length]), json]);
      const body = type === 'application/json' ? json : frame;
      const response = await post('/facefusion.jobs.v1.SystemService/GetOverview', body, { 'content-type': type, ...headers });
      const text = await response.text();
      assert.equal(response.status, 200, text);
      assert.match(text, /totals/);
    }
  });

  test('mutated requests over HTTP/1.1', async () => {
    const good = job({ parameters: { steps: 1 }, labels: { a: 'b' }, idempotency_key: 'k' });
    const request = (head: string, body = '') =>
      Buffer.from(
        `${head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
    const bytesOf = (line: string, headers: Record<string, string>, body = '') => {
      const length = headers['transfer-encoding'] === undefined ? { 'content-length': String(body.length) } : {};
      const all = Object.entries({ host: 'x', connection: 'close', ...length, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
      return Buffer.from(`${line} HTTP/1.1\r\n${all.join('')}\r\n${body}`, 'latin1');
    };
    const chunked = (body: string) => `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
    const part = (name: string, file: string) =>
      `--x\r\ncontent-disposition: form-data; name="${name}"; filename="${file}"\r\n\r\n${JPEG}\r\n`;
    const form = `${part('a', 'a.jpg')}--x\r\ncontent-disposition: form-data; name="b"\r\n\r\nb\r\n${part('c', 'c.jpg')}--x--\r\n`;
    const tus = { 'tus-resumable': '1.0.0', 'content-type': 'application/offset+octet-stream' };
    const begun = await fetch(`${service.baseUrl}/api/v1/tus`, {
      method: 'POST',
      headers: { 'tus-resumable': '1.0.0', 'upload-length': '100000000' },
    });
    const upload = begun.headers.get('location')!.split('/').at(-1)!;
    // Resumed from anywhere: of a job that is there, and has ended.
    const { job_id: known } = (await (await post('/api/v1/jobs', job({}))).json()) as { job_id: string };
    const seeds = [
      request('POST /api/v1/jobs', good),
      request('POST /api/v1/jobs:validate', good),
      request('POST /api/v1/process/swap', good),
      request('POST /facefusion.jobs.v1.JobService/Submit', `{"job":${good}}`),
      request('POST /grpc.reflection.v1.ServerReflection/ServerReflectionInfo', 'x'),
      request('GET /api/v1/jobs?label=a=b&page_size=3&status=queued&created_after=2025-01-01T00:00:00Z'),
      request('GET /api/v1/jobs/job_20250405_abcdefghijkl/events?last_event_id=3'),
      request('DELETE /api/v1/jobs/job_20250405_abcdefghijkl'),
      request(`GET /api/v1/blobs/${'0'.repeat(64)}?expires=1&filename=a&type=b&signature=c`),
      request(`POST /api/v1/jobs:batch`, `{"jobs":[{"ref":"a","job":${good}},{"job":${good}}]}`),
      ...['41', '-1', '1e9', '9'.repeat(30)].map((id) =>
        bytesOf(`GET /api/v1/jobs/${known}/events`, { accept: 'text/event-stream', 'last-event-id': id }),
      ),
      bytesOf('GET /api/v1/batches/batch_20250405_abcdefghijkl/events', { accept: 'text/event-stream', 'last-event-id': '7' }),
      bytesOf('GET /api/v1/jobs:watch', { accept: 'text/event-stream', 'last-event-id': 'MTIz' }),
      bytesOf('POST /api/v1/uploads', { 'content-type': 'multipart/form-data; boundary=x' }, form),
      bytesOf('POST /api/v1/uploads', { 'content-type': 'multipart/form-data; boundary=x', 'transfer-encoding': 'chunked' }, chunked(form)),
      bytesOf('POST /api/v1/tus', { ...tus, 'upload-length': '23', 'upload-metadata': 'filename YS5qcGc=,sha256 YWJj' }, JPEG),
      bytesOf('POST /api/v1/tus', { ...tus, 'upload-defer-length': '1' }),
      bytesOf(`PATCH /api/v1/tus/${upload}`, { ...tus, 'upload-offset': '0' }, JPEG),
      bytesOf(`HEAD /api/v1/tus/${upload}`, tus),
      bytesOf(`DELETE /api/v1/tus/${'0'.repeat(32)}`, tus),
    ];
    for (let i = 0; i < 240 * TIMES; i += 10) {
      await Promise.all(
        Array.from({ length: 10 }, async () => {
          let bytes = [...pick(seeds)];
          for (let n = 1 + below(10); n > 0; n--) {
            const at = below(bytes.length);
            const act = random();
            if (act < 0.5) bytes[at] = below(256);
            else if (act < 0.75) bytes = [...bytes.slice(0, at), ...bytes.slice(at + below(20))];
            else bytes.splice(at, 0, ...Array.from({ length: below(10) }, () => below(256)));
            if (bytes.length === 0) bytes = [0];
          }
          const sent = Buffer.from(bytes);
          assertDecent((await raw(sent)).toString('latin1'), JSON.stringify(sent.toString('latin1')));
        }),
      );
    }
    assert.equal((await fetch(`${service.baseUrl}/healthz`)).status, 200);
    assertNoDefect();
    assertFlat();
  });

  test('jobs canceled at whatever instant all end, and only those that were asked to', async () => {
    const ended = ['succeeded', 'failed', 'canceled', 'refused'];
    const courses = [{}, { steps: 5, seconds_per_step: 0.01 }, { refuse: 'no' }, { fail: 'ODD' }, { log_lines: 5 }];
    const one = async () => {
      const response = await post('/api/v1/jobs', job({ parameters: pick(courses), priority: below(5) }));
      const { job_id } = (await response.json()) as { job_id: string };
      const cancel = random() < 0.6;
      if (cancel) {
        await delay(random() * random() * 300);
        assert.equal((await fetch(`${service.baseUrl}/api/v1/jobs/${job_id}`, { method: 'DELETE' })).status, 202);
      }
      const events = await fetch(`${service.baseUrl}/api/v1/jobs/${job_id}/events?after_sequence=0`, {
        headers: { accept: 'application/x-ndjson' },
        signal: AbortSignal.timeout(60_000),
      });
      const told = (await events.text())
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { sequence: number; state: { status: string } | null });
      assert.deepEqual(
        told.map(({ sequence }) => sequence),
        told.map((_, i) => i + 1),
      );
      const ends = told.flatMap(({ state }) => (state && ended.includes(state.status) ? [state.status] : []));
      assert.equal(ends.length, 1, `${job_id}: ${ends}`);
      assert.ok(cancel || ends[0] !== 'canceled', `${job_id} was canceled by nobody`);
    };
    // Each runs a job to its end: a tenth of the factor is enough of them in a long run.
    let left = 80 * Math.max(1, TIMES / 10);
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        while (left-- > 0) await one();
      }),
    );
    assertNoDefect();
  });

  test('mutated frames over HTTP/2: gRPC, gRPC-Web and Connect messages', async () => {
    const paths = [
      'JobService/Submit',
      'JobService/Get',
      'JobService/List',
      'JobService/Watch',
      'UploadService/Upload',
      'SystemService/GetOverview',
    ];
    const types = [
      'application/grpc',
      'application/grpc+json',
      'application/grpc-web+proto',
      'application/connect+proto',
      'application/proto',
      'application/json',
    ];
    const session = http2.connect(service.baseUrl);
    session.on('error', () => {});
    for (let i = 0; i < 160 * TIMES; i += 10) {
      await Promise.all(
        Array.from({ length: 10 }, async () => {
          const body = Buffer.alloc(below(200));
          for (let at = 0; at < body.length; at++) body[at] = below(256);
          const framed = Buffer.concat([Buffer.from([pick([0, 0, 0, 1, 2, 128, 255]), 0, 0, 0, 0]), body]);
          framed.writeUInt32BE(pick([body.length, body.length, body.length, 0, 2 ** 32 - 1, 9_000_000]), 1);
          const path = `/facefusion.jobs.v1.${pick(paths)}`;
          const type = pick(types);
          const stream = session.request({
            ':method': 'POST',
            ':path': path,
            'content-type': type,
            te: 'trailers',
            ...(random() < 0.3 ? { 'grpc-timeout': pick(['0m', '1n', '99999999H', '-1S', 'x', '50m']) } : {}),
            ...(random() < 0.2 ? { 'grpc-encoding': pick(['gzip', 'br', 'identity', 'nope']) } : {}),
          });
          stream.on('error', () => {});
          let status = '';
          let code = '';
          let text = '';
          stream.on('response', (headers) => {
            status = `${headers[':status']} ${headers['grpc-status'] ?? ''} ${headers['grpc-message'] ?? ''}`;
            code = String(headers['grpc-status'] ?? '');
          });
          stream.on('trailers', (headers) => {
            status += ` ${headers['grpc-status'] ?? ''} ${headers['grpc-message'] ?? ''}`;
            code = String(headers['grpc-status'] ?? code);
          });
          stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
          stream.end(random() < 0.5 ? framed : body);
          const late = setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), 2000);
          await once(stream, 'close').catch(() => {});
          clearTimeout(late);
          const said = `${path} ${type} ${framed.toString('hex')}: ${status} ${text}`;
          // 13 is INTERNAL, also gRPC's own word for a message that cannot be read; 2 is UNKNOWN.
          const unread = /protocol error|compressed envelope|decompression failed|promised \d+ bytes/i.test(
            decodeURIComponent(status) + text,
          );
          assert.ok(unread || (!/^5(?!0[15])/.test(status) && code !== '13' && code !== '2'), said);
          assertDecent(text, said);
        }),
      );
    }
    session.destroy();
    assertNoDefect();
    assertFlat();
  });
});

test('a service whose launcher is killed drains and ends', { timeout: 90_000 }, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-launched-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const settings = {
    FFJOBS_PORT: '0',
    FFJOBS_METRICS_PORT: 'off',
    FFJOBS_DATA_DIR: dir,
    FFJOBS_PYTHON: python(),
    FFJOBS_ENGINE: 'classical',
  };
  const env = { ...process.env, ...settings };
  const service = spawn(process.execPath, [join(ROOT, 'src', 'main.ts'), 'serve'], { env, stdio: ['ignore', 'pipe', 'ignore', 'ipc'] });
  t.after(() => service.kill('SIGKILL'));
  const { said, ended } = follow(service);
  await said(/\n/);
  service.disconnect();
  assert.equal(await ended, 0);
});
