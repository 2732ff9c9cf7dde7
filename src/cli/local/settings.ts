// Where the settings come from: the environment, over the file that FFJOBS_CONFIG names (lines NAME=VALUE).
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { type Config, ConfigError, readConfig } from '../../config.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Throws `ConfigError`. */
export function readSettings(env: Environment, cwd: string): Config {
  const file = env.FFJOBS_CONFIG;
  if (file === undefined || file === '') return readConfig(env, cwd);
  let text: string;
  try {
    text = readFileSync(resolve(cwd, file), 'utf8');
  } catch (error) {
    throw new ConfigError([
      `FFJOBS_CONFIG is '${file}', which cannot be read (${(error as NodeJS.ErrnoException).code}): correct it or unset it`,
    ]);
  }
  return readConfig({ ...parseEnv(text), ...env }, cwd);
}
