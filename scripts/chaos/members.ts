// The processes that a round is hard on, and how to hurt them. Always true here: every process that was started is known until it has ended, and what is
// dead, stopped or cut off is whole again after `heal`.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type ServiceProcess, startServiceProcess } from '../cluster/service-process.ts';
import { startWay, type Way } from '../cluster/way.ts';
import { type RedisServer, startRedis } from '../redis-server.ts';
import { SECRET } from './receiver.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const ENGINES = join(ROOT, 'worker', 'tests', 'engines');
/** Short, so that a round sees leases run out. */
export const LEASE_MS = 4000;
/** The engine opens nothing, and its media are the first bytes of their formats. */
const MEDIA = { 'face.jpg': 'ffd8ffe000104a46494600010100000100010000ffd9', 'target.png': '89504e470d0a1a0a0000000d49484452' };

export interface Member {
  readonly name: string;
  readonly role: 'all' | 'api' | 'worker';
  /** Between it and Redis. */
  readonly way: Way | undefined;
  /** Undefined while it does not listen. */
  readonly address: string | undefined;
  readonly pid: number | undefined;
  readonly isPaused: boolean;
  /** SIGKILL; answers when it is dead. */
  kill(): Promise<void>;
  /** SIGTERM; answers its end. */
  stop(): Promise<number | NodeJS.Signals>;
  pause(): void;
  resume(): void;
  /** Sets its clock so far ahead; negative: behind. */
  setClock(ms: number): void;
  /** Starts it unless it runs; answers when it listens. */
  start(): Promise<void>;
}

export interface Cluster {
  readonly kind: 'redis' | 'sqlite';
  readonly dir: string;
  readonly members: readonly Member[];
  /** Members that answer calls. */
  readonly apis: readonly Member[];
  /** Members that run jobs. */
  readonly nodes: readonly Member[];
  readonly redis: RedisServer | undefined;
  readonly ledger: string;
  readonly blobs: string;
  /** Worker processes of this cluster's engine, with the process that each is a child of. */
  workers(): { readonly pid: number; readonly parent: number }[];
  heal(): Promise<void>;
  /** Ends all of it. `keep`: its folder stays, for whoever wants to know why. */
  end(keep?: boolean): Promise<void>;
}

