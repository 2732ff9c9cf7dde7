// One worker process of the operating system with its group, from spawn to the death of its last member. Owned by its slot's supervisor.
//
// Always true:
// - `died` settles when no member of the group is alive and all that it wrote has been read. (A descendant that leaves the group, by setsid, is
//   out of reach; engines must not do that.)
// - Once condemned it only ends: it is on its way out by our will, and what it still says is not heard.
// - It outlives nobody: it sees the end of its control descriptor when the service dies.
import { type ChildProcess, spawn } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import type { Duplex, Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { Rate } from './rate.ts';
import { USUAL_VARIABLES, variablesNamed } from './variables.ts';
import { decodeFrame, LineSplitter, MAX_FRAME_BYTES, type WorkerWord } from './wire.ts';

/** What this folder needs of pino. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

const MAX_OUTPUT_LINE_BYTES = 8 * 1024;
const LAST_LINES = 20;
/** How long a process may go on that no longer listens or speaks before it is killed; one that is exiting is gone by then. */
const DEAF_MS = 1_000;

/** What to start, for which slot. */
export interface ProcessOptions {
  /** Program and arguments; `--control-fd 3 --event-fd 4` is added. */
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  /** Where its variables are taken from, by name: the usual few and those of `passOn`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly passOn: readonly string[];
  readonly slot: string;
  /** Device index; undefined: whatever the environment says. */
  readonly gpu: number | undefined;
  /** Variables of this slot alone, over all others. */
  readonly variables?: Readonly<Record<string, string>> | undefined;
  /** Undefined: the service's own user. */
  readonly owner?: Owner | undefined;
  readonly logger: Logger;
}

/** A user and a group of the operating system, by number. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface Death {
  /** Undefined: it did not end by itself. */
  readonly code?: number | undefined;
  /** "exited with code 3", "was killed by SIGSEGV", "could not be started: ..." */
  readonly exit: string;
  readonly lastLines: readonly string[];
}

export interface ProcessEvents {
  word(word: WorkerWord): void;
  /** A line of stdout or stderr. */
  output(line: string): void;
}

export class WorkerProcess {
  /** Settles when no member of the group is alive and all that it wrote has been read. */
  readonly died: Promise<Death>;
  readonly lastLines: string[] = [];
  condemned = false;
  #process: ChildProcess | undefined;
  #control: Writable | undefined;
  #whyKilled: string | undefined;
  readonly #logger: Logger;
  readonly #slot: string;

