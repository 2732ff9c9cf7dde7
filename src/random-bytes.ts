// Random bytes for ids, a few at a time. As good as the system's own, which are fetched many at once: a call for twelve costs more than the rest of making an id.
// No byte is given out twice.
import { randomFillSync } from 'node:crypto';

const pool = Buffer.allocUnsafeSlow(4096);
let used = pool.length;

/** At most 4096; good until the next call. */
export function fewRandomBytes(count: number): Uint8Array {
  if (used + count > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += count;
  return pool.subarray(used - count, used);
}
