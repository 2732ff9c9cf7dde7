// What makes two runs the same, and what does not.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JsonObject } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { fingerprintOf, type RunFacts } from '../src/jobs/fingerprint.ts';
import { markingOf } from '../src/jobs/marking.ts';

const [A, B, C] = ['a', 'b', 'c'].map((one) => one.repeat(64)) as [string, string, string];
const FACTS: RunFacts = {
  tenant: 'one',
  target: { kind: 'image', sha256: A },
  sources: [B],
  audio: undefined,
  parameters: { processors: ['face_swapper'], quality: 90 },
  outputFormat: 'png',
  marking: undefined,
  engine: { name: 'classical', version: '1', models: '' },
};

test('every fact makes another run', () => {
  const others: Partial<RunFacts>[] = [
    {},
    { tenant: 'two' },
    { tenant: undefined },
    { target: { kind: 'video', sha256: A } },
    { target: { kind: 'image', sha256: C } },
    { sources: [] },
    { sources: [B, C] },
    { sources: [C, B] },
    { sources: [], audio: B },
    { audio: C },
    { parameters: { processors: ['face_swapper'], quality: 91 } },
    { parameters: { processors: ['face_swapper'], quality: '90' } },
    { parameters: { processors: ['face_swapper', 'face_enhancer'], quality: 90 } },
    { parameters: { processors: ['face_enhancer', 'face_swapper'], quality: 90 } },
    { outputFormat: 'jpg' },
    { marking: 'm' },
    { marking: 'n' },
    { engine: { name: 'facefusion', version: '1', models: '' } },
    { engine: { name: 'classical', version: '2', models: '' } },
    { engine: { name: 'classical', version: '1', models: 'd' } },
  ];
  const prints = others.map((other) => fingerprintOf({ ...FACTS, ...other }));
  assert.equal(new Set(prints).size, others.length);
  for (const print of prints) assert.match(print, /^[0-9a-f]{64}$/);
});

test('the order of names never matters, and any other difference does', () => {
  const json = fc.jsonValue() as fc.Arbitrary<JsonObject[string]>;
  const parameters = fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('1', '2', '__proto__', 'a')), json, {
    maxKeys: 6,
  }) as fc.Arbitrary<JsonObject>;
  const shuffled = (value: JsonObject[string]): JsonObject[string] => {
    if (Array.isArray(value)) return value.map(shuffled);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(
      Object.entries(value)
        .reverse()
        .map(([name, one]) => [name, shuffled(one)]),
    );
  };
  const of = (one: JsonObject) => fingerprintOf({ ...FACTS, parameters: one });
  fc.assert(fc.property(parameters, (one) => assert.equal(of(one), of(shuffled(one) as JsonObject))));
  const plain = (one: JsonObject[string]): string =>
    JSON.stringify(one, (_, value: unknown) =>
      value !== null && typeof value === 'object' && !Array.isArray(value)
        ? { sorted: Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)) }
        : value,
    );
  fc.assert(fc.property(parameters, parameters, (a, b) => assert.equal(of(a) === of(b), plain(a) === plain(b))));
});

test('a mark says how a result was made, by engine and processors, and each part of it makes another run', () => {
  const signing = { sourceType: 'auto', certificate: A };
  const typeOf = (engine: string, ...processors: string[]) =>
    markingOf({ signed: true, label: '' }, signing, { engine, processors })!.sourceType.replace(
      'http://cv.iptc.org/newscodes/digitalsourcetype/',
      '',
    );
  assert.equal(typeOf('facefusion', 'face_enhancer'), 'compositeWithTrainedAlgorithmicMedia');
  assert.equal(typeOf('module:Own', 'x'), 'compositeWithTrainedAlgorithmicMedia');
  assert.equal(typeOf('classical', 'face_swapper', 'face_enhancer'), 'compositeCapture');
  assert.equal(typeOf('classical', 'frame_enhancer'), 'algorithmicallyEnhanced');
  const run = { engine: 'facefusion', processors: ['face_swapper'] };
  assert.equal(markingOf({ signed: false, label: 'AI' }, signing, run), undefined);
  const keys = [
    markingOf({ signed: true, label: '' }, signing, run),
    markingOf({ signed: true, label: 'AI' }, signing, run),
    markingOf({ signed: true, label: '' }, { ...signing, certificate: B }, run),
    markingOf({ signed: true, label: '' }, { ...signing, sourceType: 'trainedAlgorithmicMedia' }, run),
  ].map((marking) => marking!.key);
  assert.equal(new Set(keys).size, keys.length);
});
