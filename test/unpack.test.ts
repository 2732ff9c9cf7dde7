// What Redis packs as the answers of a script is what Redis would have answered without that.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { unpackReplies } from '../src/store/redis/unpack.ts';
import { ownRedis } from './fixtures/redis/own.ts';

const redis = ownRedis();

const answered = (lua: string) => redis.client.callBuffer('EVAL', `return ${lua}`, '0');
const packed = async (lua: string) => unpackReplies((await answered(`cmsgpack.pack(${lua})`)) as Buffer);

describe('answers of a script', { timeout: 60_000 }, () => {
  const integers = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 52 + 1];
  const lists = {
    'integers of every size': `{${[...integers, ...integers.map((n) => -n)].join()}}`,
    'texts of every size': `{'', 'a', ${[31, 32, 255, 256, 65_535, 65_536].map((n) => `string.rep('x', ${n})`).join()}}`,
    'bytes that are no text': `{string.char(0, 128, 255, 192)}`,
    'nothing, false and true': '{false, true, {}}',
    'lists in lists': `{{'done', 3, false}, {{'a', {'b', {1}}}, 'c'}}`,
  };
  for (const [what, list] of Object.entries(lists)) {
    it(`are ${what}`, async () => {
      assert.deepEqual(await packed(list), await answered(list));
    });
  }
  for (const count of [15, 16, 65_535, 65_536]) {
    it(`are ${count} at once`, async () => {
      const list = `(function() local all = {} for i = 1, ${count} do all[i] = i end return all end)()`;
      assert.deepEqual(await packed(list), await answered(list));
    });
  }

  it('are numbers with a fraction, as they are', async () => {
    assert.deepEqual(await packed('{0.5, -0.1, 1e300}'), [0.5, -0.1, 1e300]);
  });

  it('are errors of the steps that have failed', async () => {
    const [done, failed] = await packed(`{1, {err = 'WRONGTYPE no'}}`);
    assert.equal(done, 1);
    assert.ok(failed instanceof Error);
    assert.deepEqual([failed.name, failed.message], ['ReplyError', 'WRONGTYPE no']);
  });

  it('that no script gives are refused', async () => {
    for (const list of [`{{ok = 'OK', more = 1}}`, `{{ok = 'OK'}}`, `{{1, nil, 3}}`, `'text'`])
      await assert.rejects(packed(list), /a script has (not )?answered/);
  });
});
