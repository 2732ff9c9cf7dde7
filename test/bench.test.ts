// The benches themselves: their arithmetic, what they read off the wire, and one smoke run of all groups against the real service.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { interleaved, median, notRun, percentile, type Row, rowOf } from '../bench/figures.ts';
import { GrpcReader, grpcMessage, headerBlock } from '../bench/load/h2.ts';
import { ChunkReader } from '../bench/load/http1.ts';
import { readSseEvent } from '../bench/load/sse.ts';
import { readWatchResponse } from '../bench/load/watchers.ts';
import { table } from '../bench/report.ts';
import { WatchResponseSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';

describe('figures', () => {
  it('takes percentiles by nearest rank and the middle of an even number', () => {
    const values = Array.from({ length: 200 }, (_, index) => 200 - index);
    assert.equal(percentile(values, 50), 100);
    assert.equal(percentile(values, 99), 198);
    assert.equal(percentile(values, 100), 200);
    assert.equal(percentile([7], 1), 7);
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 2, 3]), 2.5);
    assert.ok(Number.isNaN(percentile([], 50)) && Number.isNaN(median([])));
  });

  it('judges a figure by its own value or by its ratio to the peer', () => {
    const verdict = (figure: number, target: Parameters<typeof rowOf>[1]['target'], peer?: number) =>
      rowOf('g', { name: 'n', figure, unit: 'ms', target, ...(peer === undefined ? {} : { peer: { name: 'p', figure: peer } }) });
    assert.equal(verdict(10, { kind: 'at most', value: 10 }).verdict, 'ok');
    assert.equal(verdict(10.1, { kind: 'at most', value: 10 }).verdict, 'short');
    assert.equal(verdict(499, { kind: 'at least', value: 500 }).verdict, 'short');
    assert.equal(verdict(500, { kind: 'at least times peer', value: 5 }, 100).verdict, 'ok');
    assert.equal(verdict(2.1, { kind: 'at most times peer', value: 2 }, 1).verdict, 'short');
    assert.equal(verdict(1, undefined).verdict, 'no target');
    const { ratio, target } = verdict(300, { kind: 'at least times peer', value: 5 }, 100);
    assert.deepEqual({ ratio, target }, { ratio: 3, target: '>= 5 x peer' });
  });

  it('does not judge by a peer that is not there, nor by nothing', () => {
    assert.equal(rowOf('g', { name: 'n', figure: 1, unit: '', target: { kind: 'at least times peer', value: 5 } }).verdict, 'not run');
    assert.equal(rowOf('g', { name: 'n', figure: Number.NaN, unit: '', target: { kind: 'at most', value: 5 } }).verdict, 'not run');
  });

  it('turns the order of the contestants from round to round', async () => {
    const order: string[] = [];
    const one = (name: string) => async () => order.push(name);
    const results = await interleaved(3, { a: one('a'), b: one('b') });
    assert.equal(order.join(''), 'abbaab');
    assert.deepEqual(results, { a: [1, 4, 5], b: [2, 3, 6] });
  });

  it('shows every row and every note', () => {
    const row = rowOf('jobs', {
      name: 'rate',
      figure: 12_345.6,
      unit: 'jobs/s',
      peer: { name: 'other', figure: 1100, quoted: true },
      note: 'because',
    });
    const text = table([row, notRun('get', 'REST', 'no service')]);
    for (const part of ['12,346', '1,100 other (quoted)', '11.22', 'NO TARGET', 'because', 'NOT RUN', 'no service']) {
      assert.ok(text.includes(part), `${part} in\n${text}`);
    }
  });
});

