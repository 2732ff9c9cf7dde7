// Watching in the browser: what a page shows as jobs go on, end, are cancelled, and as the service goes away and comes back.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import type { Page } from 'playwright-core';
import { WatchRequestSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { ROOT } from './api/service.ts';
import { type Console, holds, reached, submit, webTest } from './web/browser.ts';

const text = (value: string) => `text=${value}`;

webTest('a job page lives through a restart of the service and tells the whole run', { DRAIN_TIMEOUT: '0s' }, async ({ service, open }) => {
  const hold = join(service.dir, 'go');
  const id = await submit(service, { parameters: { steps: 4, hold_at: 2, hold_file: hold, log_lines: 3 }, labels: { project: 'liftoff' } });
  const page = await open(`/jobs/${id}`);
  await page.locator('.chip.running').waitFor();
  await page.locator('.top .live:not(.off)').waitFor();
  const before = service.baseUrl;
  await service.app.close();
  await page.locator('.note.warn', { hasText: 'Not connected since' }).waitFor();
  // What is known stays on the page while the service is away.
  assert.equal(await page.locator('h1').textContent(), 'target.png');
  await service.restart();
  assert.equal(service.baseUrl, before);
  await page.locator('.note.warn').waitFor({ state: 'detached' });
  await writeFile(hold, '');
  await page.locator('.chip.succeeded').waitFor();
  const lines = await page.locator('.log li span:last-child').allTextContents();
  for (const line of ['line 0', 'line 1', 'line 2']) assert.ok(lines.includes(line), `${line} is missing of ${lines.join(' | ')}`);
  assert.equal(lines.filter((line) => line.startsWith('Succeeded')).length, 1);
  // A second look, by somebody who was not there, shows the same.
  await page.reload();
  await page.locator('.chip.succeeded').waitFor();
  await holds(page, `document.querySelectorAll('.log li').length === ${lines.length}`);
});

/** What opens streams of one job's events, each with the sequence that it goes on after. */
function resumesOf(page: Page): number[] {
  const after: number[] = [];
  page.on('request', (request) => {
    // Five bytes of frame come before the message.
    if (request.url().endsWith('/Watch'))
      after.push(fromBinary(WatchRequestSchema, request.postDataBuffer()!.subarray(5)).afterSequence ?? -1);
  });
  return after;
}

webTest('a page that slept, or was not looked at, goes on where it was', {}, async ({ service, open }) => {
  const hold = join(service.dir, 'go');
  const id = await submit(service, { parameters: { steps: 6, hold_at: 3, hold_file: hold, log_steps: true } });
  const page = await open('/fleet');
  await page.clock.install();
  const after = resumesOf(page);
  await page.goto(`${service.baseUrl}/jobs/${id}`);
  await page.locator('.log li', { hasText: 'piece 3' }).waitFor();
  const watchers = async () => ((await (await fetch(`${service.baseUrl}/api/v1/overview`)).json()) as { watchers: number }).watchers;
  while ((await watchers()) !== 1) await page.evaluate('new Promise(requestAnimationFrame)');

  // The lid is closed for an hour: timers stand still, and connections are dead without a word.
  await page.clock.fastForward('01:00:00');
  while (after.length < 2) await page.evaluate('new Promise(requestAnimationFrame)');
  assert.deepEqual([after[0], after[1]! > 0], [0, true], `${after}: it resumes`);

  // Behind other windows it lets go of its stream, after a while, and takes it up again when it is seen.
  const look = (hidden: boolean) =>
    page.evaluate(`Object.defineProperty(document, 'hidden', { configurable: true, get: () => ${hidden} }),
      void document.dispatchEvent(new Event('visibilitychange'))`);
  await look(true);
  await page.clock.fastForward(20_000);
  while ((await watchers()) !== 0) await page.evaluate('new Promise((resolve) => setTimeout(resolve, 10))');
  await writeFile(hold, '');
  await reached(service, id, 'succeeded');
  assert.equal(await page.locator('.chip.succeeded').count(), 0, 'it is not told');
  const before = after.length;
  await look(false);
  await page.locator('.chip.succeeded').waitFor();
  assert.ok(after.length > before && after.slice(before).every((sequence) => sequence > 0), `${after}: it resumes`);
  await page.locator('.log li', { hasText: 'piece 5' }).waitFor();
  const lines = (await page.locator('.log li span:last-child').allTextContents()).filter((line) => line.startsWith('piece'));
  assert.deepEqual(lines, ['piece 0', 'piece 1', 'piece 2', 'piece 3', 'piece 4', 'piece 5']);
});

webTest('the list follows jobs over one stream, and newer ones wait to be asked for', {}, async ({ service, open }) => {
  const hold = join(service.dir, 'go');
  const held = await submit(service, { parameters: { steps: 2, hold_file: hold }, labels: { name: 'first.png' } });
  const page = await open('/jobs');
  const row = page.locator('tr', { hasText: 'first.png' });
  await row.locator('.chip.running').waitFor();
  for (const name of ['second.png', 'third.png']) await submit(service, { labels: { name } });
  await page.locator(text('2 newer jobs. Show them')).waitFor();
  assert.equal(await page.locator('tbody tr[role=row]').count(), 1, 'rows that nobody asked for');
  await page.locator('.fresh button').click();
  await page.locator('tr', { hasText: 'third.png' }).waitFor();
  assert.deepEqual(await page.locator('tbody .name').allTextContents(), ['third.png', 'second.png', 'first.png']);
  await writeFile(hold, '');
  await reached(service, held, 'succeeded');
  for (const name of ['first.png', 'second.png', 'third.png'])
    await page.locator('tr', { hasText: name }).locator('.chip.succeeded').waitFor();
  const watching = await page.evaluate(() => performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/Watch')).length);
  assert.equal(watching, 0, 'streams of single jobs');
});

webTest('cancelling says what is true at each moment', { CANCEL_GRACE: '2s' }, async ({ service, open }) => {
  const id = await submit(service, { parameters: { hang_at: 0 } });
  await reached(service, id, 'processing');
  const page = await open(`/jobs/${id}`);
  await page.getByRole('button', { name: 'Cancel job' }).click();
  await page.locator('.chip.stopping').waitFor();
  const told = await page.locator('.verdict').textContent();
  assert.match(told ?? '', /Stopping\. The process is still running.*stopped by force/);
  assert.equal(await page.locator('.chip.canceled').count(), 0);
  await page.locator('.chip.canceled').waitFor();
  await page.locator(text('Canceled at')).waitFor();
  assert.equal(await page.getByRole('button', { name: 'Cancel job' }).count(), 0);
});

webTest('an end is told with its reason and what to do next', {}, async ({ service, open }) => {
  const failed = await submit(service, { parameters: { fail: 'NO_FACE_IN_TARGET', message: 'no face above 0.5' } });
  const refused = await submit(service, { parameters: { refuse: 'not this' }, labels: { name: 'secret.png' } });
  await reached(service, failed, 'failed');
  await reached(service, refused, 'refused');
  const page = await open(`/jobs/${failed}`);
  await page.locator('.verdict h2', { hasText: 'Failed: No face found in the target' }).waitFor();
  assert.match(
    (await page.locator('.verdict').textContent()) ?? '',
    /No face above 0\.5\..*The same request would fail again.*NO_FACE_IN_TARGET/,
  );
  // What can be done is done by a press: the form, with the job's request and the option changed. One that this engine lacks is not proposed.
  assert.equal(await page.getByText('face_detector_angles').count(), 0);
  await page.getByRole('button', { name: /lower limit of the detector/ }).click();
  await page.locator('h1', { hasText: 'New job' }).waitFor();
  await holds(page, `document.activeElement.id === 'f-face_detector_score'`);
  assert.equal(await page.getByLabel('Score, number').inputValue(), '0.35');
  assert.equal(await page.locator('.target b').textContent(), 'target.png');
  await page.goto(`${service.baseUrl}/jobs/${refused}`);
  await page.locator('.verdict h2', { hasText: 'Refused by the content check' }).waitFor();
  await page.locator(text('No preview of refused content')).waitFor();
  assert.equal(await page.locator('.stage img, .inputs img').count(), 0, 'pictures of refused content');
  // With the name that its caller gave, and no picture, in the list too.
  await page.getByRole('link', { name: 'Jobs' }).first().click();
  await page
    .locator('tr', { hasText: shortOf(refused) })
    .locator('.chip.refused')
    .waitFor();
});

webTest('a job that found the result of a like one shows no run of its own', { CACHE_TTL: '1h' }, async ({ service, open }) => {
  for (const name of ['first.png', 'second.png']) await reached(service, await submit(service, { labels: { name } }), 'succeeded');
  const page = await open('/jobs');
  await page.locator('tr', { hasText: 'second.png' }).getByText('from cache').waitFor();
  await page.getByRole('link', { name: 'second.png' }).click();
  await page.locator('.stats', { hasText: /Result\s*of a like job\s*nothing had to run/ }).waitFor();
  assert.equal(await page.getByRole('list', { name: 'Steps' }).count(), 0, 'steps that nobody took');
  assert.equal(await page.locator('.stats', { hasText: 'Attempt' }).count(), 0);
  await page.goBack();
  await page.getByRole('link', { name: 'first.png' }).click();
  await page.locator('.stats', { hasText: /Attempt\s*1/ }).waitFor();
  assert.equal(await page.getByRole('list', { name: 'Steps' }).count(), 1);
});

webTest('a job whose target was uploaded elsewhere is called by the beginning of its id', {}, async ({ service, open }) => {
  const body = new FormData();
  body.set('file', new Blob([await readFile(join(ROOT, 'samples', 'grace_hopper.jpg'))]), 'grace.jpg');
  const answer = await fetch(`${service.baseUrl}/api/v1/uploads`, { method: 'POST', body });
  const [{ uri }] = ((await answer.json()) as { uploads: [{ uri: string }] }).uploads;
  const name = `Upload ${uri.slice('upload://'.length).slice(0, 8)}`;
  await reached(service, await submit(service, { target_image: uri }), 'succeeded');
  const page = await open('/jobs');
  await page.getByRole('link', { name, exact: true }).click();
  await page.locator('h1', { hasText: name }).waitFor();
  assert.equal(await page.locator('.inputs b').last().textContent(), name);
  // It becomes no name of the job that is made of it.
  await page.getByRole('button', { name: 'Submit again' }).click();
  await page.locator('.target', { hasText: name }).waitFor();
  await page.locator('.ready', { hasText: 'Ready to submit' }).waitFor();
  assert.doesNotMatch((await page.locator('.side .code').textContent())!, /labels/);
});

webTest('previews come live while a job runs, and go when there is a result', {}, async ({ service, open }) => {
  const hold = join(service.dir, 'go');
  const job = { previews: true, parameters: { preview: true, steps: 4, seconds_per_step: 1, hold_file: hold }, target_video: 'target.mp4' };
  const id = await submit(service, { ...job, target_image: undefined });
  const page = await open(`/jobs/${id}`);
  await page.locator(text('No preview yet')).waitFor();
  await writeFile(hold, '');
  await page.locator('.stage .cap', { hasText: 'Live preview, frame' }).waitFor();
  await page.locator('.stats', { hasText: 'of 4' }).waitFor();
  await page.locator('.chip.succeeded').waitFor();
  // The state is told before the URL of the result is asked for.
  await page.locator('.stage .cap', { hasText: 'preview' }).waitFor({ state: 'detached' });
});

webTest('a job that is not there, a page that is not there, a hidden key', {}, async ({ service, open }) => {
  const page = await open('/jobs/job_20250405_aaaaaaaaaaaa');
  await page.locator('h1', { hasText: 'There is no such job' }).waitFor();
  await page.getByRole('link', { name: 'To the list of jobs' }).click();
  await page.locator(text('No jobs yet')).waitFor();
  assert.equal(page.url(), `${service.baseUrl}/jobs`);
});

webTest('keys move, open, search and begin a new job', {}, async ({ service, open }) => {
  const ids: string[] = [];
  for (const name of ['a.png', 'b.png', 'c.png']) ids.push(await submit(service, { labels: { name } }));
  await reached(service, ids[2]!, 'succeeded');
  const page = await open('/jobs');
  await page.locator('tbody .name').nth(2).waitFor();
  // Faster than anything is drawn.
  await page.evaluate(`for (const key of 'jj') dispatchEvent(new KeyboardEvent('keydown', { key }))`);
  await holds(page, `document.activeElement?.textContent === 'b.png'`);
  await page.keyboard.press('j');
  await page.keyboard.press('k');
  await holds(page, `document.activeElement?.textContent === 'b.png'`);
  await page.keyboard.press('Enter');
  await page.locator('h1', { hasText: 'b.png' }).waitFor();
  await page.goBack();
  await page.locator('tbody .name').nth(2).waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type('c.p');
  await holds(page, `document.querySelectorAll('tbody .name').length === 1`);
  await page.locator('h1').click();
  await page.keyboard.press('n');
  await page.locator('h1', { hasText: 'New job' }).waitFor();
});

webTest('a key is asked for, kept for this tab alone and sent in a header', {}, async (console) => await keys(console));

/** The service knows no keys yet, so what stands before it asks for one. */
async function keys({ service, browser }: Console): Promise<void> {
  const context = await browser.newContext({ locale: 'en-GB' });
  const urls: string[] = [];
  await context.route('**/facefusion.jobs.v1.*/**', async (route) => {
    urls.push(route.request().url());
    if (route.request().headers().authorization === 'Bearer right-key') return await route.continue();
    await route.fulfill({
      status: 401,
      contentType: 'application/json',
      body: JSON.stringify({ code: 'unauthenticated', message: 'give a key' }),
    });
  });
  const page = await context.newPage();
  await page.goto(`${service.baseUrl}/jobs`);
  const field = page.getByLabel('Key', { exact: true });
  await field.fill('wrong-key');
  await page.getByRole('button', { name: 'Use this key' }).click();
  await page.locator(text('does not take this key')).waitFor();
  await field.fill('right-key');
  await page.getByRole('button', { name: 'Use this key' }).click();
  await page.locator(text('No jobs yet')).waitFor();
  await page.reload();
  await page.locator(text('No jobs yet')).waitFor();
  assert.deepEqual(
    urls.filter((url) => url.includes('key')),
    [],
  );
  assert.equal(await page.evaluate(() => Object.values(localStorage).join(' ').includes('right-key')), false);
  await page.getByRole('button', { name: 'Forget the key' }).click();
  await field.waitFor();
  await context.close();
}

function shortOf(id: string): string {
  return id.split('_')[2]!;
}
