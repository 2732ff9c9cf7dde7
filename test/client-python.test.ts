// The Python client's own tests, against the real service: one result here for each of theirs.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { python, ROOT, startService } from './api/service.ts';

test('the Python client', { timeout: 600_000 }, async (t) => {
  await using service = await startService();
  const child = spawn(python(), ['-m', 'pytest', '-p', 'no:cacheprovider', '-vv', '--no-header', '-rN', '--tb=short'], {
    cwd: join(ROOT, 'clients', 'python'),
    env: { ...process.env, FFJOBS_TEST_SERVER: service.baseUrl, FFJOBS_TEST_FOLDER: service.dir, PYTHONDONTWRITEBYTECODE: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (said += data));
  const [code] = (await once(child, 'close')) as [number | null];
  const results = [...said.matchAll(/^\S+::(\S+(?: \S+)*?) (PASSED|FAILED|ERROR)/gm)];
  for (const [, name, result] of results) await t.test(name, () => assert.equal(result, 'PASSED', said));
  assert.equal(code, 0, said);
  assert.ok(results.length > 20, said);
});
