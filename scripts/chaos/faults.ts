// What is done to a cluster in a round: faults by chance, each of which is over by itself or is mended when the round is.
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../random.ts';
import { type Cluster, kill, LEASE_MS } from './members.ts';

interface Fault {
  readonly weight: number;
  readonly name: string;
  /** Says what was done; undefined: there was nothing to do it to. */
  run(cluster: Cluster, random: Random): Promise<string | undefined>;
}

const killAndRestart = (of: 'apis' | 'nodes'): Fault['run'] => {
  return async (cluster, random) => {
    const member = random.pick(cluster[of]);
    await member.kill();
    await delay(random.int(0, 1000));
    await member.start();
    return member.name;
  };
};

const FAULTS: Readonly<Record<Cluster['kind'], readonly Fault[]>> = {
  redis: [
    { weight: 10, name: 'SIGKILL of an API replica', run: killAndRestart('apis') },
    { weight: 14, name: 'SIGKILL of a node', run: killAndRestart('nodes') },
    { weight: 18, name: 'SIGKILL of a worker', run: killWorker },
    {
      weight: 10,
      name: 'SIGKILL of Redis',
      async run({ redis }, random) {
        await redis!.kill();
        await delay(random.int(0, 1500));
        await redis!.start();
        return 'redis';
      },
    },
    {
      weight: 6,
      name: 'pause of Redis',
      async run({ redis }, random) {
        redis!.process.kill('SIGSTOP');
        await delay(random.int(100, 3000));
        redis!.process.kill('SIGCONT');
        return 'redis';
      },
    },
    { weight: 12, name: 'pause of a node past its leases', run: pause('nodes', LEASE_MS + 500, LEASE_MS + 2500) },
    { weight: 6, name: 'pause of an API replica', run: pause('apis', 200, 3000) },
    {
      weight: 12,
      name: 'broken connections',
      async run({ members }, random) {
        const { way, name } = random.pick(members);
        const times = random.int(1, 5);
        for (let i = 0; i < times; i++) {
          way!.cut();
          await delay(random.int(0, 50));
          way!.open();
          await delay(random.int(20, 300));
        }
        return `${name}, ${times} times`;
      },
    },
    {
      weight: 12,
      name: 'cut from Redis',
      async run({ members }, random) {
        const { way, name } = random.pick(members);
        const ms = random.int(300, LEASE_MS + 1500);
        const how = random.pick(['cut', 'hold'] as const);
        way![how]();
        await delay(ms);
        way!.open();
        return `${name}, ${how} for ${ms} ms`;
      },
    },
    { weight: 6, name: 'jump of a clock', run: jump(600_000) },
    { weight: 8, name: 'restart in good order', run: drain },
  ],
  sqlite: [
    { weight: 30, name: 'SIGKILL of the service', run: killAndRestart('nodes') },
    { weight: 30, name: 'SIGKILL of a worker', run: killWorker },
    { weight: 10, name: 'pause of the service', run: pause('nodes', 200, 3000) },
    { weight: 10, name: 'jump of the clock', run: jump(5_000) },
    { weight: 15, name: 'restart in good order', run: drain },
  ],
};

async function killWorker({ workers }: Cluster, random: Random): Promise<string | undefined> {
  const all = workers();
  if (all.length === 0) return undefined;
  const { pid } = random.pick(all);
  kill(pid, 'SIGKILL');
  return `${pid}`;
}

function pause(of: 'apis' | 'nodes', leastMs: number, mostMs: number): Fault['run'] {
  return async (cluster, random) => {
    const member = random.pick(cluster[of]);
    const ms = random.int(leastMs, mostMs);
    member.pause();
    await delay(ms);
    member.resume();
    return `${member.name}, ${ms} ms`;
  };
}

/** Ahead or behind by as much at the most. */
function jump(mostMs: number): Fault['run'] {
  return async ({ members }, random) => {
    const member = random.pick(members);
    const ms = random.int(-mostMs, mostMs);
    member.setClock(ms);
    return `${member.name}, ${ms} ms`;
  };
}

async function drain({ members }: Cluster, random: Random): Promise<string> {
  const member = random.pick(members);
  const end = await member.stop();
  await member.start();
  return `${member.name}, which ended with ${end}`;
}

/** So many faults, begun within the time; some overlap. Answers what was done, in the order of its beginning. */
export async function hurt(cluster: Cluster, random: Random, count: number, withinMs: number, say: (line: string) => void): Promise<void> {
  const faults = FAULTS[cluster.kind];
  const begun = Array.from({ length: count }, () => ({
    at: random.int(0, withinMs),
    fault: random.weighted(faults.map((one) => [one, one.weight])),
  }));
  begun.sort((a, b) => a.at - b.at);
  // Two at a time at the most, each on its own strand: what hurts one thing twice at once would say nothing more.
  const strands = [0, 1].map(async (strand) => {
    let passed = 0;
    for (const { at, fault } of begun.filter((_, i) => i % 2 === strand)) {
      await delay(Math.max(0, at - passed));
      passed = at;
      const done = await fault.run(cluster, random);
      if (done !== undefined) say(`${fault.name} (${done})`);
    }
  });
  await Promise.all(strands);
}
