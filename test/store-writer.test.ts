// The store's writer with a disk that is held back or fails: what lasts is promised, and shown, only when it is on the disk.
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { describe, it, type TestContext } from 'node:test';
import { Writer } from '../src/store/writer.ts';

/** A writer whose syncs end when the test says so, and what it has done. */
function rig(t: TestContext) {
  const db = new DatabaseSync(':memory:');
  t.after(() => db.close());
  db.exec('CREATE TABLE said (word TEXT)');
  const syncs: PromiseWithResolvers<void>[] = [];
  const order: string[] = [];
  let commits = 0;
  const writer: Writer = new Writer(db, {
    sync: () => {
      const sync = Promise.withResolvers<void>();
      syncs.push(sync);
      return sync.promise;
    },
    beforeCommit: () => {
      commits++;
    },
    onBroken: (error) => order.push(`broken: ${error.reason}`),
    onDefect: (error) => assert.fail(error as Error),
  });
  const insert = db.prepare('INSERT INTO said VALUES (?)');
  /** A step that writes its word and tells it. */
  const say = (word: string, durable: boolean, of?: string) =>
    writer
      .step(
        durable,
        () => {
          insert.run(word);
          writer.told(of ?? word, () => order.push(`told ${word}`));
          writer.committed(() => order.push(`committed ${word}`));
        },
        of,
      )
      .then(
        () => void order.push(`answered ${word}`),
        (error) => void order.push(`refused ${word}: ${error.reason}`),
      );
  const said = () =>
    db
      .prepare('SELECT word FROM said')
      .all()
      .map(({ word }) => word);
  return { writer, syncs, order, say, said, commits: () => commits };
}

/** Enough turns of the event loop for all that waits for nothing else. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

describe('the writer', () => {
  it('answers a durable step, and tells of it, when it is on the disk', async (t) => {
    const { syncs, order, say, said, writer } = rig(t);
    void say('a', true);
    await settled();
    assert.deepEqual([said(), order, writer.untold('a')], [['a'], ['committed a'], 1]);
    syncs[0]!.resolve();
    await settled();
    assert.deepEqual([order, writer.untold('a')], [['committed a', 'told a', 'answered a'], 0]);
  });

  it('answers what need not last at once, and tells of it after what was to be told before', async (t) => {
    const { syncs, order, say } = rig(t);
    void say('a', true);
    await settled();
    void say('b', false);
    await settled();
    assert.deepEqual(order, ['committed a', 'committed b', 'answered b']);
    syncs[0]!.resolve();
    await settled();
    assert.deepEqual(order.slice(3), ['told a', 'told b', 'answered a']);
    assert.equal(syncs.length, 1, 'nothing else had to be on the disk');
    void say('c', false);
    await settled();
    assert.deepEqual(order.slice(6), ['committed c', 'told c', 'answered c']);
  });

  it('lets durable steps wait together for a busy disk, and share a transaction and a sync', async (t) => {
    const { syncs, order, say, said, commits } = rig(t);
    void say('a', true);
    await settled();
    for (const word of ['b', 'c', 'd']) {
      void say(word, true);
      await settled();
    }
    assert.deepEqual([said(), commits()], [['a'], 1]);
    syncs[0]!.resolve();
    await settled();
    assert.deepEqual([said(), commits(), syncs.length], [['a', 'b', 'c', 'd'], 2, 2]);
    assert.ok(!order.includes('answered b'));
    syncs[1]!.resolve();
    await settled();
    assert.deepEqual(order.slice(-6), ['told b', 'told c', 'told d', 'answered b', 'answered c', 'answered d']);
  });

  it('keeps the order of steps of the same, whether they last or not', async (t) => {
    const { syncs, say, said } = rig(t);
    void say('a', true);
    await settled();
    void say('b', true, 'job');
    void say('c', false, 'job');
    void say('other', false, 'another');
    await settled();
    assert.deepEqual(said(), ['a', 'other']);
    syncs[0]!.resolve();
    await settled();
    assert.deepEqual(said(), ['a', 'other', 'b', 'c']);
    syncs[1]!.resolve();
  });

  it('shows a reader who asks what was committed before, when it is on the disk', async (t) => {
    const { writer, syncs, order, say } = rig(t);
    await writer.allTold();
    void say('a', true);
    await settled();
    void say('b', false);
    await settled();
    void writer.allTold().then(() => order.push('read'));
    await settled();
    assert.ok(!order.includes('read'));
    syncs[0]!.resolve();
    await settled();
    assert.deepEqual(order.slice(-4), ['told a', 'told b', 'answered a', 'read']);
  });

  it('finishes what waits, sync by sync', async (t) => {
    const { writer, syncs, order, say } = rig(t);
    void say('a', true);
    await settled();
    void say('b', true);
    const finished = writer.finish().then(() => order.push('finished'));
    while (!order.includes('finished')) {
      syncs.at(-1)!.resolve();
      await settled();
    }
    await finished;
    assert.deepEqual(order.slice(-3), ['told b', 'answered b', 'finished']);
  });

  it('promises nothing more once the disk has failed', async (t) => {
    const { writer, syncs, order, say } = rig(t);
    void say('a', true);
    await settled();
    void say('b', true);
    void say('c', false);
    await settled();
    const read = assert.rejects(writer.allTold(), { reason: 'STORE_UNAVAILABLE' });
    syncs[0]!.reject(new Error('EIO'));
    await settled();
    await read;
    void say('d', false);
    await settled();
    assert.deepEqual(
      order.filter((word) => !word.startsWith('committed')),
      [
        'answered c',
        'broken: STORE_UNAVAILABLE',
        'refused a: STORE_UNAVAILABLE',
        'refused b: STORE_UNAVAILABLE',
        'refused d: STORE_UNAVAILABLE',
      ],
    );
    assert.throws(() => writer.assertSound(), { reason: 'STORE_UNAVAILABLE' });
    await writer.finish();
  });
});
