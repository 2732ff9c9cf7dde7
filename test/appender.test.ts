// Bytes on their way into a file: in large pieces, in order, and never with a gap.
import assert from 'node:assert/strict';
import type { FileHandle } from 'node:fs/promises';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Appender } from '../src/media/appender.ts';

const KIB = 1024;

/** `bytes` bytes that tell where they are in the whole. */
function pattern(from: number, bytes: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: bytes }, (_, i) => (from + i) % 251));
}

test('what is added lies in the file in its order, from where it began, when it is flushed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-appender-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = await open(join(folder, 'file'), 'wx+');
  await file.write(pattern(0, 7));
  const writer = new Appender(file, 7);
  let at = 7;
  for (const bytes of [1, 100 * KIB, 64 * KIB, 300 * KIB, 0, 3, 64 * KIB]) {
    await writer.add(pattern(at, bytes));
    at += bytes;
  }
  await writer.flush();
  assert.equal(writer.writtenTo, at);
  await file.close();
  assert.ok((await readFile(join(folder, 'file'))).equals(pattern(0, at)));
});

/** A disk that takes `room` bytes, at most `most` of them at a time. */
function disk(room: number, most: number) {
  const taken: Buffer[] = [];
  const counts: number[] = [];
  const handle = {
    async writev(chunks: readonly Uint8Array[], at: number) {
      const held = taken.reduce((sum, one) => sum + one.length, 0);
      assert.equal(at, held, 'a gap, or bytes written twice');
      const bytes = Buffer.concat(chunks).subarray(0, Math.min(most, room - held));
      if (bytes.length === 0) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
      counts.push(chunks.length);
      taken.push(Buffer.from(bytes));
      return { bytesWritten: bytes.length };
    },
  };
  return { file: handle as unknown as FileHandle, counts, content: () => Buffer.concat(taken) };
}

test('a write that took only a part is gone on with', async () => {
  const { file, content } = disk(Number.POSITIVE_INFINITY, 90 * KIB);
  const writer = new Appender(file, 0);
  for (let i = 0; i < 20; i++) await writer.add(pattern(i * 64 * KIB, 64 * KIB));
  await writer.flush();
  assert.ok(content().equals(pattern(0, 20 * 64 * KIB)));
});

test('small pieces share a write', async () => {
  const { file, counts } = disk(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
  const writer = new Appender(file, 0);
  for (let i = 0; i < 64; i++) await writer.add(pattern(i * 8 * KIB, 8 * KIB));
  await writer.flush();
  assert.deepEqual(counts, [32, 32]);
});

test('after a write that failed nothing more is written, and whoever adds or flushes hears of it', async () => {
  const { file, content } = disk(300 * KIB, Number.POSITIVE_INFINITY);
  const writer = new Appender(file, 0);
  const full = { code: 'ENOSPC' };
  await assert.rejects(async () => {
    for (let i = 0; i < 100; i++) await writer.add(pattern(i * 64 * KIB, 64 * KIB));
  }, full);
  await assert.rejects(writer.flush(), full);
  await assert.rejects(writer.flush(), full);
  assert.equal(writer.writtenTo, 300 * KIB);
  assert.ok(content().equals(pattern(0, 300 * KIB)));
});
