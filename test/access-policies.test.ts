import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import { create } from '@bufbuild/protobuf';
import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible';
import { CapabilitiesSchema } from '../gen/facefusion/worker/v1/worker_pb.js';
import { limitKeyOf, originOf } from '../src/access/addresses.ts';
import { type CertifiedSocket, certificateIdentities } from '../src/access/certificates.ts';
import { noPolicies, readPolicies } from '../src/access/policies.ts';
import { Rates, type RatesOptions } from '../src/access/rates.ts';
import type { Caller, Identity } from '../src/jobs/caller.ts';
import { JobsError } from '../src/jobs/errors.ts';
import { allowedCapabilities, deniedValues } from '../src/jobs/tenants.ts';
import { Certificates } from './access/certificates.ts';

const DEFAULTS = { queuedJobs: 1000, attestation: false, mark: { signed: false, label: '' } };

describe('where a call comes from', () => {
  const origin = originOf(['10.0.0.0/8', '192.168.7.7', 'fd00::/8', '::ffff:172.16.0.0/108']);
  const cases: [peer: string | undefined, forwarded: string | undefined, expected: string, local: boolean][] = [
    ['203.0.113.5', undefined, '203.0.113.5', false],
    ['::ffff:203.0.113.5', undefined, '203.0.113.5', false],
    ['127.0.0.1', undefined, '127.0.0.1', true],
    ['::1', undefined, '::1', true],
    ['::ffff:127.0.0.1', undefined, '127.0.0.1', true],
    [undefined, undefined, 'unknown', false],
    // Nobody chooses their own address.
    ['203.0.113.5', '127.0.0.1', '203.0.113.5', false],
    ['127.0.0.1', '198.51.100.1', '127.0.0.1', false],
    // Through a proxy of ours.
    ['10.1.2.3', '198.51.100.1', '198.51.100.1', false],
    ['10.1.2.3', '1.1.1.1, 198.51.100.1', '198.51.100.1', false],
    ['10.1.2.3', '1.1.1.1, 198.51.100.1, 192.168.7.7', '198.51.100.1', false],
    ['fd00::1', '198.51.100.1:4711, 10.9.9.9', '198.51.100.1', false],
    ['10.1.2.3', '[2001:db8::1]:443', '2001:db8::1', false],
    ['172.16.0.9', '198.51.100.1', '198.51.100.1', false],
    ['10.1.2.3', undefined, '10.1.2.3', false],
    ['10.1.2.3', '127.0.0.1', '127.0.0.1', false],
    // What is no address ends the search.
    ['10.1.2.3', '198.51.100.1, unknown', '10.1.2.3', false],
    ['10.1.2.3', '198.51.100.1, <script>, 10.0.0.1', '10.0.0.1', false],
    ['10.1.2.3', '', '10.1.2.3', false],
  ];
  for (const [peer, forwarded, address, local] of cases) {
    test(`${peer} says ${forwarded}: ${address}`, () => {
      assert.deepEqual(origin(peer, forwarded === undefined ? {} : { 'x-forwarded-for': forwarded }), { address, local });
    });
  }

  test('counts one network of IPv6 as one caller', () => {
    assert.equal(limitKeyOf('2001:db8:1:2:3:4:5:6'), limitKeyOf('2001:db8:1:2:ffff::1'));
    assert.notEqual(limitKeyOf('2001:db8:1:2::1'), limitKeyOf('2001:db8:1:3::1'));
    assert.equal(limitKeyOf('203.0.113.5'), '203.0.113.5');
  });

  test('does not take what is no block', () => assert.throws(() => originOf(['example.com'])));
});

