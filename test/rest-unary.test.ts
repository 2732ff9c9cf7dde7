import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serve } from './fixtures/rest/bookstore.ts';

test('a GET is answered with the field that response_body names, every field printed and what is unset as null', async () => {
  const { call } = await serve();
  const reply = await call('GET', '/api/v1/books/b1');
  assert.equal(reply.status, 200);
  assert.match(String(reply.headers['content-type']), /^application\/json/);
  assert.equal(reply.headers['content-length'], String(Buffer.byteLength(reply.body)));
  assert.equal(reply.json.book_id, 'b1');
  assert.equal(reply.json.created_at, null);
  assert.equal(reply.json.pages, 0);
});
