// `ffjobs doctor`: looks at everything that `serve` needs and changes nothing (but a trial file in the data folder). Every finding that is not
// `ok` says how to mend it.
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { ConnectError } from '@connectrpc/connect';
import { ErrorInfoSchema } from '../../../gen/google/rpc/error_details_pb.js';
import type { FacefusionConfig } from '../../config/facefusion.ts';
import { type Config, ConfigError } from '../../config.ts';
import { readGpus } from '../../gpu/devices.ts';
import { checkSigner, type SignerFiles } from '../../provenance/process.ts';
import type { S3Place } from '../../s3/names.ts';
import { connect } from '../remote/client.ts';
import { Exit, type ExitCode } from '../remote/errors.ts';
import { size } from '../remote/progress.ts';
import { answer, answerJson, type Terminal } from '../remote/terminal.ts';
import type { FindInFiles, Findings } from './config.ts';
import { ask, programOf, type Said } from './engine/ask.ts';
import { markingProgram } from './provenance.ts';
import { findPython, missingModules, run, SetupProblem, venvPython, venvState, WORKER_MODULES } from './python.ts';
import { engineInWords, servicePython } from './service-engine.ts';
import { type Environment, readSettings } from './settings.ts';

export interface Finding {
  readonly check: string;
  readonly state: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  readonly fix?: string;
}

/** What the composition root gives this folder, which knows no stores: looks at the Redis of a fleet. Throws an `Error` that can be shown. */
export type InspectFleetStore = (at: { readonly url: string; readonly fleet: string }) => Promise<{
  readonly store: string;
  readonly version: string;
  readonly exists: boolean;
  readonly warnings: readonly string[];
}>;

export interface DoctorContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  readonly root: string;
  readonly fileFindings: FindInFiles;
  readonly inspectFleetStore: InspectFleetStore;
}

export async function doctor(context: DoctorContext, options: { readonly json: boolean }): Promise<ExitCode> {
  let worst: ExitCode = Exit.ok;
  for await (const finding of examine(context)) {
    if (finding.state === 'fail') worst = Exit.failed;
    if (options.json) answerJson(context.terminal, { fix: null, ...finding });
    else {
      answer(context.terminal, `${finding.state.padEnd(4)}  ${finding.check.padEnd(13)} ${finding.detail}`);
      if (finding.fix !== undefined) answer(context.terminal, `      ${''.padEnd(13)} -> ${finding.fix}`);
    }
  }
  return worst;
}

async function* examine({ env, cwd, root, fileFindings, inspectFleetStore }: DoctorContext): AsyncGenerator<Finding> {
  const major = Number(process.versions.node.split('.')[0]);
  yield major >= 24
    ? { check: 'node', state: 'ok', detail: `Node ${process.versions.node}` }
    : {
        check: 'node',
        state: 'fail',
        detail: `Node ${process.versions.node}`,
        fix: 'use Node 24 or newer, or start with `npm start`, which fetches one',
      };

  let config: Config;
  try {
    config = readSettings(env, cwd);
    yield {
      check: 'settings',
      state: 'ok',
      detail: `engine ${engineInWords(config)}, ${config.slots === 'auto' ? 'a slot for each GPU' : `${config.slots} slot${config.slots === 1 ? '' : 's'}`}`,
    };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const problem of error.problems)
      yield { check: 'settings', state: 'fail', detail: problem, fix: 'correct the environment or the file that FFJOBS_CONFIG names' };
    config = readSettings({}, cwd);
  }

  yield* files(await fileFindings(config));
  yield* python(config, env, root);
  if (config.facefusion) yield* facefusion(config.facefusion, env, root);
  if (config.provenanceSigner) yield* marks(config, config.provenanceSigner, env, root);
  yield await gpu(config, env);
  yield await dataFolder(config.dataDir);
  const served = await alreadyServed(config);
  yield await port(config, served);
  if (config.metricsPort !== 0 && served === undefined) yield await metricsPort(config);
  if (config.storeRedis === undefined) yield store(config, served !== undefined);
  else yield* fleetStore(() => inspectFleetStore({ url: config.storeRedis!, fleet: config.fleet }), config.fleet);
  if (config.blobsS3) yield await blobStore(config, config.blobsS3);
}

