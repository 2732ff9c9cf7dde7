// What every job store must know of uploads, as the comments of the port say: whose they are, how much of a quota they take, how long they stay, and
// that a job's reference keeps them. Knows no backend: a store calls `describeUploadRecords` with a factory.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { JobsError } from '../../src/jobs/errors.ts';
import type { JobStore, UploadLimits } from '../../src/jobs/ports.ts';
import { uploadUri } from '../../src/jobs/uploads.ts';
import { wantedJob } from './job-store.ts';

export interface OpenedForUploads {
  readonly store: JobStore;
  /** One process has the store, so that a restart ends what that process was receiving. Of a fleet nobody knows: it ends when it expires. */
  readonly oneProcess: boolean;
  /** The store's clock. */
  advance(ms: number): void;
  /** As a restart of the service does; after a crash as after a good end. */
  restart(): Promise<JobStore>;
  destroy(): Promise<void>;
}

const TTL_MS = 60_000;
const LIMITS: UploadLimits = { maxUploads: 5, maxBytes: 1000, ttlMs: TTL_MS };
const JOB_LIMITS = { maxQueued: 1000, idempotencyMs: 86_400_000 };
const whole = (bytes: number) => ({ sha256: 'a'.repeat(64), bytes, mediaType: 'image/jpeg' });

