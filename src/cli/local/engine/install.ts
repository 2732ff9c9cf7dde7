// `ffjobs engine install facefusion`: a release of FaceFusion in a folder of its own, with a virtual environment of its own, held to the table of hooks
// before it counts as installed. Nothing of it comes into this repository, and no model is fetched here. An install that was broken off
// leaves no engine, and is made anew by the next one.
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join, relative, resolve } from 'node:path';
import {
  exclusively,
  type FoundPython,
  findPython,
  installRequirements,
  lastLine,
  makeEnvironment,
  missingModules,
  run,
  SetupProblem,
  versionOf,
} from '../python.ts';
import { packageOf } from '../service-engine.ts';
import type { Environment } from '../settings.ts';
import { type AskContext, ask, type Said } from './ask.ts';
import { type EngineRecord, type EngineRegistry, pythonIn } from './registry.ts';

/** The newest release that the adapter is tested with. */
export const TESTED_VERSION = '3.8.1';
export const OFFICIAL_SOURCE = 'https://github.com/facefusion/facefusion.git';

export interface InstallOptions {
  readonly registry: EngineRegistry;
  /** A tag or branch of the repository; undefined: that of a folder, else the tested one. */
  readonly version: string | undefined;
  /** URL of a git repository, or a folder: a repository or a plain checkout. */
  readonly source: string;
  /** One of the release's own choices, such as `default`, `cuda@13`, or its part before the @, for the newest of those. */
  readonly onnxruntime: string;
  /** To make the environment with; undefined: one that is found. */
  readonly python: string | undefined;
  readonly cwd: string;
  readonly env: Environment;
  readonly root: string;
  readonly signal?: AbortSignal;
  report(phase: string): void;
}

export interface Installed {
  readonly record: EngineRecord;
  /** What its check and its look at the models said. */
  readonly said: readonly Said[];
  /** It was there already, whole. */
  readonly already: boolean;
}

/** Throws `SetupProblem`. */
export async function installFacefusion(options: InstallOptions): Promise<Installed> {
  const { registry, signal, report } = options;
  await checkTools(options);
  const local = localSource(options);
  const version = options.version ?? (local?.version || TESTED_VERSION);
  if (!/^[a-z\d][\w.-]{0,60}$/i.test(version)) throw new SetupProblem(`'${version}' is no version: a tag or branch such as 3.8.1 or v4`);
  if (local?.version && local.version !== version)
    throw new SetupProblem(`${local.folder} is FaceFusion ${local.version}, not ${version}: leave out --version, or name another source`);
  const name = `facefusion-${version}`;
  const folder = registry.folderOf(name);
  mkdirSync(registry.folder, { recursive: true });
  await using _ = await exclusively(join(registry.folder, 'install.lock'), 'another process installs an engine; waiting for it', {
    report,
    signal,
  });
  const before = registry.get(name);
  if (before && before.onnxruntime === options.onnxruntime && before.source === options.source) {
    report(`looking at ${name}`);
    const said: Said[] = [];
    if ((await examine(before, options, said)) === undefined) {
      await addMarking(before.python, options);
      return { record: before, said, already: true };
    }
  }

  registry.remove(name);
  mkdirSync(folder, { recursive: true });
  const home = join(folder, 'source');
  report(`getting FaceFusion ${version} from ${options.source}`);
  const commit = local?.plain ? copyCheckout(local.folder, home) : await clone(local?.folder ?? options.source, version, home, options);
  if (!existsSync(join(home, 'facefusion', 'core.py')))
    throw new SetupProblem(`${options.source} at ${version} is no FaceFusion: it has no facefusion/core.py`);
  shareAssets(home, registry.assets);

  const base = await basePython(options);
  report(`making its environment with Python ${base.version}`);
  const venv = join(folder, 'venv');
  await makeEnvironment(base, venv, options.env, signal);
  const python = pythonIn(venv);
  const runtime = await runtimeOf(python, home, options);
  const requirements = join(folder, 'requirements.txt');
  const list = requirementsOf(readFileSync(join(home, 'requirements.txt'), 'utf8'), runtime, base.version);
  writeFileSync(requirements, `${list}${packagesIn(readFileSync(marking(options), 'utf8')).join('\n')}\n`);
  report(`installing its packages, ${runtime} among them (about 500 MB for the processor, more for a GPU)`);
  await installRequirements(python, [requirements], `the packages of FaceFusion ${version}`, options.env, signal);

  report('checking every hook, and looking for models');
  const said: Said[] = [];
  const problem = await examine({ home, python }, options, said);
  if (problem !== undefined) throw new SetupProblem(`FaceFusion ${version} is not as it has to be: ${problem}`);
  const facts = {
    version,
    commit,
    source: options.source,
    onnxruntime: options.onnxruntime,
    installedAt: new Date().toISOString(),
  };
  registry.record(name, facts);
  if (registry.get(registry.inUse() ?? '') === undefined) registry.use(name);
  return { record: registry.get(name)!, said, already: false };
}

