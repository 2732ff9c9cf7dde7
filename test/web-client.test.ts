// `facefusion-jobs/client` in a real page: bundled by Vite as anybody would bundle it, on an origin of its own, in Chromium, against the real service.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { build } from 'vite';
import { ROOT } from './api/service.ts';
import { webTest } from './web/browser.ts';

let folder: string;
let origin: string;
let closeServer: () => void;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ffjobs-page-'));
  await mkdir(join(folder, 'node_modules'));
  await symlink(ROOT, join(folder, 'node_modules', 'facefusion-jobs'));
  await writeFile(
    join(folder, 'index.html'),
    '<!doctype html><html lang="en"><title>page</title><script type="module" src="./main.ts"></script></html>',
  );
  await writeFile(join(folder, 'main.ts'), "import * as client from 'facefusion-jobs/client';\nObject.assign(globalThis, { client });\n");
  await build({ root: folder, configFile: false, logLevel: 'warn', build: { target: 'chrome123', reportCompressedSize: false } });
  const server = createServer((request, response) => {
    const path = request.url === '/' ? 'index.html' : request.url!.slice(1);
    readFile(join(folder, 'dist', path)).then(
      (body) => response.writeHead(200, { 'content-type': path.endsWith('.js') ? 'text/javascript' : 'text/html' }).end(body),
      () => response.writeHead(path === 'favicon.ico' ? 204 : 404).end(),
    );
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  closeServer = () => {
    server.closeAllConnections();
    server.close();
  };
});
after(async () => {
  closeServer();
  await rm(folder, { recursive: true });
});

const settings = () => ({ CORS_ORIGINS: origin, DRAIN_TIMEOUT: '0s' });

webTest('a page submits, uploads, waits and fetches with the client package', settings, async ({ service, open }) => {
  const page = await open('/jobs');
  await page.goto(origin);
  const done = (await page.evaluate(`(async () => {
    const { connectJobs, JobStatus, JobNotSucceeded, isTerminal, statusIn } = client;
    const jobs = connectJobs('${service.baseUrl}/');
    // More than one piece, and a picture by its first bytes.
    const bytes = new Uint8Array(9 * 1024 * 1024);
    bytes.set(Uint8Array.from('89504e470d0a1a0a0000000d494844520000000100000001'.match(/../g), (two) => parseInt(two, 16)));
    const told = [];
    const upload = await jobs.upload(new File([bytes], 'big.png'), { onProgress: (sent, total) => told.push([sent, total]) });
    const seen = [];
    const request = { sourceImages: ['face.jpg'], target: { case: 'targetImage', value: upload.uri }, parameters: { steps: 3, output: 'the picture' } };
    const job = await jobs.submitAndWait(request, { onEvent: (event) => seen.push(event.sequence) });
    const { response, facts } = await jobs.result(job.jobId);
    const failure = await jobs.submitAndWait({ ...request, parameters: { fail: 'NO_SOURCE_FACE', message: 'no face' } }).catch((error) => error);
    const invalid = await jobs.submit({ ...request, target: { case: 'targetImage', value: '../x.png' } }).catch((error) => error);
    const batch = await jobs.submitBatch({ jobs: [{ job: request }, { job: request }] });
    let last;
    for await (const change of jobs.watchBatch(batch.batchId)) last = change.batch;
    return {
      told: told.at(-1), sha256: upload.sha256, seen, text: await response.text(), status: JobStatus[job.status], bytes: String(facts.bytes),
      failure: [failure instanceof JobNotSucceeded, failure.reason], invalid: invalid.code, batch: [last.succeeded, last.finishedAt !== undefined],
    };
  })()`)) as Record<string, unknown>;
  assert.deepEqual(done.told, [9 * 1024 * 1024, 9 * 1024 * 1024]);
  assert.match(String(done.sha256), /^[0-9a-f]{64}$/);
  assert.deepEqual([done.text, done.status, done.bytes], ['the picture', 'SUCCEEDED', '11']);
  const seen = done.seen as number[];
  assert.deepEqual(
    seen,
    seen.toSorted((a, b) => a - b),
  );
  assert.deepEqual([done.failure, done.invalid, done.batch], [[true, 'NO_SOURCE_FACE'], 3, [2, true]]);
});

webTest(
  'a watch in a page goes on over a restart of the service, gapless, and a call is made again when it is back',
  settings,
  async ({ service, open }) => {
    const page = await open('/jobs');
    await page.goto(origin);
    const hold = join(service.dir, 'hold');
    await page.evaluate(`(async () => {
    globalThis.jobs = client.connectJobs('${service.baseUrl}');
    globalThis.sequences = [];
    globalThis.losses = 0;
    const { jobId } = await jobs.submit({
      sourceImages: ['face.jpg'], target: { case: 'targetImage', value: 'target.png' },
      parameters: { steps: 4, hold_file: ${JSON.stringify(hold)}, hold_at: 2 }, maxAttempts: 3,
    });
    globalThis.watching = (async () => {
      for await (const event of jobs.watch(jobId, { after: 0, onLost: () => losses++ })) {
        if (event.sequence > 0) sequences.push(event.sequence);
        if (client.isTerminal(client.statusIn(event))) return client.JobStatus[client.statusIn(event)];
      }
    })();
  })()`);
    while (!((await page.evaluate('sequences.length')) as number)) await new Promise((resolve) => setImmediate(resolve));
    const restarted = service.restart();
    const again = page.evaluate('jobs.system.getCapabilities({}).then(({ serviceVersion }) => serviceVersion)');
    await restarted;
    await writeFile(hold, '');
    assert.equal(await again, '0.0.0-test');
    assert.equal(await page.evaluate('watching'), 'SUCCEEDED');
    assert.ok(((await page.evaluate('losses')) as number) > 0, 'the connection was lost');
    const sequences = (await page.evaluate('sequences')) as number[];
    assert.deepEqual(
      sequences,
      sequences.map((_, index) => index + 1),
    );
  },
);
