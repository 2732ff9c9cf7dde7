// Bodies that pass through the service are let go of while they are young: what stands outside of the heap stays small, whatever the body's size.
import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { bytesPassed } from '../src/young-garbage.ts';

const MIB = 1 << 20;
const BYTES = 256 * MIB;

test('the buffers of a body are let go of long before the heap is collected whole', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-garbage-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'body');
  const file = await open(path, 'w');
  await file.truncate(BYTES);
  await file.close();
  setFlagsFromString('--expose-gc');
  const collectAll = runInNewContext('gc') as () => void;
  setFlagsFromString('--no-expose-gc');
  /** The most bytes of buffers that stood at any time while the body passed. How many collections were made says less: V8 makes some for reasons of its own. */
  const mostFor = async (each: (bytes: number) => void) => {
    collectAll();
    let most = 0;
    for await (const chunk of createReadStream(path)) {
      each((chunk as Buffer).length);
      most = Math.max(most, process.memoryUsage().arrayBuffers);
    }
    return most / MIB;
  };
  const without = await mostFor(() => {});
  const withIt = await mostFor(bytesPassed);
  assert.ok(without >= 8, `at most ${without.toFixed(1)} MiB without it: what it is for is not so any more`);
  assert.ok(withIt <= without / 2, `${withIt.toFixed(1)} MiB, ${without.toFixed(1)} MiB without it`);
  assert.equal((globalThis as { gc?: unknown }).gc, undefined);
});
