// The engines through the whole service: FaceFusion beside itself (facefusion.ts), and what a picture and a clip take with the classical one, which is
// context and has no target: it is plain on purpose.
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { create, type JsonObject } from '@bufbuild/protobuf';
import { type Job, JobRequestSchema, JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Bench, Group } from '../bench.ts';
import { median, type Row, rowOf } from '../figures.ts';
import { CannotRun } from '../processes.ts';
import { Service, workerEnvironment } from '../service.ts';
import { facefusionRows } from './facefusion.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const SAMPLES = join(ROOT, 'samples');
const SOURCE = 'eileen_collins.jpg';
const TARGET = 'grace_hopper.jpg';
const CLIP = 'clip.mp4';

export const engine: Group = {
  name: 'engine',
  about: 'FaceFusion through the service beside the program alone; the classical engine on the sample picture and clip',

  async *run(bench: Bench): AsyncIterable<Row> {
    if (bench.quick) throw new CannotRun('a quick run starts no real engine');
    yield* facefusionRows(bench);
    const python = await workerEnvironment();
    const dataDir = bench.folder();
    const input = join(dataDir, 'input');
    mkdirSync(input, { recursive: true });
    for (const portrait of [SOURCE, TARGET]) copyFileSync(join(SAMPLES, portrait), join(input, portrait));
    await promisify(execFile)(python, ['-m', 'facefusion_worker.samples', input], {
      env: { ...process.env, PYTHONPATH: join(ROOT, 'worker'), PYTHONDONTWRITEBYTECODE: '1' },
    });

    await using service = await Service.start({ dataDir, engine: 'classical' });
    const run = async (target: 'targetImage' | 'targetVideo', file: string, parameters: JsonObject): Promise<Job> => {
      const { jobs } = service.clients();
      const request = create(JobRequestSchema, { sourceImages: [SOURCE], target: { case: target, value: file }, parameters });
      const { job } = await jobs.submit({ job: request });
      for await (const { event } of jobs.watch({ jobId: job!.jobId })) void event;
      const ended = (await jobs.get({ jobId: job!.jobId })).job!;
      if (ended.status !== JobStatus.SUCCEEDED) throw new Error(`${file} with ${JSON.stringify(parameters)}: ${ended.errorMessage}`);
      return ended;
    };

    for (const processors of [['face_swapper'], ['face_swapper', 'face_enhancer'], ['frame_enhancer']]) {
      bench.say(`a picture, ${processors.join(' and ')}`);
      const pictures: Job[] = [];
      for (let round = 0; round < 6; round++) pictures.push(await run('targetImage', TARGET, { processors }));
      const warm = pictures.slice(1);
      yield rowOf('engine', {
        name: `a picture, ${processors.join(' + ')}`,
        figure: median(warm.map((job) => job.timings!.runSeconds)),
        unit: 's',
        note: `the service adds ${(median(warm.map(besides)) * 1000).toFixed(0)} ms from submit to succeeded; the first one ${pictures[0]!.timings!.runSeconds.toFixed(2)} s`,
      });
    }
    for (const processors of [['face_swapper'], ['face_swapper', 'face_enhancer']]) {
      bench.say(`the clip, ${processors.join(' and ')}`);
      const job = await run('targetVideo', CLIP, { processors });
      const { frames, width, height, durationSeconds } = job.result!;
      yield rowOf('engine', {
        name: `the clip, ${processors.join(' + ')}`,
        figure: frames / job.timings!.runSeconds,
        unit: 'frames/s',
        note: `${width}x${height}, ${durationSeconds.toFixed(1)} s in ${job.timings!.runSeconds.toFixed(1)} s; ${besides(job).toFixed(2)} s besides the engine`,
      });
    }
  },
};

/** Seconds from submit to the end that were not the engine's. */
function besides(job: Job): number {
  const at = (time: Job['createdAt']) => Number(time!.seconds) + time!.nanos / 1e9;
  return at(job.finishedAt) - at(job.createdAt) - job.timings!.runSeconds;
}
