// Work that is asked for whenever there may be some: nobody who asks is forgotten, however close to the end of a pass he comes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rerun } from '../src/rerun.ts';

/** So many turns of the queue of promises. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await null;
}

test('one pass at a time, and one more for all who asked meanwhile', async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let begun = 0;
  let under = 0;
  const work = new Rerun(async () => {
    assert.equal(++under, 1);
    await gates[begun++]!.promise;
    under--;
  }, assert.ifError);
  for (let i = 0; i < 5; i++) work.ask();
  assert.deepEqual([begun, work.isRunning], [1, true]);
  for (const gate of gates) gate.resolve();
  await work.settled();
  assert.deepEqual([begun, work.isRunning], [2, false]);
});

test('who asks in whichever turn a pass ends is followed by another one', async () => {
  for (let late = 0; late < 20; late++) {
    const gate = Promise.withResolvers<void>();
    let ended = 0;
    const work = new Rerun(async () => {
      await gate.promise;
      ended++;
    }, assert.ifError);
    work.ask();
    gate.resolve();
    await turns(late);
    work.ask();
    await turns(100);
    assert.deepEqual([ended, work.isRunning], [2, false], `asked after ${late} turns`);
  }
});

test('a pass that asks is followed, and one that throws is told of and does not end the rest', async () => {
  const told: unknown[] = [];
  let begun = 0;
  const work: Rerun = new Rerun(
    async () => {
      if (++begun < 3) work.ask();
      else throw new Error('away');
    },
    (error) => told.push((error as Error).message),
  );
  work.ask();
  await work.settled();
  assert.deepEqual([begun, told], [3, ['away']]);
  work.ask();
  await work.settled();
  assert.deepEqual([begun, told], [4, ['away', 'away']]);
});
