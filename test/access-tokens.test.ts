import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { before, beforeEach, describe, test } from 'node:test';
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose';
import { Jwks, jwksAt } from '../src/access/jwks.ts';
import { Tokens, type TokensOptions } from '../src/access/tokens.ts';
import { JobsError } from '../src/jobs/errors.ts';

type Pair = Awaited<ReturnType<typeof generateKeyPair>>;

const ISSUER = 'https://id.example.com';
const SECRET = new TextEncoder().encode('0123456789abcdef0123456789abcdef');
const NOW = Date.UTC(2026, 0, 1);
const OPTIONS: TokensOptions = {
  issuer: ISSUER,
  audience: 'ffjobs',
  tenantClaim: 'tenant',
  scopeClaim: 'scope',
  scopePrefix: '',
  now: () => NOW,
};

const claims = (more: JWTPayload = {}): JWTPayload => ({ sub: 'anna', tenant: 'studio', scope: 'read submit', ...more });

function token(key: Parameters<SignJWT['sign']>[0], alg: string, more: JWTPayload = {}, header: object = {}): Promise<string> {
  return new SignJWT({ iss: ISSUER, aud: 'ffjobs', exp: NOW / 1000 + 60, ...claims(more) })
    .setProtectedHeader({ alg, ...header })
    .sign(key);
}

async function outcome(call: Promise<unknown>): Promise<string> {
  return await call.then(
    () => 'taken',
    (error: unknown) => (error instanceof JobsError ? error.reason : `not ours: ${String(error)}`),
  );
}

describe('a token with a shared secret', () => {
  const tokens = new Tokens({ ...OPTIONS, secret: SECRET });

  test('says who calls and until when', async () => {
    assert.deepEqual(await tokens.verify(await token(SECRET, 'HS256')), {
      kind: 'jwt',
      tenant: 'studio',
      name: 'jwt:anna',
      scopes: new Set(['read', 'submit']),
      tier: undefined,
      expiresMs: NOW + 65_000,
      seesAll: false,
    });
  });

  const refused: [name: string, make: () => Promise<string> | string, expected: string][] = [
    ['another secret', () => token(new TextEncoder().encode('f'.repeat(32)), 'HS256'), 'CREDENTIALS_INVALID'],
    ['another issuer', () => token(SECRET, 'HS256', { iss: 'https://evil.example.com' }), 'CREDENTIALS_INVALID'],
    ['another audience', () => token(SECRET, 'HS256', { aud: 'other' }), 'CREDENTIALS_INVALID'],
    ['an end that has passed', () => token(SECRET, 'HS256', { exp: NOW / 1000 - 6 }), 'CREDENTIALS_EXPIRED'],
    ['an end that has passed within the tolerance', () => token(SECRET, 'HS256', { exp: NOW / 1000 - 4 }), 'taken'],
    ['no end', () => token(SECRET, 'HS256', { exp: undefined }), 'CREDENTIALS_INVALID'],
    ['a beginning that has not come', () => token(SECRET, 'HS256', { nbf: NOW / 1000 + 60 }), 'CREDENTIALS_INVALID'],
    [
      'no signature',
      () => new UnsecuredJWT({ ...claims(), iss: ISSUER, aud: 'ffjobs', exp: NOW / 1000 + 60 }).encode(),
      'CREDENTIALS_INVALID',
    ],
    ['no tenant', () => token(SECRET, 'HS256', { tenant: undefined }), 'CREDENTIALS_INVALID'],
    ['a tenant that is a path', () => token(SECRET, 'HS256', { tenant: '../other' }), 'CREDENTIALS_INVALID'],
    ['a tenant that is a list', () => token(SECRET, 'HS256', { tenant: ['studio'] }), 'CREDENTIALS_INVALID'],
    ['a header that is no JSON', () => 'aaaa.bbbb.cccc', 'CREDENTIALS_INVALID'],
    [
      'critical headers that nobody knows',
      () => token(SECRET, 'HS256', {}, { crit: ['x'], x: 1 }).catch(() => 'a.b.c'),
      'CREDENTIALS_INVALID',
    ],
  ];
  for (const [name, make, expected] of refused) {
    test(`and ${name}: ${expected}`, async () => assert.equal(await outcome(tokens.verify(await make())), expected));
  }

  test('gives no scope that is not there', async () => {
    for (const scope of [undefined, '', 'write', 'READ', 7, { read: true }]) {
      assert.equal((await tokens.verify(await token(SECRET, 'HS256', { scope }))).scopes.size, 0, String(scope));
    }
  });

  test('has tenant and scopes wherever the configuration says', async () => {
    const other = new Tokens({
      ...OPTIONS,
      secret: SECRET,
      tenantClaim: '/org/https:~1~1x/id',
      scopeClaim: 'permissions',
      scopePrefix: 'ff:',
    });
    const identity = await other.verify(
      await token(SECRET, 'HS256', { org: { 'https://x': { id: 'acme' } }, permissions: ['ff:admin', 'read', 'ff:', 'ff:other'] }),
    );
    assert.deepEqual([identity.tenant, [...identity.scopes], identity.seesAll], ['acme', ['admin'], true]);
    const single = new Tokens({ ...OPTIONS, secret: SECRET, tenantClaim: '' });
    assert.equal((await single.verify(await token(SECRET, 'HS256', { tenant: undefined }))).tenant, 'default');
    assert.equal(
      await outcome(new Tokens({ ...OPTIONS, secret: SECRET, tenantClaim: 'toString' }).verify(await token(SECRET, 'HS256'))),
      'CREDENTIALS_INVALID',
    );
  });

  test('has a subject that cannot garble a log', async () => {
    const { name } = await tokens.verify(await token(SECRET, 'HS256', { sub: `a\n"b" ${'x'.repeat(500)}` }));
    assert.match(name, /^jwt:a_"b"_x{122}$/);
  });
});

