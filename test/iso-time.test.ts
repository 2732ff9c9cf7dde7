// Times as text, beside what Date writes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isoTime } from '../src/iso-time.ts';

const FIRST = Date.parse('0000-01-01T00:00:00.000Z');
const LAST = Date.parse('9999-12-31T23:59:59.999Z');

test('a time is written as Date does it, whatever was written before', () => {
  const near = fc
    .tuple(fc.integer({ min: FIRST, max: LAST - 5_000 }), fc.array(fc.nat(5_000), { minLength: 1 }))
    .map(([begin, steps]) => steps.map((step) => begin + step));
  fc.assert(
    fc.property(near, (times) => {
      for (const ms of times) assert.equal(isoTime(ms), new Date(ms).toISOString());
    }),
    { examples: [[[FIRST, LAST, 0, -1, -1000, -1001, 999, 1000, 86_399_999, 86_400_000]]] },
  );
});
