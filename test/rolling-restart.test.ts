// Each replica of a fleet and a node, restarted in turn and in good order while callers submit, watch and read through a balancer: no call of a client that
// retries fails, no watcher sees a gap, and no run is lost or spent on it.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CachePolicy, JobStatus } from '../gen/facefusion/jobs/v1/job_pb.js';
import { type Member, startCluster } from '../scripts/chaos/members.ts';
import { connectJobs } from '../src/client/node.ts';
import { python } from './api/service.ts';
import { until } from './fixtures/until.ts';

const CALLERS = 4;

/** Gives each connection to the next replica that takes it, as a balancer does. */
async function balance(t: TestContext, replicas: readonly Member[]): Promise<string> {
  let next = 0;
  const server = createServer({ pauseOnConnect: true }, (client) => {
    client.on('error', () => {});
    const tryNext = (left: number) => {
      const { address } = replicas[next++ % replicas.length]!;
      if (left === 0) return void client.destroy();
      if (address === undefined) return tryNext(left - 1);
      const upstream = connect(Number(new URL(address).port), '127.0.0.1');
      upstream.once('connect', () => client.pipe(upstream).pipe(client));
      upstream.on('error', () => (upstream.bytesRead === 0 && client.bytesRead === 0 ? tryNext(left - 1) : client.destroy()));
      upstream.on('close', () => upstream.bytesRead > 0 && client.destroy());
      client.on('close', () => upstream.destroy());
    };
    tryNext(replicas.length);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('a rolling restart under load costs no call, no event and no attempt', { timeout: 300_000 }, async (t) => {
  const cluster = await startCluster('redis', python(), { port: 1 });
  t.after(() => cluster.end());
  const url = await balance(t, cluster.apis);
  const rolling = { over: false };
  const retried: string[] = [];
  const done: { readonly jobId: string; readonly sequences: number[] }[] = [];

  const callers = Array.from({ length: CALLERS }, async (_, caller) => {
    using client = connectJobs(url, { retry: { onWait: (error) => retried.push(error.rawMessage) } });
    for (let number = 0; !rolling.over; number++) {
      const { jobId } = await client.submit({
        sourceImages: ['face.jpg'],
        target: { case: 'targetImage', value: 'target.png' },
        parameters: { ledger: cluster.ledger, output: `RIFF0000WEBPVP8 ${caller} ${number}`, steps: 4, seconds_per_step: 0.1 },
        outputFormat: 'webp',
        cache: CachePolicy.OFF,
      });
      const sequences: number[] = [];
      const job = await client.wait(jobId, { onEvent: ({ sequence }) => sequences.push(sequence) });
      assert.equal(job.status, JobStatus.SUCCEEDED);
      assert.equal(job.attempt, 1, `${jobId}: a restart in good order spends no attempt`);
      const { response } = await client.result(jobId);
      assert.equal(await response.text(), `RIFF0000WEBPVP8 ${caller} ${number}`);
      done.push({ jobId, sequences });
    }
  });
  const calling = Promise.all(callers);
  // A call that fails ends the test, whatever is being restarted.
  const restarting = (async () => {
    for (const member of [...cluster.apis, cluster.nodes[0]!]) {
      const before = done.length;
      assert.equal(await member.stop(), 0, `${member.name}: its log is ${join(cluster.dir, `${member.name}.log`)}`);
      await member.start();
      await Promise.race([calling, until(() => done.length > before)]);
    }
    rolling.over = true;
  })();
  await Promise.all([calling, restarting]);

  assert.ok(done.length >= 5);
  for (const { jobId, sequences } of done) {
    // The first event is a snapshot, at whatever sequence.
    const expected = Array.from({ length: sequences.at(-1)! - sequences[0]! + 1 }, (_, i) => sequences[0]! + i);
    assert.deepEqual([...new Set(sequences)], expected, `${jobId}: gapless over all connections`);
  }
  t.diagnostic(`${done.length} jobs, ${retried.length} calls made again`);
});
