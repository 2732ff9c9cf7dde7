// Rules that cannot be served stop the process at its start, with a sentence that names the method and the template.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clone, create, createFileRegistry, type DescService, getOption, type MessageInitShape, setExtension } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, MethodOptionsSchema } from '@bufbuild/protobuf/wkt';
import { http } from '../gen/google/api/annotations_pb.js';
import { HttpRuleSchema } from '../gen/google/api/http_pb.js';
import { type MethodRuleSchema, MethodRuleSchema as Rule, rest } from '../gen/restbridge/v1/annotations_pb.js';
import { createBridge } from '../src/rest/bridge.ts';
import { compileRoutes } from '../src/rest/routes.ts';
import { BookService, file_bookstore } from './fixtures/rest/bookstore_pb.js';

type HttpInit = MessageInitShape<typeof HttpRuleSchema>;
type RestInit = MessageInitShape<typeof MethodRuleSchema>;

/** The bookstore with other rules on some of its methods; the others have none. */
function ruled(rules: Record<string, { http?: HttpInit; rest?: RestInit }>): DescService {
  const proto = clone(FileDescriptorProtoSchema, file_bookstore.proto);
  for (const method of proto.service[0]!.method) {
    const options = create(MethodOptionsSchema);
    const rule = rules[method.name];
    if (rule?.http) setExtension(options, http, create(HttpRuleSchema, rule.http));
    if (rule?.rest) setExtension(options, rest, create(Rule, rule.rest));
    method.options = options;
  }
  const registry = createFileRegistry(proto, (name) => file_bookstore.dependencies.find((file) => file.proto.name === name));
  return registry.getService('bookstore.v1.BookService')!;
}

const get = (value: string): HttpInit => ({ pattern: { case: 'get', value } });
const post = (value: string, body = '*'): HttpInit => ({ pattern: { case: 'post', value }, body });

test('every rule of the bookstore becomes a route, additional bindings too', () => {
  const routes = compileRoutes([BookService]).map((route) => `${route.httpMethod} ${route.template.text}`);
  assert.equal(routes.length, 15);
  assert.ok(routes.includes('GET /api/v1/shelves/{shelf}/books/{book_id}'));
  assert.equal(getOption(BookService.method.getBook, http).additionalBindings.length, 1);
});

test('a custom method name is taken', () => {
  const [route] = compileRoutes([
    ruled({ GetBook: { http: { pattern: { case: 'custom', value: { kind: 'PURGE', path: '/v1/{book_id}' } } } } }),
  ]);
  assert.equal(route?.httpMethod, 'PURGE');
});

