// The one subscription behind all who watch jobs: made with the first, ended with the last, whatever else goes wrong.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { RedisChanges } from '../src/store/redis/changes.ts';
import { Tokens } from '../src/store/tokens.ts';

/** `fails`: what does not answer. */
function watched() {
  const counts = { listened: 0, forgotten: 0 };
  const fails = new Set<'latest' | 'listen'>();
  const changes = new RedisChanges({
    async latest() {
      if (fails.has('latest')) throw new Error('no latest');
      return 7;
    },
    after: async () => [],
    tokens: new Tokens(randomBytes(32)),
    async listen() {
      counts.listened++;
      if (fails.has('listen')) throw new Error('no subscription');
    },
    forget: () => void counts.forgotten++,
  });
  const watch = () => changes.watch({}, undefined, new AbortController().signal)[Symbol.asyncIterator]();
  return { counts, fails, watch };
}

test('a watcher whose place cannot be read takes the subscription along, and from nobody else', async () => {
  const { counts, fails, watch } = watched();
  fails.add('latest');
  await assert.rejects(watch().next(), /no latest/);
  assert.deepEqual(counts, { listened: 1, forgotten: 1 });
  fails.clear();
  const stays = watch();
  const next = stays.next();
  fails.add('latest');
  await assert.rejects(watch().next(), /no latest/);
  assert.deepEqual(counts, { listened: 2, forgotten: 1 }, 'one subscription for both');
  await stays.return?.();
  assert.equal((await next).done, true);
  assert.deepEqual(counts, { listened: 2, forgotten: 2 });
});

test('a subscription that failed is tried again for the next watcher', async () => {
  const { counts, fails, watch } = watched();
  fails.add('listen');
  await assert.rejects(watch().next(), /no subscription/);
  fails.clear();
  const one = watch();
  const next = one.next();
  await new Promise(setImmediate);
  assert.equal(counts.listened, 2);
  await one.return?.();
  assert.equal((await next).done, true);
});
