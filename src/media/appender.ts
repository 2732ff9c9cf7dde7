// Bytes that come in small pieces, on their way into a file. Always true here: they are written in large pieces, in their order, one at a time, while
// the next one is collected, so that at most two stand for a file; and nobody is told that a write is done before it is.
import type { FileHandle } from 'node:fs/promises';
import { bytesPassed } from '../young-garbage.ts';

/** Large writes cost less, and whoever brings the bytes can hash them while one is under way. */
const WRITE_BYTES = 256 * 1024;

/** Writes to `file` from position `at` on; others may write elsewhere in it. Does not close it. */
export class Appender {
  readonly #file: FileHandle;
  #at: number;
  #collected: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(file: FileHandle, at: number) {
    this.#file = file;
    this.#at = at;
  }

  /** How far the file has been written without a gap. */
  get writtenTo(): number {
    return this.#at;
  }

  /** Takes a chunk, which must not be changed from then on. Waits where the disk is behind; throws what an earlier write failed with. */
  async add(chunk: Uint8Array): Promise<void> {
    this.#collected.push(chunk);
    this.#bytes += chunk.length;
    bytesPassed(chunk.length);
    if (this.#bytes < WRITE_BYTES) return;
    await this.#writing;
    this.#write();
  }

  /** Returns when everything that was added is written, or throws what a write failed with. */
  async flush(): Promise<void> {
    await this.#writing;
    this.#write();
    await this.#writing;
  }

  #write(): void {
    const chunks = this.#collected;
    this.#collected = [];
    this.#bytes = 0;
    this.#writing = this.#writeAll(chunks);
    // Its error is thrown to whoever waits for it next.
    this.#writing.catch(() => {});
  }

  async #writeAll(chunks: Uint8Array[]): Promise<void> {
    for (let left = chunks; left.length > 0; ) {
      const { bytesWritten } = await this.#file.writev(left, this.#at);
      this.#at += bytesWritten;
      left = after(left, bytesWritten);
    }
  }
}

/** What follows the first `bytes` bytes. */
function after(chunks: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skipped = 0;
  for (const [i, chunk] of chunks.entries()) {
    if (skipped + chunk.length > bytes) return [chunk.subarray(bytes - skipped), ...chunks.slice(i + 1)];
    skipped += chunk.length;
  }
  return [];
}
