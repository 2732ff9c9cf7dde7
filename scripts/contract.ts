// The contract held against rules: its own style, and what was released of it. It is read from the descriptors in `gen/`, which carry the third-party
// definitions that the sources import, so that nothing here needs a network; that they are the sources' is the check `generated-code`.
// `node scripts/node24.mjs scripts/contract.ts release` keeps the contract as it is as the released one: a part of making a release.
import { execFile } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { create, type DescFile, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type FileDescriptorProto, type FileDescriptorSet, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

const ROOT = join(import.meta.dirname, '..');
/** The contract of the last release, where no tag tells of it: before the first one, in a shallow clone, in an archive. */
export const RELEASED = join(ROOT, 'proto', 'released.binpb');
const BUF = join(ROOT, 'node_modules', '.bin', process.platform === 'win32' ? 'buf.cmd' : 'buf');
/** What is ours of an image, which has everything that is imported too. */
const OURS = ['--path', 'facefusion', '--path', 'restbridge'];

/** The descriptors that a `gen` folder carries, and all that they import. */
export async function contractIn(gen: string): Promise<FileDescriptorSet> {
  const files = new Map<string, FileDescriptorProto>();
  const add = (file: DescFile) => {
    if (files.has(file.proto.name)) return;
    file.dependencies.forEach(add);
    files.set(file.proto.name, file.proto);
  };
  for (const path of globSync('{facefusion,restbridge}/**/*_pb.js', { cwd: gen }).sort()) {
    const module = (await import(join(gen, path))) as Record<string, unknown>;
    for (const [name, value] of Object.entries(module)) if (name.startsWith('file_')) add(value as DescFile);
  }
  return create(FileDescriptorSetSchema, { file: [...files.values()] });
}

/** What buf finds in the contract's style; undefined: nothing. */
export async function lint(): Promise<string | undefined> {
  const now = await contractIn(join(ROOT, 'gen'));
  return await withImages([now], ([image]) => buf('lint', image!));
}

/** Where `now` breaks the callers of `before`, a line each; undefined: nowhere. */
export async function breaks(now: FileDescriptorSet, before: FileDescriptorSet): Promise<string | undefined> {
  return await withImages([now, before], ([image, against]) => buf('breaking', image!, '--against', against!));
}

/** The same of the contract as it is and the one that was released last. */
export async function breaksOfReleased(): Promise<string | undefined> {
  const { name, contract } = await released();
  const found = await breaks(await contractIn(join(ROOT, 'gen')), contract);
  return found === undefined ? undefined : `the contract breaks callers of ${name}:\n${found}`;
}

async function released(): Promise<{ readonly name: string; readonly contract: FileDescriptorSet }> {
  const tag = await git('describe', '--tags', '--abbrev=0', '--match', 'v*').catch(() => '');
  if (/^v\d/.test(tag)) return { name: tag, contract: await contractAt(tag) };
  return { name: relative(ROOT, RELEASED), contract: fromBinary(FileDescriptorSetSchema, readFileSync(RELEASED)) };
}

async function contractAt(tag: string): Promise<FileDescriptorSet> {
  await mkdir(join(ROOT, '.cache'), { recursive: true });
  // In the repository, so that what the release's code imports is found.
  const folder = mkdtempSync(join(ROOT, '.cache', 'contract-'));
  try {
    const archive = join(folder, 'gen.tar');
    await git('archive', '--output', archive, tag, 'gen');
    await promisify(execFile)('tar', ['-xf', archive, '-C', folder]);
    return await contractIn(join(folder, 'gen'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function git(...args: string[]): Promise<string> {
  return (await promisify(execFile)('git', args, { cwd: ROOT })).stdout.trim();
}

async function withImages<T>(contracts: readonly FileDescriptorSet[], work: (images: string[]) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'contract-'));
  try {
    const images = contracts.map((contract, i) => {
      const image = join(folder, `${i}.binpb`);
      writeFileSync(image, toBinary(FileDescriptorSetSchema, contract));
      return image;
    });
    return await work(images);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What it says where it is not content. */
async function buf(...args: string[]): Promise<string | undefined> {
  try {
    await promisify(execFile)(BUF, [...args, '--config', 'buf.yaml', ...OURS], { cwd: ROOT });
    return undefined;
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as { stdout?: string; stderr?: string; message: string };
    return `${stdout}${stderr}`.trim() || message;
  }
}

if (import.meta.main) {
  if (process.argv[2] !== 'release') throw new Error('`release` is what there is to do');
  const broken = existsSync(RELEASED) ? await breaksOfReleased() : undefined;
  if (broken !== undefined) throw new Error(broken);
  writeFileSync(RELEASED, toBinary(FileDescriptorSetSchema, await contractIn(join(ROOT, 'gen'))));
  process.stdout.write(`${relative(ROOT, RELEASED)} is the contract as it is\n`);
}
