// What every job store keeps of tenants: what they have used, how many of their jobs run, and their API keys. Knows no backend.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { EngineInfoSchema, MediaResultSchema, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { JobStatus, WaitReason } from '../../src/jobs/job.ts';
import type { ApiKey } from '../../src/jobs/keys.ts';
import type { JobStore, Lease } from '../../src/jobs/ports.ts';
import { refusal } from './calls.ts';
import { wantedJob } from './job-store.ts';

export interface TenantStoreSettings {
  readonly maxRunning?: (tenant: string) => number | undefined;
  readonly now?: () => number;
}

export interface OpenedTenantStore {
  readonly store: JobStore;
  restart(): Promise<JobStore>;
  destroy(): Promise<void>;
}

const LIMITS = { maxQueued: 1000, idempotencyMs: 1000 };
const SUITE = { timeout: 120_000 };
const RUN = { slot: 'node/0', engine: create(EngineInfoSchema, { name: 'classical', version: '1' }) };
const NEVER = new AbortController().signal;
const DAY_MS = 86_400_000;

const key = (more: Partial<ApiKey> = {}): ApiKey => ({
  id: randomBytes(5).toString('hex'),
  name: 'farm',
  tenant: 'one',
  scopes: ['read', 'submit'],
  tier: '',
  hash: new Uint8Array(randomBytes(32)),
  createdMs: 1000,
  expiresMs: undefined,
  revokedMs: undefined,
  lastUsedMs: undefined,
  replacedBy: undefined,
  ...more,
});

const plain = (one: ApiKey | undefined) => one && { ...one, hash: Buffer.from(one.hash).toString('hex') };

