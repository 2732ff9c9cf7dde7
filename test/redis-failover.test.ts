// A service whose Redis fails over in the middle of its work, behind Sentinels and as a Cluster: no call of a client that retries fails, and no run is spent on it.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CachePolicy } from '../gen/facefusion/jobs/v1/job_pb.js';
import { startServiceProcess } from '../scripts/cluster/service-process.ts';
import { startRedisCluster, startSentinels } from '../scripts/redis-topologies.ts';
import { connectJobs } from '../src/client/node.ts';
import { python, ROOT } from './api/service.ts';

/** The engine opens nothing: the first bytes of their formats. */
const MEDIA = { 'face.jpg': 'ffd8ffe000104a46494600010100000100010000ffd9', 'target.png': '89504e470d0a1a0a0000000d49484452' };
const CALLERS = 4;
const EACH = 6;

for (const [name, start] of [
  ['Redis with Sentinels', startSentinels],
  ['Redis Cluster', startRedisCluster],
] as const) {
  test(`${name}: a primary that dies in the middle costs no call and no attempt`, { timeout: 240_000 }, async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'ffjobs-failover-'));
    t.after(() => rm(dir, { recursive: true, force: true }));
    await using open = new AsyncDisposableStack();
    const redis = open.use(await start());
    const input = join(dir, 'input');
    await mkdir(input);
    for (const [file, hex] of Object.entries(MEDIA)) await writeFile(join(input, file), Buffer.from(hex, 'hex'));
    const serve = (node: string, role: string) =>
      open.use(
        startServiceProcess({
          settings: {
            STORE: redis.url,
            NODE: node,
            ROLE: role,
            SLOTS: '2',
            DATA_DIR: join(dir, node),
            BLOBS: `local:${join(dir, 'blobs')}`,
            INPUT_ROOT: input,
            ENGINE: 'scripted:Scripted',
            ENGINE_PATH: join(ROOT, 'worker', 'tests', 'engines'),
            PYTHON: python(),
            PROBE: 'off',
            CONSOLE: 'off',
            CACHE_TTL: 'off',
          },
          log: join(dir, `${node}.log`),
        }),
      );
    const [api, node] = [serve('api', 'api'), serve('node', 'worker')];
    const url = await api.listening;
    await node.listening;

    let done = 0;
    const called = Promise.withResolvers<void>();
    const callers = Array.from({ length: CALLERS }, async (_, caller) => {
      using client = connectJobs(url);
      for (let number = 0; number < EACH; number++) {
        const output = `RIFF0000WEBPVP8 ${caller} ${number}`;
        const { jobId } = await client.submit({
          sourceImages: ['face.jpg'],
          target: { case: 'targetImage', value: 'target.png' },
          parameters: { output, steps: 5, seconds_per_step: 0.1 },
          outputFormat: 'webp',
          cache: CachePolicy.OFF,
        });
        const sequences = new Set<number>();
        const job = await client.wait(jobId, { onEvent: ({ sequence }) => sequences.add(sequence) });
        assert.equal(job.attempt, 1);
        const [first] = sequences;
        assert.deepEqual(
          [...sequences],
          Array.from({ length: sequences.size }, (_, i) => first! + i),
        );
        assert.equal(await (await client.result(jobId)).response.text(), output);
        if (++done === CALLERS) called.resolve();
      }
    });
    const calling = Promise.all(callers);
    await Promise.race([called.promise, calling]);
    const fleet = 'ffjobs';
    // What Redis acknowledges before its replica has it may be lost with it: that is Redis's, and not what is looked at here.
    await redis.replicated(fleet);
    await redis.failOver(fleet);
    await redis.heal();
    await calling;
    assert.equal(done, CALLERS * EACH);
  });
}
