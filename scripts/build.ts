// Makes the package in `dist/`: JavaScript instead of TypeScript (Node strips no types below node_modules), and beside it what the service
// reads at run time. Everything keeps its place relative to the rest, so that code finds it the same way in a checkout and in the package.
import { execFileSync } from 'node:child_process';
import { cpSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = join(import.meta.dirname, '..');

/** What goes along as it is. */
const FILES = [
  'bin/ffjobs.mjs',
  'scripts/node24.mjs',
  'src/store/migrations/*.sql',
  'src/store/redis/{migrations,scripts}/*.lua',
  'gen/**/*.{js,d.ts,json}',
  'proto/**/*.proto',
  'web/dist/index.html',
  'web/dist/assets/*',
  'worker/pyproject.toml',
  'worker/requirements.txt',
  'worker/requirements-provenance.txt',
  'worker/facefusion_worker/**/*.py',
  'README.md',
  'LICENSE',
  'THIRD_PARTY_NOTICES.md',
];

export function build(dist: string): void {
  execFileSync(process.execPath, [join(ROOT, 'scripts', 'build-web.ts')], { cwd: ROOT, stdio: 'inherit' });
  rmSync(dist, { recursive: true, force: true });
  execFileSync(join(ROOT, 'node_modules', '.bin', 'tsc'), ['-p', 'tsconfig.build.json', '--outDir', dist], { cwd: ROOT, stdio: 'inherit' });
  for (const file of FILES.flatMap((pattern) => globSync(pattern, { cwd: ROOT }))) cpSync(join(ROOT, file), join(dist, file));
  const {
    scripts: _,
    devDependencies: __,
    private: ___,
    exports,
    ...facts
  } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, unknown>;
  const made = { ...facts, exports: JSON.parse(JSON.stringify(exports).replaceAll('.ts"', '.js"')) as unknown };
  writeFileSync(join(dist, 'package.json'), `${JSON.stringify(made, null, 2)}\n`);
}

if (import.meta.main) {
  const dist = resolve(process.argv[2] ?? join(ROOT, 'dist'));
  build(dist);
  process.stdout.write(`the package is in ${dist}\n`);
}
