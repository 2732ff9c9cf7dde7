// A fleet as its callers see it: a cancel that comes in at one replica and stops a GPU on another node, three worker nodes beside one where jobs wait
// rather than compute, and how late watchers hear at one process what another one writes. Every node is the real service, a process of its own.
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { CachePolicy, JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type ServiceProcess, startServiceProcess } from '../../scripts/cluster/service-process.ts';
import { redisProgram, startRedis } from '../../scripts/redis-server.ts';
import { connectJobs } from '../../src/client/node.ts';
import { JobStep, newJobId } from '../../src/jobs/job.ts';
import { openRedisJobStore } from '../../src/store/jobs-redis.ts';
import type { Bench, Group } from '../bench.ts';
import { percentile, type Row, rowOf } from '../figures.ts';
import { CannotRun } from '../processes.ts';
import { noopJob } from '../requests.ts';
import { workerEnvironment } from '../service.ts';

const ENGINES = join(import.meta.dirname, '..', 'engines');
const NEVER = new AbortController().signal;
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
    bench.say('watchers in one process, writers in another connection');
    yield await watchAcross(bench, redis.url);

    bench.say('starting one fleet with one worker node and one with three');
    const python = await workerEnvironment();
    const dir = bench.folder();
    const input = join(dir, 'input');
    mkdirSync(input);
    for (const name of ['face.jpg', 'target.png'])
      writeFileSync(join(input, name), Buffer.from(name.endsWith('jpg') ? 'ffd8ffd9' : '89504e470d0a1a0a', 'hex'));
    const member = (fleetName: string, name: string, role: string): ServiceProcess =>
      open.use(
        startServiceProcess({
          settings: {
            STORE: redis.url,
            FLEET: fleetName,
            NODE: name,
            ROLE: role,
            DATA_DIR: join(dir, fleetName, name),
            BLOBS: `local:${join(dir, fleetName, 'blobs')}`,
            INPUT_ROOT: input,
            ENGINE: 'waiting:Waiting',
            ENGINE_PATH: ENGINES,
            PROBE: 'off',
            PYTHON: python,
            CONSOLE: 'off',
          },
          log: join(dir, `${fleetName}-${name}.log`),
        }),
      );
    const calls = async (service: ServiceProcess, nodes: number): Promise<Calls> => {
      const client = connectJobs(await service.listening);
      open.defer(() => client[Symbol.dispose]());
      while ((await client.system.listSlots({})).slots.filter(({ engine }) => engine !== undefined).length < nodes) await delay(100);
      return client;
    };
    const names = ['node-1', 'node-2', 'node-3'];
    const [alone, a, b] = [member('one', 'api', 'api'), member('three', 'api-1', 'api'), member('three', 'api-2', 'api')];
    for (const name of names) member('three', name, 'worker');
    member('one', 'node-1', 'worker');
    const [one, three, other] = [await calls(alone, 1), await calls(a, 3), await calls(b, 3)];

    const count = bench.pick(18, 3);
    const frames = bench.pick(40, 2);
    bench.say(`${count} jobs that wait ${frames * 0.05} s, on one node and on three`);
    const [single, triple] = [await seconds(one, count, frames), await seconds(three, count, frames)];
    yield rowOf('fleet', {
      name: 'jobs that wait, three worker nodes beside one',
      figure: count / triple,
      unit: 'jobs/s',
      peer: { name: 'one node', figure: count / single },
      target: { kind: 'at least times peer', value: 2.7 },
      note: `${count} jobs of ${frames * 0.05} s each, one slot a node`,
    });

    const cancels = bench.pick(60, 2);
    bench.say(`${cancels} cancels through the other replica`);
    const times: number[] = [];
    for (let i = 0; i < cancels; i++) times.push(await cancel(three, other));
    yield rowOf('fleet', {
      name: 'cancel through another replica, until the run has stopped, p99',
      figure: percentile(times, 99),
      unit: 'ms',
      target: { kind: 'at most', value: 1000 },
      note: `p50 ${percentile(times, 50).toFixed(0)} ms; ${cancels} cancels`,
    });
  },
};