  constructor(options: ProcessOptions, on: ProcessEvents) {
    this.#logger = options.logger;
    this.#slot = options.slot;
    this.died = this.#live(options, on);
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  send(frame: string): void {
    if (this.#control?.writable) this.#control.write(frame);
  }

  /** To every member of the group. */
  signal(signal: NodeJS.Signals): void {
    // After the leader's exit the group is `#awaitGroup`'s affair, and its number may soon be another's.
    const child = this.#process;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-child.pid, signal);
    } catch {
      // Gone already; its exit event is on the way.
    }
  }

  /** `why` is how its end is told where nobody asked for it. */
  kill(why?: string): void {
    this.condemned = true;
    this.#whyKilled ??= why;
    this.signal('SIGKILL');
  }

  async diedWithin(ms: number): Promise<boolean> {
    const timer = new AbortController();
    const late = delay(ms, false, { signal: timer.signal }).catch(() => false);
    const died = await Promise.race([this.died.then(() => true), late]);
    timer.abort();
    return died;
  }

  async #live(options: ProcessOptions, on: ProcessEvents): Promise<Death> {
    let child: ChildProcess;
    try {
      child = spawn(options.command, [...options.args, '--control-fd', '3', '--event-fd', '4'], {
        cwd: options.cwd,
        env: environmentOf(options),
        // Its own group, so that one signal reaches its children too.
        detached: true,
        stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
        // With the groups of the service dropped too.
        ...options.owner,
      });
    } catch (error) {
      return { exit: await spawnErrorInWords(error as NodeJS.ErrnoException, options), lastLines: [] };
    }
    this.#process = child;
    const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
    const exited = new Promise<string | NodeJS.ErrnoException>((resolve) => {
      child.once('exit', (code, signal) => resolve(this.#whyKilled ?? exitInWords(code, signal)));
      child.on('error', (error) => {
        if (child.pid === undefined) resolve(error);
      });
    });
    // Without a process there are no streams either where descriptors have run out.
    const unwatch = child.pid === undefined ? () => {} : this.#listen(child, on);
    const exit = await exited;
    unwatch();
    if (typeof exit !== 'string') {
      for (const stream of child.stdio ?? []) stream?.destroy();
      return { exit: await spawnErrorInWords(exit, options), lastLines: [] };
    }
    await this.#awaitGroup(child.pid!);
    // All writers are dead, so the streams end by themselves; only a descendant outside the group could hold them open.
    const timer = setTimeout(() => {
      for (const stream of child.stdio) stream?.destroy();
    }, DEAF_MS);
    await closed;
    clearTimeout(timer);
    return { code: child.exitCode ?? undefined, exit, lastLines: this.lastLines };
  }

  /** Reads all that the process says; answers how to stop watching whether it still listens. */
  #listen(child: ChildProcess, on: ProcessEvents): () => void {
    const [, stdout, stderr, control, events] = child.stdio as unknown as [null, Readable, Readable, Duplex, Readable];
    this.#control = control;

    const frames = new LineSplitter(MAX_FRAME_BYTES, (line, cut) => {
      const word = cut ? { case: 'bad' as const, problem: `longer than ${MAX_FRAME_BYTES} bytes` } : decodeFrame(line);
      if (word.case === 'bad') {
        this.#logger.warn(
          { slot: this.#slot, line: line.slice(0, 200) },
          `not a message from the worker of ${this.#slot}: ${word.problem}`,
        );
        return;
      }
      try {
        on.word(word);
      } catch (error) {
        // A defect of ours: whatever it left undone, the death of the process settles.
        this.#logger.error({ slot: this.#slot, err: error }, `a message of the worker of ${this.#slot} could not be dealt with: killed`);
        this.kill('was killed after a defect of the service');
      }
    });
    events.on('data', (chunk: Buffer) => frames.push(chunk));

    const rate = new Rate(200, 50, performance.now());
    for (const output of [stdout, stderr]) {
      const lines = new LineSplitter(MAX_OUTPUT_LINE_BYTES, (line, cut) => {
        if (!rate.take(performance.now())) return;
        const dropped = rate.takeDropped();
        if (dropped > 0) on.output(`(${dropped} lines of output were dropped)`);
        // What a terminal would show of a line that a progress bar has written over and over.
        const text = line.trimEnd().slice(line.trimEnd().lastIndexOf('\r') + 1);
        if (text === '') return;
        if (output === stderr) {
          this.lastLines.push(text);
          if (this.lastLines.length > LAST_LINES) this.lastLines.shift();
        }
        this.#logger.debug({ slot: this.#slot, pid: this.pid }, text);
        on.output(cut ? `${text}…` : text);
      });
      output.on('data', (chunk: Buffer) => lines.push(chunk));
      output.on('end', () => lines.end());
    }

    let deaf: NodeJS.Timeout | undefined;
    let alive = true;
    const onDeaf = () => {
      if (!alive) return;
      deaf ??= setTimeout(() => {
        this.#logger.error({ slot: this.#slot, pid: this.pid }, `the worker of ${this.#slot} has closed its descriptors: killed`);
        this.kill('closed its descriptors and was killed');
      }, DEAF_MS);
    };
    events.on('end', onDeaf);
    control.on('error', onDeaf);
    control.on('close', onDeaf);
    control.resume();
    for (const stream of [stdout, stderr, events]) stream.on('error', () => {});
    return () => {
      alive = false;
      clearTimeout(deaf);
    };
  }

  async #awaitGroup(pid: number): Promise<void> {
    for (let wait = 1, waited = 0; ; wait = Math.min(wait * 2, 1000)) {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // ESRCH: nobody is left. EPERM: what is left are zombies (macOS).
        return;
      }
      await delay(wait);
      waited += wait;
      // Zombies that nobody reaps, as in a container whose first process does not, count as members but hold nothing.
      if (wait >= 8 && !(await hasLiveMember(pid))) return;
      if (waited > 5_000)
        this.#logger.error({ slot: this.#slot, pid }, `process group ${pid} of ${this.#slot} does not die: the slot stays taken`);
    }
  }
}

function environmentOf(options: ProcessOptions): Record<string, string> {
  const named = variablesNamed([...USUAL_VARIABLES, ...options.passOn], options.environment);
  const env: Record<string, string> = { MALLOC_ARENA_MAX: '2', PYTHONUNBUFFERED: '1', ...named };
  if (options.gpu !== undefined) env.CUDA_VISIBLE_DEVICES = String(options.gpu);
  return { ...env, ...options.variables };
}

function exitInWords(code: number | null, signal: NodeJS.Signals | null): string {
  if (signal === 'SIGKILL') return 'was killed by SIGKILL, most likely for want of memory';
  return signal ? `was killed by ${signal}` : `exited with code ${code}`;
}

async function spawnErrorInWords(error: NodeJS.ErrnoException, options: ProcessOptions): Promise<string> {
  // A missing folder to start in looks like a missing program.
  const cwdThere = await stat(options.cwd).then(
    (facts) => facts.isDirectory(),
    () => false,
  );
  if (!cwdThere) return `could not be started: the folder ${options.cwd} does not exist`;
  if (error.code === 'ENOENT') return `could not be started: there is no program '${options.command}'; install it or set its path`;
  if (error.code === 'EACCES') return `could not be started: '${options.command}' may not be executed`;
  return `could not be started: ${error.message}`;
}

/** Whether a process that is not a zombie belongs to the group; true where the system does not tell (no /proc). */
async function hasLiveMember(group: number): Promise<boolean> {
  const names = await readdir('/proc').catch(() => undefined);
  if (!names) return true;
  for (const name of names) {
    if (!/^\d+$/.test(name)) continue;
    // proc(5): pid (comm) state ppid pgrp ...; comm may hold anything but is followed by the last parenthesis.
    const line = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const [state, , pgrp] = line.slice(line.lastIndexOf(')') + 2).split(' ');
    if (Number(pgrp) === group && state !== 'Z' && state !== 'X') return true;
  }
  return false;
}

/** The last line of an error output, to be added to a sentence. */
export function lastWords(lines: readonly string[]): string {
  const last = lines.at(-1);
  return last ? `; it said last: ${last.slice(0, 300)}` : '';
}
