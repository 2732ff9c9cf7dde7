// Where tenants' media come from: a node that knows of no identities takes nobody's for anybody else's.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadPolicies } from '../src/access/access.ts';
import { openPlaces, type Places } from '../src/app/places.ts';
import { policyDefaults, readConfig } from '../src/config.ts';

async function placesWith(env: Record<string, string>): Promise<Places> {
  const config = readConfig({ FFJOBS_ENGINE: 'classical', FFJOBS_HTTP_INPUTS: 'off', ...env }, '/nowhere');
  const nothing = { schemes: [], check: async () => undefined, fetch: () => Promise.reject(new Error('not in this test')) };
  const policies = await loadPolicies(undefined, policyDefaults(config));
  return await openPlaces({ config, policies, given: [], uploads: nothing, jobs: nothing, leftOver: assert.fail, open: (_, one) => one });
}

test('without identities there is one tenant, and a job of another is somebody else’s to run', async () => {
  const places = await placesWith({});
  assert.ok(places.references('default'));
  for (const ask of [places.references, places.outputs]) {
    assert.throws(() => ask('studio'), { kind: 'unavailable', reason: 'TENANT_NOT_SERVED', message: /same settings of identities/ });
  }
});

test('with identities each tenant has places of its own', async () => {
  const places = await placesWith({ FFJOBS_API_KEYS: 'on' });
  assert.notEqual(places.references('studio'), places.references('rival'));
});
