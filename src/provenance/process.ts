// The process that marks results, `facefusion_worker.provenance`. It alone reads the private key: what is handed to it here is a path. Always true:
// it has no variables of the service's but where programs and libraries are found, and dies with whoever wants no more of it.
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Paths, and where time stamps come from. */
export interface SignerFiles {
  readonly certificate: string;
  readonly key: string;
  readonly trust: string | undefined;
  readonly timestamps: string | undefined;
}

export interface MarkingProgram {
  /** A Python with the packages of the workers and worker/requirements-provenance.txt. */
  readonly command: string;
  /** Folder of the package `facefusion_worker`. */
  readonly packageDir: string;
  /** Where the few variables of the process are taken from. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** 0: no limit. */
  readonly memoryBytes?: number;
}

const VARIABLES = ['PATH', 'LANG', 'LC_ALL', 'LD_LIBRARY_PATH', 'SYSTEMROOT', 'TMPDIR'];
const LAST_LINES = 5;

/** One process, and what it says line by line. */
export class MarkingProcess {
  readonly #child: ChildProcess;
  readonly #answers: string[] = [];
  readonly #lastLines: string[] = [];
  #waiting: PromiseWithResolvers<string> | undefined;
  #problem: string | undefined;

  constructor(program: MarkingProgram, args: readonly string[]) {
    const env: Record<string, string> = { PYTHONPATH: program.packageDir, PYTHONDONTWRITEBYTECODE: '1' };
    for (const name of VARIABLES) if (program.environment[name] !== undefined) env[name] = program.environment[name];
    const memory = program.memoryBytes ? ['--memory', `${program.memoryBytes}`] : [];
    this.#child = spawn(program.command, ['-m', 'facefusion_worker.provenance', ...args, ...memory], { env, stdio: 'pipe' });
    const end = (problem: string) => {
      this.#problem ??= problem;
      this.#waiting?.reject(this.#gone());
    };
    this.#child.once('error', (error) => end(`could not be started: ${error.message}`));
    this.#child.once('close', (code, signal) => end(signal ? `was killed by ${signal}` : `exited with code ${code}`));
    this.#child.stdin?.on('error', () => {});
    if (this.#child.stdout) {
      createInterface({ input: this.#child.stdout }).on('line', (line) => {
        if (this.#waiting) this.#waiting.resolve(line);
        else this.#answers.push(line);
        this.#waiting = undefined;
      });
    }
    if (this.#child.stderr) {
      createInterface({ input: this.#child.stderr }).on('line', (line) => {
        this.#lastLines.push(line);
        if (this.#lastLines.length > LAST_LINES) this.#lastLines.shift();
      });
    }
  }

  get ended(): boolean {
    return this.#problem !== undefined;
  }

  /** Of what it said to people, the end. */
  get lastLines(): readonly string[] {
    return this.#lastLines;
  }

  say(line: object): void {
    this.#child.stdin?.write(`${JSON.stringify(line)}\n`);
  }

  /** Its next answer. Throws when it ends without one, and with the signal's reason. */
  async hear<T>(signal?: AbortSignal): Promise<T> {
    const known = this.#answers.shift();
    if (known !== undefined) return JSON.parse(known) as T;
    if (this.#problem !== undefined) throw this.#gone();
    const waiting = Promise.withResolvers<string>();
    this.#waiting = waiting;
    const leave = () => waiting.reject(signal?.reason);
    signal?.addEventListener('abort', leave, { once: true });
    try {
      if (signal?.aborted) leave();
      return JSON.parse(await waiting.promise) as T;
    } finally {
      this.#waiting = undefined;
      signal?.removeEventListener('abort', leave);
    }
  }

  /** It is not needed any more, whatever it does. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #gone(): Error {
    const last = this.#lastLines.length > 0 ? `; it said last: ${this.#lastLines.join(' ').slice(-500)}` : '';
    return new Error(`the process that marks results ${this.#problem}${last}`);
  }
}

/** What the certificate is, as a trial with it has shown. */
export interface Fit {
  readonly signer: string;
  readonly issuer: string;
  readonly certificate_sha256: string;
  readonly expires: string;
  readonly warnings: readonly string[];
}

export interface Unfit {
  readonly message: string;
  readonly fix: string;
}

/** How long a trial may take; that of a time stamp among it. */
const TRIAL_MS = 60_000;

/** Signs a trial with the certificate. What stands in the way is answered in words. */
export async function checkSigner(program: MarkingProgram, files: SignerFiles): Promise<Fit | Unfit> {
  const answer = await ask<{ readonly fit: Fit } | { readonly unfit: Unfit }>(program, ['check'], files);
  return 'fit' in answer ? answer.fit : answer.unfit;
}

/** Makes a certificate for trials, and answers the paths of its files by their names. */
export async function makeTrialCertificate(program: MarkingProgram, folder: string): Promise<Readonly<Record<string, string>> | Unfit> {
  type Answer = { readonly made: Readonly<Record<string, string>> } | { readonly unfit: Unfit };
  const answer = await ask<Answer>(program, ['certificate', '--out', folder], undefined);
  return 'made' in answer ? answer.made : answer.unfit;
}

async function ask<T>(
  program: MarkingProgram,
  args: readonly string[],
  question: object | undefined,
): Promise<T | { readonly unfit: Unfit }> {
  const process = new MarkingProcess(program, args);
  try {
    if (question) process.say(question);
    return await process.hear<T>(AbortSignal.timeout(TRIAL_MS));
  } catch (error) {
    const message = (error as Error).name === 'TimeoutError' ? `it did not end within ${TRIAL_MS / 1000} s` : (error as Error).message;
    return {
      unfit: { message: `results cannot be marked: ${message}`, fix: 'look at FFJOBS_PROVENANCE_PYTHON and FFJOBS_PROVENANCE_TSA' },
    };
  } finally {
    process.kill();
  }
}
