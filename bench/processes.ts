// Every process that a bench starts is owned here: it is stopped by its own id when its owner is disposed, and killed when the bench itself
// ends, however that comes about. What /proc tells of a process (CPU, memory) is read here too.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

/** Why a group or a peer cannot run here, in words for its row. Anything else that is thrown is a broken bench. */
export class CannotRun extends Error {
  override readonly name = 'CannotRun';
}

/** Options of Node's, with which `npm start`, the image and the units start the service; those that it is measured beside get the same. */
export const NODE_OPTIONS: readonly string[] = ['--use-largepages=silent'];

const living = new Set<ChildProcess>();

/** Kills what is left when this process ends. Called once, by main. */
export function ownProcesses(): void {
  process.on('exit', () => {
    for (const child of living) child.kill('SIGKILL');
  });
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.on(signal, () => process.exit(code));
  }
}

export class Process implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly #name: string;
  readonly #exited: Promise<void>;

  constructor(name: string, command: string, args: readonly string[], options: SpawnOptions) {
    this.#name = name;
    this.child = spawn(command, args, options);
    living.add(this.child);
    this.#exited = new Promise((resolve) => {
      const gone = () => {
        living.delete(this.child);
        resolve();
      };
      this.child.once('exit', gone);
      this.child.once('error', gone);
    });
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new CannotRun(`${this.#name} could not be started`);
    return this.child.pid;
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null && this.child.pid !== undefined;
  }

  /** The first line of standard output that `read` answers something for. Rejects when the process ends first. */
  async line<T>(read: (line: string) => T | undefined, timeoutMs = 20_000): Promise<T> {
    const lines = createInterface({ input: this.child.stdout! });
    const timer = setTimeout(() => lines.close(), timeoutMs);
    try {
      for await (const line of lines) {
        const value = read(line);
        if (value !== undefined) return value;
      }
    } finally {
      clearTimeout(timer);
      this.child.stdout?.resume(); // a full pipe would stop it
    }
    throw new CannotRun(`${this.#name} ${this.running ? `said nothing useful within ${timeoutMs / 1000} s` : `ended at once`}`);
  }

  async stop(graceMs = 3000): Promise<void> {
    if (!this.running) return await this.#exited;
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), graceMs);
    await this.#exited;
    clearTimeout(timer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

const TICKS_PER_SECOND = 100; // USER_HZ, what /proc counts in on every Linux

/** CPU seconds, user and system, that a process and its threads have used; undefined where there is no /proc. */
export function cpuSeconds(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return undefined;
  }
}

/** Resident bytes of a process; undefined where there is no /proc. */
export function residentBytes(pid: number): number | undefined {
  try {
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

/** A port that was free a moment ago, on loopback. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
