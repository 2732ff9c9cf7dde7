import assert from 'node:assert/strict';
import { it, type TestContext } from 'node:test';
import type { JobId } from '../src/jobs/ports.ts';
import { BatchStops } from '../src/store/batch-stops.ts';
import type { BatchTable } from '../src/store/batch-table.ts';

/** A batch of 100 jobs that is marked; `breaks`: numbers of the steps that the disk has no room for. */
function marked(t: TestContext, breaks: readonly number[]) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const left = new Set(Array.from({ length: 100 }, (_, i) => `job-${i}` as JobId));
  const seen = { marked: true, failures: 0, steps: 0 };
  const batches = {
    unended: () => [...left],
    stopping: () => (seen.marked ? [{ batchId: 'batch', graceMs: 7 }] : []),
    stopped: () => {
      seen.marked = false;
    },
  } as unknown as BatchTable;
  const stops = new BatchStops({
    batches,
    step: async (run) => {
      if (breaks.includes(++seen.steps)) throw new Error('the disk is full');
      run();
    },
    cancel: (id, graceMs) => {
      assert.equal(graceMs, 7);
      left.delete(id);
    },
    failed: () => void seen.failures++,
  });
  return { stops, left, seen };
}

/** What was begun has run into its end: there is nothing in it but promises. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

it('goes on by itself with a batch that the disk had no room for', async (t) => {
  const { stops, left, seen } = marked(t, [2, 3]);
  await assert.rejects(stops.stop('batch', 7), /the disk is full/);
  assert.deepEqual([left.size, seen.marked, seen.failures], [36, true, 0], 'who asked is told');
  t.mock.timers.tick(5_000);
  await settled();
  assert.deepEqual([left.size, seen.marked, seen.failures], [36, true, 1]);
  t.mock.timers.tick(5_000);
  await settled();
  assert.deepEqual([left.size, seen.marked, seen.failures], [0, false, 1]);
  t.mock.timers.tick(60_000);
  assert.equal(seen.steps, 5, 'and then no more');
});

it('begins nothing after its end', async (t) => {
  const { stops, left, seen } = marked(t, [1]);
  await assert.rejects(stops.stop('batch', 7));
  stops[Symbol.dispose]();
  t.mock.timers.tick(60_000);
  stops.stopMarked();
  await settled();
  assert.deepEqual([left.size, seen.steps], [100, 1]);
});
