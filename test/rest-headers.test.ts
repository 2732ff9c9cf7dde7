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

test('what is set alone is what a Headers object would have', () => {
  const pairs: [string, string][] = [
    ['ratelimit-limit', '60'],
    ['preference-applied', 'wait=5'],
    ['Preference-Applied', 'wait=6'],
    ['constructor', 'a b'],
    ['ratelimit-limit', ' padded '],
    ['set-cookie', 'a=1'],
  ];
  for (let count = 1; count <= pairs.length; count++) {
    const headers = new LazyHeaders({});
    const expected = new Headers();
    assert.ok(headers.untouched);
    for (const [name, value] of pairs.slice(0, count)) {
      headers.set(name, value);
      expected.set(name, value);
      assert.equal(headers.get(name), expected.get(name));
    }
    const seen: string[][] = [];
    headers.forEach((value, key) => void seen.push([key, value]));
    assert.deepEqual([seen, headers.untouched], [[...expected], false]);
    headers.append('ratelimit-limit', 'more');
    expected.append('ratelimit-limit', 'more');
    assert.deepEqual([...headers], [...expected]);
  }
  for (const [name, value] of [
    ['a b', 'x'],
    ['a', 'x\ny'],
  ] as const) {
    assert.throws(() => new LazyHeaders({}).set(name, value), TypeError);
  }
});

test('a plain value that is set stands before what came', () => {
  const headers = new LazyHeaders(incoming);
  headers.set('cookie', 'z');
  const expected = real();
  expected.set('cookie', 'z');
  assert.equal(headers.get('Cookie'), 'z');
  const seen: string[][] = [];
  headers.forEach((value, key) => void seen.push([key, value]));
  assert.deepEqual([seen, [...headers]], [[...expected], [...expected]]);
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
