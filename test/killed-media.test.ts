// A service that is killed while media come in and results are taken over: nothing half-written stays, what was acknowledged goes on, and jobs run again.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startServiceProcess } from '../scripts/cluster/service-process.ts';
import { openLocalBlobStore } from '../src/store/blobs-local.ts';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { python, ROOT, untilWarm } from './api/service.ts';
import { follow } from './fixtures/child.ts';
import { picture, startOrigin, well } from './fixtures/media/origin.ts';

const TUS = { 'tus-resumable': '1.0.0' };
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Files below a folder, by their paths in it. */
async function filesIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1));
}

/** Until so many files of a folder hold something. */
async function untilWritten(dir: string, files: number): Promise<void> {
  for (;;) {
    const sizes = await Promise.all(
      (await filesIn(dir)).map(async (name) => (await stat(join(dir, name)).catch(() => undefined))?.size ?? 0),
    );
    if (sizes.filter((size) => size > 0).length >= files) return;
    await delay(10);
  }
}

/** A request whose body is sent up to its middle. */
function half(
  base: string,
  method: string,
  path: string,
  headers: Record<string, string | number>,
  body: Uint8Array,
  length: number,
): http.ClientRequest {
  const request = http.request(new URL(path, base), { method, headers: { ...headers, 'content-length': length } });
  request.on('error', () => {});
  request.write(body);
  return request;
}

test('what was coming in is gone or goes on, and its jobs run again', { timeout: 120_000 }, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-killed-media-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  await using origin = await startOrigin();
  const bytes = picture(2_000_000);
  await mkdir(join(dir, 'input'));
  await cp(join(ROOT, 'samples', 'eileen_collins.jpg'), join(dir, 'input', 'face.jpg'));
  const settings = {
    DATA_DIR: dir,
    ENGINE: 'scripted:Scripted',
    ENGINE_PATH: join(ROOT, 'worker', 'tests', 'engines'),
    PYTHON: python(),
    PROBE: 'off',
    CONSOLE: 'off',
    HTTP_ALLOW: `127.0.0.1:${origin.port}`,
  };
  const start = () => startServiceProcess({ settings, log: join(dir, 'log') });
  const folder = (name: string) => join(dir, name);
  // The first time it stops in its middle.
  let answers = 0;
  origin.on('/target.jpg', (request, response) => {
    if (answers++ > 0) return well(() => bytes)(request, response);
    response.writeHead(200, { 'content-length': bytes.length, etag: '"one"' });
    response.write(bytes.subarray(0, 1_000_000));
  });

  let path: string;
  let jobId: string;
  {
    await using first = start();
    const base = await first.listening;
    await untilWarm(base);
    const client = restClient(base);
    jobId = (await client.submit({ source_images: ['face.jpg'], target_image: `http://127.0.0.1:${origin.port}/target.jpg` }))
      .job_id as string;
    const created = await fetch(new URL('/api/v1/tus', base), {
      method: 'POST',
      headers: { ...TUS, 'upload-length': String(bytes.length) },
    });
    path = created.headers.get('location')!;
    const patch = { ...TUS, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
    half(base, 'PATCH', path, patch, bytes.subarray(0, 1_500_000), bytes.length);
    const form = Buffer.concat([
      Buffer.from('--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'),
      bytes.subarray(0, 1_500_000),
    ]);
    half(base, 'POST', '/api/v1/uploads', { 'content-type': 'multipart/form-data; boundary=b' }, form, bytes.length);
    await untilWritten(folder('uploads'), 2);
    await untilWritten(folder('downloads'), 1);
    first.child.kill('SIGKILL');
    assert.equal(await first.ended, 'SIGKILL');
  }

  await using second = start();
  const base = await second.listening;
  const client = restClient(base);
  assert.deepEqual(await filesIn(folder('uploads')), [path.split('/').at(-1)]);
  const asked = await fetch(new URL(path, base), { method: 'HEAD', headers: TUS });
  const offset = Number(asked.headers.get('upload-offset'));
  assert.ok(offset > 0 && offset <= 1_500_000, `${offset}`);
  const rest = await fetch(new URL(path, base), {
    method: 'PATCH',
    headers: { ...TUS, 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream' },
    body: bytes.subarray(offset) as Uint8Array<ArrayBuffer>,
  });
  assert.deepEqual([rest.status, rest.headers.get('upload-sha256')], [204, sha256(bytes)]);
  await untilTerminal(client, jobId);
  const job = (await client.get(jobId)) as Json & { status: string };
  assert.deepEqual([job.status, job.error_message], ['succeeded', null]);
  // The download is kept, whole; the work folder was given up; what lies in the store are whole blobs.
  const downloads = await filesIn(folder('downloads'));
  for (const name of downloads) assert.equal(sha256(await readFile(join(folder('downloads'), name))), sha256(bytes));
  while ((await filesIn(folder('work'))).length > 0) await delay(10);
  assert.deepEqual(await filesIn(join(folder('blobs'), 'tmp')), []);
  for (const name of (await filesIn(folder('blobs'))).filter((one) => /[0-9a-f]{64}$/.test(one))) {
    assert.equal(sha256(await readFile(join(folder('blobs'), name))), name.split('/').at(-1));
  }
});

test('a result that is being taken over is there whole after the next start, or not at all', { timeout: 120_000 }, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-killed-blob-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const store = join(dir, 'blobs');
  const code = `
    import { openLocalBlobStore } from ${JSON.stringify(join(ROOT, 'src', 'store', 'blobs-local.ts'))};
    const blobs = await openLocalBlobStore({ dir: ${JSON.stringify(store)} });
    for (const name of process.argv.slice(1)) {
      await blobs.put(name, 'video/mp4', { pin: async (_, lasting) => { if (lasting) process.stdout.write('taking\\n'); } });
    }
    setInterval(() => {}, 1000);`;
  const sources = new Map<string, string>();
  for (let i = 0; i < 6; i++) {
    const bytes = randomBytes(3_000_000);
    const path = join(dir, `${i}.mp4`);
    await writeFile(path, bytes);
    sources.set(sha256(bytes), path);
  }
  let whole = 0;
  for (let round = 0; round < 8; round++) {
    await rm(store, { recursive: true, force: true });
    const child = spawn(process.execPath, ['--input-type=module', '-e', code, ...sources.values()], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { said, ended } = follow(child);
    await said(/taking/);
    await delay(randomInt(12));
    child.kill('SIGKILL');
    assert.equal(await ended, 'SIGKILL');
    const blobs = await openLocalBlobStore({ dir: store });
    assert.deepEqual(await filesIn(join(store, 'tmp')), []);
    for (const [key, path] of sources) {
      const found = await blobs.stat(key);
      if (found) {
        whole++;
        assert.equal(sha256(await readFile(join(store, blobs.pathOf(key)))), key);
      }
      // A second try has it in any case.
      assert.equal((await blobs.put(path, 'video/mp4')).key, key);
      assert.equal(sha256(await readFile(join(store, blobs.pathOf(key)))), key);
    }
  }
  t.diagnostic(`${whole} of ${8 * sources.size} were whole when they were killed`);
});
