import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  create,
  createRegistry,
  type DescField,
  type DescMessage,
  fromBinary,
  type JsonValue,
  type MessageInitShape,
  type MessageShape,
  ScalarType,
  toBinary,
  toJson,
} from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { AnySchema, anyPack, isWrapperDesc } from '@bufbuild/protobuf/wkt';
import { ConnectError } from '@connectrpc/connect';
import fc from 'fast-check';
import { BadRequestSchema } from '../gen/google/rpc/error_details_pb.js';
import { createJsonReader } from '../src/rest/json-reader.ts';
import { parseJson } from '../src/rest/json-text.ts';
import { createJsonWriter } from '../src/rest/json-writer.ts';
import {
  AuthorSchema,
  BookSchema,
  CreateBookRequestSchema,
  file_bookstore,
  Genre,
  GetBookResponseSchema,
} from './fixtures/rest/bookstore_pb.js';

const registry = createRegistry(file_bookstore);
const writer = createJsonWriter(registry);
const reader = createJsonReader(registry);
const write = writer.message(BookSchema);
const read = (json: JsonValue) => reader.message(BookSchema, json);
const book = (init: MessageInitShape<typeof BookSchema>) => create(BookSchema, init);
const printed = (init: MessageInitShape<typeof BookSchema>) => JSON.parse(write(book(init)));

function violations(run: () => unknown): [field: string, description: string][] {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return error
      .findDetails(BadRequestSchema)
      .flatMap((detail) => detail.fieldViolations.map((v): [string, string] => [v.field, v.description]));
  }
  return assert.fail('nothing was refused');
}

describe('writing', () => {
  test('an empty message prints every field: null for what is unset, zeros and empty collections for the rest', () => {
    assert.deepEqual(printed({}), {
      book_id: '',
      title: '',
      genre: null,
      pages: 0,
      bytes: '0',
      in_print: false,
      rating: 0,
      created_at: null,
      reading_time: null,
      isbn: null,
      author: null,
      editors: [],
      also: [],
      tags: [],
      labels: {},
      ratings: {},
      readers: {},
      parameters: null,
      paper_edition: null,
      audio_edition: null,
      themed_edition: null,
      subtitle: null,
      copies: null,
      cover: '',
      extra: null,
      notes: null,
      changed: null,
      bare: 'nothing',
      maybe_genre: null,
      weight: 0,
      attachment: null,
      sequel: null,
      chapters: {},
      printings: [],
      reviews: [],
      free_edition: null,
      barcode: '0',
      nicknames: [],
    });
  });

  for (const [what, init, expected] of [
    ['an enum value is short and in lower case', { genre: Genre.SCIENCE_FICTION }, { genre: 'science_fiction' }],
    ['an enum value without a name stays a number', { genre: 99 as Genre }, { genre: 99 }],
    ['an optional scalar that is set to its zero is printed', { isbn: '' }, { isbn: '' }],
    [
      'an unspecified enum value in a list keeps its name',
      { also: [Genre.UNSPECIFIED, Genre.POETRY] },
      { also: ['unspecified', 'poetry'] },
    ],
    ['a oneof member is its own key', { edition: { case: 'paperEdition', value: 'hard' } }, { paper_edition: 'hard', audio_edition: null }],
    ['a oneof member at its zero is printed', { edition: { case: 'paperEdition', value: '' } }, { paper_edition: '' }],
    ['a Struct is plain JSON', { parameters: { a: [1, null, { b: 'c' }] } }, { parameters: { a: [1, null, { b: 'c' }] } }],
    [
      '64-bit integers are strings',
      { bytes: -9007199254740993n, barcode: 18446744073709551615n },
      { bytes: '-9007199254740993', barcode: '18446744073709551615' },
    ],
    ['wrappers are their values', { subtitle: '', copies: 5n }, { subtitle: '', copies: '5' }],
    ['bytes are base64', { cover: new Uint8Array([251, 255]) }, { cover: '+/8=' }],
    ['NaN and the infinities are strings', { rating: Number.NaN, weight: -Infinity }, { rating: 'NaN', weight: '-Infinity' }],
    ['a time without a fraction has none', { createdAt: { seconds: 1743862500n } }, { created_at: '2025-04-05T14:15:00Z' }],
    [
      'a time with a fraction keeps it',
      { createdAt: { seconds: 1743862500n, nanos: 500_000_000 } },
      { created_at: '2025-04-05T14:15:00.500Z' },
    ],
    ['a time before 1970 is right', { createdAt: { seconds: -62135596800n } }, { created_at: '0001-01-01T00:00:00Z' }],
    ['a duration is in seconds', { readingTime: { seconds: 3n, nanos: 500_000_000 } }, { reading_time: '3.500s' }],
    ['a field mask has proto names', { changed: { paths: ['book_id', 'author.born'] } }, { changed: 'book_id,author.born' }],
    [
      'maps keep their keys, also odd ones',
      { labels: { ['__proto__']: 'x', 'a"b': 'y' } },
      { labels: JSON.parse('{"__proto__":"x","a\\"b":"y"}') },
    ],
    ['text is safe whatever it holds', { title: 'é"\\\n\u2028\ud83d\ude00' }, { title: 'é"\\\n\u2028\ud83d\ude00' }],
  ] as [string, MessageInitShape<typeof BookSchema>, object][]) {
    test(what, () => {
      const all = printed(init);
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(all[key], value);
    });
  }

  test('a lone surrogate is escaped, so that the text can be sent as UTF-8', () => {
    const out = write(book({ title: 'a\ud800b' }));
    assert.match(out, /"a\\ud800b"/);
    assert.ok(out.isWellFormed());
  });

  test('an Any is opened when its type is known, in the dialect, and is base64 when not', () => {
    const author = create(AuthorSchema, { name: 'Jane' });
    assert.deepEqual(printed({ attachment: anyPack(AuthorSchema, author) }).attachment, {
      '@type': 'type.googleapis.com/bookstore.v1.Author',
      name: 'Jane',
      born: null,
    });
    const unknown = create(AnySchema, { typeUrl: 'type.googleapis.com/no.Such', value: new Uint8Array([1]) });
    assert.deepEqual(printed({ attachment: unknown }).attachment, { '@type': 'type.googleapis.com/no.Such', value: 'AQ==' });
  });

  test('a time outside of what RFC 3339 can say is refused', () => {
    assert.throws(() => printed({ createdAt: { seconds: 253402300800n } }), /Timestamp/);
  });

  test('a single field is written by its own writer', () => {
    assert.equal(writer.field(GetBookResponseSchema.field.book)(create(GetBookResponseSchema)), 'null');
  });
});

