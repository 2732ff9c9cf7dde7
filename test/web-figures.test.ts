// What pages say of the queue: when a job is likely to start, how long jobs wait and have waited, whose they are.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { reached, submit, webTest } from './web/browser.ts';

const SECONDS = /^(\d+) (ms|s)$|^(\d+) min( \d+ s)?$/;

webTest('a queue tells when its jobs start and how long they wait', { DRAIN_TIMEOUT: '0s' }, async ({ service, open }) => {
  const page = await open('/fleet');
  // Nothing has been yet.
  await page.locator('.totals', { hasText: 'nothing has run yet' }).waitFor();
  await page.locator('.totals', { hasText: 'nothing is waiting' }).waitFor();
  await page.getByText('Nothing is waiting.').waitFor();
  for (let i = 0; i < 3; i++) await reached(service, await submit(service, { labels: { name: `done-${i}.png` } }), 'succeeded');
  await reached(
    service,
    await submit(service, { parameters: { hold_file: join(service.dir, 'never') }, labels: { name: 'held.png' } }),
    'processing',
  );
  const queued: string[] = [];
  for (const name of ['a.png', 'b.png', 'c.png']) queued.push(await submit(service, { labels: { name } }));

  // The figures of the last runs are seconds old at most.
  const figure = (name: string) => page.locator('.totals > *', { hasText: name });
  // Under a second, but for a machine that is busy with something else; what the service itself says of it is compared below.
  await figure('Wait in the queue')
    .getByText(/^median, 95 % under [\d.]+ s$/)
    .waitFor();
  const waited = (await figure('Wait in the queue').locator('.v').textContent())!;
  assert.equal(await figure('Jobs waiting').locator('.v').textContent(), '3');
  const oldest = async () => (await figure('Jobs waiting').locator('.meta').textContent())!.replace('oldest ', '');
  assert.match(await oldest(), SECONDS);
  const tenant = page.locator('.tenant', { hasText: 'default' });
  assert.match((await tenant.textContent()) ?? '', /3 waitingoldest \d+ s1 running/);

  // What each slot does, and the pace of the work.
  const slot = page.locator('.slots tbody tr');
  assert.equal(await slot.count(), 1);
  await slot.locator('.chip', { hasText: 'Running' }).waitFor();
  await slot.getByRole('link', { name: 'held.png' }).waitFor();
  await slot.locator('.models .tag', { hasText: 'script' }).waitFor();
  const chart = page.getByRole('img', { name: /^Jobs that ended a minute: [\d.]+ at most, [\d.]+ last$/ });
  await chart.locator('polyline').waitFor();
  await page.getByRole('group', { name: 'Span of time' }).getByRole('button', { name: '24 h' }).click();
  await page.locator('.chart .facts', { hasText: /Succeeded\s*3/ }).waitFor();
  await chart.locator('polyline').waitFor();

  await page.getByRole('link', { name: 'Jobs' }).first().click();
  const row = (name: string) => page.locator('tbody tr', { hasText: name });
  await page.locator('.totals', { hasText: /Queued\s*3\s*oldest \d+ s/ }).waitFor();
  await page.locator('.totals', { hasText: /Done today\s*3\s*median [\d.]+ m?s/ }).waitFor();
  const starts: number[] = [];
  for (const name of ['b.png', 'c.png']) {
    await row(name)
      .locator('.c-eta', { hasText: /^starts in \d+ s$/ })
      .waitFor();
    starts.push(Number(/\d+/.exec((await row(name).locator('.c-eta').textContent())!)![0]));
  }
  assert.ok(starts[0]! < starts[1]!, `${starts}: the later one starts later`);
  assert.equal(await row('held.png').locator('.c-eta', { hasText: 'starts' }).count(), 0);

  await row('c.png').getByRole('link').click();
  await page.locator('.stats', { hasText: /Starts in\s*about \d+ s\s*at \d\d:\d\d:\d\d/ }).waitFor();
  // In the time in which three jobs have ended, so many more end: what the service itself says of a further one agrees.
  const { estimate } = (await (
    await fetch(`${service.baseUrl}/api/v1/jobs:validate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ source_images: ['face.jpg'], target_image: 'target.png' }),
    })
  ).json()) as { estimate: { wait: string; jobs_ahead: number } };
  assert.equal(estimate.jobs_ahead, 3);
  const perJob = Number.parseFloat(estimate.wait) / 3;
  const {
    pace,
    queue_by_tenant: queues,
    recent_runs: recent,
  } = (await (await fetch(`${service.baseUrl}/api/v1/overview`)).json()) as {
    pace: string;
    queue_by_tenant: { queued: number; oldest_queued_at: string }[];
    recent_runs: { jobs: number; median_wait: string };
  };
  assert.ok(Math.abs(Number.parseFloat(pace) - perJob) < 0.01, `${pace}, ${perJob}`);
  const { created_at } = (await (await fetch(`${service.baseUrl}/api/v1/jobs/${queued[0]}`)).json()) as { created_at: string };
  assert.deepEqual([queues[0]!.queued, queues[0]!.oldest_queued_at, recent.jobs], [3, created_at, 3]);
  assert.equal(waited === '< 1 s', Number.parseFloat(recent.median_wait) < 1, `${waited}, ${recent.median_wait}`);

  // One that waits for something else than its turn is told no start.
  const chained = await submit(service, { target_image: `job://${queued[2]}`, labels: { name: 'after.png' } });
  await page.goto(`${service.baseUrl}/jobs/${chained}`);
  await page.locator('.stats', { hasText: 'Waiting for another job' }).waitFor();
  assert.equal(await page.locator('.stats', { hasText: 'Starts in' }).count(), 0);
});