export function describeUploadRecords(name: string, open: () => Promise<OpenedForUploads>): void {
  async function world(t: TestContext, limits = LIMITS) {
    const opened = await open();
    t.after(() => opened.destroy());
    let { store } = opened;
    const removed: string[] = [];
    const begin = async (facts: { tenant?: string; bytes?: number; resumable?: boolean } = {}) => {
      const id = randomBytes(16).toString('hex');
      await store.uploads.begin({ id, tenant: 'one', filename: 'a.jpg', note: 'n', resumable: true, ...facts }, limits);
      return id;
    };
    return {
      advance: opened.advance,
      oneProcess: opened.oneProcess,
      removed,
      uploads: () => store.uploads,
      store: () => store,
      restart: async () => {
        store = await opened.restart();
      },
      begin,
      /** A whole one of 100 bytes. */
      upload: async (tenant = 'one') => {
        const id = await begin({ tenant });
        await store.uploads.complete(id, whole(100), limits);
        return id;
      },
      reclaim: async () => {
        removed.length = 0;
        await store.uploads.reclaim(async (id) => {
          removed.push(id);
        });
        return [...removed];
      },
      job: async (...ids: string[]) => {
        const sourceImages = ids.map((id) => uploadUri(id));
        return (await store.submit(wantedJob({ tenant: 'one', request: { sourceImages } }), JOB_LIMITS)).job.jobId;
      },
    };
  }
  const reasonOf = async (call: Promise<unknown>) => {
    const error = await call.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof JobsError, `refused with ${error}`);
    return error.reason;
  };

  describe(`${name}: uploads`, { concurrency: 4, timeout: 120_000 }, () => {
    it('are there from begin on, for jobs from the end on, over restarts', async (t) => {
      const { begin, uploads, job, restart, advance } = await world(t);
      const id = await begin({ bytes: 100 });
      assert.deepEqual(
        { ...(await uploads().get(id)), expiresMs: 0 },
        {
          id,
          tenant: 'one',
          filename: 'a.jpg',
          note: 'n',
          length: 100,
          sha256: undefined,
          resumable: true,
          expiresMs: 0,
          whole: undefined,
          offered: true,
        },
      );
      assert.equal(await reasonOf(job(id)), 'INVALID_REQUEST');
      advance(TTL_MS / 2);
      await uploads().reserve(id, 100, LIMITS);
      const expiresMs = await uploads().complete(id, whole(100), LIMITS);
      await job(id);
      await restart();
      const record = await uploads().get(id);
      assert.deepEqual([record?.whole, record?.expiresMs, record?.offered], [whole(100), expiresMs, true]);
      // It has one end.
      assert.equal(await reasonOf(uploads().complete(id, whole(99), LIMITS)), 'UPLOAD_NOT_FOUND');
      assert.equal(await reasonOf(uploads().reserve('0'.repeat(32), 1, LIMITS)), 'UPLOAD_NOT_FOUND');
      assert.deepEqual([await uploads().knows(id), await uploads().knows('0'.repeat(32))], [true, false]);
    });

    it('are for the jobs of their tenant alone', async (t) => {
      const { upload, job } = await world(t);
      assert.equal(await reasonOf(job(await upload('two'))), 'INVALID_REQUEST');
    });

    it('count against their tenant’s quota, by bytes and by number, until their bytes are gone', async (t) => {
      const { begin, uploads, reclaim } = await world(t);
      const first = await begin({ bytes: 900 });
      assert.equal(await reasonOf(begin({ bytes: 101 })), 'QUOTA_EXCEEDED');
      await begin({ tenant: 'two', bytes: 1000 });
      const second = await begin();
      await uploads().reserve(second, 100, LIMITS);
      assert.equal(await reasonOf(uploads().reserve(second, 101, LIMITS)), 'QUOTA_EXCEEDED');
      assert.equal(await reasonOf(uploads().announce(second, 101, LIMITS)), 'QUOTA_EXCEEDED');
      await uploads().complete(second, whole(40), LIMITS);
      await begin({ bytes: 60 });
      await uploads().release(first);
      assert.equal(await reasonOf(begin({ bytes: 60 })), 'QUOTA_EXCEEDED');
      assert.deepEqual(await reclaim(), [first]);
      for (let i = 0; i < 3; i++) await begin({ bytes: 1 });
      assert.equal(await reasonOf(begin({ bytes: 1 })), 'QUOTA_EXCEEDED');
    });

    it('go when they expire, finished or not, and those that are written to stay', async (t) => {
      const { begin, upload, uploads, advance, reclaim } = await world(t);
      const old = [await upload(), await begin()];
      advance(TTL_MS - 1);
      const written = await begin();
      assert.deepEqual(await reclaim(), []);
      advance(2000);
      await uploads().reserve(written, 5, LIMITS);
      assert.deepEqual((await reclaim()).sort(), old.sort());
      assert.equal(await uploads().get(old[0]!), undefined);
      assert.deepEqual(await reclaim(), []);
    });

    it('stay while a job needs them, expired or removed, and go when it has ended', async (t) => {
      const { upload, uploads, job, advance, reclaim, store, restart } = await world(t);
      const id = await upload();
      const jobs = [await job(id), await job(id, id)];
      advance(TTL_MS * 2);
      assert.deepEqual(await reclaim(), []);
      await restart();
      assert.deepEqual(await reclaim(), []);
      const record = await uploads().get(id);
      assert.deepEqual([record?.offered, record?.whole?.bytes], [false, 100]);
      assert.equal(await reasonOf(job(id)), 'INVALID_REQUEST');
      await store().cancel(jobs[0]!, 0);
      assert.deepEqual(await reclaim(), []);
      await store().cancel(jobs[1]!, 0);
      await restart();
      assert.deepEqual(await reclaim(), [id]);

      const other = await upload();
      const last = await job(other);
      await uploads().release(other);
      assert.equal(await reasonOf(uploads().release(other)), 'UPLOAD_NOT_FOUND');
      assert.deepEqual(await reclaim(), []);
      await store().cancel(last, 0);
      assert.deepEqual(await reclaim(), [other]);
    });

    it('go with the purge of the last job that named them', async (t) => {
      const { upload, job, reclaim, store } = await world(t);
      const [shared, own] = [await upload(), await upload()];
      const [first, second] = [await job(shared, own), await job(shared)];
      for (const id of [first, second]) await store().cancel(id, 0);
      assert.deepEqual(await reclaim(), []);
      await store().purge(first);
      assert.deepEqual(await reclaim(), [own]);
      // Its job is not there to name it, and the other one may be run again.
      await job(shared);
      await store().purge(second);
      assert.deepEqual(await reclaim(), []);
    });

    it('are given to `remove` until it has succeeded, and what came in one piece ends with its process', async (t) => {
      const { begin, uploads, restart, reclaim, upload, advance, oneProcess } = await world(t);
      const [gone, kept] = [await upload(), await upload()];
      await uploads().release(gone);
      const broken = uploads().reclaim(() => Promise.reject(new Error('the disk does not answer')));
      await assert.rejects(broken, /does not answer/);
      const [piece, resumable] = [await begin({ resumable: false }), await begin({ resumable: true })];
      await restart();
      assert.deepEqual((await reclaim()).sort(), (oneProcess ? [gone, piece] : [gone]).sort());
      for (const id of [kept, resumable]) assert.ok(await uploads().get(id));
      advance(TTL_MS);
      await reclaim();
      assert.equal(await uploads().get(piece), undefined);
    });

    it('are counted right when a crowd races for the last of a quota', async (t) => {
      const { begin } = await world(t, { ...LIMITS, maxUploads: 1000 });
      const all = await Promise.allSettled(Array.from({ length: 50 }, () => begin({ bytes: 100 })));
      assert.equal(all.filter(({ status }) => status === 'fulfilled').length, 10);
    });
  });
}
