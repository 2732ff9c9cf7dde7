// The calls that the demo prints work as they stand, against a service as `npm start` runs it.
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { fromJson } from '@bufbuild/protobuf';
import { JobService, SubmitRequestSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { type CallTexts, callTexts } from '../scripts/calls.ts';
import { workerPython } from '../src/cli/local/python.ts';
import { connect } from '../src/cli/remote/client.ts';
import { type Followed, follow } from './fixtures/child.ts';

const ROOT = join(import.meta.dirname, '..');
const run = promisify(execFile);
const has = (program: string) => spawnSync(program, ['--version']).error === undefined;

let folder: string;
let child: ChildProcess;
let running: Followed;
let texts: CallTexts;
let output: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ffjobs-calls-'));
  output = join(folder, 'result.jpg');
  await mkdir(join(folder, 'input', 'demo'), { recursive: true });
  for (const name of ['eileen_collins.jpg', 'grace_hopper.jpg'])
    await copyFile(join(ROOT, 'samples', name), join(folder, 'input', 'demo', name));
  const python = await workerPython({
    root: ROOT,
    given: process.env.FFJOBS_PYTHON || undefined,
    env: process.env,
    dev: false,
    report: () => {},
  });
  child = spawn(process.execPath, [join(ROOT, 'src', 'main.ts'), 'serve', '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      FFJOBS_DATA_DIR: folder,
      FFJOBS_PORT: '0',
      FFJOBS_METRICS_PORT: 'off',
      FFJOBS_LOG_LEVEL: 'silent',
      FFJOBS_ENGINE: 'classical',
      FFJOBS_PYTHON: python,
    },
  });
  running = follow(child);
  const [line] = (await running.said(/\n/)).split('\n');
  const address = (JSON.parse(line!) as { listening: string }).listening;
  texts = callTexts({ address, source: 'demo/eileen_collins.jpg', target: 'demo/grace_hopper.jpg', output });
  // Answers when the first worker is warm: a submit before that is asked to come again.
  using service = connect(address);
  await service.system.getCapabilities({});
});

after(async () => {
  child.kill('SIGTERM');
  const code = await running.ended;
  await rm(folder, { recursive: true, force: true });
  assert.equal(code, 0, 'the service drains and ends in good order');
});

async function isJpeg(): Promise<void> {
  const bytes = await readFile(output);
  assert.deepEqual([...bytes.subarray(0, 2)], [0xff, 0xd8]);
  await rm(output);
}

test('curl', { skip: has('curl') ? false : 'machine: no curl on the PATH' }, async () => {
  const { stdout } = await run('sh', ['-e', '-c', texts.curl], { timeout: 120_000 });
  assert.match(stdout, /succeeded/);
  await isJpeg();
});

test('TypeScript', async () => {
  // Beside the packages and `gen/`, as the demo says.
  const file = join(ROOT, 'data', `calls-${process.pid}.ts`);
  await mkdir(join(ROOT, 'data'), { recursive: true });
  try {
    await writeFile(file, texts.typescript.replace("'./gen/", "'../gen/"));
    await run(process.execPath, [file], { timeout: 120_000 });
    await isJpeg();
  } finally {
    await rm(file, { force: true });
  }
});

test('grpcurl: the message and the method are in the contract', () => {
  const [, json, service, method] = /-d '(.*)' \S+ ([\w.]+)\/(\w+)$/.exec(texts.grpcurl)!;
  assert.equal(service, JobService.typeName);
  assert.ok(JobService.methods.some(({ name }) => name === method));
  assert.deepEqual(fromJson(SubmitRequestSchema, JSON.parse(json!)).job!.sourceImages, ['demo/eileen_collins.jpg']);
});

test('grpcurl: the call', { skip: has('grpcurl') ? false : 'machine: no grpcurl on the PATH' }, async () => {
  const { stdout } = await run('sh', ['-e', '-c', texts.grpcurl], { timeout: 120_000 });
  assert.match(stdout, /"jobId": "job_/);
});
