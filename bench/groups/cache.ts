// Like jobs: how long one takes that finds its result, and how often the engine runs for many over few inputs.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { CachePolicy, JobRequestSchema, JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Bench, Group } from '../bench.ts';
import { percentile, type Row, rowOf } from '../figures.ts';
import { noopJob } from '../requests.ts';
import { Service, TARGET } from '../service.ts';

const INPUTS = 10;
const AT_ONCE = 50;

export const cache: Group = {
  name: 'cache',
  about: 'jobs that find their result, and many jobs over few inputs',

  async *run(bench: Bench): AsyncIterable<Row> {
    const settings = { CACHE_TTL: '24h', MAX_QUEUED: '100000', SLOTS: '2' };
    await using service = await Service.start({ dataDir: bench.folder(), settings });
    const { jobs } = service.clients();
    const input = join(service.dataDir, 'input');
    const picture = readFileSync(join(input, TARGET));
    /** From submit until the stream of events says that it has succeeded, in milliseconds. */
    const submit = async (target: string, policy = CachePolicy.USE) => {
      const job = create(JobRequestSchema, { ...noopJob(), target: { case: 'targetImage', value: target }, cache: policy });
      const begin = performance.now();
      const { job: submitted } = await jobs.submit({ job });
      for await (const event of jobs.watch({ jobId: submitted!.jobId })) void event;
      return { ms: performance.now() - begin, jobId: submitted!.jobId };
    };

    await submit(TARGET);
    const count = bench.pick(300, 60);
    const [hits, runs]: [number[], number[]] = [[], []];
    for (let i = 0; i < count; i++) {
      const hit = await submit(TARGET);
      const { job } = await jobs.get({ jobId: hit.jobId });
      if (!job?.cached || job.status !== JobStatus.SUCCEEDED) throw new Error(`${hit.jobId} did not come from the cache`);
      hits.push(hit.ms);
      runs.push((await submit(TARGET, CachePolicy.OFF)).ms);
    }
    yield rowOf('cache', {
      name: 'a hit, from submit to succeeded, p50',
      figure: percentile(hits, 50),
      unit: 'ms',
      target: { kind: 'at most', value: 15 },
      note: `p99 ${percentile(hits, 99).toFixed(1)} ms; a run of the no-op engine p50 ${percentile(runs, 50).toFixed(1)} ms, in turns`,
    });

    const targets = Array.from({ length: INPUTS }, (_, i) => `like-${i}.png`);
    for (const [i, target] of targets.entries()) writeFileSync(join(input, target), Buffer.concat([picture, Buffer.from(`${i}`)]));
    const all = bench.pick(1000, 40);
    bench.say(`${all} jobs over ${INPUTS} inputs`);
    const ids: string[] = [];
    const begin = performance.now();
    let next = 0;
    const worker = async () => {
      for (let i = next++; i < all; i = next++) ids.push((await submit(targets[i % INPUTS]!)).jobId);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    const seconds = (performance.now() - begin) / 1000;
    let ran = 0;
    for (const jobId of ids) {
      const { job } = await jobs.get({ jobId });
      if (job?.status !== JobStatus.SUCCEEDED) throw new Error(`${jobId} has not succeeded`);
      if (job.attempt > 0) ran++;
    }
    yield rowOf('cache', {
      name: `runs of the engine for ${all.toLocaleString('en-US')} jobs over ${INPUTS} inputs`,
      figure: ran,
      unit: 'runs',
      target: { kind: 'at most', value: INPUTS },
      note: `${Math.round(all / seconds)} jobs a second, ${AT_ONCE} at once`,
    });
  },
};
