// A disk that is full for real: a file system of a few MiB, under the whole data folder of the service.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, readdir, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CallError, type Client, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startService } from './api/service.ts';

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
