// What operators see of jobs and GPUs at the metrics port.
import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectJobs } from '../src/client/node.ts';
import { GpuWatch, readGpus } from '../src/gpu/devices.ts';
import { createMetrics } from '../src/telemetry/metrics.ts';
import { startService } from './api/service.ts';
import { freePort } from './fixtures/free-port.ts';

const NONE = { jobsByStatus: async () => [], slotsByState: () => [], watchers: () => 0, workerRestarts: () => 0, gpus: () => [] };

test('jobs are counted by how they ended, with their times and bytes', async () => {
  const metricsPort = await freePort();
  await using service = await startService({ METRICS_PORT: `${metricsPort}` });
  using client = connectJobs(service.baseUrl);
  const request = { sourceImages: ['face.jpg'], target: { case: 'targetImage' as const, value: 'target.png' } };
  await client.submitAndWait({ ...request, parameters: { output: 'twelve bytes' } });
  await assert.rejects(client.submitAndWait({ ...request, parameters: { fail: 'NO_SOURCE_FACE' } }));
  await assert.rejects(client.submitAndWait({ ...request, parameters: { refuse: 'no' } }));
  await client.submitAndWait({ ...request, parameters: { fail: 'SHAKY', retryable: true, fail_attempts: 1, output: 'again' } });
  const slow = await client.submit({ ...request, parameters: { steps: 100_000, seconds_per_step: 0.05 } });
  const waiter = await client.submit({ ...request, target: { case: 'targetImage', value: `job://${slow.jobId}` } });
  await client.jobs.cancel({ jobId: waiter.jobId });
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  const value = (series: string) =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(`${series} `))
        ?.split(' ')[1],
    );
  assert.equal(value('jobs_ended_total{status="succeeded",reason="",cached="false"}'), 2);
  assert.equal(value('jobs_ended_total{status="failed",reason="NO_SOURCE_FACE",cached="false"}'), 1);
  assert.equal(value('jobs_ended_total{status="canceled",reason="",cached="false"}'), 1, 'one that no slot ever held');
  assert.equal(value('job_retries_total{reason="SHAKY"}'), 1);
  assert.match(text, /jobs_ended_total\{status="refused",reason="[A-Z_]+",cached="false"\} 1/);
  assert.equal(value('media_bytes_total{direction="out"}'), 'twelve bytes'.length + 'again'.length);
  assert.equal(value('job_queue_wait_seconds_count'), 4);
  assert.ok(value('slot_busy_seconds_total{slot="0"}') > 0);
  await client.jobs.cancel({ jobId: slow.jobId });
});

test('a scrape asks the store once, and one that is away costs its own figures alone', async () => {
  const metrics = createMetrics();
  let asked = 0;
  let away = false;
  metrics.bind({
    ...NONE,
    watchers: () => 3,
    async jobsByStatus() {
      asked++;
      if (away) throw new Error('no answer');
      return [
        ['queued', 2],
        ['failed', 1],
      ] as const;
    },
  });
  const series = async () =>
    (await metrics.scrape()).text.split('\n').filter((line) => /^(jobs|queue_depth|job_store_up|watchers)\b[^_]/.test(line));
  const whole = ['jobs{status="queued"} 2', 'jobs{status="failed"} 1', 'queue_depth 2', 'job_store_up 1', 'watchers 3'];
  assert.deepEqual(await series(), whole);
  assert.equal(asked, 1);
  away = true;
  assert.deepEqual(await series(), ['job_store_up 0', 'watchers 3']);
  away = false;
  assert.deepEqual(await series(), whole);
});

test('the values of a label are bounded', async () => {
  const metrics = createMetrics();
  metrics.bind(NONE);
  for (let i = 0; i < 1000; i++) metrics.jobs.ended({ status: 'failed', cached: false, reason: `R${i}` });
  const { text } = await metrics.scrape();
  const series = text.split('\n').filter((line) => line.startsWith('jobs_ended_total{'));
  assert.ok(series.length < 100, `${series.length} series`);
  assert.match(text, /reason="other",cached="false"\} 9\d\d/);
});

test('GPUs are what their driver says, and a driver that says nothing is no GPU', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'gpus-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const driver = async (...lines: string[]) => {
    await writeFile(join(folder, 'nvidia-smi'), `#!/bin/sh\nprintf '%s\\n' ${lines.map((line) => `'${line}'`).join(' ')}\n`);
    await chmod(join(folder, 'nvidia-smi'), 0o755);
  };
  assert.deepEqual(await readGpus({ PATH: folder }), []);
  await driver('0, NVIDIA L4, 23034, 1024, 37, 570.86.15', '1, NVIDIA L4, 23034, 0, [N/A], [N/A]');
  const gpus = await readGpus({ PATH: folder });
  const [memoryBytes, memoryUsedBytes] = [23034 * 2 ** 20, 2 ** 30];
  assert.deepEqual(gpus[0], { index: 0, name: 'NVIDIA L4', memoryBytes, memoryUsedBytes, utilization: 0.37, driver: '570.86.15' });
  assert.deepEqual([gpus[1]?.utilization, gpus[1]?.driver], [undefined, undefined]);

  await using watch = await GpuWatch.open(() => readGpus({ PATH: folder }));
  assert.equal(watch.utilization(0), 0.37);
  const metrics = createMetrics();
  metrics.bind({ ...NONE, gpus: () => watch.all });
  const { text } = await metrics.scrape();
  assert.match(text, /gpu_utilization_ratio\{gpu="0"\} 0\.37/);
  assert.doesNotMatch(text, /gpu_utilization_ratio\{gpu="1"\}/);
  assert.match(text, /gpu_memory_used_bytes\{gpu="0"\} 1073741824/);
  await driver('No devices were found');
  assert.deepEqual(await readGpus({ PATH: folder }), []);
});
