// A fleet as its callers see it: how late watchers at one replica hear what another one writes, three worker nodes beside one where jobs wait rather
// than compute, and a cancel that comes in at one replica and stops a slot of another node. Every node is the real service, a process of its own.
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type ServiceProcess, startServiceProcess } from '../../scripts/cluster/service-process.ts';
import { redisProgram, startRedis } from '../../scripts/redis-server.ts';
import { connectJobs } from '../../src/client/node.ts';
import { JobStep } from '../../src/jobs/job.ts';
import { openRedisJobStore } from '../../src/store/jobs-redis.ts';
import type { Bench, Group } from '../bench.ts';
import { percentile, type Row, rowOf } from '../figures.ts';
import { CannotRun, Process } from '../processes.ts';
import { noopJob } from '../requests.ts';
import { workerEnvironment, writeInputs } from '../service.ts';

const HERE = import.meta.dirname;
const NEVER = new AbortController().signal;
const FRAME_SECONDS = 0.05;
const FLEET = 'watch';
/** Reports of the first part of the time warm both processes up, and are not counted. */
const WARM_SHARE = 0.25;

type Calls = ReturnType<typeof connectJobs>;

export const fleet: Group = {
  name: 'fleet',
  about: 'nodes on one Redis: Watch and cancel across replicas, three worker nodes beside one',

  async *run(bench: Bench): AsyncIterable<Row> {
    try {
      redisProgram();
    } catch (error) {
      throw new CannotRun((error as Error).message);
    }
    await using open = new AsyncDisposableStack();
    const redis = open.use(await startRedis());
    yield await watchAcross(bench, redis.url);

    const workers = bench.pick(3, 2);
    bench.say(`starting a fleet with one worker node and one with ${workers}`);
    const { alone, several } = await startFleets(bench, open, redis.url, workers);

    const count = bench.pick(18, 2);
    const frames = bench.pick(40, 2);
    bench.say(`${count} jobs that wait ${frames * FRAME_SECONDS} s, on one node and on ${workers}`);
    const [one, three] = [await secondsFor(alone, count, frames), await secondsFor(several[0], count, frames)];
    yield rowOf('fleet', {
      name: 'jobs that wait, three worker nodes',
      figure: count / three,
      unit: 'jobs/s',
      peer: { name: 'one node', figure: count / one },
      target: { kind: 'at least times peer', value: 2.7 },
      note: `${count} jobs of ${frames * FRAME_SECONDS} s, one slot a node`,
    });

    const cancels = bench.pick(60, 2);
    bench.say(`${cancels} cancels through the other replica`);
    const times: number[] = [];
    for (let i = 0; i < cancels; i++) times.push(await cancelMs(...several));
    yield rowOf('fleet', {
      name: 'cancel through another replica until nothing runs, p99',
      figure: percentile(times, 99),
      unit: 'ms',
      target: { kind: 'at most', value: 1000 },
      note: `p50 ${percentile(times, 50).toFixed(0)} ms; ${cancels} cancels`,
    });
  },
};

