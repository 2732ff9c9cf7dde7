// The console of a service that wants to know who calls: a key is asked for, kept in the tab, and shows its tenant's jobs and nobody else's.
import assert from 'node:assert/strict';
import { restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { type Secured, startSecured } from './api/secured.ts';
import { findings, webTestOf } from './web/browser.ts';

async function jobOf(service: Secured, tenant: string, secret: string): Promise<string> {
  await service.furnish(tenant);
  const client = restClient(service.baseUrl, secret);
  const request = { source_images: ['face.jpg'], target_image: 'target.png', labels: { name: `${tenant}-picture.png` } };
  const { job_id } = await client.submit(request);
  await untilTerminal(client, job_id as string);
  return job_id as string;
}

webTestOf(startSecured, 'with keys, a page asks for one and shows its tenant’s jobs alone', {}, async ({ service, open }) => {
  const keys = { own: '', other: '' };
  for (const tenant of ['own', 'other'] as const) keys[tenant] = (await service.key({ tenant, scopes: ['read', 'submit'] })).secret;
  const own = await jobOf(service, 'own', keys.own);
  const other = await jobOf(service, 'other', keys.other);

  const page = await open('/jobs');
  const addresses: string[] = [];
  page.on('request', (request) => addresses.push(request.url()));
  const field = page.getByLabel('Key', { exact: true });
  await field.waitFor();
  assert.equal(await page.getByText('own-picture.png').count(), 0, 'nothing is shown to who is not known');
  assert.equal(await page.locator('.panel').count(), 1, 'and nothing is promised');
  assert.deepEqual(await findings(page), []);
  await field.fill('ffj_aaaaaaaaaa_wrong');
  await page.getByRole('button', { name: 'Use this key' }).click();
  await page.getByText('The service does not take this key.').waitFor();
  await field.fill(keys.own);
  await page.getByRole('button', { name: 'Use this key' }).click();
  await page.getByRole('link', { name: 'own-picture.png' }).waitFor();
  assert.equal(await page.getByText('other-picture.png').count(), 0);
  assert.equal(await page.locator('tbody tr').count(), 1);

  // Another tenant's is not there, as far as this key can tell; a reload keeps the key, and another tab does not have it.
  await page.goto(`${service.baseUrl}/jobs/${other}`);
  await page.getByRole('heading', { name: 'There is no such job' }).waitFor();
  await page.goto(`${service.baseUrl}/jobs/${own}`);
  await page.locator('.chip.succeeded').waitFor();
  await page.reload();
  await page.locator('.chip.succeeded').waitFor();
  const second = await open(`/jobs/${own}`);
  await second.getByLabel('Key', { exact: true }).waitFor();
  await second.getByLabel('Key', { exact: true }).fill(keys.other);
  await second.getByRole('button', { name: 'Use this key' }).click();
  await second.getByRole('heading', { name: 'There is no such job' }).waitFor();

  // A file goes up and a job comes of it, with the key in a header and in no address.
  await page.getByRole('link', { name: 'New job' }).first().click();
  const png = Buffer.from('89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de', 'hex');
  const inputs = page.locator('input[type=file]');
  await inputs.first().setInputFiles({ name: 'a.png', mimeType: 'image/png', buffer: png });
  await inputs.last().setInputFiles({ name: 'b.png', mimeType: 'image/png', buffer: png });
  await page.getByRole('button', { name: /^Submit/ }).click();
  await page.locator('.chip.succeeded').waitFor();
  assert.match(page.url(), /\/jobs\/job_/);

  // A key that is revoked while the page is open ends it, and it asks again.
  const id = keys.own.split('_')[1]!;
  const admin = await service.token({ tenant: 'operators', scopes: ['admin'] });
  const revoked = await fetch(`${service.baseUrl}/api/v1/keys/${id}`, { method: 'DELETE', headers: { authorization: `Bearer ${admin}` } });
  assert.equal(revoked.status, 200);
  await page.getByRole('link', { name: 'Jobs', exact: true }).first().click();
  await field.waitFor();
  await page.getByText('The service does not take this key.').waitFor();
  for (const address of addresses) for (const key of Object.values(keys)) assert.ok(!address.includes(key), address);
});
