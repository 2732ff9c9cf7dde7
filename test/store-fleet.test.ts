import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { startRedis } from '../scripts/redis-server.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { describeJobFleet, type Holder, LEASE_MS } from './contract/job-fleet.ts';
import { startProxy } from './fixtures/redis/proxy.ts';

const CHILD = join(import.meta.dirname, 'contract', 'redis-child.ts');

describeJobFleet('Redis', async () => {
  // A server each: some tests kill theirs.
  const server = await startRedis();
  const fleet = randomUUID();
  const opened: AsyncDisposable[] = [];
  const ends: (() => Promise<void>)[] = [];
  return {
    async join() {
      const proxy = await startProxy(server.port);
      const store = await openRedisJobStore({ url: `redis://127.0.0.1:${proxy.port}`, fleet, leaseMs: LEASE_MS });
      opened.push(proxy, store);
      return { store, cut: proxy.cut };
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
