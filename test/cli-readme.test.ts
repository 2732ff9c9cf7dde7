// What the README promises is what there is: settings, exit codes, commands, files.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Exit } from '../src/cli/remote/errors.ts';
import { SETTINGS } from '../src/config.ts';
import { FACEFUSION_SETTINGS } from '../src/config-facefusion.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

const ROOT = join(import.meta.dirname, '..');
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

test('the table of settings is the list of settings', () => {
  const rows = Object.entries<{ fallback: string | undefined; help: string }>(SETTINGS).map(([name, { fallback, help }]) => {
    const value = fallback === undefined ? '' : fallback === '' ? 'empty' : `\`${fallback}\``;
    return `| \`${name}\` | ${value} | ${help} |`;
  });
  const facefusion = Object.entries(FACEFUSION_SETTINGS).map(([name, help]) => `| \`${name}\` | ${help} |`);
  const table = README.split('\n').filter((line) => /^\| `[A-Z\d_]+` \|/.test(line));
  assert.deepEqual(table.toSorted(), [...rows, ...facefusion].toSorted());
});

test('the table of exit codes is the list of exit codes', () => {
  const codes = [...README.matchAll(/^\| (\d+) \| /gm)].map((match) => Number(match[1]));
  assert.deepEqual(codes, Object.values(Exit));
});

test('every command and option in it exists', async () => {
  const help = new FakeTerminal();
  assert.equal(await ffjobs(['--help'], help), 0);
  const submit = new FakeTerminal();
  assert.equal(await ffjobs(['submit', '--help'], submit), 0);
  const lines = README.split('\n').filter((line) => line.startsWith('npx ffjobs '));
  assert.ok(lines.length > 0);
  for (const line of lines) {
    const words = line.split('#')[0]!.replace('npx ffjobs', '').trim();
    for (const command of words.split(' ')[0]!.split('|')) assert.match(help.stdout, new RegExp(`^  ${command}\\b`, 'm'), line);
    if (words.startsWith('submit'))
      for (const [option] of words.matchAll(/(?<= )--?[a-z]+/g)) assert.ok(submit.stdout.includes(option), `${option} in: ${line}`);
  }
});

test('every file that it and the pages link to is there', () => {
  for (const page of ['README.md', 'docs/01-overview.md', 'docs/02-a-job.md', 'docs/03-the-command-line.md', 'THIRD_PARTY_NOTICES.md']) {
    const text = readFileSync(join(ROOT, page), 'utf8');
    for (const [, target] of text.matchAll(/\]\((?!https?:)([^)#]+)\)/g))
      assert.ok(existsSync(join(ROOT, page, '..', target!)), `${page}: ${target}`);
  }
});
