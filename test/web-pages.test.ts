// Every page as people get it: without serious findings of axe in both themes, in both languages, at phone width, behind a strict policy, and small.
import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, type Service } from './api/service.ts';
import { findings, reached, submit, webTest } from './web/browser.ts';

/** Bytes of what the first page asks for, compressed. */
const FIRST_LOAD = 150_000;

/** A job in each state; answers their ids. The last two hold the one slot and wait for it. */
async function jobsInEachState(service: Service): Promise<Record<string, string>> {
  const named = (name: string, parameters: object, more: object = {}) => submit(service, { labels: { name }, parameters, ...more });
  const ids = {
    succeeded: await named('crew-photo-12.png', { warnings: ['14 frames have no face and stay as they are'] }),
    failed: await named('suit-up-02.png', { fail: 'NO_FACE_IN_TARGET', message: 'no face above 0.5' }),
    refused: await named('secret.png', { refuse: 'not this' }),
    canceled: await named('rehearsal.png', { hold_file: join(service.dir, 'never') }),
  };
  await reached(service, ids.canceled, 'processing');
  await fetch(`${service.baseUrl}/api/v1/jobs/${ids.canceled}`, { method: 'DELETE' });
  for (const id of Object.values(ids)) await reached(service, id, 'succeeded', 'failed', 'refused', 'canceled');
  const running = await named(
    'a-name-that-is-longer-than-any-row-of-any-list-has-room-for-final-final.mp4',
    { steps: 9, hold_at: 4, hold_file: join(service.dir, 'never') },
    { target_image: undefined, target_video: 'target.mp4' },
  );
  await reached(service, running, 'processing');
  return { ...ids, running, queued: await named('press-kit-cover.png', {}) };
}

webTest(
  'no page has a serious finding of axe, at any width, in any theme or language',
  { DRAIN_TIMEOUT: '0s' },
  async ({ service, open }) => {
    const empty = await open('/jobs');
    await empty.locator('text=No jobs yet').waitFor();
    assert.deepEqual(await findings(empty), [], 'the empty list');
    await empty.context().close();

    const ids = await jobsInEachState(service);
    const pages: [path: string, shown: string][] = [
      ['/jobs', 'tbody tr:nth-child(6)'],
      ['/new', '.opt'],
      ['/fleet', '.slots tbody tr'],
      ['/nothing-here', '.panel.empty h1'],
      ...Object.entries(ids).map(([state, id]): [string, string] => [`/jobs/${id}`, `.chip.${state}`]),
    ];
    const problems: string[] = [];
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const [width, locale] of [
        [1440, 'en-GB'],
        [390, 'zh-CN'],
        // The longer words.
        [360, 'en-GB'],
      ] as const) {
        if (width === 360 && colorScheme === 'dark') continue;
        const page = await open('/jobs', { colorScheme, locale, viewport: { width, height: 844 } });
        for (const [path, shown] of pages) {
          await page.evaluate(`history.pushState({}, '', '${path}'); dispatchEvent(new PopStateEvent('popstate'))`);
          await page.locator(shown).first().waitFor();
          const where = `${path} ${colorScheme} ${width} ${locale}`;
          problems.push(...(await findings(page)).map((one) => `${where}: ${one}`));
          const [wide, high] = (await page.evaluate('[document.documentElement.scrollWidth, document.body.scrollHeight]')) as [
            number,
            number,
          ];
          if (wide > width) problems.push(`${where}: scrolls sideways, ${wide} px`);
          if (high < 300) problems.push(`${where}: is empty`);
          const untranslated =
            locale === 'zh-CN'
              ? await page.evaluate(`document.querySelector('h1')?.textContent + document.querySelector('.nav').textContent`)
              : '';
          if (/Jobs|Fleet|New job/.test(String(untranslated))) problems.push(`${where}: is not in Chinese`);
        }
        await page.context().close();
      }
    }
    assert.deepEqual(problems, []);

    // The longest that the bar says of the connection.
    const narrow = await open('/fleet', { viewport: { width: 360, height: 844 } });
    await narrow.locator('.slots tbody tr').first().waitFor();
    await service.app.close();
    await narrow.locator('.top .live', { hasText: 'Not connected' }).waitFor();
    assert.equal(await narrow.evaluate('document.documentElement.scrollWidth'), 360);
    await service.restart();
  },
);

webTest('language and theme are switched on the page and kept', {}, async ({ open }) => {
  const page = await open('/fleet', { colorScheme: 'light' });
  await page.getByRole('button', { name: '中文' }).click();
  await page.locator('h1', { hasText: '集群' }).waitFor();
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN');
  await page.getByRole('button', { name: '切换浅色与深色' }).click();
  const background = 'getComputedStyle(document.body).backgroundColor';
  const dark = await page.evaluate(background);
  assert.equal(dark, 'rgb(17, 17, 17)');
  await page.reload();
  await page.locator('h1', { hasText: '集群' }).waitFor();
  assert.equal(await page.evaluate(background), dark);
  await page.getByRole('button', { name: /^EN/ }).click();
  await page.locator('h1', { hasText: 'Fleet' }).waitFor();
});

webTest('the first load is small, comes from the service alone, and breaks no policy', {}, async ({ service, open }) => {
  const page = await open('/jobs');
  await page.locator('text=No jobs yet').waitFor();
  const loaded = (await page.evaluate(
    `performance.getEntriesByType('resource').filter(({ name }) => name.includes('/assets/')).map(({ name, encodedBodySize }) => [name, encodedBodySize])`,
  )) as [string, number][];
  const bytes = loaded.reduce((sum, [, size]) => sum + size, 0);
  console.log(`# first load: ${bytes} bytes in ${loaded.length} files`);
  assert.ok(bytes > 10_000 && bytes < FIRST_LOAD, `${bytes} bytes`);
  for (const [name] of loaded) assert.ok(name.startsWith(service.baseUrl), name);
  // Both languages and everything else together are not more either.
  const assets = join(ROOT, 'web', 'dist', 'assets');
  const all = readdirSync(assets).filter((name) => name.endsWith('.gz'));
  assert.ok(all.reduce((sum, name) => sum + statSync(join(assets, name)).size, 0) < FIRST_LOAD);
});

webTest('the console works behind a prefix', {}, async ({ service, browser }) => {
  const { createServer, request } = await import('node:http');
  const proxy = createServer((incoming, outgoing) => {
    if (!incoming.url!.startsWith('/swap/')) return void outgoing.writeHead(404).end();
    const { port } = new URL(service.baseUrl);
    const forward = request(
      { port, method: incoming.method, path: incoming.url!.slice('/swap'.length), headers: incoming.headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(outgoing);
      },
    );
    forward.on('error', () => outgoing.destroy());
    incoming.pipe(forward);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', () => resolve()));
  try {
    const id = await submit(service, { labels: { name: 'far.png' } });
    const base = `http://127.0.0.1:${(proxy.address() as { port: number }).port}/swap`;
    const page = await browser.newPage();
    await page.goto(`${base}/jobs/${id}`);
    await page.locator('.chip.succeeded').waitFor();
    await page.getByRole('link', { name: 'Fleet' }).click();
    await page.locator('.slots tbody tr').waitFor();
    assert.equal(page.url(), `${base}/fleet`);
    await page.reload();
    await page.locator('.slots tbody tr').waitFor();
    await page.close();
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
});
