// All that the shell of an example finds on its PATH: the checkout's own `ffjobs`, curl that does not overlook a refusal, grpcurl or what stands for it,
// and a few programs that change nothing but files of the folder. A page that names another one is stopped there, whatever it would have done.
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { ROOT } from '../api/service.ts';

/** Programs of the system that the examples need. */
export const missingPrograms = ['bash', 'curl', 'jq', 'base64'].filter((program) => spawnSync(program, ['--version']).error !== undefined);

const hasGrpcurl = spawnSync('grpcurl', ['--version']).error === undefined;

/** As they are. `env`, `dirname` and `node` are what npm's own launchers need; `sh` what those above are. */
const HARMLESS = ['base64', 'bash', 'cat', 'dirname', 'env', 'jq', 'sed', 'sh', 'tr'];

/**
 * Begins the script of an example: a program that is not there ends it, in a list (`a && b`) and in a subshell too, where `set -e` would go on.
 * `npm` and `npx` end it in the same way.
 */
export const STOPS_AT_OTHERS =
  'export EXAMPLE=$$\ncommand_not_found_handle() { echo "$1: not run here; the page has to say so" >&2; kill $EXAMPLE; }\n';

const quoted = (path: string) => `'${path.replaceAll("'", "'\\''")}'`;

export interface ProgramOptions {
  /** A call that is refused ends its example (`failed`), or the example shows what is answered. */
  readonly refusals: 'failed' | 'answered';
}

/** Makes the folder and answers the PATH, which is that folder. */
export async function programs(folder: string, { refusals }: ProgramOptions): Promise<string> {
  await mkdir(folder, { recursive: true });
  const node = `exec ${quoted(process.execPath)}`;
  const ffjobs = `${node} ${quoted(join(ROOT, 'bin', 'ffjobs.mjs'))}`;
  const scripts: Record<string, string> = {
    npx: `[ "$1" = ffjobs ] || { echo "npx $1: not run here; the page has to say so" >&2; kill $EXAMPLE; exit 1; }\nshift\n${ffjobs} "$@"`,
    ffjobs: `${ffjobs} "$@"`,
    // The service of the examples runs already: what is left to say is whether one would start with these settings.
    npm: `[ "$*" = start ] || { echo "npm $*: not run here; the page has to say so" >&2; kill $EXAMPLE; exit 1; }\n${ffjobs} config check`,
  };
  scripts.curl = `exec ${quoted(found('curl'))} ${refusals === 'failed' ? '--fail-with-body ' : ''}"$@"`;
  scripts.grpcurl = hasGrpcurl
    ? `exec ${quoted(found('grpcurl'))} "$@"`
    : `${node} ${quoted(join(ROOT, 'test', 'api', 'grpcurl.ts'))} "$@"`;
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(folder, name), 0o755);
  }
  for (const name of HARMLESS) await symlink(found(name), join(folder, name));
  return folder;
}

function found(program: string): string {
  const path = process.env.PATH!.split(delimiter).map((folder) => join(folder, program));
  const one = path.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (one === undefined) throw new Error(`no ${program} on the PATH`);
  return one;
}