/** Certificates, keys, tokens and lists that settings name. */
function* files({ problems, warnings }: Findings): Generator<Finding> {
  const finding = (state: 'warn' | 'fail', sentence: string): Finding => {
    const colon = sentence.lastIndexOf(': ');
    return { check: 'files', state, detail: sentence.slice(0, colon), fix: sentence.slice(colon + 2) };
  };
  for (const problem of problems) yield finding('fail', problem);
  for (const warning of warnings) yield finding('warn', warning);
}

/** Writes and deletes a trial object, as `serve` does when it starts. */
async function blobStore(config: Config, place: S3Place): Promise<Finding> {
  const { problemOfPlace } = await import('../../s3/check.ts');
  const problem = await problemOfPlace(config.s3, place);
  const name = `s3://${place.bucket}/${place.key}`;
  if (problem === undefined) return { check: 'blob store', state: 'ok', detail: `${name} can be written, read and deleted` };
  return { check: 'blob store', state: 'fail', detail: `${name}: ${problem.what}`, fix: problem.fix };
}

async function* python(config: Config, env: Environment, root: string): AsyncGenerator<Finding> {
  const { given, origin } = servicePython(config);
  let interpreter = given;
  if (interpreter === undefined) {
    const state = await venvState(root).catch((error: unknown) => error as Error);
    if (state instanceof Error) {
      yield { check: 'python', state: 'fail', detail: state.message };
      return;
    }
    if (state !== 'ready') {
      try {
        const found = await findPython(env);
        yield { check: 'python', state: 'ok', detail: `Python ${found.version} (${found.command})` };
      } catch (error) {
        if (!(error instanceof SetupProblem)) throw error;
        yield { check: 'python', state: 'fail', detail: error.message };
        return;
      }
      yield {
        check: 'environment',
        state: 'warn',
        detail: `.venv is ${state}`,
        fix: 'nothing to do: `npm start` prepares it, once, over the network',
      };
      return;
    }
    interpreter = venvPython(root);
  }
  const { code, stdout } = await run(interpreter, ['-c', 'import sys; print("%d.%d.%d" % sys.version_info[:3])'], env);
  if (code !== 0) {
    yield {
      check: 'python',
      state: 'fail',
      detail: `${interpreter} does not run`,
      fix:
        given === undefined
          ? 'remove .venv and start again'
          : `correct ${origin?.name ?? 'FFJOBS_PYTHON'}, or ${origin?.instead ?? 'unset it to have one made in .venv'}`,
    };
    return;
  }
  yield { check: 'python', state: 'ok', detail: `Python ${stdout.trim()} (${interpreter})` };
  const missing = await missingModules(interpreter, WORKER_MODULES, env);
  yield missing.length === 0
    ? { check: 'packages', state: 'ok', detail: `${WORKER_MODULES.join(', ')} can be imported` }
    : {
        check: 'packages',
        state: 'fail',
        detail: `${missing.join(', ')} cannot be imported`,
        fix:
          given === undefined
            ? 'remove .venv and start again'
            : `${interpreter} -m pip install ${origin?.packages(missing, stdout.trim()).join(' ') ?? `-r ${join(root, 'worker', 'requirements.txt')}`}`,
      };
  const [module] = config.engine.split(':');
  if (!config.engine.includes(':') || module === undefined) return;
  const path = [config.enginePath, join(root, 'worker'), env.PYTHONPATH]
    .filter((part) => part)
    .join(process.platform === 'win32' ? ';' : ':');
  yield (await missingModules(interpreter, [module], { ...env, PYTHONPATH: path })).length === 0
    ? { check: 'engine', state: 'ok', detail: `${config.engine} can be imported` }
    : {
        check: 'engine',
        state: 'fail',
        detail: `the module of ${config.engine} cannot be imported`,
        fix: 'set FFJOBS_ENGINE_PATH to the folder that holds it, and install what it imports',
      };
}

