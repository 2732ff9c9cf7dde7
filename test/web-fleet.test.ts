// The fleet page for who looks after the machines: slots taken out of service and put back, and what others see of it.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { startSecured } from './api/secured.ts';
import { findings, reached, submit, webTest, webTestOf } from './web/browser.ts';

const TWO = { NODE: 'gpu-02', SLOTS: '2', DRAIN_TIMEOUT: '0s' };
const slotRow = (page: Page, name: string) => page.locator('.slots tbody tr', { hasText: name });
const focused = (page: Page) => page.evaluate('document.activeElement.textContent');

webTest('slots are taken out of service and put back', TWO, async ({ service, open }) => {
  const go = join(service.dir, 'never');
  const held = await submit(service, { parameters: { hold_file: go }, labels: { name: 'held.png' } });
  await reached(service, held, 'processing');
  const page = await open('/fleet');
  await page.locator('.totals', { hasText: /Slots at work\s*1\s*of 2/ }).waitFor();

  // By the keyboard alone, and away again.
  const drain = page.getByRole('button', { name: 'Drain gpu-02' });
  await drain.focus();
  await page.keyboard.press('Enter');
  const form = page.getByRole('form', { name: 'Take slots of gpu-02 out of service' });
  await form.waitFor();
  assert.equal(await drain.getAttribute('aria-expanded'), 'true');
  assert.deepEqual(await findings(page), []);
  await page.keyboard.press('Escape');
  await form.waitFor({ state: 'detached' });
  assert.equal(await focused(page), 'Drain gpu-02');

  // One slot, which has nothing to do.
  const idle = (await slotRow(page, 'Slot 0').locator('.chip', { hasText: 'Ready' }).count()) === 1 ? '0' : '1';
  const busy = idle === '0' ? '1' : '0';
  await drain.click();
  await form.getByLabel('What').selectOption({ label: `Slot ${idle}` });
  await form.getByLabel('Why').fill('its fan is loud');
  await page.keyboard.press('Enter');
  await form.waitFor({ state: 'detached' });
  await slotRow(page, `Slot ${idle}`).locator('.chip', { hasText: 'Drained' }).waitFor();
  await slotRow(page, `Slot ${idle}`)
    .getByText(/^Taken out at \d\d:\d\d:\d\d: its fan is loud\.$/)
    .waitFor();
  await page.locator('.totals', { hasText: 'of 2, 1 drained' }).waitFor();
  assert.deepEqual(await findings(page), []);

  // The whole node: what runs goes on, and says that it is the last there.
  await drain.click();
  await form.getByLabel('Why').fill('driver update');
  await form.getByRole('button', { name: 'Take out of service' }).click();
  await slotRow(page, `Slot ${busy}`)
    .getByText(/^Taken out with its node at \d\d:\d\d:\d\d: driver update\.$/)
    .waitFor();
  await slotRow(page, `Slot ${busy}`).locator('.chip', { hasText: 'Running' }).waitFor();
  await slotRow(page, `Slot ${idle}`).getByText('its fan is loud').waitFor();

  // Another page sees it, in the other language, on a phone.
  const phone = await open('/fleet', { locale: 'zh-CN', viewport: { width: 390, height: 844 }, colorScheme: 'dark' });
  await phone.getByText(/^于 \d\d:\d\d:\d\d 停用：its fan is loud。$/).waitFor();
  await phone.getByRole('button', { name: '恢复使用 gpu-02' }).waitFor();
  assert.deepEqual(await findings(phone), []);
  assert.equal(await phone.evaluate('document.documentElement.scrollWidth <= innerWidth'), true);

  await page.getByRole('button', { name: `Put back Slot gpu-02/${idle}` }).click();
  await slotRow(page, `Slot ${idle}`).locator('.chip', { hasText: 'Ready' }).waitFor();
  await drain.click();
  await form.getByRole('button', { name: 'Take out of service' }).click();
  await slotRow(page, `Slot ${idle}`).locator('.chip', { hasText: 'Drained' }).waitFor();
  await page.getByRole('button', { name: 'Put back gpu-02', exact: true }).click();
  await drain.waitFor();
  assert.equal(await page.getByText('Taken out').count(), 0);
  assert.equal(((await (await fetch(`${service.baseUrl}/api/v1/jobs/${held}`)).json()) as { status: string }).status, 'processing');
});

webTestOf(startSecured, 'who is no administrator is offered nothing that is refused', TWO, async ({ service, open }) => {
  const admin = await service.key({ tenant: 'operators', scopes: ['admin', 'read'] });
  const other = await service.key({ tenant: 'one', scopes: ['read', 'submit'] });
  const withKey = async (secret: string) => {
    const page = await open('/fleet');
    await page.getByLabel('Key', { exact: true }).fill(secret);
    await page.getByRole('button', { name: 'Use this key' }).click();
    await slotRow(page, 'Slot 0').waitFor();
    return page;
  };
  const own = await withKey(admin.secret);
  await own.getByRole('button', { name: 'Drain gpu-02' }).click();
  await own.getByLabel('Why').fill('driver update');
  await own.getByRole('button', { name: 'Take out of service' }).click();
  await own
    .getByText(new RegExp(`^Taken out with its node by key ${admin.id} at \\d\\d:\\d\\d:\\d\\d: driver update\\.$`))
    .first()
    .waitFor();
  const theirs = await withKey(other.secret);
  await slotRow(theirs, 'Slot 0').locator('.chip', { hasText: 'Drained' }).waitFor();
  assert.equal(await theirs.getByText('Taken out').count(), 0);
  assert.equal(await theirs.getByRole('button', { name: /^(Drain|Put back)/ }).count(), 0);
});
