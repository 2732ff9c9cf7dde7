// Bodies that pass through the service do not make V8 examine all of its heap again and again.
import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { test } from 'node:test';
import { bytesPassed } from '../src/young-garbage.ts';

const BYTES = 512 << 20;

test('the buffers of a body go without full collections', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-garbage-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'body');
  const file = await open(path, 'w');
  await file.truncate(BYTES);
  await file.close();
  let full = 0;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { kind } = (entry as unknown as { detail: { kind: number } }).detail;
      if (kind === constants.NODE_PERFORMANCE_GC_MAJOR) full++;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  t.after(() => observer.disconnect());
  const fullFor = async (each: (bytes: number) => void) => {
    full = 0;
    for await (const chunk of createReadStream(path)) each((chunk as Buffer).length);
    // Entries are told of in a turn of their own.
    await new Promise(setImmediate);
    return full;
  };
  const without = await fullFor(() => {});
  const withIt = await fullFor(bytesPassed);
  assert.ok(without >= 4, `${without} full collections without it: what it is for is not so any more`);
  assert.ok(withIt <= without / 4, `${withIt} full collections, ${without} without it`);
  assert.equal((globalThis as { gc?: unknown }).gc, undefined);
});
