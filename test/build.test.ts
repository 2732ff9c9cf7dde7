import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { build } from '../scripts/build.ts';
import { ROOT } from './api/service.ts';

test('the built package runs from below node_modules and has what the service reads', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-build-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const modules = join(dir, 'node_modules');
  await mkdir(modules);
  const dist = join(modules, 'facefusion-jobs');
  build(dist);
  // Its dependencies, where an installation has them.
  await symlink(join(ROOT, 'node_modules'), join(dist, 'node_modules'));
  const run = (...args: string[]) => promisify(execFile)(process.execPath, [join(dist, 'bin', 'ffjobs.mjs'), ...args]);
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  assert.equal((await run('--version')).stdout.trim(), version);
  assert.match((await run('--help')).stdout, /submit/);
  await writeFile(join(dir, 'caller.mjs'), "import { connectJobs } from 'facefusion-jobs/client'; console.log(typeof connectJobs);");
  assert.equal((await promisify(execFile)(process.execPath, [join(dir, 'caller.mjs')])).stdout.trim(), 'function');
  const { openSqliteJobStore } = (await import(
    join(dist, 'src', 'store', 'jobs-sqlite.js')
  )) as typeof import('../src/store/jobs-sqlite.ts');
  await using store = await openSqliteJobStore({ path: join(dir, 'jobs.db') });
  await store.ping();
  const page = await readFile(join(dist, 'web', 'dist', 'index.html'), 'utf8');
  const [, script] = /src="\.\/(assets\/[\w.-]+\.js)"/.exec(page) ?? [];
  for (const form of ['', '.br', '.gz']) await access(join(dist, 'web', 'dist', `${script}${form}`));
});

test('the pages name the oldest Node that the client’s packages run on', () => {
  const packages = ['@connectrpc/connect-node', '@connectrpc/connect', '@bufbuild/protobuf', 'undici', 'standardwebhooks'];
  const oldest = packages.map((name) => {
    const { engines } = JSON.parse(readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8')) as {
      engines?: { node?: string };
    };
    const [, major = '0', minor = '0'] = /^>=(\d+)(?:\.(\d+))?/.exec(engines?.node ?? '') ?? [];
    return Number(major) * 1000 + Number(minor);
  });
  for (const page of ['README.md', 'README.zh-CN.md', 'docs/19-clients.md']) {
    const named = [...readFileSync(join(ROOT, page), 'utf8').matchAll(/Node ?（?(\d+)\.(\d+)/g)].map(
      ([, major, minor]) => Number(major) * 1000 + Number(minor),
    );
    assert.deepEqual(named, [Math.max(...oldest)], page);
  }
});

test('what npm starts is the main module of its process and has its own options of Node, on a Node that is new enough too', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-main-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const script = join(folder, 'script.ts');
  await writeFile(
    script,
    'if (import.meta.main) {\n  const words: string[] = process.argv.slice(2);\n  console.log([...process.execArgv, ...words].join());\n  process.exit(3);\n}\n',
  );
  const run = promisify(execFile)(process.execPath, [
    join(ROOT, 'scripts', 'node24.mjs'),
    '--use-largepages=silent',
    script,
    'one',
    '--two',
  ]);
  await assert.rejects(run, (ended: Error & { code: number; stdout: string }) => {
    assert.deepEqual([ended.code, ended.stdout], [3, '--use-largepages=silent,one,--two\n']);
    return true;
  });
});
