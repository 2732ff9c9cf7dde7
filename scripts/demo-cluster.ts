// `npm run demo:cluster [-- --jobs N --output FOLDER]`: a fleet on this machine. Starts Redis, an S3-compatible server, two API replicas and three worker nodes, submits
// a batch to one replica and watches it through the other, kills a node while it runs a job, and shows that every job is done all the same. Ends with 0
// only if each succeeded and its result is there; whatever was started is ended and tidied up in any case.
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { CachePolicy, type Job, JobStatus } from '../gen/facefusion/jobs/v1/job_pb.js';
import type { Batch } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { WorkerState } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { showPhases } from '../src/cli/local/phases.ts';
import { workerPython } from '../src/cli/local/python.ts';
import { connect, type Service } from '../src/cli/remote/client.ts';
import { CliError, Exit } from '../src/cli/remote/errors.ts';
import { download } from '../src/cli/remote/media.ts';
import { SILENT } from '../src/cli/remote/progress.ts';
import { CLIP, makeBucket, makeInputs, PORTRAITS, type Services, startServices, warm } from './cluster/region.ts';
import { runScript } from './cluster/run-script.ts';
import { startRedis } from './redis-server.ts';
import { startMoto } from './s3-server.ts';

const ROOT = join(import.meta.dirname, '..');
/** Short, so that the demo need not wait half a minute for what the killed node had. */
const LEASE_S = 5;
const NODES = ['gpu-1', 'gpu-2', 'gpu-3'];
const APIS = ['api-1', 'api-2'];
/** Long enough for a node to be killed in the middle of it. */
const CLIP_S = 2;
const VICTIM_MS = 60_000;

const leaving = new AbortController();
const here = (path: string) => relative(process.cwd(), path) || path;

interface Fleet extends Services {
  readonly redis: string;
  readonly s3: string;
  readonly bucket: string;
}

async function startFleet(python: string, folder: string, open: AsyncDisposableStack): Promise<Fleet> {
  const redis = open.use(await startRedis());
  const s3 = open.use(await startMoto(python, 'ignore'));
  const bucket = `demo-${randomBytes(4).toString('hex')}`;
  await makeBucket(s3.endpoint, bucket);
  const inputs = join(folder, 'input');
  await makeInputs(python, inputs, leaving.signal, CLIP_S);
  const place = { redis: redis.url, s3: s3.endpoint, bucket };
  const members = { apis: APIS, nodes: NODES, leaseSeconds: LEASE_S };
  return { ...place, ...(await startServices({ ...place, ...members, inputs, python, folder }, open)) };
}

/** A batch: all of its jobs are taken, or none. */
async function submit(service: Service, count: number): Promise<Batch> {
  const jobs = Array.from({ length: count }, (_, i) => {
    // A third are a clip, which takes long enough for something to happen meanwhile.
    const [source, picture] = i % 2 ? PORTRAITS : PORTRAITS.toReversed();
    const target = i % 3 === 0 ? ({ case: 'targetVideo', value: CLIP } as const) : ({ case: 'targetImage', value: picture! } as const);
    // Each is worked on, though they are alike.
    return { job: { sourceImages: [source!], target, parameters: { processors: ['face_swapper'] }, cache: CachePolicy.OFF } };
  });
  const { batch } = await service.jobs.submitBatch({ jobs }, { signal: leaving.signal });
  return batch!;
}

/** Kills a node while it runs a job. It is stopped for a moment first, so that what it has when it dies is surely known. */
async function killOne({ byName }: Fleet, service: Service): Promise<{ readonly node: string; readonly jobId: string }> {
  for (const until = performance.now() + VICTIM_MS; performance.now() < until; await delay(20, undefined, { signal: leaving.signal })) {
    const { slots } = await service.system.listSlots({}, { signal: leaving.signal });
    const busy = slots.find(({ state, jobId }) => state === WorkerState.BUSY && jobId);
    if (!busy) continue;
    const { child, ended } = byName.get(busy.node)!;
    child.kill('SIGSTOP');
    const { job } = await service.jobs.get({ jobId: busy.jobId! }, { signal: leaving.signal });
    if (job?.status === JobStatus.PROCESSING) {
      child.kill('SIGKILL');
      await ended;
      return { node: busy.node, jobId: busy.jobId! };
    }
    child.kill('SIGCONT');
  }
  throw new CliError(Exit.failed, 'no node was seen running a job, so that none could be killed in the middle: take more jobs (--jobs)');
}

interface Watched {
  readonly jobId: string;
  readonly events: number;
  readonly job: Job;
}

