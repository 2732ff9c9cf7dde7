// The service under test: the real one, in a process of its own, started as `npm start` starts it, with logs, metrics and validation on and a
// data folder of its own. Its log goes to a file, whose end is told when it does not come up.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createClient, type Interceptor } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { SystemService } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { SetupProblem, workerPython } from '../src/cli/local/python.ts';
import { CannotRun, freePort, NODE_OPTIONS, Process } from './processes.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const ENTRY = join(ROOT, 'src', 'main.ts');

/** A picture of one pixel: what a job of the no-op engine works on. */
const PIXEL = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==', 'base64');
export const TARGET = 'pixel.png';
/** The first bytes of a video, which is all that the no-op engine's jobs need. */
const FIRST_BYTES = Buffer.from('000000186674797069736f6d0000020069736f6d69736f32', 'hex');
export const CLIP = 'pixel.mp4';

/** What jobs of the benches' own engines work on. */
export function writeInputs(folder: string): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, TARGET), PIXEL);
  writeFileSync(join(folder, CLIP), FIRST_BYTES);
}

export interface ServiceOptions {
  readonly dataDir: string;
  /** `module:Class` from `bench/engines`, or a built-in engine's name. */
  readonly engine?: string;
  /** Settings by their names after FFJOBS_. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Further variables, by their whole names. */
  readonly env?: Readonly<Record<string, string>>;
  /** Arguments for Node itself, such as --cpu-prof. */
  readonly nodeArgs?: readonly string[];
  /** Callers have API keys, and the bench has one of this tenant. */
  readonly tenant?: string;
}

const run = promisify(execFile);

export class Service implements AsyncDisposable {
  readonly port: number;
  readonly metricsPort: number;
  readonly dataDir: string;
  /** From the start of the process to the first 200 of /readyz. */
  readonly readySeconds: number;
  /** With the key, where callers have one. */
  readonly headers: Readonly<Record<string, string>>;
  readonly #process: Process;

  private constructor(
    process: Process,
    ports: readonly [number, number],
    { dataDir, readySeconds, headers }: Pick<Service, 'dataDir' | 'readySeconds' | 'headers'>,
  ) {
    this.#process = process;
    [this.port, this.metricsPort] = ports;
    this.dataDir = dataDir;
    this.readySeconds = readySeconds;
    this.headers = headers;
  }

  /** Ready, and a worker has said what it can do. */
  static async start(options: ServiceOptions): Promise<Service> {
    if (!existsSync(ENTRY)) throw new CannotRun('the service is not there yet: no src/main.ts');
    await workerEnvironment();
    const { dataDir, tenant } = options;
    writeInputs(join(dataDir, 'input', tenant ?? ''));
    const ports = [await freePort(), await freePort()] as const;
    const logFile = join(dataDir, 'service.log');
    const log = openSync(logFile, 'a');
    const env = {
      ...withoutSettings(process.env),
      NODE_ENV: 'production',
      FFJOBS_PORT: String(ports[0]),
      FFJOBS_METRICS_PORT: String(ports[1]),
      FFJOBS_DATA_DIR: dataDir,
      FFJOBS_ENGINE: options.engine ?? 'noop:Noop',
      // The engines of the benches open nothing, and their inputs are few bytes.
      FFJOBS_PROBE: options.engine === undefined || options.engine.includes(':') ? 'off' : 'on',
      FFJOBS_ENGINE_PATH: join(ROOT, 'bench', 'engines'),
      FFJOBS_LOG_FORMAT: 'json',
      // Like jobs that each have to run.
      FFJOBS_CACHE_TTL: 'off',
      ...(tenant === undefined ? {} : { FFJOBS_API_KEYS: 'on' }),
      ...(process.env.FFJOBS_PYTHON ? { FFJOBS_PYTHON: process.env.FFJOBS_PYTHON } : {}),
      ...Object.fromEntries(Object.entries(options.settings ?? {}).map(([name, value]) => [`FFJOBS_${name}`, value])),
      ...options.env,
    };
    const headers: Record<string, string> = tenant === undefined ? {} : { authorization: `Bearer ${await newKey(tenant, env)}` };
    const began = performance.now();
    const child = new Process('the service', process.execPath, [...NODE_OPTIONS, ...(options.nodeArgs ?? []), ENTRY, 'serve'], {
      cwd: ROOT,
      stdio: ['ignore', log, log],
      env,
    });
    const base = `http://127.0.0.1:${ports[0]}`;
    let readySeconds: number | undefined;
    let answer = 'it does not listen';
    for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(5)) {
      if (!child.running) throw new Error(`the service ended while it started:\n${tail(logFile)}`);
      const path = readySeconds === undefined ? '/readyz' : '/api/v1/capabilities';
      const ok = await fetch(base + path, { headers }).then(
        async (response) => {
          answer = await response.text();
          return response.ok;
        },
        () => false,
      );
      if (!ok) continue;
      if (readySeconds !== undefined) return new Service(child, ports, { dataDir, readySeconds, headers });
      readySeconds = (performance.now() - began) / 1000;
    }
    await child.stop();
    throw new Error(`the service was not ready within 60 s: ${answer}\n${tail(logFile)}`);
  }

  get pid(): number {
    return this.#process.pid;
  }

  get base(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Clients over gRPC, for what is not measured. */
  clients() {
    const withKey: Interceptor = (next) => (request) => {
      for (const [name, value] of Object.entries(this.headers)) request.header.set(name, value);
      return next(request);
    };
    const transport = createGrpcTransport({ baseUrl: this.base, interceptors: [withKey] });
    return { jobs: createClient(JobService, transport), system: createClient(SystemService, transport) };
  }

  /** One figure of /metrics. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.metricsPort}/metrics`)).text();
    const value = new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(text)?.[1];
    return value === undefined ? Number.NaN : Number(value);
  }

  async stop(): Promise<void> {
    await this.#process.stop(10_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** As an operator makes one before the service runs. */
async function newKey(tenant: string, env: NodeJS.ProcessEnv): Promise<string> {
  const { stdout } = await run(process.execPath, [ENTRY, 'keys', 'create', '--tenant', tenant], { cwd: ROOT, env });
  return stdout.trim();
}

let prepared: Promise<string> | undefined;

/** The Python of the workers, as the service itself would prepare it; made before anything is timed. */
export function workerEnvironment(): Promise<string> {
  prepared ??= workerPython({
    root: ROOT,
    given: process.env.FFJOBS_PYTHON || undefined,
    env: process.env,
    dev: false,
    report: (phase) => process.stderr.write(`worker environment: ${phase}\n`),
  }).catch((error: Error) => {
    throw error instanceof SetupProblem ? new CannotRun(error.message) : error;
  });
  return prepared;
}

function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/^(FFJOBS|FACEFUSION)_/.test(name)));
}

function tail(file: string): string {
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  return lines
    .filter((line) => !line.includes('"msg":"call"'))
    .slice(-15)
    .join('\n');
}