/** From the report to the watcher, one process writing and this one watching, as two replicas do. */
async function watchAcross(bench: Bench, url: string): Promise<Row> {
  const [jobs, each, rate, seconds] = [bench.pick(200, 4), 5, bench.pick(1900, 40), bench.pick(12, 0.4)];
  bench.say(`${jobs * each} watchers on ${jobs} jobs, written in another process`);
  const args = [url, FLEET, `${jobs}`, `${rate}`, `${seconds}`];
  await using writer = new Process('the writer', process.execPath, [join(HERE, '..', 'load', 'store-reports.ts'), ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ids = await writer.line((line) => JSON.parse(line) as string[], 60_000);
  await using reader = await openRedisJobStore({ url, fleet: FLEET });
  const times: number[] = [];
  const there = Promise.withResolvers<void>();
  let countedFrom = Number.POSITIVE_INFINITY;
  let waiting = jobs * each;
  const watching = ids.flatMap((id) =>
    Array.from({ length: each }, async () => {
      for await (const { event } of reader.watch(id, undefined, NEVER)) {
        if (event.case === 'snapshot' && --waiting === 0) there.resolve();
        if (event.case !== 'progress') continue;
        const reported = event.value.framesPerSecond;
        if (reported >= countedFrom) times.push(monotonicMs() - reported);
      }
    }),
  );
  await Promise.race([there.promise, Promise.all(watching)]);
  countedFrom = monotonicMs() + WARM_SHARE * seconds * 1000;
  writer.child.stdin!.end('go\n');
  await Promise.all(watching);
  return rowOf('fleet', {
    name: `Watch across replicas, ${jobs * each} watchers on ${jobs} jobs at ${rate} events a second, p99`,
    figure: percentile(times, 99),
    unit: 'ms',
    target: { kind: 'at most', value: 100 },
    note: `p50 ${percentile(times, 50).toFixed(1)} ms, ${times.length} deliveries; a store in each process, no API between`,
  });
}

/** By the clock that all processes of a machine share. */
function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** A fleet of one worker node with one API replica, and one of several with two. Answers when their workers are warm. */
async function startFleets(
  bench: Bench,
  open: AsyncDisposableStack,
  url: string,
  workers: number,
): Promise<{ alone: Calls; several: [Calls, Calls] }> {
  const python = await workerEnvironment();
  const folder = bench.folder();
  const input = join(folder, 'input');
  writeInputs(input);
  const start = (name: string, node: string, role: string): ServiceProcess =>
    open.use(
      startServiceProcess({
        settings: {
          STORE: url,
          FLEET: name,
          NODE: node,
          ROLE: role,
          SLOTS: '1',
          DATA_DIR: join(folder, name, node),
          BLOBS: `local:${join(folder, name, 'blobs')}`,
          INPUT_ROOT: input,
          ENGINE: 'waiting:Waiting',
          ENGINE_PATH: join(HERE, '..', 'engines'),
          PROBE: 'off',
          CACHE_TTL: 'off',
          CONSOLE: 'off',
          PYTHON: python,
        },
        log: join(folder, `${name}-${node}.log`),
      }),
    );
  const nodes = Array.from({ length: workers }, (_, i) => start('several', `node-${i + 1}`, 'worker'));
  nodes.push(start('alone', 'node-1', 'worker'));
  const replicas = [start('alone', 'api-1', 'api'), start('several', 'api-1', 'api'), start('several', 'api-2', 'api')] as const;
  await Promise.all(nodes.map((node) => node.listening));
  const calls = async (replica: ServiceProcess, warm: number): Promise<Calls> => {
    const client = connectJobs(await replica.listening);
    open.defer(() => client[Symbol.dispose]());
    while ((await client.system.listSlots({})).slots.filter(({ engine }) => engine !== undefined).length < warm) await delay(50);
    return client;
  };
  const [alone, ...several] = await Promise.all([calls(replicas[0], 1), calls(replicas[1], workers), calls(replicas[2], workers)]);
  return { alone, several };
}

async function submit(client: Calls, frames: number): Promise<string> {
  const { jobId } = await client.submit(noopJob({ frames, frame_seconds: FRAME_SECONDS }));
  return jobId;
}

/** From the first submit until the last job has ended. */
async function secondsFor(client: Calls, count: number, frames: number): Promise<number> {
  const began = performance.now();
  await Promise.all(Array.from({ length: count }, async () => await client.wait(await submit(client, frames))));
  return (performance.now() - began) / 1000;
}

/** From the call of a cancel until `canceled`, which is written when the slot has nothing left to run. */
async function cancelMs(runs: Calls, cancels: Calls): Promise<number> {
  const jobId = await submit(runs, 10_000);
  let asked: number | undefined;
  let asking: Promise<unknown> | undefined;
  for await (const { event } of runs.watch(jobId)) {
    if (asked === undefined && event.case === 'progress' && event.value.step === JobStep.PROCESSING) {
      asked = performance.now();
      asking = cancels.jobs.cancel({ jobId });
    }
    if (asked !== undefined && event.case === 'state' && event.value.status === JobStatus.CANCELED) {
      const took = performance.now() - asked;
      await asking;
      return took;
    }
  }
  throw new Error(`${jobId} ended before it was canceled`);
}
