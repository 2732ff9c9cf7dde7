import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { capture, compileExpansion, describeTemplate, PathError, PathTable, parseTemplate } from '../src/rest/template.ts';

test('templates of the grammar are parsed into segments, variables and a verb', () => {
  const template = parseTemplate('/v1/{a.b=shelves/*/books/**}:purge');
  assert.deepEqual(
    template.segments.map((segment) => (segment.kind === 'literal' ? segment.value : segment.kind)),
    ['v1', 'shelves', 'one', 'books', 'rest'],
  );
  assert.deepEqual(template.variables, [{ path: ['a', 'b'], start: 1, end: Number.POSITIVE_INFINITY, multi: true }]);
  assert.equal(template.verb, 'purge');
});

for (const [template, complaint] of [
  ['v1/jobs', 'a template starts with "/" at position 0'],
  ['', 'a template starts with "/" at position 0'],
  ['/', 'a segment is missing at position 1'],
  ['/v1//jobs', 'unexpected "/" at position 4'],
  ['/v1/jobs/', 'a segment is missing at position 9'],
  ['/v1/{', 'a field path is missing at position 5'],
  ['/v1/{a', 'a "}" is missing at position 6'],
  ['/v1/{a=}', 'unexpected "}" at position 7'],
  ['/v1/{a.}', 'a "}" is missing at position 6'],
  ['/v1/{a={b}}', 'a variable inside a variable at position 7'],
  ['/v1/{a}/{a}', '"a" is bound twice at position 10'],
  ['/v1/**/x', '"**" must be the last segment at position 7'],
  ['/v1/{a=**}/x', '"**" must be the last segment at position 11'],
  ['/v1/jobs:', 'a segment is missing at position 9'],
  ['/v1/jobs:a:b', 'unexpected ":" at position 10'],
  ['/v1/jobs:a/b', 'unexpected "/" at position 10'],
] as const) {
  test(`"${template}" is refused: ${complaint}`, () => {
    assert.throws(() => parseTemplate(template), { name: 'PathError', message: complaint });
  });
}

const templates = [
  'GET /v1/jobs',
  'POST /v1/jobs',
  'POST /v1/jobs:batch',
  'GET /v1/jobs/{id}',
  'DELETE /v1/jobs/{id}',
  'GET /v1/jobs/special',
  'POST /v1/jobs/{id}:purge',
  'GET /v1/jobs/{id}/events',
  'GET /v1/{name=shelves/*}',
  'GET /v1/files/{path=**}',
  'GET /v1/files/{path=**}:raw',
  'PUT /v1/jobs/{id}/special',
  'GET /v1/jobs/special/{id}',
];
const table = new PathTable<string>();
for (const text of templates) {
  const [method, path] = text.split(' ') as [string, string];
  table.add(method, parseTemplate(path), text);
}
const variables = new Map(templates.map((text) => [text, parseTemplate(text.split(' ')[1]!).variables]));

function find(request: string): string | readonly string[] | undefined {
  const [method, path] = request.split(' ') as [string, string];
  const found = table.find(method, path);
  if (!found || !('value' in found)) return found;
  const values = variables.get(found.value)!.map((variable) => `${variable.path.join('.')}=${capture(variable, found.segments)}`);
  return [found.value, ...values].join(' ');
}

