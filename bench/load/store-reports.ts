// A replica that writes and serves nobody: holds jobs through the store on Redis and reports on each in turn. argv: URL of the Redis, fleet, jobs,
// reports a second over all, for how many seconds. Prints the jobs' ids when all are running, begins at the first line of its standard input, and ends
// the jobs when it is done. A report carries its moment, CLOCK_MONOTONIC in milliseconds, as its frames per second.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobStep, newJobId } from '../../src/jobs/job.ts';
import { openRedisJobStore } from '../../src/store/jobs-redis.ts';
import { noopJob } from '../requests.ts';

const [, , url, fleet, jobs, rate, seconds] = process.argv;
const NEVER = new AbortController().signal;
const store = await openRedisJobStore({ url: url!, fleet: fleet! });
const leases = await Promise.all(
  Array.from({ length: Number(jobs) }, async () => {
    const jobId = newJobId(Date.now(), randomBytes(12));
    const wanted = { jobId, tenant: 'default', request: noopJob(), requestDigest: '', warnings: [], maxAttempts: 1 };
    await store.submit(wanted, { maxQueued: 1_000_000, idempotencyMs: 1000 });
    const lease = (await store.claim({ node: 'bench' }, NEVER))!;
    await lease.begin({ slot: 'bench', engine: undefined });
    return lease;
  }),
);
process.stdout.write(`${JSON.stringify(leases.map(({ job }) => job.jobId))}\n`);
await once(process.stdin, 'data');

const writing: Promise<void>[] = [];
const began = performance.now();
for (let now = 0; now < Number(seconds); now = (performance.now() - began) / 1000) {
  while (writing.length < now * Number(rate)) {
    const framesPerSecond = Number(process.hrtime.bigint()) / 1e6;
    writing.push(leases[writing.length % leases.length]!.progress(create(ProgressSchema, { step: JobStep.PROCESSING, framesPerSecond })));
  }
  await delay(1);
}
await Promise.all(writing);
const over = { reason: 'BENCH_OVER', message: 'the bench is over', retryable: false, killedWorker: false };
await Promise.all(leases.map((lease) => lease.fail(over)));
await store[Symbol.asyncDispose]();
process.exit(0);