async function submit(client: Calls, frames: number): Promise<string> {
  const { job } = await client.jobs.submit({
    job: {
      sourceImages: ['face.jpg'],
      target: { case: 'targetImage', value: 'target.png' },
      parameters: { frames, frame_seconds: 0.05 },
      cache: CachePolicy.OFF,
    },
  });
  return job!.jobId;
}

/** From the first submit until the last job has ended. */
async function seconds(client: Calls, count: number, frames: number): Promise<number> {
  const began = performance.now();
  await Promise.all(
    Array.from({ length: count }, async () => {
      for await (const _ of client.watch(await submit(client, frames), { after: 0 }));
    }),
  );
  return (performance.now() - began) / 1000;
}

/** Milliseconds from the call of a cancel until `canceled`, which is written when nothing runs any more. */
async function cancel(runs: Calls, cancels: Calls): Promise<number> {
  const jobId = await submit(runs, 10_000);
  let asked = 0;
  let asking: Promise<unknown> | undefined;
  for await (const { event } of runs.watch(jobId, { after: 0 })) {
    if (asking === undefined && event.case === 'progress' && event.value.step === JobStep.PROCESSING) {
      asked = performance.now();
      asking = cancels.jobs.cancel({ jobId });
    }
    if (event.case === 'state' && event.value.status === JobStatus.CANCELED) {
      const took = performance.now() - asked;
      await asking;
      return took;
    }
  }
  throw new Error(`${jobId} ended before it was canceled`);
}

/** 1,000 watchers on 200 jobs that together report 1,900 times a second: from the report's call to the watcher, over two connections to Redis. */
async function watchAcross(bench: Bench, url: string): Promise<Row> {
  const [jobs, each, rate, forMs] = [bench.pick(200, 4), 5, bench.pick(1900, 40), bench.pick(10_000, 300)];
  await using writer = await openRedisJobStore({ url, fleet: 'watch' });
  await using reader = await openRedisJobStore({ url, fleet: 'watch' });
  const limits = { maxQueued: 10_000, idempotencyMs: 1000 };
  const request = noopJob({});
  const leases = [];
  for (let i = 0; i < jobs; i++) {
    const jobId = newJobId(Date.now(), randomBytes(12));
    await writer.submit({ jobId, tenant: 'default', request, requestDigest: '', warnings: [], maxAttempts: 1 }, limits);
    const lease = (await writer.claim({ node: 'bench' }, NEVER))!;
    await lease.begin({ slot: '0', engine: undefined });
    leases.push(lease);
  }
  const times: number[] = [];
  let waiting = leases.length * each;
  const all = Promise.withResolvers<void>();
  let began = 0;
  // The moment of the report travels in a field that nobody else uses.
  const watching = leases.flatMap(({ job }) =>
    Array.from({ length: each }, async () => {
      for await (const { event } of reader.watch(job.jobId, undefined, NEVER)) {
        if (event.case === 'snapshot' && --waiting === 0) all.resolve();
        if (event.case === 'progress') times.push(performance.now() - began - event.value.framesPerSecond);
      }
    }),
  );
  await all.promise;
  began = performance.now();
  let sent = 0;
  const writing: Promise<void>[] = [];
  for (let now = 0; now < forMs; now = performance.now() - began) {
    for (; sent < (now * rate) / 1000; sent++) {
      const lease = leases[sent % jobs]!;
      writing.push(lease.progress(create(ProgressSchema, { step: JobStep.PROCESSING, framesPerSecond: performance.now() - began })));
    }
    await delay(1);
  }
  await Promise.all(writing);
  for (const lease of leases)
    await lease.fail({ reason: 'BENCH_OVER', message: 'the bench is over', retryable: false, killedWorker: false });
  await Promise.all(watching);
  return rowOf('fleet', {
    name: `Watch across replicas, ${jobs * each} watchers on ${jobs} jobs at ${rate} events a second, p99`,
    figure: percentile(times, 99),
    unit: 'ms',
    target: { kind: 'at most', value: 100 },
    note: `p50 ${percentile(times, 50).toFixed(1)} ms, ${times.length} deliveries of ${sent} events; both stores in this process`,
  });
}