for (const [request, expected] of [
  ['GET /v1/jobs', 'GET /v1/jobs'],
  ['GET /v1/jobs/job_1', 'GET /v1/jobs/{id} id=job_1'],
  ['GET /v1/jobs/a%2Fb', 'GET /v1/jobs/{id} id=a/b'],
  ['GET /v1/jobs/a%3Ab', 'GET /v1/jobs/{id} id=a:b'],
  ['GET /v1/jobs/%C3%A9', 'GET /v1/jobs/{id} id=é'],
  ['GET /v1/jobs/a+b', 'GET /v1/jobs/{id} id=a+b'],
  ['GET /v1/%6Aobs', 'GET /v1/jobs'],
  ['GET /v1/jobs/special', 'GET /v1/jobs/special'],
  ['DELETE /v1/jobs/special', 'DELETE /v1/jobs/{id} id=special'],
  ['GET /v1/jobs/special/events', 'GET /v1/jobs/special/{id} id=events'],
  ['GET /v1/jobs/a:b/events', 'GET /v1/jobs/{id}/events id=a:b'],
  ['POST /v1/jobs:batch', 'POST /v1/jobs:batch'],
  ['POST /v1/jobs/job_1:purge', 'POST /v1/jobs/{id}:purge id=job_1'],
  ['POST /v1/jobs/a:b:purge', 'POST /v1/jobs/{id}:purge id=a:b'],
  ['GET /v1/shelves/x', 'GET /v1/{name=shelves/*} name=shelves/x'],
  ['GET /v1/files/a/b%2fc/d%20e', 'GET /v1/files/{path=**} path=a/b%2fc/d e'],
  ['GET /v1/files', 'GET /v1/files/{path=**} path='],
  ['GET /v1/files/a:raw', 'GET /v1/files/{path=**}:raw path=a'],
  // The other method's route has this path.
  ['PATCH /v1/jobs', ['GET', 'POST']],
  ['POST /v1/jobs/job_1', ['DELETE', 'GET']],
  ['GET /v1/jobs:batch', ['POST']],
  ['DELETE /v1/jobs/special/special', ['GET', 'PUT']],
  // An unencoded colon always begins a verb, and never matches a value or a part of a literal.
  ['GET /v1/jobs/job_1:purge', ['POST']],
  ['GET /v1/jobs/job_1:pruge', undefined],
  ['GET /v1/jobs/job_1:', undefined],
  ['POST /v1/jobs:batchX', undefined],
  ['POST /v1/jobsbatch', undefined],
  ['POST /v1/jobs/:purge', undefined],
  ['POST /v1/jobs%3Abatch', undefined],
  ['GET /v1/jobs/', undefined],
  ['GET /v1//jobs', undefined],
  ['GET //v1/jobs', undefined],
  ['GET /v1/jobs/a/b', undefined],
  ['GET /v1/files/', undefined],
  ['GET /', undefined],
  ['GET v1/jobs', undefined],
] as const) {
  test(`${request} is ${expected === undefined ? 'nothing' : typeof expected === 'string' ? expected : `possible with ${expected} only`}`, () => {
    assert.deepEqual(find(request), expected);
  });
}

for (const path of ['/v1/jobs/%', '/v1/jobs/%zz', '/v1/jobs/%ff', '/v1/%E0%A4%A/x']) {
  test(`${path} is malformed`, () => {
    assert.throws(() => table.find('GET', path), PathError);
  });
}

test('a shape that is taken is refused, whatever its variables are called', () => {
  assert.throws(() => table.add('GET', parseTemplate('/v1/jobs/{job_id=*}'), ''), { message: 'GET /v1/jobs/{id} already has this shape' });
  assert.throws(() => table.add('POST', parseTemplate('/v1/jobs:batch'), ''), PathError);
});

test('any value that a template was filled with is found again in the path', () => {
  const value = fc.string({ minLength: 1, unit: 'grapheme' }).filter((text) => text.isWellFormed());
  fc.assert(
    fc.property(value, value, (a, b) => {
      const template = parseTemplate('/v1/shelves/{shelf}/books/{book.id}:move');
      const own = new PathTable<number>();
      own.add('GET', template, 1);
      const path = compileExpansion(template, (field) => () => (field[0] === 'shelf' ? a : b))(undefined);
      const found = own.find('GET', path);
      assert.ok(found && 'value' in found, path);
      assert.deepEqual(
        template.variables.map((variable) => capture(variable, found.segments)),
        [a, b],
      );
    }),
  );
});

test('no path makes the table throw anything but a PathError', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('GET', 'POST', 'HEAD'),
      fc.array(fc.constantFrom('/', 'v1', 'jobs', 'files', ':', '%', '%2F', 'batch', '*', '..')),
      (method, parts) => {
        try {
          table.find(method, `/${parts.join('')}`);
        } catch (error) {
          assert.ok(error instanceof PathError);
        }
      },
    ),
  );
});

test('OpenAPI paths keep literals and number the wildcards of one variable', () => {
  const { path, placeholders } = describeTemplate(parseTemplate('/v1/{a.b=shelves/*/books/**}:purge'));
  assert.equal(path, '/v1/shelves/{a.b}/books/{a.b_2}:purge');
  assert.deepEqual(
    placeholders.map(({ name, rest }) => [name, rest]),
    [
      ['a.b', false],
      ['a.b_2', true],
    ],
  );
});
