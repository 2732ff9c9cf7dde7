// Uploads: taken whole or not at all, told by their bytes, gone when they expire.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { PutObjectCommand } from '@aws-sdk/client-s3';
import { type RedisServer, startRedis } from '../scripts/redis-server.ts';
import type { JobStore, UploadFacts } from '../src/jobs/ports.ts';
import { mediaTypeOf } from '../src/media/sniff.ts';
import { openLocalUploadBytes, type UploadBytes } from '../src/media/upload-files.ts';
import { openS3UploadBytes } from '../src/media/upload-s3.ts';
import { openUploads } from '../src/media/uploads.ts';
import { openRedisJobStore } from '../src/store/jobs-redis.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { refusal } from './contract/calls.ts';
import { wantedJob } from './contract/job-store.ts';
import { type S3Server, startS3 } from './fixtures/media/s3-server.ts';

const NEVER = new AbortController().signal;
const HOUR_MS = 3_600_000;
const JPEG = Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe0]), randomBytes(20_000)]);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

interface Settings {
  readonly maxUploads?: number;
  readonly quotaBytes?: number;
  readonly minFreeBytes?: number;
  readonly maxBytes?: number;
}

/** Opens the records' store, the same one again with the same arguments. */
type OpenStore = (home: string, now: () => number) => Promise<JobStore>;

let redis: RedisServer;
let s3: S3Server;
before(async () => {
  [redis, s3] = await Promise.all([startRedis(), startS3()]);
});
after(async () => {
  await redis[Symbol.asyncDispose]();
  await s3[Symbol.asyncDispose]();
});

const STORES: Readonly<Record<string, OpenStore>> = {
  SQLite: (home, now) => openSqliteJobStore({ path: join(home, 'jobs.db'), now }),
  Redis: (home, now) => openRedisJobStore({ url: redis.url, fleet: basename(home), now }),
};

/** Where bytes lie. */
interface Place {
  open(minFreeBytes: number, freeBytes: () => Promise<number>): Promise<UploadBytes>;
  /** Ids of which there is something. */
  ids(): Promise<string[]>;
  /** Something that no record names. */
  litter(id: string): Promise<void>;
}

const PLACES: Readonly<Record<string, (home: string) => Promise<Place>>> = {
  'a local disk': async (home) => {
    const dir = join(home, 'uploads');
    return {
      open: (minFreeBytes, freeBytes) => openLocalUploadBytes({ dir, minFreeBytes, freeBytes }),
      ids: () => readdir(dir),
      litter: async (id) => {
        for (const name of [id, 'other.json']) await writeFile(join(dir, name), 'half');
      },
    };
  },
  S3: async () => {
    const bucket = await s3.makeBucket();
    const prefix = 'of/one/uploads/';
    const ids = async () => [...new Set((await s3.keys(bucket)).map((key) => key.slice(prefix.length).split('/')[0]!))];
    return {
      open: async () => openS3UploadBytes({ connection: s3.connection, bucket, prefix, pieceBytes: 4096 }),
      ids,
      litter: async (id) => {
        await s3.client.send(new PutObjectCommand({ Bucket: bucket, Key: `${prefix}${id}/${'9'.repeat(15)}-0`, Body: 'half' }));
      },
    };
  },
};

async function openWorld(t: TestContext, openStore: OpenStore, openPlace: (home: string) => Promise<Place>, settings: Settings = {}) {
  const home = await mkdtemp(join(tmpdir(), 'ffjobs-uploads-'));
  const place = await openPlace(home);
  const clock = { now: Date.UTC(2025, 3, 5) };
  const disk = { free: 1e12 };
  const limits = { maxUploads: settings.maxUploads ?? 100, maxBytes: settings.quotaBytes ?? 1e9, ttlMs: HOUR_MS };
  const start = async () => {
    const store = await openStore(home, () => clock.now);
    const bytes = await place.open(settings.minFreeBytes ?? 0, async () => disk.free);
    return { store, bytes, uploads: await openUploads({ records: store.uploads, bytes, maxBytes: settings.maxBytes ?? 100_000, limits }) };
  };
  let now = await start();
  const end = async () => {
    await now.uploads[Symbol.asyncDispose]();
    await now.store[Symbol.asyncDispose]();
  };
  t.after(async () => {
    await end();
    await rm(home, { recursive: true });
  });
  const scratch = join(home, 'scratch');
  await mkdir(scratch);
  return {
    scratch,
    litter: place.litter,
    clock,
    disk,
    get uploads() {
      return now.uploads;
    },
    get store() {
      return now.store;
    },
    restart: async () => {
      await end();
      now = await start();
    },
    receive: (bytes: Uint8Array, facts: Partial<UploadFacts> = {}, signal = NEVER) =>
      now.uploads.receive({ tenant: 'one', filename: 'face.jpg', ...facts }, chunked(bytes), signal),
    files: place.ids,
    /** A job of the tenant that names the upload as its source, and how it goes on. */
    job: async (uri: string, tenant = 'one') => {
      const { store } = now;
      const { job } = await store.submit(wantedJob({ tenant, request: { sourceImages: [uri] } }), {
        maxQueued: 100,
        idempotencyMs: HOUR_MS,
      });
      return { cancel: () => store.cancel(job.jobId, 0), purge: () => store.purge(job.jobId) };
    },
  };
}