describe('reading', () => {
  for (const [what, json, init] of [
    ['snake_case names', { book_id: 'a', created_at: '2025-04-05T14:15:00Z' }, { bookId: 'a', createdAt: { seconds: 1743862500n } }],
    ['camelCase names', { bookId: 'a', createdAt: '2025-04-05T14:15:00Z' }, { bookId: 'a', createdAt: { seconds: 1743862500n } }],
    [
      'short enum names',
      { genre: 'science_fiction', also: ['novel', 'POETRY'] },
      { genre: Genre.SCIENCE_FICTION, also: [Genre.NOVEL, Genre.POETRY] },
    ],
    ['short enum names in any case', { genre: 'Science_Fiction' }, { genre: Genre.SCIENCE_FICTION }],
    ['full enum names', { genre: 'GENRE_SCIENCE_FICTION', bare: 'SOMETHING' }, { genre: Genre.SCIENCE_FICTION, bare: 1 }],
    ['enum numbers', { genre: 2 }, { genre: Genre.SCIENCE_FICTION }],
    ['enum values in maps', { ratings: { a: 'novel' } }, { ratings: { a: Genre.NOVEL } }],
    ['null as unset', { title: null, genre: null, author: null, tags: null, labels: null, isbn: null, extra: null, subtitle: null }, {}],
    [
      'oneof members of which all but one are null',
      { paper_edition: null, audio_edition: { name: 'x' }, free_edition: null },
      { edition: { case: 'audioEdition', value: { name: 'x' } } },
    ],
    ['field masks in either spelling', { changed: 'book_id,author.lastName' }, { changed: { paths: ['book_id', 'author.last_name'] } }],
    [
      'Any in the dialect',
      { attachment: { '@type': 'type.googleapis.com/bookstore.v1.Author', name: 'x' } },
      { attachment: anyPack(AuthorSchema, create(AuthorSchema, { name: 'x' })) },
    ],
    ['nested messages', { sequel: { sequel: { genre: 'novel' } } }, { sequel: { sequel: { genre: Genre.NOVEL } } }],
    ['numbers as strings', { pages: '12', rating: 'NaN' }, { pages: 12, rating: Number.NaN }],
    [
      'nulls inside free-form JSON',
      { parameters: { a: null }, notes: [null] },
      { parameters: { a: null }, notes: { values: [{ kind: { case: 'nullValue', value: 0 } }] } },
    ],
  ] as [string, JsonValue, MessageInitShape<typeof BookSchema>][]) {
    test(`takes ${what}`, () => assert.deepEqual(toBinary(BookSchema, read(json)), toBinary(BookSchema, book(init))));
  }

  for (const [what, json, expected] of [
    ['an unknown field', { titel: 'x' }, [['titel', 'is not a field of Book; did you mean "title"?']]],
    ['an unknown field that is like none', { zzz: 'x' }, [['zzz', 'is not a field of Book']]],
    ['a camelCase slip', { creatdAt: 'x' }, [['creatdAt', 'is not a field of Book; did you mean "created_at"?']]],
    [
      'an unknown field deep inside',
      { editors: [{ name: 'a' }, { nam: 'b' }] },
      [['editors[1].nam', 'is not a field of Author; did you mean "name"?']],
    ],
    [
      'an unknown enum value',
      { genre: 'nvel' },
      [['genre', 'must be one of novel, science_fiction, poetry, not "nvel"; did you mean "novel"?']],
    ],
    ['an unknown enum value in a list', { also: ['novel', 'x'] }, [['also[1]', 'must be one of novel, science_fiction, poetry, not "x"']]],
    ['a wrong scalar', { pages: -1 }, [['pages', 'must be a whole number from 0 to 4294967295, not -1']]],
    [
      'a wrong scalar deep inside',
      { readers: { bob: { born: 'x' } } },
      [['readers["bob"].born', 'must be a whole number from 0 to 4294967295, not "x"']],
    ],
    ['a wrong element', { tags: ['a', 5] }, [['tags[1]', 'must be a string of valid Unicode, not 5']]],
    ['a null element', { tags: [null] }, [['tags[0]', 'must not be null']]],
    ['a null in a map', { labels: { a: null } }, [['labels["a"]', 'must not be null']]],
    ['a scalar for a list', { tags: 'a' }, [['tags', 'must be an array, not "a"']]],
    ['a list for a map', { labels: ['a'] }, [['labels', 'must be an object, not ["a"]']]],
    ['a wrong map key', { chapters: { x: true } }, [['chapters["x"]', 'is not a key or value of this map: true']]],
    ['a scalar for a message', { author: 'x' }, [['author', 'must be an object, not "x"']]],
    [
      'a bad time',
      { created_at: 'yesterday' },
      [['created_at', 'must be an RFC 3339 time such as "2025-04-05T14:15:00Z", not "yesterday"']],
    ],
    ['a bad duration', { reading_time: 5 }, [['reading_time', 'must be a duration in seconds such as "3.5s", not 5']]],
    ['a bad Struct', { parameters: [1] }, [['parameters', 'must be an object, not [1]']]],
    ['a bad wrapper', { subtitle: 5 }, [['subtitle', 'must be a string of valid Unicode, not 5']]],
    ['bad base64', { cover: '%%%' }, [['cover', 'must be bytes in base64, not "%%%"']]],
    ['a lone surrogate', { title: '\ud800' }, [['title', 'must be a string of valid Unicode, not "\\ud800"']]],
    ['an integer that JSON has rounded', { bytes: 2 ** 60 }, [['bytes', 'is too large for a JSON number; give it as a string']]],
    ['a field in both spellings', { book_id: 'a', bookId: 'b' }, [['book_id', 'is given twice']]],
    [
      'two members of a oneof',
      { paper_edition: 'a', themed_edition: 'novel' },
      [['themed_edition', 'cannot be set together with paper_edition']],
    ],
    ['an unknown Any', { attachment: { '@type': 'x/no.Such' } }, [['attachment.@type', 'is not a type known here: "x/no.Such"']]],
    [
      'several things at once',
      { titel: 'x', genre: 'y', author: { z: 1 } },
      [
        ['titel', ''],
        ['genre', ''],
        ['author.z', ''],
      ],
    ],
    ['__proto__', JSON.parse('{"__proto__":{"title":"x"}}'), [['__proto__', 'is not a field of Book']]],
    ['constructor', { constructor: 'x' } as unknown as JsonValue, [['constructor', 'is not a field of Book']]],
  ] as [string, JsonValue, [string, string][]][]) {
    test(`refuses ${what}, and names the field`, () => {
      const found = violations(() => read(json));
      assert.deepEqual(
        found.map(([field]) => field),
        expected.map(([field]) => field),
      );
      for (const [i, [, description]] of expected.entries()) if (description) assert.equal(found[i]![1], description);
    });
  }

  test('odd keys of maps and Structs are only keys', () => {
    const message = read(
      JSON.parse('{"labels":{"__proto__":"x","constructor":"y"},"ratings":{"__proto__":"novel"},"parameters":{"__proto__":{"a":1}}}'),
    );
    assert.deepEqual(Object.entries(message.labels), [
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ]);
    assert.deepEqual(Object.entries(message.ratings), [['__proto__', Genre.NOVEL]]);
    assert.deepEqual(Object.entries(message.parameters!), [['__proto__', { a: 1 }]]);
    assert.equal(({} as { a?: number }).a, undefined);
    assert.deepEqual(JSON.parse(write(message)).parameters, JSON.parse('{"__proto__":{"a":1}}'));
  });

  for (const [what, build] of [
    ['messages', (depth: number): JsonValue => deep(depth, (inner) => ({ sequel: inner === 1 ? null : inner }))],
    ['Structs', (depth: number): JsonValue => ({ parameters: deep(depth, (inner) => ({ a: inner })) })],
    ['lists', (depth: number): JsonValue => ({ notes: deep(depth, (inner) => [inner]) })],
  ] as [string, (depth: number) => JsonValue][]) {
    test(`nesting of ${what} is bounded, however deep it is`, () => {
      read(build(40));
      for (const depth of [70, 3000]) assert.match(violations(() => read(build(depth)))[0]![1], /is nested more than 64 levels deep/);
    });
  }

  function deep(depth: number, wrap: (inner: JsonValue) => JsonValue): JsonValue {
    let value: JsonValue = wrap(1);
    for (let i = 1; i < depth; i++) value = wrap(value);
    return value;
  }

  test('the number of violations is bounded', () => {
    const json = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`no_such_${i}`, 1]));
    assert.equal(violations(() => read(json)).length, 50);
  });

  test('violations carry the prefix that they are asked to', () => {
    assert.deepEqual(
      violations(() => reader.message(CreateBookRequestSchema, { x: 1 }, { prefix: 'requests[3]' }))[0]![0],
      'requests[3].x',
    );
  });
});

