// `ffjobs serve`: the service until it is told to stop. The first signal drains, a second one leaves at once. What stands in the way of a
// start is one sentence with its fix.
import { existsSync } from 'node:fs';
import { access, constants, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Config, ConfigError } from '../../config.ts';
import { JobsError } from '../../jobs/errors.ts';
import { CliError, Exit, type ExitCode } from '../remote/errors.ts';
import { answer, answerJson, say, type Terminal } from '../remote/terminal.ts';
import type { FindInFiles } from './config.ts';
import { prepareConsole } from './console.ts';
import { showPhases } from './phases.ts';
import { workerPython } from './python.ts';
import { engineInWords, servicePython } from './service-engine.ts';
import { type Environment, readSettings } from './settings.ts';

export interface RunningApp {
  /** Base URL of the one port. */
  readonly address: string;
  /** Settles, with a sentence, if the engine cannot run on this machine. */
  readonly unfit?: Promise<string>;
  /** Drains, then closes; safe to call twice. */
  close(): Promise<void>;
}
/** `src/app.ts`, given by `main.ts` so that this folder does not know the composition root. */
export type StartApp = (config: Config) => Promise<RunningApp>;

export interface ServeContext {
  readonly terminal: Terminal;
  readonly env: Environment;
  readonly cwd: string;
  /** Of the installed package: holds `worker/` and `.venv`. */
  readonly root: string;
  readonly startApp: StartApp;
  readonly fileFindings: FindInFiles;
}

export async function serve(context: ServeContext, options: { readonly json: boolean }): Promise<ExitCode> {
  const { terminal, env, cwd } = context;
  const stopping = new AbortController();
  const forced = Promise.withResolvers<ExitCode>();
  const undo = terminal.onInterrupt((signal) => {
    if (stopping.signal.aborted) {
      say(terminal, 'Leaving at once; what ran is tried again at the next start.');
      forced.resolve(signal === 'SIGINT' ? Exit.interrupted : Exit.failed);
      return;
    }
    stopping.abort();
  });
  const run = async (): Promise<ExitCode> => {
    const config = readSettings(env, cwd);
    const { problems, warnings } = await context.fileFindings(config);
    if (problems.length > 0) throw new ConfigError(problems);
    for (const warning of warnings) say(terminal, `Warning: ${warning}`);
    await writable(config.dataDir);
    const [python] = await Promise.all([ready(context, config, stopping.signal), withConsole(context, config, stopping.signal)]);
    if (stopping.signal.aborted) return Exit.ok;
    const app = await context.startApp({ ...config, python }).catch((error: unknown) => {
      throw startProblem(error, config);
    });
    if (options.json) answerJson(terminal, { listening: app.address });
    else
      answer(
        terminal,
        `facefusion-jobs listens on ${app.address} (${config.console ? 'console at /, ' : ''}REST at /api/v1, documentation at /docs); Ctrl-C stops it`,
      );
    say(terminal, `Engine: ${engineInWords(config)}`);
    const unfit = await Promise.race([aborted(stopping.signal), app.unfit ?? aborted(stopping.signal)]);
    if (unfit !== undefined) {
      await app.close();
      throw new CliError(Exit.failed, `the engine ${engineInWords(config)} cannot run here: ${unfit}`);
    }
    say(terminal, 'Stopping: running jobs are finished or put back in the queue. Ctrl-C again leaves at once.');
    await app.close();
    return Exit.ok;
  };
  try {
    return await Promise.race([run(), forced.promise]);
  } catch (error) {
    if (stopping.signal.aborted && error === stopping.signal.reason) return Exit.ok;
    throw error;
  } finally {
    undo();
  }
}

/** Python for the workers; undefined: there will be none. */
async function ready({ terminal, env, root }: ServeContext, config: Config, signal: AbortSignal): Promise<string | undefined> {
  if (config.role === 'api') return undefined;
  using phases = showPhases(terminal);
  const report = (phase: string) => phases.report(phase);
  return workerPython({ root, ...servicePython(config), env, dev: false, signal, report });
}

async function withConsole({ terminal, root }: ServeContext, config: Config, signal: AbortSignal): Promise<void> {
  if (!config.console || config.role === 'worker') return;
  // Said in a line of its own: the line of phases is the Python environment's, which is made meanwhile.
  await prepareConsole({ root, report: (phase) => say(terminal, `${phase} ...`), warn: (problem) => say(terminal, problem), signal });
}

async function writable(folder: string): Promise<void> {
  try {
    await makeFolder(folder);
    await access(folder, constants.W_OK);
  } catch (error) {
    throw new CliError(
      Exit.failed,
      `the data folder ${folder} cannot be written (${(error as NodeJS.ErrnoException).code}): make it writable for this user, or set FFJOBS_DATA_DIR to another one`,
      { cause: error },
    );
  }
}

/** Level by level: Node's own recursion does not end where a file system answers ENOENT to the last level too, as /proc does. */
async function makeFolder(folder: string): Promise<void> {
  if (existsSync(folder)) return;
  if (dirname(folder) !== folder) await makeFolder(dirname(folder));
  await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

/** The ends of a start that people meet, in words; anything else stays as it is. */
function startProblem(error: unknown, config: Config): unknown {
  const { code, port, address } = error as { code?: string; port?: number; address?: string };
  const options = { cause: error };
  if (code === 'EADDRINUSE') {
    const metrics = port !== undefined && port === config.metricsPort && port !== config.port;
    const [name, number] = metrics ? ['FFJOBS_METRICS_PORT', config.metricsPort] : ['FFJOBS_PORT', config.port];
    return new CliError(
      Exit.failed,
      `port ${number} is taken by another program: stop it (it may be this service: \`ffjobs doctor\` tells), or set ${name} to another one`,
      options,
    );
  }
  if (code === 'EACCES' && port !== undefined) {
    return new CliError(Exit.failed, `this user may not listen on port ${port}: set FFJOBS_PORT to one above 1023`, options);
  }
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
    const metrics = address !== undefined && address === config.metricsHost && address !== config.host;
    const [name, host] = metrics ? ['FFJOBS_METRICS_HOST', address] : ['FFJOBS_HOST', config.host];
    return new CliError(Exit.failed, `this machine has no address '${host}': set ${name} to one that it has`, options);
  }
  if (error instanceof JobsError) return new CliError(Exit.failed, error.message, options);
  return error;
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
