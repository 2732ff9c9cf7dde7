// The SQLite file itself: one opener, schema, what is left after a kill, a full disk.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { describe, it, type TestContext } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { JobStatus } from '../src/jobs/job.ts';
import type { JobStore } from '../src/jobs/ports.ts';
import { openSqliteJobStore } from '../src/store/jobs-sqlite.ts';
import { LogSync, openDatabase } from '../src/store/sqlite.ts';
import { Writer } from '../src/store/writer.ts';
import { wantedJob } from './contract/job-store.ts';

const CHILD = join(import.meta.dirname, 'contract', 'sqlite-child.ts');
const LIMITS = { maxQueued: 1_000_000, idempotencyMs: 1000 };
const NEVER = new AbortController().signal;

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-file-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function opened(t: TestContext, path: string): Promise<JobStore> {
  const store = await openSqliteJobStore({ path });
  t.after(() => store[Symbol.asyncDispose]());
  return store;
}

/** The child, and its lines as they come. `shell`: a line of shell before it. */
function child(t: TestContext, path: string, task: string, shell?: string): { process: ChildProcess; lines: AsyncIterator<string> } {
  const args = [CHILD, path, task];
  const stdio = ['ignore', 'pipe', 'inherit'] as const;
  const process_ =
    shell === undefined
      ? spawn(process.execPath, args, { stdio: [...stdio] })
      : spawn('/bin/sh', ['-c', `${shell}; exec "$0" "$@"`, process.execPath, ...args], { stdio: [...stdio] });
  t.after(() => process_.kill('SIGKILL'));
  return { process: process_, lines: createInterface({ input: process_.stdout! })[Symbol.asyncIterator]() };
}

async function line(lines: AsyncIterator<string>): Promise<string> {
  const { value, done } = await lines.next();
  assert.ok(!done, 'the child ended');
  return value;
}

