// The real service in this process, on a free port, in a folder of its own, with the scripted engine in real worker processes.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { pino } from 'pino';
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from '../../gen/grpc/health/v1/health_pb.js';
import { type App, type Surroundings, startApp } from '../../src/app.ts';
import { type Config, readConfig } from '../../src/config.ts';

export const ROOT = join(import.meta.dirname, '..', '..');

/** A Python for workers that need the standard library alone. */
export function python(): string {
  const venv = join(ROOT, '.venv', 'bin', 'python');
  return existsSync(venv) ? venv : 'python3';
}

export interface Service extends AsyncDisposable {
  readonly app: App;
  readonly baseUrl: string;
  readonly dir: string;
  readonly inputDir: string;
  readonly config: Config;
  /** Log lines so far, parsed. */
  readonly logs: Record<string, unknown>[];
  /** Ends the service and starts it again on the same folder. */
  restart(): Promise<void>;
}

/** Starts the service. `settings` are FFJOBS_ variables without the prefix, and FaceFusion's own. */
export async function startService(settings: Readonly<Record<string, string>> = {}, more: Partial<Surroundings> = {}): Promise<Service> {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-'));
  const inputDir = join(dir, 'input');
  await mkdir(inputDir);
  for (const name of ['face.jpg', 'target.png', 'target.mp4']) await writeFile(join(inputDir, name), MEDIA[name]!);
  const all = {
    PORT: '0',
    METRICS_PORT: 'off',
    DATA_DIR: dir,
    ENGINE: 'scripted:Scripted',
    ENGINE_PATH: join(ROOT, 'worker', 'tests', 'engines'),
    PYTHON: python(),
    // Tests submit like jobs and want each to run; those of the cache turn it on.
    CACHE_TTL: 'off',
    // The scripted engine opens nothing, and its media are a few bytes of their formats.
    ...(settings.ENGINE === undefined ? { PROBE: 'off' } : {}),
    ...settings,
  };
  const own = Object.entries(all).map(([name, value]) => [name.startsWith('FACEFUSION_') ? name : `FFJOBS_${name}`, value]);
  const aws = Object.entries(more.env ?? {}).filter(([name]) => name.startsWith('AWS_'));
  const config = readConfig(Object.fromEntries([...own, ...aws]), ROOT);
  const logs: Record<string, unknown>[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void logs.push(JSON.parse(line) as Record<string, unknown>) });
  const start = async () => {
    const app = await startApp(config, { env: process.env, root: ROOT, version: '0.0.0-test', terminal: false, log, ...more });
    await app.scheduler?.ready;
    return app;
  };
  let app = await start().catch(async (error: unknown) => {
    await rm(dir, { recursive: true, force: true });
    throw error;
  });
  return {
    get app() {
      return app;
    },
    get baseUrl() {
      return app.address;
    },
    dir,
    inputDir,
    config,
    logs,
    async restart() {
      await app.close();
      app = await start();
    },
    async [Symbol.asyncDispose]() {
      await app.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Until a service takes jobs: it has heard of a warm worker, its own or another node's. */
export async function untilWarm(baseUrl: string): Promise<void> {
  const health = createClient(Health, createGrpcTransport({ baseUrl }));
  for await (const { status } of health.watch({ service: 'facefusion.jobs.workers' })) if (status === ServingStatus.SERVING) return;
}

/** The first bytes of each format are enough for the scripted engine; it opens nothing. */
const MEDIA: Readonly<Record<string, Buffer>> = {
  'face.jpg': Buffer.from('ffd8ffe000104a46494600010100000100010000ffd9', 'hex'),
  'target.png': Buffer.from('89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de', 'hex'),
  'target.mp4': Buffer.from('000000186674797069736f6d0000020069736f6d69736f32', 'hex'),
};
