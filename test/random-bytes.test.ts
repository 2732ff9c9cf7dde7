// Ids take their random bytes from a pool: none is given out twice, wherever the pool ends.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fewRandomBytes } from '../src/random-bytes.ts';

describe('random bytes for ids', () => {
  it('are as many as were asked for, and others each time', () => {
    const seen = new Set<string>();
    for (const count of Array.from({ length: 5000 }, (_, i) => 12 + (i % 5))) {
      const bytes = fewRandomBytes(count);
      assert.equal(bytes.length, count);
      seen.add(Buffer.from(bytes.subarray(0, 12)).toString('hex'));
    }
    assert.equal(seen.size, 5000);
  });

  it('use all values of a byte', () => {
    const counts = new Uint32Array(256);
    for (let i = 0; i < 10_000; i++) for (const byte of fewRandomBytes(12)) counts[byte]!++;
    // 469 of each on average; 300 is eight standard deviations below.
    assert.ok(counts.every((count) => count > 300));
  });
});
