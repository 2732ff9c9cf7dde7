// `ffjobs store migrate`: brings the job store of these settings to the schema of this version, while no service uses it.
import type { Command } from 'commander';
import type { Config } from '../../config.ts';
import { CliError, Exit, type ExitCode } from '../remote/errors.ts';
import { answer, answerJson, say, type Terminal } from '../remote/terminal.ts';
import { type Environment, readSettings } from './settings.ts';

/** What the composition root gives this folder, which knows no stores. `schemas` undefined: there is none. Throws an `Error` that can be shown. */
export type MigrateStore = (
  config: Config,
  report: (line: string) => void,
) => Promise<{ readonly store: string; readonly schemas: { readonly from: number; readonly to: number } | undefined }>;

export interface StoreContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  readonly migrateStore: MigrateStore;
  finish(code: ExitCode): void;
}

export function addStoreCommands(program: Command, { terminal, env, cwd, migrateStore, finish }: StoreContext): void {
  program
    .command('store')
    .description('the job store that the settings name')
    .command('migrate')
    .description('bring it to the schema of this version, after every service on it was stopped; what is up to date stays as it is')
    .action(async () => {
      const config = readSettings(env, cwd);
      const { store, schemas } = await migrateStore(config, (line) => say(terminal, line)).catch((error: unknown) => {
        throw new CliError(Exit.failed, (error as Error).message, { cause: error });
      });
      if (program.opts<{ json: boolean }>().json) answerJson(terminal, { store, from: schemas?.from ?? null, to: schemas?.to ?? null });
      else if (!schemas) answer(terminal, `${store}: there is no job store yet; the first start makes it`);
      else if (schemas.from === schemas.to) answer(terminal, `${store}: schema ${schemas.to}, as this version has it; nothing to do`);
      else answer(terminal, `${store}: brought from schema ${schemas.from} to ${schemas.to}; start the service again, with this version`);
      finish(Exit.ok);
    });
}
