// The tree of commands as `ffjobs --help` shows it.
import assert from 'node:assert/strict';
import { FakeTerminal, ffjobs } from './fake-terminal.ts';

export async function said(...args: string[]): Promise<string> {
  const terminal = new FakeTerminal();
  assert.equal(await ffjobs(args, terminal), 0, `${args.join(' ')}: ${terminal.stderr}`);
  return terminal.stdout;
}

const commandsIn = (help: string) =>
  [...(/\nCommands:\n(.*?)(?:\n\n|$)/s.exec(help)?.[1] ?? '').matchAll(/^ {2}([a-z]+)/gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== 'help');

/** Help by path of command, such as `engine install`. */
export async function everyHelp(path: readonly string[] = []): Promise<Map<string, string>> {
  const help = await said(...path, '--help');
  const all = new Map([[path.join(' '), help]]);
  for (const name of commandsIn(help)) for (const entry of await everyHelp([...path, name])) all.set(...entry);
  return all;
}

/** The path of the command that words name, such as `engine install` of `engine install facefusion --version v4`; empty where they name none. */
export function commandOf(helps: ReadonlyMap<string, string>, words: readonly string[]): string {
  let at = '';
  for (const word of words) {
    const next = at === '' ? word : `${at} ${word}`;
    if (helps.has(next)) at = next;
  }
  return at;
}

/** Throws where one of the words is an option that neither the program nor the command has. */
export function checkOptions(helps: ReadonlyMap<string, string>, command: string, words: readonly string[], where: string): void {
  const known = `${helps.get('')} ${helps.get(command)}`;
  for (const option of words.filter((word) => /^--?[a-z]/.test(word)))
    assert.match(known, new RegExp(`\\s${option}\\b`), `${option} in: ${where}`);
}