/** To the job's end; throws when an event is missing or comes twice. */
async function watchToEnd(service: Service, jobId: string, ended: (job: Job) => void): Promise<Watched> {
  let last = 0;
  let events = 0;
  for await (const event of service.watch(jobId, { after: 0, signal: leaving.signal })) {
    events++;
    if (event.sequence !== (event.skippedAfter === undefined ? last + 1 : event.sequence)) {
      throw new CliError(Exit.failed, `after event ${last} of ${jobId} came event ${event.sequence}`);
    }
    last = event.sequence;
  }
  const { job } = await service.jobs.get({ jobId }, { signal: leaving.signal });
  ended(job!);
  return { jobId, events, job: job! };
}

async function main(count: number, results: string): Promise<void> {
  await using open = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-demo-cluster-'));
  open.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  const fleet = await (async () => {
    using phases = showPhases({ err: process.stderr });
    const report = (phase: string) => phases.report(phase);
    const python = await workerPython({
      root: ROOT,
      given: process.env.FFJOBS_PYTHON || undefined,
      env: process.env,
      // With the S3 server, and a Redis where there is none.
      dev: true,
      signal: leaving.signal,
      report,
    });
    report('starting Redis, an S3 server, two API replicas and three worker nodes');
    const started = await startFleet(python, dir, open);
    using first = connect(started.addresses[0]!);
    report('warming three workers');
    await warm(first, NODES.length, leaving.signal);
    return started;
  })();
  const [first, second] = fleet.addresses.map((address) => open.use(connect(address))) as [Service, Service];
  console.log(`A fleet on this machine:
  job store   ${fleet.redis} (every write on disk before it is acknowledged)
  results     s3://${fleet.bucket}/results at ${fleet.s3}
  API         ${fleet.addresses.join(' and ')}
  nodes       ${NODES.join(', ')}, one slot each, engine classical
`);
  const { batchId, jobIds } = await submit(first, count);
  console.log(`Batch ${batchId}, ${count} jobs, submitted to ${APIS[0]}, watched through ${APIS[1]}.`);
  let done = 0;
  const watching = Promise.all(
    jobIds.map((jobId) =>
      watchToEnd(second, jobId, ({ status, attempt, error }) => {
        const how = status === JobStatus.SUCCEEDED ? 'succeeded' : `${JobStatus[status].toLowerCase()}: ${error?.message ?? ''}`;
        console.log(
          `  ${`${++done}`.padStart(`${count}`.length)} of ${count}  ${jobId}  ${how}${attempt > 1 ? ` in attempt ${attempt}` : ''}`,
        );
      }),
    ),
  );
  // Who waits for both hears of the first that fails.
  const killing = killOne(fleet, second).then((killed) => {
    console.log(`  ${killed.node} KILLED (SIGKILL) while it ran ${killed.jobId}; its lease ends in ${LEASE_S} s`);
    return killed;
  });
  const [killed, watched] = await Promise.all([killing, watching]);

  const failed = watched.filter(({ job }) => job.status !== JobStatus.SUCCEEDED);
  if (failed.length > 0)
    throw new CliError(Exit.failed, `${failed.length} of ${count} jobs did not succeed: ${failed.map(({ jobId }) => jobId).join(', ')}`);
  const { batch } = await first.jobs.getBatch({ batchId }, { signal: leaving.signal });
  if (batch?.succeeded !== count || batch.progress !== 100) {
    throw new CliError(Exit.failed, `${batchId} says that ${batch?.succeeded} of ${count} jobs have succeeded, ${batch?.progress} %`);
  }
  const again = watched.find(({ jobId }) => jobId === killed.jobId)!;
  if (again.job.attempt < 2)
    throw new CliError(Exit.failed, `${killed.jobId} was on the killed node and succeeded in attempt ${again.job.attempt}`);
  await rm(results, { recursive: true, force: true });
  await mkdir(results, { recursive: true });
  for (const { jobId, job } of watched) {
    const extension = job.result?.mediaType === 'video/mp4' ? 'mp4' : 'jpg';
    await download(second, jobId, join(results, `${jobId}.${extension}`), SILENT.line(''), leaving.signal);
  }
  const events = watched.reduce((sum, one) => sum + one.events, 0);
  console.log(`
All ${count} jobs succeeded, ${killed.jobId} in attempt ${again.job.attempt}, on another node than ${killed.node}.
${events} events seen through ${APIS[1]}, none missing, none twice.
Results, fetched from S3 by their signed URLs: ${here(results)}
`);
}

await runScript('demo', leaving, async () => {
  const { values } = parseArgs({
    options: { jobs: { type: 'string', default: '18' }, output: { type: 'string', default: join(ROOT, 'data', 'demo-cluster') } },
  });
  const jobs = Number(values.jobs);
  if (!Number.isInteger(jobs) || jobs < 1 || jobs > 1000)
    throw new CliError(Exit.invalid, `--jobs is '${values.jobs}'; it takes 1 to 1000`);
  await main(jobs, values.output);
});
