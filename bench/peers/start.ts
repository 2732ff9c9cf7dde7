// Starts the peers, each in a process of its own. Python peers get a virtual environment each, made when it is first needed from their pinned
// requirements and kept below `.cache`, which neither git nor the linters see.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { toBinary } from '@bufbuild/protobuf';
import { type GetResponse, GetResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { CannotRun, freePort, NODE_OPTIONS, Process } from '../processes.ts';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const run = promisify(execFile);

export interface Peer extends AsyncDisposable {
  readonly port: number;
  readonly pid: number;
}

/** What the peers answer: the same jobs in both forms, as the service itself gave them. */
export interface Served {
  readonly json: readonly object[];
  readonly messages: readonly GetResponse[];
}

const peerOf = (process: Process, port: number): Peer => ({
  port,
  pid: process.pid,
  [Symbol.asyncDispose]: () => process.stop(),
});

export async function startNodePeer(name: 'connect' | 'grpc-js' | 'fastify', served: Served): Promise<Peer> {
  const peer = new Process(name, process.execPath, [...NODE_OPTIONS, join(HERE, `${name}.ts`)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      NODE_ENV: 'production',
      BENCH_JOBS: JSON.stringify(served.json),
      BENCH_MESSAGES: JSON.stringify(served.messages.map((one) => Buffer.from(toBinary(GetResponseSchema, one)).toString('base64'))),
    },
  });
  return peerOf(peer, await peer.line((line) => (JSON.parse(line) as { port: number }).port));
}

/** A bare pipeline that streams, hashes and writes what it is sent, in `folder`. */
export async function startMediaPeer(folder: string): Promise<Peer & { readonly h2: number }> {
  const peer = new Process('media', process.execPath, [...NODE_OPTIONS, join(HERE, 'media.ts')], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_ENV: 'production', BENCH_FOLDER: folder },
  });
  const { port, h2 } = await peer.line((line) => JSON.parse(line) as { port: number; h2: number });
  return { ...peerOf(peer, port), h2 };
}

/** uvicorn with uvloop and httptools, one process, its access log off: the fastest way that its documentation names. */
async function startFastapi(served: Served): Promise<Peer> {
  const { bin, env } = await environment('fastapi');
  const port = await freePort();
  const args = ['-m', 'uvicorn', 'app:app', '--port', String(port), '--loop', 'uvloop', '--http', 'httptools'];
  const peer = new Process('FastAPI', join(bin, 'python'), [...args, '--no-access-log', '--log-level', 'warning'], {
    cwd: join(HERE, 'fastapi'),
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...env, BENCH_JOBS: JSON.stringify(served.json) },
  });
  await answering(peer, 'FastAPI', `http://127.0.0.1:${port}/openapi.json`, () => true);
  return peerOf(peer, port);
}

/** FastAPI, or why it is not there: a quick run installs nothing. */
export async function fastapiOrWhyNot(
  served: Served,
  quick: boolean,
): Promise<{ readonly fastapi: Peer | undefined; readonly why: string }> {
  if (quick) return { fastapi: undefined, why: 'a quick run installs no peer' };
  try {
    return { fastapi: await startFastapi(served), why: '' };
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    return { fastapi: undefined, why: error.message };
  }
}

export async function startCoglet(): Promise<Peer> {
  const { bin, env } = await environment('coglet');
  const port = await freePort();
  const peer = new Process('coglet', join(bin, 'python'), ['serve.py', String(port)], {
    cwd: join(HERE, 'coglet'),
    stdio: ['ignore', 'ignore', 'ignore'],
    env,
  });
  await answering(peer, 'coglet', `http://127.0.0.1:${port}/health-check`, (body) => body.includes('"READY"'));
  return peerOf(peer, port);
}

async function answering(peer: Process, name: string, url: string, right: (body: string) => boolean): Promise<void> {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; await sleep(50)) {
    if (!peer.running) throw new CannotRun(`${name} ended while it started`);
    const body = await fetch(url).then(
      (response) => (response.ok ? response.text() : undefined),
      () => undefined,
    );
    if (body !== undefined && right(body)) return;
  }
  await peer.stop();
  throw new CannotRun(`${name} was not ready within 30 s`);
}

/** The virtual environment of a peer; its `bin` comes first in PATH, for peers that start their own worker as `python`. */
async function environment(name: string): Promise<{ bin: string; env: NodeJS.ProcessEnv }> {
  const requirements = join(HERE, name, 'requirements.txt');
  const digest = createHash('sha256').update(readFileSync(requirements)).digest('hex');
  const home = join(HERE, '..', '..', '.cache', 'bench-peers', name);
  const bin = join(home, 'bin');
  const stamp = join(home, 'requirements.sha256');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== digest) {
    process.stderr.write(`installing the peer ${name} (once)\n`);
    rmSync(home, { recursive: true, force: true });
    mkdirSync(home, { recursive: true });
    try {
      await run('python3', ['-m', 'venv', home]);
      await run(join(bin, 'python'), ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', requirements]);
    } catch (error) {
      const words = String((error as { stderr?: string }).stderr || (error as Error).message).trim();
      throw new CannotRun(`the peer ${name} could not be installed: ${words.split('\n').at(-1)}`);
    }
    writeFileSync(stamp, digest);
  }
  return { bin, env: { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` } };
}

/** Where BullMQ and its client are installed; once. */
export async function bullmqHome(): Promise<string> {
  const manifest = readFileSync(join(HERE, 'bullmq', 'package.json'));
  const home = join(HERE, '..', '..', '.cache', 'bench-peers', 'bullmq');
  const stamp = join(home, 'installed.sha256');
  const digest = createHash('sha256').update(manifest).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return home;
  process.stderr.write('installing the peer bullmq (once)\n');
  rmSync(home, { recursive: true, force: true });
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, 'package.json'), manifest);
  try {
    await run('npm', ['install', '--no-package-lock', '--no-audit', '--no-fund'], { cwd: home });
  } catch (error) {
    const words = String((error as { stderr?: string }).stderr || (error as Error).message).trim();
    throw new CannotRun(`the peer bullmq could not be installed: ${words.split('\n').at(-1)}`);
  }
  writeFileSync(stamp, digest);
  return home;
}