describe('what the load generators read', () => {
  const timeMs = Date.UTC(2025, 3, 5, 14, 22, 30, 125);
  const seen = { sequence: 300, timeMs, engineMs: 2_000_000_000, skipped: true };

  it('reads a watch event from its bytes as the schema has them', () => {
    const value = { step: 6, percent: 12.5, framesDone: 2_000_000_000, etaSeconds: 3, attempt: 1 } as const;
    const event = { sequence: 300, time: timestampFromMs(timeMs), event: { case: 'progress', value }, skippedAfter: 7 } as const;
    assert.deepEqual(readWatchResponse(toBinary(WatchResponseSchema, create(WatchResponseSchema, { event }))), seen);
    const log = { sequence: 1, event: { case: 'log', value: { message: 'x'.repeat(500) } } } as const;
    const response = toBinary(WatchResponseSchema, create(WatchResponseSchema, { event: log }));
    assert.deepEqual(readWatchResponse(response), { sequence: 1, timeMs: 0, engineMs: 0, skipped: false });
  });

  it('reads a watch event from SSE, and passes over comments', () => {
    const data = '{"sequence":300,"time":"2025-04-05T14:22:30.125Z","progress":{"frames_done":2000000000},"skipped_after":7}';
    assert.deepEqual(readSseEvent(`id: 300\nevent: progress\ndata: ${data}`), seen);
    assert.equal(readSseEvent(': keep-alive'), undefined);
  });

  it('puts messages and chunks together however they are cut', () => {
    const messages = ['a', 'bc'.repeat(300), ''].map((text) => Buffer.from(text));
    const body = Buffer.concat(messages.map((message) => grpcMessage(message)));
    const chunked = Buffer.from('3\r\nabc\r\n11;x=y\r\n0123456789abcdefg\r\n0\r\n\r\n');
    for (const size of [1, 2, 7, 4096]) {
      const grpc = new GrpcReader();
      const got: Buffer[] = [];
      for (let at = 0; at < body.length; at += size) grpc.push(body.subarray(at, at + size), (one) => got.push(Buffer.from(one)));
      assert.deepEqual(got, messages);
      const chunks = new ChunkReader();
      let text = '';
      let ended = false;
      for (let at = 0; at < chunked.length; at += size) {
        ended ||= chunks.push(chunked.subarray(at, at + size), (data) => {
          text += data.toString();
        });
      }
      assert.deepEqual({ text, ended }, { text: 'abc0123456789abcdefg', ended: true });
    }
  });

  it('writes header blocks as HPACK literals, long values too', () => {
    assert.deepEqual([...headerBlock([['te', 'trailers']])], [0, 2, ...Buffer.from('te'), 8, ...Buffer.from('trailers')]);
    // RFC 7541, 5.1: 300 with a 7-bit prefix is 127, then 300 - 127 = 173 in groups of seven bits.
    const value = 'v'.repeat(300);
    assert.deepEqual([...headerBlock([['a', value]])], [0, 1, 97, 127, 173, 1, ...Buffer.from(value)]);
  });
});

describe('a quick run', () => {
  it('answers well-formed rows for every group and ends with 0', { timeout: 600_000 }, async ({ signal }) => {
    const folder = mkdtempSync(join(tmpdir(), 'ffjobs-bench-test-'));
    try {
      const file = join(folder, 'rows.json');
      const child = spawn(process.execPath, [join(import.meta.dirname, '..', 'bench', 'main.ts'), '--quick', '--json', file], {
        signal,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let errors = '';
      child.stdout.resume();
      child.stderr.on('data', (bytes) => {
        errors += bytes;
      });
      const [code] = (await once(child, 'close')) as [number];
      assert.equal(code, 0, errors);
      const { machine, quick, rows } = JSON.parse(readFileSync(file, 'utf8')) as { machine: object; quick: boolean; rows: Row[] };
      assert.equal(quick, true);
      assert.ok('cores' in machine && 'node' in machine && 'date' in machine);
      assert.deepEqual(
        [...new Set(rows.map((row) => row.group))],
        ['submit', 'jobs', 'get', 'guard', 'watch', 'queue', 'cluster', 'fleet', 'media', 'cache', 'engine'],
      );
      const columns = ['group', 'name', 'figure', 'unit', 'peer', 'ratio', 'target', 'verdict', 'note'];
      for (const row of rows) {
        assert.deepEqual(Object.keys(row), columns);
        assert.ok(['ok', 'short', 'no target', 'not run'].includes(row.verdict), row.verdict);
        assert.ok(row.verdict === 'not run' ? row.note : row.figure !== null && Number.isFinite(row.figure), JSON.stringify(row));
      }
      const names = rows.map((row) => `${row.group} ${row.name}`);
      assert.equal(new Set(names).size, names.length, 'no name twice');
      const ran = new Set(rows.filter((row) => row.figure !== null).map((row) => row.group));
      assert.deepEqual(
        [...ran],
        ['submit', 'jobs', 'get', 'guard', 'watch', 'queue', 'cluster', 'fleet', 'media', 'cache'],
        'only the engine needs a full run',
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('says what it does not know', async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, '..', 'bench', 'main.ts'), 'nonsense'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let errors = '';
    child.stderr.on('data', (bytes) => {
      errors += bytes;
    });
    const [code] = (await once(child, 'close')) as [number];
    assert.equal(code, 2);
    assert.match(errors, /there is no group nonsense[\s\S]*usage: npm run bench/);
  });
});