describe('the operator’s file', () => {
  const FILE = {
    tiers: {
      gold: { submits_per_minute: 100, running_jobs: 4, stored_bytes: '2G', gpu_seconds_per_day: 3600.5 },
      tight: { queued_jobs: 2 },
    },
    everybody: { tier: 'tight', denied_options: { deep_swapper_model: ['*/real_*'] }, provenance: 'c2pa' },
    tenants: {
      studio: { tier: 'gold', weight: 3, input_root: '/mnt/studio', input_buckets: ['media', 'shared/studio/'], attestation: true },
      other: { denied_options: { deep_swapper_model: ['a*'], processors: ['age_modifier'] }, label: 'AI' },
    },
    certificates: [{ subject: 'CN=render-01,O=Studio', tenant: 'studio', scopes: ['read'] }],
  };

  test('is whole and defaulted', () => {
    const policies = readPolicies(JSON.stringify(FILE), DEFAULTS);
    const studio = policies.tenant('studio');
    assert.deepEqual(studio.quotas, { queuedJobs: 1000, runningJobs: 4, gpuSecondsPerDay: 3600.5, storedBytes: 2 ** 31 });
    assert.deepEqual([studio.submitsPerMinute, studio.weight, studio.inputRoot, studio.attestation], [100, 3, '/mnt/studio', true]);
    assert.deepEqual(studio.inputBuckets, ['media', 'shared/studio/']);
    assert.deepEqual(studio.denied.get('deep_swapper_model'), ['*/real_*']);
    const other = policies.tenant('other');
    assert.deepEqual(
      [studio.mark, other.mark],
      [
        { signed: true, label: '' },
        { signed: true, label: 'AI' },
      ],
    );
    assert.equal(other.quotas.queuedJobs, 2);
    assert.deepEqual(other.denied.get('deep_swapper_model'), ['*/real_*', 'a*']);
    assert.equal(policies.tenant('stranger').quotas.queuedJobs, 2);
    assert.deepEqual(policies.tenant('stranger').inputBuckets, []);
    assert.deepEqual(policies.certificates, [{ subject: 'CN=render-01,O=Studio', tenant: 'studio', scopes: new Set(['read']) }]);
    assert.equal(noPolicies(DEFAULTS).tenant('x').quotas.queuedJobs, 1000);
  });

  const wrong: [file: unknown, expected: RegExp][] = [
    ['{', /this is not JSON/],
    [[], /the file must be a JSON object/],
    [{ tenant: {} }, /there is no 'tenant'; there are: tiers, everybody, tenants, certificates/],
    [{ tenants: { a: { wieght: 1 } } }, /there is no 'tenants.a.wieght'/],
    [{ tenants: { a: { tier: 'x' } } }, /tenants.a.tier is "x"; allowed: 'x' is not among the tiers: none/],
    [{ tenants: { '../a': {} } }, /'..\/a' is no name of a tenant/],
    [{ tenants: { a: { weight: 0 } } }, /tenants.a.weight is 0; allowed: a number from 0.01 to 1000/],
    [{ tenants: { a: { weight: '3' } } }, /allowed: a number/],
    [{ tenants: { a: { input_root: 'media' } } }, /allowed: an absolute path/],
    [{ tenants: { a: { input_buckets: ['*'] } } }, /a list of bucket or bucket\/prefix/],
    [{ tenants: { a: { attestation: 'yes' } } }, /true or false/],
    [{ tenants: { a: { provenance: 'xmp' } } }, /tenants.a.provenance is "xmp"; allowed: c2pa, off/],
    [{ tenants: { a: { label: 'KI-erzeugt \u00fc' } } }, /ASCII/],
    [{ tenants: { a: { denied_options: ['x'] } } }, /must be a JSON object/],
    [{ tenants: { a: { denied_options: { x: 'y' } } } }, /tenants.a.denied_options.x is "y"; allowed: a list of texts/],
    [{ tiers: { a: { submits_per_minute: 1.5 } } }, /a whole number/],
    [{ tiers: { a: { stored_bytes: '5 GB' } } }, /a size such as/],
    [{ everybody: { input_root: '/mnt' } }, /would show each the files of the others/],
    [{ certificates: {} }, /allowed: a list/],
    [{ certificates: [{ tenant: 'a' }] }, /certificates\[0\].subject is missing/],
    [{ certificates: [{ subject: 'CN=a', scopes: ['write'] }] }, /a list of read, submit, admin/],
  ];
  for (const [file, expected] of wrong) {
    const text = typeof file === 'string' ? file : JSON.stringify(file);
    test(`${text} is refused`, () => assert.throws(() => readPolicies(text, DEFAULTS), expected));
  }
});

