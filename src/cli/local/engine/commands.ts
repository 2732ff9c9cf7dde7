// `ffjobs engine install | list | use | remove | warm`: the FaceFusions of this machine, several versions side by side. Answers go to standard output, the
// long way there to standard error; what stands in the way is one sentence with its fix.
import type { Command } from 'commander';
import type { Config } from '../../../config.ts';
import { CliError, Exit, type ExitCode } from '../../remote/errors.ts';
import { size } from '../../remote/progress.ts';
import { answer, answerJson, say, type Terminal } from '../../remote/terminal.ts';
import { showPhases } from '../phases.ts';
import { engineInWords } from '../service-engine.ts';
import { dataFolder, type Environment, readSettings } from '../settings.ts';
import { ask, programOf, type Said } from './ask.ts';
import { installFacefusion, OFFICIAL_SOURCE, TESTED_VERSION } from './install.ts';
import { type EngineRecord, EngineRegistry } from './registry.ts';

export interface EngineContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  readonly root: string;
  finish(code: ExitCode): void;
}

/** What it is called where none of the installed ones is meant. */
const NONE = 'classical';

export function addEngineCommands(program: Command, context: EngineContext): void {
  const json = () => program.opts<{ json: boolean }>().json;
  const engine = program.command('engine').description('the FaceFusions of this machine: install, list, use, remove, warm');
  engine
    .command('install')
    .description('get a release of FaceFusion with an environment of its own, and check that the service can run it')
    .argument('<name>', 'facefusion')
    .option('--version <version>', `a tag or branch (default: ${TESTED_VERSION}, or that of a folder)`)
    .option('--source <folder-or-url>', 'a git repository by URL or folder, or a plain checkout', OFFICIAL_SOURCE)
    .option('--onnxruntime <choice>', "one of the release's choices: default, cuda, openvino, rocm, ...", 'default')
    .option('--python <command>', 'the Python to make the environment with (default: 3.12 where there is one)')
    .action(async (name: string, options: InstallFlags) => {
      if (name !== 'facefusion') throw new CliError(Exit.invalid, `there is no engine '${name}' to install; there is: facefusion`);
      await install(context, options, json());
    });
  engine
    .command('list')
    .description('those that are installed, and which the service will use')
    .action(() => list(context, json()));
  engine
    .command('use')
    .description(`the one that the service uses from its next start; ${NONE}: none of them`)
    .argument('<name>', 'such as 3.8.1 or facefusion-3.8.1')
    .action((name: string) => use(context, name, json()));
  engine
    .command('remove')
    .description('delete one with its environment; model files stay, for the others')
    .argument('<name>', 'such as 3.8.1 or facefusion-3.8.1')
    .action((name: string) => remove(context, name, json()));
  engine
    .command('warm')
    .description('fetch and check the models of the engine in use, so that no job waits for a download')
    .option('--processors <names...>', 'whose models', ['face_swapper'])
    .action(async ({ processors }: { processors: string[] }) => context.finish(await warm(context, processors, json())));
}

interface InstallFlags {
  readonly version?: string;
  readonly source: string;
  readonly onnxruntime: string;
  readonly python?: string;
}

async function install({ terminal, env, cwd, root }: EngineContext, flags: InstallFlags, json: boolean): Promise<void> {
  const registry = registryOf(env, cwd);
  const stopping = new AbortController();
  const undo = terminal.onInterrupt(() => stopping.abort(new CliError(Exit.interrupted, 'stopped; nothing was installed')));
  try {
    using phases = showPhases(terminal);
    const { version, source, onnxruntime, python } = flags;
    const { record, said, already } = await installFacefusion({
      registry,
      version,
      source,
      onnxruntime,
      python,
      cwd,
      env,
      root,
      signal: stopping.signal,
      report: (phase) => phases.report(phase),
    });
    phases[Symbol.dispose]();
    const inUse = registry.inUse() === record.name;
    if (json) {
      for (const one of said) answerJson(terminal, one);
      answerJson(terminal, { ...record, in_use: inUse, already });
      return;
    }
    for (const one of said) if (one.kind === 'tool') answer(terminal, `${one.name.padEnd(8)} ${one.version}`);
    const found = said.find((one) => one.kind === 'engine');
    if (found)
      answer(terminal, `engine   FaceFusion ${found.version}: all ${found.hooks} hooks are there; runs on ${found.providers.join(', ')}`);
    answer(terminal, `models   ${modelsInWords(said)}`);
    answer(terminal, `${record.name} ${already ? 'was installed already' : 'is installed'}${inUse ? ' and in use' : ''} (${record.home})`);
    if (!inUse) say(terminal, `In use is ${registry.inUse()}; \`ffjobs engine use ${record.version}\` changes that.`);
    else if (!already) say(terminal, 'The service uses it from its next start.');
  } finally {
    undo();
  }
}

