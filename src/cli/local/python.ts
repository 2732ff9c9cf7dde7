// The Python that runs the workers: a virtual environment in `.venv`, made when it is missing and brought up to date when the requirements
// have changed, by one process at a time. What is there and right is used without a write. Every problem is one sentence with its fix.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';

const OLDEST = [3, 10] as const;
const CANDIDATES = ['python3', 'python', 'python3.14', 'python3.13', 'python3.12', 'python3.11', 'python3.10'];
/** What the worker imports from others. */
const MODULES = ['av', 'cv2', 'numpy'];
const DEV_MODULES = ['pytest', 'ruff'];

/** Something on this machine that stands in the way; the message says what it is and how to mend it. */
export class SetupProblem extends Error {
  override readonly name = 'SetupProblem';
}

export interface Origin {
  /** "FACEFUSION_PYTHON" */
  readonly name: string;
  /** What to do instead of mending it. */
  readonly instead: string;
  /** Arguments of pip that bring what is missing. */
  readonly packages: (missing: readonly string[], version: string) => readonly string[];
}

export interface PythonOptions {
  /** The repository, or where the package is installed: holds `worker/` and gets `.venv`. */
  readonly root: string;
  /** A Python of the operator's own: used as it is, nothing is installed. */
  readonly given: string | undefined;
  /** Where that comes from; FFJOBS_PYTHON unless said otherwise. */
  readonly origin?: Origin | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** With what the worker's tests need. */
  readonly dev: boolean;
  readonly signal?: AbortSignal;
  /** Called as each phase begins. */
  report(phase: string): void;
}

/** Path of a Python that has all that the workers need. Throws `SetupProblem`. */
export async function workerPython(options: PythonOptions): Promise<string> {
  if (options.given !== undefined) return givenPython(options.given, options);
  const wanted = await digests(options);
  const python = venvPython(options.root);
  if (await isReady(options.root, wanted)) return python;
  const cache = join(options.root, '.cache');
  await mkdir(cache, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    throw new SetupProblem(
      `cannot write in ${options.root} (${error.code}): make it writable for this user, or set FFJOBS_PYTHON to a Python that has the packages of worker/requirements.txt`,
    );
  });
  await using _ = await exclusively(join(cache, 'venv.lock'), 'another process prepares the Python environment; waiting for it', options);
  if (await isReady(options.root, wanted)) return python;
  await prepare(wanted, options);
  return python;
}

export function venvPython(root: string): string {
  return process.platform === 'win32' ? join(root, '.venv', 'Scripts', 'python.exe') : join(root, '.venv', 'bin', 'python');
}

export type VenvState = 'ready' | 'missing' | 'outdated';

/** Whether `workerPython` would have something to do. */
export async function venvState(root: string): Promise<VenvState> {
  if (!existsSync(venvPython(root))) return 'missing';
  return (await isReady(root, await digests({ root, dev: false }))) ? 'ready' : 'outdated';
}

export interface FoundPython {
  readonly command: string;
  readonly args: readonly string[];
  readonly version: string;
}

/** A Python that is new enough, from the PATH. */
export async function findPython(env: PythonOptions['env'], signal?: AbortSignal): Promise<FoundPython> {
  const tooOld: string[] = [];
  const candidates = [
    ...CANDIDATES.map((command) => ({ command, args: [] })),
    ...(process.platform === 'win32' ? [{ command: 'py', args: ['-3'] }] : []),
  ];
  for (const { command, args } of candidates) {
    const version = await versionOf(command, args, env, signal);
    if (version === undefined) continue;
    if (isNewEnough(version)) return { command, args, version };
    tooOld.push(`${command} is ${version}`);
  }
  const what =
    tooOld.length > 0
      ? `Python is too old here: ${tooOld.join(', ')}, and 3.10 or newer is needed`
      : 'Python 3.10 or newer is needed and none was found on the PATH';
  throw new SetupProblem(
    `${what}. Install it (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python; Windows: python.org)`,
  );
}

/** "3.12.1"; undefined: it does not run. */
export async function versionOf(
  command: string,
  args: readonly string[],
  env: PythonOptions['env'],
  signal?: AbortSignal,
): Promise<string | undefined> {
  const { code, stdout } = await run(command, [...args, '-c', 'import sys; print("%d.%d.%d" % sys.version_info[:3])'], env, signal);
  const version = stdout.trim();
  return code === 0 && /^\d+\.\d+\.\d+$/.test(version) ? version : undefined;
}

