// The two request metrics, beside prom-client's own given the same requests.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counter, Histogram, Registry } from 'prom-client';
import { RequestFigures } from '../src/telemetry/request-figures.ts';

test('requests are shown exactly as prom-client would show them', async () => {
  const ours = new Registry();
  const figures = new RequestFigures(ours);
  const theirs = new Registry();
  const registers = [theirs];
  const help = 'Requests by rpc or route and gRPC code';
  const counter = new Counter({ name: 'api_requests_total', help, labelNames: ['method', 'endpoint', 'code'], registers });
  const histogram = new Histogram({
    name: 'api_request_duration_seconds',
    help: 'Seconds from the first byte of a request to the last of its answer; streams included',
    labelNames: ['method', 'endpoint'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600],
    registers,
  });
  assert.equal(await ours.metrics(), await theirs.metrics(), 'nothing counted yet');
  for (const endpoint of ['a.Books/Get', '/healthz', 'odd "name" \\ of\n a path']) {
    for (const [i, code] of ['ok', 'not_found', 'ok'].entries()) {
      // On a bound, between two, above them all.
      for (const seconds of [0.001, 0.0011, 0.5, 600, 601, i / 7]) {
        figures.count({ method: 'GET', endpoint, code, seconds });
        counter.inc({ method: 'GET', endpoint, code });
        histogram.observe({ method: 'GET', endpoint }, seconds);
      }
    }
  }
  assert.equal(await ours.metrics(), await theirs.metrics());
  assert.equal(await ours.metrics(), await theirs.metrics(), 'reading changes nothing');
});
