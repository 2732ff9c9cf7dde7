// No-op jobs from submit to succeeded through one slot, everything stored. The peer is coglet with a prediction that does nothing, which
// queues and stores nothing: one caller, one prediction after another, its fastest way with one worker.
import { create } from '@bufbuild/protobuf';
import { JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { WatchJobsRequestSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import type { Bench, Group } from '../bench.ts';
import { interleaved, type Measured, median, type Row, rowOf } from '../figures.ts';
import { LoadGenerator } from '../load/generator.ts';
import type { CallsDone, Request } from '../load/tasks.ts';
import { type Peer, startCoglet } from '../peers/start.ts';
import { CannotRun, cpuSeconds } from '../processes.ts';
import { noopJob, submitByGrpc, submitByRest } from '../requests.ts';
import { Service } from '../service.ts';

const CLIENTS = 64;
/** Where coglet cannot be had: measured on the project's first machine, 2 cores. */
const COGLET_QUOTED = { name: 'coglet', figure: 1100, quoted: true };
const PREDICTION: Request = {
  protocol: 'http',
  method: 'POST',
  path: '/predictions',
  body: '{"input":{"text":"a"}}',
  status: 200,
  busyStatus: 409, // its slot comes free a moment after its answer
  contains: '"succeeded"',
};

export const jobs: Group = {
  name: 'jobs',
  about: 'no-op jobs from submit to succeeded, durable, through one slot',

  async *run(bench: Bench): AsyncIterable<Row> {
    await using load = LoadGenerator.start();
    await using lent = await bench.service();
    const { service } = lent;
    await using unrecycled = bench.quick
      ? undefined
      : await Service.start({ dataDir: bench.folder(), settings: { RECYCLE_AFTER_JOBS: '0' } });
    let why: string | undefined;
    let peer: Peer | undefined;
    try {
      if (bench.quick) throw new CannotRun('a quick run installs no peer');
      peer = await startCoglet();
    } catch (error) {
      if (!(error instanceof CannotRun)) throw error;
      why = error.message;
    }
    await using _ = peer;

    const job = noopJob();
    const seconds = bench.pick(4, 0.5);
    /** CPU of service and load generator in microseconds a job, where the machine tells it. */
    const cpu = { service: [] as number[], client: [] as number[] };
    const byRest = async ({ port, pid }: Service) => {
      const task = { kind: 'calls', port, request: submitByRest(job, 60), connections: CLIENTS, inFlight: CLIENTS, seconds } as const;
      const before = cpuSeconds(pid);
      const done = await load.run(task);
      const used = (cpuSeconds(pid) ?? Number.NaN) - (before ?? Number.NaN);
      if (pid === service.pid && !Number.isNaN(used)) cpu.service.push((used / done.calls) * 1e6);
      cpu.client.push((done.cpuSeconds / done.calls) * 1e6);
      return rate(done);
    };
    const contestants: Record<string, () => Promise<number>> = {
      rest: () => byRest(service),
      grpc: () => drained(service, load, bench.pick(2000, 60)),
    };
    if (unrecycled) contestants.unrecycled = () => byRest(unrecycled);
    if (peer) {
      const { port } = peer;
      contestants.coglet = async () =>
        rate(await load.run({ kind: 'calls', port, request: PREDICTION, connections: 1, inFlight: 1, seconds }));
    }
    if (!bench.quick) {
      bench.say('warming up');
      for (const contestant of Object.values(contestants)) await contestant();
    }
    bench.say('measuring, in turns');
    const rates = await interleaved(bench.pick(3, 1), contestants);

    const coglet = rates.coglet ? { name: 'coglet', figure: median(rates.coglet) } : COGLET_QUOTED;
    const row = (name: string, values: readonly number[], rest: Pick<Measured, 'target' | 'note'>) =>
      rowOf('jobs', { name, figure: median(values), unit: 'jobs/s', peer: coglet, ...rest });
    yield row('REST Submit with Prefer: wait, 64 clients', rates.rest!, {
      target: { kind: 'at least', value: 500 },
      note: [
        cpu.service.length > 0
          ? `${Math.round(median(cpu.service))} µs CPU of the service a job, ${Math.round(median(cpu.client))} µs of the load generator`
          : undefined,
        why ? `coglet was not measured here: ${why}` : 'coglet: one prediction after another, nothing queued, nothing stored',
      ]
        .filter((note) => note !== undefined)
        .join('; '),
    });
    yield row('gRPC Submit, 64 in flight, until the last has succeeded', rates.grpc!, { target: { kind: 'at least', value: 500 } });
    if (rates.unrecycled) {
      yield row('REST, workers never replaced', rates.unrecycled, {
        note: 'FFJOBS_RECYCLE_AFTER_JOBS=0; by default a worker is replaced every 10,000 jobs, which no real job is short enough to notice',
      });
    }
  },
};

function rate(done: CallsDone): number {
  if (done.errors > 0) throw new Error(`${done.errors} of ${done.errors + done.calls} calls failed: ${done.firstError}`);
  return done.calls / done.seconds;
}

/** Jobs per second from the first submit to the last success, as one WatchJobs stream sees it. */
async function drained(service: Service, load: LoadGenerator, count: number): Promise<number> {
  const { jobs } = service.clients();
  const leave = new AbortController();
  const succeeded = new Set<string>();
  const opened = Promise.withResolvers<void>();
  const all = (async () => {
    const request = create(WatchJobsRequestSchema, {});
    for await (const { job } of jobs.watchJobs(request, { signal: leave.signal, onHeader: () => opened.resolve() })) {
      if (job?.status === JobStatus.FAILED) throw new Error(`a no-op job failed: ${job.errorMessage}`);
      if (job?.status === JobStatus.SUCCEEDED && succeeded.add(job.jobId).size === count) return;
    }
  })();
  try {
    // A server may send its headers with the first message only.
    await Promise.race([opened.promise, new Promise((resolve) => setTimeout(resolve, 200))]);
    const begin = performance.now();
    const request = submitByGrpc(noopJob());
    const done = await load.run({ kind: 'calls', port: service.port, request, connections: 4, inFlight: CLIENTS, count });
    if (done.errors > 0) throw new Error(`${done.errors} submits failed: ${done.firstError}`);
    await Promise.race([
      all,
      new Promise((_, reject) => {
        setTimeout(() => reject(new Error(`${count - succeeded.size} of ${count} jobs had not succeeded after 120 s`)), 120_000).unref();
      }),
    ]);
    return count / ((performance.now() - begin) / 1000);
  } finally {
    leave.abort();
    await all.catch(() => {});
  }
}
