// `npm run drill`, small: what it promises to show, and that it leaves nothing.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { runScript } from './fixtures/script.ts';

test('a region is lost, another takes over, and gives back', { timeout: 560_000 }, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'drill-test-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const { code, stdout, stderr } = await runScript('drill.ts', ['--jobs', '8', '--lag', '1'], { TMPDIR: dir });
  assert.equal(code, 0, stdout + stderr);
  const [, accepted] = /^(\d+) jobs accepted\./m.exec(stdout) ?? [];
  assert.equal(accepted, '10');
  const [, lost] = /lost: (\d+) of 10 jobs/.exec(stdout) ?? [];
  // Nothing that is submitted after the line was cut can have come through.
  assert.equal(lost, '2', stdout);
  assert.match(stdout, /succeeded: 8 of 8 others/);
  assert.match(stdout, /Sent again: 2 lost ones with their keys/);
  assert.match(stdout, /nothing lost, (10|11|12) jobs there, a new one succeeded/);
  assert.deepEqual(await readdir(dir), []);
});

test('what it cannot do is one sentence', async () => {
  const { code, stdout, stderr } = await runScript('drill.ts', ['--lag', '0']);
  assert.deepEqual([code, stdout, stderr], [1, '', "The drill stopped: --lag is '0'; it takes 0.1 to 60 seconds\n"]);
});