async function* chunked(bytes: Uint8Array, size = 3000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const WORLDS = Object.entries(STORES).flatMap(([name, openStore]) =>
  Object.entries(PLACES).map(([where, openPlace]) => ({ name, openStore, where, openPlace })),
);

for (const { name, openStore, where, openPlace } of WORLDS) {
  describe(`uploads on ${where}, their records in ${name}`, { concurrency: 4 }, () => {
    const open = (t: TestContext, settings?: Settings) => openWorld(t, openStore, openPlace, settings);

    it('are kept under an id of ours, with digest, size and type told from the bytes', async (t) => {
      const { receive, uploads, scratch, clock, files, store } = await open(t);
      const upload = await receive(JPEG, { filename: '../../etc/passwd.png', bytes: JPEG.length, sha256: sha256(JPEG) });
      assert.match(upload.uri, /^upload:\/\/[0-9a-f]{32}$/);
      const { uri: _, ...facts } = upload;
      assert.deepEqual(facts, { sha256: sha256(JPEG), bytes: JPEG.length, mediaType: 'image/jpeg', expiresMs: clock.now + HOUR_MS });
      assert.deepEqual(await files(), [upload.uri.slice('upload://'.length)]);
      assert.equal((await store.uploads.get(upload.uri.slice('upload://'.length)))?.filename, 'passwd.png');
      assert.equal(await uploads.resolver.check(upload.uri, 'field', 'one'), undefined);
      assert.equal((await uploads.resolver.check(upload.uri, 'field', 'two'))?.reason, 'UPLOAD_NOT_FOUND');
      const to = join(scratch, 'copy');
      assert.equal(await uploads.resolver.fetch(upload.uri, to, NEVER), undefined);
      assert.deepEqual(await readFile(to), JPEG);
      assert.notEqual((await receive(JPEG)).uri, upload.uri);
    });

    it('that are too large are refused, at once when that is announced', async (t) => {
      const { receive, files, uploads } = await open(t);
      assert.equal((await refusal(receive(JPEG, { bytes: 100_001 }))).reason, 'UPLOAD_TOO_LARGE');
      let asked = 0;
      const endless = (async function* () {
        for (;;) {
          asked++;
          yield JPEG;
        }
      })();
      assert.equal((await refusal(uploads.receive({ tenant: 'one', filename: 'x' }, endless, NEVER))).reason, 'UPLOAD_TOO_LARGE');
      assert.equal(asked, 5);
      assert.deepEqual(await files(), []);
    });

    it('that are not what was announced are refused', async (t) => {
      const { receive, files } = await open(t);
      for (const facts of [{ bytes: JPEG.length + 1 }, { bytes: JPEG.length - 1 }, { sha256: sha256(randomBytes(3)) }]) {
        assert.equal((await refusal(receive(JPEG, facts))).reason, 'UPLOAD_CORRUPT');
      }
      assert.equal((await refusal(receive(Buffer.alloc(0)))).reason, 'UPLOAD_CORRUPT');
      assert.deepEqual(await files(), []);
    });

    it('of other kinds are refused as soon as that can be told', async (t) => {
      const { receive, uploads, files } = await open(t);
      let asked = 0;
      const text = (async function* () {
        for (let i = 0; i < 10; i++) {
          asked++;
          yield Buffer.from('<!doctype html>'.repeat(300));
        }
      })();
      const error = await refusal(uploads.receive({ tenant: 'one', filename: 'face.jpg' }, text, NEVER));
      assert.deepEqual([error.kind, error.violations[0]?.reason], ['invalid', 'UNSUPPORTED_MEDIA_TYPE']);
      assert.equal(asked, 1);
      assert.equal((await refusal(receive(Buffer.from('short')))).kind, 'invalid');
      assert.deepEqual(await files(), []);
    });

    it('that break off leave nothing', async (t) => {
      const { uploads, files } = await open(t);
      const broken = (async function* () {
        yield JPEG;
        throw new Error('the connection broke');
      })();
      await assert.rejects(uploads.receive({ tenant: 'one', filename: 'x' }, broken, NEVER), /the connection broke/);
      const leave = new AbortController();
      const left = (async function* () {
        yield JPEG;
        leave.abort();
        yield JPEG;
      })();
      await assert.rejects(uploads.receive({ tenant: 'one', filename: 'x' }, left, leave.signal), { name: 'AbortError' });
      assert.deepEqual(await files(), []);
    });

    it('that break off while no record can be written leave no bytes, and a later sweep has their records', async (t) => {
      const { receive, uploads, files, store } = await open(t, { maxUploads: 1 });
      const { release } = store.uploads;
      store.uploads.release = () => Promise.reject(new Error('the disk of the job store is full'));
      await refusal(receive(JPEG, { bytes: JPEG.length + 1 }));
      assert.deepEqual(await files(), []);
      assert.equal((await refusal(receive(JPEG))).reason, 'QUOTA_EXCEEDED');
      store.uploads.release = release;
      await uploads.sweep();
      await receive(JPEG);
    });

    it('outlive a restart, and go when they expire', async (t) => {
      const world = await open(t);
      const first = await world.receive(JPEG);
      world.clock.now += HOUR_MS / 2;
      const second = await world.receive(JPEG);
      // Of nobody, such as what an older version has left.
      await world.litter('a'.repeat(32));
      await world.restart();
      assert.equal((await world.files()).length, 2);
      assert.equal(await world.uploads.resolver.check(first.uri, 'field', 'one'), undefined);
      world.clock.now += HOUR_MS / 2;
      assert.equal((await world.uploads.resolver.check(first.uri, 'source_images[0]', 'one'))?.reason, 'UPLOAD_NOT_FOUND');
      await world.uploads.sweep();
      assert.deepEqual(await world.files(), [second.uri.slice('upload://'.length)]);
      assert.equal(await world.uploads.resolver.check(second.uri, 'field', 'one'), undefined);
    });

    // S3 has no disk that fills up.
    const onDisk = where === 'S3' ? () => {} : it;
    onDisk('are turned away before the disk is full, those that are still coming counted, and leave nothing when it is', async (t) => {
      const { disk, receive, files, uploads } = await open(t, { minFreeBytes: 50_000 });
      disk.free = 120_000;
      let go = () => {};
      const going = new Promise<void>((resolve) => {
        go = resolve;
      });
      const slow = (async function* () {
        yield JPEG.subarray(0, 10_000);
        await going;
        yield JPEG.subarray(10_000);
      })();
      const first = uploads.receive({ tenant: 'one', filename: 'a', bytes: JPEG.length }, slow, NEVER);
      while ((await files()).length === 0) await new Promise(setImmediate);
      const refused = await refusal(receive(JPEG, { bytes: 60_001 }));
      assert.deepEqual([refused.kind, refused.reason, refused.retryAfterSeconds], ['exhausted', 'STORAGE_FULL', 30]);
      go();
      await first;
      disk.free = 49_999;
      assert.equal((await refusal(receive(JPEG))).reason, 'STORAGE_FULL');
      assert.equal((await files()).length, 1);
      disk.free = 1e9;
      await receive(JPEG);
    });

    onDisk('that are small and do not say so need little room', async (t) => {
      const { disk, receive, files } = await open(t, { minFreeBytes: 50_000, maxBytes: 1e9 });
      disk.free = 50_000 + 4 * 1024 * 1024;
      await Promise.all([1, 2, 3].map(() => receive(JPEG)));
      assert.equal((await files()).length, 3);
      disk.free = 50_000 + 1024 * 1024 - 1;
      assert.equal((await refusal(receive(JPEG))).reason, 'STORAGE_FULL');
    });

    it('whose job was purged are gone at once, and a job that waits keeps its own', async (t) => {
      const { receive, job, uploads, files, clock, scratch } = await open(t);
      const upload = await receive(JPEG);
      const { cancel, purge } = await job(upload.uri);
      clock.now += 2 * HOUR_MS;
      await uploads.sweep();
      const to = join(scratch, 'copy');
      const digests: string[] = [];
      const observer = { progress: () => {}, digested: (digest: string) => void digests.push(digest) };
      assert.equal(await uploads.resolver.fetch(upload.uri, to, NEVER, observer), undefined);
      assert.deepEqual([await readFile(to), digests], [JPEG, [sha256(JPEG)]]);
      await cancel();
      await purge();
      await uploads.sweep();
      assert.deepEqual(await files(), []);
    });

    it('in pieces go on after a restart, with the digest of all', async (t) => {
      const world = await open(t);
      const id = world.uploads.newId();
      await world.uploads.create(id, { tenant: 'one', filename: 'a.jpg', bytes: JPEG.length, sha256: sha256(JPEG) }, '');
      const broken = (async function* () {
        yield JPEG.subarray(0, 5000);
        throw new Error('the connection broke');
      })();
      await assert.rejects(world.uploads.append(id, 'one', 0, broken), /the connection broke/);
      assert.equal((await world.uploads.find(id, 'one')).offset, 5000);
      assert.equal((await refusal(world.uploads.append(id, 'two', 5000, chunked(JPEG)))).reason, 'UPLOAD_NOT_FOUND');
      assert.equal((await refusal(world.uploads.append(id, 'one', 0, chunked(JPEG)))).reason, 'UPLOAD_CONFLICT');
      await world.restart();
      assert.equal((await world.uploads.resolver.check(`upload://${id}`, 'f', 'one'))?.reason, 'UPLOAD_INCOMPLETE');
      assert.equal(await world.uploads.append(id, 'one', 5000, chunked(JPEG.subarray(5000))), JPEG.length);
      assert.equal((await world.uploads.get(id, 'one'))?.sha256, sha256(JPEG));
    });

    it('that are not there are refused at submit with their field, and at prepare for good', async (t) => {
      const { uploads, scratch } = await open(t);
      const { resolver } = uploads;
      for (const id of ['nothing', '../../etc/passwd', '0'.repeat(32), '', 'tmp']) {
        const violation = await resolver.check(`upload://${id}`, 'source_images[0]', 'one');
        assert.deepEqual([violation?.field, violation?.reason], ['source_images[0]', 'UPLOAD_NOT_FOUND']);
        const failure = await resolver.fetch(`upload://${id}`, join(scratch, 'x'), NEVER);
        assert.deepEqual([failure?.reason, failure?.retryable], ['INPUT_NOT_FOUND', false]);
      }
    });
  });
}

describe('media types by content', () => {
  const text = (value: string) => Buffer.from(value, 'latin1');
  const cases: readonly [string, Buffer, string | undefined][] = [
    ['JPEG', Buffer.from([0xff, 0xd8, 0xff, 0xdb]), 'image/jpeg'],
    ['PNG', text('\x89PNG\r\n\x1a\n\0\0\0\rIHDR'), 'image/png'],
    ['WebP', text('RIFF\x10\0\0\0WEBPVP8 '), 'image/webp'],
    ['AVI', text('RIFF\x10\0\0\0AVI LIST'), 'video/x-msvideo'],
    ['WAV', text('RIFF\x10\0\0\0WAVEfmt '), 'audio/wav'],
    ['MP4', text('\0\0\0\x20ftypisom\0\0\x02\0'), 'video/mp4'],
    ['MOV', text('\0\0\0\x14ftypqt  \0\0\x02\0'), 'video/quicktime'],
    ['old MOV', text('\0\0\0\x08wide\0\0\0\0mdat'), 'video/quicktime'],
    ['M4A', text('\0\0\0\x20ftypM4A \0\0\x02\0'), 'audio/mp4'],
    ['WebM', text('\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm'), 'video/webm'],
    ['Matroska', text('\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska'), 'video/x-matroska'],
    ['MP3 with a tag', text('ID3\x04\0\0'), 'audio/mpeg'],
    ['MP3 without', Buffer.from([0xff, 0xfb, 0x90, 0x64]), 'audio/mpeg'],
    ['FLAC', text('fLaC\0\0\0\x22'), 'audio/flac'],
    ['Ogg', text('OggS\0\x02'), 'audio/ogg'],
    ['HEIC', text('\0\0\0\x20ftypheic'), undefined],
    ['AAC stream', Buffer.from([0xff, 0xf1, 0x50, 0x80]), undefined],
    ['GIF', text('GIF89a'), undefined],
    ['SVG', text('<svg xmlns='), undefined],
    ['other RIFF', text('RIFF\x10\0\0\0ACON'), undefined],
    ['other EBML', text('\x1aE\xdf\xa3\x9fB\x86'), undefined],
    ['nothing', Buffer.alloc(0), undefined],
    ['zeros', Buffer.alloc(64), undefined],
  ];
  for (const [name, bytes, type] of cases) it(`${name}: ${type ?? 'refused'}`, () => assert.equal(mediaTypeOf(bytes), type));
});
