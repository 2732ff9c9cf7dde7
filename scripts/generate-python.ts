// The Python client's messages and stubs, made from the same contract as `gen/`. Options of other packages (validation, REST) are taken out first:
// they mean something to the service alone, and a client would need their packages to load its own. The modules are `facefusion_jobs.v1`, not
// `facefusion.jobs.v1`: a package of the name `facefusion` is FaceFusion's own.
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type DescriptorProto, type FileDescriptorProto, FileDescriptorSetSchema, FileOptionsSchema } from '@bufbuild/protobuf/wkt';

const ROOT = join(import.meta.dirname, '..');
export const PYTHON_GEN = join('clients', 'python', 'src', 'facefusion_jobs', 'v1');

/** Not the newest: what it makes runs with every protobuf from its own (6.31) to the end of the next major version. */
const TOOLS = 'grpcio-tools==1.75.1';

export function generatePython(): void {
  const tools = join(ROOT, '.cache', TOOLS.replace('==', '-'));
  if (!existsSync(tools)) {
    execFileSync('python3', ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--target', tools, TOOLS], { stdio: 'inherit' });
  }
  const image = execFileSync(join(ROOT, 'node_modules', '.bin', 'buf'), ['build', '-o', '-'], { cwd: ROOT, maxBuffer: 2 ** 26 });
  const all = fromBinary(FileDescriptorSetSchema, image).file;
  const ours = all.filter((file) => file.package === 'facefusion.jobs.v1');
  for (const file of ours) plain(file);
  const needed = new Set(ours.flatMap((file) => file.dependency));
  const files = [...all.filter((file) => needed.has(file.name) && !ours.includes(file)), ...ours];

  const scratch = mkdtempSync(join(tmpdir(), 'python-'));
  try {
    const set = join(scratch, 'contract.binpb');
    writeFileSync(set, toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: files })));
    const out = ['python_out', 'pyi_out', 'grpc_python_out'].map((option) => `--${option}=${scratch}`);
    execFileSync('python3', ['-m', 'grpc_tools.protoc', `--descriptor_set_in=${set}`, ...out, ...ours.map(({ name }) => name)], {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, PYTHONPATH: tools },
    });
    for (const path of globSync(`${PYTHON_GEN}/*_pb2*`, { cwd: ROOT })) rmSync(join(ROOT, path));
    for (const name of globSync('*_pb2*', { cwd: join(scratch, 'facefusion', 'jobs', 'v1') })) {
      if (/_pb2_grpc/.test(name) && !/_service_/.test(name)) continue;
      const text = readFileSync(join(scratch, 'facefusion', 'jobs', 'v1', name), 'utf8');
      writeFileSync(join(ROOT, PYTHON_GEN, name), text.replaceAll('from facefusion.jobs.v1 import', 'from facefusion_jobs.v1 import'));
    }
    for (const file of ours) {
      if (file.service.length > 0) writeFileSync(join(ROOT, PYTHON_GEN, `${moduleOf(file)}_grpc.pyi`), stubTypes(file, ours));
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Without options, and without imports of what only options used. */
function plain(file: FileDescriptorProto): void {
  file.options = create(FileOptionsSchema);
  file.dependency = file.dependency.filter((name) => /^(google\/protobuf|facefusion\/jobs)\//.test(name));
  file.publicDependency = [];
  file.sourceCodeInfo = undefined;
  for (const message of file.messageType) plainMessage(message);
  for (const service of file.service) {
    service.options = undefined;
    for (const method of service.method) method.options = undefined;
  }
}

function plainMessage(message: DescriptorProto): void {
  for (const field of message.field) field.options = undefined;
  for (const oneof of message.oneofDecl) oneof.options = undefined;
  // What makes a map a map.
  if (!message.options?.mapEntry) message.options = undefined;
  message.nestedType.forEach(plainMessage);
}

const moduleOf = ({ name }: FileDescriptorProto) => `${name.split('/').at(-1)!.replace('.proto', '')}_pb2`;

/**
 * Types of the stubs, of which grpcio's generator makes none. They are those of `types-grpcio`. `...AsyncStub` is there for types alone: a stub over a
 * channel of asyncio is of the same class, and its calls are to be awaited.
 */
function stubTypes(file: FileDescriptorProto, files: readonly FileDescriptorProto[]): string {
  const modules = new Set<string>();
  const typeOf = (name: string) => {
    const from = files.find((one) => one.messageType.some((message) => `.${one.package}.${message.name}` === name));
    if (!from) throw new Error(`${name} is no message of ${files[0]!.package}`);
    modules.add(moduleOf(from));
    return `${moduleOf(from)}.${name.split('.').at(-1)}`;
  };
  const body = file.service.flatMap((service) => {
    const methods = service.method.map(({ name, inputType, outputType, clientStreaming, serverStreaming }) => {
      const [request, response] = [typeOf(inputType), typeOf(outputType)];
      const kind = `${clientStreaming ? 'Stream' : 'Unary'}${serverStreaming ? 'Stream' : 'Unary'}MultiCallable`;
      const taken = clientStreaming ? `request_iterator: Iterator[${request}]` : `request: ${request}`;
      const told = serverStreaming ? `Iterator[${response}]` : response;
      return {
        call: `    ${name}: grpc.${kind}[${request}, ${response}]`,
        awaited: `    ${name}: grpc.aio.${kind}[${request}, ${response}]`,
        served: `    def ${name}(self, ${taken}, context: grpc.ServicerContext) -> ${told}: ...`,
      };
    });
    return [
      `class ${service.name}Stub:`,
      '    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...',
      ...methods.map(({ call }) => call),
      '',
      `class ${service.name}AsyncStub:`,
      ...methods.map(({ awaited }) => awaited),
      '',
      `class ${service.name}Servicer:`,
      ...methods.map(({ served }) => served),
      '',
      `def add_${service.name}Servicer_to_server(servicer: ${service.name}Servicer, server: grpc.Server | grpc.aio.Server) -> None: ...`,
    ];
  });
  const head = [
    '# Made by `npm run generate`.',
    ...(body.some((line) => line.includes('Iterator[')) ? ['from collections.abc import Iterator', ''] : []),
    'import grpc',
    'import grpc.aio',
    '',
    ...[...modules].sort().map((module) => `from facefusion_jobs.v1 import ${module}`),
  ];
  return `${[...head, '', ...body].join('\n')}\n`;
}