function modelsInWords(said: readonly Said[]): string {
  const models = said.filter((one) => one.kind === 'model');
  const named = (state: string) => models.filter((model) => model.state === state).map(({ name }) => name);
  const [present, missing, damaged] = [named('present'), named('missing'), named('damaged')];
  return [
    present.length > 0 && `there: ${present.join(', ')}`,
    missing.length > 0 && `not there: ${missing.join(', ')}; \`ffjobs engine warm\` downloads them, no job does`,
    damaged.length > 0 && `damaged: ${damaged.join(', ')}; \`ffjobs engine warm\` fetches them anew`,
  ]
    .filter(Boolean)
    .join('. ');
}

function list({ terminal, env, cwd }: EngineContext, json: boolean): void {
  const registry = registryOf(env, cwd);
  const inUse = registry.inUse();
  const engines = registry.list();
  if (json) {
    for (const { name, version, commit, onnxruntime, home, python, source, installedAt } of engines) {
      answerJson(terminal, {
        name,
        version,
        commit: commit ?? null,
        onnxruntime,
        home,
        python,
        source,
        installed_at: installedAt,
        in_use: name === inUse,
      });
    }
    return;
  }
  if (engines.length === 0) answer(terminal, 'no FaceFusion is installed; `ffjobs engine install facefusion` gets one');
  for (const { name, onnxruntime, commit, home } of engines) {
    const mark = name === inUse ? '*' : ' ';
    answer(terminal, `${mark} ${name.padEnd(20)} ${onnxruntime.padEnd(10)} ${(commit ?? '').slice(0, 8).padEnd(8)} ${home}`);
  }
  if (inUse !== undefined && !engines.some(({ name }) => name === inUse)) say(terminal, `${inUse} is in use and is not there any more.`);
  try {
    say(terminal, `The service starts on: ${engineInWords(readSettings(env, cwd))}`);
  } catch (error) {
    say(terminal, `The service does not start: ${(error as Error).message}`);
  }
}

function use({ terminal, env, cwd }: EngineContext, wanted: string, json: boolean): void {
  const registry = registryOf(env, cwd);
  const record = wanted === NONE ? undefined : named(registry, wanted);
  registry.use(record?.name);
  if (json) answerJson(terminal, { in_use: record?.name ?? null });
  else answer(terminal, `${record?.name ?? 'the plain engine'} is in use from the next start of the service`);
}

function remove({ terminal, env, cwd }: EngineContext, wanted: string, json: boolean): void {
  const registry = registryOf(env, cwd);
  // What an install has left half done can be removed too.
  const name = registry.isThere(nameOf(wanted)) ? nameOf(wanted) : named(registry, wanted).name;
  if (registry.inUse() === name) {
    throw new CliError(Exit.invalid, `${name} is in use: choose another one with \`ffjobs engine use\` (${NONE} for none) first`);
  }
  registry.remove(name);
  if (json) answerJson(terminal, { removed: name });
  else answer(terminal, `${name} is removed; model files stay in ${registry.assets}`);
}

async function warm({ terminal, env, cwd, root }: EngineContext, processors: readonly string[], json: boolean): Promise<ExitCode> {
  const config: Config = readSettings(env, cwd);
  if (!config.facefusion) {
    throw new CliError(
      Exit.invalid,
      `the engine is ${config.engine}, which has no models to fetch: \`ffjobs engine install facefusion\` first`,
    );
  }
  const stopping = new AbortController();
  const undo = terminal.onInterrupt(() => stopping.abort(new CliError(Exit.interrupted, 'stopped; what has come stays')));
  let failures = 0;
  let fetched = 0;
  try {
    using phases = showPhases(terminal);
    phases.report('looking at the models');
    const hear = (said: Said): void => {
      if (json) answerJson(terminal, said);
      if (said.kind === 'failed') {
        failures++;
        if (!json) say(terminal, `The model ${said.name} could not be fetched; nothing of it is used.`);
      } else if (said.kind === 'done') fetched = said.fetched;
      else if (said.kind === 'progress' && !json) phases.report(`fetching ${said.name}: ${size(said.done)} of ${size(said.total)}`);
    };
    const problem = await ask(
      programOf(config.facefusion),
      ['warm', '--processors', ...processors],
      { env, root, signal: stopping.signal },
      hear,
    );
    phases[Symbol.dispose]();
    if (problem !== undefined && failures === 0) throw new CliError(Exit.failed, problem);
    if (problem === undefined && !json) {
      answer(terminal, `the models of ${processors.join(', ')} are there${fetched > 0 ? `; ${fetched} of them were fetched` : ''}`);
    }
    return problem === undefined ? Exit.ok : Exit.failed;
  } finally {
    undo();
  }
}

function registryOf(env: Environment, cwd: string): EngineRegistry {
  return new EngineRegistry(dataFolder(env, cwd));
}

function nameOf(wanted: string): string {
  return wanted.startsWith('facefusion-') ? wanted : `facefusion-${wanted}`;
}

function named(registry: EngineRegistry, wanted: string): EngineRecord {
  const name = nameOf(wanted);
  const found = registry.get(name);
  if (found) return found;
  const known = registry.list().map((record) => record.name);
  throw new CliError(
    Exit.notFound,
    `${name} is not installed; ${known.length > 0 ? `there is: ${known.join(', ')}` : 'no FaceFusion is: `ffjobs engine install facefusion` gets one'}`,
  );
}