function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}

async function givenPython(given: string, { root, env, dev, signal, origin }: PythonOptions): Promise<string> {
  const files = ['requirements.txt', ...(dev ? ['requirements-dev.txt'] : [])];
  const { name, instead, packages } = origin ?? {
    name: 'FFJOBS_PYTHON',
    instead: 'unset it to have one made in .venv',
    packages: () => files.map((file) => `-r ${join(root, 'worker', file)}`),
  };
  const version = await versionOf(given, [], env, signal);
  if (version === undefined) throw new SetupProblem(`${name} is '${given}', which is not a Python that runs: correct it, or ${instead}`);
  if (!isNewEnough(version))
    throw new SetupProblem(`${name} is '${given}', Python ${version}, and 3.10 or newer is needed: correct it, or ${instead}`);
  const missing = await missingModules(given, dev ? [...MODULES, ...DEV_MODULES] : MODULES, env, signal);
  if (missing.length > 0) {
    const install = packages(missing, version).join(' ');
    throw new SetupProblem(
      `${name} is '${given}', which lacks ${missing.join(', ')}: run \`${given} -m pip install ${install}\`, or ${instead}`,
    );
  }
  return given;
}

/** Those of `modules` that `python` cannot import. */
export async function missingModules(
  python: string,
  modules: readonly string[],
  env: PythonOptions['env'],
  signal?: AbortSignal,
): Promise<string[]> {
  const script = 'import importlib, sys\nfor name in sys.argv[1:]:\n  try: importlib.import_module(name)\n  except Exception: print(name)';
  const { code, stdout } = await run(python, ['-c', script, ...modules], env, signal);
  return code === 0 ? stdout.split(/\s+/).filter(Boolean) : [...modules];
}

export const WORKER_MODULES: readonly string[] = MODULES;

type Digests = Readonly<Record<string, string>>;

