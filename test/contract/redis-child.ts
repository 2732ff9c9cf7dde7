// A process of its own that joins the fleet argv[3] on the Redis argv[2], takes a job, begins it and holds it, for tests that pause or kill it. It
// prints a line for each thing that happens.
import { writeSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobsError } from '../../src/jobs/errors.ts';
import { LeaseEnded } from '../../src/jobs/ports.ts';
import { openRedisJobStore } from '../../src/store/jobs-redis.ts';
import { LEASE_MS } from './job-fleet.ts';

const say = (line: string) => writeSync(1, `${line}\n`);
const [, , url, fleet] = process.argv;

const store = await openRedisJobStore({ url: url!, fleet: fleet!, leaseMs: LEASE_MS });
const lease = (await store.claim({ node: 'child' }, new AbortController().signal))!;
await lease.begin({ slot: 'child/0', engine: undefined });
lease.signal.addEventListener('abort', () => {
  const { reason } = lease.signal;
  say(`ended ${reason instanceof LeaseEnded ? reason.end : reason}`);
  const result = create(MediaResultSchema, { mediaType: 'image/jpeg', bytes: 5n, sha256: 'bb', frames: 1 });
  lease.complete({ result, warnings: [], timings: create(TimingsSchema) }).then(
    ({ status }) => say(`completed ${status}`),
    (error) => say(`refused ${error instanceof JobsError ? error.reason : error}`),
  );
});
say(`held ${lease.job.jobId}`);
setInterval(() => {}, 1000);
