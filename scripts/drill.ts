// `npm run drill [-- --jobs N --lag SECONDS]`: the day a region is lost, on this machine. One region works on jobs; a second has a replica of its Redis and a
// mirror of its bucket. Both fall behind, and then all of the first region dies at once. The replica is promoted, services start there, and what was
// accepted is counted: lost may be only what came within the lag, all else ends. Then the first region comes back as the replica, and takes over again.
// Ends with 0 only if all of that holds; docs/16-operations.md has the same steps for real machines.
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { Redis } from 'ioredis';
import { type Job, JobStatus } from '../gen/facefusion/jobs/v1/job_pb.js';
import { showPhases } from '../src/cli/local/phases.ts';
import { workerPython } from '../src/cli/local/python.ts';
import { connect, type Service } from '../src/cli/remote/client.ts';
import { CliError, Exit } from '../src/cli/remote/errors.ts';
import type { JobRequestInit } from '../src/client/client.ts';
import { copyPortraits, makeBucket, PORTRAITS, s3Client, startServices, warm } from './cluster/region.ts';
import { runScript } from './cluster/run-script.ts';
import { startWay } from './cluster/way.ts';
import { type RedisServer, startRedis } from './redis-server.ts';
import { startMoto } from './s3-server.ts';

const ROOT = join(import.meta.dirname, '..');
const BUCKET = 'drill';
const LEASE_S = 5;
const MIRROR_MS = 200;
const WAIT_MS = 120_000;

const leaving = new AbortController();
const { signal } = leaving;
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

/** A job that a caller was told is accepted. */
interface Accepted {
  readonly jobId: string;
  readonly request: JobRequestInit;
  /** When the caller had the answer. */
  readonly atMs: number;
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + WAIT_MS; !(await holds()); await delay(50, undefined, { signal })) {
    if (performance.now() > end) throw new CliError(Exit.failed, `${what} did not happen within ${WAIT_MS / 1000} s`);
  }
}

/** One command to a Redis, as its operator would give it. */
async function ask<T>(server: { readonly port: number }, command: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis({ port: server.port, host: '127.0.0.1', lazyConnect: true, retryStrategy: () => null });
  redis.on('error', () => {});
  try {
    await redis.connect();
    return await command(redis);
  } finally {
    redis.disconnect();
  }
}

const replicate = (server: RedisServer, port: number) => ask(server, (redis) => redis.replicaof('127.0.0.1', port));
const promote = (server: RedisServer) => ask(server, (redis) => redis.replicaof('NO', 'ONE'));
const fact = async (server: RedisServer, name: string) =>
  new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(await ask(server, (redis) => redis.info('replication')))?.[1];

/** Until the replica has all that the primary had when this was asked. */
async function caughtUp(replica: RedisServer, primary: RedisServer): Promise<void> {
  const offset = Number(await fact(primary, 'master_repl_offset'));
  await until('the replica has caught up', async () => {
    const [link, own] = [await fact(replica, 'master_link_status'), Number(await fact(replica, 'slave_repl_offset'))];
    return link === 'up' && own >= offset;
  });
}

/** What a bucket's replication does: objects that are new here are there a moment later. */
class Mirror implements AsyncDisposable {
  /** All that was in the bucket then has been copied; by the clock. */
  wholeMs = 0;
  readonly #done = new Set<string>();
  readonly #stop = new AbortController();
  readonly #from: S3Client;
  readonly #to: S3Client;
  readonly #running: Promise<void>;

  constructor(from: string, to: string) {
    [this.#from, this.#to] = [s3Client(from), s3Client(to)];
    this.#running = this.#run();
    this.#running.catch(() => {});
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const beganMs = Date.now();
      await this.#pass();
      if (!this.#stop.signal.aborted) this.wholeMs = beganMs;
      await delay(MIRROR_MS, undefined, { signal: this.#stop.signal }).catch(() => {});
    }
  }

  async #pass(): Promise<void> {
    let token: string | undefined;
    do {
      const page = await this.#from.send(new ListObjectsV2Command({ Bucket: BUCKET, ContinuationToken: token }));
      for (const { Key } of page.Contents ?? []) {
        if (this.#stop.signal.aborted) return;
        if (this.#done.has(Key!)) continue;
        const object = await this.#from.send(new GetObjectCommand({ Bucket: BUCKET, Key: Key! })).catch((error: Error) => {
          // Deleted since it was listed.
          if (error.name !== 'NoSuchKey') throw error;
        });
        if (!object) continue;
        const { Body, ContentType, Metadata } = object;
        await this.#to.send(
          new PutObjectCommand({ Bucket: BUCKET, Key: Key!, ContentType, Metadata, Body: await Body!.transformToByteArray() }),
        );
        this.#done.add(Key!);
      }
      token = page.NextContinuationToken;
    } while (token);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.#from.destroy();
    this.#to.destroy();
  }
}

/** Submits one job after another until it is stopped, as a caller would, and keeps what was accepted. */
class Caller {
  readonly accepted: Accepted[] = [];
  readonly #service: Service;
  #count = 0;

