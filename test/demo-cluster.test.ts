// `npm run demo:cluster`, small: what it promises to show, and that it leaves nothing but its results.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { runScript } from './fixtures/script.ts';

test('a fleet loses a node in the middle and no job', { timeout: 560_000 }, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'demo-cluster-test-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const [temporary, output] = [join(dir, 'tmp'), join(dir, 'results')];
  await mkdir(temporary);
  const { code, stdout, stderr } = await runScript('demo-cluster.ts', ['--jobs', '4', '--output', output], { TMPDIR: temporary });
  assert.equal(code, 0, stdout + stderr);
  const [, killed] = /KILLED \(SIGKILL\) while it ran (job_\w+)/.exec(stdout) ?? [];
  assert.match(stdout, new RegExp(`All 4 jobs succeeded, ${killed} in attempt 2`));
  assert.equal((await readdir(output)).length, 4);
  assert.deepEqual(await readdir(temporary), []);
});

test('what it cannot do is one sentence', async () => {
  const { code, stdout, stderr } = await runScript('demo-cluster.ts', ['--jobs', '0'], {});
  assert.deepEqual([code, stdout, stderr], [1, '', "The demo stopped: --jobs is '0'; it takes 1 to 1000\n"]);
});
