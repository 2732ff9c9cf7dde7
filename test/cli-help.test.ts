// What the program says of itself: examples that would work, and completions of what there is.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';

async function said(...args: string[]): Promise<string> {
  const terminal = new FakeTerminal();
  assert.equal(await ffjobs(args, terminal), 0, `${args.join(' ')}: ${terminal.stderr}`);
  return terminal.stdout;
}

const commandsIn = (help: string) =>
  [...(/\nCommands:\n(.*?)(?:\n\n|$)/s.exec(help)?.[1] ?? '').matchAll(/^ {2}([a-z]+)/gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== 'help');

/** Help by path of command, such as `engine install`. */
async function everyHelp(path: readonly string[] = []): Promise<Map<string, string>> {
  const help = await said(...path, '--help');
  const all = new Map([[path.join(' '), help]]);
  for (const name of commandsIn(help)) for (const entry of await everyHelp([...path, name])) all.set(...entry);
  return all;
}

test('each command has examples, made of commands and options that there are', async () => {
  const helps = await everyHelp();
  assert.ok(helps.size > 20, [...helps.keys()].join(', '));
  for (const [path, help] of helps) {
    const examples = [...(/\nExamples:\n(.*?)(?:\n\n|\n?$)/s.exec(help)?.[1] ?? '').matchAll(/^ {2}.*?\bffjobs (.*?)( >.*|\))?$/gm)].map(
      ([, words]) => words!,
    );
    assert.ok(examples.length > 0, `no example of: ${path}`);
    for (const example of examples) {
      const words = example.split(' ');
      let at = '';
      for (const word of words) {
        const next = at === '' ? word : `${at} ${word}`;
        if (helps.has(next)) at = next;
      }
      assert.ok(at === path || at.startsWith(path), `an example of '${path}' is one of '${at}'`);
      const known = `${helps.get('')} ${helps.get(at)}`;
      for (const option of words.filter((word) => word.startsWith('-')))
        assert.match(known, new RegExp(`\\s${option}\\b`), `${option} in: ${example}`);
    }
  }
});

test('bash completes commands, their commands, and the options of each', async () => {
  const script = await said('completion', 'bash');
  const complete = (...words: string[]) => {
    const line = `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _ffjobs; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return execFileSync('bash', ['-eu', '-c', `${script}\n${line}`], { encoding: 'utf8' })
      .trim()
      .split('\n');
  };
  assert.deepEqual(complete('ffjobs', 'su'), ['submit']);
  assert.deepEqual(complete('ffjobs', 'engine', ''), [
    'install',
    'list',
    'use',
    'remove',
    'warm',
    '--server',
    '--json',
    '--version',
    '--help',
  ]);
  assert.deepEqual(complete('ffjobs', 'engine', 'install', 'facefusion', '--onnx'), ['--onnxruntime']);
  assert.deepEqual(complete('ffjobs', '--json', 'submit', 'face.jpg', '--idem'), ['--idempotency-key']);
  assert.deepEqual(complete('ffjobs', 'list', '--st'), ['--status']);
});

for (const shell of ['zsh', 'fish']) {
  test(`${shell} reads its script`, {
    skip: spawnSync(shell, ['--version']).error !== undefined && `machine: no ${shell} on the PATH`,
  }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ffjobs-completion-'));
    t.after(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, 'script'), await said('completion', shell));
    execFileSync(shell, ['-n', join(folder, 'script')]);
  });
}

test('a shell that is not known is refused with those that are', async () => {
  const terminal = new FakeTerminal();
  assert.equal(await ffjobs(['completion', 'tcsh'], terminal), 2);
  assert.match(terminal.stderr, /bash, zsh, fish/);
});