describe('the SQLite file', { concurrency: 4 }, () => {
  it('has one opener: a second one in the same process is told so', async (t) => {
    const path = join(await folder(t), 'jobs.db');
    await opened(t, path);
    await assert.rejects(openSqliteJobStore({ path }), /^Error: the job store .*jobs\.db is in use by another process: stop that one/);
  });

  it('has one opener: a second process is told so, and gets in once the first is killed', async (t) => {
    const path = join(await folder(t), 'jobs.db');
    const first = child(t, path, 'hold');
    assert.equal(await line(first.lines), 'open');
    const second = child(t, path, 'hold');
    assert.match(await line(second.lines), /^error the job store .* is in use by another process/);
    first.process.kill('SIGKILL');
    await once(first.process, 'exit');
    await opened(t, path);
  });

  it('of a newer version is refused in words', async (t) => {
    const path = join(await folder(t), 'jobs.db');
    await (await openSqliteJobStore({ path }))[Symbol.asyncDispose]();
    const db = new DatabaseSync(path);
    db.exec('PRAGMA user_version = 99');
    db.close();
    await assert.rejects(openSqliteJobStore({ path }), /has schema 99, made by a newer version; this one knows \d+: run the newer version/);
  });

  it('of an older version is brought up to date, step by step, and says so', async (t) => {
    const dir = await folder(t);
    const [path, scripts] = [join(dir, 'jobs.db'), join(dir, 'migrations')];
    await mkdir(scripts);
    await writeFile(join(scripts, '001-first.sql'), 'CREATE TABLE first (a); INSERT INTO first VALUES (1)');
    const made = openDatabase(path, scripts);
    assert.equal(made.migrated, undefined, 'a new file is not news');
    made.db.close();
    await writeFile(join(scripts, '002-second.sql'), 'ALTER TABLE first ADD b; UPDATE first SET b = a + 1');
    await writeFile(join(scripts, '003-broken.sql'), 'CREATE TABLE third (a); INSERT INTO nowhere VALUES (1)');
    assert.throws(() => openDatabase(path, scripts), /cannot open the job store .*no such table: nowhere/);
    await writeFile(join(scripts, '003-broken.sql'), 'CREATE TABLE third (a)');
    const { db, migrated } = openDatabase(path, scripts);
    t.after(() => db.close());
    assert.deepEqual(migrated, { from: 2, to: 3 }, 'what had worked was kept, and the broken one left no half of itself');
    assert.deepEqual({ ...db.prepare('SELECT a, b FROM first').get() }, { a: 1, b: 2 });
  });

  it('that is none is refused in words', async (t) => {
    const path = join(await folder(t), 'jobs.db');
    await writeFile(path, 'this is not a database, whatever its name says'.repeat(100));
    await assert.rejects(openSqliteJobStore({ path }), /is not a job store: it is not an SQLite file/);
  });

  it('in a folder that cannot be made is refused with the path', async (t) => {
    const dir = await folder(t);
    await writeFile(join(dir, 'file'), '');
    await assert.rejects(openSqliteJobStore({ path: join(dir, 'file', 'jobs.db') }), /file/);
  });

  it('has lost nothing that was acknowledged when its process is killed in the middle', { timeout: 90_000 }, async (t) => {
    const path = join(await folder(t), 'jobs.db');
    const submitted = new Set<string>();
    const failed = new Map<string, number>();
    for (let round = 0; round < 2; round++) {
      const { process: victim, lines } = child(t, path, 'work');
      assert.equal(await line(lines), 'open');
      const until = submitted.size + 100 + Math.floor(Math.random() * 200);
      for (;;) {
        const { value, done } = await lines.next();
        if (done) break;
        const [what, jobId, sequence] = value.split(' ') as [string, string, string];
        if (what === 'submitted') submitted.add(jobId);
        else failed.set(jobId, Number(sequence));
        if (submitted.size === until) victim.kill('SIGKILL');
      }
    }
    const store = await opened(t, path);
    for (const jobId of submitted) assert.ok(await store.get(jobId), `${jobId} is lost`);
    for (const [jobId, sequence] of failed) {
      const job = await store.get(jobId);
      assert.deepEqual([job?.status, job?.sequence], [JobStatus.FAILED, sequence]);
    }
    // What was running is queued again or has failed for the restart; nothing is left behind, no sequence has a hole.
    let pageToken: string | undefined;
    let stored = 0;
    const counts = new Map<JobStatus, number>();
    do {
      const page = await store.list({ pageSize: 1000, pageToken });
      for (const job of page.jobs) {
        assert.notEqual(job.status, JobStatus.PROCESSING);
        counts.set(job.status, (counts.get(job.status) ?? 0) + 1);
        stored++;
        const sequences: number[] = [];
        const leave = new AbortController();
        for await (const event of store.watch(job.jobId, 0, leave.signal)) {
          sequences.push(event.sequence);
          if (event.sequence === job.sequence) leave.abort();
        }
        assert.deepEqual(
          sequences,
          sequences.map((_, i) => i + 1),
        );
      }
      pageToken = page.nextPageToken;
    } while (pageToken !== undefined);
    assert.ok(stored >= submitted.size);
    const { totals } = await store.overview(60_000);
    for (const status of [JobStatus.QUEUED, JobStatus.FAILED]) assert.equal(totals.get(status) ?? 0, counts.get(status) ?? 0);
  });

  it('on a full disk refuses what it cannot keep, and counts only what it has kept', { skip: process.platform === 'win32' }, async (t) => {
    const path = join(await folder(t), 'jobs.db');
    // Files of at most about 3 MB (in blocks of 512 bytes): the write-ahead log runs into it at some COMMIT.
    const { lines } = child(t, path, 'fill', 'ulimit -f 6000');
    assert.equal(await line(lines), 'open');
    assert.match(await line(lines), /^refused (STORAGE_FULL|STORE_UNAVAILABLE)$/);
    const [, ...counted] = (await line(lines)).split(' ');
    assert.equal(new Set(counted).size, 1, `acknowledged, totals, queue of the tenant, queue: ${counted}`);
    assert.equal((await lines.next()).done, true);
    const store = await opened(t, path);
    assert.equal((await store.overview(60_000)).totals.get(JobStatus.QUEUED), Number(counted[0]));
  });

  it('that is removed or replaced while it is open acknowledges nothing more', { skip: process.platform === 'win32' }, async (t) => {
    const path = join(await folder(t), 'jobs.db');
    const store = await opened(t, path);
    const { job } = await store.submit(wantedJob(), LIMITS);
    for (const act of [() => rm(path), () => writeFile(path, 'another')]) {
      await act();
      await assert.rejects(store.submit(wantedJob(), LIMITS), { reason: 'STORE_UNAVAILABLE', message: /removed or replaced/ });
      await assert.rejects(store.ping(), { reason: 'STORE_UNAVAILABLE' });
      assert.equal((await store.get(job.jobId))?.jobId, job.jobId);
    }
  });

  it('takes a step that fails out of its group and keeps the others', async (t) => {
    const store = await opened(t, join(await folder(t), 'jobs.db'));
    const twice = wantedJob();
    const settled = await Promise.allSettled([
      store.submit(wantedJob({ request: { idempotencyKey: 'key' } }), LIMITS),
      store.submit(twice, LIMITS),
      // The same id again: the database itself refuses it, after the step has begun to write.
      store.submit({ ...twice }, LIMITS),
      store.submit(wantedJob({ request: { idempotencyKey: 'key' }, requestDigest: 'other' }), LIMITS),
      store.submit(wantedJob(), LIMITS),
      store.claim({ node: 'node' }, NEVER),
    ]);
    assert.deepEqual(
      settled.map((one) => (one.status === 'fulfilled' ? 'done' : one.reason.reason)),
      ['done', 'done', 'STORE_UNAVAILABLE', 'IDEMPOTENCY_KEY_REUSED', 'done', 'done'],
    );
    assert.equal((await store.overview(60_000)).totals.get(JobStatus.QUEUED), 3);
    assert.equal((await store.list({ pageSize: 10 })).jobs.length, 3);
  });
});

// Alone: what it looks at is every store's of the process.
it('a store asks once for each start timeout, however long the disk takes to keep the step before', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: Date.now() });
  const store = await opened(t, join(await folder(t), 'jobs.db'));
  const timedOut = Array.from({ length: 20 }, () => wantedJob({ startTimeoutMs: 1000 }));
  await Promise.all(timedOut.map((job) => store.submit(job, LIMITS)));
  // The disk is busy with a step of somebody else when their time comes.
  const { sync } = LogSync.prototype;
  const disk = Promise.withResolvers<void>();
  const slow = t.mock.method(LogSync.prototype, 'sync', async function (this: LogSync) {
    await disk.promise;
    await sync.call(this);
  });
  const other = store.submit(wantedJob(), LIMITS);
  while (slow.mock.callCount() === 0) await setImmediate();
  const steps = t.mock.method(Writer.prototype, 'step');
  // Of these the first is when their time comes, and in each other one a timer that is due again has its chance.
  for (let turn = 0; turn < 50; turn++) {
    t.mock.timers.tick(1000);
    await setImmediate();
  }
  const asked = steps.mock.callCount();
  slow.mock.restore();
  disk.resolve();
  await other;
  assert.ok(asked > 0 && asked <= timedOut.length, `${asked} for ${timedOut.length}`);
  for (const { jobId } of timedOut) {
    for await (const event of store.watch(jobId, undefined, NEVER)) void event;
    assert.equal((await store.get(jobId))?.error?.reason, 'START_TIMEOUT');
  }
});