/** The program itself: whole, of a known release, on a provider that is there; and the models of a plain job. */
async function* facefusion(config: FacefusionConfig, env: Environment, root: string): AsyncGenerator<Finding> {
  const program = programOf(config);
  const said: Said[] = [];
  const problem = await ask(program, ['check'], { env, root }, (one) => said.push(one));
  const engine = said.find((one) => one.kind === 'engine');
  if (problem !== undefined || engine === undefined) {
    const fix =
      config.installed === undefined
        ? 'mend it, or have one made by `ffjobs engine install facefusion`; the service does not start on another engine by itself'
        : '`ffjobs engine install facefusion` mends it; `ffjobs engine use` chooses another one';
    yield { check: 'engine', state: 'fail', detail: problem ?? 'FaceFusion does not say what it is', fix };
    return;
  }
  const { version, hooks, providers } = engine;
  yield { check: 'engine', state: 'ok', detail: `FaceFusion ${version}, all ${hooks} hooks are there; runs on ${providers.join(', ')}` };
  const models: Extract<Said, { kind: 'model' }>[] = [];
  await ask(program, ['models'], { env, root }, (one) => void (one.kind === 'model' && models.push(one)));
  const wrong = models.filter(({ state }) => state !== 'present');
  if (wrong.length === 0) yield { check: 'models', state: 'ok', detail: `the ${models.length} models of face_swapper are there` };
  else {
    yield {
      check: 'models',
      state: 'warn',
      detail: `${wrong.map(({ name, state }) => `${name} is ${state}`).join(', ')}: jobs that need one of them fail`,
      fix: '`ffjobs engine warm` fetches them',
    };
  }
}

/** Signs a trial, as `serve` does before it takes jobs whose results are marked. */
async function* marks(config: Config, files: SignerFiles, env: Environment, root: string): AsyncGenerator<Finding> {
  const found = await checkSigner(markingProgram(config, env, root), files);
  if ('fix' in found) {
    yield { check: 'provenance', state: 'fail', detail: found.message, fix: found.fix };
    return;
  }
  const until = found.expires.slice(0, 10);
  yield { check: 'provenance', state: 'ok', detail: `results are signed as ${found.signer}, issued by ${found.issuer}, until ${until}` };
  for (const warning of found.warnings) {
    yield { check: 'provenance', state: 'warn', detail: warning, fix: 'results are marked all the same; see docs/17-responsible-use.md' };
  }
}

async function gpu(config: Config, env: Environment): Promise<Finding> {
  const gpus = await readGpus(env);
  const found = gpus.map(({ index, name, memoryBytes }) => `${index}, ${name}, ${Math.round(memoryBytes / 2 ** 20)} MiB`);
  const unknown = config.gpus.filter((index) => !gpus.some((one) => one.index === index));
  if (unknown.length > 0) {
    return {
      check: 'gpu',
      state: 'fail',
      detail: `FFJOBS_GPUS names ${unknown.join(', ')}; this machine has ${found.length > 0 ? found.join('; ') : 'no NVIDIA GPU that its driver shows'}`,
      fix: 'correct FFJOBS_GPUS or leave it empty, or install the driver',
    };
  }
  if (found.length > 0) return { check: 'gpu', state: 'ok', detail: found.join('; ') };
  if (config.facefusion) {
    return {
      check: 'gpu',
      state: 'warn',
      detail: 'no NVIDIA GPU that its driver shows',
      fix: 'nothing to do for other devices; on the processor FaceFusion is slow',
    };
  }
  return { check: 'gpu', state: 'ok', detail: 'none found; the classical engine needs none' };
}

