import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { startWay } from '../scripts/cluster/way.ts';
import { startRedis } from '../scripts/redis-server.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { describeJobFleet, type Holder, LEASE_MS } from './contract/job-fleet.ts';

const CHILD = join(import.meta.dirname, 'contract', 'redis-child.ts');

describeJobFleet('Redis', async () => {
  // A server each: some tests kill theirs.
  const server = await startRedis();
  const fleet = randomUUID();
  const opened: AsyncDisposable[] = [];
  const ends: (() => Promise<void>)[] = [];
  return {
    async join() {
      const way = await startWay(server.port);
      const store = await openRedisJobStore({ url: `redis://127.0.0.1:${way.port}`, fleet, leaseMs: LEASE_MS });
      opened.push(way, store);
      const cut = () => {
        way.cut();
        way.open();
      };
      return { store, cut };
    },
    async holder(): Promise<Holder> {
      const child = spawn(process.execPath, [CHILD, server.url, fleet], { stdio: ['ignore', 'pipe', 'inherit'] });
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const kill = async () => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        child.kill('SIGKILL');
        await once(child, 'exit');
      };
      ends.push(kill);
      return {
        async line() {
          const { value, done } = await lines.next();
          if (done) throw new Error('the holder ended');
          return value;
        },
        pause: () => void child.kill('SIGSTOP'),
        resume: () => void child.kill('SIGCONT'),
        kill,
      };
    },
    async crash() {
      await server.kill();
      await server.start();
    },
    async destroy() {
      for (const end of ends) await end();
      for (const one of opened.reverse()) await one[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
});
