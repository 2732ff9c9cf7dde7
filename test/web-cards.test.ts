// The list of jobs on a phone, whose cards have two heights: it begins where it says, and nothing in it moves when a job ends.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Tops } from '../web/src/jobs/tops.ts';
import { findings, reached, submit, webTest } from './web/browser.ts';

test('rows begin where the ones before them end, loaded or not', () => {
  const tops = new Tops([110, 88, 88, 110], 88);
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5, 7].map((i) => tops.of(i)),
    [0, 110, 198, 286, 396, 484, 660],
  );
  for (const [y, row] of [
    [-50, 0],
    [0, 0],
    [109, 0],
    [110, 1],
    [285, 2],
    [286, 3],
    [395, 3],
    [396, 4],
    [484, 5],
    [700, 7],
  ] as const) {
    assert.equal(tops.at(y), row, `${y}`);
  }
  const even = new Tops([], 48);
  assert.deepEqual([even.of(10_000), even.at(479_999), even.at(-1)], [480_000, 9_999, 0]);
});

webTest(
  'a card of a job that is over is shorter, and one that ends keeps its height',
  { DRAIN_TIMEOUT: '0s' },
  async ({ service, open }) => {
    for (let i = 0; i < 30; i++) await submit(service, { labels: { name: `done-${i}.png` }, cache: 'off' });
    const go = join(service.dir, 'go');
    const held = await submit(service, { parameters: { hold_file: go }, labels: { name: 'held.png' } });
    await reached(service, held, 'processing');
    const page = await open('/jobs', { viewport: { width: 390, height: 844 } });
    const card = (name: string) => page.locator('.jobs tbody tr', { hasText: name });
    await card('held.png').locator('.chip', { hasText: 'Running' }).waitFor();
    const at = async (name: string) => (await card(name).boundingBox())!;
    assert.equal((await at('held.png')).height, 110);
    const below = await at('done-29.png');
    assert.equal(below.height, 88);
    assert.deepEqual(await findings(page), []);
    await writeFile(go, '');
    await card('held.png').locator('.chip', { hasText: 'Succeeded' }).waitFor();
    assert.deepEqual([(await at('held.png')).height, await at('done-29.png')], [110, below]);

    // To the end, and back: what is not drawn has the height that it would have.
    const whole = "document.querySelector('.jobs tbody').getBoundingClientRect().height";
    const before = await page.evaluate(whole);
    await page.evaluate('scrollTo(0, document.documentElement.scrollHeight)');
    await card('done-0.png').waitFor();
    assert.equal(await page.evaluate(whole), before);
    await page.evaluate('scrollTo(0, 0)');
    await card('held.png').waitFor();
    assert.deepEqual(await at('done-29.png'), below);
    // Come again, it is over from the beginning.
    await page.reload();
    await card('held.png').waitFor();
    assert.equal((await at('held.png')).height, 88);
  },
);
