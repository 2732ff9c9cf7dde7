// Which FaceFusion runs, and how: the program's own variables (FACEFUSION_...), checked as far as can be without looking at the disk. What a slot
// is given is decided here once; no module reads these variables later.
import { join, resolve } from 'node:path';

/** An engine that `ffjobs engine install` has made and the operator has in use. */
export interface InstalledEngine {
  readonly name: string;
  readonly home: string;
  readonly python: string;
}

export interface FacefusionConfig {
  /** The checkout. */
  readonly home: string;
  /** The Python of its virtual environment: runs the workers, and the examination of media where no other is named. */
  readonly python: string;
  /** Its name among the installed ones; undefined: an operator's own. */
  readonly installed: string | undefined;
  /** For the slots in turn; never empty. */
  readonly devices: readonly FacefusionDevice[];
  /** Undefined: FaceFusion's own. */
  readonly threads: number | undefined;
}

export interface FacefusionDevice {
  /** Execution providers, the first one that takes a model wins; empty: `cuda` where there is one, else `cpu`. */
  readonly providers: readonly string[];
  /** Empty: 0, the slot's own where the slot has been given a GPU. */
  readonly deviceIds: readonly number[];
}

type Environment = Readonly<Record<string, string | undefined>>;

const PROVIDERS = ['cuda', 'tensorrt', 'rocm', 'migraphx', 'directml', 'coreml', 'openvino', 'qnn', 'cpu'];
const MAX_THREADS = 128;

/** FaceFusion's variables that the service follows, with what they are for. */
export const FACEFUSION_SETTINGS = {
  FACEFUSION_HOME: 'folder of a FaceFusion checkout of your own; default: the engine that `ffjobs engine` has in use',
  FACEFUSION_PYTHON: 'the Python of its virtual environment',
  FACEFUSION_EXECUTION_PROVIDERS: `of ${PROVIDERS.join(', ')}; commas between, \`;\` between slots; default: cuda where there is one, else cpu`,
  FACEFUSION_EXECUTION_DEVICE_IDS: 'device numbers, likewise; default 0, which with FFJOBS_GPUS is the GPU of the slot',
  FACEFUSION_EXECUTION_THREAD_COUNT: `threads of a run, 1 to ${MAX_THREADS}; default: FaceFusion's own`,
} as const;

export function isFacefusionConfigured(env: Environment): boolean {
  return Boolean(env.FACEFUSION_HOME || env.FACEFUSION_PYTHON);
}

/** `found`: what is used where the environment names no checkout. Problems are sentences. */
export function readFacefusion(env: Environment, cwd: string, found: InstalledEngine | undefined): FacefusionConfig | readonly string[] {
  const problems: string[] = [];
  const { FACEFUSION_HOME: home, FACEFUSION_PYTHON: python } = env;
  if (isFacefusionConfigured(env)) {
    if (!home) problems.push('FACEFUSION_PYTHON is set and FACEFUSION_HOME is not: set it to the folder of the FaceFusion checkout');
    if (!python) {
      const likely = join(resolve(cwd, home || '.'), '.venv', 'bin', 'python');
      problems.push(`FACEFUSION_HOME is set and FACEFUSION_PYTHON is not: set it to the Python of its environment, such as ${likely}`);
    }
  } else if (!found) {
    problems.push(
      "FFJOBS_ENGINE is 'facefusion', and there is none: `ffjobs engine install facefusion` gets one, " +
        'or set FACEFUSION_HOME and FACEFUSION_PYTHON to an installation of yours',
    );
  }
  const providers = perSlot(env.FACEFUSION_EXECUTION_PROVIDERS, (word) => (PROVIDERS.includes(word) ? word : undefined));
  if (!providers) {
    problems.push(
      `FACEFUSION_EXECUTION_PROVIDERS is '${env.FACEFUSION_EXECUTION_PROVIDERS}'; allowed: ${PROVIDERS.join(', ')}, with commas between, ` +
        'and ; between slots',
    );
  }
  const deviceIds = perSlot(env.FACEFUSION_EXECUTION_DEVICE_IDS, (word) => (/^\d{1,3}$/.test(word) ? Number(word) : undefined));
  if (!deviceIds) {
    problems.push(
      `FACEFUSION_EXECUTION_DEVICE_IDS is '${env.FACEFUSION_EXECUTION_DEVICE_IDS}'; allowed: numbers with commas between, and ; between slots`,
    );
  }
  const count = env.FACEFUSION_EXECUTION_THREAD_COUNT;
  const threads = count ? Number(count) : undefined;
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)) {
    problems.push(`FACEFUSION_EXECUTION_THREAD_COUNT is '${count}'; allowed: a whole number from 1 to ${MAX_THREADS}`);
  }
  if (problems.length > 0 || !providers || !deviceIds) return problems;
  const devices = Array.from({ length: Math.max(providers.length, deviceIds.length) }, (_, i) =>
    Object.freeze({ providers: providers[i % providers.length]!, deviceIds: deviceIds[i % deviceIds.length]! }),
  );
  // A bare name is looked up on the PATH, as a shell would.
  const program = (text: string) => (/[\\/]/.test(text) ? resolve(cwd, text) : text);
  return Object.freeze({
    home: found?.home ?? resolve(cwd, home!),
    python: found?.python ?? program(python!),
    installed: found?.name,
    devices: Object.freeze(devices),
    threads,
  });
}

/** Lists for the slots in turn, at least one; undefined where a word is none. */
function perSlot<T>(text: string | undefined, read: (word: string) => T | undefined): T[][] | undefined {
  const lists = (text ?? '').split(';').map((part) => part.split(/[\s,]+/).filter((word) => word !== ''));
  const found = lists.map((words) => words.map(read));
  return found.some((list) => list.includes(undefined)) ? undefined : (found as T[][]);
}