describe('a token of an identity provider', () => {
  let pair: Pair;
  let other: Pair;
  let now: number;
  let loads: number;
  let answer: () => Promise<unknown>;
  let jwks: Jwks;
  let tokens: Tokens;
  before(async () => {
    [pair, other] = await Promise.all([generateKeyPair('RS256', { extractable: true }), generateKeyPair('ES256', { extractable: true })]);
  });
  const setOf = async (...named: [kid: string, pair: Pair][]) => ({
    keys: await Promise.all(named.map(async ([kid, { publicKey }]) => ({ ...(await exportJWK(publicKey)), kid }))),
  });
  beforeEach(() => {
    now = NOW;
    loads = 0;
    answer = () => setOf(['one', pair]);
    jwks = new Jwks({
      now: () => now,
      load: () => {
        loads++;
        return answer();
      },
    });
    tokens = new Tokens({ ...OPTIONS, jwks });
  });

  test('is checked with the provider’s keys, which are fetched once', async () => {
    const text = await token(pair.privateKey, 'RS256', {}, { kid: 'one' });
    await Promise.all(Array.from({ length: 20 }, () => tokens.verify(text)));
    assert.equal(loads, 1);
    assert.equal(await outcome(tokens.verify(await token(other.privateKey, 'ES256', {}, { kid: 'one' }))), 'CREDENTIALS_INVALID');
  });

  test('with a public key used as a secret is refused', async () => {
    const { n } = await exportJWK(pair.publicKey);
    const forged = await token(Buffer.from(n!, 'base64url'), 'HS256', {}, { kid: 'one' });
    assert.equal(await outcome(tokens.verify(forged)), 'CREDENTIALS_INVALID');
    const both = new Tokens({ ...OPTIONS, jwks, secret: SECRET });
    assert.equal(await outcome(both.verify(forged)), 'CREDENTIALS_INVALID');
    assert.equal(await outcome(both.verify(await token(SECRET, 'HS512'))), 'taken');
    assert.equal(await outcome(both.verify(await token(pair.privateKey, 'RS256', {}, { kid: 'one' }))), 'taken');
  });

  test('with a new key makes the set be fetched again, once in a while', async () => {
    await tokens.verify(await token(pair.privateKey, 'RS256', {}, { kid: 'one' }));
    answer = () => setOf(['one', pair], ['two', other]);
    const text = await token(other.privateKey, 'ES256', {}, { kid: 'two' });
    assert.equal(await outcome(tokens.verify(text)), 'CREDENTIALS_INVALID');
    assert.equal(loads, 1);
    now += 30_000;
    assert.equal(await outcome(tokens.verify(text)), 'taken');
    const unknown = await token(other.privateKey, 'ES256', {}, { kid: 'three' });
    for (let i = 0; i < 10; i++) assert.equal(await outcome(tokens.verify(unknown)), 'CREDENTIALS_INVALID');
    assert.equal(loads, 2);
  });

  test('is checked with the keys fetched last while the provider is not reached, for a day', async () => {
    const text = await token(pair.privateKey, 'RS256', { exp: NOW / 1000 + 10 * 86_400 }, { kid: 'one' });
    const patient = new Tokens({ ...OPTIONS, jwks, now: () => now });
    await patient.verify(text);
    answer = () => Promise.reject(new Error('connection refused'));
    now += 86_400_000 - 1;
    assert.equal(await outcome(patient.verify(text)), 'taken');
    await jwks.refresh();
    now += 40_000;
    assert.equal(await outcome(patient.verify(text)), 'IDENTITY_UNAVAILABLE');
    now += 40_000;
    answer = () => setOf(['one', pair]);
    assert.equal(await outcome(patient.verify(text)), 'taken');
  });

  test('cannot be judged before the provider was reached, which is not the caller’s fault', async () => {
    const problems: unknown[] = [];
    for (const bad of [() => Promise.reject(new Error('no')), async () => ({ keys: 'no' }), async () => undefined]) {
      answer = bad;
      const fresh = new Tokens({
        ...OPTIONS,
        jwks: new Jwks({ now: () => now, load: () => answer(), onProblem: (error) => problems.push(error) }),
      });
      assert.equal(await outcome(fresh.verify(await token(pair.privateKey, 'RS256', {}, { kid: 'one' }))), 'IDENTITY_UNAVAILABLE');
    }
    assert.equal(problems.length, 3);
  });

  test('is served from keys that come over http, however they come', async () => {
    const set = JSON.stringify(await setOf(['one', pair]));
    let reply: [status: number, headers: Record<string, string>, body: string] = [200, {}, set];
    const server = createServer((_request, response) => {
      response.writeHead(reply[0], reply[1]).end(reply[2]);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const load = jwksAt(`http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`);
    const signal = AbortSignal.timeout(10_000);
    assert.deepEqual(await load(signal), JSON.parse(set));
    for (const wrong of [
      [500, {}, 'no'],
      [302, { location: '/other' }, ''],
      [200, {}, '<html>'],
      [200, {}, `"${'x'.repeat(1 << 20)}"`],
    ] as (typeof reply)[]) {
      reply = wrong;
      await assert.rejects(load(signal));
    }
    server.closeAllConnections();
    server.close();
  });
});
