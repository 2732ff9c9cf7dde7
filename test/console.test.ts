// The built console over HTTP: what is sent with which headers, and that nothing of the API is shadowed.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { type FastifyInstance, fastify } from 'fastify';
import { consoleDigest, consoleIsBuilt, prepareConsole } from '../src/cli/local/console.ts';
import { openConsole } from '../src/rpc/console.ts';
import { en } from '../web/src/words/en.ts';
import { zh } from '../web/src/words/zh.ts';
import { ROOT, startService } from './api/service.ts';

const SCRIPT = 'console.log("console");'.repeat(100);

test('both languages have words for the same, and for every outcome of the engine that the pages name', () => {
  for (const part of ['reasons', 'processorNames', 'groupNames'] as const)
    assert.deepEqual(Object.keys(zh[part]).sort(), Object.keys(en[part]).sort(), part);
  const page = readFileSync(join(ROOT, 'docs', '05-facefusion-engine.md'), 'utf8');
  const [outcomes = ''] = /^## Outcomes$.*?(?=^## )/ms.exec(page) ?? [];
  const failures = [...outcomes.matchAll(/`([A-Z]+(?:_[A-Z]+)+)`/g)]
    .map(([, reason]) => reason!)
    .filter((reason) => reason !== 'CONTENT_REFUSED');
  assert.ok(failures.length > 15, outcomes);
  for (const reason of failures) assert.ok(reason in en.reasons, reason);
  for (const { reasons } of [en, zh]) for (const [reason, { next }] of Object.entries(reasons)) assert.ok(next.length > 0, reason);
});

describe('a built console', () => {
  let dir: string;
  let app: FastifyInstance;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'console-'));
    await mkdir(join(dir, 'assets'));
    await writeFile(join(dir, 'index.html'), '<!doctype html><base href="./"><script src="./assets/main-abc.js"></script>');
    await writeFile(join(dir, 'sources.sha256'), 'not for others');
    await writeFile(join(dir, 'assets', 'main-abc.js'), SCRIPT);
    await writeFile(join(dir, 'assets', 'main-abc.js.br'), (await import('node:zlib')).brotliCompressSync(SCRIPT));
    await writeFile(join(dir, 'assets', 'notes.txt'), 'not a file of a page');
    app = fastify();
    (await openConsole({ dir, mediaOrigins: ['https://results.example.com'] }))!.register(app);
  });
  after(async () => {
    await app.close();
    await rm(dir, { recursive: true, force: true });
  });

  for (const [url, base] of [
    ['/', './'],
    ['/jobs', './'],
    ['/new', './'],
    ['/fleet', './'],
    ['/jobs/job_20250405_abc', '../'],
  ] as const) {
    test(`${url} is the page, with its links relative to ${base}`, async () => {
      const answer = await app.inject(url);
      assert.equal(answer.statusCode, 200);
      assert.match(answer.body, new RegExp(`<base href="${base}">`));
      assert.equal(answer.headers['cache-control'], 'no-cache');
      const policy = String(answer.headers['content-security-policy']);
      assert.match(policy, /default-src 'none'/);
      assert.match(policy, /script-src 'self'(;|$)/);
      assert.match(policy, /img-src 'self' blob: https:\/\/results\.example\.com data:/);
      assert.doesNotMatch(policy, /unsafe/);
      const again = await app.inject({ url, headers: { 'if-none-match': String(answer.headers.etag) } });
      assert.deepEqual([again.statusCode, again.body], [304, '']);
    });
  }

  test('an asset is sent in the smallest form that is taken, to be kept for good', async () => {
    const url = '/assets/main-abc.js';
    const small = await app.inject({ url, headers: { 'accept-encoding': 'gzip, br' } });
    assert.equal(small.headers['content-encoding'], 'br');
    assert.equal(brotliDecompressSync(small.rawPayload).toString(), SCRIPT);
    assert.match(String(small.headers['cache-control']), /max-age=31536000, immutable/);
    assert.match(String(small.headers.vary), /Accept-Encoding/);
    for (const accepted of ['br;q=0', 'identity', 'gzip']) {
      const plain = await app.inject({ url, headers: { 'accept-encoding': accepted } });
      assert.deepEqual([plain.headers['content-encoding'], plain.body], [undefined, SCRIPT], accepted);
    }
    const head = await app.inject({ url, method: 'HEAD' });
    assert.deepEqual([head.headers['content-length'], head.body], [String(SCRIPT.length), '']);
  });

  for (const url of [
    '/assets/notes.txt',
    '/assets/main-abc.js.br',
    '/assets/..%2findex.html',
    '/assets/..%2f..%2f..%2fetc%2fpasswd',
    '/assets/%00',
    '/sources.sha256',
    '/index.html',
    '/jobs/a/b',
    '/anything',
  ]) {
    test(`${url} is not there`, async () => assert.equal((await app.inject(url)).statusCode, 404));
  }
});

test('a folder without a page is no console', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'console-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  assert.equal(await openConsole({ dir, mediaOrigins: [] }), undefined);
});

test('with the console off the address leads to the documentation, and its paths are not there', async () => {
  await using service = await startService({ CONSOLE: 'off' });
  const root = await fetch(service.baseUrl, { redirect: 'manual' });
  assert.deepEqual([root.status, root.headers.get('location')], [302, 'docs']);
  for (const path of ['/jobs', '/fleet', '/assets/x.js']) assert.equal((await fetch(service.baseUrl + path)).status, 404, path);
});

describe('building it', () => {
  const made = async (files: Record<string, string>) => {
    const root = await mkdtemp(join(tmpdir(), 'console-'));
    for (const [name, text] of Object.entries(files)) {
      await mkdir(join(root, name, '..'), { recursive: true });
      await writeFile(join(root, name), text);
    }
    return root;
  };

  test('is due when a source differs from what was built, and only then', async (t) => {
    const root = await made({ 'package.json': '{}', 'web/index.html': 'page', 'web/src/main.tsx': 'one', 'web/.dist-x/dist/a.js': 'made' });
    t.after(() => rm(root, { recursive: true, force: true }));
    assert.equal(consoleIsBuilt(root), false);
    await mkdir(join(root, 'web', 'dist'));
    await writeFile(join(root, 'web', 'dist', 'sources.sha256'), consoleDigest(root));
    assert.equal(consoleIsBuilt(root), true);
    await writeFile(join(root, 'web', 'dist', 'more.js'), 'made');
    assert.equal(consoleIsBuilt(root), true);
    await writeFile(join(root, 'web', 'src', 'main.tsx'), 'two');
    assert.equal(consoleIsBuilt(root), false);
  });

  test('is never due in a package, which has no sources', async (t) => {
    const root = await made({ 'package.json': '{}', 'web/dist/index.html': 'page' });
    t.after(() => rm(root, { recursive: true, force: true }));
    assert.equal(consoleIsBuilt(root), true);
  });

  test('says what to do where Vite is not installed, and stops nothing', async (t) => {
    const root = await made({ 'package.json': '{}', 'web/index.html': 'page' });
    t.after(() => rm(root, { recursive: true, force: true }));
    const said: string[] = [];
    await prepareConsole({ root, report: (phase) => said.push(phase), warn: (problem) => said.push(problem) });
    assert.match(said.join('\n'), /^the web console is not built, and Vite is not installed: run `npm ci`/);
  });
});
