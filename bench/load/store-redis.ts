// The job store on Redis by itself: submits jobs, and claims, reports three times and completes each. argv: URL of the Redis, jobs, at once. Prints
// the seconds from the first submit to the last completion, and its CPU.
import { create } from '@bufbuild/protobuf';
import { ProgressSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobRequestSchema, MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobStep, newJobId } from '../../src/jobs/job.ts';
import { fewRandomBytes } from '../../src/random-bytes.ts';
import { openRedisJobStore } from '../../src/store/jobs-redis.ts';

const [, , url, jobs, atOnce] = process.argv;
const count = Number(jobs);
const limits = { maxQueued: 10_000_000, idempotencyMs: 86_400_000 };
const request = create(JobRequestSchema, {
  sourceImages: ['face.jpg'],
  target: { case: 'targetImage', value: 'target.jpg' },
  parameters: { processors: ['face_swapper'] },
});
const store = await openRedisJobStore({ url: url! });

async function run(total: number): Promise<{ seconds: number; cpuSeconds: number }> {
  const cpu = process.cpuUsage();
  const begin = performance.now();
  let left = total;
  let completed = 0;
  const leave = new AbortController();
  const submitting = Array.from({ length: Number(atOnce) }, async () => {
    while (left-- > 0) {
      const jobId = newJobId(Date.now(), fewRandomBytes(12));
      await store.submit({ jobId, tenant: 'default', request, requestDigest: '', warnings: [], maxAttempts: 3 }, limits);
    }
  });
  const working = Array.from({ length: Number(atOnce) }, async () => {
    while (!leave.signal.aborted) {
      const lease = await store.claim({ node: 'bench' }, leave.signal);
      if (!lease) return;
      // What is written is not waited for, the end is: it comes after all of it.
      void lease.begin({ slot: 'bench', engine: undefined });
      for (const percent of [30, 60, 90]) void lease.progress(create(ProgressSchema, { step: JobStep.PROCESSING, percent }));
      const result = create(MediaResultSchema, {
        mediaType: 'image/png',
        bytes: 3n,
        sha256: 'a'.repeat(64),
        width: 1,
        height: 1,
        frames: 1,
      });
      await lease.complete({ result, warnings: [], timings: create(TimingsSchema, {}) });
      if (++completed === total) leave.abort();
    }
  });
  await Promise.all([...submitting, ...working]);
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { seconds, cpuSeconds: (user + system) / 1e6 };
}

await run(Math.min(200, count));
process.stdout.write(`${JSON.stringify(await run(count))}\n`);
process.exit(0);
