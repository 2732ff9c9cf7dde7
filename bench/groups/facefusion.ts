// The real FaceFusion three ways, in turns within one run: its command line for each job, the program called directly in one warm process, and the
// service. Models are made for tests, so that what is measured is everything but inference. And two slots beside one.
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { create, type JsonObject } from '@bufbuild/protobuf';
import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt';
import { type Job, type JobRequest, JobRequestSchema, JobStatus, JobStep } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { checkouts, HOW, makePicture, makeTestHome, makeVideo, type TestHome } from '../../test/fixtures/facefusion/checkout.ts';
import type { Bench } from '../bench.ts';
import { interleaved, median, notRun, percentile, type Row, rowOf } from '../figures.ts';
import { Process } from '../processes.ts';
import { Service, TARGET } from '../service.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const SOURCE = 'eileen_collins.jpg';
const PICTURE = 'picture.jpg';
const CLIP = 'clip.mp4';
const CLIP_SECONDS = 5;
const LIKE_JOBS = 5;
/** As `synthetic_models.py` makes it: one inference takes long. */
const SLOW_MODEL = 'ghost_1_256';

/** A run of one job; answers its seconds by the clock. */
type Contestant = (target: string) => Promise<number>;

export async function* facefusionRows(bench: Bench): AsyncIterable<Row> {
  yield* imitated(bench);
  const [checkout] = checkouts();
  if (!checkout) {
    yield notRun('engine', 'FaceFusion: a picture and a video', HOW.replace('machine: ', ''));
    return;
  }
  using home = makeTestHome(checkout);
  const dataDir = bench.folder();
  const input = join(dataDir, 'input');
  mkdirSync(input, { recursive: true });
  copyFileSync(join(ROOT, 'samples', SOURCE), join(input, SOURCE));
  makePicture(join(input, PICTURE));
  makeVideo(join(input, CLIP), CLIP_SECONDS);

  await using direct = await Direct.start(home, input, bench.folder());
  const commandLine = commandLineOf(home, input, bench.folder());
  {
    await using service = await start(home, dataDir, 1);
    const through: Contestant = async (target) => secondsOf(await submit(service, target));
    bench.say('a picture: the service, the program directly, its command line');
    for (const contestant of [through, direct.run]) for (let i = 0; i < 3; i++) await contestant(PICTURE);
    const pictures = await interleaved(12, { service: () => through(PICTURE), direct: () => direct.run(PICTURE) });
    const commands = await interleaved(3, { command: () => commandLine(PICTURE), service: () => through(PICTURE) });
    const [ours, theirs, command] = [median(pictures.service), median(pictures.direct), median(commands.command)];
    yield rowOf('engine', {
      name: 'FaceFusion, a warm picture',
      figure: median(commands.service),
      unit: 's',
      peer: { name: 'its command line', figure: command },
      target: { kind: 'at most times peer', value: 0.2 },
      note: `at least 5 times faster is asked; ${(command / median(commands.service)).toFixed(1)} times`,
    });
    yield rowOf('engine', {
      name: 'FaceFusion, a warm picture: what the service adds',
      figure: (ours - theirs) * 1000,
      unit: 'ms',
      target: { kind: 'at most', value: 30 },
      note: `${(ours * 1000).toFixed(0)} ms from submit to succeeded, ${(theirs * 1000).toFixed(0)} ms for the program called directly`,
    });

    bench.say('a video of 5 s: the service, the program directly, its command line');
    for (const contestant of [through, direct.run]) await contestant(CLIP);
    const videos = await interleaved(LIKE_JOBS - 1, { service: () => through(CLIP), direct: () => direct.run(CLIP) });
    const once = await commandLine(CLIP);
    yield rowOf('engine', {
      name: 'FaceFusion, a video of 5 s (640x360)',
      figure: median(videos.service),
      unit: 's',
      peer: { name: 'the program directly', figure: median(videos.direct) },
      target: { kind: 'at most times peer', value: 1.05 },
      note: `its command line: ${once.toFixed(1)} s`,
    });
    const errors = [...(await percentErrors(service)), ...(await percentErrors(service))];
    yield rowOf('engine', {
      name: 'FaceFusion, error of percent after five like videos',
      figure: errors.reduce((sum, one) => sum + one, 0) / errors.length,
      unit: 'points',
      target: { kind: 'at most', value: 5 },
      note: 'mean distance of percent from the share of the time that had passed',
    });
    yield await canceledFirstLoads(bench, service);
    yield await canceled(bench, service, median(videos.service));
  }

  bench.say('two videos at once: one slot, two slots');
  const alone = await pair(home, bench, dataDir, 1);
  const both = await pair(home, bench, dataDir, 2);
  yield rowOf('engine', {
    name: 'FaceFusion, two videos on two slots of one machine',
    figure: both,
    unit: 's',
    peer: { name: 'one slot', figure: alone },
    note: 'on the processor alone, which both share',
  });
}

