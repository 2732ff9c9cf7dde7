// What a media file really is, by its content. Always true here: nothing of a caller is opened in this process or in the one that it starts; the
// children that open it have no secrets in their environment and die alone. A verdict belongs to the bytes and is kept by their digest.
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Writable } from 'node:stream';
import type { Failure } from '../jobs/job.ts';

export type Kind = 'image' | 'video' | 'audio';

/** What was counted and decoded. Sizes in pixels, upright; 0 where it does not apply. */
export interface Facts {
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly seconds: number;
  /** Frames a second. */
  readonly rate: number;
  readonly streams: number;
  /** Whether there is sound. */
  readonly audio: boolean;
  readonly codec: string;
}

/** What is taken at most. */
export interface ProbeLimits {
  readonly imagePixels: number;
  readonly videoPixels: number;
  /** Pixels of the longer side. */
  readonly side: number;
  readonly frames: number;
  readonly seconds: number;
  readonly streams: number;
}

export interface Subject {
  /** SHA-256 of the file at the path. */
  readonly digest: string;
  readonly kind: Kind;
  /** What the first bytes say. */
  readonly mediaType: string;
}

export interface Probe extends AsyncDisposable {
  /** Says what the file is, or why it is refused; throws when that cannot be found out, or with the signal's reason. */
  probe(path: string, subject: Subject, signal: AbortSignal): Promise<Facts | Failure>;
}

export interface ProbeOptions {
  /** A Python with the packages of the workers. */
  readonly command: string;
  /** Folder of the package `facefusion_worker`. */
  readonly packageDir: string;
  /** Where the few variables of the process are taken from. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly limits: ProbeLimits;
  /** Files that are examined at once. */
  readonly children: number;
  /** Of one child: address space in bytes, processor time and time by the clock in milliseconds. */
  readonly memoryBytes: number;
  readonly cpuMs: number;
  readonly wallMs: number;
  /** Verdicts that are kept. */
  readonly verdicts: number;
  readonly log: { warn(fields: object, message: string): void };
}

const VARIABLES = ['PATH', 'LANG', 'LC_ALL', 'LD_LIBRARY_PATH', 'SYSTEMROOT'];
const LAST_LINES = 5;

type Verdict = Facts | Failure;

/** Of the program, as `probe/nursery.py` writes it. */
type Answer =
  | { readonly facts: Facts }
  | { readonly refused: { readonly reason: string; readonly message: string } }
  | { readonly died: string }
  | { readonly gone: true };

/** Starts the process ahead of the first file. That it cannot be started is told by each `probe`. */
export function openProbe(options: ProbeOptions): Probe {
  return new Examiner(options);
}

class FileGone extends Error {
  override readonly name = 'FileGone';
}

/** Those that wait for one verdict. */
interface Examination {
  readonly verdict: Promise<Verdict>;
  readonly leave: () => void;
  waiters: number;
}

class Examiner implements Probe {
  readonly #options: ProbeOptions;
  /** By digest and what it was taken for, least recently asked for first. */
  readonly #verdicts = new Map<string, Verdict>();
  readonly #under = new Map<string, Examination>();
  #nursery: Nursery;
  #closed = false;

  constructor(options: ProbeOptions) {
    this.#options = options;
    this.#nursery = new Nursery(options);
  }