/** Starts all of it. `python`: of the workers. */
export async function startCluster(kind: 'redis' | 'sqlite', python: string, receiver: { readonly port: number }): Promise<Cluster> {
  const dir = await mkdtemp(join(tmpdir(), `ffjobs-chaos-${kind}-`));
  const [input, ledger, engines, blobs] = ['input', 'ledger', 'engines', 'blobs'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
    string,
  ];
  for (const folder of [input, ledger, engines]) await mkdir(folder);
  for (const [name, hex] of Object.entries(MEDIA)) await writeFile(join(input, name), Buffer.from(hex, 'hex'));
  // A folder of this cluster alone, which its workers can be told by.
  for (const name of ['scripted.py', 'ledger.py']) await copyFile(join(ENGINES, name), join(engines, name));
  const secrets = join(dir, 'webhook-secrets');
  await writeFile(secrets, SECRET, { mode: 0o600 });
  const redis = kind === 'redis' ? await startRedis() : undefined;
  const settings = {
    ENGINE: 'ledger:Ledger',
    ENGINE_PATH: engines,
    PYTHON: python,
    PROBE: 'off',
    CONSOLE: 'off',
    // Its model is of jobs that share a run, and of no results of earlier rounds.
    CACHE_TTL: '1s',
    INPUT_ROOT: input,
    LEASE: `${LEASE_MS}ms`,
    CANCEL_GRACE: '1s',
    DRAIN_TIMEOUT: '3s',
    BLOBS: `local:${blobs}`,
    WEBHOOK_SECRETS_FILE: secrets,
    WEBHOOK_ALLOW: '127.0.0.1',
    HTTP_PORTS: `${receiver.port}`,
  };
  const member = async (name: string, role: Member['role'], more: Readonly<Record<string, string>> = {}): Promise<Member> => {
    const way = redis && (await startWay(redis.port));
    const own = { NODE: name, ROLE: role, DATA_DIR: join(dir, name), ...(way ? { STORE: `redis://127.0.0.1:${way.port}` } : {}) };
    return new Process(name, role, way, { ...settings, ...own, ...more }, dir);
  };
  const members = redis
    ? [
        await member('api-1', 'api'),
        await member('api-2', 'api'),
        await member('node-1', 'worker', { SLOTS: '2', GPUS: '0,1' }),
        await member('node-2', 'worker', { GPUS: '2' }),
        await member('node-3', 'worker', { GPUS: '3' }),
      ]
    : [await member('alone', 'all', { SLOTS: '3', GPUS: '0,1,2' })];
  const cluster: Cluster = {
    kind,
    dir,
    members,
    apis: members.filter(({ role }) => role !== 'worker'),
    nodes: members.filter(({ role }) => role !== 'api'),
    redis,
    ledger,
    blobs,
    workers: () => processesWith(engines),
    async heal() {
      if (redis && redis.process.exitCode === null && redis.process.signalCode === null) redis.process.kill('SIGCONT');
      else await redis?.start();
      for (const member of members) {
        member.resume();
        member.setClock(0);
        member.way?.open();
      }
      await Promise.all(members.map((member) => member.start()));
    },
    async end(keep = false) {
      for (const member of members) {
        await member.kill();
        await member.way?.[Symbol.asyncDispose]();
      }
      await redis?.[Symbol.asyncDispose]();
      for (const { pid } of processesWith(engines)) kill(pid, 'SIGKILL');
      if (!keep) await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  try {
    await cluster.heal();
  } catch (error) {
    await cluster.end();
    throw error;
  }
  return cluster;
}

class Process implements Member {
  readonly name: string;
  readonly role: Member['role'];
  readonly way: Way | undefined;
  address: string | undefined;
  isPaused = false;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #log: string;
  readonly #clock: string;
  #process: ServiceProcess | undefined;
  #starting: Promise<void> | undefined;

  constructor(name: string, role: Member['role'], way: Way | undefined, settings: Readonly<Record<string, string>>, dir: string) {
    this.name = name;
    this.role = role;
    this.way = way;
    this.#settings = settings;
    this.#log = join(dir, `${name}.log`);
    this.#clock = join(dir, `${name}.clock`);
    writeFileSync(this.#clock, '0');
  }

  get pid(): number | undefined {
    return this.#process?.child.pid;
  }

  async kill(): Promise<void> {
    const process = this.#process;
    if (!process) return;
    process.child.kill('SIGKILL');
    await process.ended;
  }

  async stop(): Promise<number | NodeJS.Signals> {
    const process = this.#process;
    if (!process) return 0;
    this.resume();
    process.child.kill('SIGTERM');
    return await process.ended;
  }

  pause(): void {
    if (this.#process?.child.kill('SIGSTOP')) this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    this.#process?.child.kill('SIGCONT');
  }

  setClock(ms: number): void {
    writeFileSync(this.#clock, `${ms}`);
    // Before it listens nobody hears the signal, and it would end the process.
    if (this.address !== undefined) this.#process?.child.kill('SIGUSR2');
  }

  start(): Promise<void> {
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  /** Tried again where another one's fault is in its way, for half a minute. */
  async #start(): Promise<void> {
    if (this.#process) {
      if (await this.#process.listening.then(() => true).catch(() => false)) if (this.#process) return;
    }
    for (const until = performance.now() + 30_000; ; await delay(200)) {
      const process = startServiceProcess({
        settings: this.#settings,
        env: { CHAOS_CLOCK: this.#clock },
        nodeArgs: ['--import', join(import.meta.dirname, 'clock.ts')],
        log: this.#log,
      });
      this.#process = process;
      this.isPaused = false;
      void process.ended.then(() => {
        if (this.#process !== process) return;
        this.#process = undefined;
        this.address = undefined;
      });
      try {
        this.address = await process.listening;
        return;
      } catch (error) {
        if (performance.now() > until) throw error;
      }
    }
  }
}

/** Processes with a text in their environment, as far as they are ours to see. */
function processesWith(text: string): { pid: number; parent: number }[] {
  const found: { pid: number; parent: number }[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const variables = readFileSync(`/proc/${name}/environ`, 'utf8').split('\0');
      if (!variables.some((one) => one.startsWith('PYTHONPATH=') && one.includes(text))) continue;
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (state !== 'Z') found.push({ pid: Number(name), parent: Number(parent) });
    } catch {
      // It has ended meanwhile, or is another user's.
    }
  }
  return found;
}

export function kill(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}