export function describeTenantStore(name: string, factory: (settings?: TenantStoreSettings) => Promise<OpenedTenantStore>): void {
  const open = async (t: TestContext, settings?: TenantStoreSettings): Promise<OpenedTenantStore> => {
    const opened = await factory(settings);
    t.after(() => opened.destroy());
    return opened;
  };
  const complete = async (lease: Lease, bytes: bigint, gpuSeconds: number, sha256 = randomBytes(32).toString('hex')) => {
    await lease.begin(RUN);
    await lease.pin(sha256);
    const result = create(MediaResultSchema, { mediaType: 'image/jpeg', bytes, sha256, frames: 1 });
    return await lease.complete({ result, warnings: [], timings: create(TimingsSchema, { gpuSeconds }) });
  };
  describe(`${name}: what tenants use`, SUITE, () => {
    it('says whose a job is', async (t) => {
      const { store, restart } = await open(t);
      const { job } = await store.submit(wantedJob({ tenant: 'two' }), LIMITS);
      assert.equal(job.tenant, 'two');
      assert.equal((await (await restart()).get(job.jobId))!.tenant, 'two');
    });

    it('counts jobs, bytes and engine time of each tenant, and keeps them over a restart', async (t) => {
      const { store, restart } = await open(t);
      assert.deepEqual(await store.usage('one'), { queued: 0, running: 0, gpuSecondsToday: 0, storedBytes: 0 });
      for (let i = 0; i < 3; i++) await store.submit(wantedJob(), LIMITS);
      await store.submit(wantedJob({ tenant: 'two' }), LIMITS);
      const lease = (await store.claim({ node: 'n' }, NEVER))!;
      assert.equal((await store.usage(lease.job.tenant)).running, 1);
      await complete(lease, 1000n, 2.5);
      const other = (await store.claim({ node: 'n' }, NEVER))!;
      await other.begin(RUN);
      const failure = { reason: 'BROKEN', message: 'no', retryable: false, killedWorker: false };
      await other.fail({ ...failure, timings: create(TimingsSchema, { gpuSeconds: 1 }) });
      const sums = async (now: JobStore) => {
        const [one, two] = await Promise.all([now.usage('one'), now.usage('two')]);
        return [
          one.queued + two.queued,
          one.running + two.running,
          one.gpuSecondsToday + two.gpuSecondsToday,
          one.storedBytes + two.storedBytes,
        ];
      };
      assert.deepEqual(await sums(store), [2, 0, 3.5, 1000]);
      const again = await restart();
      assert.deepEqual(await sums(again), [2, 0, 3.5, 1000]);
      await again.purge(lease.job.jobId);
      await again.purge(lease.job.jobId);
      assert.deepEqual(await sums(again), [2, 0, 3.5, 0]);
    });

    it('counts a job that was running when the service ended no more', async (t) => {
      const { store, restart } = await open(t);
      await store.submit(wantedJob(), LIMITS);
      await (await store.claim({ node: 'n' }, NEVER))!.begin(RUN);
      const again = await restart();
      const { running, queued } = await again.usage('one');
      assert.deepEqual([running, queued], [0, 1]);
    });

    it('refuses a submit over the day’s engine time until the next day, and over the stored bytes until something is purged', async (t) => {
      let now = 20_000 * DAY_MS + 1000;
      const { store } = await open(t, { now: () => now });
      await store.submit(wantedJob(), LIMITS);
      const done = await complete((await store.claim({ node: 'n' }, NEVER))!, 500n, 10);
      const time = await refusal(store.submit(wantedJob(), { ...LIMITS, gpuSecondsPerDay: 10 }));
      assert.deepEqual([time.kind, time.reason, time.metadata.quota], ['exhausted', 'QUOTA_EXCEEDED', 'gpu_seconds_per_day']);
      assert.equal(time.retryAfterSeconds, 86_399);
      await store.submit(wantedJob(), { ...LIMITS, gpuSecondsPerDay: 10.5 });
      await store.submit(wantedJob({ tenant: 'two' }), { ...LIMITS, gpuSecondsPerDay: 0.1, storedBytes: 1 });
      now += DAY_MS;
      await store.submit(wantedJob(), { ...LIMITS, gpuSecondsPerDay: 10 });
      const bytes = await refusal(store.submit(wantedJob(), { ...LIMITS, storedBytes: 500 }));
      assert.deepEqual([bytes.reason, bytes.metadata.quota], ['QUOTA_EXCEEDED', 'stored_bytes']);
      await store.purge(done.jobId);
      await store.submit(wantedJob(), { ...LIMITS, storedBytes: 500 });
    });

    it('runs no more jobs of a tenant than it may, lets others pass, and goes on when one has ended', async (t) => {
      const { store } = await open(t, { maxRunning: (tenant) => (tenant === 'one' ? 2 : undefined) });
      const ids: string[] = [];
      for (let i = 0; i < 4; i++) ids.push((await store.submit(wantedJob(), LIMITS)).job.jobId);
      const leases = [(await store.claim({ node: 'n' }, NEVER))!, (await store.claim({ node: 'n' }, NEVER))!];
      const waiting = store.claim({ node: 'n' }, NEVER);
      const third = await store.get(ids[2]!);
      assert.deepEqual([third!.waitReason, third!.queuePosition], [WaitReason.QUOTA, 0]);
      const other = await store.submit(wantedJob({ tenant: 'two' }), LIMITS);
      const passed = (await waiting)!;
      assert.equal(passed.job.jobId, other.job.jobId);
      const next = store.claim({ node: 'n' }, NEVER);
      await leases[0]!.giveBack(WaitReason.SLOT);
      const first = (await next)!;
      assert.equal(first.job.jobId, ids[0]);
      const last = store.claim({ node: 'n' }, NEVER);
      await leases[1]!.begin(RUN);
      assert.equal((await store.usage('one')).running, 2);
      await leases[1]!.canceled();
      assert.equal((await last)!.job.jobId, ids[2]);
      assert.equal((await store.get(ids[1]!))!.status, JobStatus.CANCELED);
    });

    it('counts a tenant’s race for its running jobs right', async (t) => {
      const { store } = await open(t, { maxRunning: () => 3 });
      const leave = new AbortController();
      for (let i = 0; i < 10; i++) await store.submit(wantedJob(), LIMITS);
      const claims = Array.from({ length: 10 }, () => store.claim({ node: 'n' }, leave.signal));
      const got: string[] = [];
      const { promise: four, resolve } = Promise.withResolvers<void>();
      for (const claim of claims) void claim.then((lease) => lease && got.push(lease.job.tenant) === 4 && resolve());
      // A job that may run is given to a claim that waits; what the first tenant could get came before it.
      await store.submit(wantedJob({ tenant: 'two' }), LIMITS);
      await four;
      assert.deepEqual(got.sort(), ['one', 'one', 'one', 'two']);
      leave.abort();
      await Promise.all(claims);
    });
  });

  describe(`${name}: API keys`, SUITE, () => {
    it('keeps keys as they were given, over a restart', async (t) => {
      const { store, restart } = await open(t);
      const [a, b] = [key({ expiresMs: 5000, tier: 'gold' }), key({ tenant: 'two', createdMs: 2000, scopes: ['admin'] })];
      await store.keys.add(a);
      await store.keys.add(b);
      const holds = async ({ keys }: JobStore) => {
        assert.deepEqual(plain(await keys.find(a.id)), plain(a));
        assert.deepEqual((await keys.list(undefined)).map(plain), [b, a].map(plain));
        assert.deepEqual((await keys.list('one')).map(plain), [plain(a)]);
        assert.equal(await keys.find('nobody'), undefined);
      };
      await holds(store);
      await holds(await restart());
    });

    it('replaces a key once, and only one that works', async (t) => {
      const { keys } = (await open(t)).store;
      const [old, expired, revoked] = [key({ expiresMs: 9000 }), key({ expiresMs: 100 }), key()];
      for (const one of [old, expired, revoked]) await keys.add(one);
      await keys.revoke(revoked.id, 50);
      const times = { endsMs: 500, nowMs: 200 };
      const next = [key(), key()];
      assert.deepEqual(await Promise.all(next.map((one) => keys.add(one, { id: old.id, ...times }))), [true, false]);
      assert.equal(await keys.find(next[1]!.id), undefined);
      for (const id of [expired.id, revoked.id, 'nobody']) assert.equal(await keys.add(key(), { id, ...times }), false);
      const replaced = (await keys.find(old.id))!;
      assert.deepEqual([replaced.replacedBy, replaced.expiresMs], [next[0]!.id, 500]);
      const short = key({ expiresMs: 300 });
      await keys.add(short);
      await keys.add(key(), { id: short.id, ...times });
      assert.equal((await keys.find(short.id))!.expiresMs, 300);
    });

    it('revokes a key once', async (t) => {
      const { keys } = (await open(t)).store;
      const one = key();
      await keys.add(one);
      assert.equal((await keys.revoke(one.id, 70))!.revokedMs, 70);
      assert.equal((await keys.revoke(one.id, 80))!.revokedMs, 70);
      assert.equal(await keys.revoke('nobody', 80), undefined);
    });

    it('remembers when keys were last used, and never an earlier time', async (t) => {
      const { keys } = (await open(t)).store;
      const one = key();
      await keys.add(one);
      await keys.used(
        new Map([
          [one.id, 70],
          ['nobody', 5],
        ]),
      );
      await keys.used(new Map([[one.id, 60]]));
      assert.equal((await keys.find(one.id))!.lastUsedMs, 70);
    });
  });
}
