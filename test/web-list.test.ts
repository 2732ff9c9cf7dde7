// Ten thousand jobs in the browser: only rows in sight are in the document and are worked on, and every row can be got at.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { JobRequestSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { newJobId } from '../src/jobs/job.ts';
import type { NewJob } from '../src/jobs/ports.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { holds, submit, webTest } from './web/browser.ts';

const JOBS = 10_000;
const STEPS = 200;
/** Rows of the largest screen that this is measured on, twice over. */
const MOST_ROWS = 80;

/** What is compiled with its callees inside counts none of their calls. */
const INTERPRETED = ['--js-flags=--no-opt --no-maglev'];

describe('10,000 jobs', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'web-list-'));
    await using jobs = await openSqliteJobStore({ path: join(dir, 'jobs.db') });
    for (let made = 0; made < JOBS; made += 500) {
      await Promise.all(
        Array.from({ length: 500 }, (_, i) => jobs.submit(jobNumber(made + i, dir), { maxQueued: JOBS, idempotencyMs: 1000 })),
      );
    }
  });
  after(() => rm(dir, { recursive: true, force: true }));

  const settings = () => ({ STORE: `sqlite:${join(dir, 'jobs.db')}`, MAX_QUEUED: '20000', DRAIN_TIMEOUT: '0s' });
  webTest(
    'cost no more to scroll than a hundred, are searched, and reached to the last',
    settings,
    async ({ service, open }) => {
      const page = await open('/jobs');
      await page.locator('tr', { hasText: `picture-${JOBS - 1}.png` }).waitFor();
      await holds(page, `document.querySelector('table').getAttribute('aria-rowcount') === '${JOBS + 1}'`);

      const cdp = await page.context().newCDPSession(page);
      await cdp.send('Profiler.enable');
      await cdp.send('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
      /** How often functions, and branches and loops inside of them, have begun in the page's own code since this was last asked: work, on any machine. */
      const ran = async () => {
        const { result } = await cdp.send('Profiler.takePreciseCoverage');
        const counts = result
          .filter(({ url }) => url.includes('/assets/'))
          .flatMap(({ functions }) => functions.flatMap(({ ranges }) => ranges));
        return counts.reduce((sum, { count }) => sum + count, 0);
      };
      /** What each step of a scroll ran, there and back, and the most rows that were in the document. */
      const scrolled = async (steps: number) => {
        await ran();
        const most = await page.evaluate(`(async () => {
        let most = 0;
        for (let i = 0; i < ${2 * steps}; i++) {
          scrollBy(0, i < ${steps} ? 150 : -150);
          await new Promise(requestAnimationFrame);
          most = Math.max(most, document.querySelectorAll('tbody tr').length);
        }
        return most;
      })()`);
        return { blocks: Math.round((await ran()) / (2 * steps)), rows: Number(most) };
      };
      const search = page.getByRole('searchbox');
      await search.fill('picture-42');
      await page.locator('.foot', { hasText: 'Searched 10,000 jobs' }).waitFor();
      const few = await scrolled(STEPS / 8);
      await search.fill('');
      await page.locator('tr', { hasText: `picture-${JOBS - 1}.png` }).waitFor();
      const all = await scrolled(STEPS);
      await cdp.send('Profiler.stopPreciseCoverage');
      console.log(
        `# a step of 150 px runs ${all.blocks} blocks of code with ${JOBS} rows, ${few.blocks} with 111; ${all.rows} rows in the document`,
      );
      assert.ok(all.rows < MOST_ROWS, `${all.rows} rows in the document`);
      assert.ok(few.blocks > 100, `${few.blocks} blocks a step: nothing was drawn`);
      // What a step runs is what the rows in sight need: nothing goes through the whole list.
      assert.ok(all.blocks < few.blocks + JOBS / 2, `${all.blocks} blocks a step, ${few.blocks} with few rows`);

      await page.evaluate('scrollTo(0, document.documentElement.scrollHeight)');
      await page.locator('tr', { hasText: 'picture-0.png' }).waitFor();
      assert.equal(await page.locator('tbody tr').last().getAttribute('aria-rowindex'), String(JOBS + 1));

      // While one is far down, a newer job moves nothing.
      await submit(service, { labels: { name: 'newest.png' } });
      await page.locator('.fresh button').waitFor({ state: 'attached' });
      await page.locator('tr', { hasText: 'picture-0.png' }).waitFor();

      await page.evaluate('scrollTo(0, 0)');
      await search.fill('picture-4242');
      await page.locator('tr', { hasText: 'picture-4242.png' }).waitFor();
      await page.locator('.foot', { hasText: 'Searched 10,000 jobs' }).waitFor();
      assert.deepEqual(await page.locator('tbody .name').allTextContents(), ['picture-4242.png']);
      // A label is the service's to find.
      await search.fill('sheet=3');
      await page.locator('.foot b', { hasText: /of 200\+$/ }).waitFor();
      await holds(page, `scrollTo(0, 1e9), document.querySelector('.foot b').textContent.endsWith('of 1,429')`);
      assert.match((await page.locator('tbody .name').first().textContent()) ?? '', /^picture-\d+\.png$/);
    },
    INTERPRETED,
  );
});

/** The oldest holds the one slot for ever, so that the others stay as they are. */
function jobNumber(n: number, dir: string): NewJob {
  const random = new Uint8Array(12);
  for (let i = 0, rest = n; i < 4; i++, rest >>= 5) random[i] = rest & 31;
  return {
    jobId: newJobId(Date.now(), random),
    tenant: 'default',
    request: create(JobRequestSchema, {
      sourceImages: ['face.jpg'],
      target: { case: 'targetImage', value: 'target.png' },
      labels: { name: `picture-${n}.png`, sheet: `${n % 7}` },
      parameters: n === 0 ? { hold_file: join(dir, 'never') } : {},
    }),
    requestDigest: '',
    warnings: [],
    maxAttempts: 1,
  };
}
