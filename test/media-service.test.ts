// Media by URL and the examination of inputs in the whole service, with the classical engine and real files.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ConfigError, readConfig } from '../src/config.ts';
import { type Json, restClient } from './api/clients.ts';
import { gate, untilTerminal } from './api/scenarios.ts';
import { python, ROOT, startService } from './api/service.ts';
import { picture, redirect, startOrigin, well } from './fixtures/media/origin.ts';

test('a job whose media are URLs fetches, examines, tells how far it is, and succeeds', async () => {
  await using origin = await startOrigin();
  const at = (path: string) => `http://127.0.0.1:${origin.port}${path}`;
  await using service = await startService({ ENGINE: 'classical', HTTP_ALLOW: `127.0.0.1:${origin.port}` });
  const face = await readFile(join(ROOT, 'samples', 'eileen_collins.jpg'));
  const target = await readFile(join(ROOT, 'samples', 'grace_hopper.jpg'));
  origin.on('/face', redirect('/face.jpg'));
  origin.on(
    '/face.jpg',
    well(() => face),
  );
  origin.on(
    '/target.png',
    well(() => target),
  );
  const client = restClient(service.baseUrl);

  const job = await client.submit({ source_images: [at('/face')], target_image: at('/target.png') });
  const events = await untilTerminal(client, job.job_id as string);
  const fetching = events.filter((event) => event.kind === 'progress' && (event.progress as Json).step === 'fetching_inputs');
  assert.ok(fetching.length > 0, JSON.stringify(events));
  const { bytes_done, bytes_total } = fetching.at(-1)!.progress as Json;
  assert.deepEqual([bytes_done, bytes_total], [String(face.length + target.length), String(face.length + target.length)]);
  const done = await client.get(job.job_id as string);
  assert.equal(done.status, 'succeeded', JSON.stringify(done.error));
  // By content, not by the name in the URL.
  assert.equal((done.result as Json).media_type, 'image/jpeg');

  const again = await client.submit({ source_images: [at('/face.jpg')], target_image: at('/target.png') });
  await untilTerminal(client, again.job_id as string);
  assert.equal((await client.get(again.job_id as string)).status, 'succeeded');
  assert.ok(origin.requests.findLast((request) => request.url === '/target.png')!.headers['if-none-match']);

  const refused = await client.submit({ source_images: [at('/none.jpg')], target_image: at('/target.png') });
  await untilTerminal(client, refused.job_id as string);
  const { status, error } = await client.get(refused.job_id as string);
  assert.deepEqual([status, (error as Json).reason, (error as Json).retryable], ['failed', 'INPUT_NOT_FOUND', false]);
  assert.match((error as Json).message as string, /^source_images\[0\]: /);

  await assert.rejects(
    client.submit({ source_images: ['http://169.254.169.254/'], target_image: 'ftp://example.com/a' }),
    (refusal: Error) => {
      const { violations } = refusal as unknown as { violations: { field: string }[] };
      assert.deepEqual(violations.map(({ field }) => field).sort(), ['source_images[0]', 'target_image']);
      return true;
    },
  );
});

test('the inputs of a job are fetched side by side, while another job has the slot', async () => {
  await using origin = await startOrigin();
  await using service = await startService({ HTTP_ALLOW: `127.0.0.1:${origin.port}`, SLOTS: '1' });
  const client = restClient(service.baseUrl);
  const running = gate(service.inputDir);
  const first = await client.submit({ source_images: ['face.jpg'], target_image: 'target.png', parameters: running.parameters });
  const paths = ['/target.jpg', '/one.jpg', '/two.jpg'];
  for (const path of paths) {
    // Each is answered when all have been asked for.
    origin.on(path, async (request, response) => {
      await Promise.all(paths.map((one) => origin.asked(one)));
      well(() => picture(100_000))(request, response);
    });
  }
  const [target, ...sources] = paths.map((path) => `http://127.0.0.1:${origin.port}${path}`);
  const { job_id } = await client.submit({ source_images: sources, target_image: target! });
  let fetched = false;
  for await (const event of client.watch(job_id as string)) {
    const progress = event.progress as Json | undefined;
    if (progress?.step !== 'fetching_inputs' || progress.bytes_done !== '300000') continue;
    fetched = true;
    break;
  }
  assert.ok(fetched);
  assert.equal((await client.get(first.job_id as string)).finished_at, null, 'the first one has the slot');
  await running.open();
  for (const id of [first.job_id, job_id]) await untilTerminal(client, id as string);
  assert.equal((await client.get(job_id as string)).status, 'succeeded');
});

test('what the examination refuses never reaches the engine', async () => {
  await using service = await startService({ ENGINE: 'classical', MAX_IMAGE_PIXELS: '200000' });
  await writeFile(join(service.inputDir, 'face.jpg'), await readFile(join(ROOT, 'samples', 'eileen_collins.jpg')));
  await writeFile(join(service.inputDir, 'clip.mp4'), '#EXTM3U\n/etc/passwd\n');
  await promisify(execFile)(python(), [
    '-c',
    'import sys, cv2, numpy; cv2.imwrite(sys.argv[1], numpy.zeros((400, 400, 3)))',
    join(service.inputDir, 'small.png'),
  ]);
  const client = restClient(service.baseUrl);
  for (const [target, reason] of [
    [{ target_video: 'clip.mp4' }, 'INPUT_NOT_READABLE'],
    [{ target_image: 'face.jpg' }, 'INPUT_TOO_LARGE'],
  ] as const) {
    const job = await client.submit({ source_images: ['small.png'], ...target });
    await untilTerminal(client, job.job_id as string);
    const { error, attempt } = await client.get(job.job_id as string);
    assert.deepEqual([(error as Json).reason, attempt], [reason, 0]);
  }
});

test('only an engine of one\u2019s own may go without the examination', () => {
  const read = (env: Record<string, string>) => readConfig(env, '/');
  assert.throws(() => read({ FFJOBS_PROBE: 'off' }), ConfigError);
  assert.throws(() => read({ FFJOBS_PROBE: 'off', FFJOBS_ENGINE: 'classical' }), /FFJOBS_PROBE=off is only for/);
  assert.equal(read({ FFJOBS_PROBE: 'off', FFJOBS_ENGINE: 'mine:Mine' }).probe, false);
  assert.equal(read({ FFJOBS_ENGINE: 'mine:Mine' }).probe, true);
});

test('hosts, buckets and endpoints are checked at start', () => {
  const good = readConfig(
    {
      FFJOBS_HTTP_ALLOW: 'minio:9000, 10.1.0.0/16,[fd00::5]:9000,::1,fd00::/8,cdn.example.com',
      FFJOBS_HTTP_INPUTS: 'https',
      FFJOBS_S3_BUCKETS: 'media,other-media',
      FFJOBS_S3_ENDPOINT: 'http://minio:9000',
      AWS_REGION: 'eu-central-1',
    },
    '/',
  );
  assert.deepEqual(good.httpSchemes, ['https']);
  assert.equal(good.httpAllow.length, 6);
  assert.equal(good.s3.region, 'eu-central-1');
  for (const [name, value] of [
    ['HTTP_ALLOW', 'http://minio'],
    ['HTTP_ALLOW', '10.0.0.0/40'],
    ['HTTP_ALLOW', 'a b'],
    ['S3_BUCKETS', 's3://media'],
    ['S3_ENDPOINT', 'minio:9000'],
    ['HTTP_CACHE_BYTES', 'none'],
  ]) {
    assert.throws(() => readConfig({ [`FFJOBS_${name}`]: value }, '/'), new RegExp(`FFJOBS_${name}`), value);
  }
});