describe('text that is no JSON is refused with its place', () => {
  for (const [text, place] of [
    ['', 'the text ends too early at line 1, column 1'],
    ['{', 'the text ends too early at line 1, column 2'],
    ['{"a":1,}', 'unexpected "}" at line 1, column 8'],
    ['{"a":1,\n "b": tru}', 'unexpected "t" at line 2, column 7'],
    ["{'a':1}", 'unexpected "\'" at line 1, column 2'],
    ['[1 2]', 'unexpected "2" at line 1, column 4'],
    ['{"a" 1}', 'unexpected "1" at line 1, column 6'],
    ['[1]]', 'unexpected "]" at line 1, column 4'],
    ['[1}', 'unexpected "}" at line 1, column 3'],
    ['{"a":"b\nc"}', 'unexpected "\\n" at line 1, column 8'],
    ['"a\\x"', 'unexpected "\\\\" at line 1, column 3'],
    ['01', 'unexpected "1" at line 1, column 2'],
    ['NaN', 'unexpected "N" at line 1, column 1'],
    ['{"a":[1,]}', 'unexpected "]" at line 1, column 9'],
    [':', 'unexpected ":" at line 1, column 1'],
  ] as const) {
    test(JSON.stringify(text), () => {
      assert.throws(() => parseJson(text), { rawMessage: `the body is not valid JSON: ${place}` });
    });
  }

  test('whatever JSON.parse refuses has a place, and whatever it takes is taken', () => {
    const piece = fc.constantFrom('{', '}', '[', ']', ',', ':', '"a"', '"', '1', '-', 'true', 'nul', ' ', '\n', '\\', '\u0001', '1.', 'e5');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const text = pieces.join('');
        let expected: unknown;
        try {
          expected = JSON.parse(text);
        } catch {
          assert.throws(() => parseJson(text), /line \d+, column \d+/);
          return;
        }
        assert.deepEqual(parseJson(text), expected);
      }),
      { numRuns: 2000 },
    );
  });

  test('a megabyte of text is no harder', () => {
    const long = 'x'.repeat(1 << 20);
    assert.throws(() => parseJson(`{"a":"${long}",}`), { rawMessage: /column 1048585$/ });
    assert.throws(() => parseJson(`{"a":"${long}`), { rawMessage: /the text ends too early/ });
    assert.throws(() => parseJson('['.repeat(1 << 20)), { rawMessage: /the text ends too early/ });
  });
});

