// A disk that is full for real: a file system of a few MiB, under the whole data folder of the service.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, readdir, rm, stat, statfs, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CallError, type Client, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startService } from './api/service.ts';
import { picture, startOrigin, well } from './fixtures/media/origin.ts';

const MIB = 1 << 20;
/** One that has not said how long it is is looked at in steps of 64. */
const DISK_MIB = 96;
const PICTURE = { source_images: ['face.jpg'], target_image: 'target.png' };
const JPEG = Buffer.from('ffd8ffe000104a46494600010100000100010000ffd9', 'hex');
const PNG = Buffer.from('89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de', 'hex');

/** A fresh small disk, or why there can be none here. */
function smallDisk(): Disposable & ({ readonly dir: string } | { readonly reason: string }) {
  const dir = mkdtempSync(join(tmpdir(), 'ffjobs-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'tmpfs', dir], { stdio: 'pipe' });
  } catch {
    rmSync(dir, { recursive: true });
    return { reason: 'machine: a file system of its own cannot be mounted here', [Symbol.dispose]() {} };
  }
  return {
    dir,
    [Symbol.dispose]() {
      execFileSync('umount', ['--lazy', dir]);
      rmSync(dir, { recursive: true });
    },
  };
}

async function freeBytes(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}

/** Somebody else's file, which leaves so many bytes to all others. */
async function fill(dir: string, leave: number): Promise<() => Promise<void>> {
  const path = join(dir, 'of somebody else');
  await writeFile(path, Buffer.alloc((await freeBytes(dir)) - leave), { flag: 'a' }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOSPC' || leave > 0) throw error;
  });
  return () => rm(path);
}

/** By a form. Answers the reason of its refusal; undefined: taken. */
async function upload(baseUrl: string, bytes: number): Promise<string | undefined> {
  const form = new FormData();
  form.set('file', new Blob([JPEG, new Uint8Array(bytes - JPEG.length)]), 'a.jpg');
  const response = await fetch(`${baseUrl}/api/v1/uploads`, { method: 'POST', body: form });
  const answer = (await response.json()) as { details?: { reason?: string }[] };
  if (response.ok) return undefined;
  return answer.details?.map(({ reason }) => reason).find(Boolean) ?? `${response.status} without a reason`;
}

function assertStorageFull(error: unknown): true {
  assert.ok(error instanceof CallError, String(error));
  assert.deepEqual([error.code, error.reason], ['RESOURCE_EXHAUSTED', 'STORAGE_FULL']);
  assert.ok(error.retryAfterSeconds! > 0);
  return true;
}

/** The service with all its data there, and pictures to work on. */
async function serviceOn(dir: string, settings: Readonly<Record<string, string>>) {
  await mkdir(join(dir, 'input'));
  await writeFile(join(dir, 'input', 'face.jpg'), JPEG);
  await writeFile(join(dir, 'input', 'target.png'), PNG);
  return await startService({ DATA_DIR: dir, ...settings });
}

/** A figure of the disk holds for half a second: who is refused tries again. */
async function taken(client: Client) {
  for (;;) {
    try {
      return await client.submit(PICTURE);
    } catch (error) {
      assertStorageFull(error);
      await delay(50);
    }
  }
}

async function succeeds(client: Client): Promise<string> {
  const { job_id } = await taken(client);
  await untilTerminal(client, job_id as string);
  const job = await client.get(job_id as string);
  assert.equal(job.status, 'succeeded', String(job.error_message));
  return job.result_url as string;
}

/** What of a body could be left half written: uploads, and results on their way. */
async function leftovers(dir: string): Promise<string[]> {
  return [...(await readdir(join(dir, 'uploads'))), ...(await readdir(join(dir, 'blobs', 'tmp')))];
}

for (const [name, minFree, leave] of [
  ['before a disk is full nothing more is taken in', '16M', 8 * MIB],
  ['on a disk that is full to the last byte nothing is taken in', '0', 0],
] as const) {
  test(`${name}, nothing is left half written, and all else is answered`, { timeout: 120_000 }, async (t) => {
    using disk = smallDisk();
    if (!('dir' in disk)) return t.skip(disk.reason);
    const { dir } = disk;
    await using service = await serviceOn(dir, { MIN_FREE_BYTES: minFree });
    const client = restClient(service.baseUrl);
    const url = await succeeds(client);
    // More than there is.
    assert.equal(await upload(service.baseUrl, DISK_MIB * MIB), 'STORAGE_FULL');
    assert.deepEqual(await leftovers(dir), []);

    const empty = await fill(dir, leave);
    await assert.rejects(client.submit(PICTURE), assertStorageFull);
    assert.equal(await upload(service.baseUrl, 2 * MIB), 'STORAGE_FULL');
    assert.deepEqual(await leftovers(dir), []);
    assert.equal((await client.validate(PICTURE)).valid, true);
    assert.equal(((await client.list({})).jobs as unknown[]).length, 1);
    assert.ok((await fetch(url)).ok, 'the result is there as before');
    assert.ok((await fetch(`${service.baseUrl}/healthz`)).ok);

    await empty();
    assert.equal(await upload(service.baseUrl, 2 * MIB), undefined);
    await succeeds(client);
    // What it could not write it has not lost.
    await service.restart();
    await succeeds(restClient(service.baseUrl));
  });
}

