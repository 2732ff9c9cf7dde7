// The page of a batch, in a real Chromium: as a whole and job by job while it runs, over a restart, canceled, and its results in one file.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Service } from './api/service.ts';
import { findings, webTest } from './web/browser.ts';

async function submitBatch(service: Service, parameters: readonly object[], more: object = {}): Promise<{ id: string; jobs: string[] }> {
  const jobs = parameters.map((one, i) => ({
    ref: `part-${i}`,
    job: { source_images: ['face.jpg'], target_image: 'target.png', labels: { name: `part-${i}.png` }, parameters: one },
  }));
  const answer = await fetch(`${service.baseUrl}/api/v1/jobs:batch`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jobs, ...more }),
  });
  const made = (await answer.json()) as { batch_id: string; job_ids: string[]; message?: string };
  assert.equal(answer.status, 202, made.message);
  return { id: made.batch_id, jobs: made.job_ids };
}

webTest(
  'a batch is shown as a whole and job by job, over a restart, to its manifest',
  { DRAIN_TIMEOUT: '0s' },
  async ({ service, open }) => {
    const hold = join(service.dir, 'hold');
    const { id, jobs } = await submitBatch(service, [
      {},
      { fail: 'NO_SOURCE_FACE', message: 'no face' },
      { hold_file: hold, hold_at: 1, steps: 3 },
      {},
    ]);
    const page = await open(`/batches/${id}`);
    await page.getByRole('heading', { name: 'Batch of 4 jobs' }).waitFor();
    await page.getByText('2 of 4 have ended').waitFor();
    const count = (name: string) => page.locator('.totals button', { hasText: name }).locator('.v').textContent();
    assert.deepEqual([await count('Succeeded'), await count('Failed'), await count('Running')], ['1', '1', '1']);
    assert.equal(await page.getByRole('progressbar', { name: 'Progress' }).count(), 1);
    assert.equal(await page.locator('tbody tr').count(), 4);
    await page.locator('.totals button', { hasText: 'Failed' }).click();
    await page.locator('tbody tr').nth(1).waitFor({ state: 'detached' });
    assert.match((await page.locator('tbody tr').textContent())!, /part-1\.png/);
    await page.locator('.totals button', { hasText: 'Failed' }).click();

    await service.restart();
    await writeFile(hold, '');
    await page.locator('.chip.big.failed').waitFor();
    await page.getByText('4 of 4 have ended').waitFor();
    assert.equal(await page.getByRole('button', { name: 'Cancel the rest' }).count(), 0);
    const saved = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download the results as JSON' }).click();
    const download = await saved;
    assert.equal(download.suggestedFilename(), `${id}.json`);
    const manifest = JSON.parse(await readFile(await download.path(), 'utf8')) as {
      batch: { batch_id: string; failed: number };
      results: { ref: string; job_id: string; status: string; result_url?: string; error?: { reason: string } }[];
    };
    assert.deepEqual([manifest.batch.batch_id, manifest.batch.failed], [id, 1]);
    assert.deepEqual(
      manifest.results.map(({ ref, job_id, status, error }) => [ref, job_id, status, error?.reason]),
      jobs.map((job, i) => [`part-${i}`, job, i === 1 ? 'failed' : 'succeeded', i === 1 ? 'NO_SOURCE_FACE' : undefined]),
    );
    assert.equal(await (await fetch(manifest.results[0]!.result_url!)).text(), 'scripted');

    // From the batch to a job of it and back; and from the list.
    await page.getByRole('link', { name: 'part-3.png' }).click();
    await page.locator('.facts').getByRole('link', { name: id }).click();
    await page.getByRole('heading', { name: 'Batch of 4 jobs' }).waitFor();
    await page.getByRole('link', { name: 'Jobs', exact: true }).first().click();
    await page.getByRole('searchbox').fill(`batch=${id}`);
    await page.getByRole('link', { name: `Show ${id} as a whole` }).click();
    await page.getByRole('heading', { name: 'Batch of 4 jobs' }).waitFor();
  },
);

webTest('the rest of a batch is canceled; one that is not there is said to be none', { DRAIN_TIMEOUT: '0s' }, async ({ service, open }) => {
  const parameters = Array.from({ length: 6 }, () => ({ hold_file: join(service.dir, 'never') }));
  const { id } = await submitBatch(service, parameters, { stop_on_failure: true });
  const page = await open(`/batches/${id}`);
  await page.getByText('When one of its jobs fails, the rest is canceled.').waitFor();
  await page.locator('.chip.big.running').waitFor();
  await page.getByRole('button', { name: 'Cancel the rest' }).click();
  await page.locator('.chip.big.canceled').waitFor();
  await page.getByText('6 of 6 have ended').waitFor();
  await page.goto(`${service.baseUrl}/batches/batch_20250101_aaaaaaaaaaaa`);
  await page.getByRole('heading', { name: 'There is no such batch' }).waitFor();
});

webTest(
  'the page of a batch has no serious finding of axe, at any width, in any theme or language',
  { DRAIN_TIMEOUT: '0s' },
  async ({ service, open }) => {
    const never = { hold_file: join(service.dir, 'never'), hold_at: 2, steps: 4 };
    const { id } = await submitBatch(service, [{}, { fail: 'NO_FACE_IN_TARGET' }, { refuse: 'not this' }, {}, never, never, never]);
    const problems: string[] = [];
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const [width, locale, heading] of [
        [1440, 'en-GB', 'Batch of 7 jobs'],
        [390, 'zh-CN', '7 个任务的批次'],
      ] as const) {
        const page = await open(`/batches/${id}`, { colorScheme, locale, viewport: { width, height: 844 } });
        await page.getByRole('heading', { name: heading }).waitFor();
        await page.locator('tbody tr').nth(6).waitFor();
        const where = `${colorScheme} ${width} ${locale}`;
        problems.push(...(await findings(page)).map((one) => `${where}: ${one}`));
        const wide = (await page.evaluate('document.documentElement.scrollWidth')) as number;
        if (wide > width) problems.push(`${where}: scrolls sideways, ${wide} px`);
        await page.context().close();
      }
    }
    assert.deepEqual(problems, []);
  },
);
