// The bytes of uploads on a local disk, one file an upload, named by its id. Always true here: `append` answers, well or not, when what it took
// is on the disk, so that the length of the file is how far its sender has come, whatever breaks.

import { createReadStream, openSync } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Failure } from '../jobs/job.ts';
import { Appender } from './appender.ts';
import { FreeSpace, type FreeSpaceOptions } from './free-space.ts';
import { copyOpened, type FetchObserver, storageFull } from './references.ts';

/** Where the bytes of uploads lie. For one id, a process makes one call at a time, but for `remove`. */
export interface UploadBytes extends AsyncDisposable {
  /** Throws `JobsError` STORAGE_FULL where so many more bytes would leave too little room. */
  checkRoom(bytes: number): Promise<void>;
  /** `length`: when it is known. */
  create(id: string, length: number | undefined): Promise<void>;
  announce(id: string, length: number): Promise<void>;
  /** Bytes that are there. */
  size(id: string): Promise<number>;
  /**
   * Adds what comes after the `offset` bytes that are there. What came before `chunks` threw is kept, and its error is thrown. Where other processes
   * have the same store and one of them has written there meanwhile: `JobsError` UPLOAD_CONFLICT, and what that one wrote stays.
   */
  append(id: string, offset: number, chunks: AsyncIterable<Uint8Array>): Promise<void>;
  /** All has come: makes it last. */
  finish(id: string): Promise<void>;
  /** From the first byte on, or to the one before `end`. Of one that is not finished too, where the store can. */
  read(id: string, end?: number): AsyncIterable<Uint8Array>;
  /** As `MediaResolver.fetch`, of one that is `whole`; undefined: done. Stores beyond this machine hold the bytes against their digest. */
  fetch(
    id: string,
    whole: { readonly sha256: string; readonly bytes: number },
    toPath: string,
    signal: AbortSignal,
    observer?: FetchObserver,
  ): Promise<Failure | undefined>;
  /** Unknown ids are fine. */
  remove(id: string): Promise<void>;
  /** Everything that is there, finished or not. */
  ids(): AsyncIterable<string>;
}

/** `dir` is made when it is not there; this process alone uses it. */
export type LocalUploadBytesOptions = FreeSpaceOptions;

const READ_BYTES = 1024 * 1024;

export async function openLocalUploadBytes(options: LocalUploadBytesOptions): Promise<UploadBytes> {
  await mkdir(options.dir, { recursive: true });
  return new LocalUploadBytes(options);
}

class LocalUploadBytes implements UploadBytes {
  readonly #dir: string;
  readonly #space: FreeSpace;

  constructor(options: LocalUploadBytesOptions) {
    this.#dir = options.dir;
    this.#space = new FreeSpace(options);
  }

  async checkRoom(bytes: number): Promise<void> {
    // One that has not said its size is checked as well, and as one that brings bytes.
    await this.#space.check(Math.max(1, bytes), 'the disk for uploads');
  }

  async create(id: string): Promise<void> {
    await full(async () => {
      const file = await open(this.#path(id), 'wx');
      await file.close();
      await this.#syncFolder();
    });
  }

  async announce(): Promise<void> {}

  async size(id: string): Promise<number> {
    return (await stat(this.#path(id))).size;
  }

  async append(id: string, offset: number, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    await full(async () => {
      const file = await open(this.#path(id), 'r+');
      const writer = new Appender(file, offset);
      try {
        // An earlier write that broke may have left more than it told of.
        await file.truncate(offset);
        for await (const chunk of chunks) await writer.add(chunk);
      } finally {
        try {
          await settle(writer, file);
        } finally {
          await file.close();
        }
      }
    });
  }

  async finish(): Promise<void> {}

  read(id: string, end?: number): AsyncIterable<Uint8Array> {
    return createReadStream(this.#path(id), { highWaterMark: READ_BYTES, end: end === undefined ? undefined : end - 1 });
  }

  async fetch(id: string, _whole: unknown, toPath: string, signal: AbortSignal): Promise<undefined> {
    await copyOpened(openSync(this.#path(id), 'r'), toPath, signal);
  }

  async remove(id: string): Promise<void> {
    // Earlier versions kept what was on its way in a folder: that goes whole, or no service would start here again.
    await rm(this.#path(id), { force: true, recursive: true });
    // Its row goes next: a file that came back after power loss would be nobody's.
    await this.#syncFolder();
  }

  async *ids(): AsyncGenerator<string> {
    yield* await readdir(this.#dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #path(id: string): string {
    return join(this.#dir, id);
  }

  async #syncFolder(): Promise<void> {
    const folder = await open(this.#dir, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

/** Makes all last that was written, and cuts off what a failed write left. */
async function settle(writer: Appender, file: FileHandle): Promise<void> {
  try {
    await writer.flush();
  } catch (error) {
    await file.truncate(writer.writtenTo);
    throw error;
  } finally {
    await file.datasync();
  }
}

async function full<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw storageFull(error, 'the disk for uploads is full; try again later');
  }
}