  constructor(service: Service) {
    this.#service = service;
  }

  async submit(count: number, everyMs = 0): Promise<void> {
    for (let i = 0; i < count; i++, await delay(everyMs, undefined, { signal })) {
      const [source, target] = this.#count % 2 ? PORTRAITS : PORTRAITS.toReversed();
      const request: JobRequestInit = {
        sourceImages: [source!],
        target: { case: 'targetImage', value: target! },
        // No two are alike, so that none is answered with another's result.
        parameters: { processors: ['face_swapper'], output_quality: 40 + (this.#count % 60) },
        labels: { number: `${this.#count}` },
        idempotencyKey: `drill-${randomBytes(8).toString('hex')}`,
      };
      this.#count++;
      const { jobId } = await this.#service.submit(request, { signal });
      this.accepted.push({ jobId, request, atMs: Date.now() });
    }
  }
}

/** The job, or nothing where the service knows of none. */
async function find(service: Service, jobId: string): Promise<Job | undefined> {
  try {
    return (await service.jobs.get({ jobId }, { signal })).job;
  } catch (error) {
    if (ConnectError.from(error).code === Code.NotFound) return undefined;
    throw error;
  }
}

/** Whether the result's bytes are there. */
async function hasResult(service: Service, jobId: string): Promise<boolean> {
  try {
    const { response } = await service.result(jobId, { signal });
    return (await response.arrayBuffer()).byteLength > 0;
  } catch (error) {
    if (signal.aborted) throw error;
    return false;
  }
}

function must(holds: boolean, otherwise: string): void {
  if (!holds) throw new CliError(Exit.failed, otherwise);
}

async function main(count: number, lagMs: number): Promise<void> {
  await using open = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-drill-'));
  open.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  using phases = showPhases({ err: process.stderr });
  const say = (line: string) => {
    phases.clear();
    console.log(line);
  };
  phases.report('the worker’s environment');
  // With the S3 server, and a Redis where there is none.
  const given = process.env.FFJOBS_PYTHON || undefined;
  const python = await workerPython({ root: ROOT, given, env: process.env, dev: true, signal, report: (phase) => phases.report(phase) });
  const inputs = join(dir, 'input');
  await copyPortraits(inputs);
  /** The services of a region on a Redis and a bucket; its own stack ends them. */
  const serve = async (name: string, redis: RedisServer, s3: string, stack: AsyncDisposableStack) => {
    const folder = join(dir, name);
    await mkdir(folder, { recursive: true });
    const members = { apis: [`${name}-api`], nodes: [`${name}-gpu-1`, `${name}-gpu-2`] };
    const services = await startServices(
      { redis: redis.url, s3, bucket: BUCKET, inputs, python, folder, leaseSeconds: LEASE_S, ...members },
      stack,
    );
    return { services, client: stack.use(connect(services.addresses[0]!)) };
  };

  phases.report('the first region: Redis, a bucket, an API replica and two nodes');
  const first = open.use(new AsyncDisposableStack());
  const firstRedis = open.use(await startRedis());
  const firstS3 = first.use(await startMoto(python, 'ignore'));
  await makeBucket(firstS3.endpoint, BUCKET);
  phases.report('the second region: a replica of that Redis, a mirror of that bucket');
  const line = open.use(await startWay(firstRedis.port));
  const secondRedis = open.use(await startRedis(['--replicaof', '127.0.0.1', `${line.port}`]));
  const secondS3 = open.use(await startMoto(python, 'ignore'));
  await makeBucket(secondS3.endpoint, BUCKET);
  await caughtUp(secondRedis, firstRedis);
  const mirror = open.use(new Mirror(firstS3.endpoint, secondS3.endpoint));
  phases.report('warming two workers');
  const { services, client } = await serve('first', firstRedis, firstS3.endpoint, first);
  await warm(client, 2, signal);
  say('The first region works; the second has a replica of its Redis and a mirror of its bucket, and runs nothing.\n');

  const caller = new Caller(client);
  await caller.submit(count);
  const some = Math.ceil(count / 4);
  await until(`${some} of ${count} jobs succeeded`, async () => {
    const { totals } = await client.system.getOverview({}, { signal });
    return (totals?.succeeded ?? 0) >= some;
  });
  await until('the mirror went round', async () => mirror.wholeMs > 0);
  const lagsFromMs = Date.now();
  line.hold();
  await mirror.stop();
  const late = Math.max(2, Math.ceil(count / 6));
  await caller.submit(late, lagMs / late);
  const lostAtMs = Date.now();
  for (const { child } of services.byName.values()) child.kill('SIGKILL');
  await firstRedis.kill();
  await first.disposeAsync();
  const { accepted } = caller;
  say(
    `${accepted.length} jobs accepted. Replica and mirror were ${seconds(lostAtMs - lagsFromMs)} behind when the first region was KILLED, all of it at once.`,
  );

  phases.report('the replica is promoted, services start beside it');
  line.cut();
  await promote(secondRedis);
  const second = open.use(new AsyncDisposableStack());
  const there = await serve('second', secondRedis, secondS3.endpoint, second);
  const answersMs = Date.now();
  const known = await Promise.all(accepted.map(async (one) => ({ ...one, job: await find(there.client, one.jobId) })));
  const lost = known.filter(({ job }) => job === undefined);
  const kept = known.filter(({ job }) => job !== undefined);
  for (const { jobId, atMs } of lost)
    must(atMs >= lagsFromMs, `${jobId} is lost, though it was accepted ${seconds(lagsFromMs - atMs)} before the replica fell behind`);
  phases.report(`${kept.length} jobs that are known go on to their end`);
  const ended = await Promise.all(kept.map(({ jobId }) => there.client.wait(jobId, { signal })));
  const endedMs = Date.now();
  const missing: Accepted[] = [];
  for (const [i, job] of ended.entries()) {
    if (await hasResult(there.client, job.jobId)) continue;
    const finishedMs = timestampMs(job.finishedAt!);
    must(finishedMs >= mirror.wholeMs, `the result of ${job.jobId} is lost, though the mirror went round after it was stored`);
    missing.push(kept[i]!);
  }
  say(`The second region answered ${seconds(answersMs - lostAtMs)} after that, and had ended every job that it knew of after ${seconds(endedMs - lostAtMs)}.
  lost: ${lost.length} of ${accepted.length} jobs, each accepted in those last ${seconds(lostAtMs - lagsFromMs)}
  succeeded: ${ended.length} of ${kept.length} others, ${ended.filter(({ attempt }) => attempt > 1).length} of them in a second attempt
  results not yet mirrored: ${missing.length}`);

  phases.report('callers send again what they have no result of');
  const again = await Promise.all(lost.map(({ request }) => there.client.submit(request, { signal })));
  // The same request with a new key is a new job. It must not be answered with the result that is not there.
  const anew = await Promise.all(missing.map(({ request }) => there.client.submit({ ...request, idempotencyKey: undefined }, { signal })));
  for (const { jobId } of [...again, ...anew]) {
    await there.client.wait(jobId, { signal });
    must(await hasResult(there.client, jobId), `${jobId}, sent again, has succeeded and its result is not there`);
  }
  const repeated = await there.client.submit(kept[0]!.request, { signal });
  must(repeated.jobId === kept[0]!.jobId, `the same request with the same key became ${repeated.jobId}, not ${kept[0]!.jobId}`);
  say(
    `Sent again: ${again.length} lost ones with their keys, ${anew.length} whose results were not mirrored as new jobs; all succeeded.\n`,
  );

  phases.report('the first region comes back as the replica');
  await firstRedis.start();
  await replicate(firstRedis, secondRedis.port);
  const freshS3 = open.use(await startMoto(python, 'ignore'));
  await makeBucket(freshS3.endpoint, BUCKET);
  const back = open.use(new Mirror(secondS3.endpoint, freshS3.endpoint));
  await caughtUp(firstRedis, secondRedis);
  phases.report('the second region drains, the first takes over');
  await second.disposeAsync();
  const drainedMs = Date.now();
  await caughtUp(firstRedis, secondRedis);
  await until('the mirror went round', async () => back.wholeMs > drainedMs);
  await back.stop();
  await secondRedis.kill();
  await promote(firstRedis);
  const last = open.use(new AsyncDisposableStack());
  const home = await serve('home', firstRedis, freshS3.endpoint, last);
  for (const { jobId } of [...ended, ...again, ...anew])
    must((await find(home.client, jobId))?.status === JobStatus.SUCCEEDED, `${jobId} did not come back to the first region`);
  for (const { jobId } of again) must(await hasResult(home.client, jobId), `the result of ${jobId} did not come back to the first region`);
  const fresh = new Caller(home.client);
  await fresh.submit(1);
  await home.client.wait(fresh.accepted[0]!.jobId, { signal });
  say(
    `Back in the first region, ${seconds(Date.now() - drainedMs)} after the second had drained: nothing lost, ${ended.length + again.length + anew.length} jobs there, a new one succeeded.`,
  );
}

await runScript('drill', leaving, async () => {
  const { values } = parseArgs({ options: { jobs: { type: 'string', default: '24' }, lag: { type: 'string', default: '2' } } });
  const [jobs, lag] = [Number(values.jobs), Number(values.lag)];
  if (!Number.isInteger(jobs) || jobs < 4 || jobs > 1000)
    throw new CliError(Exit.invalid, `--jobs is '${values.jobs}'; it takes 4 to 1000`);
  if (!(lag >= 0.1 && lag <= 60)) throw new CliError(Exit.invalid, `--lag is '${values.lag}'; it takes 0.1 to 60 seconds`);
  await main(jobs, lag * 1000);
});