/** Each of these loads models that no job before has loaded. */
const PROCESSORS = [
  'face_enhancer',
  'frame_colorizer',
  'expression_restorer',
  'face_editor',
  'age_modifier',
  'deep_swapper',
  'background_remover',
];

/**
 * A first load apart from all else: onnxruntime breaks it off between two of its steps, of which reading a file is one, so that this follows the disk and the
 * size of models, and those made for tests are small. Nothing is computed meanwhile.
 */
async function canceledFirstLoads(bench: Bench, service: Service): Promise<Row> {
  const processors = PROCESSORS.slice(0, bench.pick(PROCESSORS.length, 2));
  bench.say(`${processors.length} cancels while models are loaded for the first time`);
  const times: number[] = [];
  for (const processor of processors) {
    const ms = await cancelMs(service, PICTURE, { processors: [processor] }, 5);
    if (ms !== undefined) times.push(ms);
  }
  // The row after this one finds it loaded.
  await cancelMs(service, PICTURE, { face_swapper_model: SLOW_MODEL }, 0, JobStep.PROCESSING);
  const [load] = loadavg();
  return rowOf('engine', {
    name: 'FaceFusion, cancel while a model is loaded for the first time, slowest',
    figure: Math.max(...times),
    unit: 'ms',
    target: { kind: 'at most', value: 500 },
    note: `p50 ${percentile(times, 50).toFixed(0)} ms; ${times.length} cancels; load average ${load!.toFixed(1)} of ${availableParallelism()} cores`,
  });
}

/**
 * Cancels at even distances over the whole of a run, so that each step has its share: from the call to `canceled`, which is written when the worker has
 * nothing left to run. Those that a run's end overtook are made up for.
 */
async function canceled(bench: Bench, service: Service, clipSeconds: number): Promise<Row> {
  const kinds: readonly { readonly target: string; readonly parameters: JsonObject; readonly seconds: number }[] = [
    { target: PICTURE, parameters: {}, seconds: 0.3 },
    { target: CLIP, parameters: { workflow_strategy: 'memory' }, seconds: clipSeconds },
    { target: CLIP, parameters: { workflow_strategy: 'disk' }, seconds: 1.5 * clipSeconds },
    { target: PICTURE, parameters: { face_swapper_model: SLOW_MODEL }, seconds: 3 },
  ];
  const each = bench.pick(25, 2);
  bench.say(`${each * kinds.length} cancels`);
  const times: number[] = [];
  let late = 0;
  for (let i = 0; i < each; i++) {
    for (const { target, parameters, seconds } of kinds) {
      const ms = await cancelMs(service, target, parameters, (1000 * seconds * i) / each);
      if (ms === undefined) late++;
      else times.push(ms);
    }
  }
  const [load] = loadavg();
  return rowOf('engine', {
    name: 'FaceFusion, cancel until nothing runs, p99',
    figure: percentile(times, 99),
    unit: 'ms',
    target: { kind: 'at most', value: 500 },
    note:
      `p50 ${percentile(times, 50).toFixed(0)} ms; ${times.length} cancels over the whole of pictures, videos in memory and over the disk, and a long inference; ` +
      `${late} came after the end; load average ${load!.toFixed(1)} of ${availableParallelism()} cores`,
  });
}

