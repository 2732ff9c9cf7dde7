// Folders of stays, given out again and again: each stay finds its own empty, whatever the ones before it have left or still do.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { scratchOf, WorkFolders } from '../src/gpu/folders.ts';

async function root(t: { after(cleanUp: () => Promise<void>): void }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'ffjobs-work-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** What is in a folder that was given out. */
async function contents(path: string): Promise<string[]> {
  assert.deepEqual(await readdir(scratchOf(path)), []);
  return (await readdir(path)).filter((name) => name !== 'tmp');
}

test('a folder is used again under a new name, without what was in it', async (t) => {
  const at = await root(t);
  const folders = await WorkFolders.open(at, 2);
  const first = folders.path('job_a', 1);
  folders.make(first);
  await writeFile(join(first, 'target.png'), 'a face');
  await folders.remove(first);
  const [spare] = await readdir(at);
  assert.deepEqual(await readdir(join(at, spare!)), ['tmp']);
  const second = folders.path('job_b', 1);
  folders.make(second);
  assert.deepEqual(await contents(second), []);
  assert.deepEqual(await readdir(at), [second.slice(at.length + 1)], 'it is the same one');
  await folders.remove(second);
  await folders.close();
  assert.deepEqual(await readdir(at), []);
});

test('what still writes to a job that is over does not reach the next one', async (t) => {
  const at = await root(t);
  const folders = await WorkFolders.open(at, 2);
  const first = folders.path('job_a', 1);
  folders.make(first);
  await folders.remove(first);
  await assert.rejects(writeFile(join(first, 'output.png'), 'late'), { code: 'ENOENT' });
  await assert.rejects(writeFile(join(scratchOf(first), 'frame.png'), 'late'), { code: 'ENOENT' });
  const second = folders.path('job_b', 1);
  folders.make(second);
  assert.deepEqual(await contents(second), []);
});

test('a folder with much in it, a large file, or something in its scratch folder is removed whole', async (t) => {
  const at = await root(t);
  const folders = await WorkFolders.open(at, 8);
  const leave: Record<string, (folder: string) => Promise<unknown>> = {
    large: (folder) => writeFile(join(folder, 'output.mp4'), Buffer.alloc((1 << 20) + 1)),
    many: (folder) => Promise.all(Array.from({ length: 40 }, (_, i) => writeFile(join(folder, `frame-${i}`), ''))),
    scratch: (folder) => writeFile(join(scratchOf(folder), 'frame.png'), ''),
    nested: (folder) => mkdir(join(folder, 'frames')),
    'no scratch': (folder) => rm(scratchOf(folder), { recursive: true }),
  };
  for (const [name, left] of Object.entries(leave)) {
    const path = folders.path('job_a', 1);
    folders.make(path);
    await left(path);
    await folders.remove(path);
    assert.deepEqual(await readdir(at), [], name);
  }
});

test('no more are kept than were asked for, and one that was never made is none', async (t) => {
  const at = await root(t);
  const folders = await WorkFolders.open(at, 1);
  const paths = ['job_a', 'job_b'].map((job) => folders.path(job, 1));
  for (const path of paths) folders.make(path);
  for (const path of paths) await folders.remove(path);
  assert.equal((await readdir(at)).length, 1);
  await folders.remove(folders.path('job_c', 1));
  assert.equal((await readdir(at)).length, 1);
});

test('a kept folder that somebody has tidied up, whole or in part, is made good', async (t) => {
  const at = await root(t);
  const folders = await WorkFolders.open(at, 1);
  for (const tidied of ['', 'tmp']) {
    const path = folders.path('job_a', 1);
    folders.make(path);
    await folders.remove(path);
    const [spare] = await readdir(at);
    await rm(join(at, spare!, tidied), { recursive: true });
    const next = folders.path('job_b', 1);
    folders.make(next);
    assert.deepEqual(await contents(next), []);
    await folders.remove(next);
    await folders.close();
  }
});

test('what an earlier service left is swept: folders of jobs and kept ones, and nothing of others', async (t) => {
  const at = await root(t);
  for (const name of ['job_20250405_abcdefghijkl.1.7', 'spare.3', 'mine']) await mkdir(join(at, name, 'tmp'), { recursive: true });
  await WorkFolders.open(at, 1);
  assert.deepEqual(await readdir(at), ['mine']);
});
