// The Python client's own tests, against the real service: one result here for each of theirs.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Certificates } from './access/certificates.ts';
import { python, ROOT, startService } from './api/service.ts';

test('the Python client', { timeout: 600_000 }, async (t) => {
  await using service = await startService();
  using certificates = new Certificates();
  await using secure = await startOverTls(certificates);
  const child = spawn(python(), ['-m', 'pytest', '-p', 'no:cacheprovider', '-vv', '--no-header', '-rN', '--tb=short'], {
    cwd: join(ROOT, 'clients', 'python'),
    env: {
      ...process.env,
      FFJOBS_TEST_SERVER: service.baseUrl,
      FFJOBS_TEST_FOLDER: service.dir,
      FFJOBS_TEST_TLS_SERVER: secure.baseUrl,
      FFJOBS_TEST_CERTIFICATES: certificates.dir,
      PYTHONDONTWRITEBYTECODE: '1',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (said += data));
  const [code] = (await once(child, 'close')) as [number | null];
  const results = [...said.matchAll(/^\S+::(\S+(?: \S+)*?) (PASSED|FAILED|ERROR)/gm)];
  for (const [, name, result] of results) await t.test(name, () => assert.equal(result, 'PASSED', said));
  assert.equal(code, 0, said);
  assert.ok(results.length > 50, said);
});

/** A service whose certificate an authority of the test has signed, and that asks for a client certificate. */
async function startOverTls(certificates: Certificates) {
  for (const name of ['ca', 'other']) certificates.addAuthority(name);
  certificates.sign('server', 'ca', { subject: '/CN=localhost' });
  certificates.sign('client', 'ca', { subject: '/CN=studio' });
  const tenants = { certificates: [{ subject: 'CN=studio', tenant: 'studio', scopes: ['read', 'submit'] }] };
  await writeFile(certificates.path('tenants.json'), JSON.stringify(tenants));
  const service = await startService({
    TLS_CERT: certificates.path('server.pem'),
    TLS_KEY: certificates.path('server.key'),
    TLS_CLIENT_CA: certificates.path('ca.pem'),
    TENANTS: certificates.path('tenants.json'),
  });
  for (const name of ['face.jpg', 'target.png']) await cp(join(service.inputDir, name), join(service.inputDir, 'studio', name));
  return service;
}