/** Undefined: the job ended before. `afterMs`: from the begin of its run, or of a step of it. */
async function cancelMs(
  service: Service,
  target: string,
  parameters: JsonObject,
  afterMs: number,
  step?: JobStep,
): Promise<number | undefined> {
  const { jobs } = service.clients();
  const { job } = await jobs.submit({ job: requestOf(target, parameters) });
  const { jobId } = job!;
  let asked: number | undefined;
  let asking: Promise<unknown> | undefined;
  let timer: NodeJS.Timeout | undefined;
  const cancel = () => {
    asked = performance.now();
    asking = jobs.cancel({ jobId });
  };
  try {
    for await (const { event } of jobs.watch({ jobId })) {
      const said = event?.event;
      // It may run before it is watched.
      const status = said?.case === 'snapshot' ? said.value.job!.status : said?.case === 'state' ? said.value.status : undefined;
      const begun = step === undefined ? status === JobStatus.PROCESSING : said?.case === 'progress' && said.value.step === step;
      if (begun) timer ??= setTimeout(cancel, afterMs);
      if (status === JobStatus.CANCELED) return performance.now() - asked!;
    }
    return undefined;
  } finally {
    clearTimeout(timer);
    await asking;
  }
}

/** Where the GPU is the only thing that takes time, two of them take half of it. */
async function* imitated(bench: Bench): AsyncIterable<Row> {
  bench.say('two videos on two imitated GPUs');
  const seconds = async (slots: number) => {
    await using service = await Service.start({ dataDir: bench.folder(), engine: 'waiting:Waiting', settings: { SLOTS: `${slots}` } });
    return await together(service, TARGET, { frames: 125, frame_seconds: 0.03 });
  };
  const times = await interleaved(3, { one: () => seconds(1), two: () => seconds(2) });
  yield rowOf('engine', {
    name: 'two videos on two slots, the GPU imitated by waiting',
    figure: median(times.two),
    unit: 's',
    peer: { name: 'one slot', figure: median(times.one) },
    target: { kind: 'at most times peer', value: 0.55 },
  });
}

function start(home: TestHome, dataDir: string, slots: number): Promise<Service> {
  const { FACEFUSION_HOME, FACEFUSION_PYTHON, TEST_SYNTHETIC_MODELS } = home.settings as Record<string, string>;
  return Service.start({
    dataDir,
    engine: 'facefusion',
    settings: { TEST_SYNTHETIC_MODELS: TEST_SYNTHETIC_MODELS!, SLOTS: `${slots}` },
    env: { FACEFUSION_HOME: FACEFUSION_HOME!, FACEFUSION_PYTHON: FACEFUSION_PYTHON!, FACEFUSION_EXECUTION_PROVIDERS: 'cpu' },
  });
}

function requestOf(target: string, parameters: JsonObject): JobRequest {
  const sourceImages = target === TARGET ? [] : [SOURCE];
  const kind = target === PICTURE || target === TARGET ? 'targetImage' : 'targetVideo';
  return create(JobRequestSchema, { sourceImages, target: { case: kind, value: target }, parameters });
}

async function submit(service: Service, target: string, parameters: JsonObject = {}): Promise<Job> {
  const { jobs } = service.clients();
  const { job } = await jobs.submit({ job: requestOf(target, parameters) });
  for await (const { event } of jobs.watch({ jobId: job!.jobId })) void event;
  const ended = (await jobs.get({ jobId: job!.jobId })).job!;
  if (ended.status !== JobStatus.SUCCEEDED) throw new Error(`${target}: ${ended.errorMessage}`);
  return ended;
}

const ms = (time: Timestamp | undefined) => timestampMs(time!);

function secondsOf(job: Job): number {
  return (ms(job.finishedAt) - ms(job.createdAt)) / 1000;
}

/** Seconds from the first of two jobs' submission to the end of the last. */
async function together(service: Service, target: string, parameters: JsonObject = {}): Promise<number> {
  const settled = await Promise.allSettled([submit(service, target, parameters), submit(service, target, parameters)]);
  const jobs = settled.map((one) => {
    if (one.status === 'rejected') throw one.reason;
    return one.value;
  });
  return (Math.max(...jobs.map((job) => ms(job.finishedAt))) - Math.min(...jobs.map((job) => ms(job.createdAt)))) / 1000;
}

