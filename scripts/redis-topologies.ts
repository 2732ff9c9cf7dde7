// Redis as fleets have it where one server is not enough, on this machine: a Cluster of three primaries with a replica each, and a primary with a replica that three
// Sentinels watch. Both take some two seconds to notice that a primary is gone.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { freePort, type RedisServer, redisProgram, startRedis } from './redis-server.ts';

export interface Topology extends AsyncDisposable {
  /** As `FFJOBS_STORE` takes it. */
  readonly url: string;
  /** Answers when the replica of who has the keys of a fleet has all that was written there so far. */
  replicated(fleet: string): Promise<void>;
  /** SIGKILL of who has the keys of a fleet; answers when another one has them. */
  failOver(fleet: string): Promise<void>;
  /** Those that were killed are started again. */
  heal(): Promise<void>;
}

const SLOTS = 16_384;
const NOTICED_MS = 1_000;

export interface ClusterTopology extends Topology {
  /** SIGKILL of all nodes. */
  failAll(): Promise<void>;
  /** Moves the slot with the keys of a fleet to another primary, some keys at a time, as an administrator's tools do. */
  reshard(fleet: string): Promise<void>;
}

export async function startRedisCluster(args: readonly string[] = []): Promise<ClusterTopology> {
  const settings = ['--cluster-enabled', 'yes', '--cluster-node-timeout', `${NOTICED_MS}`, '--cluster-announce-ip', '127.0.0.1', ...args];
  const servers = await Promise.all(Array.from({ length: 6 }, () => startRedis(settings)));
  const all = new Clients(servers.map(({ port }) => port));
  const primaries = servers.slice(0, 3);
  for (const [i, { port }] of primaries.entries()) {
    const [from, to] = [Math.ceil((i * SLOTS) / 3), Math.ceil(((i + 1) * SLOTS) / 3)];
    await all.of(port).cluster('ADDSLOTS', ...Array.from({ length: to - from }, (_, j) => from + j));
  }
  const [first] = servers;
  for (const { port } of servers.slice(1)) await all.of(first!.port).cluster('MEET', '127.0.0.1', port);
  for (const { port } of servers)
    await eventually(async () => String(await all.of(port).cluster('NODES')).match(/connected/g)?.length === 6);
  for (const [i, { port }] of servers.slice(3).entries()) {
    const id = await all.of(primaries[i]!.port).cluster('MYID');
    // It has to have heard that the other one is a primary.
    await eventually(async () =>
      all
        .of(port)
        .cluster('REPLICATE', id as string)
        .then(() => true)
        .catch(() => false),
    );
  }
  for (const { port } of servers) await eventually(async () => (await all.of(port).cluster('INFO')).includes('cluster_state:ok'));
  for (const { port } of servers.slice(3))
    await eventually(async () => (await all.of(port).info('replication')).includes('master_link_status:up'));

  /** Port of who has the keys of a fleet, as somebody other than `but` sees it. */
  const ownerOf = async (fleet: string, but?: number): Promise<number> => {
    const witness = servers.find(({ port, process }) => port !== but && process.exitCode === null && process.signalCode === null)!;
    const client = all.of(witness.port);
    const slot = (await client.cluster('KEYSLOT', `{${fleet}}:`)) as number;
    const ranges = (await client.cluster('SLOTS')) as unknown as [number, number, [string, number]][];
    return ranges.find(([from, to]) => from <= slot && slot <= to)![2][1];
  };
  const killed: RedisServer[] = [];
  return {
    url: `redis+cluster://${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`,
    replicated: async (fleet) => waitForReplica(all.of(await ownerOf(fleet))),
    async reshard(fleet) {
      const from = await ownerOf(fleet);
      const to = primaries.find(({ port }) => port !== from)!.port;
      const [source, target] = [all.of(from), all.of(to)];
      const slot = (await source.cluster('KEYSLOT', `{${fleet}}:`)) as number;
      const [sourceId, targetId] = [(await source.cluster('MYID')) as string, (await target.cluster('MYID')) as string];
      await target.cluster('SETSLOT', slot, 'IMPORTING', sourceId);
      await source.cluster('SETSLOT', slot, 'MIGRATING', targetId);
      for (;;) {
        const keys = (await source.cluster('GETKEYSINSLOT', slot, 5)) as string[];
        if (keys.length === 0) break;
        await source.call('MIGRATE', '127.0.0.1', to, '', 0, 5000, 'KEYS', ...keys);
        await delay(2);
      }
      for (const client of [target, source]) await client.cluster('SETSLOT', slot, 'NODE', targetId);
    },
    async failOver(fleet) {
      const owner = await ownerOf(fleet);
      const server = servers.find(({ port }) => port === owner)!;
      await server.kill();
      killed.push(server);
      await eventually(async () => (await ownerOf(fleet, owner)) !== owner);
    },
    async failAll() {
      for (const server of servers) await server.kill();
      killed.push(...servers);
    },
    async heal() {
      for (const server of killed.splice(0)) await server.start();
    },
    async [Symbol.asyncDispose]() {
      all.disconnect();
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}

const NAME = 'jobs';

export async function startSentinels(args: readonly string[] = []): Promise<Topology> {
  const [primary, replica] = await Promise.all([startRedis(args), startRedis(args)]);
  const servers = [primary!, replica!];
  const all = new Clients(servers.map(({ port }) => port));
  await all.of(replica!.port).call('REPLICAOF', '127.0.0.1', primary!.port);
  await eventually(async () => (await all.of(replica!.port).info('replication')).includes('master_link_status:up'));
  const sentinels = await Promise.all(Array.from({ length: 3 }, () => startSentinel(primary!.port)));
  const watching = new Clients(sentinels.map(({ port }) => port));
  const known = async (port: number) => {
    const facts = (await watching.of(port).call('SENTINEL', 'MASTER', NAME)) as string[];
    const fact = (name: string) => Number(facts[facts.indexOf(name) + 1]);
    return fact('num-slaves') === 1 && fact('num-other-sentinels') === 2;
  };
  for (const { port } of sentinels) await eventually(() => known(port));
  const primaryPort = async (of: number) =>
    Number(((await watching.of(of).call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME)) as string[])[1]);
  const killed: RedisServer[] = [];
  return {
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${NAME}`,
    replicated: async () => waitForReplica(all.of(await primaryPort(sentinels[0]!.port))),
    async failOver() {
      const was = await primaryPort(sentinels[0]!.port);
      const server = servers.find(({ port }) => port === was)!;
      await server.kill();
      killed.push(server);
      for (const { port } of sentinels) await eventually(async () => (await primaryPort(port)) !== was);
    },
    async heal() {
      for (const server of killed.splice(0)) await server.start();
    },
    async [Symbol.asyncDispose]() {
      all.disconnect();
      watching.disconnect();
      await Promise.all([...sentinels, ...servers].map((one) => one[Symbol.asyncDispose]()));
    },
  };
}

async function startSentinel(primaryPort: number): Promise<{ readonly port: number } & AsyncDisposable> {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-sentinel-'));
  const port = await freePort();
  const lines = [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${dir}`,
    `sentinel monitor ${NAME} 127.0.0.1 ${primaryPort} 2`,
    `sentinel down-after-milliseconds ${NAME} ${NOTICED_MS}`,
    `sentinel failover-timeout ${NAME} 5000`,
  ];
  const file = join(dir, 'sentinel.conf');
  await writeFile(file, `${lines.join('\n')}\n`);
  const child = spawn(redisProgram(), [file, '--sentinel'], { stdio: 'ignore' });
  return {
    port,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Connections of an administrator, by port; they wait for servers that are away. */
class Clients {
  readonly #byPort: ReadonlyMap<number, Redis>;

  constructor(ports: readonly number[]) {
    this.#byPort = new Map(ports.map((port) => [port, new Redis(port, { retryStrategy: () => 50, maxRetriesPerRequest: null })]));
    for (const client of this.#byPort.values()) client.on('error', () => {});
  }

  of(port: number): Redis {
    return this.#byPort.get(port)!;
  }

  disconnect(): void {
    for (const client of this.#byPort.values()) client.disconnect();
  }
}

async function waitForReplica(client: Redis): Promise<void> {
  await eventually(async () => {
    const facts = await client.info('replication');
    const [, written] = /master_repl_offset:(\d+)/.exec(facts) ?? [];
    const [, has] = /slave0:.*offset=(\d+)/.exec(facts) ?? [];
    return has !== undefined && Number(has) >= Number(written);
  });
}

async function eventually(is: () => Promise<boolean>): Promise<void> {
  for (const until = performance.now() + 30_000; !(await is()); await delay(20)) {
    if (performance.now() > until) throw new Error('a Redis of several servers did not come up within 30 s');
  }
}
