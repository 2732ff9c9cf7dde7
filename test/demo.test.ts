// `npm run demo`, the first command of the README: it ends well only with both results, and they are where it says.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { python, ROOT } from './api/service.ts';

test('the demo swaps a picture and a clip, and leaves them', { timeout: 240_000 }, async () => {
  const results = [
    { path: join('data', 'demo', 'picture.jpg'), at: 0, magic: 'ffd8ff' },
    { path: join('data', 'demo', 'video.mp4'), at: 4, magic: Buffer.from('ftyp').toString('hex') },
  ];
  for (const { path } of results) await rm(join(ROOT, path), { force: true });
  const { stdout } = await promisify(execFile)(process.execPath, [join(ROOT, 'scripts', 'demo.ts')], {
    cwd: ROOT,
    env: { ...process.env, FFJOBS_PYTHON: python() },
  });
  for (const { path, at, magic } of results) {
    assert.ok(stdout.includes(path), stdout);
    await using file = await open(join(ROOT, path));
    const { buffer } = await file.read(Buffer.alloc(magic.length / 2), 0, magic.length / 2, at);
    assert.equal(buffer.toString('hex'), magic, path);
  }
});
