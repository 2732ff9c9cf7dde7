// A change of replica, in the browser: two replicas of the API over one Redis, behind a switch that is the page's one address. Always true: what a page was
// told is told once, in order and without a gap, whichever replica it hears it from, and whatever happened while it heard of none.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import type { Page, Request } from 'playwright-core';
import { WatchJobsRequestSchema, WatchRequestSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { startRedis } from '../scripts/redis-server.ts';
import { type Service, startService, untilWarm } from './api/service.ts';
import { holds, reached, submit, webTestOf } from './web/browser.ts';

/** One address for replicas, of which one is behind it at a time, or none. */
class Switch implements AsyncDisposable {
  readonly #sockets = new Set<Socket>();
  #to: number | undefined;
  readonly #server = createServer((near) => {
    if (this.#to === undefined) return void near.destroy();
    const far = connect(this.#to, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(one);
      one
        .on('error', () => {})
        .on('close', () => {
          this.#sockets.delete(one);
          other.destroy();
        });
      one.pipe(other);
    }
  });

  async open(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Cuts every connection, as a machine that is lost does. New ones go to `replica`; undefined: nowhere. */
  to(replica: Service | undefined): void {
    this.#to = replica && Number(new URL(replica.baseUrl).port);
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.to(undefined);
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

interface Replicas extends Service {
  readonly one: Service;
  readonly two: Service;
  readonly way: Switch;
}

async function startReplicas(): Promise<Replicas> {
  // What has begun is ended where the rest does not begin.
  await using stack = new AsyncDisposableStack();
  const { url } = stack.use(await startRedis());
  const fleet = { STORE: url, FLEET: 'replicas', DRAIN_TIMEOUT: '0s' };
  const worker = stack.use(await startService({ ...fleet, ROLE: 'worker', NODE: 'gpu-1' }));
  const api = (name: string) => startService({ ...fleet, ROLE: 'api', NODE: name, DATA_DIR: worker.dir });
  const one = stack.use(await api('api-1'));
  const two = stack.use(await api('api-2'));
  for (const { baseUrl } of [one, two]) await untilWarm(baseUrl);
  const way = stack.use(new Switch());
  const baseUrl = await way.open();
  way.to(one);
  const { app, dir, inputDir, config, logs } = worker;
  const restart = () => worker.restart();
  const all = stack.move();
  return { app, dir, inputDir, config, logs, restart, baseUrl, one, two, way, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

const PIECES = 24;
const JOB = { parameters: { steps: PIECES, seconds_per_step: 0.02, hold_at: 8, log_lines: 3, log_steps: true } };

/** What a stream's first message says, after its five bytes of frame. */
const message = (request: Request) => request.postDataBuffer()!.subarray(5);
const watches = (page: Page) => {
  const after: number[] = [];
  page.on('request', (request) => {
    if (request.url().endsWith('/Watch')) after.push(fromBinary(WatchRequestSchema, message(request)).afterSequence ?? -1);
  });
  return after;
};
const tokensOf = (page: Page) => {
  const tokens: string[] = [];
  page.on('request', (request) => {
    if (request.url().endsWith('/WatchJobs')) tokens.push(fromBinary(WatchJobsRequestSchema, message(request)).watchToken);
  });
  return tokens;
};
/** The list is told of changes from where it was: more than `before` streams were asked for, each with a token. */
const assertTokens = (tokens: readonly string[], before: number) =>
  assert.ok(tokens.length > before && tokens.every((token) => token !== ''), `more than ${before}: ${JSON.stringify(tokens)}`);
const lines = (page: Page) => page.locator('.log li span:last-child').allTextContents();

/** Every line of the job's log once, and every event once, in order. */
async function assertWhole(page: Page): Promise<void> {
  await page.locator('.chip.succeeded').waitFor();
  const said = [...Array.from({ length: 3 }, (_, i) => `line ${i}`), ...Array.from({ length: PIECES }, (_, i) => `piece ${i}`)];
  await holds(page, `[...document.querySelectorAll('.log li')].some((line) => line.textContent.endsWith('Succeeded, attempt 1'))`);
  assert.deepEqual(
    (await lines(page)).filter((line) => /^(line|piece) \d+$/.test(line)),
    said,
  );
  await page.getByRole('tab', { name: 'Events as JSON' }).click();
  const events = (await page.locator('.tabpanel .code').textContent())!.trim().split('\n');
  const sequences = events.map((event) => (JSON.parse(event) as { sequence: number }).sequence);
  assert.deepEqual(
    sequences,
    Array.from({ length: sequences.length }, (_, i) => i + 1),
    'every event once, in order, without a gap',
  );
  await page.getByRole('tab', { name: 'Log' }).click();
}

webTestOf(startReplicas, 'a change of replica loses nothing and tells nothing twice', {}, async ({ service, open }) => {
  const { one, two, way } = service;
  const hold = join(service.dir, 'go');
  const id = await submit(service, { parameters: { ...JOB.parameters, hold_file: hold }, labels: { name: 'first.png' } });
  const page = await open('/fleet');
  const after = watches(page);
  await page.goto(`${service.baseUrl}/jobs/${id}`);
  await page.locator('.log li', { hasText: 'piece 8' }).waitFor();
  assert.deepEqual(after, [0], 'the first stream is read from the beginning');
  // Listened to before the list is there: its stream may be asked for in the moment of the loss, and then the other replica is the first that hears of it.
  const list = await open('/fleet');
  const tokens = tokensOf(list);
  await list.goto(`${service.baseUrl}/jobs`);
  await list.locator('tr', { hasText: 'first.png' }).locator('.chip.running').waitFor();

  // The replica is lost while the job runs; the other one goes on where it was.
  const known = (await lines(page)).length;
  way.to(two);
  await one.app.close();
  await holds(page, `document.querySelector('.top .live').textContent === 'Live'`);
  while (after.length < 2) await page.evaluate('new Promise(requestAnimationFrame)');
  assert.ok(after[1]! >= known, `resumed after ${after[1]}, and ${known} lines were known`);
  assert.equal(await page.locator('.chip.running').count(), 1, 'it still runs');
  await writeFile(hold, '');
  await assertWhole(page);
  await list.locator('tr', { hasText: 'first.png' }).locator('.chip.succeeded').waitFor();
  assertTokens(tokens, 0);

  // No replica is there for a while, in which one job ends and another one comes; then the first replica is back.
  const again = join(service.dir, 'go again');
  const second = await submit(service, { parameters: { ...JOB.parameters, hold_file: again }, labels: { name: 'second.png' } });
  await page.goto(`${service.baseUrl}/jobs/${second}`);
  await page.locator('.log li', { hasText: 'piece 8' }).waitFor();
  await list.locator('.fresh button').click();
  await list.locator('tr', { hasText: 'second.png' }).locator('.chip.running').waitFor();
  after.length = 0;
  const asked = tokens.length;
  way.to(undefined);
  for (const one of [page, list]) await one.locator('.note.warn', { hasText: 'Not connected since' }).waitFor();
  await writeFile(again, '');
  await reached(two, second, 'succeeded');
  const third = await submit(two, { labels: { name: 'third.png' } });
  await reached(two, third, 'succeeded');
  await one.restart();
  await untilWarm(one.baseUrl);
  way.to(one);
  const tryNow = page.getByRole('button', { name: 'Try now' });
  const pressed = tryNow.click();
  pressed.catch(() => {});
  // Or it has tried by itself in the same moment, and the button has gone.
  await Promise.race([pressed, tryNow.waitFor({ state: 'detached' })]);
  await assertWhole(page);
  assert.ok(
    after.some((sequence) => sequence > 0),
    `${after}: resumed, not begun anew`,
  );
  await list.locator('tr', { hasText: 'second.png' }).locator('.chip.succeeded').waitFor();
  assertTokens(tokens, asked);
  await list.getByText('1 newer job. Show it').click();
  await list.locator('tr', { hasText: 'third.png' }).locator('.chip.succeeded').waitFor();
  assert.deepEqual(await list.locator('tbody .name').allTextContents(), ['third.png', 'second.png', 'first.png']);
  for (const one of [page, list]) assert.equal(await one.locator('.note.warn').count(), 0);
});
