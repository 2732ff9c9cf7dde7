// Where the settings come from: the environment, over the file that FFJOBS_CONFIG names (lines NAME=VALUE), and the engine that is installed and in
// use where neither names one.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { type Config, ConfigError, readConfig, SETTINGS } from '../../config.ts';
import { installedEngine } from './engine/registry.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Throws `ConfigError`. */
export function readSettings(env: Environment, cwd: string): Config {
  return readConfig(merged(env, cwd), cwd, installedEngine);
}

/** Where the service keeps everything, whatever else is wrong with the settings. Throws `ConfigError`. */
export function dataFolder(env: Environment, cwd: string): string {
  return resolve(cwd, merged(env, cwd).FFJOBS_DATA_DIR || SETTINGS.DATA_DIR.fallback!);
}

function merged(env: Environment, cwd: string): Environment {
  const file = env.FFJOBS_CONFIG;
  if (file === undefined || file === '') return env;
  try {
    return { ...parseEnv(readFileSync(resolve(cwd, file), 'utf8')), ...env };
  } catch (error) {
    throw new ConfigError([
      `FFJOBS_CONFIG is '${file}', which cannot be read (${(error as NodeJS.ErrnoException).code}): correct it or unset it`,
    ]);
  }
}
