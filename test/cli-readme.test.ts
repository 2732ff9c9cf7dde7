// What the README promises is what there is: settings, exit codes, commands, files.
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { settingRows } from '../scripts/readme-settings.ts';
import { Exit } from '../src/cli/remote/errors.ts';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

const ROOT = join(import.meta.dirname, '..');
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

test('the table of settings is the list of settings', () => {
  const table = README.split('\n').filter((line) => /^\| `[A-Z\d_]+` \|/.test(line));
  assert.deepEqual(table.toSorted(), [...settingRows().values()].toSorted(), '`npm run generate` writes it anew');
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

const PAGES = globSync(['*.md', 'docs/**/*.md', 'bench/*.md', 'clients/python/*.md', 'examples/*.md'], { cwd: ROOT });

test('every file and heading that a page links to is there', () => {
  const anchors = (text: string) =>
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    );
  assert.ok(PAGES.length > 20);
  for (const page of PAGES) {
    const text = readFileSync(join(ROOT, page), 'utf8');
    for (const [, path = '', anchor] of text.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)) {
      const target = path === '' ? join(ROOT, page) : join(ROOT, page, '..', path);
      assert.ok(existsSync(target), `${page}: ${path}`);
      if (anchor) assert.ok(anchors(readFileSync(target, 'utf8')).includes(anchor), `${page}: ${path}#${anchor}`);
    }
  }
});

test('pages and decisions have numbers of their own, and every page is in the list of pages', () => {
  for (const folder of ['docs', 'docs/decisions']) {
    const numbered = globSync('[0-9]*.md', { cwd: join(ROOT, folder) });
    const numbers = numbered.map((name) => Number.parseInt(name, 10));
    assert.equal(new Set(numbers).size, numbers.length, numbered.join(', '));
  }
  const list = readFileSync(join(ROOT, 'docs', 'README.md'), 'utf8');
  for (const page of globSync('[0-9]*.md', { cwd: join(ROOT, 'docs') })) {
    assert.ok(list.includes(`](${page})`), page);
    const title = /^# (\d+)\. /.exec(readFileSync(join(ROOT, 'docs', page), 'utf8'));
    assert.equal(Number(title?.[1]), Number.parseInt(page, 10), page);
  }
});

test('what is run and answered is the same in Chinese', () => {
  const chinese = readFileSync(join(ROOT, 'README.zh-CN.md'), 'utf8');
  const commands = (text: string) =>
    [...text.matchAll(/^```(?:sh|ts)\n(.*?)^```$/gms)].flatMap(([, code]) =>
      code!.split('\n').map((line) => line.split(/(?<=\s)# /)[0]!.trim()),
    );
  const known = new Set(commands(README));
  for (const line of commands(chinese)) assert.ok(known.has(line), line);
  const codes = (text: string) => [...text.matchAll(/^\| (\d+) \| /gm)].map((match) => match[1]);
  assert.deepEqual(codes(chinese), codes(README));
});
