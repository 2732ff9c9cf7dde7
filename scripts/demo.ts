// `npm run demo`: the service's main job, from nothing, in front of your eyes. Makes the sample media, starts a service of its own on a free
// port, swaps a face in a picture and in a clip with sound, shows both live, and leaves the results. Ends with 0 only if both are there.
import { mkdir, rm } from 'node:fs/promises';
import { dirname, extname, join, relative } from 'node:path';
import { CachePolicy } from '../gen/facefusion/jobs/v1/job_pb.js';
import { showPhases } from '../src/cli/local/phases.ts';
import { workerPython } from '../src/cli/local/python.ts';
import { connect, type Service } from '../src/cli/remote/client.ts';
import { CliError, Exit } from '../src/cli/remote/errors.ts';
import { download } from '../src/cli/remote/media.ts';
import { NOTHING_YET, type Progress, SILENT, showProgress, showView, size, withEvent } from '../src/cli/remote/progress.ts';
import { targetField } from '../src/cli/remote/request.ts';
import type { Terminal } from '../src/cli/remote/terminal.ts';
import { callTexts } from './calls.ts';
import { makeInputs } from './cluster/region.ts';
import { runScript } from './cluster/run-script.ts';
import { type ServiceProcess, startServiceProcess } from './cluster/service-process.ts';

const ROOT = join(import.meta.dirname, '..');
/** The default input root of `npm start`, so that the calls printed at the end work there as they stand. */
const INPUT = join(ROOT, 'data', 'input');
const DATA = join(ROOT, 'data', 'demo');
const LOG = join(DATA, 'service.log');
const SOURCE = 'demo/eileen_collins.jpg';
const PICTURE = 'demo/grace_hopper.jpg';
const CLIP = 'demo/clip.mp4';
const DEFAULT_ADDRESS = 'http://127.0.0.1:8000';

const leaving = new AbortController();
const here = (path: string) => relative(process.cwd(), path) || path;

async function prepareMedia(phase: (text: string) => void): Promise<string> {
  const python = await workerPython({
    root: ROOT,
    given: process.env.FFJOBS_PYTHON || undefined,
    env: process.env,
    dev: false,
    signal: leaving.signal,
    report: phase,
  });
  phase('making the sample media');
  await makeInputs(python, dirname(join(INPUT, CLIP)), leaving.signal);
  await mkdir(DATA, { recursive: true });
  return python;
}

/** `ffjobs serve` with the defaults, as anybody would run it. */
async function startService(python: string): Promise<{ readonly service: ServiceProcess; readonly address: string }> {
  await rm(LOG, { force: true });
  const service = startServiceProcess({ settings: { DATA_DIR: DATA, INPUT_ROOT: INPUT, ENGINE: 'classical', PYTHON: python }, log: LOG });
  const address = await service.listening.catch((error: Error) => {
    throw new CliError(Exit.failed, error.message);
  });
  return { service, address };
}

/** One job from submit to the file; throws when it does not succeed. */
async function swap(service: Service, title: string, target: string, progress: Progress): Promise<string> {
  const line = progress.line(title.padEnd(7));
  const { job } = await service.jobs.submit({
    job: {
      sourceImages: [SOURCE],
      target: { case: targetField(target, undefined), value: target },
      parameters: { processors: ['face_swapper'] },
      labels: { demo: title },
      // Each run of the demo works, whatever an earlier one has left.
      cache: CachePolicy.OFF,
    },
  });
  const { jobId } = job!;
  let view = NOTHING_YET;
  for await (const event of service.watch(jobId, { signal: leaving.signal })) {
    view = withEvent(view, event);
    showView(line, view);
  }
  if (view.result === undefined)
    throw new CliError(
      Exit.failed,
      `${title} (${jobId}) did not succeed: ${view.error?.message ?? 'canceled'}; the service’s log is ${here(LOG)}`,
    );
  const path = join(DATA, `${title}${extname(target)}`);
  await download(service, jobId, path, SILENT.line(title), leaving.signal);
  const { width, height, frames, bytes, durationSeconds } = view.result;
  const length = durationSeconds > 0 ? `, ${durationSeconds.toFixed(1)} s, ${frames} frames` : '';
  return `  ${title.padEnd(8)} ${here(path)}  (${width}x${height}${length}, ${size(Number(bytes))})`;
}

async function main(): Promise<void> {
  const terminal: Pick<Terminal, 'err'> = { err: process.stderr };
  const { python, service } = await (async () => {
    using phases = showPhases(terminal);
    const python = await prepareMedia((phase) => phases.report(phase));
    phases.report('starting the service');
    return { python, service: await startService(python) };
  })();
  await using _ = service.service;
  using client = connect(service.address);
  console.log(`Service at ${service.address}, workers on ${here(python)}. A face from ${SOURCE} goes into a picture and a clip:\n`);
  const results = await (async () => {
    using progress = showProgress(terminal);
    return Promise.all([swap(client, 'picture', PICTURE, progress), swap(client, 'video', CLIP, progress)]);
  })();
  const texts = callTexts({ address: DEFAULT_ADDRESS, source: SOURCE, target: PICTURE, output: 'result.jpg' });
  console.log(`
Results:
${results.join('\n')}

The same call on a service of your own: start one with \`npm start\`, then

# curl
${texts.curl}

# grpcurl
${texts.grpcurl}

# TypeScript: save as swap.ts in this folder, run with \`node scripts/node24.mjs swap.ts\`
${texts.typescript}
`);
}

await runScript('demo', leaving, main);
