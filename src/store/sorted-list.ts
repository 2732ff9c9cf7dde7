// A list that stays sorted, in buckets of a few hundred: adding, removing and counting what comes before cost about the square root of its
// length, and the first item is at hand. No two items may compare equal unless they are the same.

const BUCKET = 512;

export class SortedList<T> {
  readonly #compare: (a: T, b: T) => number;
  readonly #buckets: T[][] = [];
  #size = 0;

  constructor(compare: (a: T, b: T) => number) {
    this.#compare = compare;
  }

  get size(): number {
    return this.#size;
  }

  first(): T | undefined {
    return this.#buckets[0]?.[0];
  }

  add(item: T): void {
    this.#size++;
    if (this.#buckets.length === 0) {
      this.#buckets.push([item]);
      return;
    }
    const at = this.#bucketOf(item);
    const bucket = this.#buckets[at]!;
    bucket.splice(this.#before(bucket, item), 0, item);
    if (bucket.length > BUCKET) this.#buckets.splice(at + 1, 0, bucket.splice(BUCKET / 2));
  }

  /** False: it was not there. */
  remove(item: T): boolean {
    const at = this.#bucketOf(item);
    const bucket = this.#buckets[at];
    if (!bucket) return false;
    const index = this.#before(bucket, item);
    if (index === bucket.length || this.#compare(bucket[index]!, item) !== 0) return false;
    bucket.splice(index, 1);
    if (bucket.length === 0) this.#buckets.splice(at, 1);
    this.#size--;
    return true;
  }

  /** How many items come before this one, which need not be in the list. */
  rank(item: T): number {
    const at = this.#bucketOf(item);
    let before = 0;
    for (let i = 0; i < at; i++) before += this.#buckets[i]!.length;
    const bucket = this.#buckets[at];
    return bucket ? before + this.#before(bucket, item) : before;
  }

  *[Symbol.iterator](): Iterator<T> {
    for (const bucket of this.#buckets) yield* bucket;
  }

  /** The last bucket that starts at or before the item, or the first. */
  #bucketOf(item: T): number {
    let low = 0;
    let high = this.#buckets.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#compare(this.#buckets[middle]![0]!, item) <= 0) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #before(bucket: readonly T[], item: T): number {
    let low = 0;
    let high = bucket.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(bucket[middle]!, item) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
