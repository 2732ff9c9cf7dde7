// `ffjobs serve` as a process of its own, as anybody would run it. Always true here: settings of the shell are left out, what the process says goes to
// its log file, and who started it knows when it has ended.
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const ROOT = join(import.meta.dirname, '..', '..');

export interface ServiceProcessOptions {
  /** FFJOBS_ variables without the prefix. */
  readonly settings: Readonly<Record<string, string>>;
  /** Further variables. */
  readonly env?: Readonly<Record<string, string>>;
  /** Arguments of Node itself. */
  readonly nodeArgs?: readonly string[];
  /** File that the log is added to. */
  readonly log: string;
}

/** Disposed: SIGTERM, and the end of the process is waited for. */
export interface ServiceProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  /** Base URL. Rejects, with the service's own sentence, if it ends before it listens. */
  readonly listening: Promise<string>;
  /** Exit code, or the signal that ended it. Never rejects. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

export function startServiceProcess({ settings, env = {}, nodeArgs = [], log }: ServiceProcessOptions): ServiceProcess {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('FFJOBS_'));
  const own = Object.entries({ LOG_FORMAT: 'json', METRICS_PORT: 'off', PORT: '0', ...settings }).map(([name, value]) => [
    `FFJOBS_${name}`,
    value,
  ]);
  const child = spawn(process.execPath, [...nodeArgs, join(ROOT, 'src', 'main.ts'), 'serve', '--json'], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...Object.fromEntries(inherited), ...env, ...Object.fromEntries(own) },
  });
  const file = createWriteStream(log, { flags: 'a' });
  child.stderr.pipe(file, { end: false });
  const ended = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once('error', () => resolve(1));
    child.once('close', (code, signal) => {
      file.end();
      resolve(signal ?? code ?? 1);
    });
  });
  const listening = new Promise<string>((resolve, reject) => {
    let why = '';
    createInterface({ input: child.stdout }).on('line', (line) => {
      file.write(`${line}\n`);
      const word = parsed(line);
      if (typeof word?.listening === 'string') resolve(word.listening);
      else if (word?.error?.message !== undefined) why = word.error.message;
    });
    child.once('error', reject);
    void ended.then((end) => reject(new Error(`the service did not start: ${why || `it ended with ${end}`}; its log is ${log}`)));
  });
  listening.catch(() => {});
  return {
    child,
    listening,
    ended,
    async [Symbol.asyncDispose]() {
      child.kill('SIGCONT');
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function parsed(line: string): { listening?: unknown; error?: { message?: string } } | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
