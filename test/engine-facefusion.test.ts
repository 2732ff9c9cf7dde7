// The real FaceFusion behind the real service, with models made for tests: what a caller sees of it, over REST and gRPC. Needs a checkout; without one
// there is nothing to run, and the skip says how to get it.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Client, grpcClient, type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { python, ROOT, type Service, startService } from './api/service.ts';
import {
  checkouts,
  HOW,
  makePicture,
  makeTestHome,
  makeVideo,
  openPython,
  openToAll,
  type TestHome,
} from './fixtures/facefusion/checkout.ts';
import { makeTrial } from './fixtures/provenance/trial.ts';

/** Choices of face_swapper_model that go wrong, as `synthetic_models.py` makes them. */
const SLOW = 'ghost_1_256';
const GREEDY = 'ghost_2_256';
const ABSENT = 'blendswap_256';

// `npm run test:engine` runs all of this, on a second checkout too; other runs take what is quick, on the first.
const full = process.env.FACEFUSION_TESTS === 'full';
const longer = full ? false : 'machine: the longer tests with FaceFusion run by `npm run test:engine`';
const found = checkouts().slice(0, full ? 2 : 1);
if (found.length === 0) test('the real FaceFusion', { skip: HOW }, () => {});

for (const checkout of found) {
  describe(`FaceFusion ${checkout.name}`, { timeout: full ? 900_000 : 280_000 }, () => {
    let home: TestHome;
    let service: Service;
    let rest: Client;
    let grpc: Client;

    before(async () => {
      home = makeTestHome(checkout);
      service = await startService(home.settings, { env: { ...process.env, SECRET_OF_THE_SERVICE: 'hidden' } });
      rest = restClient(service.baseUrl);
      grpc = await grpcClient(service.baseUrl);
      copyFileSync(join(ROOT, 'samples', 'eileen_collins.jpg'), join(service.inputDir, 'source.jpg'));
      makePicture(join(service.inputDir, 'target.png'));
      makePicture(join(service.inputDir, 'green.png'), '0x00ff00');
      makePicture(join(service.inputDir, 'unfit.png'), '0xff00ff');
      makeVideo(join(service.inputDir, 'clip.mp4'), 0.6);
      makeVideo(join(service.inputDir, 'longer.mp4'), 2);
    });
    after(async () => {
      grpc?.close();
      await service?.[Symbol.asyncDispose]();
      home?.[Symbol.dispose]();
    });

    const picture = (parameters: Json = {}, more: Json = {}): Json => ({
      source_images: ['source.jpg'],
      target_image: 'target.png',
      parameters,
      ...more,
    });
    const video = (parameters: Json = {}, more: Json = {}): Json => ({
      source_images: ['source.jpg'],
      target_video: 'clip.mp4',
      parameters,
      ...more,
    });
    const ended = async (client: Client, job: Json) => {
      const { job_id } = await client.submit(job);
      const events = await untilTerminal(client, job_id as string);
      return { job: await client.get(job_id as string), events };
    };
    const writesFrames = async () => ((await rest.capabilities()).video_formats as string[]).includes('zip');
    const pid = () => service.app.scheduler!.slots()[0]!.pid!;

    test('is what the service says that it runs on', async () => {
      const ready = (await (await fetch(new URL('/readyz', service.baseUrl))).json()) as Json;
      assert.equal(ready.engine, 'facefusion');
      assert.ok(service.logs.some((line) => line.engine === 'facefusion' && line.home === home.path));
      for (const client of [rest, grpc]) {
        const capabilities = await client.capabilities();
        assert.deepEqual([(capabilities.engine as Json).name, (capabilities.engine as Json).version], ['facefusion', ready.engine_version]);
        const options = capabilities.options as Json[];
        assert.ok(options.length >= 82);
        const boost = options.find(({ name }) => name === 'face_swapper_pixel_boost')!;
        const rule = (boost.dependent_choices as Json[]).find(({ value }) => value === 'simswap_unofficial_512')!;
        assert.deepEqual([rule.option, rule.choices], ['face_swapper_model', ['512x512', '768x768', '1024x1024']]);
        assert.ok(!options.some(({ name }) => name === 'execution_providers'));
      }
    });

    test('checks its options before a job is taken, those too that depend on others', async () => {
      const { violations } = await rest.validate(
        picture({
          face_swapper_model: 'simswap_unofficial_512',
          face_swapper_pixel_boost: '256x256',
          output_path: '/x',
          face_swaper_weight: 1,
        }),
      );
      assert.deepEqual((violations as Json[]).map(({ field, reason }) => `${field} ${reason}`).sort(), [
        'parameters.face_swaper_weight UNKNOWN_OPTION',
        'parameters.face_swapper_pixel_boost NOT_A_CHOICE',
        'parameters.output_path OPERATOR_OPTION',
      ]);
      // Its default does not fit this model: what does is the engine's affair.
      const { job } = await ended(rest, picture({ face_swapper_model: 'simswap_unofficial_512' }));
      assert.equal(job.status, 'succeeded', String(job.error_message));
    });

    test('swaps a picture, over REST and over gRPC, and gives the same bytes', async () => {
      const results: Buffer[] = [];
      for (const client of [rest, grpc]) {
        const { job } = await ended(client, picture());
        assert.equal(job.status, 'succeeded', String(job.error_message));
        assert.deepEqual([(job.engine as Json).name, job.attempt], ['facefusion', 1]);
        const { media_type, width, height, frames } = job.result as Json;
        assert.deepEqual([media_type, width, height, frames], ['image/png', 640, 360, 1]);
        results.push(Buffer.from(await (await fetch(await client.result(job.job_id as string))).arrayBuffer()));
      }
      assert.equal(results[0]!.subarray(1, 4).toString(), 'PNG');
      assert.ok(results[0]!.equals(results[1]!));
      assert.ok(!results[0]!.equals(readFileSync(join(service.inputDir, 'target.png'))));
    });

    test('swaps a video with its sound, with steps, frames and previews on the way', async () => {
      for (const client of [rest, grpc]) {
        const { job, events } = await ended(client, video({ output_audio_encoder: 'flac' }, { previews: true }));
        assert.equal(job.status, 'succeeded', String(job.error_message));
        const { media_type, width, height, frames, duration_seconds } = job.result as Json;
        assert.deepEqual([media_type, width, height, frames], ['video/mp4', 640, 360, 15]);
        assert.ok(Math.abs(Number(duration_seconds) - 0.6) < 0.1);
        assert.deepEqual(job.warnings, ['output_audio_encoder flac does not fit mp4: aac is used']);
        const progress = events.filter(({ kind }) => kind === 'progress').map((event) => event.progress as Json);
        const steps = [...new Set(progress.map(({ step }) => step))];
        assert.ok(steps.includes('analysing') && steps.includes('processing'), steps.join());
        assert.ok(progress.some(({ frames_total }) => frames_total === 15));
        const percents = progress.map(({ percent }) => Number(percent));
        assert.deepEqual(
          percents,
          percents.toSorted((a, b) => a - b),
        );
        const preview = events.findIndex(({ kind }) => kind === 'preview');
        assert.ok(preview > 0);
        assert.ok(!events.slice(preview).some((event) => (event.progress as Json | undefined)?.step === 'analysing'));
      }
    });

    test('stops inside a long inference, and the worker is warm for the next job', async () => {
      const worker = pid();
      const { job_id } = await rest.submit(picture({ face_swapper_model: SLOW }));
      for await (const event of rest.watch(job_id as string)) {
        if ((event.progress as Json | undefined)?.step === 'processing') await rest.cancel(job_id as string);
      }
      const job = await rest.get(job_id as string);
      assert.equal(job.status, 'canceled');
      assert.equal((await ended(grpc, picture())).job.status, 'succeeded');
      assert.equal(pid(), worker);
    });

    test('a worker that is killed in the middle: its job runs once more, and nothing of the first time is left', {
      skip: longer,
    }, async () => {
      for (const step of ['analysing', 'processing', 'restoring_audio']) {
        const wanted = video({ workflow_strategy: 'disk' }, { target_video: 'longer.mp4', cache: 'off' });
        const { job_id } = await rest.submit(wanted);
        let killed: number | undefined;
        for await (const event of rest.watch(job_id as string)) {
          if (killed !== undefined || (event.progress as Json | undefined)?.step !== step) continue;
          killed = pid();
          process.kill(killed, 'SIGKILL');
        }
        const job = await rest.get(job_id as string);
        assert.ok(killed, `${step} was never said`);
        assert.equal(job.status, 'succeeded', `${step}: ${job.error_message}`);
        // Its last step may be over before anybody hears of it.
        assert.ok(job.attempt === 2 || (step === 'restoring_audio' && job.attempt === 1), `${step}: attempt ${job.attempt}`);
        assert.equal((job.result as Json).frames, 50);
      }
      assertEmpty(service);
    });

    test('a storm of cancels over REST and gRPC: each job ends once, and the worker stays', { skip: longer }, async () => {
      assert.equal((await ended(rest, picture())).job.status, 'succeeded');
      const worker = pid();
      const jobs = await Promise.all(
        Array.from({ length: 10 }, (_, i) =>
          rest.submit(video({ workflow_strategy: i % 2 ? 'disk' : 'memory' }, { target_video: 'longer.mp4', cache: 'off' })),
        ),
      );
      const ids = jobs.map(({ job_id }) => job_id as string);
      await Promise.all(ids.flatMap((id) => [rest.cancel(id), grpc.cancel(id), rest.cancel(id)]));
      for (const id of ids) {
        await untilTerminal(grpc, id);
        assert.equal((await rest.get(id)).status, 'canceled');
      }
      assert.equal((await ended(rest, picture({}, { cache: 'off' }))).job.status, 'succeeded');
      assert.equal(pid(), worker);
      assertEmpty(service);
    });

    test('the frames of a video are one archive, where the release writes them', async () => {
      const wanted = video({}, { output_format: 'zip' });
      if (!(await writesFrames())) {
        assert.match(String(((await rest.capabilities()).engine as Json).version), /^3\.8/, 'only 3.8 has no such mode');
        const { violations } = await rest.validate(wanted);
        assert.deepEqual(
          (violations as Json[]).map(({ field, reason }) => [field, reason]),
          [['output_format', 'NOT_A_CHOICE']],
        );
        return;
      }
      const { job } = await ended(rest, wanted);
      assert.equal(job.status, 'succeeded', String(job.error_message));
      const { media_type, width, height, frames } = job.result as Json;
      assert.deepEqual([media_type, width, height, frames], ['application/zip', 640, 360, 15]);
      const answer = await fetch(await rest.result(job.job_id as string));
      assert.equal(answer.headers.get('content-type'), 'application/zip');
      assert.match(answer.headers.get('content-disposition')!, new RegExp(`^attachment; filename="${job.job_id}\\.zip"`));
      assert.equal(Buffer.from(await answer.arrayBuffer()).toString('latin1', 0, 4), 'PK\u0003\u0004');
      await assert.rejects(grpc.submit(picture({}, { target_image: `job://${job.job_id}` })), /an archive of frames|INVALID_ARGUMENT/);
    });

    test('its analyser refuses: no failure, no second attempt, nothing shown', async () => {
      const { job, events } = await ended(rest, picture({}, { target_image: 'unfit.png', previews: true, max_attempts: 3 }));
      assert.deepEqual([job.status, (job.error as Json).reason, job.attempt, job.result], ['refused', 'CONTENT_REFUSED', 1, null]);
      assert.ok(!events.some(({ kind }) => kind === 'preview'));
    });

    test('no face, and a model that is not there, have a name', async () => {
      for (const [job, reason, words] of [
        [picture({}, { target_image: 'green.png' }), 'NO_FACE_IN_TARGET', /No face/],
        [picture({}, { source_images: ['green.png'] }), 'NO_FACE_IN_SOURCE', /No face/],
        [picture({ face_swapper_model: ABSENT }), 'MODEL_MISSING', /blendswap_256 .*`ffjobs engine warm`/],
      ] as const) {
        const { job: failed } = await ended(rest, job);
        assert.deepEqual([failed.status, (failed.error as Json).reason, failed.attempt], ['failed', reason, 1]);
        assert.match(String(failed.error_message), words);
      }
    });

    test('memory that runs out: once more with little, then failed; each on a fresh worker', async () => {
      const worker = pid();
      const { job, events } = await ended(rest, picture({ face_swapper_model: GREEDY }, { max_attempts: 5 }));
      assert.deepEqual([job.status, (job.error as Json).reason, job.attempt], ['failed', 'GPU_OUT_OF_MEMORY', 2]);
      assert.ok(events.some((event) => /takes as little as it can/.test(String((event.log as Json | undefined)?.message))));
      const { job: next } = await ended(rest, picture());
      assert.equal(next.status, 'succeeded');
      assert.notEqual(pid(), worker);
    });

    test('its process knows nothing of the service’s environment, and leaves nothing behind', async () => {
      const variables = readFileSync(`/proc/${pid()}/environ`, 'utf8').split('\0');
      const names = variables.map((line) => line.split('=')[0]);
      assert.ok(!names.includes('SECRET_OF_THE_SERVICE'));
      assert.ok(names.includes('FACEFUSION_HOME') && names.includes('FFJOBS_STEP_WEIGHTS'));
      const path = variables.find((line) => line.startsWith('PYTHONPATH='));
      assert.equal(path, `PYTHONPATH=${join(ROOT, 'worker')}`);
      assertEmpty(service);
      assert.ok(readFileSync(join(service.dir, 'step-weights.json'), 'utf8').includes('face_swapper'));
    });

    test('a process for each job: the same picture, the same outcomes', { skip: longer }, async () => {
      await using other = await startService({ ...home.settings, ENGINE_MODE: 'subprocess' });
      for (const name of ['source.jpg', 'target.png', 'unfit.png']) copyFileSync(join(service.inputDir, name), join(other.inputDir, name));
      const client = restClient(other.baseUrl);
      const done = await ended(client, picture());
      assert.deepEqual([done.job.status, (done.job.engine as Json).name], ['succeeded', 'facefusion']);
      const same = await ended(rest, picture());
      assert.equal((done.job.result as Json).sha256, (same.job.result as Json).sha256);
      assert.equal((await ended(client, picture({}, { target_image: 'unfit.png' }))).job.status, 'refused');
    });

    test('results are marked as made by AI, and read back by the real library', { skip: longer }, async (t) => {
      const trial = await makeTrial();
      t.after(() => trial[Symbol.asyncDispose]());
      const marks = { PROVENANCE: 'c2pa', PROVENANCE_PYTHON: python(), PROVENANCE_LABEL: 'AI-generated', ...trial.settings };
      await using other = await startService({ ...home.settings, ...marks });
      for (const name of ['source.jpg', 'target.png', 'clip.mp4']) copyFileSync(join(service.inputDir, name), join(other.inputDir, name));
      const plain = (await ended(rest, video())).job.result as Json;
      for (const [wanted, mediaType] of [
        [picture(), 'image/png'],
        [picture({}, { output_format: 'jpg' }), 'image/jpeg'],
        [picture({}, { output_format: 'webp' }), 'image/webp'],
        [video(), 'video/mp4'],
        [video({}, { output_format: 'mov' }), 'video/quicktime'],
        [video({}, { output_format: 'webm' }), 'video/webm'],
        ...((await writesFrames()) ? [[video({}, { output_format: 'zip' }), 'application/zip'] as const] : []),
      ] as const) {
        const client = restClient(other.baseUrl);
        const { job } = await ended(client, wanted);
        assert.equal(job.status, 'succeeded', `${mediaType}: ${job.error_message}`);
        const result = job.result as Json;
        assert.deepEqual([result.media_type, result.width, result.height], [mediaType, 640, 360]);
        if (mediaType.startsWith('video/'))
          assert.deepEqual([result.frames, result.duration_seconds], [plain.frames, plain.duration_seconds]);
        const told = (await (await fetch(new URL(`/api/v1/jobs/${job.job_id}/provenance`, other.baseUrl))).json()) as Json;
        const mark = told.provenance as Json;
        assert.match(String(mark.digital_source_type), /\/compositeWithTrainedAlgorithmicMedia$/);
        assert.deepEqual(
          [mark.mark, mark.label, mark.xmp, mark.validation_state],
          [
            ...(['video/webm', 'application/zip'].includes(mediaType)
              ? ['sidecar', 'AI-generated', false]
              : ['embedded', 'AI-generated', true]),
            'Trusted',
          ],
        );
        const path = join(trial.dir, `result-${String(job.job_id)}`);
        writeFileSync(path, Buffer.from(await (await fetch(await client.result(job.job_id as string))).arrayBuffer()));
        const found = await trial.verify(path, mediaType, mark.sidecar as string);
        assert.equal(found.validation_state, 'Trusted');
        const said = JSON.stringify(found.manifests[mark.manifest as string]);
        assert.match(said, new RegExp(`"facefusion".*"${(job.engine as Json).version}"|"${(job.engine as Json).version}".*"facefusion"`));
        if (mediaType.startsWith('video/')) assert.deepEqual(streamsOf(path), ['audio', 'video']);
      }
    });

    const isolated = full ? (process.getuid?.() === 0 ? false : 'machine: only root may run workers as another user') : longer;
    test('runs as a user of its own, who can open nothing of the service’s', { skip: isolated, timeout: 240_000 }, async (t) => {
      const trial = await makeTrial();
      t.after(() => trial[Symbol.asyncDispose]());
      const folder = mkdtempSync(join(tmpdir(), 'ffjobs-apart-'));
      t.after(() => rmSync(folder, { recursive: true, force: true }));
      chmodSync(folder, 0o711);
      const data = join(folder, 'data');
      mkdirSync(join(data, 'input'), { recursive: true });
      // The umask is that of an isolated service once there has been one in this process.
      chmodSync(data, 0o711);
      for (const name of ['source.jpg', 'target.png', 'clip.mp4']) copyFileSync(join(service.inputDir, name), join(data, 'input', name));
      // This repository may lie where nobody else can go.
      const root = join(folder, 'package');
      cpSync(join(ROOT, 'worker', 'facefusion_worker'), join(root, 'worker', 'facefusion_worker'), { recursive: true });
      openToAll(root);
      openToAll(home.path);
      const apart = { WORKER_USER: 'nobody', FACEFUSION_PYTHON: openPython(home.python, join(folder, 'python')) };
      const marks = { PROVENANCE: 'c2pa', PROVENANCE_PYTHON: python(), ...trial.settings };
      const settings = { ...home.settings, ...apart, ...marks, DATA_DIR: data, CONSOLE: 'off' };
      await using other = await startService(settings, { root });
      const client = restClient(other.baseUrl);
      const worker = other.app.scheduler!.slots()[0]!.pid!;
      const uid = Number(execFileSync('id', ['-u', 'nobody'], { encoding: 'utf8' }));
      const user = statSync(`/proc/${worker}`).uid;
      assert.equal(user, uid);
      for (const wanted of [picture(), video({}, { previews: true }), video({ workflow_strategy: 'disk' })]) {
        const { job } = await ended(client, wanted);
        assert.equal(job.status, 'succeeded', String(job.error_message));
        assert.equal((job.provenance as Json).mark, 'embedded');
      }
      const { job_id } = await client.submit(picture({ face_swapper_model: SLOW }));
      for await (const event of client.watch(job_id as string)) {
        if ((event.progress as Json | undefined)?.step === 'processing') await client.cancel(job_id as string);
      }
      assert.equal((await client.get(job_id as string)).status, 'canceled');
      // Memory that runs out ends the worker; the next one is that user's too.
      const { job: failed } = await ended(client, picture({ face_swapper_model: GREEDY }));
      assert.equal((failed.error as Json).reason, 'GPU_OUT_OF_MEMORY');
      assert.equal((await ended(client, picture())).job.status, 'succeeded');
      const next = other.app.scheduler!.slots()[0]!.pid!;
      assert.notEqual(next, worker);
      assert.equal(statSync(`/proc/${next}`).uid, uid);
      const open = (path: string) => execFileSync('cat', [path], { uid, gid: uid, stdio: 'ignore' });
      for (const path of [other.config.storePath, trial.settings.PROVENANCE_KEY, join(data, 'input', 'source.jpg')]) {
        assert.throws(() => open(path), /Command failed/, path);
      }
      assert.deepEqual(
        readdirSync(join(data, 'work')).flatMap((name) => readdirSync(join(data, 'work', name, 'tmp'))),
        [],
      );
    });

    test('a service that is not under test does not start on models made for tests', async () => {
      const { TEST_SYNTHETIC_MODELS: _, ...earnest } = home.settings;
      const { startApp } = await import('../src/app.ts');
      const { readConfig } = await import('../src/config.ts');
      const env = { FACEFUSION_HOME: home.path, FACEFUSION_PYTHON: home.python, FFJOBS_PORT: '0', FFJOBS_METRICS_PORT: 'off' };
      const config = readConfig(
        { ...env, FFJOBS_DATA_DIR: join(service.dir, 'earnest'), FFJOBS_LOG_LEVEL: 'silent', FFJOBS_CONSOLE: 'off' },
        ROOT,
      );
      const app = await startApp({ ...config, python: earnest.PYTHON! }, { env: process.env, root: ROOT, version: '0', terminal: false });
      try {
        assert.match(await app.unfit, /was made for tests and is no model/);
        const ready = await fetch(new URL('/readyz', app.address));
        assert.equal(ready.status, 503);
        assert.match(String(((await ready.json()) as Json).reason), /was made for tests and is no model/);
      } finally {
        await app.close();
      }
    });
  });
}

/** No job that has ended has left a file. */
function assertEmpty(service: Service): void {
  for (const folder of readdirSync(join(service.dir, 'work'))) {
    assert.deepEqual(readdirSync(join(service.dir, 'work', folder)), ['tmp']);
    assert.deepEqual(readdirSync(join(service.dir, 'work', folder, 'tmp')), []);
  }
}

/** What ffprobe finds in a file, sorted. */
function streamsOf(path: string): string[] {
  const args = ['-v', 'error', '-show_entries', 'stream=codec_type', '-of', 'csv=p=0', path];
  return execFileSync('ffprobe', args, { encoding: 'utf8' }).trim().split('\n').toSorted();
}
