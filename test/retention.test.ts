// How long things are kept: results, jobs and downloads go when their time has come, by themselves, over restarts and failures, and callers are told.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { MediaResultSchema, TimingsSchema } from '../gen/facefusion/jobs/v1/job_pb.js';
import { readConfig } from '../src/config.ts';
import { JobsError } from '../src/jobs/errors.ts';
import type { JobStore } from '../src/jobs/ports.ts';
import { openLocalBlobStore } from '../src/store/blobs-local.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { Retention } from '../src/store/retention.ts';
import { CallError, type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startService } from './api/service.ts';
import { wantedJob } from './contract/job-store.ts';

const NEVER = new AbortController().signal;
const DAY = 86_400_000;

async function stores(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-retention-'));
  const store = await openSqliteJobStore({ path: join(dir, 'jobs.db') });
  const blobs = await openLocalBlobStore({ dir: join(dir, 'blobs') });
  t.after(async () => {
    await store[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });
  const finish = async (bytes: string, retentionMs: number | undefined) => {
    await store.submit(wantedJob(), { maxQueued: 1e6, idempotencyMs: DAY });
    const lease = (await store.claim({ node: 'node' }, NEVER))!;
    await lease.begin({ slot: '0', engine: undefined });
    const source = async function* () {
      yield Buffer.from(bytes);
    };
    const { key } = await blobs.put(source(), 'image/png', { pin: (pinned) => lease.pin(pinned) });
    const result = create(MediaResultSchema, { mediaType: 'image/png', bytes: BigInt(bytes.length), sha256: key });
    const job = await lease.complete({ result, retentionMs, warnings: [], timings: create(TimingsSchema) });
    return { job, key };
  };
  return { dir, store, blobs, finish };
}

it('a sweep purges, forgets and deletes what is due, in batches, and leaves the rest', async (t) => {
  const { store, blobs, finish } = await stores(t);
  const due: string[] = [];
  for (let i = 0; i < 120; i++) due.push((await finish(`result ${i}`, 0)).key);
  const { job, key } = await finish('kept', DAY);
  const swept = Promise.withResolvers<{ purged: number; forgotten: number }>();
  const errors: unknown[] = [];
  const retention = new Retention({
    store,
    blobs,
    jobTtlMs: DAY,
    everyMs: 3_600_000,
    onSwept: swept.resolve,
    onError: (e) => errors.push(e),
  });
  assert.deepEqual(await swept.promise, { purged: 120, forgotten: 0 });
  await retention[Symbol.asyncDispose]();
  await retention.reclaim();
  for (const gone of due) assert.equal(await blobs.stat(gone), undefined);
  assert.ok(await blobs.stat(key));
  assert.ok((await store.get(job.jobId))?.result);
  assert.deepEqual(errors, []);
});

it('a sweep reads what is due and nothing else, however much there is', async (t) => {
  const path = join(await mkdtemp(join(tmpdir(), 'ffjobs-plans-')), 'jobs.db');
  t.after(() => rm(dirname(path), { recursive: true }));
  const prepare = t.mock.method(DatabaseSync.prototype, 'prepare');
  const store = await openSqliteJobStore({ path });
  const prepared = new Set(prepare.mock.calls.map((call) => call.arguments[0]));
  prepare.mock.restore();
  await store[Symbol.asyncDispose]();
  const db = new DatabaseSync(path);
  t.after(() => db.close());
  const kept = /\bFROM (?:expiring_results|ended_jobs|uploads|upload_uses|cached_results|unreferenced_blobs)\b/;
  const looks = [...prepared].filter((sql) => /^\s*SELECT/.test(sql) && kept.test(sql));
  assert.ok(looks.length >= 10, `${looks.length}`);
  const scans = looks.flatMap((sql) =>
    (db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all() as { detail: string }[])
      // All marks are due.
      .filter(({ detail }) => /\bSCAN\b/.test(detail) && detail !== 'SCAN unreferenced_blobs')
      .map(({ detail }) => `${detail}: ${sql}`),
  );
  assert.deepEqual(scans, []);
});

it('a store that fails for a while is told of and swept again', async (t) => {
  const { store, blobs, finish } = await stores(t);
  const { key } = await finish('due', 0);
  let away = 2;
  const errors: string[] = [];
  const flaky: Pick<JobStore, 'expire' | 'reclaim'> = {
    expire: async (limits) => {
      if (away-- > 0) throw new JobsError('unavailable', 'STORE_UNAVAILABLE', 'away');
      return await store.expire(limits);
    },
    reclaim: (remove) => store.reclaim(remove),
  };
  const gone = Promise.withResolvers<void>();
  const deleting = { delete: (one: string) => blobs.delete(one).then(gone.resolve) };
  await using retention = new Retention({
    store: flaky,
    blobs: deleting,
    jobTtlMs: DAY,
    everyMs: 1,
    onError: (error) => errors.push((error as Error).message),
  });
  await gone.promise;
  assert.ok(retention);
  assert.deepEqual(errors, ['away', 'away']);
  assert.equal(await blobs.stat(key), undefined);
});

it('a blob store that is away is asked once, and the marks stay', async (t) => {
  const { store, blobs, finish } = await stores(t);
  for (let i = 0; i < 40; i++) await finish(`result ${i}`, 0);
  await store.expire({ jobTtlMs: DAY, max: 100 });
  let asked = 0;
  const away = async () => {
    asked++;
    await sleep(1);
    throw new JobsError('unavailable', 'STORE_UNAVAILABLE', 'away');
  };
  await assert.rejects(store.reclaim(away), { reason: 'STORE_UNAVAILABLE' });
  assert.ok(asked <= 8, `${asked}`);
  let deleted = 0;
  await store.reclaim(async (key) => {
    deleted++;
    await blobs.delete(key);
  });
  assert.equal(deleted, 40);
});

it('a result that has had its time says so from that moment on, and is deleted', async () => {
  await using service = await startService({ RESULT_TTL: '1h', MAX_RETENTION: '2h', JOB_TTL: '3h', RESULT_URL_TTL: '30m' });
  let client = restClient(service.baseUrl);
  const picture = { source_images: ['face.jpg'], target_image: 'target.png' };
  const run = async (more: Json = {}) => {
    const { job_id } = await client.submit({ ...picture, ...more });
    await untilTerminal(client, job_id as string);
    return await client.get(job_id as string);
  };
  const usual = await run({ parameters: { output: 'usual' } });
  const kept = Date.parse(usual.result_expire_time as string) - Date.parse(usual.finished_at as string);
  assert.equal(kept, 3_600_000);

  const brief = await run({ retention: '1.5s', parameters: { output: 'brief' } });
  const id = brief.job_id as string;
  const url = new URL(brief.result_url as string);
  // A URL does not outlive what it leads to.
  assert.ok(Number(url.searchParams.get('expires')) <= Date.parse(brief.result_expire_time as string));
  const expired = async () => {
    for (;;) {
      const error = await client.result(id).then(
        () => undefined,
        (thrown: unknown) => thrown as CallError,
      );
      if (error) return error;
      await sleep(50);
    }
  };
  const error = await expired();
  assert.ok(error instanceof CallError);
  assert.deepEqual([error.code, error.reason], ['NOT_FOUND', 'RESULT_EXPIRED']);
  assert.equal((await client.get(id)).result_url, null);
  assert.equal((await fetch(url)).status, 410);

  await service.restart();
  client = restClient(service.baseUrl);
  // The first sweep comes with the start.
  let job = await client.get(id);
  for (; job.purged_at === null; job = await client.get(id)) await sleep(20);
  assert.deepEqual([job.status, job.result], ['succeeded', null]);
  await assert.rejects(client.result(id), { reason: 'RESULT_EXPIRED' });
  assert.ok((await fetch(await client.result(usual.job_id as string))).ok);
  await client.purge(usual.job_id as string);
  await assert.rejects(client.result(usual.job_id as string), { reason: 'RESULT_PURGED' });
  const files = async () => (await readdir(join(service.dir, 'blobs'), { recursive: true })).filter((name) => /[0-9a-f]{64}/.test(name));
  for (let left = await files(); left.length > 0; left = await files()) await sleep(20);

  const { violations } = (await client.validate({ ...picture, retention: '7201s' })) as {
    violations: { field: string; description: string }[];
  };
  assert.deepEqual(
    violations.map(({ field, description }) => [field, description]),
    [['retention', 'a result is kept for at most 7200 s here']],
  );
});

it('lifetimes that contradict each other are refused at start', () => {
  const read = (settings: Record<string, string>) => readConfig(settings, '/');
  assert.throws(() => read({ FFJOBS_RESULT_TTL: '100d' }), /FFJOBS_RESULT_TTL is at most FFJOBS_MAX_RETENTION/);
  assert.throws(() => read({ FFJOBS_JOB_TTL: '1h' }), /at most FFJOBS_JOB_TTL/);
  assert.equal(read({ FFJOBS_RESULT_TTL: '1h', FFJOBS_MAX_RETENTION: '2h', FFJOBS_JOB_TTL: '2h' }).resultTtlMs, 3_600_000);
});