// Arbitrary messages of any type, by its descriptor.
function arbitrary<D extends DescMessage>(desc: D, depth = 2): fc.Arbitrary<MessageShape<D>> {
  const fields = desc.fields.filter((field) => depth > 0 || !field.message || field.message.typeName.startsWith('google.protobuf.'));
  const groups = desc.oneofs.map((oneof) => fc.option(fc.constantFrom(...oneof.fields.map((field) => field.name)), { nil: undefined }));
  return fc
    .tuple(fc.tuple(...fields.map((field) => fc.option(ofField(field, depth), { nil: undefined }))), fc.tuple(...groups))
    .map(([values, chosen]) => {
      const message = reflect(desc);
      for (const [i, field] of fields.entries()) {
        if (values[i] === undefined || (field.oneof && !chosen.includes(field.name))) continue;
        const value = values[i] as never;
        if (field.fieldKind === 'list') {
          const list = message.get(field);
          for (const one of value as never[]) list.add(one);
        } else if (field.fieldKind === 'map') {
          const map = message.get(field);
          for (const [key, one] of value as [never, never][]) map.set(key, one);
        } else message.set(field, value);
      }
      return message.message as MessageShape<D>;
    });
}

function ofField(field: DescField, depth: number): fc.Arbitrary<unknown> {
  const one = field.message
    ? ofMessage(field.message, depth).map((message) => reflect(field.message!, message as never))
    : field.enum
      ? fc.constantFrom(1, 2, 3, 77)
      : ofScalar(field.scalar!);
  if (field.fieldKind === 'list') return fc.array(one, { maxLength: 3 });
  if (field.fieldKind !== 'map') return one;
  const key = field.mapKey === ScalarType.STRING ? text : fc.integer({ min: -5, max: 5 });
  return fc.uniqueArray(fc.tuple(key, one), { maxLength: 3, selector: ([k]) => k });
}

