// What every job store must keep of slots that are out of service. Knows no backend: a store calls `describeDrainStore` with a factory.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type Drain, drained, restored } from '../../src/jobs/drains.ts';
import type { OpenedTenantStore } from './tenant-store.ts';

const SUITE = { timeout: 120_000 };

const why = (reason: string): Drain => ({ by: 'key:render-7', atMs: 1_764_000_000_000, reason });

export function describeDrainStore(name: string, factory: () => Promise<OpenedTenantStore>): void {
  const open = async (t: TestContext): Promise<OpenedTenantStore> => {
    const opened = await factory();
    t.after(() => opened.destroy());
    return opened;
  };

  describe(`${name}: slots out of service`, SUITE, () => {
    it('are kept as they were said, over a restart, until they are put back', async (t) => {
      const { store, restart } = await open(t);
      assert.deepEqual(Object.fromEntries(await store.drains.all()), {});
      const [update, fan] = [why('driver update: 570 → 580 "soon"'), why('')];
      await store.drains.change('gpu-02', (now) => drained(now, undefined, update));
      await store.drains.change('gpu-01', (now) => drained(now, '3', fan));
      const again = await restart();
      assert.deepEqual(
        [...(await again.drains.all())],
        [
          ['gpu-01', { slots: { 3: fan } }],
          ['gpu-02', { whole: update, slots: {} }],
        ],
      );
      await again.drains.change('gpu-02', (now) => restored(now, undefined, []));
      assert.deepEqual([...(await again.drains.all()).keys()], ['gpu-01']);
      await again.drains.change('gpu-01', (now) => restored(now, '3', ['3']));
      await again.drains.change('nobody', (now) => restored(now, undefined, []));
      assert.deepEqual([...(await (await restart()).drains.all())], []);
    });

    it('are changed by many at once without losing any', async (t) => {
      const { drains } = (await open(t)).store;
      const names = Array.from({ length: 20 }, (_, i) => `${i}`);
      await Promise.all(names.map((slot) => drains.change('gpu-01', (now) => drained(now, slot, why(slot)))));
      const { slots } = (await drains.all()).get('gpu-01')!;
      assert.deepEqual(Object.keys(slots).toSorted(), names.toSorted());
      await Promise.all(names.slice(1).map((slot) => drains.change('gpu-01', (now) => restored(now, slot, names))));
      assert.deepEqual(Object.fromEntries(await drains.all()), { 'gpu-01': { slots: { 0: why('0') } } });
    });

    it('are told of', async (t) => {
      const { drains } = (await open(t)).store;
      const told = Promise.withResolvers<void>();
      drains.onChange = told.resolve;
      await drains.change('gpu-01', (now) => drained(now, '0', why('x')));
      await told.promise;
      assert.equal((await drains.all()).size, 1);
    });

    it('stay as they are when a step fails', async (t) => {
      const { drains } = (await open(t)).store;
      const refuse = () => {
        throw new Error('no');
      };
      await assert.rejects(drains.change('gpu-01', refuse), /no/);
      assert.equal((await drains.all()).size, 0);
    });

    it('are asked for in vain once the store is closed', async (t) => {
      const { store } = await open(t);
      await store[Symbol.asyncDispose]();
      await assert.rejects(store.drains.all());
      await assert.rejects(store.drains.change('gpu-01', (now) => now));
    });
  });
}
