// The only reader of argv, environment and signals. Gives the command line its surroundings and ends the process with its exit code.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { runCommandLine } from './cli/program.ts';
import type { Terminal } from './cli/remote/terminal.ts';

type Interrupt = 'SIGINT' | 'SIGTERM';

/** One Ctrl-C comes twice where a launcher in the same foreground group hands it on; a person is slower than this. */
const SAME_SIGNAL_MS = 300;

const handlers = new Set<(signal: Interrupt) => void>();
const lastSeen = new Map<Interrupt, number>();

function onSignal(signal: Interrupt): void {
  const now = performance.now();
  const seen = lastSeen.get(signal) ?? Number.NEGATIVE_INFINITY;
  lastSeen.set(signal, now);
  if (now - seen < SAME_SIGNAL_MS) return;
  if (handlers.size === 0) process.exit(signal === 'SIGINT' ? 130 : 143);
  for (const handler of handlers) handler(signal);
}

const terminal: Terminal = {
  out: process.stdout,
  err: process.stderr,
  interactive: Boolean(process.stdin.isTTY && process.stderr.isTTY),
  ask(question, signal) {
    // Not a terminal to readline: in its raw mode Ctrl-C would be a key and no signal.
    const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false });
    return new Promise((resolve) => {
      const end = (line?: string) => {
        if (line === undefined) process.stderr.write('\n');
        // First of all: closing tells the listener below, which takes it for the end of the input.
        resolve(line);
        lines.close();
      };
      const onAbort = () => end();
      lines.once('line', (line) => end(line));
      lines.once('close', () => {
        signal.removeEventListener('abort', onAbort);
        resolve(undefined);
      });
      signal.addEventListener('abort', onAbort, { once: true });
      process.stderr.write(question);
    });
  },
  onInterrupt(handler) {
    handlers.add(handler);
    return () => handlers.delete(handler);
  },
};

process.on('SIGINT', () => onSignal('SIGINT'));
process.on('SIGTERM', () => onSignal('SIGTERM'));
process.on('SIGHUP', () => onSignal('SIGTERM'));
// A launcher that is killed can hand no signal on; nobody would know of this process any more.
process.on('disconnect', () => onSignal('SIGTERM'));
process.channel?.unref();
// The reader of a pipe has left (`ffjobs list | head`): nothing more to say.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const root = dirname(import.meta.dirname);
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const code = await runCommandLine(process.argv.slice(2), {
  terminal,
  env: process.env,
  cwd: process.cwd(),
  root,
  version,
  // Loaded when needed: the commands that only talk to a service start without it.
  startApp: async (config) =>
    (await import('./app.ts')).startApp(config, { env: process.env, root, version, terminal: Boolean(process.stdout.isTTY) }),
  fileFindings: async (config) => (await import('./app.ts')).fileFindings(config),
  access: {
    openKeys: async (config) => (await import('./app.ts')).openKeys(config),
    verifyAudit: async (path, noted) => (await import('./app.ts')).verifyAudit(path, noted),
  },
  inspectFleetStore: async (at) => (await import('./app.ts')).inspectFleetStore(at),
  migrateStore: async (config, report) => (await import('./app.ts')).migrateStore(config, report),
});
process.stdout.write('', () => process.exit(code));
