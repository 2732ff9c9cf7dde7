// Whose turn it is to write an upload that comes in pieces.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UploadLocks } from '../src/rpc/upload-locks.ts';

const NEVER = new AbortController().signal;
const locked = { name: 'Locked', status_code: 423 };

test('of several that wait for an upload one has it next, and the others after that', async () => {
  const locks = new UploadLocks({ waitMs: 60_000 });
  const first = locks.newLock('one');
  await first.lock(NEVER, async () => {});
  let holders = 0;
  let most = 0;
  const others = Array.from({ length: 5 }, async () => {
    const lock = locks.newLock('one');
    await lock.lock(NEVER, async () => {});
    most = Math.max(most, ++holders);
    await new Promise(setImmediate);
    holders--;
    await lock.unlock();
  });
  await first.unlock();
  await Promise.all(others);
  assert.equal(most, 1);
});

test('a write that gets on keeps its upload; one that has stalled is told to give way', async () => {
  const locks = new UploadLocks({ waitMs: 1, stalledMs: 60_000 });
  const writing = locks.newLock('one');
  await writing.lock(NEVER, async () => assert.fail('it gets on'));
  await assert.rejects(
    locks.newLock('one').lock(NEVER, async () => {}),
    locked,
  );
  await locks.newLock('two').lock(NEVER, async () => {});

  const impatient = new UploadLocks({ waitMs: 1, stalledMs: 0 });
  const stalled = impatient.newLock('one');
  await stalled.lock(NEVER, async () => await stalled.unlock());
  await impatient.newLock('one').lock(NEVER, async () => {});
});

test('who leaves while it waits is not given the upload', async () => {
  const locks = new UploadLocks({ waitMs: 60_000 });
  const first = locks.newLock('one');
  await first.lock(NEVER, async () => {});
  const leaving = new AbortController();
  const left = locks.newLock('one').lock(leaving.signal, async () => {});
  leaving.abort();
  await assert.rejects(left, locked);
  await first.unlock();
  await locks.newLock('one').lock(NEVER, async () => {});
});
