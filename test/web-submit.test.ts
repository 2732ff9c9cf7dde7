// From a person's files to a result, in the browser, with the plain engine doing the real work: uploads over tus, the check as one types, the
// form made of what the engine says, and the result beside its input.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { copyFile, readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { promisify } from 'node:util';
import type { Page, Route } from 'playwright-core';
import { python, ROOT } from './api/service.ts';
import { FACE, makeClip, TARGET } from './fixtures/media/portraits.ts';
import { holds, submit, webTest } from './web/browser.ts';

const CLASSICAL = { ENGINE: 'classical', ENGINE_PATH: '' };

let secrets: string | undefined;
/** What webhooks are signed with. */
function secretsFile(): string {
  secrets ??= mkdtempSync(join(tmpdir(), 'ffjobs-secrets-'));
  const path = join(secrets, 'secrets');
  writeFileSync(path, `whsec_${Buffer.alloc(32, 7).toString('base64')}\n`, { mode: 0o600 });
  return path;
}

/** Whom jobs are told to. */
const receiver = createServer();
const receiverHost = () => `127.0.0.1:${(receiver.address() as AddressInfo).port}`;
before(async () => {
  await once(receiver.listen(0, '127.0.0.1'), 'listening');
});
after(() => {
  receiver.close();
  receiver.closeAllConnections();
  if (secrets !== undefined) rmSync(secrets, { recursive: true });
});

const choose = (page: Page, place: string, ...files: string[]) =>
  page.locator(`input[type=file][data-place=${place}]`).setInputFiles(files);
const ready = (page: Page) => page.locator('.ready', { hasText: 'Ready to submit' }).waitFor();
const submitButton = (page: Page) => page.getByRole('button', { name: 'Submit job' }).first();

webTest(
  'two pictures are uploaded, swapped and compared, and the job is submitted again with a change',
  CLASSICAL,
  async ({ service, open }) => {
    const page = await open('/new');
    await page.locator('.opt').first().waitFor();
    await choose(page, 'source', FACE);
    await choose(page, 'target', TARGET);
    await ready(page);
    await page.locator('.face img').waitFor();
    await submitButton(page).click();
    await page.locator('h1', { hasText: 'grace_hopper.jpg' }).waitFor();
    await page.locator('.chip.succeeded').waitFor();
    await page.locator('.stage img.after').waitFor();
    const sizes = await page.evaluate(`Promise.all([...document.querySelectorAll('.stage img')].map(async (img) => {
    await img.decode();
    return img.naturalWidth + ' ' + img.naturalHeight;
  }))`);
    assert.deepEqual(sizes, ['256 280', '256 280']);
    // The divider is a native range: the keyboard moves it.
    const divider = page.getByRole('slider', { name: 'Divider between input and result' });
    await divider.focus();
    await page.keyboard.press('ArrowRight');
    assert.equal(await divider.getAttribute('aria-valuetext'), '51 % input, 49 % result');
    assert.equal(await page.evaluate(`document.querySelector('.stage').style.getPropertyValue('--pos')`), '51');

    // And so does a pointer; pressed in the picture, it stands there.
    const box = (await divider.boundingBox())!;
    await page.mouse.move(box.x + box.width * 0.51, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.2, box.y + box.height / 2, { steps: 4 });
    await page.mouse.up();
    const at = Number(await divider.inputValue());
    assert.ok(at > 15 && at < 25, `${at} %`);
    // At 100 % a pixel of the result is one of the screen.
    const width = () => page.evaluate(`document.querySelector('.stage').getBoundingClientRect().width * devicePixelRatio`);
    assert.notEqual(await width(), 256);
    await page.getByRole('group', { name: 'Zoom' }).getByRole('button', { name: '100 %' }).click();
    assert.equal(await width(), 256);
    await page.getByRole('group', { name: 'Zoom' }).getByRole('button', { name: 'Fit' }).click();

    // Files keep the names that they had here; pictures go along.
    assert.deepEqual(await page.locator('.inputs b').allTextContents(), ['eileen_collins.jpg', 'grace_hopper.jpg']);
    // The result is the one that the service has, byte for byte.
    const downloading = page.waitForEvent('download');
    await page.getByRole('button', { name: /^Download/ }).click();
    const saved = await readFile(await (await downloading).path());
    const id = page.url().split('/').at(-1)!;
    const told = Buffer.from(await (await fetch(`${service.baseUrl}/api/v1/jobs/${id}/result`)).arrayBuffer());
    assert.ok(saved.equals(told));

    await page.getByRole('button', { name: 'Submit again' }).click();
    await page.locator('h1', { hasText: 'New job' }).waitFor();
    await page.locator('.face img').waitFor();
    await page.locator('.face', { hasText: 'eileen_collins.jpg' }).waitFor();
    await page.locator('.target img').waitFor();
    await ready(page);
    await page.getByLabel('Add a processor').selectOption('face_enhancer');
    await page.locator('.pipe .proc').nth(1).waitFor();
    await page.getByRole('button', { name: 'Move Enhance face earlier' }).click();
    await page
      .locator('.pipe + [role=status], .panel [role=status]', { hasText: 'Enhance face is now 1 of 2' })
      .waitFor({ state: 'attached' });
    await ready(page);
    await submitButton(page).click();
    await page.locator('.chip.succeeded').waitFor();
    const { request } = (await (await fetch(`${service.baseUrl}/api/v1/jobs/${page.url().split('/').at(-1)}`)).json()) as {
      request: { parameters: { processors: string[] }; labels: Record<string, string> };
    };
    assert.deepEqual(request.parameters.processors, ['face_enhancer', 'face_swapper']);
    assert.equal(request.labels.name, 'grace_hopper.jpg');
  },
);