async function digests({ root, dev }: { readonly root: string; readonly dev: boolean }): Promise<Digests> {
  const entries = ['requirements.txt', ...(dev ? ['requirements-dev.txt'] : [])].map(async (file) => {
    const bytes = await readFile(join(root, 'worker', file)).catch(() => {
      throw new SetupProblem(`worker/${file} is missing in ${root}: get the whole repository again`);
    });
    return [file, createHash('sha256').update(bytes).digest('hex')] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

async function stamp(root: string): Promise<Digests> {
  try {
    return JSON.parse(await readFile(stampPath(root), 'utf8')) as Digests;
  } catch {
    return {};
  }
}
const stampPath = (root: string) => join(root, '.venv', 'facefusion-jobs.json');

async function isReady(root: string, wanted: Digests): Promise<boolean> {
  // A link to a Python that is gone does not exist.
  if (!existsSync(venvPython(root))) return false;
  const installed = await stamp(root);
  return Object.entries(wanted).every(([file, digest]) => installed[file] === digest);
}

async function prepare(wanted: Digests, options: PythonOptions): Promise<void> {
  const { root, env, signal, report } = options;
  const folder = join(root, '.venv');
  const python = venvPython(root);
  const version = existsSync(python) ? await versionOf(python, [], env, signal) : undefined;
  if (version === undefined || !isNewEnough(version)) {
    const base = await findPython(env, signal);
    report(`making the Python environment .venv with Python ${base.version}`);
    await makeEnvironment(base, folder, env, signal);
  }
  report('installing the worker’s Python packages into .venv (about 300 MB, once)');
  const files = Object.keys(wanted).map((file) => join(root, 'worker', file));
  // What is imported is compiled then, by those who own the folder: of all that there is pip would do it for a third of its time.
  await installRequirements(python, files, "the worker's packages", env, signal, ['--no-compile']);
  const [broken] = await missingModules(python, MODULES, env, signal);
  if (broken !== undefined) {
    throw new SetupProblem(
      `the worker's packages are installed, and Python cannot import ${broken}: \`${python} -c "import ${broken}"\` says why. Mend that and run the command again`,
    );
  }
  // Last and whole: what is stamped is installed.
  await writeFile(`${stampPath(root)}.new`, JSON.stringify({ ...(await stamp(root)), ...wanted }));
  await rename(`${stampPath(root)}.new`, stampPath(root));
}

/** A virtual environment in `folder`, in the place of whatever is there. Throws `SetupProblem`. */
export async function makeEnvironment(base: FoundPython, folder: string, env: PythonOptions['env'], signal?: AbortSignal): Promise<void> {
  const made = await run(base.command, [...base.args, '-m', 'venv', '--clear', folder], env, signal);
  if (made.code === 0) return;
  await rm(folder, { recursive: true, force: true });
  throw venvProblem(base, folder, made);
}

/** `what` is installed, in words: "the worker's packages"; `flags` are pip's. Throws `SetupProblem`. */
export async function installRequirements(
  python: string,
  files: readonly string[],
  what: string,
  env: PythonOptions['env'],
  signal?: AbortSignal,
  flags: readonly string[] = [],
): Promise<void> {
  const list = [...flags, ...files.flatMap((file) => ['-r', file])];
  const installed = await run(python, ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', '-q', ...list], env, signal);
  if (installed.code !== 0) throw pipProblem(installed, what);
}

function venvProblem(base: FoundPython, folder: string, { stdout, stderr }: Finished): SetupProblem {
  const said = `${stdout}\n${stderr}`;
  if (/ensurepip|No module named venv/.test(said)) {
    const [major, minor] = base.version.split('.');
    return new SetupProblem(
      `Python ${base.version} cannot make virtual environments, its module venv is not whole. Install it (Debian, Ubuntu: apt install python3-venv, or python${major}.${minor}-venv)`,
    );
  }
  const why = lastLine(said);
  if (/Permission denied|Read-only file system/.test(said))
    return new SetupProblem(`cannot write ${folder} (${why}): make it writable for this user`);
  return new SetupProblem(`cannot make the Python environment in ${folder}: ${why}. Remove the folder and run the command again`);
}

function pipProblem({ stdout, stderr }: Finished, what: string): SetupProblem {
  const said = `${stdout}\n${stderr}`;
  const why = lastLine(said, /^ERROR: /m);
  if (/No space left/.test(said)) return new SetupProblem(`the disk is full: there is no room for ${what}`);
  const offline = /NewConnectionError|Max retries exceeded|name resolution|Network is unreachable|ConnectTimeout|ProxyError/i.test(said);
  return new SetupProblem(
    offline
      ? `pip could not reach its package index (${why}): connect to the network, or point pip at an index of yours with PIP_INDEX_URL, and run the command again`
      : `pip could not install ${what}: ${why}. Mend that and run the command again; it goes on where it stopped`,
  );
}

/** The last line of what a program said, of those that `preferred` marks where there are such. */
export function lastLine(text: string, preferred?: RegExp): string {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('[notice]'));
  const marked = preferred === undefined ? [] : lines.filter((line) => preferred.test(line));
  return (marked.at(-1) ?? lines.at(-1) ?? 'it gave no reason').replace(/^ERROR: /, '');
}

/**
 * One process at a time. The lock is SQLite's on an empty database: the system frees it when its holder dies, so there is never a stale one.
 */
export async function exclusively(
  path: string,
  waiting: string,
  { report, signal }: Pick<PythonOptions, 'report' | 'signal'>,
): Promise<AsyncDisposable> {
  let told = false;
  while (true) {
    const lock = new DatabaseSync(path, { timeout: 0 });
    try {
      lock.exec('BEGIN EXCLUSIVE');
      return {
        [Symbol.asyncDispose]: async () => {
          lock.exec('ROLLBACK');
          lock.close();
        },
      };
    } catch (error) {
      lock.close();
      if (!/locked/.test(String(error))) throw error;
    }
    if (!told) report(waiting);
    told = true;
    await pause(200, undefined, { signal });
  }
}

interface Finished {
  readonly code: number | string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end; one that does not start ends with its error's name as the code. */
export function run(command: string, args: readonly string[], env: PythonOptions['env'], signal?: AbortSignal): Promise<Finished> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { env: { ...env }, signal, maxBuffer: 64 * 2 ** 20, windowsHide: true }, (error, stdout, stderr) => {
      if (signal?.aborted) reject(signal.reason);
      else resolve({ code: error === null ? 0 : (error.code ?? null), stdout, stderr: stderr || (error?.message ?? '') });
    });
  });
}