describe('options that a tenant may not use', () => {
  const denied = new Map([
    ['processors', ['deep_swapper']],
    ['deep_swapper_model', ['iperov/*', 'a.b(c']],
    ['face_swapper_model', ['hyper*v?']],
  ]);
  test('are found among resolved parameters, as whole values', () => {
    const found = deniedValues(
      {
        processors: ['face_swapper', 'deep_swapper'],
        deep_swapper_model: 'iperov/some_person_224',
        face_swapper_model: 'hyperswap_v2',
        other: 1,
      },
      denied,
    );
    assert.deepEqual(
      found.map((one) => [one.field, one.reason]),
      [
        ['parameters.processors', 'NOT_ALLOWED'],
        ['parameters.deep_swapper_model', 'NOT_ALLOWED'],
      ],
    );
    assert.deepEqual(deniedValues({ deep_swapper_model: 'xiperov/a', processors: 'face_swapper' }, denied), []);
    assert.equal(deniedValues({ deep_swapper_model: 'A.B(C' }, denied).length, 1);
    assert.equal(deniedValues({ deep_swapper_model: 'aXb(c' }, denied).length, 0);
  });
  test('are refused with what is allowed, and why', () => {
    const capabilities = create(CapabilitiesSchema, {
      processors: [{ name: 'face_swapper' }, { name: 'deep_swapper' }],
      options: [{ name: 'deep_swapper_model', choices: ['iperov/x', 'own/y'] }],
    });
    const found = deniedValues({ processors: ['deep_swapper'], deep_swapper_model: 'iperov/x' }, denied, capabilities);
    assert.deepEqual(
      found.map((one) => one.description),
      [
        "'deep_swapper' is not allowed for you: the operator of this service has put it on a list; allowed: face_swapper",
        "'iperov/x' is not allowed for you: the operator of this service has put it on a list; allowed: own/y",
      ],
    );
  });
  test('are not shown', () => {
    const capabilities = create(CapabilitiesSchema, {
      processors: [{ name: 'face_swapper' }, { name: 'deep_swapper' }],
      options: [
        { name: 'deep_swapper_model', processor: 'deep_swapper', choices: ['iperov/x'] },
        {
          name: 'face_swapper_model',
          choices: ['hyper_av?', 'inswapper'],
          dependentChoices: [{ option: 'face_swapper_model', value: 'hyper_av?' }],
        },
        { name: 'quality' },
      ],
    });
    const allowed = allowedCapabilities(capabilities, denied);
    assert.deepEqual(
      allowed.processors.map((one) => one.name),
      ['face_swapper'],
    );
    assert.deepEqual(
      allowed.options.map((one) => [one.name, one.choices, one.dependentChoices.length]),
      [
        ['face_swapper_model', ['inswapper'], 0],
        ['quality', [], 0],
      ],
    );
    assert.equal(allowedCapabilities(capabilities, new Map()), capabilities);
  });
  test('are found in no time, whatever the pattern', () => {
    const started = process.cpuUsage().user;
    deniedValues({ x: 'a'.repeat(10_000) }, new Map([['x', [`${'*a'.repeat(3)}${'*'.repeat(500)}b`]]]));
    assert.ok(process.cpuUsage().user - started < 2_000_000);
  });
});

