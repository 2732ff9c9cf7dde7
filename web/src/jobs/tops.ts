// Where the rows of a list begin that is longer than what is drawn of it. Rows that are not loaded yet have one height, and come last.

export class Tops {
  readonly #tops: readonly number[];
  readonly #rest: number;

  /** Pixels; `rest`: of each row after those. */
  constructor(heights: readonly number[], rest: number) {
    const tops = [0];
    for (const height of heights) tops.push(tops.at(-1)! + height);
    this.#tops = tops;
    this.#rest = rest;
  }

  /** Where the row of that index begins; where the last one ends for the index after it. */
  of(index: number): number {
    const known = this.#tops.length - 1;
    return index <= known ? this.#tops[index]! : this.#tops[known]! + (index - known) * this.#rest;
  }

  /** The row that is at `y`: the first one above all, as if there were no end below. */
  at(y: number): number {
    const known = this.#tops.length - 1;
    const end = this.#tops[known]!;
    if (y >= end) return known + Math.floor((y - end) / this.#rest);
    let [low, high] = [0, known];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#tops[middle]! <= y) low = middle;
      else high = middle;
    }
    return low;
  }
}
