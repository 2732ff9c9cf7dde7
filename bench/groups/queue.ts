// What a hundred thousand stored jobs cost: a claim, a look and a list beside the same with a thousand, on the store itself in this process;
// and the start of the real service on such a file beside its start on an empty one.
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobStatus, newJobId } from '../../src/jobs/job.ts';
import type { JobStore } from '../../src/jobs/ports.ts';
import type { Bench, Group } from '../bench.ts';
import { interleaved, median, percentile, type Row, rowOf } from '../figures.ts';
import { CannotRun } from '../processes.ts';
import { noopJob } from '../requests.ts';
import { Service } from '../service.ts';

const TENANT = 'default';
const STORE = join(import.meta.dirname, '..', '..', 'src', 'store', 'jobs-sqlite.ts');
const LIMITS = { maxQueued: 10_000_000, idempotencyMs: 86_400_000 };

export const queue: Group = {
  name: 'queue',
  about: 'claim and restart with 100,000 jobs',

  async *run(bench: Bench): AsyncIterable<Row> {
    if (!existsSync(STORE)) throw new CannotRun('the store is not there yet: no src/store/jobs-sqlite.ts');
    const { openSqliteJobStore } = (await import(STORE)) as { openSqliteJobStore(options: { path: string }): Promise<JobStore> };
    const few = bench.pick(1000, 50);
    const many = bench.pick(100_000, 1000);
    const folder = bench.folder();
    const manyPath = join(folder, 'many', 'jobs.db');
    {
      await using small = await openSqliteJobStore({ path: join(folder, 'few', 'jobs.db') });
      await using large = await openSqliteJobStore({ path: manyPath });
      bench.say(`storing ${few} and ${many} jobs`);
      const fewIds = await fill(small, few);
      const begin = performance.now();
      const manyIds = await fill(large, many);
      yield rowOf('queue', {
        name: 'submits while filling, 500 at once',
        figure: many / ((performance.now() - begin) / 1000),
        unit: 'jobs/s',
      });

      bench.say('in turns');
      const steps: Record<string, (store: JobStore, ids: readonly string[], count: number) => Promise<number[]>> = { claim, get, list };
      for (const [name, step] of Object.entries(steps)) {
        const count = bench.pick(40, 5);
        const times = await interleaved(bench.pick(5, 1), {
          few: () => step(small, fewIds, count),
          many: () => step(large, manyIds, count),
        });
        const [fewMs, manyMs] = [times.few.flat(), times.many.flat()];
        yield rowOf('queue', {
          name: `${name} at ${many.toLocaleString('en-US')} queued jobs, p50`,
          figure: median(manyMs),
          unit: 'ms',
          peer: { name: `at ${few.toLocaleString('en-US')}`, figure: median(fewMs) },
          ...(name === 'claim' ? { target: { kind: 'at most times peer', value: 2 } as const } : {}),
          note: `p99 ${percentile(manyMs, 99).toFixed(2)} ms, at ${few.toLocaleString('en-US')} ${percentile(fewMs, 99).toFixed(2)} ms`,
        });
      }
    }

    bench.say('restarting');
    const emptyFolder = join(folder, 'empty');
    const ready = async (dataDir: string) => {
      await using service = await Service.start({ dataDir, settings: { DRAIN_TIMEOUT: '0s', MAX_QUEUED: '10000000' } });
      return service.readySeconds;
    };
    if (!bench.quick) await ready(emptyFolder);
    const seconds = await interleaved(bench.pick(3, 1), { empty: () => ready(emptyFolder), many: () => ready(join(folder, 'many')) });
    const [emptyS, manyS] = [median(seconds.empty), median(seconds.many)];
    yield rowOf('queue', {
      name: `ready after a restart with ${many.toLocaleString('en-US')} jobs stored`,
      figure: manyS,
      unit: 's',
      peer: { name: 'with none', figure: emptyS },
      target: { kind: 'at most', value: 2 },
      note: 'from the start of the process to /readyz 200',
    });
    yield rowOf('queue', {
      name: 'the same without the start of an empty service',
      figure: manyS - emptyS,
      unit: 's',
    });
  },
};

/** Jobs that hold their slot for an hour, so that a service started on them stays as it is. */
async function fill(store: JobStore, count: number): Promise<string[]> {
  const request = noopJob({ hold_seconds: 3600 });
  const ids: string[] = [];
  while (ids.length < count) {
    const batch = Array.from({ length: Math.min(500, count - ids.length) }, () => newJobId(Date.now(), randomBytes(12)));
    await Promise.all(
      batch.map((jobId) => store.submit({ jobId, tenant: TENANT, request, requestDigest: '', warnings: [], maxAttempts: 3 }, LIMITS)),
    );
    ids.push(...batch);
  }
  return ids;
}

/** Milliseconds of each claim; the job claimed ends before the next one, so that the queue moves on. */
async function claim(store: JobStore, _ids: readonly string[], count: number): Promise<number[]> {
  const times: number[] = [];
  const { signal } = new AbortController();
  for (let done = 0; done < count; done++) {
    const begin = performance.now();
    const lease = await store.claim({ node: 'bench' }, signal);
    times.push(performance.now() - begin);
    await lease!.begin({ slot: 'bench', engine: undefined });
    const result = create(MediaResultSchema, { mediaType: 'image/png', bytes: 3n, sha256: 'a'.repeat(64), width: 1, height: 1, frames: 1 });
    await lease!.complete({ result, warnings: [], timings: create(TimingsSchema, {}) });
  }
  return times;
}

/** Milliseconds to read jobs from all over the queue, with their positions. */
async function get(store: JobStore, ids: readonly string[], count: number): Promise<number[]> {
  const times: number[] = [];
  for (let done = 0; done < count; done++) {
    const jobId = ids[Math.floor(Math.random() * ids.length)]!;
    const begin = performance.now();
    await store.get(jobId);
    times.push(performance.now() - begin);
  }
  return times;
}

/** Milliseconds of the first page of queued jobs. */
async function list(store: JobStore, _ids: readonly string[], count: number): Promise<number[]> {
  const times: number[] = [];
  for (let done = 0; done < count; done++) {
    const begin = performance.now();
    await store.list({ tenant: TENANT, statuses: [JobStatus.QUEUED], pageSize: 50 });
    times.push(performance.now() - begin);
  }
  return times;
}