describe('a client certificate', () => {
  const certificates = new Certificates();
  before(() => {
    for (const name of ['ca', 'other']) certificates.addAuthority(name);
    certificates.sign('server', 'ca', { subject: '/CN=localhost' });
    const names = 'DNS:Render-01.example.com,URI:spiffe://example.com/render';
    certificates.sign('render', 'ca', { subject: '/O=Studio, Inc./CN=render-01', names });
    certificates.sign('stranger', 'ca', { subject: '/CN=stranger', names: 'DNS:stranger.example.com' });
    certificates.sign('forged', 'other', { subject: '/O=Studio, Inc./CN=render-01', names: 'DNS:render-01.example.com' });
  });
  after(() => certificates[Symbol.dispose]());

  /** What the server's side makes of a connection with this certificate. */
  const seen = async (subject: string, client?: string): Promise<Identity | undefined> => {
    const identities = certificateIdentities([{ subject, tenant: 'studio', scopes: new Set(['read']) }]);
    const server = tls.createServer({
      ...certificates.pair('server'),
      ca: certificates.read('ca.pem'),
      requestCert: true,
      rejectUnauthorized: false,
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const connection = tls.connect({
      port: (server.address() as AddressInfo).port,
      host: '127.0.0.1',
      rejectUnauthorized: false,
      ...certificates.pair(client),
    });
    connection.on('error', () => {});
    try {
      const [socket] = (await once(server, 'secureConnection')) as [CertifiedSocket];
      return identities(socket);
    } finally {
      connection.destroy();
      server.close();
    }
  };

  test('stands for a tenant by its subject or by one of its names', async () => {
    for (const subject of [
      'CN=render-01,O=Studio\\, Inc.',
      'cn=render-01, o=Studio\\, Inc.',
      'DNS:render-01.EXAMPLE.com',
      'URI:spiffe://example.com/render',
    ]) {
      const identity = await seen(subject, 'render');
      assert.deepEqual([identity?.tenant, identity?.name], ['studio', `certificate:${subject}`], subject);
      assert.ok(identity!.expiresMs! > Date.now());
    }
  });
  test('that is not listed, or of another authority, is refused; none is none', async () => {
    await assert.rejects(seen('CN=render-01,O=Studio\\, Inc.', 'stranger'), /CN=stranger stands for no tenant here/);
    await assert.rejects(seen('CN=render-01,O=Studio\\, Inc.', 'forged'), /the client certificate is not taken/);
    await assert.rejects(seen('CN=render-01', 'render'), /stands for no tenant/);
    assert.equal(await seen('CN=render-01,O=Studio\\, Inc.'), undefined);
  });
});

describe('how often a caller may submit', () => {
  const policies = readPolicies(
    JSON.stringify({
      tiers: { slow: { submits_per_minute: 2 }, fast: { submits_per_minute: 10 }, free: {} },
      tenants: { studio: { tier: 'slow' } },
    }),
    DEFAULTS,
  );
  const options: RatesOptions = {
    limiter: (name, { points, seconds }) => new RateLimiterMemory({ keyPrefix: name, points, duration: seconds }),
    anonymous: { points: 5, seconds: 60 },
    countLocal: false,
    policies,
  };
  const caller = (more: Partial<Identity> = {}, address = '203.0.113.5', local = false): Caller => ({
    identity: {
      kind: 'key',
      tenant: 'studio',
      name: 'key:a',
      scopes: new Set(),
      tier: undefined,
      expiresMs: undefined,
      seesAll: false,
      ...more,
    },
    address,
    local,
  });
  const stranger = (address?: string, local?: boolean) =>
    caller({ kind: 'anonymous', tenant: 'anonymous', name: 'anonymous' }, address, local);
  const limited = async (call: Promise<unknown>) => {
    const error = await call.then(
      () => assert.fail('expected a refusal'),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof JobsError);
    assert.deepEqual([error.kind, error.reason], ['exhausted', 'RATE_LIMITED']);
    return error;
  };

  test('is counted by address for strangers, each its own', async () => {
    const rates = new Rates(options);
    const left = [];
    for (let i = 0; i < 5; i++) left.push((await rates.submit(stranger(), 1))!.remaining);
    assert.deepEqual(left, [4, 3, 2, 1, 0]);
    const error = await limited(rates.submit(stranger(), 1));
    assert.ok(error.retryAfterSeconds! > 50 && error.retryAfterSeconds! <= 60);
    assert.equal((await rates.submit(stranger('203.0.113.6'), 1))!.limit, 5);
  });

  test('does not matter on this machine, unless it is configured to', async () => {
    assert.equal(await new Rates(options).submit(stranger('127.0.0.1', true), 1), undefined);
    assert.equal((await new Rates({ ...options, countLocal: true }).submit(stranger('127.0.0.1', true), 1))!.remaining, 4);
    assert.equal(await new Rates({ ...options, anonymous: undefined }).submit(stranger(), 1), undefined);
  });

  test('is counted by tenant for all of its callers, and by key where the key has a tier', async () => {
    const rates = new Rates(options);
    await rates.submit(caller({ name: 'key:a' }), 1);
    await rates.submit(caller({ name: 'key:b' }), 1);
    await limited(rates.submit(caller({ name: 'key:c' }), 1));
    assert.equal((await rates.submit(caller({ name: 'key:d', tier: 'fast' }), 1))!.remaining, 9);
    assert.equal(await rates.submit(caller({ name: 'key:e', tier: 'free' }), 1), undefined);
    assert.equal(await rates.submit(caller({ tenant: 'unlisted' }), 1), undefined);
  });

  test('counts the jobs of a batch, and one that does not fit takes nothing away', async () => {
    const rates = new Rates(options);
    assert.equal((await rates.submit(stranger(), 3))!.remaining, 2);
    await limited(rates.submit(stranger(), 3));
    const never = await limited(rates.submit(stranger(), 6));
    assert.equal(never.retryAfterSeconds, undefined);
    assert.equal((await rates.submit(stranger(), 2))!.remaining, 0);
  });

  test('lets calls through while the counter does not answer, and says so', async () => {
    const problems: unknown[] = [];
    class Broken extends RateLimiterMemory {
      override consume(): Promise<RateLimiterRes> {
        return Promise.reject(new Error('no answer'));
      }
    }
    const rates = new Rates({
      ...options,
      limiter: () => new Broken({ points: 1, duration: 1 }),
      onProblem: (error) => problems.push(error),
    });
    assert.equal(await rates.submit(stranger(), 1), undefined);
    assert.equal(problems.length, 1);
  });
});
