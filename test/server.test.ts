// What the one port answers beside the RPCs: errors of plain routes, and paths that nobody serves.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code } from '@connectrpc/connect';
import { pino } from 'pino';
import { JobsError } from '../src/jobs/errors.ts';
import { toConnectError } from '../src/rpc/errors.ts';
import { openPort } from './fixtures/rpc/port.ts';

/** Nothing here is asked for an identity. */
const noOne = () => assert.fail('nobody was to be asked');

test('a plain route that fails gives a reference and logs the cause; a path of nobody is told where to look', async () => {
  const lines: { err?: { message: string }; reference?: string }[] = [];
  const port = await openPort([], {
    guard: { identify: noOne, addressOf: noOne, noteRefusal: noOne, ruleOf: noOne },
    log: pino({}, { write: (line) => void lines.push(JSON.parse(line)) }),
    routes(app) {
      app.get('/broken', async () => {
        throw new Error('the secret cause');
      });
    },
  });
  try {
    const base = port.url;
    const broken = await fetch(new URL('/broken', base));
    const text = await broken.text();
    assert.deepEqual([broken.status, JSON.parse(text).code], [500, 'INTERNAL']);
    assert.doesNotMatch(text, /secret/);
    const { err, reference } = lines.find((line) => line.reference !== undefined) ?? {};
    assert.equal(err?.message, 'the secret cause');
    assert.ok(reference !== undefined && text.includes(reference));

    const nowhere = await fetch(new URL('/nowhere', base));
    const answer = (await nowhere.json()) as { code: string; message: string };
    assert.deepEqual([nowhere.status, answer.code], [404, 'NOT_FOUND']);
    assert.match(answer.message, /nothing at \/nowhere; the API is under \/api\/v1/);
  } finally {
    await port.close();
  }
  assert.deepEqual(port.counted, ['GET /broken internal', 'GET unmatched not_found']);
});

test('what lies behind a refusal is reported, and the caller gets its words alone', () => {
  const reported: unknown[] = [];
  const full = new JobsError('exhausted', 'STORAGE_FULL', 'the disk is full', { cause: new Error('SQLITE_FULL') });
  const told = toConnectError(full, (error) => reported.push(error));
  assert.deepEqual([told.code, told.rawMessage, reported], [Code.ResourceExhausted, 'the disk is full', [full]]);
  toConnectError(JobsError.jobNotFound('job_1'), (error) => reported.push(error));
  assert.equal(reported.length, 1, 'what a caller did wrong is not the log’s affair');
});
