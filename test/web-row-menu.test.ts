// What can be done with a job from its row in the list, and from its page: the menu by mouse and by keys, and each of its actions.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { findings, holds, reached, submit, webTest } from './web/browser.ts';

const row = (page: Page, name: string) => page.locator('tbody tr', { hasText: name });
const menuOf = async (page: Page, name: string) => {
  await row(page, name)
    .getByRole('button', { name: `More actions for: ${name}` })
    .click();
  return page.getByRole('menu', { name: `More actions for: ${name}` });
};
const copied = (page: Page) => page.evaluate('navigator.clipboard.readText()');

webTest('a row’s menu cancels, downloads, submits again, copies and deletes', {}, async ({ service, open }) => {
  const done = await submit(service, { labels: { name: 'done.png', project: 'liftoff' }, parameters: { output: 'the result' } });
  await reached(service, done, 'succeeded');
  const running = await submit(service, {
    labels: { name: 'running.png', who: 'running' },
    parameters: { hold_file: join(service.dir, 'never') },
  });
  await reached(service, running, 'processing');
  const page = await open('/jobs', { permissions: ['clipboard-read', 'clipboard-write'] });
  await row(page, 'running.png').locator('.chip.running').waitFor();

  const menu = await menuOf(page, 'done.png');
  assert.deepEqual(await menu.getByRole('menuitem').allTextContents(), [
    'Download 10 B',
    'Submit again',
    'Copy the id',
    'Copy the link to this job',
    'Copy as curl',
    'Delete inputs and result now',
  ]);
  assert.deepEqual(await findings(page), []);
  const downloading = page.waitForEvent('download');
  await menu.getByRole('menuitem', { name: 'Download' }).click();
  assert.equal(await readFile(await (await downloading).path(), 'utf8'), 'the result');
  await menu.waitFor({ state: 'detached' });
  await (await menuOf(page, 'done.png')).getByRole('menuitem', { name: 'Copy the id' }).click();
  assert.equal(await copied(page), done);
  await (await menuOf(page, 'done.png')).getByRole('menuitem', { name: 'Copy the link' }).click();
  assert.equal(await copied(page), `${service.baseUrl}/jobs/${done}`);
  await (await menuOf(page, 'done.png')).getByRole('menuitem', { name: 'Copy as curl' }).click();
  assert.match(String(await copied(page)), /^curl http.*"project": "liftoff"/s);

  // What cannot be taken back is asked about, and not done by who says no.
  let answer = false;
  page.on('dialog', (dialog) => void (answer ? dialog.accept() : dialog.dismiss()));
  await (await menuOf(page, 'done.png')).getByRole('menuitem', { name: 'Delete' }).click();
  assert.equal(((await (await fetch(`${service.baseUrl}/api/v1/jobs/${done}`)).json()) as { purged_at: unknown }).purged_at, null);
  answer = true;
  await (await menuOf(page, 'done.png')).getByRole('menuitem', { name: 'Delete' }).click();
  await row(page, 'done.png').getByText('Deleted').waitFor();
  assert.ok(((await (await fetch(`${service.baseUrl}/api/v1/jobs/${done}`)).json()) as { purged_at: unknown }).purged_at);
  assert.equal(await (await menuOf(page, 'done.png')).getByRole('menuitem', { name: 'Delete' }).count(), 0);
  await page.keyboard.press('Escape');

  const stopping = await menuOf(page, 'running.png');
  assert.equal(await stopping.getByRole('menuitem', { name: 'Delete' }).count(), 0, 'of a job that runs');
  await stopping.getByRole('menuitem', { name: 'Cancel job' }).click();
  await row(page, 'running.png').locator('.chip.canceled').waitFor();

  await (await menuOf(page, 'running.png')).getByRole('menuitem', { name: 'Submit again' }).click();
  await page.locator('h1', { hasText: 'New job' }).waitFor();
  assert.equal(await page.locator('#labels').inputValue(), 'who=running');
});

webTest('a menu is used by keys, and leaves the page’s own keys alone', {}, async ({ service, open }) => {
  for (const name of ['a.png', 'b.png']) await reached(service, await submit(service, { labels: { name } }), 'succeeded');
  const page = await open('/jobs');
  const button = page.getByRole('button', { name: 'More actions for: b.png' });
  await button.focus();
  await page.keyboard.press('Enter');
  const focused = () => page.evaluate('document.activeElement.textContent');
  await holds(page, `document.activeElement.textContent.startsWith('Download')`);
  assert.equal(await button.getAttribute('aria-expanded'), 'true');
  await page.keyboard.press('ArrowDown');
  assert.equal(await focused(), 'Submit again');
  await page.keyboard.press('End');
  assert.equal(await focused(), 'Delete inputs and result now');
  await page.keyboard.press('ArrowDown');
  assert.match(String(await focused()), /^Download/);
  await page.keyboard.press('ArrowUp');
  assert.equal(await focused(), 'Delete inputs and result now');
  await page.keyboard.press('c');
  assert.equal(await focused(), 'Copy the id');
  // These would move to another row, open the form or the search.
  for (const key of ['j', 'k', 'n', '/']) await page.keyboard.press(key);
  assert.equal(await focused(), 'Copy the id');
  assert.equal(page.url(), `${service.baseUrl}/jobs`);
  await page.keyboard.press('Escape');
  assert.equal(await page.getByRole('menu').count(), 0);
  assert.equal(await page.evaluate('document.activeElement.getAttribute("aria-label")'), 'More actions for: b.png');
  await page.keyboard.press('ArrowDown');
  await page.getByRole('menu').waitFor();
  await page.locator('h1').click();
  await page.getByRole('menu').waitFor({ state: 'detached' });

  // The page of a job has one too, where the window is low and narrow as well.
  await page.setViewportSize({ width: 360, height: 300 });
  await page.getByRole('link', { name: 'b.png' }).click();
  await page.locator('.chip.succeeded').waitFor();
  await page.getByRole('button', { name: 'More actions', exact: true }).click();
  const box = (await page.getByRole('menu').boundingBox())!;
  assert.ok(box.x >= 0 && box.y >= 0 && box.x + box.width <= 360 && box.y + box.height <= 300, JSON.stringify(box));
  page.on('dialog', (dialog) => void dialog.accept());
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await page.getByText('Inputs and result of this job have been deleted.').waitFor();
});

webTest('what is selected is submitted again where it is one job', {}, async ({ service, open }) => {
  for (const name of ['a.png', 'b.png']) await reached(service, await submit(service, { labels: { name, who: name } }), 'succeeded');
  const page = await open('/jobs');
  const again = page.locator('.selected').getByRole('button', { name: 'Submit again' });
  await page.getByLabel('Select a.png').check();
  await again.waitFor();
  await page.getByLabel('Select b.png').check();
  await again.waitFor({ state: 'detached' });
  await page.getByLabel('Select a.png').uncheck();
  await again.click();
  await page.locator('h1', { hasText: 'New job' }).waitFor();
  assert.equal(await page.locator('#labels').inputValue(), 'who=b.png');
});