webTest('Submit pressed while files are on their way sends the job when the last has arrived', CLASSICAL, async ({ open }) => {
  const page = await open('/new');
  await page.locator('.opt').first().waitFor();
  const held: Route[] = [];
  const both = Promise.withResolvers<void>();
  await page.route('**/api/v1/tus/*', async (route) => {
    if (route.request().method() !== 'PATCH') return await route.continue();
    if (held.push(route) === 2) both.resolve();
  });
  await choose(page, 'source', FACE);
  await choose(page, 'target', TARGET);
  await both.promise;
  await submitButton(page).click();
  await page.getByText('Sent when the upload is complete').first().waitFor();
  // The service is asked about the form while one input is missing: what it says then is not true any more when that one is there.
  const answered = page.waitForResponse((response) => response.url().endsWith('/Validate'));
  await held[0]!.continue();
  await answered;
  await held[1]!.continue();
  await page.locator('h1', { hasText: 'grace_hopper.jpg' }).waitFor();
  await page.locator('.chip.succeeded').waitFor();
});

webTest('what waits for an upload is called off, or goes without who has left the page', CLASSICAL, async ({ service, open }) => {
  const page = await open('/new');
  await page.locator('.opt').first().waitFor();
  const held: Route[] = [];
  await page.route('**/api/v1/tus/*', async (route) => {
    if (route.request().method() === 'PATCH') held.push(route);
    else await route.continue();
  });
  const jobs = async () => ((await (await fetch(`${service.baseUrl}/api/v1/jobs`)).json()) as { jobs: { job_id: string }[] }).jobs;
  await choose(page, 'source', FACE);
  await choose(page, 'target', TARGET);
  await submitButton(page).click();
  await page.getByRole('button', { name: 'Do not send' }).first().click();
  while (held.length < 2) await page.evaluate('new Promise(requestAnimationFrame)');
  for (const route of held.splice(0)) await route.continue();
  await ready(page);
  await holds(page, `document.querySelectorAll('.media [role=progressbar]').length === 0`);
  assert.deepEqual(await jobs(), []);

  await page
    .locator('input[type=file][data-place=target]')
    .setInputFiles({ name: 'another.jpg', mimeType: 'image/jpeg', buffer: await readFile(TARGET) });
  await submitButton(page).click();
  await page.getByText('Sent when the upload is complete').first().waitFor();
  await page.getByRole('link', { name: 'Jobs', exact: true }).first().click();
  while (held.length < 1) await page.evaluate('new Promise(requestAnimationFrame)');
  await held[0]!.continue();
  await page.getByRole('link', { name: 'another.jpg' }).waitFor();
  assert.equal(page.url(), `${service.baseUrl}/jobs`);
  assert.equal((await jobs()).length, 1);
});