async function checkTools({ env, signal }: InstallOptions): Promise<void> {
  const missing: string[] = [];
  for (const [tool, flag] of Object.entries({ git: '--version', ffmpeg: '-version', ffprobe: '-version', curl: '--version' })) {
    if ((await run(tool, [flag], env, signal)).code === 'ENOENT') missing.push(tool);
  }
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((tool) => (tool === 'ffprobe' ? 'ffmpeg' : tool)))].join(' ');
  throw new SetupProblem(
    `${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} not on the PATH, and FaceFusion needs ${missing.length === 1 ? 'it' : 'them'}: ` +
      `install ${missing.length === 1 ? 'it' : 'them'} (Debian, Ubuntu: apt install ${packages}; macOS: brew install ${packages})`,
  );
}

interface LocalSource {
  readonly folder: string;
  /** Files without a repository. */
  readonly plain: boolean;
  /** Of a plain checkout. */
  readonly version: string | undefined;
}

function localSource({ source, cwd }: InstallOptions): LocalSource | undefined {
  if (/^[a-z+]+:\/\//i.test(source) || /^[\w.-]+@[\w.-]+:/.test(source)) return undefined;
  const folder = resolve(cwd, source);
  if (!existsSync(folder) || !statSync(folder).isDirectory())
    throw new SetupProblem(`--source is '${source}', which is neither a URL nor a folder here`);
  const plain = !existsSync(join(folder, '.git')) && !existsSync(join(folder, 'HEAD'));
  if (!plain) return { folder, plain, version: undefined };
  try {
    const text = readFileSync(join(folder, 'facefusion', 'metadata.py'), 'utf8');
    return { folder, plain, version: /'version'\s*:\s*'([^']+)'/.exec(text)?.[1] };
  } catch {
    throw new SetupProblem(`--source is '${source}', which is neither a git repository nor a checkout of FaceFusion`);
  }
}

/** What its use leaves in a checkout stays there. */
const NOT_COPIED = new Set(['.git', '.assets', '.caches', '.jobs', '.venv', 'venv', '__pycache__']);

function copyCheckout(from: string, to: string): undefined {
  cpSync(from, to, { recursive: true, filter: (path) => path === from || !NOT_COPIED.has(basename(path)) });
}

async function clone(source: string, version: string, home: string, { env, signal }: InstallOptions): Promise<string> {
  const quiet = { ...env, GIT_TERMINAL_PROMPT: '0' };
  const args = ['-c', 'advice.detachedHead=false', 'clone', '--quiet', '--depth', '1', '--branch', version, '--', source, home];
  const cloned = await run('git', args, quiet, signal);
  if (cloned.code !== 0) {
    const why = lastLine(`${cloned.stdout}\n${cloned.stderr}`, /^fatal: |not found/m).replace(/^fatal: /, '');
    throw new SetupProblem(`git could not get ${version} from ${source}: ${why}. Look at the version, the address and the network`);
  }
  return (await run('git', ['-C', home, 'rev-parse', 'HEAD'], quiet, signal)).stdout.trim();
}

