// Makes `gen/` from `proto/`. Third-party definitions are fetched from public registries at the versions below into `.cache/proto`, which is
// never committed; `gen/` is, with a manifest of digests that `npm test` holds against both sides, so that nobody needs this to build.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import { type DescriptorProto, type FileDescriptorProto, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { generatePython, PYTHON_GEN } from './generate-python.ts';
import { updateReadme } from './readme-settings.ts';

const ROOT = join(import.meta.dirname, '..');
const CACHE = join(ROOT, '.cache', 'proto');
export const MANIFEST = join(ROOT, 'gen', 'manifest.json');
const COMMENTS = join(ROOT, 'gen', 'comments.json');

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

/**
 * The contract's own comments by full name (`pkg.Message.field`, `pkg.Service.Method`), for documents made at run time: generated descriptors
 * carry none. Paths of source locations: google/protobuf/descriptor.proto, SourceCodeInfo.Location.
 */
function comments(): Record<string, string> {
  const image = execFileSync(join(ROOT, 'node_modules', '.bin', 'buf'), ['build', '-o', '-'], { cwd: ROOT, maxBuffer: 2 ** 26 });
  const found: Record<string, string> = {};
  for (const file of fromBinary(FileDescriptorSetSchema, image).file) {
    if (!file.package.startsWith('facefusion.jobs.')) continue;
    for (const { path, leadingComments } of file.sourceCodeInfo?.location ?? []) {
      const name = leadingComments && nameAt(file, path);
      if (name) found[`${file.package}.${name}`] = leadingComments.replaceAll(/\s*\n\s*/g, ' ').trim();
    }
  }
  return Object.fromEntries(Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function nameAt(file: FileDescriptorProto, path: readonly number[]): string | undefined {
  const [kind, index, ...rest] = path;
  if (kind === 4) return nameIn(file.messageType[index!]!, rest);
  const [part, at, ...more] = rest;
  if (kind === 5) {
    const { name, value } = file.enumType[index!]!;
    return rest.length === 0 ? name : part === 2 && more.length === 0 ? `${name}.${value[at!]!.name}` : undefined;
  }
  if (kind !== 6) return undefined;
  const { name, method } = file.service[index!]!;
  return rest.length === 0 ? name : part === 2 && more.length === 0 ? `${name}.${method[at!]!.name}` : undefined;
}

function nameIn(message: DescriptorProto, path: readonly number[]): string | undefined {
  const [part, index, ...rest] = path;
  if (part === undefined) return message.name;
  if (part === 2 && rest.length === 0) return `${message.name}.${message.field[index!]!.name}`;
  const inner = part === 3 ? nameIn(message.nestedType[index!]!, rest) : undefined;
  return inner && `${message.name}.${inner}`;
}

/** Digests of what goes in and what came out, in a stable order. Line ends are the files' own. */
export function manifest(): Record<string, string> {
  const files = [
    'buf.gen.yaml',
    ...globSync('proto/**/*.proto', { cwd: ROOT }),
    'gen/comments.json',
    ...globSync('gen/**/*.{js,ts}', { cwd: ROOT }),
    ...globSync(`${PYTHON_GEN}/*_pb2*`, { cwd: ROOT }),
  ].sort();
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
  generatePython();
  writeFileSync(COMMENTS, `${JSON.stringify(comments(), null, 2)}\n`);
  writeFileSync(MANIFEST, `${JSON.stringify(manifest(), null, 2)}\n`);
  updateReadme(join(ROOT, 'README.md'));
  process.stdout.write(`gen/, the Python client and the README's table of settings are up to date\n`);
}