webTest('what is wrong is said as one types, where it is mended, and pressing goes there', CLASSICAL, async ({ open }) => {
  const page = await open('/new');
  await page.locator('.opt').first().waitFor();
  const panel = page.locator('.side');
  await panel.locator('text=2 things to fix before this can run').waitFor();
  // It says that it is not ready, and can be pressed.
  await submitButton(page).click({ force: true });
  assert.equal(await page.evaluate('document.activeElement.id'), 'source-add');
  await page.getByLabel('Reference for: Source faces').fill('not-here.jpg');
  await page.keyboard.press('Enter');
  await page
    .locator('.pad .err', { hasText: /^Source face 1: there is no such file/ })
    .first()
    .waitFor();
  await page.getByLabel('Reference for: Target').fill('ftp://example.com/a.mp4');
  await page.keyboard.press('Enter');
  await panel.locator('.problems li', { hasText: /ftp:\/\/ is not taken here/ }).waitFor();
  const weight = page.getByLabel('Weight, number');
  await weight.fill('7');
  await page.locator('#e-face_swapper_weight', { hasText: '7 is out of range; allowed: 0 to 1' }).waitFor();
  assert.equal(await weight.getAttribute('aria-invalid'), 'true');
  await panel.locator('.code mark', { hasText: '"face_swapper_weight": 7' }).waitFor();
  await page.locator('.groups .flag', { hasText: '1' }).waitFor();
  await panel.locator('text=3 things to fix before this can run').waitFor();
  await page.getByRole('button', { name: 'Back to the default: Weight' }).click();
  await panel.locator('text=2 things to fix before this can run').waitFor();
  assert.equal(await weight.inputValue(), '0.5');
  // Taken back before it was asked about: nothing is said of it later.
  const questions: string[] = [];
  page.on('request', (request) => request.url().endsWith('/Validate') && questions.push(request.url()));
  await page.evaluate(`(() => {
    const field = document.querySelector('[aria-label="Weight, number"]');
    for (const value of ['7', '0.5']) {
      field.value = value;
      for (const type of ['input', 'change']) field.dispatchEvent(new Event(type, { bubbles: true }));
    }
  })()`);
  // A timer of the page's that was set after the question's, and is longer, ends after it on any machine.
  await page.evaluate('new Promise((resolve) => setTimeout(resolve, 400))');
  assert.deepEqual(questions, []);
  assert.equal(await panel.locator('text=2 things to fix before this can run').count(), 1);
  await weight.fill('7');
  await page.getByRole('button', { name: '中文' }).click();
  await page.locator('#e-face_swapper_weight', { hasText: '超出范围；允许 0 至 1' }).waitFor();
  await page.locator('.pad .err', { hasText: '源人脸 1: 没有这个文件' }).first().waitFor();
});