const text = fc
  .oneof(fc.string({ unit: 'grapheme', maxLength: 8 }), fc.constantFrom('__proto__', 'a"\\\n\u0000', ''))
  .filter((s) => s.isWellFormed());
// Through text, because JSON has no negative zero.
const json = fc.json({ maxDepth: 2 }).map((value) => JSON.parse(JSON.stringify(JSON.parse(value))) as JsonValue);

function ofMessage(desc: DescMessage, depth: number): fc.Arbitrary<unknown> {
  const make = (init: object) => create(desc, init as never);
  const seconds = (max: bigint) => fc.bigInt({ min: -max, max });
  switch (desc.typeName) {
    case 'google.protobuf.Timestamp':
      return fc
        .record({ seconds: fc.bigInt({ min: -62135596800n, max: 253402300799n }), nanos: fc.constantFrom(0, 0, 1, 5_000_000, 999_999_999) })
        .map(make);
    case 'google.protobuf.Duration':
      return fc
        .tuple(seconds(315576000000n), fc.constantFrom(0, 1, 500_000_000))
        .map(([s, nanos]) => make({ seconds: s, nanos: s < 0n ? -nanos : nanos }));
    case 'google.protobuf.Any':
      return arbitrary(AuthorSchema, 0).map((author) => anyPack(AuthorSchema, author));
    case 'google.protobuf.FieldMask':
      return fc.subarray(['book_id', 'author.born', 'title'], { minLength: 1 }).map((paths) => make({ paths }));
    case 'google.protobuf.Struct':
      return fc.dictionary(text, json).map((value) => reader.message(desc, value));
    case 'google.protobuf.ListValue':
      return fc.array(json, { maxLength: 3 }).map((value) => reader.message(desc, value));
    case 'google.protobuf.Value':
      // A null of its own cannot be told from "not set" in the dialect.
      return json.filter((value) => value !== null).map((value) => reader.message(desc, value));
    default:
      if (isWrapperDesc(desc)) return ofScalar(desc.fields[0]!.scalar!).map((value) => make({ value }));
      return arbitrary(desc, depth - 1);
  }
}

