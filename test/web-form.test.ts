// The form by mouse, clipboard and keys: what is pasted and dragged, choices that follow another option, and a job that is made without a mouse.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { reached, submit, webTest } from './web/browser.ts';

webTest('choices follow another option, and one that is none any more is mended by a press', {}, async ({ open }) => {
  const page = await open('/new');
  const boost = page.locator('#f-face_swapper_boost');
  const choices = () => boost.locator('option').allTextContents();
  await boost.waitFor();
  assert.deepEqual(await choices(), ['128x128', '256x256']);
  await page.locator('.opt', { has: boost }).getByText('Choices follow: Model.').waitFor();
  await boost.selectOption('128x128');
  await page.locator('#f-face_swapper_model').selectOption('fine');
  await page.locator('#e-face_swapper_boost', { hasText: '128x128' }).waitFor();
  assert.equal(await boost.getAttribute('aria-invalid'), 'true');
  await page.locator('.problems', { hasText: 'Boost' }).waitFor();
  await page.getByRole('button', { name: 'Use 256x256' }).click();
  await page.locator('#e-face_swapper_boost').waitFor({ state: 'detached' });
  assert.equal(await boost.inputValue(), '256x256');
  assert.deepEqual((await choices()).slice(-2), ['256x256', '512x512']);
});

webTest('the pipeline is ordered by dragging too, and files are pasted', {}, async ({ open }) => {
  const page = await open('/new');
  await page.locator('.opt').first().waitFor();
  await page.getByLabel('Add a processor').selectOption('face_enhancer');
  const order = () => page.locator('.pipe .proc b').allTextContents();
  assert.deepEqual(await order(), ['Swap face', 'Enhance face']);
  await page.locator('.pipe li', { hasText: 'Enhance face' }).dragTo(page.locator('.pipe li', { hasText: 'Swap face' }));
  assert.deepEqual(await order(), ['Enhance face', 'Swap face']);
  await page.locator('.code', { hasText: /"face_enhancer",\s+"face_swapper"/ }).waitFor();
  for (const name of ['face.png', 'scene.png'])
    await page.evaluate(`(() => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob('iVBORw0KGgo='), (c) => c.charCodeAt(0))], '${name}', { type: 'image/png' }));
      document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
    })()`);
  await page.locator('.face', { hasText: 'face.png' }).waitFor();
  await page.locator('.target', { hasText: 'scene.png' }).waitFor();

  // One face more than a job takes is not let fall without a word.
  await page.locator('input[type=file][data-place=source]').setInputFiles(
    Array.from({ length: 16 }, (_, i) => ({
      name: `face-${i}.png`,
      mimeType: 'image/png',
      buffer: Buffer.from('89504e470d0a1a0a', 'hex'),
    })),
  );
  await page.locator('.note.bad', { hasText: 'face-15.png is one too many' }).waitFor();
  assert.equal(await page.locator('.face').count(), 16);
});

webTest('a job is made and watched without a mouse', {}, async ({ service, open }) => {
  const page = await open('/jobs');
  await page.locator('text=No jobs yet').waitFor();
  const focused = () => page.evaluate('document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent.trim()');
  /** Presses Tab until what it wants has the focus. */
  const tabTo = async (wanted: RegExp) => {
    const passed: string[] = [];
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press('Tab');
      const now = String(await focused());
      if (wanted.test(now)) return passed;
      passed.push(now);
    }
    return assert.fail(`${wanted} is not reached: ${passed.join(' | ')}`);
  };
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'Skip to content');
  await page.keyboard.press('n');
  await page.locator('.opt').first().waitFor();
  await tabTo(/^Reference for: Source faces$/);
  await page.keyboard.type('face.jpg');
  await page.keyboard.press('Enter');
  await tabTo(/^Reference for: Target$/);
  await page.keyboard.type('target.png');
  await page.keyboard.press('Enter');
  await page.locator('.ready', { hasText: 'Ready to submit' }).waitFor();
  // What is on the way is in the order in which it is seen: pipeline, options, the check.
  const passed = await tabTo(/^Submit job$/);
  const place = (what: RegExp) => passed.findIndex((one) => what.test(one));
  const places = [/^Add a processor$/, /^Search all \d+ options$/].map(place);
  assert.ok(places[0]! >= 0 && places[0]! < places[1]!, passed.join(' | '));
  await page.keyboard.press('Enter');
  await page.locator('.chip.succeeded').waitFor();
  await tabTo(/^More actions$/);
  await page.keyboard.press('ArrowDown');
  await page.getByRole('menu').waitFor();
  await page.keyboard.press('Escape');
  const tab = await tabTo(/^Log$/);
  assert.ok(!tab.includes('Job as JSON'), 'of tabs one is on the way');
  await page.keyboard.press('ArrowRight');
  await page.locator('.tabpanel .code', { hasText: page.url().split('/').at(-1)! }).waitFor();
  const shown = JSON.parse((await page.locator('.tabpanel .code').textContent())!) as { job_id: string; status: string };
  assert.deepEqual([`${service.baseUrl}/jobs/${shown.job_id}`, shown.status], [page.url(), 'succeeded']);
});

