// Admission closes before the disk is full, and who waits goes on when there is room again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FreeSpace } from '../src/media/free-space.ts';
import { CallError, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startService } from './api/service.ts';

const space = (free: () => number, minFreeBytes = 100) =>
  new FreeSpace({ dir: '/', minFreeBytes, freeBytes: async () => free(), everyMs: 1 });

test('what would leave too little is refused with how much there is', async () => {
  let free = 150;
  const room = space(() => free);
  await room.check(50, 'the disk');
  await assert.rejects(room.check(51, 'the disk'), (error: Error) => {
    assert.equal((error as unknown as { reason: string }).reason, 'STORAGE_FULL');
    assert.match(error.message, /^the disk is nearly full: 150 bytes are left/);
    return true;
  });
  free = 99;
  // Who brings bytes is told of the disk as it is now.
  await assert.rejects(room.check(1, 'the disk'), /99 bytes are left/);
  await assert.rejects(room.check(0, 'the disk'), /99 bytes are left/);
  await space(() => 0, 0).check(0, 'the disk');
});

test('many who bring nothing look once', async () => {
  let looks = 0;
  const room = space(() => {
    looks++;
    return 1000;
  });
  for (let i = 0; i < 100; i++) await room.check(0, 'the disk');
  assert.ok(looks < 10, `${looks}`);
});

test('who waits goes on when there is room, leaves with its signal, and gives up in the end', async () => {
  let looks = 0;
  const filling = new FreeSpace({ dir: '/', minFreeBytes: 100, freeBytes: async () => (++looks < 3 ? 0 : 200), everyMs: 300 });
  await filling.wait('the disk', 60_000, new AbortController().signal);
  assert.equal(looks, 3);
  const leaving = new AbortController();
  const waiting = space(() => 0).wait('the disk', 60_000, leaving.signal);
  leaving.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
  await assert.rejects(space(() => 0).wait('the disk', 0, new AbortController().signal), { reason: 'STORAGE_FULL' });
});

test('with too little room no job is taken, and all else is answered', async () => {
  const picture = { source_images: ['face.jpg'], target_image: 'target.png' };
  await using service = await startService({ MIN_FREE_BYTES: '900T' });
  const client = restClient(service.baseUrl);
  await assert.rejects(client.submit(picture), (error: unknown) => {
    assert.ok(error instanceof CallError);
    assert.deepEqual([error.code, error.reason], ['RESOURCE_EXHAUSTED', 'STORAGE_FULL']);
    assert.ok(error.retryAfterSeconds! > 0);
    return true;
  });
  assert.equal((await client.validate(picture)).valid, true);
  assert.ok((await client.list({})) as object);
  assert.ok((await fetch(`${service.baseUrl}/readyz`)).ok);
});

test('a fresh service takes jobs', async () => {
  await using service = await startService();
  const client = restClient(service.baseUrl);
  const { job_id } = await client.submit({ source_images: ['face.jpg'], target_image: 'target.png' });
  await untilTerminal(client, job_id as string);
  assert.equal((await client.get(job_id as string)).status, 'succeeded');
});
