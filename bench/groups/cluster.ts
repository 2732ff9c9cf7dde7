// The job store of a fleet, by itself: jobs per second through Redis beside raw BullMQ on a Redis of the same settings, and what a claim costs when
// a hundred thousand jobs wait. Each contestant is a process of its own with a fresh server.
import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { redisProgram, redisVersion, startRedis } from '../../scripts/redis-server.ts';
import { newJobId } from '../../src/jobs/job.ts';
import type { JobStore } from '../../src/jobs/ports.ts';
import { openRedisJobStore } from '../../src/store/jobs-redis.ts';
import type { Bench, Group } from '../bench.ts';
import { interleaved, median, percentile, type Row, rowOf } from '../figures.ts';
import { bullmqHome } from '../peers/start.ts';
import { CannotRun, NODE_OPTIONS } from '../processes.ts';
import { noopJob } from '../requests.ts';

const run = promisify(execFile);
const HERE = import.meta.dirname;
const AT_ONCE = '64';
const LIMITS = { maxQueued: 10_000_000, idempotencyMs: 86_400_000 };

interface Ran {
  readonly seconds: number;
  readonly cpuSeconds: number;
}

export const cluster: Group = {
  name: 'cluster',
  about: 'the job store on Redis: jobs per second beside raw BullMQ, claims with 100,000 jobs queued',

  async *run(bench: Bench): AsyncIterable<Row> {
    try {
      redisProgram();
    } catch (error) {
      throw new CannotRun((error as Error).message);
    }
    const count = bench.pick(5000, 60);
    const ours = async (): Promise<Ran> => {
      await using server = await startRedis();
      return await measured([join(HERE, '..', 'load', 'store-redis.ts'), server.url, `${count}`, AT_ONCE]);
    };
    let why: string | undefined;
    let home: string | undefined;
    try {
      if (bench.quick) throw new CannotRun('a quick run installs no peer');
      home = await bullmqHome();
    } catch (error) {
      if (!(error instanceof CannotRun)) throw error;
      why = error.message;
    }
    const bullmq = async (): Promise<Ran> => {
      await using server = await startRedis();
      return await measured([join(HERE, '..', 'peers', 'bullmq', 'run.mjs'), home!, `${server.port}`, `${count}`, AT_ONCE]);
    };
    bench.say('jobs through Redis, in turns');
    const contestants: Record<string, () => Promise<Ran>> = home ? { ours, bullmq } : { ours };
    const ran = await interleaved(bench.pick(3, 1), contestants);
    const rate = (runs: readonly Ran[]) => median(runs.map(({ seconds }) => count / seconds));
    const cpu = (runs: readonly Ran[]) =>
      `${Math.round((median(runs.map(({ cpuSeconds }) => cpuSeconds)) / count) * 1e6)} µs CPU of the client a job`;
    yield rowOf('cluster', {
      name: 'submit, claim, three events, complete, 64 at once, appendfsync always',
      figure: rate(ran.ours!),
      unit: 'jobs/s',
      ...(ran.bullmq ? { peer: { name: 'BullMQ, added and processed alone', figure: rate(ran.bullmq) } } : {}),
      target: { kind: 'at least times peer', value: 1 },
      note: why ? `BullMQ was not measured here: ${why}` : `${cpu(ran.ours!)}, BullMQ ${cpu(ran.bullmq!)}; ${redisVersion().slice(0, 22)}`,
    });

    // What is measured is the script, not the disk.
    await using server = await startRedis(['--appendfsync', 'no']);
    await using small = await openRedisJobStore({ url: server.url, fleet: randomUUID() });
    await using large = await openRedisJobStore({ url: server.url, fleet: randomUUID() });
    const [few, many] = [bench.pick(1000, 50), bench.pick(100_000, 500)];
    bench.say(`storing ${few} and ${many} jobs`);
    await fill(small, few);
    await fill(large, many);
    bench.say('claims, in turns');
    const claims = bench.pick(100, 5);
    const times = await interleaved(bench.pick(5, 1), { few: () => claim(small, claims), many: () => claim(large, claims) });
    const [fewMs, manyMs] = [times.few.flat(), times.many.flat()];
    yield rowOf('cluster', {
      name: `claim at ${many.toLocaleString('en-US')} queued jobs, p50`,
      figure: median(manyMs),
      unit: 'ms',
      peer: { name: `at ${few.toLocaleString('en-US')}`, figure: median(fewMs) },
      target: { kind: 'at most times peer', value: 2 },
      note: `p99 ${percentile(manyMs, 99).toFixed(2)} ms, at ${few.toLocaleString('en-US')} ${percentile(fewMs, 99).toFixed(2)} ms`,
    });
  },
};

async function measured(args: readonly string[]): Promise<Ran> {
  const { stdout } = await run(process.execPath, [...NODE_OPTIONS, ...args], { encoding: 'utf8' });
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Ran;
}

async function fill(store: JobStore, count: number): Promise<void> {
  const request = noopJob({});
  for (let left = count; left > 0; left -= 500) {
    const batch = Array.from({ length: Math.min(500, left) }, () => newJobId(Date.now(), randomBytes(12)));
    await Promise.all(
      batch.map((jobId) => store.submit({ jobId, tenant: 'default', request, requestDigest: '', warnings: [], maxAttempts: 3 }, LIMITS)),
    );
  }
}

/** Milliseconds of each claim; the job claimed ends before the next one. */
async function claim(store: JobStore, count: number): Promise<number[]> {
  const times: number[] = [];
  const { signal } = new AbortController();
  for (let done = 0; done < count; done++) {
    const begin = performance.now();
    const lease = await store.claim({ node: 'bench' }, signal);
    times.push(performance.now() - begin);
    const result = create(MediaResultSchema, { mediaType: 'image/png', bytes: 3n, sha256: 'a'.repeat(64), width: 1, height: 1, frames: 1 });
    await lease!.complete({ result, warnings: [], timings: create(TimingsSchema, {}) });
  }
  return times;
}