async function dataFolder(folder: string): Promise<Finding> {
  const fix = 'make it writable for this user, or set FFJOBS_DATA_DIR to another one';
  // Looked at without being made: the nearest folder that is there decides.
  let nearest = folder;
  while (!existsSync(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  const trial = join(nearest, `.ffjobs-${randomUUID()}`);
  try {
    if (nearest === folder) await writeFile(trial, '');
    else await mkdir(trial);
  } catch (error) {
    return { check: 'data folder', state: 'fail', detail: `${folder} cannot be written (${(error as NodeJS.ErrnoException).code})`, fix };
  } finally {
    await rm(trial, { recursive: true, force: true }).catch(() => {});
  }
  const facts = await statfs(nearest);
  const free = facts.bavail * facts.bsize;
  const detail = `${folder}, ${size(free)} free`;
  if (free < 500e6) return { check: 'data folder', state: 'fail', detail, fix: 'free some space, or set FFJOBS_DATA_DIR to a larger disk' };
  if (free < 10e9) return { check: 'data folder', state: 'warn', detail, fix: 'enough to try it; video needs more' };
  return { check: 'data folder', state: 'ok', detail };
}

/** Version of the service that answers at the configured address. */
async function alreadyServed(config: Config): Promise<string | undefined> {
  if (config.port === 0) return undefined;
  const host = config.host === '0.0.0.0' || config.host === '::' ? 'localhost' : config.host;
  const scheme = config.tlsCert === undefined ? 'http' : 'https';
  using service = connect(`${scheme}://${host.includes(':') ? `[${host}]` : host}:${config.port}`, { patient: false });
  try {
    return (await service.system.getCapabilities({}, { timeoutMs: 2_000 })).serviceVersion;
  } catch (error) {
    // Only this service answers with such a reason, while its engine loads.
    const [info] = ConnectError.from(error).findDetails(ErrorInfoSchema);
    return info?.reason === 'ENGINE_NOT_READY' ? '(its engine is not ready)' : undefined;
  }
}

async function port(config: Config, served: string | undefined): Promise<Finding> {
  if (served !== undefined) return { check: 'port', state: 'ok', detail: `${config.port}: facefusion-jobs ${served} runs here already` };
  const problem = await bindProblem(config.host, config.port);
  if (problem === undefined) return { check: 'port', state: 'ok', detail: `${config.host}:${config.port} is free` };
  return {
    check: 'port',
    state: 'fail',
    detail: `${config.host}:${config.port} cannot be listened on (${problem})`,
    fix: 'stop the other program, or set FFJOBS_PORT to another port',
  };
}

async function metricsPort(config: Config): Promise<Finding> {
  const problem = await bindProblem(config.metricsHost, config.metricsPort);
  if (problem === undefined) return { check: 'metrics port', state: 'ok', detail: `${config.metricsPort} is free` };
  return {
    check: 'metrics port',
    state: 'fail',
    detail: `${config.metricsPort} cannot be listened on (${problem})`,
    fix: 'set FFJOBS_METRICS_PORT to another port, or to off',
  };
}

function bindProblem(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const trial = createServer();
    trial.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    trial.listen({ host, port, exclusive: true }, () => trial.close(() => resolve(undefined)));
  });
}

/** Connects, and looks at what `serve` looks at when it starts. */
async function* fleetStore(inspect: () => ReturnType<InspectFleetStore>, fleet: string): AsyncGenerator<Finding> {
  try {
    const { store, version, exists, warnings } = await inspect();
    const what = exists ? `holds the fleet '${fleet}'` : `the fleet '${fleet}' will be made there`;
    yield { check: 'job store', state: 'ok', detail: `${store}, version ${version}, ${what}` };
    for (const warning of warnings) {
      yield { check: 'job store', state: 'warn', detail: warning, fix: 'see docs/16-operations.md, on the settings of Redis' };
    }
  } catch (error) {
    yield {
      check: 'job store',
      state: 'fail',
      detail: (error as Error).message,
      fix: 'correct FFJOBS_STORE or FFJOBS_FLEET, or mend that server; see docs/16-operations.md',
    };
  }
}

function store(config: Config, served: boolean): Finding {
  if (!existsSync(config.storePath)) return { check: 'job store', state: 'ok', detail: `${config.storePath} will be made` };
  try {
    const database = new DatabaseSync(config.storePath, { timeout: 0 });
    try {
      database.exec('BEGIN IMMEDIATE; ROLLBACK');
    } finally {
      database.close();
    }
    return { check: 'job store', state: 'ok', detail: config.storePath };
  } catch (error) {
    if (/locked|busy/i.test(String(error))) {
      if (served) return { check: 'job store', state: 'ok', detail: `${config.storePath}, held by the service that runs` };
      return {
        check: 'job store',
        state: 'fail',
        detail: `${config.storePath} is held by another process`,
        fix: 'stop that process, or set FFJOBS_DATA_DIR to another folder',
      };
    }
    return {
      check: 'job store',
      state: 'fail',
      detail: `${config.storePath}: ${(error as Error).message}`,
      fix: 'restore it from a copy, or move it away to start with an empty one',
    };
  }
}