/** A request that has sent a part of its body; `rest` sends the others and answers. */
function begun(url: URL, method: string, headers: Record<string, string | number>, first: Uint8Array, length: number) {
  const request = http.request(url, { method, headers: { ...headers, 'content-length': length } });
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
  answered.catch(() => {});
  request.on('error', () => {});
  request.write(first);
  return async (body: Uint8Array) => {
    request.end(body);
    const [response] = await answered;
    return { status: response.statusCode, text: Buffer.concat(await response.toArray()).toString() };
  };
}

test('a disk that fills up under way costs what is being written, and that goes on or is gone', { timeout: 120_000 }, async (t) => {
  using disk = smallDisk();
  if (!('dir' in disk)) return t.skip(disk.reason);
  const { dir } = disk;
  await using origin = await startOrigin();
  await using service = await serviceOn(dir, { MIN_FREE_BYTES: '0', HTTP_ALLOW: `127.0.0.1:${origin.port}`, STORE_PATIENCE: '60s' });
  const client = restClient(service.baseUrl);
  await succeeds(client);
  const bytes = picture(8 * MIB);
  const [head, tail] = [bytes.subarray(0, 3 * MIB), bytes.subarray(3 * MIB)];
  const { promise: filled, resolve: go } = Promise.withResolvers<void>();
  let downloads = 0;
  origin.on('/target.jpg', async (request, response) => {
    if (downloads++ > 0) return well(() => bytes)(request, response);
    response.writeHead(200, { 'content-length': bytes.length, etag: '"one"' });
    response.write(head);
    await filled;
    response.end(tail);
  });

  const { job_id } = await client.submit({ ...PICTURE, target_image: `http://127.0.0.1:${origin.port}/target.jpg` });
  const tus = { 'tus-resumable': '1.0.0' };
  const created = await fetch(`${service.baseUrl}/api/v1/tus`, {
    method: 'POST',
    headers: { ...tus, 'upload-length': String(bytes.length) },
  });
  const upload = new URL(created.headers.get('location')!, service.baseUrl);
  const id = upload.pathname.split('/').at(-1)!;
  const patch = (offset: number) => ({ ...tus, 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream' });
  const byTus = begun(upload, 'PATCH', patch(0), head, bytes.length);
  const [before, after] = [
    Buffer.from('--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'),
    Buffer.from('\r\n--b--\r\n'),
  ];
  const byForm = begun(
    new URL('/api/v1/uploads', service.baseUrl),
    'POST',
    { 'content-type': 'multipart/form-data; boundary=b' },
    Buffer.concat([before, head]),
    before.length + bytes.length + after.length,
  );
  const written = async () => {
    const files = await Promise.all(
      ['uploads', 'downloads'].map(async (name) => (await readdir(join(dir, name))).map((one) => join(dir, name, one))),
    );
    const sizes = await Promise.all(files.flat().map(async (one) => (await stat(one)).size));
    return sizes.filter((size) => size > 2 * MIB).length;
  };
  while ((await written()) < 3) await delay(20);
  const empty = await fill(dir, 0);
  go();
  const [formed, patched] = await Promise.all([byForm(Buffer.concat([tail, after])), byTus(tail)]);
  assert.match(formed.text, /STORAGE_FULL/);
  assert.deepEqual([patched.status, /STORAGE_FULL/.test(patched.text)], [507, true]);
  assert.ok((await fetch(`${service.baseUrl}/healthz`)).ok);
  assert.equal(((await client.list({})).jobs as unknown[]).length, 2);
  await empty();

  // The form is gone, the resumable one goes on where it was.
  while ((await readdir(join(dir, 'uploads'))).length > 1) await delay(20);
  assert.deepEqual(await readdir(join(dir, 'uploads')), [id]);
  const offset = Number((await fetch(upload, { method: 'HEAD', headers: tus })).headers.get('upload-offset'));
  assert.ok(offset > 2 * MIB && offset < bytes.length, `${offset}`);
  const rest = await fetch(upload, { method: 'PATCH', headers: patch(offset), body: bytes.subarray(offset) as Uint8Array<ArrayBuffer> });
  assert.deepEqual([rest.status, rest.headers.get('upload-sha256')], [204, createHash('sha256').update(bytes).digest('hex')]);
  await untilTerminal(client, job_id as string);
  const job = await client.get(job_id as string);
  assert.equal(job.status, 'succeeded', String(job.error_message));
  assert.deepEqual(await readdir(join(dir, 'blobs', 'tmp')), []);
});
