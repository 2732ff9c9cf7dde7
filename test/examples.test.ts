// The programs in examples/, each run as its first lines say, against the service with its plain engine.
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { python, ROOT, type Service, startService } from './api/service.ts';
import { missingPrograms } from './docs/programs.ts';
import { follow } from './fixtures/child.ts';
import { FACE, PORTRAITS, TARGET } from './fixtures/media/portraits.ts';
import { launch } from './web/browser.ts';

const run = promisify(execFile);
const EXAMPLES = join(ROOT, 'examples');
const GO = { GOPROXY: 'off', GOFLAGS: '-mod=readonly', GOTOOLCHAIN: 'local' };

test('every example is in the list', () => {
  const list = readFileSync(join(EXAMPLES, 'README.md'), 'utf8');
  const programs = globSync('**/*.{ts,py,html,sh,go}', { cwd: EXAMPLES });
  assert.equal(programs.length, 5);
  for (const program of programs) assert.ok(list.includes(`](${program})`), program);
});

describe('against a service', { timeout: 280_000 }, () => {
  let service: Service;
  let folder: string;
  let env: NodeJS.ProcessEnv;
  const pages = createServer(async (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end(await readFile(join(EXAMPLES, 'page.html')));
  });
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ffjobs-examples-'));
    pages.listen(0, '127.0.0.1');
    await once(pages, 'listening');
    service = await startService({ ENGINE: 'classical', CORS_ORIGINS: originOf(pages) });
    await cp(PORTRAITS, join(service.inputDir, 'demo'), { recursive: true });
    const { FFJOBS_TOKEN: _, ...inherited } = process.env;
    env = { ...inherited, FFJOBS_SERVER: service.baseUrl };
  });
  after(async () => {
    pages.closeAllConnections();
    pages.close();
    await service[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  test('a Node microservice over gRPC', async () => {
    const child = spawn(process.execPath, [join(EXAMPLES, 'microservice.ts')], {
      env: { ...env, PORT: '0' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { said, ended } = follow(child);
    try {
      const [address] = (await said(/\n/)).split('\n');
      const swap = async (target: string, body: Buffer<ArrayBuffer>) =>
        fetch(`${address}/swap?target=${encodeURIComponent(target)}`, { method: 'PUT', body });
      const answer = await swap('demo/grace_hopper.jpg', await readFile(FACE));
      assert.deepEqual([answer.status, answer.headers.get('content-type')], [200, 'image/jpeg']);
      isPicture(Buffer.from(await answer.arrayBuffer()));
      const refused = await swap('demo/nobody.jpg', await readFile(FACE));
      assert.equal(refused.status, 400);
      assert.match(await refused.text(), /no such file/);
    } finally {
      child.kill('SIGTERM');
    }
    assert.equal(await ended, 0);
  });

  test('a Python script', async () => {
    const output = join(folder, 'python.jpg');
    const script = join(EXAMPLES, 'swap.py');
    const options = { env: { ...env, PYTHONPATH: join(ROOT, 'clients', 'python', 'src'), PYTHONDONTWRITEBYTECODE: '1' } };
    const { stdout } = await run(python(), [script, FACE, TARGET, output], options);
    assert.match(stdout, /\d+ %\n/);
    isPicture(await readFile(output));
    const refused = (await run(python(), [script, script, TARGET, output], options).catch((error) => error)) as {
      code: number;
      stderr: string;
    };
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^file: this is no kind of file/);
  });

  test('curl with server-sent events', {
    skip: missingPrograms.length > 0 && `machine: no ${missingPrograms.join(', ')} on the PATH`,
  }, async () => {
    const output = join(folder, 'curl.jpg');
    const { stdout } = await run('bash', [join(EXAMPLES, 'watch.sh'), FACE, TARGET, output], { env });
    assert.match(stdout, /^\d+ {2}\d+ % {2}\w+$/m);
    isPicture(await readFile(output));
    const refused = (await run('bash', [join(EXAMPLES, 'watch.sh'), FACE, FACE.replace('eileen', 'nobody'), output], { env }).catch(
      (error) => error,
    )) as { code: number };
    assert.notEqual(refused.code, 0);
  });

  test('a page in a browser', async (t) => {
    const { browser, skip } = await launch();
    if (!browser) return t.skip(String(skip));
    try {
      const page = await browser.newPage();
      const said: string[] = [];
      page.on('pageerror', (error) => said.push(error.message));
      page.on('console', (message) => message.type() === 'error' && said.push(message.text()));
      await page.goto(`${originOf(pages)}/page.html?service=${encodeURIComponent(service.baseUrl)}`);
      await page.getByLabel('Face').setInputFiles(FACE);
      await page.getByLabel('Picture').setInputFiles(TARGET);
      await page.getByRole('button', { name: 'Swap' }).click();
      const result = page.getByRole('img', { name: 'Result' });
      await result.waitFor({ timeout: 120_000 });
      await page.waitForFunction("document.querySelector('img').naturalWidth > 100");
      assert.equal(await page.locator('output').textContent(), 'succeeded');
      assert.deepEqual(said, []);
    } finally {
      await browser.close();
    }
  });

  test('Go through reflection', async (t) => {
    const cwd = join(EXAMPLES, 'go');
    if (spawnSync('go', ['version'], { env: { ...process.env, ...GO } }).error) return t.skip('machine: no Go on the PATH');
    const listed = spawnSync('go', ['list', '-deps', './...'], { cwd, env: { ...process.env, ...GO }, encoding: 'utf8' });
    if (listed.status !== 0 && /GOPROXY=off|requires go/.test(listed.stderr))
      return t.skip('machine: the example’s Go modules are not here (cd examples/go && go mod download)');
    const program = join(folder, 'go-example');
    await run('go', ['build', '-o', program, '.'], { cwd, env: { ...process.env, ...GO } });
    const { stdout } = await run(program, ['demo/eileen_collins.jpg', 'demo/grace_hopper.jpg'], { env });
    assert.match(stdout, /"status": "JOB_STATUS_SUCCEEDED"/);
    assert.match(stdout, /"url": "http/);
    const refused = (await run(program, ['demo/nobody.jpg', 'demo/grace_hopper.jpg'], { env }).catch((error) => error)) as {
      stderr: string;
    };
    assert.match(refused.stderr, /this did not work: .*no such file/);
  });
});

function originOf(server: ReturnType<typeof createServer>): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function isPicture(bytes: Buffer): void {
  assert.deepEqual([...bytes.subarray(0, 3)], [0xff, 0xd8, 0xff]);
}
