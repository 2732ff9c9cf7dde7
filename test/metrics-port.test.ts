// The port that shows the metrics, asked in every way that scrapers and probes do.
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { createMetrics } from '../src/telemetry/metrics.ts';
import { serveMetrics } from '../src/telemetry/metrics-port.ts';

test('metrics are read with GET, whatever a scraper asks for besides, and a wrong path or method is told as such', async (t) => {
  const server = await serveMetrics(createMetrics(), { host: '127.0.0.1', port: 0, token: undefined });
  t.after(() => server.close());
  const ask = (path: string, method: string) =>
    fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`, { method, headers: { connection: 'close' } });

  for (const path of ['/metrics', '/metrics?collect[]=jobs'])
    assert.match(await (await ask(path, 'GET')).text(), /api_requests_total/, path);
  const head = await ask('/metrics', 'HEAD');
  assert.deepEqual([head.status, await head.text()], [200, '']);
  const post = await ask('/metrics', 'POST');
  assert.deepEqual([post.status, post.headers.get('allow'), await post.text()], [405, 'GET, HEAD', 'metrics are read with GET\n']);
  const nowhere = await ask('/metrics/jobs', 'GET');
  assert.deepEqual([nowhere.status, await nowhere.text()], [404, 'metrics are at /metrics\n']);
});
