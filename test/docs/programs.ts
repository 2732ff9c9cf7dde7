// What the shell of an example finds on its PATH instead of what a reader has: the checkout's own `ffjobs`, curl that does not overlook a refusal, and
// grpcurl or what stands for it.
import { spawnSync } from 'node:child_process';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT } from '../api/service.ts';

/** Programs of the system that the examples need. */
export const missingPrograms = ['bash', 'curl', 'jq', 'base64'].filter((program) => spawnSync(program, ['--version']).error !== undefined);

const hasGrpcurl = spawnSync('grpcurl', ['--version']).error === undefined;

const quoted = (path: string) => `'${path.replaceAll("'", "'\\''")}'`;

export interface ProgramOptions {
  /** Folder that keeps what Node has compiled. */
  readonly compiled: string;
  /** A call that is refused ends its example (`failed`), or the example shows what is answered. */
  readonly refusals: 'failed' | 'answered';
}

/** Makes the folder and answers the PATH that begins with it. */
export async function programs(folder: string, { compiled, refusals }: ProgramOptions): Promise<string> {
  await mkdir(folder, { recursive: true });
  const node = `NODE_COMPILE_CACHE=${quoted(compiled)} exec ${quoted(process.execPath)}`;
  const ffjobs = `${node} ${quoted(join(ROOT, 'bin', 'ffjobs.mjs'))}`;
  const scripts: Record<string, string> = {
    npx: `[ "$1" = ffjobs ] || { echo "npx $1: not of this project" >&2; exit 127; }\nshift\n${ffjobs} "$@"`,
    ffjobs: `${ffjobs} "$@"`,
    // The service of the examples runs already: what is left to say is whether one would start with these settings.
    npm: `[ "$*" = start ] || { echo "npm $*: say in the page that it is not run" >&2; exit 127; }\n${ffjobs} config check`,
  };
  if (refusals === 'failed') scripts.curl = `PATH=\${PATH#*:} exec curl --fail-with-body "$@"`;
  if (!hasGrpcurl) scripts.grpcurl = `${node} ${quoted(join(ROOT, 'test', 'api', 'grpcurl.ts'))} "$@"`;
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(folder, name), 0o755);
  }
  return `${folder}:${process.env.PATH}`;
}
