// `ffjobs batch` against the real service: a file of jobs in one call, its files uploaded once, progress as a whole, and what became of each at the end.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { gate } from './api/scenarios.ts';
import { type Service, startService } from './api/service.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';
import { freePort } from './fixtures/free-port.ts';

let service: Service;
let folder: string;
let terminal: FakeTerminal;

before(async () => {
  service = await startService();
  folder = await mkdtemp(join(tmpdir(), 'ffjobs-batch-'));
  const png = Buffer.from('89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de', 'hex');
  await writeFile(join(folder, 'face.png'), png);
  await writeFile(join(folder, 'other.png'), Buffer.concat([png, Buffer.from('0')]));
});
after(async () => {
  await service[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  terminal = new FakeTerminal();
});

/** What the engine makes, so that another job can take it. */
const PICTURE = { output: 'RIFF0000WEBPVP8 ' };
const file = (name: string) => join(folder, name);
const onServer = (parameters: object = {}) => ({ source_images: ['server:face.jpg'], target_image: 'server:target.png', parameters });
async function jobs(...lines: (object | string)[]): Promise<string> {
  const path = join(folder, 'jobs.jsonl');
  await writeFile(path, lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'));
  return path;
}
const cli = (...args: string[]) => ffjobs(args, terminal, { server: service.baseUrl });
const rest = async (path: string) =>
  (await (await fetch(`${service.baseUrl}/api/v1/${path}`)).json()) as { jobs: { request: Request }[]; totals: Record<string, number> };

interface Request {
  readonly source_images: string[];
  readonly target_image: string;
  readonly labels: object;
  readonly cache: string;
  readonly priority: number;
}

describe('ffjobs batch', { timeout: 120_000 }, () => {
  test('uploads each file once, and ends with what became of each job', async () => {
    const path = await jobs(
      {
        ref: 'swap',
        job: { source_images: [file('face.png')], target_image: file('other.png'), labels: { order: '17' }, parameters: PICTURE },
      },
      { source_images: [file('face.png')], target_image: 'job://swap' },
      '',
      { source_images: [file('face.png'), 'server:face.jpg'], target_image: 'server:target.png', cache: 'off', priority: 3 },
    );
    assert.equal(await cli('batch', path, '--watch'), 0, terminal.stdout + terminal.stderr);
    const [batchId, ...rows] = terminal.lines as [string, ...string[]];
    assert.match(batchId, /^batch_\d{8}_[a-z2-7]{12}$/);
    assert.equal(rows.length, 3);
    for (const row of rows) assert.match(row, /^job_\w+( {2}swap)? {2}succeeded {2}http:\S+$/);
    assert.match(rows[0]!, / swap /);
    assert.match(terminal.stderr, /2 of 2 files/);
    assert.match(terminal.stderr, new RegExp(`${batchId} has finished: 3 of 3 jobs`));
    const { jobs: listed } = await rest(`jobs?batch_id=${batchId}`);
    const [last, middle, first] = listed.map(({ request }) => request) as [Request, Request, Request];
    assert.match(first.target_image, /^upload:/);
    assert.deepEqual(first.labels, { order: '17' });
    assert.match(middle.target_image, /^job:\/\/job_/);
    assert.equal(first.source_images[0], middle.source_images[0]);
    assert.deepEqual([last.source_images[1], last.target_image, last.cache, last.priority], ['face.jpg', 'target.png', 'off', 3]);
  });

  test('with --json writes the batch, each change, and the manifest as its last line', async () => {
    const path = await jobs(
      onServer(),
      { ref: 'bad', job: onServer({ fail: 'NO_SOURCE_FACE', message: 'no face' }) },
      onServer({ refuse: 'not this' }),
    );
    assert.equal(await cli('--json', 'batch', path, '-w'), 1, 'a failure is worse than a refusal');
    const [submitted, ...changes] = terminal.json as [{ batch: { batch_id: string } }, ...Record<string, never>[]];
    const manifest = changes.pop() as unknown as {
      batch: object;
      results: { ref: string; status: string; result_url: string | null; error: { reason: string } | null }[];
    };
    assert.ok(changes.every(({ batch }) => batch));
    assert.deepEqual(
      manifest.results.map(({ ref, status, result_url, error }) => [ref, status, result_url !== null, error?.reason]),
      [
        ['', 'succeeded', true, undefined],
        ['bad', 'failed', false, 'NO_SOURCE_FACE'],
        ['', 'refused', false, 'CONTENT_REFUSED'],
      ],
    );
    terminal = new FakeTerminal();
    assert.equal(await cli('get', submitted.batch.batch_id), 1);
    assert.match(terminal.stdout, /100% {2}3 of 3 jobs, 1 failed, 1 refused/);
    terminal = new FakeTerminal();
    assert.equal(await cli('watch', submitted.batch.batch_id), 1, 'one that has finished is shown as it ended');
    assert.equal(terminal.lines.length, 3);
    assert.equal(await cli('watch', submitted.batch.batch_id, '--after', '3'), 2);
  });

  test('one idempotency key is one batch', async () => {
    const path = await jobs(onServer(), onServer());
    assert.equal(await cli('batch', path, '--idempotency-key', 'monday'), 0);
    assert.equal(await cli('batch', path, '--idempotency-key', 'monday'), 0);
    const [first, second] = terminal.lines;
    assert.equal(first, second);
    assert.match(terminal.stderr, /key was known/);
    assert.equal(await cli('batch', await jobs(onServer()), '--idempotency-key', 'monday'), 2);
    assert.doesNotMatch(terminal.stderr, /uploaded anew/);
    assert.equal(await cli('batch', await jobs({ ...onServer(), source_images: [file('face.png')] }), '--idempotency-key', 'monday'), 2);
    assert.match(terminal.stderr, new RegExp(`uploaded anew.*ffjobs watch ${first}`));
  });

  test('what is wrong is told by line, all at once, before the first byte of a file is sent', async () => {
    const submitted = async () => Object.values((await rest('overview')).totals).reduce((sum, many) => sum + many, 0);
    const before = await submitted();
    const broken = await jobs(
      '{"target_image":',
      { target_image: file('nowhere.png') },
      [],
      { ref: 'a', target_image: 'x.png' },
      { colour: 'red' },
    );
    assert.equal(await cli('batch', broken), 2);
    for (const words of [
      /line 1: .*JSON/,
      /line 2: there is no file '.*nowhere.png' here/,
      /line 3: is no JSON object/,
      /line 4: 'target_image' stands beside/,
      /line 5: .*colour/,
    ])
      assert.match(terminal.stderr, words);

    terminal = new FakeTerminal();
    const uploading = { source_images: [file('face.png')], target_image: 'server:target.png' };
    assert.equal(
      await cli('batch', await jobs(uploading, '', { ...uploading, parameters: { stps: 1 } }, { ...uploading, priority: 99 })),
      2,
    );
    assert.match(terminal.stderr, /line 3, parameters\.stps: /);
    assert.match(terminal.stderr, /line 4, priority: /);
    assert.doesNotMatch(terminal.stderr, /line 1|files/);

    terminal = new FakeTerminal();
    assert.equal(
      await cli('batch', await jobs(onServer(), '', { ...onServer(), target_image: 'server:none.png' }, { ref: 'job_x', job: onServer() })),
      2,
    );
    assert.match(terminal.stderr, /line 3, target_image: /);
    assert.match(terminal.stderr, /line 4, ref: |line 4: |jobs\[2\]\.ref/);
    assert.equal(await submitted(), before, 'nothing was submitted');
    for (const path of [await jobs(''), join(folder, 'none.jsonl')]) assert.equal(await cli('batch', path), 2);
    assert.equal(await cli('batch', await jobs(...Array.from({ length: 1001 }, () => onServer()))), 2);
    assert.match(terminal.stderr, /1001 jobs; a batch has at most 1000: split the file/);
  });

  test('Ctrl-C asks a person whether to cancel, and leaves a script’s batch running', async () => {
    const held = gate(service.dir);
    const path = await jobs(onServer(held.parameters), onServer(held.parameters));
    const leaving = cli('batch', path, '--watch');
    await terminal.until(/\d of 2 jobs, 1 running/);
    terminal.interrupt();
    assert.equal(await leaving, 130);
    const [batchId] = terminal.lines as [string];
    assert.match(terminal.stderr, new RegExp(`${batchId} goes on without you`));

    terminal = new FakeTerminal({ interactive: true });
    terminal.answers.push('y');
    const watching = cli('watch', batchId);
    await terminal.until(/0 of 2 jobs/);
    terminal.interrupt();
    assert.equal(await watching, 4);
    assert.match(terminal.stderr, /Cancel the 2 jobs of batch_\w+ that have not ended\?/);
    assert.equal(terminal.lines.filter((line) => /canceled/.test(line)).length, 2);
    assert.equal(await cli('cancel', batchId), 0);
    assert.equal(await cli('cancel', 'batch_20250101_aaaaaaaaaaaa'), 5);
  });

  test('goes on over a restart of the service, on a person’s terminal too', async () => {
    await using lasting = await startService({ PORT: `${await freePort()}`, DRAIN_TIMEOUT: '0s' });
    const held = gate(lasting.dir);
    const path = await jobs(onServer(held.parameters), onServer());
    terminal = new FakeTerminal({ interactive: true, tty: true });
    const done = ffjobs(['batch', path, '--watch'], terminal, {
      server: lasting.baseUrl,
      backoff: { baseMs: 50, maxMs: 200, attempts: 200 },
    });
    await terminal.until(/1 running/);
    await Promise.all([lasting.restart(), held.open()]);
    assert.equal(await done, 0, terminal.stderr);
    assert.match(terminal.stderr, /connection was lost/);
    assert.equal(terminal.lines.filter((line) => / succeeded /.test(line)).length, 2);
  });
});
