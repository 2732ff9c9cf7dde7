// The examples of uploads in docs/04-media-in.md, run as they are written, but for the address.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { Json } from './api/clients.ts';
import { ROOT, startService } from './api/service.ts';

const run = promisify(execFile);

test('the examples of the documentation upload by form, by tus and over gRPC', { timeout: 240_000 }, async (t) => {
  await using service = await startService();
  const page = await readFile(join(ROOT, 'docs', '04-media-in.md'), 'utf8');
  const section = page.slice(page.indexOf('## Uploads'), page.indexOf('## The examination'));
  const example = (language: string) => {
    const [, code = ''] = new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``).exec(section) ?? [];
    assert.ok(code.includes('http://127.0.0.1:8000'), language);
    return code.replaceAll('http://127.0.0.1:8000', service.baseUrl).replaceAll("'./gen/", `'${ROOT}/gen/`);
  };
  // Below the repository, so that packages are found.
  const folder = await mkdtemp(join(ROOT, '.cache', 'examples-'));
  t.after(() => rm(folder, { recursive: true }));
  const script = async (name: string, code: string) => {
    await writeFile(join(folder, name), code);
    return (await run(process.execPath, [join(folder, name)], { cwd: ROOT })).stdout.trim();
  };
  const form = JSON.parse((await run('bash', ['-c', example('sh')], { cwd: ROOT })).stdout) as { uploads: Json[] };
  const uris = [form.uploads[0]!.uri as string, await script('tus.mjs', example('js')), await script('grpc.mts', example('ts'))];
  const digest = createHash('sha256')
    .update(await readFile(join(ROOT, 'samples', 'eileen_collins.jpg')))
    .digest('hex');
  for (const uri of uris) {
    const facts = await fetch(new URL(`/api/v1/uploads/${uri.slice('upload://'.length)}`, service.baseUrl));
    assert.equal(((await facts.json()) as Json).sha256, digest, uri);
  }
  assert.equal(new Set(uris).size, 3);
});
