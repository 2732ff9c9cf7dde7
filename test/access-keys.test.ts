import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { Expiring } from '../src/access/expiring.ts';
import { Identities } from '../src/access/identities.ts';
import { Keyring } from '../src/access/keys.ts';
import { Lifetimes } from '../src/access/lifetimes.ts';
import { JobsError } from '../src/jobs/errors.ts';
import type { NewKey } from '../src/jobs/keys.ts';
import { MemoryKeys } from './access/memory-keys.ts';

const WANTED: NewKey = { name: 'farm', tenant: 'studio', scopes: ['read', 'submit'], tier: '', ttlMs: undefined };

const reasonOf = async (call: Promise<unknown> | (() => unknown)) => {
  try {
    await (typeof call === 'function' ? call() : call);
  } catch (error) {
    assert.ok(error instanceof JobsError, String(error));
    return error.reason;
  }
  return 'taken';
};

describe('API keys', () => {
  let now: number;
  let store: MemoryKeys;
  let keys: Keyring;
  beforeEach(() => {
    now = Date.UTC(2026, 0, 1);
    store = new MemoryKeys();
    keys = new Keyring({ store, now: () => now, tiers: new Set(['gold']) });
  });

  test('are shown whole once, and only a hash is kept', async () => {
    const { key, secret } = await keys.create(WANTED);
    assert.match(secret, /^ffj_[a-z2-7]{10}_[a-z2-7]{40}$/);
    assert.ok(secret.startsWith(`ffj_${key.id}_`));
    const kept = JSON.stringify([...store.keys.values()], (_, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
    );
    assert.ok(!kept.includes(secret.slice(-40)));
    assert.notEqual((await keys.create(WANTED)).secret, secret);
  });

  test('give their tenant, scopes and tier', async () => {
    const { key, secret } = await keys.create({ ...WANTED, scopes: ['admin'], tier: 'gold', ttlMs: 1000 });
    const identity = await keys.verify(secret);
    assert.deepEqual(identity, {
      kind: 'key',
      tenant: 'studio',
      name: `key:${key.id}`,
      scopes: new Set(['admin']),
      tier: 'gold',
      expiresMs: now + 1000,
      seesAll: true,
    });
  });

  test('of no tenant are the default one’s, without scopes they read and submit', async () => {
    const { key } = await keys.create({ ...WANTED, tenant: '', scopes: [] });
    assert.equal(key.tenant, 'default');
    assert.deepEqual(key.scopes, ['read', 'submit']);
  });

  test('with a wrong secret are not told from unknown ones', async () => {
    const { secret } = await keys.create(WANTED);
    const wrong = secret.slice(0, -1) + (secret.endsWith('a') ? 'b' : 'a');
    const errors = await Promise.all(
      [wrong, `ffj_aaaaaaaaaa_${'b'.repeat(40)}`, 'ffj_', `${secret}x`, secret.toUpperCase(), ''].map((text) =>
        keys.verify(text).then(
          () => 'taken',
          (error: JobsError) => `${error.reason}: ${error.message}`,
        ),
      ),
    );
    assert.deepEqual([...new Set(errors)], ['CREDENTIALS_INVALID: this is no API key of this service']);
  });

  test('end when they expire and when they are revoked, and stay in the list', async () => {
    const { key, secret } = await keys.create({ ...WANTED, ttlMs: 1000 });
    now += 999;
    await keys.verify(secret);
    now += 1;
    assert.equal(await reasonOf(keys.verify(secret)), 'CREDENTIALS_EXPIRED');
    const other = await keys.create(WANTED);
    const revoked = await keys.revoke(other.key.id);
    assert.equal(revoked.revokedMs, now);
    assert.equal(await reasonOf(keys.verify(other.secret)), 'CREDENTIALS_EXPIRED');
    now += 5;
    assert.equal((await keys.revoke(other.key.id)).revokedMs, revoked.revokedMs);
    assert.deepEqual(new Set((await keys.list(undefined)).map((one) => one.id)), new Set([key.id, other.key.id]));
    assert.equal(await reasonOf(keys.revoke('nobody')), 'KEY_NOT_FOUND');
  });

  test('are rotated with an overlap, in which both work', async () => {
    const old = await keys.create({ ...WANTED, ttlMs: 100_000 });
    now += 10;
    const next = await keys.rotate(old.key.id, { overlapMs: 1000, ttlMs: undefined });
    assert.equal(next.replaced.replacedBy, next.key.id);
    assert.equal(next.replaced.expiresMs, now + 1000);
    assert.equal(next.key.expiresMs, now + 100_000);
    assert.deepEqual([next.key.tenant, next.key.scopes, next.key.name], ['studio', ['read', 'submit'], 'farm']);
    await keys.verify(old.secret);
    await keys.verify(next.secret);
    now += 1000;
    assert.equal(await reasonOf(keys.verify(old.secret)), 'CREDENTIALS_EXPIRED');
    await keys.verify(next.secret);
    assert.equal(await reasonOf(keys.rotate(old.key.id, { overlapMs: 0, ttlMs: undefined })), 'KEY_ENDED');
    assert.equal(await reasonOf(keys.rotate('nobody', { overlapMs: 0, ttlMs: undefined })), 'KEY_NOT_FOUND');
  });

  test('of which one is rotated by two at once have one successor', async () => {
    const { key } = await keys.create(WANTED);
    const both = await Promise.all([1, 2].map(() => reasonOf(keys.rotate(key.id, { overlapMs: 0, ttlMs: undefined }))));
    assert.deepEqual(both.sort(), ['KEY_ENDED', 'taken']);
    assert.equal((await keys.list(undefined)).length, 2);
  });

  test('never live longer for an overlap', async () => {
    const { key } = await keys.create({ ...WANTED, ttlMs: 1000 });
    const { replaced } = await keys.rotate(key.id, { overlapMs: 1_000_000, ttlMs: 5 });
    assert.equal(replaced.expiresMs, key.expiresMs);
  });

  test('of an impossible tenant or an unknown tier are not made', async () => {
    for (const tenant of ['../etc', '.hidden', 'a/b', 'a b', 'x'.repeat(65), 'ä']) {
      assert.equal(await reasonOf(keys.create({ ...WANTED, tenant })), 'INVALID_REQUEST', tenant);
    }
    assert.equal(await reasonOf(keys.create({ ...WANTED, tier: 'silver' })), 'INVALID_REQUEST');
  });

  test('have the time of their last use written at the end at the latest, and shown before', async () => {
    const { key, secret } = await keys.create(WANTED);
    now += 7;
    await keys.verify(secret);
    assert.equal((await keys.list(undefined))[0]!.lastUsedMs, now);
    assert.equal(store.keys.get(key.id)!.lastUsedMs, undefined);
    await keys[Symbol.asyncDispose]();
    assert.equal(store.keys.get(key.id)!.lastUsedMs, now);
  });
});

describe('who calls', () => {
  let now: number;
  let store: MemoryKeys;
  let keys: Keyring;
  let secret: string;
  let id: string;
  beforeEach(async () => {
    now = Date.UTC(2026, 0, 1);
    store = new MemoryKeys();
    keys = new Keyring({ store, now: () => now, tiers: new Set() });
    const created = await keys.create(WANTED);
    secret = created.secret;
    id = created.key.id;
  });
  const socket = {};
  const open = (more: Partial<ConstructorParameters<typeof Identities>[0]> = {}) =>
    new Identities({ keys, anonymous: undefined, now: () => now, rememberMs: 1000, ...more });

  test('is known at once the second time, until the verdict is too old', async () => {
    const identities = open();
    const headers = { authorization: `Bearer ${secret}` };
    const first = identities.identify(headers, socket);
    assert.ok(first instanceof Promise);
    const identity = await first;
    assert.equal(identities.identify(headers, socket), identity);
    assert.equal(identities.identify({ 'x-api-key': secret }, socket), identity);
    now += 1000;
    assert.ok(identities.identify(headers, socket) instanceof Promise);
    assert.equal(store.finds, 1 + 1);
  });

  test('is not who was revoked elsewhere, a second later; calls that come meanwhile share one look', async () => {
    const identities = new Identities({ keys, anonymous: undefined, now: () => now });
    const headers = { 'x-api-key': secret };
    await Promise.all(Array.from({ length: 50 }, () => identities.identify(headers, socket)));
    assert.equal(store.finds, 1);
    await store.revoke(id, now);
    assert.equal((await identities.identify(headers, socket)).name, `key:${id}`);
    now += 1000;
    assert.equal(await reasonOf(async () => await identities.identify(headers, socket)), 'CREDENTIALS_EXPIRED');
  });

  test('is not who was revoked, from the moment that this process did it', async () => {
    const identities = open();
    keys.onChange = () => identities.forget();
    await identities.identify({ 'x-api-key': secret }, socket);
    await keys.revoke(id);
    assert.equal(await reasonOf(async () => await identities.identify({ 'x-api-key': secret }, socket)), 'CREDENTIALS_EXPIRED');
  });

  test('is not who has expired, though remembered', async () => {
    const identities = open({ rememberMs: 1_000_000 });
    const short = await keys.create({ ...WANTED, ttlMs: 500 });
    await identities.identify({ 'x-api-key': short.secret }, socket);
    now += 500;
    assert.equal(await reasonOf(async () => await identities.identify({ 'x-api-key': short.secret }, socket)), 'CREDENTIALS_EXPIRED');
  });

  test('is refused without a credential, and with one that is not taken', async () => {
    const identities = open();
    const given: [headers: Record<string, string>, expected: string][] = [
      [{}, 'CREDENTIALS_MISSING'],
      [{ 'x-api-key': '' }, 'CREDENTIALS_MISSING'],
      [{ authorization: '' }, 'CREDENTIALS_INVALID'],
      [{ authorization: 'Bearer' }, 'CREDENTIALS_INVALID'],
      [{ authorization: 'Bearer ' }, 'CREDENTIALS_INVALID'],
      [{ authorization: `Basic ${secret}` }, 'CREDENTIALS_INVALID'],
      [{ authorization: secret }, 'CREDENTIALS_INVALID'],
      [{ authorization: 'Bearer a.b.c' }, 'CREDENTIALS_INVALID'],
      [{ authorization: `Bearer ${secret}`, 'x-api-key': `${secret}2` }, 'CREDENTIALS_INVALID'],
      [{ authorization: `Bearer ${secret}, Bearer ${secret}` }, 'CREDENTIALS_INVALID'],
      [{ authorization: `bearer  ${secret}` }, 'taken'],
      [{ authorization: `Bearer ${secret}`, 'x-api-key': secret }, 'taken'],
    ];
    for (const [headers, expected] of given) {
      assert.equal(await reasonOf(async () => await identities.identify(headers, socket)), expected, JSON.stringify(headers));
    }
  });

  test('is a stranger where strangers are let in, beside the tenants; but a wrong credential is refused there too', async () => {
    const identities = open({ anonymous: new Set(['read']) });
    const stranger = await identities.identify({}, socket);
    assert.deepEqual([stranger.tenant, stranger.kind, stranger.seesAll], ['anonymous', 'anonymous', false]);
    assert.equal(await reasonOf(async () => await identities.identify({ 'x-api-key': 'ffj_x' }, socket)), 'CREDENTIALS_INVALID');
  });

  test('is everybody where no identities are configured, whatever header a proxy leaves', async () => {
    const identities = new Identities({ anonymous: new Set(['read', 'submit', 'admin']) });
    const stranger = await identities.identify({ authorization: 'Basic abc' }, socket);
    assert.deepEqual([stranger.tenant, stranger.seesAll], ['default', true]);
  });

  test('that was remembered is bounded in number', () => {
    const recent = new Expiring<number>(100);
    for (let n = 0; n < 10_000; n++) {
      recent.set(`k${n}`, n, 10);
      assert.equal(recent.get('k0', 0), 0);
    }
    const held = Array.from({ length: 10_000 }, (_, n) => recent.get(`k${n}`, 0)).filter((one) => one !== undefined);
    assert.ok(held.length <= 101, `${held.length}`);
    assert.equal(recent.get('k9999', 10), undefined);
  });
});

describe('a stream', () => {
  const identity = { kind: 'key' as const, tenant: 't', name: 'key:a', scopes: new Set<never>(), tier: undefined, seesAll: false };

  test('is told once when its credential ends by time, and not when it has left', async (t) => {
    t.mock.timers.enable({ apis: ['setInterval', 'Date'], now: 0 });
    using lifetimes = new Lifetimes({ recheck: async (one) => one });
    const told: string[] = [];
    const held = { ...identity, expiresMs: 2500 };
    lifetimes.hold(held, (reason) => told.push(`a ${reason.reason}`));
    lifetimes.hold(held, (reason) => told.push(`b ${reason.reason}`));
    lifetimes.hold(held, () => told.push('c'))();
    t.mock.timers.tick(2000);
    assert.deepEqual(told, []);
    t.mock.timers.tick(1000);
    assert.deepEqual(told, ['a CREDENTIALS_EXPIRED', 'b CREDENTIALS_EXPIRED']);
    t.mock.timers.tick(5000);
    assert.equal(told.length, 2);
  });

  test('is told when its key was revoked, here at once and elsewhere with the next look, and outlives a store that does not answer', async (t) => {
    t.mock.timers.enable({ apis: ['setInterval', 'Date'], now: 0 });
    let now: 'works' | 'revoked' | 'silent' = 'silent';
    let looks = 0;
    using lifetimes = new Lifetimes({
      recheckMs: 5000,
      recheck: async (one) => {
        looks++;
        if (now === 'revoked') throw new JobsError('unauthenticated', 'CREDENTIALS_EXPIRED', 'revoked');
        if (now === 'silent') throw new Error('no answer');
        return one;
      },
    });
    const told: string[] = [];
    const settle = () => new Promise((resolve) => setImmediate(resolve));
    lifetimes.hold({ ...identity, expiresMs: undefined }, (reason) => told.push(reason.message));
    t.mock.timers.tick(5000);
    await settle();
    assert.deepEqual([looks, told], [1, []]);
    now = 'revoked';
    t.mock.timers.tick(4000);
    await settle();
    assert.deepEqual(told, []);
    await lifetimes.recheck();
    assert.deepEqual(told, ['revoked']);
  });
});
