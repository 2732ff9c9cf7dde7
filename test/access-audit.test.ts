import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { openAuditLog } from '../src/access/audit.ts';
import { auditFiles, chained, START, verifyAudit } from '../src/access/audit-chain.ts';
import type { AuditEntry } from '../src/jobs/guard.ts';

const entry = (n: number): AuditEntry => ({ action: 'JobService/Submit', actor: 'key:abc', outcome: 'ok', job_id: `job_${n}` });

describe('the audit log', () => {
  let dir: string;
  let path: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'audit-'));
    path = join(dir, 'audit.jsonl');
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  const write = async (from: number, to: number, maxBytes = 1 << 20) => {
    await using log = await openAuditLog({ to: path, maxBytes });
    for (let n = from; n <= to; n++) await log.record(entry(n));
  };
  const lines = async () => (await readFile(path, 'utf8')).trimEnd().split('\n');

  test('goes on over restarts as one chain', async () => {
    await write(1, 3);
    await write(4, 5);
    const report = await verifyAudit(path);
    assert.equal(report.problem, undefined);
    assert.equal(report.lines, 5);
    assert.equal(report.last!.seq, 5);
    const records = (await lines()).map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(
      records.map((record) => record.job_id),
      ['job_1', 'job_2', 'job_3', 'job_4', 'job_5'],
    );
    assert.equal(records[0]!.prev, START.hash);
  });

  test('entries of one turn of the loop are written in order, and who waits knows that they are there', async () => {
    await using log = await openAuditLog({ to: path, maxBytes: 1 << 20 });
    await Promise.all(Array.from({ length: 500 }, (_, n) => log.record(entry(n + 1))));
    assert.equal((await verifyAudit(path)).lines, 500);
  });

  test('takes an unfinished line of a crash away, and says so', async () => {
    await write(1, 2);
    await appendFile(path, '{"seq":3,"time":"2026-');
    assert.equal((await verifyAudit(path)).tornBytes, 22);
    await write(3, 3);
    const report = await verifyAudit(path);
    assert.equal(report.problem, undefined);
    assert.equal(report.tornBytes, 0);
    const [, , mended, third] = (await lines()).map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual([mended!.action, mended!.torn_bytes, third!.job_id], ['audit.mended', 22, 'job_3']);
  });

  test('begins a new file when one is full, as one chain over all of them, also when the newest is torn or empty', async () => {
    await write(1, 30, 1000);
    const files = await auditFiles(path);
    assert.ok(files.length > 3);
    assert.equal((await verifyAudit(path)).lines, 30);
    await truncate(path, 10);
    await write(31, 31, 1000);
    const report = await verifyAudit(path);
    assert.match(String(report.problem ?? ''), /^$/);
    assert.equal(report.files, files.length);
    await rm(path);
    await write(32, 32);
    assert.equal((await verifyAudit(path)).problem, undefined);
  });

  test('does not start on a last line that was changed', async () => {
    await write(1, 2);
    await writeFile(path, (await readFile(path, 'utf8')).replace('job_2', 'job_9'));
    await assert.rejects(openAuditLog({ to: path, maxBytes: 1 << 20 }), /is not as it was written: move the file/);
  });

  describe('verification finds', () => {
    const spoiled: [name: string, spoil: (all: string[]) => string[], expected: RegExp][] = [
      ['a changed line', (all) => all.with(2, all[2]!.replace('job_3', 'job_7')), /line 3: this line is not as it was written/],
      ['a removed line', (all) => all.toSpliced(2, 1), /line 3: number 4 follows 2/],
      ['lines that changed places', (all) => all.with(1, all[2]!).with(2, all[1]!), /line 2: number 3 follows 1/],
      ['a line of ours put in', (all) => all.toSpliced(2, 0, chained(entry(9), new Date(), START).line), /line 3: number 1 follows 2/],
      [
        'a line put in at the right number',
        (all) => all.with(2, chained(entry(9), new Date(), { seq: 2, hash: 'f'.repeat(64) }).line),
        /line 3: it does not follow/,
      ],
      [
        'a first line that claims to be the first',
        (all) => [chained(entry(1), new Date(), { seq: 0, hash: 'f'.repeat(64) }).line, ...all.slice(1)],
        /line 1: it does not follow/,
      ],
      ['what is no JSON', (all) => all.with(0, 'hello'), /line 1: this line is not/],
      ['an empty line', (all) => all.toSpliced(1, 0, ''), /line 2: this line is not/],
    ];
    for (const [name, spoil, expected] of spoiled) {
      test(name, async () => {
        await write(1, 5);
        await writeFile(path, `${spoil(await lines()).join('\n')}\n`);
        assert.match(String((await verifyAudit(path)).problem), expected);
      });
    }

    test('a cut-off end, from a hash that was noted', async () => {
      await write(1, 5);
      const { last } = await verifyAudit(path);
      assert.equal((await verifyAudit(path, last!.hash)).problem, undefined);
      await writeFile(path, `${(await lines()).slice(0, 4).join('\n')}\n`);
      assert.equal((await verifyAudit(path)).problem, undefined);
      assert.match(String((await verifyAudit(path, last!.hash)).problem), /cut off or replaced/);
    });

    test('that there is nothing', async () => assert.match(String((await verifyAudit(path)).problem), /there is no/));
  });

  test('says that it cannot be written before the next thing is done, and counts what it lost', async () => {
    const problems: unknown[] = [];
    await using log = await openAuditLog({ to: path, maxBytes: 1 << 20, onProblem: (error) => problems.push(error) });
    await log.record(entry(1));
    log.assertWritable();
    const whole = await readFile(path);
    // Somebody else writes to it.
    await appendFile(path, 'x');
    await log.record(entry(2));
    assert.equal(problems.length, 1);
    assert.throws(() => log.assertWritable(), /the audit log cannot be written/);
    await writeFile(path, whole);
    log.assertWritable();
    await log.record(entry(3));
    const report = await verifyAudit(path);
    assert.equal(report.problem, undefined);
    const records = (await lines()).map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(
      records.map((record) => [record.action, record.lost, record.job_id]),
      [
        ['JobService/Submit', undefined, 'job_1'],
        ['audit.resumed', 1, undefined],
        ['JobService/Submit', undefined, 'job_3'],
      ],
    );
  });

  test('goes to a stream as it goes to a file', async () => {
    let text = '';
    {
      await using log = await openAuditLog({ to: (more) => (text += more), maxBytes: 1 });
      for (let n = 1; n <= 3; n++) await log.record(entry(n));
    }
    await writeFile(path, text);
    assert.equal((await verifyAudit(path)).lines, 3);
  });

  test('a line with line ends, quotes and half characters in it stays one line', async () => {
    {
      await using log = await openAuditLog({ to: path, maxBytes: 1 << 20 });
      await log.record({ ...entry(1), attestation: 'I agree\n"really"\u2028 \ud800 ","hash":"0"}' });
    }
    const report = await verifyAudit(path);
    assert.equal(report.problem, undefined);
    assert.equal(report.lines, 1);
  });

  test('a writer that is killed leaves a log that verifies and goes on', async () => {
    const child = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { openAuditLog } from ${JSON.stringify(join(import.meta.dirname, '../src/access/audit.ts'))};
         const log = await openAuditLog({ to: ${JSON.stringify(path)}, maxBytes: 4000 });
         for (let n = 1; ; n++) { await log.record({ action: 'test', outcome: 'ok', job_id: 'job_' + n }); process.stdout.write(n + '\\n'); }`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let told = 0;
    for await (const chunk of child.stdout) {
      told = Math.max(told, Number(String(chunk).trim().split('\n').at(-1)));
      if (told > 200) break;
    }
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await write(1, 1);
    const report = await verifyAudit(path);
    assert.equal(report.problem, undefined);
    assert.ok(report.lines > told, `${report.lines} lines, and ${told} were acknowledged`);
    assert.ok((await readdir(dir)).length > 1);
  });
});