webTest('the list is narrowed by status, time, slot, label and reason', { SLOTS: '2', DRAIN_TIMEOUT: '0s' }, async ({ service, open }) => {
  const named = (name: string, parameters: object = {}, labels: object = {}) =>
    submit(service, { labels: { name, ...labels }, parameters });
  await reached(service, await named('good.png', {}, { client: 'north' }), 'succeeded');
  await reached(service, await named('faceless.png', { fail: 'NO_FACE_IN_TARGET' }), 'failed');
  await reached(service, await named('broken.png', { fail: 'ENGINE_FAILED' }), 'failed');
  await reached(service, await named('held.png', { hold_file: join(service.dir, 'never') }), 'processing');
  const page = await open('/jobs');
  const rows = async (...names: string[]) => {
    await page
      .locator('tbody tr')
      .nth(names.length - 1)
      .waitFor();
    for (const name of names) await page.locator('tbody .name', { hasText: name }).waitFor();
    assert.deepEqual(await page.locator('tbody .name').allTextContents(), names);
  };
  const status = (name: string) => page.getByRole('group', { name: 'Filter by status' }).getByRole('button', { name, exact: true }).click();
  await rows('held.png', 'broken.png', 'faceless.png', 'good.png');
  for (const [name, shown] of [
    ['Running', ['held.png']],
    ['Failed', ['broken.png', 'faceless.png']],
    ['Succeeded', ['good.png']],
  ] as const) {
    await status(name);
    while ((await page.locator('tbody tr').count()) !== shown.length) await page.evaluate('new Promise(requestAnimationFrame)');
    await rows(...shown);
  }
  await status('Canceled');
  await page.locator('text=No job matches').waitFor();
  await page.getByRole('button', { name: 'Clear search and filters' }).click();
  await rows('held.png', 'broken.png', 'faceless.png', 'good.png');
  const search = page.getByRole('searchbox');
  for (const [text, name] of [
    ['client=north', 'good.png'],
    ['reason=NO_FACE_IN_TARGET', 'faceless.png'],
    ['FACELESS', 'faceless.png'],
  ] as const) {
    await search.fill(text);
    while ((await page.locator('tbody tr').count()) !== 1) await page.evaluate('new Promise(requestAnimationFrame)');
    await rows(name);
  }
  await search.fill('');
  await rows('held.png', 'broken.png', 'faceless.png', 'good.png');
  const slot = page.getByLabel('Slot', { exact: true });
  const held = (await page.locator('tbody tr', { hasText: 'held.png' }).locator('.c-slot').getAttribute('title'))!;
  await slot.selectOption(held);
  while ((await page.locator('tbody .name', { hasText: 'held.png' }).count()) !== 1)
    await page.evaluate('new Promise(requestAnimationFrame)');
  for (const title of await page.locator('tbody .c-slot').evaluateAll((cells) => cells.map((cell) => cell.getAttribute('title'))))
    assert.equal(title, held);
  await slot.selectOption('');
  await page.getByLabel('Age', { exact: true }).selectOption('hour');
  await rows('held.png', 'broken.png', 'faceless.png', 'good.png');
  // What is chosen outlives a look at a job.
  await status('Failed');
  await rows('broken.png', 'faceless.png');
  await page.getByRole('link', { name: 'broken.png' }).click();
  await page.locator('.chip.failed').waitFor();
  await page.goBack();
  await rows('broken.png', 'faceless.png');
});