function shareAssets(home: string, assets: string): void {
  mkdirSync(join(assets, 'models'), { recursive: true });
  const own = join(home, '.assets');
  rmSync(own, { recursive: true, force: true });
  symlinkSync(process.platform === 'win32' ? assets : relative(home, assets), own, 'junction');
}

/** Its packages are pinned for Python 3.12, which is looked for first. */
async function basePython({ python, env, signal }: InstallOptions): Promise<FoundPython> {
  for (const command of python === undefined ? ['python3.12', 'python3.13'] : [python]) {
    const version = await versionOf(command, [], env, signal);
    if (version !== undefined) return { command, args: [], version };
  }
  if (python !== undefined) throw new SetupProblem(`--python is '${python}', which is not a Python that runs`);
  return findPython(env, signal);
}

/** Says which packages of onnxruntime the release knows on this machine, in its own words. */
const RUNTIMES = `import json, sys
sys.path.insert(0, sys.argv[1])
from facefusion.installer import ONNXRUNTIME_SET
print(json.dumps({name: "==".join(package) for name, package in ONNXRUNTIME_SET.items()}))`;

async function runtimeOf(python: string, home: string, { onnxruntime, env, signal }: InstallOptions): Promise<string> {
  const { code, stdout, stderr } = await run(python, ['-c', RUNTIMES, home], env, signal);
  if (code !== 0) throw new SetupProblem(`FaceFusion does not say which onnxruntime it knows: ${lastLine(stderr)}`);
  const known = JSON.parse(stdout) as Record<string, string>;
  const newest = Object.keys(known)
    .filter((name) => name.split('@')[0] === onnxruntime)
    .at(-1);
  const found = known[onnxruntime] ?? (newest === undefined ? undefined : known[newest]);
  if (found === undefined)
    throw new SetupProblem(`--onnxruntime is '${onnxruntime}'; this release knows here: ${Object.keys(known).join(', ')}`);
  return found;
}

/** What marks results as made by AI: signed beside the engine, by the same Python, if the operator wants it (FFJOBS_PROVENANCE). */
function marking({ root }: InstallOptions): string {
  return join(root, 'worker', 'requirements-provenance.txt');
}

/** To an environment that was made without. */
async function addMarking(python: string, options: InstallOptions): Promise<void> {
  const { env, signal, report } = options;
  const missing = await missingModules(python, ['c2pa', 'cryptography'], env, signal);
  if (missing.length === 0) return;
  report(`installing what marks results: ${missing.join(', ')}`);
  await installRequirements(python, [marking(options)], 'what marks results', env, signal);
}

function packagesIn(list: string): string[] {
  return list
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
}

/** What a run without a window needs of the release's own list; with the onnxruntime that was chosen, and PyAV for this service. */
export function requirementsOf(list: string, runtime: string, pythonVersion: string): string {
  const minor = Number(pythonVersion.split('.')[1]);
  const kept = packagesIn(list).filter((line) => !/^(gradio|onnxruntime)/.test(line));
  // Some of the pinned versions are not made for an older Python: the newest before them is.
  const fitted = [...kept, runtime].map((line) => (minor < 12 ? line.replace('==', '<=') : line));
  return `${[...fitted, packageOf('av', pythonVersion)].join('\n')}\n`;
}

/** Undefined: all is well but, perhaps, for models. */
async function examine(program: { home: string; python: string }, context: AskContext, said: Said[]): Promise<string | undefined> {
  const problem = await ask(program, ['check'], context, (one) => said.push(one));
  if (problem !== undefined) return problem;
  await ask(program, ['models'], context, (one) => said.push(one));
  return said.find((one) => one.kind === 'error')?.message;
}
