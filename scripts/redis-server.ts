// A redis-server of one's own, for tests and benches: on a free port, as durable as the service asks for. Which one: FFJOBS_TEST_REDIS, else the one on the PATH, else
// the one that comes with the worker's test requirements.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';

const ROOT = join(import.meta.dirname, '..');

export interface RedisServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly process: ChildProcess;
  readonly dir: string;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again on its folder and port. */
  start(): Promise<void>;
}

/** Path of the program. Throws where there is none: the project installs one. */
export function redisProgram(): string {
  const given = process.env.FFJOBS_TEST_REDIS;
  const candidates = given
    ? [given]
    : [
        ...(process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'redis-server')),
        join(ROOT, '.venv', 'bin', 'redis-server'),
      ];
  const found = candidates.find((path) => existsSync(path));
  if (found === undefined)
    throw new Error(
      'there is no redis-server on the PATH, nor in .venv, where `npm test` puts one for Python 3.10 to 3.12: install it (Debian: apt install redis-server)',
    );
  return found;
}

export function redisVersion(): string {
  return execFileSync(redisProgram(), ['--version'], { encoding: 'utf8' }).trim();
}

/** `args`: further settings, after those that make it durable. */
export async function startRedis(args: readonly string[] = []): Promise<RedisServer> {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-redis-'));
  const port = await freePort();
  let child: ChildProcess;
  const start = async () => {
    child = spawn(
      redisProgram(),
      [
        '--port',
        `${port}`,
        '--bind',
        '127.0.0.1',
        '--dir',
        dir,
        '--save',
        '',
        '--appendonly',
        'yes',
        '--appendfsync',
        'always',
        '--daemonize',
        'no',
        ...args,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    for await (const line of createInterface({ input: child.stdout! })) {
      if (/ready to accept connections/i.test(line)) break;
    }
    if (child.exitCode !== null) throw new Error(`redis-server ended with ${child.exitCode} while it started`);
    child.stdout!.resume();
  };
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGCONT');
    child.kill(signal);
    await once(child, 'exit');
  };
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    dir,
    get process() {
      return child;
    },
    kill: () => end('SIGKILL'),
    start,
    async [Symbol.asyncDispose]() {
      await end('SIGKILL');
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
