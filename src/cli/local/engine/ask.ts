// What an installed FaceFusion says of itself: the worker package's own commands (`check`, `models`, `warm`), run by the program's Python, answer one JSON
// object a line, which is handed on as it comes.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { FacefusionConfig } from '../../../config/facefusion.ts';
import { SYSTEM_VARIABLES, USUAL_VARIABLES, variablesNamed } from '../../../gpu/variables.ts';
import type { Environment } from '../settings.ts';

/** One line of an answer. Fields by kind: `worker/facefusion_worker/engines/facefusion/__main__.py`. */
export type Said =
  | { readonly kind: 'tool'; readonly name: string; readonly path: string; readonly version: string }
  | {
      readonly kind: 'engine';
      readonly version: string;
      readonly release: string;
      readonly providers: readonly string[];
      readonly hooks: number;
      readonly processors: readonly string[];
      readonly options: number;
    }
  | { readonly kind: 'model'; readonly name: string; readonly path: string; readonly state: ModelState; readonly bytes: number }
  | { readonly kind: 'progress'; readonly name: string; readonly done: number; readonly total: number }
  | { readonly kind: 'failed'; readonly name: string; readonly state: ModelState }
  | { readonly kind: 'done'; readonly fetched: number }
  | { readonly kind: 'error'; readonly reason: string; readonly message: string };
export type ModelState = 'present' | 'missing' | 'damaged';

/** What a worker is given, and the way out to where models come from. */
const VARIABLES = [
  ...USUAL_VARIABLES,
  ...SYSTEM_VARIABLES,
  ...['http_proxy', 'https_proxy', 'no_proxy', 'all_proxy'].flatMap((name) => [name, name.toUpperCase()]),
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'CURL_CA_BUNDLE',
  'FFJOBS_TEST_SYNTHETIC_MODELS',
];

export interface Program {
  readonly home: string;
  readonly python: string;
  /** Of the first slot; empty: the program's choice. */
  readonly providers?: readonly string[];
}

export interface AskContext {
  readonly env: Environment;
  /** Of the package: holds `worker/`. */
  readonly root: string;
  readonly signal?: AbortSignal | undefined;
}

export function programOf({ home, python, devices }: FacefusionConfig): Program {
  return { home, python, providers: devices[0]?.providers ?? [] };
}

/**
 * Runs one command to its end and answers its last error, as a sentence; undefined: it says that all is well. `hear` is called with each line.
 * Throws the signal's reason.
 */
export async function ask(
  program: Program,
  command: readonly string[],
  { env, root, signal }: AskContext,
  hear: (said: Said) => void,
): Promise<string | undefined> {
  const child = spawn(program.python, ['-m', 'facefusion_worker.engines.facefusion', ...command, '--json'], {
    env: {
      ...variablesNamed(VARIABLES, env),
      PYTHONPATH: join(root, 'worker'),
      FACEFUSION_HOME: program.home,
      FACEFUSION_EXECUTION_PROVIDERS: (program.providers ?? []).join(' '),
      FACEFUSION_EXECUTION_DEVICE_IDS: '',
      // As the service itself takes it; the other settings of the worker are not this command's affair.
      FFJOBS_MODEL_MEMORY: '',
      FFJOBS_OPTION_LIMITS: '',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    // Its downloads end with it.
    detached: process.platform !== 'win32',
  });
  const end = () => {
    if (child.pid === undefined) return;
    try {
      process.kill(process.platform === 'win32' ? child.pid : -child.pid, 'SIGTERM');
    } catch {
      // Gone already.
    }
  };
  signal?.addEventListener('abort', end, { once: true });
  let problem: string | undefined;
  let last = '';
  const closed = new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(`${program.python} cannot be started: ${error.message}`));
    child.once('close', (code, killer) => {
      if (code === 0) resolve(undefined);
      else resolve(problem ?? (last || (killer === null ? `it ended with code ${code}` : `it was ended by ${killer}`)));
    });
  });
  if (child.stdout) {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const said = parsed(line);
      if (said === undefined) return;
      if (said.kind === 'error') problem = said.message;
      hear(said);
    });
  }
  if (child.stderr) {
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (line.trim() !== '') last = line.trim();
    });
  }
  try {
    const answer = await closed;
    signal?.throwIfAborted();
    return answer;
  } finally {
    signal?.removeEventListener('abort', end);
  }
}

/** Libraries print there too: what is no line of ours is passed over. */
function parsed(line: string): Said | undefined {
  try {
    const said: unknown = JSON.parse(line);
    return typeof said === 'object' && said !== null && 'kind' in said ? (said as Said) : undefined;
  } catch {
    return undefined;
  }
}