async function pair(home: TestHome, bench: Bench, inputs: string, slots: number): Promise<number> {
  const dataDir = bench.folder();
  mkdirSync(join(dataDir, 'input'), { recursive: true });
  for (const name of [SOURCE, CLIP]) copyFileSync(join(inputs, 'input', name), join(dataDir, 'input', name));
  await using service = await start(home, dataDir, slots);
  await together(service, CLIP);
  return await together(service, CLIP);
}

/** Of each progress event of a video: how far its percent is from the share of the run's time that had passed. */
async function percentErrors(service: Service): Promise<number[]> {
  const { jobs } = service.clients();
  const request = create(JobRequestSchema, { sourceImages: [SOURCE], target: { case: 'targetVideo', value: CLIP } });
  const { job } = await jobs.submit({ job: request });
  const said: { at: number; percent: number }[] = [];
  for await (const { event } of jobs.watch({ jobId: job!.jobId })) {
    if (event?.event.case === 'progress' && event.event.value.percent > 0)
      said.push({ at: ms(event.time), percent: event.event.value.percent });
  }
  const ended = (await jobs.get({ jobId: job!.jobId })).job!;
  const began = ms(ended.startedAt);
  const whole = ended.timings!.runSeconds * 1000;
  return said.map(({ at, percent }) => Math.abs(percent - Math.min(100, (100 * (at - began)) / whole)));
}

/** `facefusion.py headless-run` (4: `run`), as a person would type it. */
function commandLineOf(home: TestHome, input: string, folder: string): Contestant {
  let count = 0;
  return async (target) => {
    const work = join(folder, `${++count}`);
    mkdirSync(work);
    const output = join(work, target);
    const files = ['-s', join(input, SOURCE), '-t', join(input, target), '-o', output];
    const places = ['--temp-path', work, '--jobs-path', join(work, 'jobs')];
    const choices = ['--output-audio-encoder', 'aac', '--execution-providers', 'cpu', '--download-providers', 'github'];
    const began = performance.now();
    const child = new Process('FaceFusion', home.python, ['facefusion.py', home.command, ...files, ...places, ...choices], {
      cwd: home.path,
      stdio: 'ignore',
    });
    await new Promise((resolve) => child.child.once('close', resolve));
    if (child.child.exitCode !== 0) throw new Error(`FaceFusion's command line ended with ${child.child.exitCode}`);
    const seconds = (performance.now() - began) / 1000;
    rmSync(work, { recursive: true, force: true });
    return seconds;
  };
}

/** The program in one warm process of its own: `peers/facefusion/direct.py`. */
class Direct implements AsyncDisposable {
  readonly #process: Process;
  readonly #lines: Interface;
  readonly #input: string;
  readonly #folder: string;
  #count = 0;

  private constructor(process: Process, lines: Interface, input: string, folder: string) {
    this.#process = process;
    this.#lines = lines;
    this.#input = input;
    this.#folder = folder;
  }

  static async start(home: TestHome, input: string, folder: string): Promise<Direct> {
    const process = new Process('FaceFusion', home.python, [join(ROOT, 'bench', 'peers', 'facefusion', 'direct.py')], {
      cwd: home.path,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const direct = new Direct(process, createInterface({ input: process.child.stdout! }), input, folder);
    await direct.#next();
    return direct;
  }

  readonly run: Contestant = async (target) => {
    const work = join(this.#folder, `${++this.#count}`);
    mkdirSync(work);
    for (const name of [SOURCE, target]) copyFileSync(join(this.#input, name), join(work, name));
    const job = {
      source: join(work, SOURCE),
      target: join(work, target),
      output: join(work, `out-${target}`),
      temp: work,
      provider: 'cpu',
    };
    this.#process.child.stdin!.write(`${JSON.stringify(job)}\n`);
    const { code, seconds } = JSON.parse(await this.#next()) as { code: number; seconds: number };
    if (code !== 0) throw new Error(`FaceFusion called directly answers ${code}`);
    rmSync(work, { recursive: true, force: true });
    return seconds;
  };

  #next(): Promise<string> {
    return new Promise((resolve, reject) => {
      const ended = (code: number | null) => reject(new Error(`FaceFusion called directly ended with ${code}`));
      this.#process.child.once('exit', ended);
      this.#lines.once('line', (line) => {
        this.#process.child.off('exit', ended);
        resolve(line);
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lines.close();
    await this.#process.stop();
  }
}
