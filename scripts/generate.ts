// Makes `gen/` from `proto/`. Third-party definitions are fetched from public registries at the versions below into `.cache/proto`, which is
// never committed; `gen/` is, with a manifest of digests that `npm test` holds against both sides, so that nobody needs this to build.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');
const CACHE = join(ROOT, '.cache', 'proto');
export const MANIFEST = join(ROOT, 'gen', 'manifest.json');

/** Where each third-party definition comes from; the folder inside the package is laid over `.cache/proto`. */
const SOURCES = [
  {
    kind: 'pip',
    name: 'googleapis-common-protos==1.76.0',
    files: ['google/api/annotations.proto', 'google/api/http.proto', 'google/rpc/error_details.proto'],
  },
  { kind: 'go', name: 'github.com/bufbuild/protovalidate@v1.2.2', from: 'proto/protovalidate', files: ['buf/validate/validate.proto'] },
  { kind: 'npm', name: 'grpc-health-check@2.1.0', from: 'package/proto', to: 'grpc', files: ['health/v1/health.proto'] },
  {
    kind: 'npm',
    name: '@grpc/reflection@1.0.4',
    from: 'package/build/proto',
    files: ['grpc/reflection/v1/reflection.proto', 'grpc/reflection/v1alpha/reflection.proto'],
  },
] as const;

function run(command: string, args: string[], cwd: string): string {
  return execFileSync(command, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, GOFLAGS: '-mod=mod' },
  });
}

function fetchThirdParty(): void {
  for (const source of SOURCES) {
    const target = (file: string) => join(CACHE, 'to' in source ? source.to : '', file);
    if (source.files.every((file) => existsSync(target(file)))) continue;
    const scratch = mkdtempSync(join(tmpdir(), 'proto-'));
    let origin = scratch;
    if (source.kind === 'pip') {
      run('python3', ['-m', 'pip', 'install', '-q', '--no-deps', '--target', scratch, source.name], scratch);
    } else if (source.kind === 'go') {
      origin = (JSON.parse(run('go', ['mod', 'download', '-json', source.name], scratch)) as { Dir: string }).Dir;
    } else {
      const archive = run('npm', ['pack', '--silent', source.name], scratch).trim().split('\n').at(-1)!;
      run('tar', ['xzf', archive], scratch);
    }
    for (const file of source.files) {
      mkdirSync(dirname(target(file)), { recursive: true });
      cpSync(join(origin, 'from' in source ? source.from : '', file), target(file));
    }
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Digests of what goes in and what came out, in a stable order. Line ends are the files' own. */
export function manifest(): Record<string, string> {
  const files = ['buf.gen.yaml', ...globSync('proto/**/*.proto', { cwd: ROOT }), ...globSync('gen/**/*.{js,ts}', { cwd: ROOT })].sort();
  return Object.fromEntries(
    files.map((file) => [
      file,
      createHash('sha256')
        .update(readFileSync(join(ROOT, file)))
        .digest('hex'),
    ]),
  );
}

if (import.meta.main) {
  fetchThirdParty();
  run(join(ROOT, 'node_modules', '.bin', 'buf'), ['lint'], ROOT);
  run(join(ROOT, 'node_modules', '.bin', 'buf'), ['generate'], ROOT);
  writeFileSync(MANIFEST, `${JSON.stringify(manifest(), null, 2)}\n`);
  process.stdout.write('gen/ is up to date\n');
}