for (const [what, rules, message] of [
  [
    'a template that is none',
    { GetBook: { http: get('/v1/{book_id') } },
    'GetBook cannot be served at "GET /v1/{book_id": a "}" is missing at position 12',
  ],
  [
    'a variable that is no field',
    { GetBook: { http: get('/v1/{id}') } },
    'GetBook cannot be served at "GET /v1/{id}": bookstore.v1.GetBookRequest has no field "id"',
  ],
  [
    'a nested variable that is no field',
    { UpdateBook: { http: get('/v1/{book.id}') } },
    'bookstore.v1.UpdateBookRequest has no field "book.id"',
  ],
  [
    'a variable that is a message',
    { UpdateBook: { http: get('/v1/{book}') } },
    'the path variable "book" must be a single scalar or enum, and is a message',
  ],
  [
    'a variable that is repeated',
    { ListBooks: { http: get('/v1/{tag}') } },
    'the path variable "tag" must be a single scalar or enum, and is repeated',
  ],
  ['a variable through a repeated field', { CreateBooks: { http: get('/v1/{requests.title}') } }, 'has no field "requests.title"'],
  ['a wildcard that binds nothing', { GetBook: { http: get('/v1/*') } }, 'a wildcard outside a variable binds nothing'],
  ['a body field that is none', { GetBook: { http: post('/v1/x', 'nope') } }, 'bookstore.v1.GetBookRequest has no field "nope"'],
  [
    'a body field that is nested',
    { UpdateBook: { http: post('/v1/x', 'book.title') } },
    '"book.title" must be a field of bookstore.v1.UpdateBookRequest itself',
  ],
  [
    'a field bound by path and body',
    { GetBook: { http: post('/v1/{book_id}', 'book_id') } },
    '"book_id" is bound by the path and by the body',
  ],
  ['a GET with a body', { GetBook: { http: { ...get('/v1/x'), body: '*' } } }, 'GET has no body'],
  [
    'a response_body that is no field',
    { GetBook: { http: { ...get('/v1/x'), responseBody: 'nope' } } },
    'bookstore.v1.GetBookResponse has no field "nope"',
  ],
  ['a rule without a pattern', { GetBook: { http: {} } }, 'GetBook cannot be served at " (none)": the rule has no pattern'],
  [
    'HEAD',
    { GetBook: { http: { pattern: { case: 'custom', value: { kind: 'HEAD', path: '/v1/x' } } } } },
    'the bridge answers HEAD itself or not at all',
  ],
  ['any method', { GetBook: { http: { pattern: { case: 'custom', value: { kind: '*', path: '/v1/x' } } } } }, '"*" is not an HTTP method'],
  ['a stream of requests', { ImportBooks: { http: post('/v1/x') } }, 'a stream of requests has no REST form'],
  [
    'our option without a rule',
    { GetBook: { rest: { preferWait: true } } },
    'bookstore.v1.BookService.GetBook has a restbridge.v1.rest option and no google.api.http rule to go with it',
  ],
  ['a status that is no success', { GetBook: { http: get('/v1/x'), rest: { successStatus: 404 } } }, '404 is not the status of a success'],
  [
    'a redirect field that is none',
    { GetBook: { http: get('/v1/x'), rest: { redirectField: 'url' } } },
    'bookstore.v1.GetBookResponse has no field "url"',
  ],
  [
    'a redirect field that is no string',
    { GetBook: { http: get('/v1/x'), rest: { redirectField: 'book.pages' } } },
    'redirect_field must be a string',
  ],
  [
    'a location of unknown fields',
    { CreateBook: { http: post('/v1/x'), rest: { location: '/v1/{book.id}' } } },
    'bookstore.v1.CreateBookResponse has no field "book.id"',
  ],
  [
    'a location that is no template',
    { CreateBook: { http: post('/v1/x'), rest: { location: 'v1' } } },
    'location: a template starts with "/" at position 0',
  ],
  [
    'an event id that is a message',
    { WatchBook: { http: get('/v1/x'), rest: { eventIdField: 'event' } } },
    'event_id_field "event" must be a single scalar or enum, and is a message',
  ],
  [
    'an event name that is no oneof',
    { WatchBook: { http: get('/v1/x'), rest: { eventNameOneof: 'event.sequence' } } },
    'has no oneof "event.sequence"',
  ],
  [
    'a resume field that is none',
    { WatchBook: { http: get('/v1/x'), rest: { resumeField: 'after' } } },
    'bookstore.v1.WatchBookRequest has no field "after"',
  ],
  [
    'a stream option on a unary method',
    { GetBook: { http: get('/v1/x'), rest: { resumeField: 'book_id' } } },
    '"resume_field" is for streams',
  ],
  ['a unary option on a stream', { WatchBook: { http: get('/v1/x'), rest: { preferWait: true } } }, '"prefer_wait" is for unary methods'],
] as [string, Parameters<typeof ruled>[0], string][]) {
  test(`${what} is refused`, () => {
    assert.throws(
      () => compileRoutes([ruled(rules)]),
      (error: Error) =>
        error.name === 'RouteError' && error.message.includes(message) && error.message.includes('bookstore.v1.BookService.'),
    );
  });
}

test('two methods at one place are refused', () => {
  const desc = ruled({ GetBook: { http: get('/v1/{book_id}') }, GetShelf: { http: get('/v1/{name}') } });
  assert.throws(() => createBridge([{ desc, implementation: {} }], [], { report: () => {} }), {
    name: 'RouteError',
    message: 'bookstore.v1.BookService.GetShelf cannot be served at "GET /v1/{name}": GET /v1/{book_id} already has this shape',
  });
});

test('a template that begins with a variable needs a mount point', async () => {
  const desc = ruled({ GetBook: { http: get('/{book_id}') } });
  const bridge = createBridge([{ desc, implementation: {} }], [], { report: () => {} });
  await assert.rejects(
    bridge.plugin({ removeAllContentTypeParsers() {}, addContentTypeParser() {}, setErrorHandler() {} } as never),
    /say in `prefixes` where the bridge is mounted/,
  );
});