webTest(
  'a webhook is checked as it is typed, kept, shown as code, and told of the statuses that were chosen',
  () => ({ ...CLASSICAL, WEBHOOK_SECRETS_FILE: secretsFile(), WEBHOOK_ALLOW: receiverHost() }),
  async ({ service, open }) => {
    const told: { type: string; data: { status: string } }[] = [];
    receiver.on('request', (request: IncomingMessage, response: ServerResponse) => {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk));
      request.on('end', () => {
        told.push(JSON.parse(body) as (typeof told)[number]);
        response.end();
        receiver.emit('told');
      });
    });
    const url = `http://${receiverHost()}/told?by=it's`;
    const page = await open('/new');
    await page.locator('.opt').first().waitFor();
    await choose(page, 'source', FACE);
    await choose(page, 'target', TARGET);
    await page.locator('summary').click();
    const field = page.getByLabel('Webhook', { exact: true });
    const code = async (tab: string) => {
      await page.getByRole('tab', { name: tab }).click();
      return (await page.locator('.side .code').textContent())!;
    };
    for (const [typed, says] of [
      ['not a url', /URI/],
      ['https://10.0.0.1/hook', /not on the public internet/],
      ['https://me:secret@example.com/hook', /no name or password/],
    ] as const) {
      await field.fill(typed);
      await page.locator('#webhook-problem', { hasText: says }).waitFor();
      assert.equal(await field.getAttribute('aria-invalid'), 'true');
      await page.locator('.side .code mark', { hasText: '"url"' }).waitFor();
    }
    // From the list of what is to be mended to the field, which lies in a part that may be closed.
    await page.locator('summary').click();
    await page.locator('.problems button', { hasText: 'Webhook' }).click();
    await holds(page, `document.activeElement.id === 'webhook-url'`);
    await page.getByRole('button', { name: '中文' }).click();
    await page.locator('#webhook-problem', { hasText: '网址中不能带有用户名或密码' }).waitFor();
    await page.getByRole('button', { name: /^EN/ }).click();
    await field.fill(url);
    await page.locator('#webhook-problem').waitFor({ state: 'detached' });
    await page.getByText('None chosen: told of every end.').waitFor();
    for (const name of ['Running', 'Succeeded']) await page.getByRole('checkbox', { name, exact: true }).check();
    await ready(page);
    assert.match(await code('curl'), /"statuses": \[\s+"processing",\s+"succeeded"\s+\]/);
    // It outlives a reload, as the rest of the form does.
    await page.reload();
    await ready(page);
    await page.locator('summary').click();
    assert.equal(await field.inputValue(), url);
    assert.equal(await page.getByRole('checkbox', { name: 'Running', exact: true }).isChecked(), true);

    const run = promisify(execFile);
    await run('sh', ['-c', await code('curl')]);
    await run(process.execPath, ['--input-type=module', '-e', await code('TypeScript')], { cwd: ROOT });
    const path = join(ROOT, 'clients', 'python', 'src');
    await run(python(), ['-c', await code('Python')], { env: { ...process.env, PYTHONPATH: path, PYTHONDONTWRITEBYTECODE: '1' } });
    await submitButton(page).click();
    await page.locator('.chip.succeeded').waitFor();
    const { jobs } = (await (await fetch(`${service.baseUrl}/api/v1/jobs`)).json()) as { jobs: { request: { webhook: object } }[] };
    assert.equal(jobs.length, 4);
    for (const { request } of jobs) assert.deepEqual(request.webhook, { url, statuses: ['processing', 'succeeded'] });
    while (told.length < 8) await once(receiver, 'told');
    assert.deepEqual(new Set(told.map(({ data }) => data.status)), new Set(['processing', 'succeeded']));

    // It comes along with an earlier job, into the fields that are its own.
    await page.getByRole('button', { name: 'Submit again' }).click();
    await page.locator('summary').click();
    assert.equal(await field.inputValue(), url);
    assert.equal(await page.getByRole('checkbox', { name: 'Succeeded', exact: true }).isChecked(), true);
  },
);

webTest('options are found by any of their words, kept over a reload, and saved as a preset', CLASSICAL, async ({ open }) => {
  const page = await open('/new');
  await page.getByRole('searchbox', { name: /Search all \d+ options/ }).fill('encoder');
  await page.locator('.opt .key', { hasText: 'output_video_encoder' }).waitFor();
  assert.deepEqual(await page.locator('.opt .key').allTextContents(), ['output_video_encoder', 'output_audio_encoder']);
  await page.locator('#f-output_video_encoder').selectOption('libx265');
  // What the pipeline has no processor for is found too, and brought in by a press.
  await page.getByRole('searchbox').fill('face_enhancer');
  const elsewhere = page.locator('.elsewhere', { hasText: 'Enhance face' });
  await elsewhere.getByRole('button', { name: 'Add “Enhance face” to the pipeline' }).click();
  await page.locator('.opt .key', { hasText: 'face_enhancer_' }).first().waitFor();
  assert.equal(await elsewhere.count(), 0);
  assert.deepEqual(await page.locator('.pipe .proc b').allTextContents(), ['Swap face', 'Enhance face']);
  await page.getByRole('button', { name: 'Remove Enhance face' }).click();
  await page.getByRole('searchbox').fill('nothing that exists');
  await page.locator('text=No option matches').waitFor();
  await page.reload();
  await page.getByRole('button', { name: 'Changed 1' }).click();
  assert.equal(await page.locator('#f-output_video_encoder').inputValue(), 'libx265');
  await page.getByRole('button', { name: 'Save as preset' }).click();
  await page.getByLabel('Name of the preset').fill('Small files');
  await page.getByRole('button', { name: 'Save', exact: true }).click();
  await page.getByRole('button', { name: 'Start over' }).click();
  await page.getByRole('button', { name: 'Changed', exact: true }).waitFor();
  await page.getByLabel('Preset', { exact: true }).selectOption('Small files');
  await page.getByRole('button', { name: 'Changed 1' }).waitFor();
});

