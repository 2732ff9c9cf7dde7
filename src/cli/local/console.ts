// The web console's files, made of `web/` with Vite where they are not there or older than what they are made of. Always true: `web/dist` is
// whole or absent, because a build is made beside it and takes its place at once. A package brings the files along and is never built here.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface ConsoleOptions {
  /** Checkout or installed package. */
  readonly root: string;
  readonly report: (phase: string) => void;
  /** What the service should be told of, when there will be no console. */
  readonly warn: (problem: string) => void;
  readonly signal?: AbortSignal;
}

/** Names the sources of the files beside it. */
export const DIGEST_FILE = 'sources.sha256';

/** What the console is made of, as one digest. */
export function consoleDigest(root: string): string {
  const hash = createHash('sha256');
  const files = ['web/**/*.{ts,tsx,css,html,json,svg}', 'gen/facefusion/jobs/**/*.js', 'src/client/*.ts', 'scripts/build-web.ts']
    .flatMap((pattern) => globSync(pattern, { cwd: root, exclude: (path) => /(^|[\\/])\.?dist/.test(String(path)) }))
    .map((file) => file.replaceAll('\\', '/'));
  for (const file of files.sort())
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(root, file)))
      .update('\0');
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { devDependencies?: object };
  return hash.update(JSON.stringify(devDependencies ?? {})).digest('hex');
}

/** Whether `web/dist` is what its sources make. */
export function consoleIsBuilt(root: string): boolean {
  if (!existsSync(join(root, 'web', 'index.html'))) return true;
  const recorded = join(root, 'web', 'dist', DIGEST_FILE);
  return existsSync(recorded) && readFileSync(recorded, 'utf8') === consoleDigest(root);
}

/** Builds the console if it has to be. A failure costs the page and not the service. */
export async function prepareConsole({ root, report, warn, signal }: ConsoleOptions): Promise<void> {
  if (consoleIsBuilt(root)) return;
  if (!existsSync(join(root, 'node_modules', 'vite'))) {
    warn(
      'the web console is not built, and Vite is not installed: run `npm ci` (with development dependencies) once, or use the built package',
    );
    return;
  }
  report('building the web console (once)');
  const problem = await build(root, signal);
  signal?.throwIfAborted();
  if (problem !== undefined) warn(`the web console could not be built; the service runs without it. ${problem}`);
}

/** In a process of its own: the bundler's memory is not kept by the service. */
function build(root: string, signal: AbortSignal | undefined): Promise<string | undefined> {
  return new Promise((resolve) => {
    let said = '';
    const child = spawn(process.execPath, [join(root, 'scripts', 'build-web.ts')], {
      cwd: root,
      signal,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        said = `${said}${chunk}`.slice(-2000);
      });
    }
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) => resolve(code === 0 ? undefined : said.trim() || `the build ended with ${code}`));
  });
}
