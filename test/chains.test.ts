// Jobs that take the results of others, in the whole service.
import assert from 'node:assert/strict';
import { copyFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { CallError, type Json, restClient } from './api/clients.ts';
import { gate, untilTerminal } from './api/scenarios.ts';
import { startService } from './api/service.ts';
import { PORTRAITS } from './fixtures/media/portraits.ts';

const reasons = (error: unknown) => {
  assert.ok(error instanceof CallError, String(error));
  return (error.violations as readonly { field: string; reason?: string }[]).map(({ field, reason }) => [field, reason]);
};
/** Output of the scripted engine that is taken for a picture. */
const PICTURE = { output: 'RIFF0000WEBPVP8 ' };

test('a chain of a swap and an enhancement goes through, submitted at once', async () => {
  await using service = await startService({ ENGINE: 'classical' });
  for (const [name, sample] of [
    ['face.jpg', 'eileen_collins.jpg'],
    ['group.jpg', 'grace_hopper.jpg'],
  ] as const) {
    await copyFile(join(PORTRAITS, sample), join(service.inputDir, name));
  }
  const client = restClient(service.baseUrl);
  const swap = await client.submit({
    source_images: ['face.jpg'],
    target_image: 'group.jpg',
    parameters: { processors: ['face_swapper'] },
  });
  const enhance = await client.submit({ target_image: `job://${swap.job_id}`, parameters: { processors: ['face_enhancer'] } });
  assert.deepEqual([enhance.status, enhance.wait_reason], ['queued', 'another_job']);
  await untilTerminal(client, enhance.job_id as string);
  const done = await client.get(enhance.job_id as string);
  assert.equal(done.status, 'succeeded', JSON.stringify(done.error));
  const before = (await client.get(swap.job_id as string)).result as Json;
  const result = done.result as Json;
  assert.deepEqual([result.width, result.height, result.media_type], [before.width, before.height, 'image/jpeg']);
  assert.notEqual(result.sha256, before.sha256);
});

test('what a chain waits for can be seen, canceled and purged, and its own bytes stay', async () => {
  await using service = await startService({ SLOTS: '1' });
  const client = restClient(service.baseUrl);
  const held = gate(service.inputDir);
  const first = await client.submit({
    source_images: ['face.jpg'],
    target_image: 'target.png',
    parameters: { ...PICTURE, ...held.parameters },
  });
  const last = gate(service.inputDir);
  const second = await client.submit({ source_images: [`job://${first.job_id}`], target_image: 'target.png', parameters: last.parameters });
  const doomed = await client.submit({ target_image: `job://${second.job_id}`, source_images: ['face.jpg'] });
  await held.open();
  for await (const event of client.watch(second.job_id as string)) {
    const state = (event.state ?? (event.snapshot as Json | undefined)?.job) as Json | undefined;
    if (state?.status === 'processing') break;
  }
  await client.purge(first.job_id as string);
  const stored = await readdir(join(service.dir, 'blobs'), { recursive: true });
  const result = stored.filter((path) => /[0-9a-f]{64}$/.test(path));
  assert.equal(result.length, 1, 'the bytes that the running job takes are still there');
  await client.cancel(second.job_id as string);
  await untilTerminal(client, doomed.job_id as string);
  const { status, error, attempt } = await client.get(doomed.job_id as string);
  assert.deepEqual([status, (error as Json).reason, attempt], ['failed', 'INPUT_JOB_FAILED', 0]);
  assert.equal((error as Json).message, `${second.job_id}, whose result this job takes, was canceled`);
});

test('a request that names jobs hears what is wrong with each', async () => {
  await using service = await startService();
  const client = restClient(service.baseUrl);
  const video = await client.submit({ source_images: ['face.jpg'], target_video: 'target.mp4' });
  for (const [reference, reason] of [
    ['job://job_20250405_aaaaaaaaaaaa', 'JOB_NOT_FOUND'],
    ['job://../../etc/passwd', 'JOB_NOT_FOUND'],
    ['job://', 'JOB_NOT_FOUND'],
    [`JOB://${video.job_id}`, 'INPUT_WRONG_KIND'],
    [`job://${video.job_id}/result`, 'JOB_NOT_FOUND'],
    [`job://${(video.job_id as string).toUpperCase()}`, 'JOB_NOT_FOUND'],
  ] as const) {
    await assert.rejects(client.submit({ source_images: [reference], target_image: 'target.png' }), (error) => {
      assert.deepEqual(reasons(error), [['source_images[0]', reason]], reference);
      return true;
    });
  }
});
