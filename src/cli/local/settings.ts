// Where the settings come from: the environment, over the file that FFJOBS_CONFIG names (lines NAME=VALUE), and the engine that is installed and in
// use where neither names one. Always true: what the file holds and nobody reads is a problem, as an unknown name in the environment is.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { FACEFUSION_SETTINGS } from '../../config/facefusion.ts';
import { AWS_SETTINGS, type Config, ConfigError, nearestName, OTHERS, readConfig, SETTINGS } from '../../config.ts';
import { installedEngine } from './engine/registry.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Sources {
  /** The environment over the file. */
  readonly values: Environment;
  /** The file that was read, as an absolute path. */
  readonly file: string | undefined;
  /** Names of `values` that are the file's. */
  readonly inFile: ReadonlySet<string>;
  /** Of the file alone. */
  readonly problems: readonly string[];
}

/** Throws `ConfigError` with all problems at once. */
export function readSettings(env: Environment, cwd: string): Config {
  const { values, problems } = settingSources(env, cwd);
  const found = [...problems];
  try {
    const config = readConfig(values, cwd, installedEngine);
    if (found.length === 0) return config;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    found.push(...error.problems);
  }
  throw new ConfigError(found);
}

/** Where the service keeps everything, whatever else is wrong with the settings. Throws `ConfigError`. */
export function dataFolder(env: Environment, cwd: string): string {
  return resolve(cwd, settingSources(env, cwd).values.FFJOBS_DATA_DIR || SETTINGS.DATA_DIR.fallback!);
}

/** Throws `ConfigError` where the file cannot be read. */
export function settingSources(env: Environment, cwd: string): Sources {
  if (!env.FFJOBS_CONFIG) return { values: env, file: undefined, inFile: new Set(), problems: [] };
  const file = resolve(cwd, env.FFJOBS_CONFIG);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError([
      `FFJOBS_CONFIG is '${env.FFJOBS_CONFIG}', which cannot be read (${(error as NodeJS.ErrnoException).code}): correct it or unset it`,
    ]);
  }
  const read = parseEnv(text);
  const inFile = new Set(Object.keys(read).filter((name) => env[name] === undefined));
  return { values: { ...read, ...env }, file, inFile, problems: fileProblems(file, text, read) };
}

/** What is read from a file besides `FFJOBS_...`, of which the configuration itself knows which there are. */
const ALSO: readonly string[] = [...Object.keys(FACEFUSION_SETTINGS), ...AWS_SETTINGS];
const KNOWN: readonly string[] = [...Object.keys(SETTINGS).map((name) => `FFJOBS_${name}`), ...OTHERS, ...ALSO];

function fileProblems(file: string, text: string, read: Readonly<Record<string, string | undefined>>): string[] {
  const problems: string[] = [];
  for (const name of Object.keys(read)) {
    if (name.startsWith('FFJOBS_') || ALSO.includes(name)) continue;
    problems.push(`${file} names ${name}, which nobody reads${nearestName(name, KNOWN)}; take it out`);
  }
  // Of a value that goes on over lines each would look like none.
  if (Object.values(read).some((value) => value?.includes('\n'))) return problems;
  for (const [i, line] of text.split('\n').entries()) {
    if (/^\s*(#|$)|^\s*(export\s+)?[\w.-]+\s*=/.test(line)) continue;
    problems.push(`${file}, line ${i + 1}, is no setting: write NAME=VALUE, or begin it with # if it is a comment`);
  }
  return problems;
}