function ofScalar(type: ScalarType): fc.Arbitrary<unknown> {
  switch (type) {
    case ScalarType.STRING:
      return text;
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 5 });
    case ScalarType.DOUBLE:
      return fc.double().map((n) => n + 0);
    case ScalarType.FLOAT:
      return fc.float().map((n) => n + 0);
    case ScalarType.INT64:
      return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
    case ScalarType.UINT64:
      return fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    case ScalarType.UINT32:
      return fc.nat(4294967295);
    default:
      return fc.integer();
  }
}

describe('for any message', () => {
  test('what is written is read back as the same message', () => {
    fc.assert(
      fc.property(arbitrary(BookSchema), (message) => {
        const back = read(JSON.parse(write(message)));
        // Compared by bytes: NaN equals itself there.
        assert.deepEqual(toBinary(BookSchema, back), toBinary(BookSchema, message));
      }),
      { numRuns: 100 },
    );
  });

  test("the library's own ProtoJSON is read as the same message, in either spelling of names", () => {
    fc.assert(
      fc.property(arbitrary(BookSchema), fc.boolean(), (message, useProtoFieldName) => {
        const back = read(toJson(BookSchema, message, { registry, useProtoFieldName }));
        assert.deepEqual(toBinary(BookSchema, back), toBinary(BookSchema, message));
      }),
      { numRuns: 100 },
    );
  });

  test('what is written is the ProtoJSON of the library but for names of enum values, paths of field masks, and nulls', () => {
    fc.assert(
      fc.property(arbitrary(BookSchema), (message) => {
        const own = plain(JSON.parse(write(message)));
        const library = plain(toJson(BookSchema, message, { registry, useProtoFieldName: true, alwaysEmitImplicit: true }));
        assert.deepEqual(own, library);
      }),
      { numRuns: 100 },
    );
  });

  test('messages that came over the wire are written like any other', () => {
    fc.assert(
      fc.property(arbitrary(BookSchema), (message) =>
        assert.equal(write(fromBinary(BookSchema, toBinary(BookSchema, message))), write(message)),
      ),
    );
  });
});

/** Both forms without what they are known to differ in: nulls of a message's own fields, enum names, field masks, key order. */
function plain(value: unknown, free = false): unknown {
  if (Array.isArray(value)) return value.map((item) => plain(item, free));
  if (typeof value === 'string')
    return free
      ? value
      : value
          .replace(/^GENRE_(.*)$/, (_, name: string) => name.toLowerCase())
          .replace(/^(NOTHING|SOMETHING)$/, (name) => name.toLowerCase());
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, inner]) => free || (inner !== null && inner !== 'GENRE_UNSPECIFIED'));
  const mapped = entries.map(([key, inner]): [string, unknown] => {
    if (key === 'changed' && !free) return [key, String(inner).replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)];
    return [key, plain(inner, free || ['parameters', 'extra', 'notes', 'reviews', 'free_edition', 'labels'].includes(key))];
  });
  return Object.fromEntries(mapped.sort(([a], [b]) => (a < b ? -1 : 1)));
}