  async probe(path: string, subject: Subject, signal: AbortSignal): Promise<Verdict> {
    signal.throwIfAborted();
    const key = `${subject.digest} ${subject.kind} ${subject.mediaType}`;
    const kept = this.#verdicts.get(key);
    if (kept) {
      this.#keep(key, kept);
      return kept;
    }
    const joined = this.#under.get(key);
    const examination = joined ?? this.#begin(key, path, subject);
    examination.waiters++;
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = () => reject(signal.reason);
    signal.addEventListener('abort', leave, { once: true });
    try {
      return await Promise.race([examination.verdict, left]);
    } catch (error) {
      // The job that brought the file has left and taken it along; ours has the same bytes.
      if (joined && error instanceof FileGone && !signal.aborted) return await this.probe(path, subject, signal);
      throw error;
    } finally {
      signal.removeEventListener('abort', leave);
      examination.waiters--;
      // Its file goes with the job that brought it.
      if (examination.waiters === 0) examination.leave();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#nursery.close();
  }

  #begin(key: string, path: string, subject: Subject): Examination {
    const leaving = new AbortController();
    const verdict = this.#examine(path, subject, leaving.signal)
      .then(({ verdict, lasting }) => {
        if (lasting) this.#keep(key, verdict);
        return verdict;
      })
      .finally(() => {
        if (this.#under.get(key) === examination) this.#under.delete(key);
      });
    const examination: Examination = {
      verdict,
      waiters: 0,
      leave: () => {
        if (this.#under.get(key) === examination) this.#under.delete(key);
        leaving.abort();
      },
    };
    verdict.catch(() => {});
    this.#under.set(key, examination);
    return examination;
  }

  async #examine(path: string, subject: Subject, signal: AbortSignal): Promise<{ verdict: Verdict; lasting: boolean }> {
    for (let tries = 1; ; tries++) {
      if (this.#nursery.problem !== undefined && !this.#closed) this.#nursery = new Nursery(this.#options);
      try {
        return verdictOf(await this.#nursery.ask({ path, kind: subject.kind, type: subject.mediaType }, signal), this.#options);
      } catch (error) {
        // The process itself went, perhaps for want of memory; once may be chance.
        if (tries === 2 || this.#closed || signal.aborted || error instanceof FileGone) throw error;
      }
    }
  }

  #keep(key: string, verdict: Verdict): void {
    this.#verdicts.delete(key);
    this.#verdicts.set(key, verdict);
    for (const [oldest] of this.#verdicts) {
      if (this.#verdicts.size <= this.#options.verdicts) break;
      this.#verdicts.delete(oldest);
    }
  }
}

function verdictOf(answer: Answer, { cpuMs, wallMs, log }: ProbeOptions): { verdict: Verdict; lasting: boolean } {
  const refused = (reason: string, message: string, retryable = false): Verdict => ({ reason, message, retryable });
  if ('facts' in answer) return { verdict: answer.facts, lasting: true };
  if ('refused' in answer) return { verdict: refused(answer.refused.reason, `this ${answer.refused.message}`), lasting: true };
  if ('gone' in answer) throw new FileGone('the file to be examined is not there any more');
  if (answer.died === 'cpu') {
    return { verdict: refused('INPUT_TOO_COMPLEX', `this takes more than ${cpuMs / 1000} seconds to examine`), lasting: true };
  }
  // By the clock a busy machine may be to blame.
  if (answer.died === 'late') {
    return { verdict: refused('INPUT_TOO_COMPLEX', `this was not examined within ${wallMs / 1000} seconds`, true), lasting: false };
  }
  log.warn({ died: answer.died }, 'a file ended the process that examined it');
  return { verdict: refused('INPUT_NOT_READABLE', 'this breaks the program that reads it'), lasting: false };
}

/** The process that forks, and the questions that it has not answered yet. */
class Nursery {
  /** Why it is not there any more. */
  problem: string | undefined;
  readonly #limits: object;
  readonly #program: ChildProcess;
  readonly #questions = new Map<number, PromiseWithResolvers<Answer>>();
  readonly #lastLines: string[] = [];
  readonly #ended: Promise<void>;
  #count = 0;

  constructor(options: ProbeOptions) {
    const { limits, children, memoryBytes, cpuMs, wallMs } = options;
    this.#limits = {
      image_pixels: limits.imagePixels,
      video_pixels: limits.videoPixels,
      side: limits.side,
      frames: limits.frames,
      seconds: limits.seconds,
      streams: limits.streams,
    };
    const figures = { children, memory: memoryBytes, 'cpu-seconds': cpuMs / 1000, 'wall-seconds': wallMs / 1000 };
    const flags = Object.entries(figures).flatMap(([name, value]) => [`--${name}`, `${value}`]);
    const env: Record<string, string> = { PYTHONPATH: options.packageDir, PYTHONDONTWRITEBYTECODE: '1' };
    for (const name of VARIABLES) if (options.environment[name] !== undefined) env[name] = options.environment[name];
    this.#program = spawn(options.command, ['-m', 'facefusion_worker.probe', ...flags], { env, stdio: ['pipe', 'pipe', 'pipe'] });
    this.#ended = new Promise((resolve) => {
      const end = (problem: string) => {
        this.problem ??= problem;
        const last = this.#lastLines.length > 0 ? `; it said last: ${this.#lastLines.join(' ').slice(-500)}` : '';
        for (const question of this.#questions.values())
          question.reject(new Error(`media cannot be examined: the process ${this.problem}${last}`));
        this.#questions.clear();
        resolve();
      };
      this.#program.once('error', (error) => end(`could not be started: ${error.message}`));
      this.#program.once('close', (code, signal) => end(signal ? `was killed by ${signal}` : `exited with code ${code}`));
    });
    this.#program.stdin?.on('error', () => {});
    if (this.#program.stdout) createInterface({ input: this.#program.stdout }).on('line', (line) => this.#hear(line));
    if (this.#program.stderr) {
      createInterface({ input: this.#program.stderr }).on('line', (line) => {
        this.#lastLines.push(line);
        if (this.#lastLines.length > LAST_LINES) this.#lastLines.shift();
      });
    }
  }

  async ask(question: { readonly path: string; readonly kind: Kind; readonly type: string }, signal: AbortSignal): Promise<Answer> {
    if (this.problem !== undefined) throw new Error(`media cannot be examined: the process ${this.problem}`);
    const id = ++this.#count;
    const answer = Promise.withResolvers<Answer>();
    this.#questions.set(id, answer);
    const leave = () => {
      if (!this.#questions.delete(id)) return;
      this.#write({ leave: id });
      answer.reject(new Error('nobody waits for this verdict any more'));
    };
    signal.addEventListener('abort', leave, { once: true });
    this.#write({ id, ...question, limits: this.#limits });
    try {
      return await answer.promise;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  /** The process ends when it hears no more, and takes its children with it. */
  async close(): Promise<void> {
    this.problem ??= 'has been stopped';
    this.#program.stdin?.end();
    await this.#ended;
  }

  #write(line: object): void {
    const input: Writable | null = this.#program.stdin;
    if (input?.writable) input.write(`${JSON.stringify(line)}\n`);
  }

  #hear(line: string): void {
    let said: Answer & { readonly id?: number };
    try {
      said = JSON.parse(line) as typeof said;
    } catch {
      // Nothing that it says can be trusted any more; its end is told to all who wait.
      this.#program.kill('SIGKILL');
      return;
    }
    const { id, ...answer } = said;
    if (id === undefined) return;
    this.#questions.get(id)?.resolve(answer as Answer);
    this.#questions.delete(id);
  }
}