webTest(
  'an upload goes on after the connection broke, and a file that is none is refused in words',
  CLASSICAL,
  async ({ service, open }) => {
    const page = await open('/new');
    await page.locator('.opt').first().waitFor();
    let broken = 0;
    await page.route('**/api/v1/tus/*', async (route) => {
      if (route.request().method() === 'PATCH' && broken++ < 2) await route.abort('connectionreset');
      else await route.continue();
    });
    await choose(page, 'source', FACE);
    await choose(page, 'target', TARGET);
    await ready(page);
    await holds(page, `document.querySelectorAll('.media [role=progressbar]').length === 0`);
    assert.equal(broken, 4);
    const uploads = (await (await fetch(`${service.baseUrl}/api/v1/jobs`)).json()) as { jobs: unknown[] };
    assert.deepEqual(uploads.jobs, []);
    await page
      .locator('input[type=file][data-place=target]')
      .setInputFiles({ name: 'fake.jpg', mimeType: 'image/jpeg', buffer: Buffer.from('this is no picture at all') });
    await page
      .locator('.err', { hasText: /fake\.jpg: .*no kind of file that is taken/ })
      .first()
      .waitFor();
    await page
      .locator('input[type=file][data-place=target]')
      .setInputFiles({ name: 'letter.txt', mimeType: 'text/plain', buffer: Buffer.from('dear') });
    await page.locator('.note.bad', { hasText: 'letter.txt is no picture' }).waitFor();
  },
);

webTest('files are dropped and references pasted anywhere on the page', CLASSICAL, async ({ open }) => {
  const page = await open('/new');
  await page.locator('.opt').first().waitFor();
  const [face, target] = await Promise.all([FACE, TARGET].map(async (path) => (await readFile(path)).toString('base64')));
  await page.evaluate(`(() => {
    const file = (text, name) => new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: 'image/jpeg' });
    const data = new DataTransfer();
    data.items.add(file('${face}', 'a.jpg'));
    data.items.add(file('${target}', 'b.jpg'));
    document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
  })()`);
  await page.locator('.face', { hasText: 'a.jpg' }).waitFor();
  await page.locator('.target', { hasText: 'b.jpg' }).waitFor();
  await ready(page);
  await page.evaluate(`(() => {
    const data = new DataTransfer();
    data.setData('text/plain', 's3://bucket/holiday/clip.mp4');
    document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
  })()`);
  await page.locator('.target', { hasText: 'clip.mp4' }).waitFor();
  await page.locator('.problems', { hasText: 's3:// is not taken here' }).waitFor();
});

webTest('the code that the form shows does what the form would do', CLASSICAL, async ({ service, open }) => {
  const page = await open('/new');
  await page.locator('.opt').first().waitFor();
  await choose(page, 'source', FACE);
  await choose(page, 'target', TARGET);
  await page.getByLabel('Weight, number').fill('0.65');
  await page.locator('summary').click();
  await page.getByLabel('Labels').fill("who=it's me");
  await ready(page);
  const run = promisify(execFile);
  const code = async (tab: string) => {
    await page.getByRole('tab', { name: tab }).click();
    return (await page.locator('.side .code').textContent())!;
  };
  await run('sh', ['-c', await code('curl')]);
  const ofTypeScript = await run(process.execPath, ['--input-type=module', '-e', await code('TypeScript')], { cwd: ROOT });
  const path = join(ROOT, 'clients', 'python', 'src');
  const ofPython = await run(python(), ['-c', await code('Python')], {
    env: { ...process.env, PYTHONPATH: path, PYTHONDONTWRITEBYTECODE: '1' },
  });
  // Both wait for the job, and say where its result is.
  for (const { stdout } of [ofTypeScript, ofPython]) assert.equal((await fetch(stdout.trim())).headers.get('content-type'), 'image/jpeg');
  const { jobs } = (await (await fetch(`${service.baseUrl}/api/v1/jobs`)).json()) as { jobs: { request: object }[] };
  assert.equal(jobs.length, 3);
  for (const { request } of jobs) {
    // The clients give each submission a key of its own.
    assert.deepEqual({ ...request, idempotency_key: null }, { ...jobs[0]!.request, idempotency_key: null });
    const { parameters, labels, previews } = request as { parameters: object; labels: object; previews: boolean };
    assert.deepEqual([parameters, labels, previews], [{ face_swapper_weight: 0.65 }, { who: "it's me", name: 'grace_hopper.jpg' }, true]);
  }
});

