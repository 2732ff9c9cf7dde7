// The `ffjobs` program: which commands there are, and how each way of ending becomes words and an exit code.
import { Argument, Command, CommanderError } from 'commander';
import type { Backoff } from '../client/reconnects.ts';
import { ConfigError } from '../config.ts';
import { completionScript, SHELLS, type Shell } from './completion.ts';
import { addExamples } from './examples.ts';
import { type AccessTools, addAccessCommands } from './local/access.ts';
import { addConfigCommands, type FindInFiles } from './local/config.ts';
import { doctor, type InspectFleetStore } from './local/doctor.ts';
import { addEngineCommands } from './local/engine/commands.ts';
import { addProvenanceCommands } from './local/provenance.ts';
import { SetupProblem } from './local/python.ts';
import { type StartApp, serve } from './local/serve.ts';
import { addStoreCommands, type MigrateStore } from './local/store.ts';
import { addRemoteCommands } from './remote/commands.ts';
import { CliError, Exit, type ExitCode, explain, explanationJson, explanationLines } from './remote/errors.ts';
import { answer, answerJson, say, type Terminal } from './remote/terminal.ts';

export interface Surroundings {
  readonly terminal: Terminal;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Where the package lies. */
  readonly root: string;
  readonly version: string;
  readonly startApp: StartApp;
  readonly fileFindings: FindInFiles;
  readonly access: AccessTools;
  readonly inspectFleetStore: InspectFleetStore;
  readonly migrateStore: MigrateStore;
  readonly backoff?: Backoff;
}

const DEFAULT_SERVER = 'http://127.0.0.1:8000';

const AFTER_HELP = `
Exit codes: 0 done, 1 the job failed or something broke, 2 wrong usage or request, 3 refused by the content analyser, 4 canceled,
5 not found, 6 service not reached, 7 not allowed, 8 over a limit, 130 interrupted.`;

/** Runs one command line (without the program's own name) and answers its exit code. Throws nothing. */
export async function runCommandLine(args: readonly string[], surroundings: Surroundings): Promise<ExitCode> {
  const { terminal, env } = surroundings;
  let exit: ExitCode = Exit.ok;
  const finish = (code: ExitCode) => {
    exit = code;
  };
  const program = new Command('ffjobs')
    .description('FaceFusion jobs: submit, watch, fetch the result, cancel')
    .option('--server <url>', 'the service to talk to (FFJOBS_SERVER)', env.FFJOBS_SERVER || DEFAULT_SERVER)
    .option('--json', 'write JSON lines to standard output', false)
    .showHelpAfterError('(`ffjobs --help` shows what there is)')
    .exitOverride()
    .configureOutput({ writeOut: (text) => void terminal.out.write(text), writeErr: (text) => void terminal.err.write(text) });
  // An option of the program is heard wherever it stands: `engine install --version 3.8.1` means another version.
  if (!args.includes('engine')) program.version(surroundings.version);
  program
    .command('serve')
    .description('run the service on this machine until Ctrl-C; settings are environment variables, see the README')
    .action(async () => finish(await serve(surroundings, program.opts())));
  program
    .command('doctor')
    .description('look at what the service needs on this machine, and say what to mend')
    .action(async () => finish(await doctor(surroundings, program.opts())));
  addConfigCommands(program, { ...surroundings, finish });
  addEngineCommands(program, { ...surroundings, finish });
  addProvenanceCommands(program, { ...surroundings, finish });
  addStoreCommands(program, { ...surroundings, finish });
  const token = env.FFJOBS_TOKEN || undefined;
  addAccessCommands(program, { ...surroundings, token, finish });
  addRemoteCommands(program, { terminal, finish, token, backoff: surroundings.backoff });
  program
    .command('completion')
    .description('write a script to standard output that completes commands and options in a shell')
    .addArgument(new Argument('<shell>', 'which one').choices(SHELLS))
    .action((shell: Shell) => answer(terminal, completionScript(program, shell).trimEnd()));
  addExamples(program);
  program.addHelpText('after', AFTER_HELP);

  try {
    await program.parseAsync(args, { from: 'user' });
    return exit;
  } catch (error) {
    // Commander has said it already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? Exit.ok : Exit.invalid;
    const { json, server } = program.opts<{ json: boolean; server: string }>();
    const explanation = explain(inWords(error), server);
    if (json) answerJson(terminal, explanationJson(explanation));
    else for (const line of explanationLines(explanation)) say(terminal, line);
    return explanation.exit;
  }
}

function inWords(error: unknown): unknown {
  if (error instanceof ConfigError) return new CliError(Exit.failed, error.problems.join('\nffjobs: '), { cause: error });
  if (error instanceof SetupProblem) return new CliError(Exit.failed, error.message, { cause: error });
  return error;
}
