// What the workers run: from the configuration to a program, its arguments and its variables, slot by slot. Always true here: a worker is given what
// its engine needs and nothing else of the service's environment; every path that it is given is absolute.
import { readdir } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';
import type { FacefusionConfig } from '../config/facefusion.ts';
import type { Config } from '../config.ts';
import { type Isolation, isolate } from '../gpu/isolation.ts';
import type { SlotPlan } from '../gpu/scheduler.ts';
import { SYSTEM_VARIABLES } from '../gpu/variables.ts';
import type { WorkerOptions } from '../gpu/worker.ts';

export interface EngineProcesses {
  readonly worker: WorkerOptions;
  readonly slots: readonly SlotPlan[];
  readonly isolation: Isolation | undefined;
}

/** Below the data folder. */
const OPEN_TO_WORKERS = ['worker-home', 'engines'];

export interface ProcessSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly root: string;
  readonly workRoot: string;
  /** Indices of the GPUs that this machine has. */
  readonly gpus: readonly number[];
}

/** Throws where the workers cannot be separated as the configuration wants it; its message is for a person. */
export async function engineProcesses(config: Config, { env, root, workRoot, gpus }: ProcessSurroundings): Promise<EngineProcesses> {
  const { facefusion } = config;
  const isolation =
    config.workerUser === undefined
      ? undefined
      : await isolate(config.workerUser, {
          reachable: [workRoot, join(root, 'worker'), ...(facefusion ? [facefusion.home] : [])],
          home: join(config.dataDir, 'worker-home'),
          secret: config.provenanceSigner ? [config.provenanceSigner.key] : [],
          closed: [config.storePath, config.blobsPath, config.inputRoot, ...(await closedIn(config.dataDir, workRoot))],
        });
  return {
    worker: {
      command: pythonOf(config),
      args: ['-m', 'facefusion_worker', '--engine', engineOf(config), ...limitsOf(config)],
      cwd: root,
      environment: {
        ...env,
        PYTHONPATH: pythonPath(config, root, env.PYTHONPATH),
        ...(isolation ? { HOME: isolation.home, TMPDIR: undefined } : {}),
      },
      passOn: SYSTEM_VARIABLES,
      owner: isolation?.owner,
      stallTimeoutMs: config.stallTimeoutMs,
      cancelGraceMs: config.cancelGraceMs,
      recycleAfterJobs: config.recycleAfterJobs || Number.POSITIVE_INFINITY,
      recycleGrowthBytes: growthOf(config),
    },
    slots: gpuOfSlots(config, gpus).map((gpu, i) => ({
      name: `${i}`,
      gpu,
      variables: facefusion && slotVariables(config, facefusion, join(isolation?.home ?? config.dataDir, 'step-weights.json'), i),
    })),
    isolation,
  };
}

/** Everything in the data folder that is not for the workers, whatever part of the service has put it there. */
async function closedIn(dataDir: string, workRoot: string): Promise<string[]> {
  const open = new Set([workRoot, ...OPEN_TO_WORKERS.map((name) => join(dataDir, name))]);
  return (await readdir(dataDir)).map((name) => join(dataDir, name)).filter((path) => !open.has(path));
}

/** Which GPU each slot has. Those that are listed are given in turn; with `auto` each has a slot, and a machine without any has one. */
function gpuOfSlots({ slots, gpus: listed }: Config, found: readonly number[]): (number | undefined)[] {
  const gpus = listed.length > 0 ? listed : slots === 'auto' ? found : [];
  const count = slots === 'auto' ? Math.max(1, gpus.length) : slots;
  return Array.from({ length: count }, (_, i) => (gpus.length > 0 ? gpus[i % gpus.length] : undefined));
}

/** Python with the packages of the examination of media, and of the engine where that is not FaceFusion. */
export function probePython({ python, facefusion }: Config): string {
  const found = python ?? facefusion?.python;
  if (found === undefined) throw new Error('no Python for the workers; `ffjobs serve` prepares one, or set FFJOBS_PYTHON');
  return found;
}

function pythonOf(config: Config): string {
  return config.facefusion?.python ?? probePython(config);
}

function engineOf({ engine, engineMode }: Config): string {
  return engine === 'facefusion' && engineMode === 'subprocess' ? 'facefusion_subprocess' : engine;
}

/** An engine of one's own may import from where the operator's Python does; FaceFusion has an environment of its own. */
function pythonPath({ facefusion, enginePath }: Config, root: string, inherited: string | undefined): string {
  const theirs = facefusion ? [] : [enginePath, ...(inherited ?? '').split(delimiter)];
  return [join(root, 'worker'), ...theirs]
    .filter((path) => path !== undefined && path !== '')
    .map((path) => resolve(path!))
    .join(delimiter);
}

function limitsOf({ workerMemoryBytes, workerFileBytes }: Config): string[] {
  const limits = { memory: workerMemoryBytes, file: workerFileBytes };
  return Object.entries(limits).flatMap(([name, value]) => (value > 0 ? ['--limit', `${name}=${value}`] : []));
}

/** Models are loaded as jobs want them, so a worker that is well grows by those too. */
function growthOf({ recycleGrowthBytes, modelMemoryBytes, facefusion }: Config): number {
  return recycleGrowthBytes === 0 ? Number.POSITIVE_INFINITY : recycleGrowthBytes + (facefusion ? modelMemoryBytes : 0);
}

function slotVariables(config: Config, facefusion: FacefusionConfig, weights: string, slot: number): Record<string, string> {
  const { providers, deviceIds } = facefusion.devices[slot % facefusion.devices.length]!;
  const given: Record<string, string> = {
    FACEFUSION_HOME: facefusion.home,
    FFJOBS_MODEL_MEMORY: `${config.modelMemoryBytes}`,
    FFJOBS_STEP_WEIGHTS: config.stepWeights ?? weights,
  };
  if (providers.length > 0) given.FACEFUSION_EXECUTION_PROVIDERS = providers.join(' ');
  if (deviceIds.length > 0) given.FACEFUSION_EXECUTION_DEVICE_IDS = deviceIds.join(' ');
  if (facefusion.threads !== undefined) given.FACEFUSION_EXECUTION_THREAD_COUNT = `${facefusion.threads}`;
  if (Object.keys(config.optionLimits).length > 0) given.FFJOBS_OPTION_LIMITS = JSON.stringify(config.optionLimits);
  if (config.testSyntheticModels) given.FFJOBS_TEST_SYNTHETIC_MODELS = '1';
  return given;
}