webTest(
  'consent is asked for where it is required, and what the form has no field for comes along with an earlier job',
  { ...CLASSICAL, ATTESTATION: 'required' },
  async ({ service, open }) => {
    await copyFile(FACE, join(service.inputDir, 'face.jpg'));
    await copyFile(TARGET, join(service.inputDir, 'target.jpg'));
    const id = await submit(service, { target_image: 'target.jpg', attestation: 'they agreed', retention: '3600s', cache: 'refresh' });
    const page = await open(`/jobs/${id}`);
    await page.getByRole('button', { name: 'Submit again' }).click();
    await page.locator('.problems', { hasText: 'Statement of consent' }).waitFor();
    await submitButton(page).click({ force: true });
    assert.equal(await page.evaluate('document.activeElement.id'), 'attestation');
    await page.keyboard.type("Grace agreed, she's here");
    await ready(page);
    await page.locator('.further', { hasText: 'retention 3600s' }).waitFor();
    const run = promisify(execFile);
    const code = async (tab: string) => {
      await page.getByRole('tab', { name: tab }).click();
      return (await page.locator('.side .code').textContent())!;
    };
    await run('sh', ['-c', await code('curl')]);
    await run(process.execPath, ['--input-type=module', '-e', await code('TypeScript')], { cwd: ROOT });
    const path = join(ROOT, 'clients', 'python', 'src');
    await run(python(), ['-c', await code('Python')], { env: { ...process.env, PYTHONPATH: path, PYTHONDONTWRITEBYTECODE: '1' } });
    await submitButton(page).click();
    await page.locator('.chip.succeeded').waitFor();
    const { jobs } = (await (await fetch(`${service.baseUrl}/api/v1/jobs`)).json()) as {
      jobs: { request: { retention: string; cache: string } }[];
    };
    assert.equal(jobs.length, 5);
    for (const { request } of jobs) assert.deepEqual([request.retention, request.cache], ['3600s', 'refresh']);
    // A statement is made for one job.
    await page.getByRole('button', { name: 'Submit again' }).click();
    await page.locator('.problems', { hasText: 'Statement of consent' }).waitFor();
  },
);

webTest('a video is swapped, and compared with its input in step', CLASSICAL, async ({ service, open }) => {
  await makeClip(service.inputDir, 2);
  await copyFile(FACE, join(service.inputDir, 'face.jpg'));
  const id = await submit(service, {
    target_image: undefined,
    target_video: 'clip.mp4',
    parameters: { trim_frame_start: 20, trim_frame_end: 50 },
  });
  const page = await open(`/jobs/${id}`);
  await page.locator('.chip.succeeded').waitFor({ timeout: 180_000 });
  await page.locator('.stage video').nth(1).waitFor();
  const times = 'Array.from(document.querySelectorAll(".stage video"), (video) => video.seeking ? -1 : video.currentTime)';
  await holds(page, 'Array.from(document.querySelectorAll(".stage video")).every((video) => video.readyState >= 2)');
  const next = page.getByRole('button', { name: 'One frame on' });
  for (const frame of [2, 3, 4]) {
    await next.click();
    await page.locator('.player', { hasText: `frame ${frame} of 30` }).waitFor();
    await holds(
      page,
      `((times) => Math.floor(times[0] * 25) === ${20 + frame - 1} && Math.floor(times[1] * 25) === ${frame - 1})(${times})`,
    );
  }
  await page.getByRole('button', { name: 'One frame back' }).click();
  await page.locator('.player', { hasText: 'frame 3 of 30' }).waitFor();
});
