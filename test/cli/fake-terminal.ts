// A person, or none, at the command line: remembers what was said, answers questions, presses Ctrl-C; lets a test wait for words.
import { PassThrough } from 'node:stream';
import { runCommandLine, type Surroundings } from '../../src/cli/program.ts';
import type { Terminal } from '../../src/cli/remote/terminal.ts';

export class FakeTerminal implements Terminal {
  readonly interactive: boolean;
  readonly out = { write: (text: string) => this.#said('out', text) };
  readonly err: Terminal['err'];
  stdout = '';
  stderr = '';
  /** Answers to questions in turn; a question without one waits for its signal. */
  readonly answers: string[] = [];
  readonly #handlers = new Set<(signal: 'SIGINT' | 'SIGTERM') => void>();
  readonly #waiting = new Set<() => void>();

  constructor(options: { interactive?: boolean; tty?: boolean } = {}) {
    this.interactive = options.interactive ?? false;
    const err = new PassThrough();
    err.on('data', (chunk) => this.#said('err', String(chunk)));
    this.err = Object.assign(err, options.tty ? { isTTY: true, columns: 200, cursorTo: () => true, moveCursor: () => true } : {});
  }

  get lines(): string[] {
    return this.stdout.split('\n').filter(Boolean);
  }

  get json(): Record<string, unknown>[] {
    return this.lines.map((line) => JSON.parse(line));
  }

  async ask(question: string, signal: AbortSignal): Promise<string | undefined> {
    this.#said('err', question);
    const word = this.answers.shift();
    if (word !== undefined) return word;
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    return undefined;
  }

  onInterrupt(handler: (signal: 'SIGINT' | 'SIGTERM') => void): () => void {
    this.#handlers.add(handler);
    return () => this.#handlers.delete(handler);
  }

  interrupt(signal: 'SIGINT' | 'SIGTERM' = 'SIGINT'): void {
    for (const handler of this.#handlers) handler(signal);
  }

  /** As soon as standard output or error holds what `pattern` says. */
  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.stdout) && !pattern.test(this.stderr)) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  #said(where: 'out' | 'err', text: string): void {
    if (where === 'out') this.stdout += text;
    else this.stderr += text;
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}

/** Runs a command line against `server`; no local part of it does anything unless a test gives it. */
export function ffjobs(
  args: readonly string[],
  terminal: FakeTerminal,
  more: Partial<Surroundings> & { readonly server?: string } = {},
): Promise<number> {
  const { server, ...surroundings } = more;
  return runCommandLine([...(server === undefined ? [] : ['--server', server]), ...args], {
    terminal,
    env: {},
    cwd: '/',
    root: '/',
    version: '0.0.0',
    startApp: () => Promise.reject(new Error('not in this test')),
    fileFindings: async () => ({ problems: [], warnings: [] }),
    access: {
      openKeys: () => Promise.reject(new Error('not in this test')),
      verifyAudit: () => Promise.reject(new Error('not in this test')),
    },
    inspectFleetStore: () => Promise.reject(new Error('not in this test')),
    migrateStore: () => Promise.reject(new Error('not in this test')),
    backoff: { baseMs: 1, maxMs: 2, attempts: 3 },
    ...surroundings,
  });
}
