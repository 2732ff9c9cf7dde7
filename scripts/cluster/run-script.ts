// How the scripts that show something are run. Always true: a Ctrl-C ends them in good order, whatever they started included, and what stands in the way is
// told in words and an exit code, as by a command of `ffjobs`.
import { SetupProblem } from '../../src/cli/local/python.ts';
import { CliError, Exit, explain, explanationLines } from '../../src/cli/remote/errors.ts';

/** `name`: of the script, for people. `leaving`: is aborted by SIGINT and SIGTERM; `main` ends soon after. */
export async function runScript(name: string, leaving: AbortController, main: () => Promise<void>): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => leaving.abort());
  try {
    await main();
    process.exitCode = Exit.ok;
  } catch (error) {
    process.exitCode = leaving.signal.aborted ? Exit.interrupted : Exit.failed;
    if (leaving.signal.aborted) return;
    const words = error instanceof SetupProblem ? new CliError(Exit.failed, error.message) : error;
    for (const line of explanationLines(explain(words, `the ${name}’s own services`)))
      console.error(line.replace(/^ffjobs: /, `The ${name} stopped: `));
  }
}
