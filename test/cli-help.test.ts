// What the program says of itself: examples that would work, and completions of what there is.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { FakeTerminal, ffjobs } from './cli/fake-terminal.ts';
import { checkOptions, commandOf, everyHelp, said } from './cli/help.ts';

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
      const at = commandOf(helps, words);
      assert.ok(at === path || at.startsWith(path), `an example of '${path}' is one of '${at}'`);
      checkOptions(helps, at, words, example);
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
