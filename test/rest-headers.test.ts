import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LazyHeaders } from '../src/rest/headers.ts';

const incoming = { ':path': '/', host: 'x', cookie: 'a=1; b=2', 'set-cookie': ['c=3', 'd=4'], 'x-many': '1, 2' };
const real = () => {
  const headers = new Headers({ host: 'x', cookie: 'a=1; b=2', 'x-many': '1, 2' });
  for (const cookie of incoming['set-cookie']) headers.append('set-cookie', cookie);
  return headers;
};

test('look-ups are those of a Headers object', () => {
  const headers = new LazyHeaders(incoming);
  for (const name of ['host', 'HOST', 'cookie', 'set-cookie', 'x-many', 'nope', '__proto__', 'constructor', 'toString']) {
    assert.equal(headers.get(name), real().get(name), name);
    assert.equal(headers.has(name), real().has(name), name);
  }
  assert.deepEqual([headers.get(':path'), headers.has(':path')], [null, false]);
});

test('it is a Headers object, and a copy of it has everything', () => {
  const headers = new LazyHeaders(incoming);
  assert.ok(headers instanceof Headers);
  assert.deepEqual([...new Headers(headers)], [...real()]);
  assert.deepEqual([...headers], [...real()]);
  assert.deepEqual([...headers.keys()], [...real().keys()]);
  assert.deepEqual([...headers.values()], [...real().values()]);
  assert.deepEqual([...headers.entries()], [...real().entries()]);
  assert.deepEqual(headers.getSetCookie(), real().getSetCookie());
});

test('a change is seen by every later look-up, and does not reach the request', () => {
  const headers = new LazyHeaders(incoming);
  headers.set('host', 'y');
  headers.append('x-many', '3');
  headers.delete('cookie');
  const seen: string[] = [];
  headers.forEach((value, key, parent) => {
    assert.equal(parent, headers);
    seen.push(`${key}: ${value}`);
  });
  assert.deepEqual(seen, ['host: y', 'set-cookie: c=3', 'set-cookie: d=4', 'x-many: 1, 2, 3']);
  assert.deepEqual([headers.get('host'), headers.has('cookie'), incoming.host], ['y', false, 'x']);
});
