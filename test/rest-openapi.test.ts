import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import Fastify from 'fastify';
import { docs } from '../src/rest/docs.ts';
import { createOpenApi, type Json } from '../src/rest/openapi.ts';
import { compileRoutes } from '../src/rest/routes.ts';
import { BookService } from './fixtures/rest/bookstore_pb.js';

const routes = compileRoutes([BookService]);
const options = {
  info: { title: 'Books', version: '1' },
  comments: {
    'bookstore.v1.BookService.GetBook': 'Returns one book. Or none.',
    'bookstore.v1.Book.title': 'As printed.',
    'bookstore.v1.GENRE_POETRY': 'x',
  },
  text: ['bookstore.v1.WatchBookResponse'],
  headers: { 'bookstore.v1.BookService.CreateBook': [{ name: 'Shelf-Key', description: 'Of the shelf', example: 'k1' }] },
  security: { schemes: { key: { type: 'apiKey', in: 'header', name: 'x-api-key' } }, optional: true },
  extra: { paths: { '/api/v1/uploads': { post: { operationId: 'upload', responses: { 201: { description: 'Uploaded' } } } } } },
};
// biome-ignore lint/suspicious/noExplicitAny: tests look into JSON freely
const document: any = createOpenApi(routes, options);

test('the document is valid OpenAPI 3.1', async () => {
  const result = await new Validator().validate(structuredClone(document));
  assert.deepEqual(result.errors ?? [], []);
  assert.equal(result.valid, true);
});

test('a header that an implementation heeds is a parameter of its method and of no other', () => {
  const named = (operation: Json) => ((operation.parameters ?? []) as Json[]).filter(({ name }) => name === 'Shelf-Key').length;
  const { get, post } = document.paths['/api/v1/books'];
  assert.deepEqual([named(post), named(get)], [1, 0]);
});

test('every route is an operation, with an id of its own', () => {
  const operations = Object.values(document.paths as Record<string, Json>).flatMap((path) => Object.values(path) as Json[]);
  assert.equal(operations.length, routes.length + 1);
  assert.equal(new Set(operations.map((operation) => operation.operationId)).size, operations.length);
});

test('paths that differ only in the names of their variables are one path', () => {
  assert.deepEqual(Object.keys(document.paths['/api/v1/books/{book_id}']), ['get', 'patch', 'delete']);
  assert.equal(document.paths['/api/v1/books/{book_id}'].patch.parameters[0].name, 'book_id');
});

test('literals of a variable stay in the path, and its wildcards are its placeholders', () => {
  assert.ok(document.paths['/api/v1/shelves/{name}']);
  assert.ok(document.paths['/api/v1/archives/{location.path}/files/{location.path_2}']);
});

test('schemas are those of the dialect: what can be unset is nullable, enums are short, constraints are shown', () => {
  const { properties, required } = document.components.schemas['bookstore.v1.Book'];
  assert.deepEqual(properties.isbn, { type: ['string', 'null'] });
  assert.deepEqual(properties.genre, { oneOf: [{ $ref: '#/components/schemas/bookstore.v1.Genre' }, { type: 'null' }] });
  assert.deepEqual(document.components.schemas['bookstore.v1.Genre'].enum, ['novel', 'science_fiction', 'poetry']);
  assert.equal(properties.pages.maximum, 10000);
  assert.equal(properties.editors.maxItems, 3);
  assert.equal(properties.book_id.pattern, '^[a-z0-9_]*$');
  assert.equal(properties.title.description, 'As printed.');
  assert.deepEqual(required, ['title']);
});

test('a field that path or body binds is no query parameter', () => {
  const names = (operation: Json) => (operation.parameters as Json[]).map((parameter) => `${parameter.in}:${parameter.name}`);
  assert.deepEqual(names(document.paths['/api/v1/books/{book_id}'].patch), ['path:book_id', 'query:update_mask', 'query:dry_run']);
  assert.deepEqual(names(document.paths['/api/v1/books/{book_id}/events'].get), [
    'path:book_id',
    'query:after_sequence',
    'query:count',
    'header:Last-Event-ID',
  ]);
});

test('streams say their media types, creations their status and headers, redirects their target', () => {
  assert.deepEqual(Object.keys(document.paths['/api/v1/books:watch'].get.responses[200].content), [
    'text/event-stream',
    'application/x-ndjson',
    'text/plain',
  ]);
  assert.deepEqual(Object.keys(document.paths['/api/v1/books'].post.responses[202].headers), ['Location', 'Retry-After']);
  assert.ok(document.paths['/api/v1/books/{book_id}/cover'].get.responses[302].headers.Location);
});

test('a hand-written operation that is a route already is refused', () => {
  const extra = { paths: { '/api/v1/books': { get: {} } } };
  assert.throws(() => createOpenApi(routes, { ...options, extra }), /GET \/api\/v1\/books is a route already/);
});

test('the page loads from its own origin only, and nothing on it is inline', async () => {
  const app = Fastify();
  await app.register(docs, { document, title: 'Books & <more>' });
  const page = await app.inject('/docs');
  assert.match(String(page.headers['content-security-policy']), /default-src 'none'; script-src 'self';/);
  assert.match(page.body, /<title>Books &#38; &#60;more&#62;<\/title>/);
  assert.doesNotMatch(page.body, /<script>|<style>|style=|\son\w+=|https?:/);
  for (const [, link] of page.body.matchAll(/(?:src|href)="([^"]+)"/g)) {
    const file = await app.inject(`/${link}`);
    assert.equal(file.statusCode, 200, link);
  }
  assert.deepEqual((await app.inject('/docs/openapi.json')).json(), JSON.parse(JSON.stringify(document)));
  await app.close();
});
