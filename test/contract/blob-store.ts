// What every blob store must do, as the comments of the port say. Knows no backend: a store calls `describeBlobStore` with a factory.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import {
  appendFile,
  chown,
  mkdtemp,
  open as openFile,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { JobsError } from '../../src/jobs/errors.ts';
import type { BlobStore } from '../../src/jobs/ports.ts';

export interface OpenedBlobStore {
  readonly blobs: BlobStore;
  /** Another store on the same data. */
  reopen(): Promise<BlobStore>;
  /** How many things are stored, whole or not. */
  count(): Promise<number>;
  destroy(): Promise<void>;
}

export type BlobStoreFactory = () => Promise<OpenedBlobStore>;

const AS_ROOT = process.getuid?.() === 0 ? false : 'machine: only root can give files to another user';
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

async function* chunked(bytes: Uint8Array, size = 10_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export function describeBlobStore(name: string, factory: BlobStoreFactory): void {
  const open = async (t: TestContext) => {
    const opened = await factory();
    t.after(() => opened.destroy());
    return opened;
  };
  const fileOf = async (t: TestContext, bytes: Uint8Array) => {
    const dir = await mkdtemp(join(tmpdir(), 'ffjobs-blob-source-'));
    t.after(() => rm(dir, { recursive: true }));
    const path = join(dir, 'source');
    await writeFile(path, bytes);
    return path;
  };

  describe(`${name}: blobs`, { concurrency: 4 }, () => {
    it('are fetched into a file, which is not there before and not there after a failure', async (t) => {
      const { blobs } = await open(t);
      const bytes = randomBytes(123_456);
      const { key } = await blobs.put(chunked(bytes), 'image/png');
      const folder = dirname(await fileOf(t, randomBytes(3)));
      const { signal } = new AbortController();
      await blobs.fetch(key, join(folder, 'one'), signal);
      assert.deepEqual(await readFile(join(folder, 'one')), bytes);
      await assert.rejects(blobs.fetch(key, join(folder, 'source'), signal), { code: 'EEXIST' });
      assert.equal((await readFile(join(folder, 'source'))).length, 3);
      for (const unknown of ['a'.repeat(64), '../../etc/passwd', '']) {
        await assert.rejects(blobs.fetch(unknown, join(folder, 'none'), signal), { reason: 'NO_RESULT' });
      }
      await assert.rejects(blobs.fetch(key, join(folder, 'none'), AbortSignal.abort(new Error('left'))), { message: 'left' });
      assert.deepEqual((await readdir(folder)).sort(), ['one', 'source']);
      await blobs.delete(key);
      assert.deepEqual(await readFile(join(folder, 'one')), bytes);
    });

    for (const from of ['stream', 'file'] as const) {
      it(`from a ${from} are found by their digest, over a restart too`, async (t) => {
        const { blobs, reopen } = await open(t);
        const bytes = randomBytes(123_456);
        const stat = await blobs.put(from === 'stream' ? chunked(bytes) : await fileOf(t, bytes), 'image/png');
        assert.deepEqual(stat, { key: sha256(bytes), bytes: bytes.length, mediaType: 'image/png' });
        for (const store of [blobs, await reopen()]) {
          assert.deepEqual(await store.stat(stat.key), stat);
          assert.deepEqual(await read(store.get(stat.key)), bytes);
        }
      });
    }

    it('are given in ranges, both ends included', async (t) => {
      const { blobs } = await open(t);
      const bytes = randomBytes(1000);
      const { key } = await blobs.put(chunked(bytes), 'video/mp4');
      for (const [start, end] of [
        [0, 0],
        [0, 999],
        [500, 509],
        [999, 999],
      ] as const) {
        assert.deepEqual(await read(blobs.get(key, { start, end })), bytes.subarray(start, end + 1));
      }
    });

    it('of the same bytes are one, put twice or at once', async (t) => {
      const { blobs, count } = await open(t);
      const bytes = randomBytes(50_000);
      const first = await blobs.put(chunked(bytes), 'image/png');
      const before = await count();
      const again = await Promise.all([blobs.put(chunked(bytes, 7), 'image/png'), blobs.put(await fileOf(t, bytes), 'image/png')]);
      for (const stat of again) assert.deepEqual(stat, first);
      assert.equal(await count(), before);
      const others = await Promise.all(Array.from({ length: 8 }, () => blobs.put(chunked(bytes.subarray(1)), 'image/png')));
      assert.equal(new Set(others.map(({ key }) => key)).size, 1);
      assert.deepEqual(await read(blobs.get(others[0]!.key)), bytes.subarray(1));
    });

    it('are pinned before they are looked for, and not kept when they cannot be', async (t) => {
      const { blobs, count } = await open(t);
      const bytes = randomBytes(1000);
      const before = await count();
      const refused = blobs.put(chunked(bytes), 'image/png', { pin: () => Promise.reject(new Error('not yours')) });
      await assert.rejects(refused, /not yours/);
      assert.equal(await count(), before);
      await blobs.put(chunked(bytes), 'image/png');
      // As when the last job that had it was purged a moment ago: it is deleted first and written then.
      const { key } = await blobs.put(chunked(bytes), 'image/png', { pin: (pinned) => blobs.delete(pinned) });
      assert.deepEqual(await read(blobs.get(key)), bytes);
    });

    // Between its digest and its place: by an engine that is not done, or by what took its name.
    const meddling = {
      'is written to': (path: string) => writeFile(path, 'x', { flag: 'r+' }),
      grows: (path: string) => appendFile(path, 'more'),
      'is cut off': (path: string) => truncate(path, 5),
      'is another one': async (path: string) => {
        await writeFile(`${path}.other`, randomBytes((await stat(path)).size));
        await rename(`${path}.other`, path);
      },
      'is a link': async (path: string) => {
        await rename(path, `${path}.other`);
        await writeFile(`${path}.secret`, randomBytes((await stat(`${path}.other`)).size));
        await symlink(`${path}.secret`, path);
      },
    };
    for (const [what, meddle] of Object.entries(meddling)) {
      it(`are what their key says, or not kept, where the file ${what} meanwhile`, async (t) => {
        const { blobs, count } = await open(t);
        for (const size of [1000, 200_000]) {
          const bytes = randomBytes(size);
          const path = await fileOf(t, bytes);
          const before = await count();
          let turns = 0;
          const put = blobs.put(path, 'image/png', { pin: async () => (turns++ === 0 ? await meddle(path) : undefined) });
          const failed = await put.then(
            () => undefined,
            (error: unknown) => error,
          );
          if (failed !== undefined) {
            assert.equal((failed as JobsError).reason, 'RESULT_CHANGED');
            assert.equal(await count(), before);
            continue;
          }
          assert.deepEqual(await read(blobs.get(sha256(bytes))), bytes);
        }
      });
    }

    it('of a file of another user are a copy that nobody else can write to', { skip: AS_ROOT }, async (t) => {
      const { blobs } = await open(t);
      for (const size of [1000, 200_000]) {
        const bytes = randomBytes(size);
        const path = await fileOf(t, bytes);
        const { mtime } = await stat(path);
        const held = await openFile(path, 'r+');
        t.after(() => held.close());
        await chown(path, 12_345, 12_345);
        const rewrite = async () => {
          await held.write(randomBytes(size), 0, size, 0);
          await utimes(path, mtime, mtime);
        };
        const { key } = await blobs.put(path, 'image/png', { pin: rewrite });
        await rewrite();
        assert.equal(key, sha256(bytes));
        assert.deepEqual(await read(blobs.get(key)), bytes);
      }
    });

    it('may be empty', async (t) => {
      const { blobs } = await open(t);
      const { key, bytes } = await blobs.put(chunked(new Uint8Array()), 'image/png');
      assert.deepEqual([bytes, (await read(blobs.get(key))).length], [0, 0]);
    });

    it('whose source fails or whose signal aborts leave nothing', async (t) => {
      const { blobs, count } = await open(t);
      const before = await count();
      const broken = (async function* () {
        yield randomBytes(1000);
        throw new Error('the source broke');
      })();
      await assert.rejects(blobs.put(broken, 'image/png'), /the source broke/);
      const leave = new AbortController();
      const slow = (async function* () {
        yield randomBytes(1000);
        leave.abort();
        yield randomBytes(1000);
      })();
      await assert.rejects(blobs.put(slow, 'image/png', { signal: leave.signal }), { name: 'AbortError' });
      await assert.rejects(blobs.put(await fileOf(t, randomBytes(10)), 'image/png', { signal: AbortSignal.abort() }), {
        name: 'AbortError',
      });
      await assert.rejects(blobs.put(join(tmpdir(), 'there-is-no-such-file'), 'image/png'));
      assert.equal(await count(), before);
    });

    it('that are unknown have no facts and no bytes, and are deleted without complaint', async (t) => {
      const { blobs } = await open(t);
      for (const key of [sha256(randomBytes(1)), '../../etc/passwd', '', 'ABCDEF', `${'a'.repeat(63)}/`]) {
        assert.equal(await blobs.stat(key), undefined);
        await assert.rejects(read(blobs.get(key)), (error) => error instanceof JobsError && error.reason === 'NO_RESULT');
        await blobs.delete(key);
      }
    });

    it('that are deleted are gone, and can come again', async (t) => {
      const { blobs } = await open(t);
      const bytes = randomBytes(100);
      const { key } = await blobs.put(chunked(bytes), 'image/png');
      await blobs.delete(key);
      assert.equal(await blobs.stat(key), undefined);
      await assert.rejects(read(blobs.get(key)));
      assert.equal((await blobs.put(chunked(bytes), 'image/webp')).mediaType, 'image/webp');
      assert.deepEqual(await read(blobs.get(key)), bytes);
    });
  });
}
