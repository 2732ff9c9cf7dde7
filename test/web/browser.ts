// The console in a real Chromium, against the real service. Always true: the page under test is the built one, sent by the service with its policy,
// and a page that says anything on its console, or breaks its policy, fails its test.
import assert from 'node:assert/strict';
import { accessSync, constants } from 'node:fs';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import axe from 'axe-core';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { prepareConsole } from '../../src/cli/local/console.ts';
import { ROOT, type Service, startService } from '../api/service.ts';
import { freePort } from '../fixtures/free-port.ts';

const PLACES: readonly (string | undefined)[] = [
  process.env.FFJOBS_TEST_BROWSER,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

function installed(): string | undefined {
  return PLACES.find((path) => {
    try {
      if (path === undefined) return false;
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

interface Launched {
  readonly browser?: Browser;
  readonly skip: string | false;
}

/** By its flags. The tests of a process share one, because its start costs more than many of them; each has contexts of its own in it. */
const launched = new Map<string, Promise<Launched>>();
after(async () => {
  for (const { browser } of await Promise.all(launched.values())) await browser?.close();
});

/** The browser, or why there is none. One that is installed and does not start is no excuse under CI. It is closed when the process has done its tests. */
export function launch(flags: readonly string[] = []): Promise<Launched> {
  const known = launched.get(flags.join());
  if (known) return known;
  const launching = start(flags);
  launched.set(flags.join(), launching);
  return launching;
}

async function start(flags: readonly string[]): Promise<Launched> {
  const executablePath = installed();
  if (executablePath === undefined) return { skip: 'machine: no Chromium is installed' };
  try {
    // Chromium's own sandbox does not start as root.
    const args = [...flags, ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])];
    return { browser: await chromium.launch({ executablePath, args }), skip: false };
  } catch (error) {
    return { skip: `Chromium does not start: ${(error as Error).message.split('\n')[0]}` };
  }
}

export interface Console<S extends Service = Service> {
  readonly service: S;
  readonly browser: Browser;
  /** A page of its own, on the console's `path`. */
  open(path: string, options?: BrowserContextOptions): Promise<Page>;
}

type Settings = Readonly<Record<string, string>>;

/** A test with a service, its console and a browser; skipped where there is no browser. `flags` are the browser's. */
export function webTest(
  name: string,
  settings: Settings | (() => Settings),
  run: (console: Console) => Promise<void>,
  flags: readonly string[] = [],
): void {
  webTestOf(startService, name, settings, run, flags);
}

/** The same with a service of another kind. */
export function webTestOf<S extends Service>(
  startOne: (settings: Settings) => Promise<S>,
  name: string,
  settings: Settings | (() => Settings),
  run: (console: Console<S>) => Promise<void>,
  flags: readonly string[] = [],
): void {
  test(name, { timeout: 540_000 }, async (t) => {
    const { browser, skip } = await launch(flags);
    if (!browser) return t.skip(String(skip));
    try {
      await built();
      // A port that stays the same over a restart, so that the page's origin does.
      await using service = await startOne({
        PORT: String(await freePort()),
        ...(typeof settings === 'function' ? settings() : settings),
      });
      const said: string[] = [];
      const open = async (path: string, options: BrowserContextOptions = {}) => {
        const context = await browser.newContext({
          viewport: { width: 1280, height: 900 },
          locale: 'en-GB',
          reducedMotion: 'reduce',
          ...options,
        });
        context.setDefaultTimeout(90_000);
        const page = await context.newPage();
        page.on('pageerror', (error) => said.push(`${path}: ${error.stack ?? error.message}`));
        page.on('console', (message) => {
          if (['error', 'warning'].includes(message.type()) && !PASSING.test(message.text())) said.push(`${path}: ${message.text()}`);
        });
        await page.goto(`${service.baseUrl}${path}`);
        return page;
      };
      await run({ service, browser, open });
      assert.deepEqual(said, [], 'what the pages said on their consoles');
    } finally {
      await Promise.all(browser.contexts().map((context) => context.close()));
    }
  });
}

/** What a browser says by itself of a call that was answered with an error, or of a server that is away. */
const PASSING = /^Failed to load resource: (the server responded with a status of|net::ERR_)/;

let building: Promise<void> | undefined;
function built(): Promise<void> {
  building ??= prepareConsole({
    root: ROOT,
    report: () => {},
    warn: (problem) => {
      throw new Error(problem);
    },
  });
  return building;
}

/** Waits until an expression holds on the page. Asked from outside, because the page's policy allows no evaluation inside. */
export async function holds(page: Page, expression: string): Promise<void> {
  for (const end = performance.now() + 90_000; performance.now() < end; await sleep(50)) {
    if (await page.evaluate(expression)) return;
  }
  assert.fail(`${expression} did not come true`);
}

/** Serious findings of axe-core, WCAG 2.2 A and AA and best practice, one line each. */
export async function findings(page: Page): Promise<string[]> {
  if (!(await page.evaluate('"axe" in window'))) await page.evaluate(axe.source);
  // All that it has looked at is much more than what it has found, and stays in the page.
  const violations = (await page.evaluate(
    `axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations)`,
  )) as axe.Result[];
  return violations.flatMap(({ id, impact, nodes }) =>
    nodes.map((node) => `${impact} ${id}: ${String(node.target)} ${node.failureSummary?.split('\n')[1]?.trim() ?? ''}`),
  );
}

/** Submits a job of the scripted engine; answers its id. */
export async function submit(service: Service, job: object): Promise<string> {
  const answer = await fetch(`${service.baseUrl}/api/v1/jobs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ source_images: ['face.jpg'], target_image: 'target.png', ...job }),
  });
  const made = (await answer.json()) as { job_id: string; message?: string };
  assert.equal(answer.status, 202, made.message);
  return made.job_id;
}

/** Waits until the job has ended, or has the status. */
export async function reached(service: Service, id: string, ...statuses: readonly string[]): Promise<void> {
  const answer = await fetch(`${service.baseUrl}/api/v1/jobs/${id}/events`, { headers: { accept: 'application/x-ndjson' } });
  let rest = '';
  for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
    const lines = `${rest}${chunk}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines.filter(Boolean)) {
      const event = JSON.parse(line) as { snapshot?: { job: { status: string } }; state?: { status: string } };
      const status = event.snapshot?.job.status ?? event.state?.status;
      if (status !== undefined && statuses.includes(status)) return;
    }
  }
}
