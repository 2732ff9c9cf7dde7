// What `npm test` leaves behind: nothing, whatever its suites did, and nothing of runs that were killed.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ROOT } from './api/service.ts';
import { follow } from './fixtures/child.ts';

test('a run keeps its temporary files in a folder that goes with it, and sweeps those of dead ones', { timeout: 120_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'ffjobs-runs-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const ended = await promisify(execFile)(process.execPath, ['-p', 'process.pid']);
  const [dead, alive] = [`ffjobs-tests-${ended.stdout.trim()}-abc`, `ffjobs-tests-${process.pid}-abc`] as const;
  for (const name of [dead, alive, 'another']) {
    mkdirSync(join(folder, name, 'inner'), { recursive: true });
    writeFileSync(join(folder, name, 'inner', 'file'), '');
  }
  // This one's own report is not that run's.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { stdout } = await promisify(execFile)(process.execPath, [join(ROOT, 'scripts', 'test.ts'), 'test/store-file'], {
    cwd: ROOT,
    env: { ...env, TMPDIR: folder },
  });
  assert.match(stdout, /[1-9]\d* passed, 0 failed/);
  assert.deepEqual(readdirSync(folder).sort(), ['another', alive].sort());
  assert.ok(existsSync(join(folder, alive, 'inner', 'file')));
});

test('a process that dies before its word, or before it is asked for its end, leaves no wait without an end', {
  timeout: 60_000,
}, async () => {
  const start = (code: string) => spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'ignore'] });
  const silent = follow(start('process.exit(3)'));
  await assert.rejects(silent.said(/ready/), /ended \(3\) and has not said \/ready\//);
  assert.equal(await silent.ended, 3);
  await assert.rejects(silent.said(/ready/), /ended \(3\)/, 'asked for again, too');
  const quick = follow(start("process.stdout.write('re'); setTimeout(() => process.stdout.write('ady'), 5)"));
  assert.equal(await quick.said(/ready/), 'ready');
  assert.equal(await quick.ended, 0);
  assert.equal(await quick.said(/ready/), 'ready');
  const nothing = follow(spawn('/no/such/program', { stdio: ['ignore', 'pipe', 'ignore'] }));
  await assert.rejects(nothing.said(/ready/), /ENOENT/);
  await assert.rejects(nothing.ended, /ENOENT/);
});
