// The result cache and shared runs in the whole service.
import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Json, restClient } from './api/clients.ts';
import { gate, untilTerminal } from './api/scenarios.ts';
import { startSecured } from './api/secured.ts';
import { ROOT, type Service, startService } from './api/service.ts';
import { startOrigin, well } from './fixtures/media/origin.ts';

const ON = { CACHE_TTL: '24h' };

/** Submits, waits for the end, and tells how the job ended. */
function runner(service: Service) {
  const client = restClient(service.baseUrl);
  const job = async (more: Json = {}) => {
    const { job_id } = await client.submit({ source_images: ['face.jpg'], target_image: 'target.png', ...more });
    await untilTerminal(client, job_id as string);
    return await client.get(job_id as string);
  };
  return { client, job };
}

async function blobFiles({ dir }: Service): Promise<string[]> {
  const names = await readdir(join(dir, 'blobs'), { recursive: true });
  return names.filter((name) => /[0-9a-f]{64}$/.test(name)).map((name) => join(dir, 'blobs', name));
}

const facts = ({ status, cached, attempt }: Json) => [status, cached, attempt];
const RAN = ['succeeded', false, 1];
const HIT = ['succeeded', true, 0];

test('a like job ends with the result that is there, and anything that differs runs', async () => {
  await using service = await startService(ON);
  const { client, job } = runner(service);
  const first = await job({ parameters: { steps: 1, output: 'one' } });
  assert.deepEqual(facts(first), RAN);
  const again = await job({ parameters: { output: 'one', steps: 1, processors: ['face_swapper'], log_lines: 0 } });
  assert.deepEqual(facts(again), HIT);
  assert.equal((again.result as Json).sha256, (first.result as Json).sha256);
  assert.ok((await fetch(again.result_url as string)).ok);

  const warned = { parameters: { output: 'warned', warnings: ['two frames have no face'] } };
  assert.deepEqual((await job(warned)).warnings, warned.parameters.warnings);
  const taken = await job(warned);
  assert.deepEqual([taken.cached, taken.warnings], [true, warned.parameters.warnings], 'what the engine said of the result goes with it');

  const target = await readFile(join(service.inputDir, 'target.png'));
  await writeFile(join(service.inputDir, 'copy.png'), target);
  assert.deepEqual(facts(await job({ target_image: 'copy.png', parameters: { output: 'one' } })), HIT);
  const others: Json[] = [
    { parameters: { output: 'two' } },
    { parameters: { output: 'one', steps: 2 } },
    { parameters: { output: 'one' }, output_format: 'jpg' },
    { parameters: { output: 'one' }, source_images: ['face.jpg', 'face.jpg'] },
    { parameters: { output: 'one' }, cache: 'off' },
  ];
  for (const other of others) assert.deepEqual(facts(await job(other)), RAN, JSON.stringify(other));
  assert.deepEqual(facts(await job({ parameters: { output: 'one' }, cache: 'refresh' })), RAN);
  assert.deepEqual(facts(await job({ parameters: { output: 'one' } })), HIT);

  await appendFile(join(service.inputDir, 'target.png'), 'x');
  assert.deepEqual(facts(await job({ parameters: { output: 'one' } })), RAN);
  await writeFile(join(service.inputDir, 'target.png'), target);
  assert.deepEqual(facts(await job({ parameters: { output: 'one' } })), HIT);
  await client.purge(first.job_id as string);
  assert.deepEqual(facts(await job({ parameters: { output: 'one' } })), RAN);
  // As after a store was put back and its blobs were not.
  for (const blob of await blobFiles(service)) await rm(blob);
  const anew = await job({ parameters: { output: 'one' } });
  assert.deepEqual(facts(anew), RAN);
  assert.ok((await fetch(anew.result_url as string)).ok);
  assert.deepEqual(facts(await job({ parameters: { output: 'one' } })), HIT);
  await service.restart();
  assert.deepEqual(facts(await runner(service).job({ parameters: { output: 'one' } })), HIT);
});

test('another version of the engine, or other files of its models, make another run', async (t) => {
  const engines = await mkdtemp(join(tmpdir(), 'ffjobs-versions-'));
  t.after(() => rm(engines, { recursive: true }));
  const says = (name: 'version' | 'models', what: string) => writeFile(join(engines, name), what);
  await says('version', '1');
  await says('models', 'a');
  await writeFile(
    join(engines, 'versioned.py'),
    `import sys
from pathlib import Path

sys.path.insert(0, ${JSON.stringify(join(ROOT, 'worker', 'tests', 'engines'))})
from scripted import Scripted

HERE = Path(__file__).parent


class Versioned(Scripted):
    version = (HERE / "version").read_text()

    def model_digest(self) -> str:
        return (HERE / "models").read_text()
`,
  );
  await using service = await startService({ ...ON, ENGINE: 'versioned:Versioned', ENGINE_PATH: engines, PROBE: 'off' });
  const outcomes = async () => {
    const { job } = runner(service);
    return [facts(await job()), facts(await job())];
  };
  assert.deepEqual(await outcomes(), [RAN, HIT]);
  await service.restart();
  assert.deepEqual(await outcomes(), [HIT, HIT], 'the same engine as before');
  for (const name of ['models', 'version'] as const) {
    await says(name, 'other');
    await service.restart();
    assert.deepEqual(await outcomes(), [RAN, HIT], name);
  }
});

test('the bytes behind a URL count, and not the URL', async () => {
  await using origin = await startOrigin();
  await using service = await startService({ ...ON, HTTP_ALLOW: `127.0.0.1:${origin.port}` });
  const { job } = runner(service);
  const at = (path: string) => `http://127.0.0.1:${origin.port}${path}`;
  let picture = await readFile(join(service.inputDir, 'target.png'));
  for (const path of ['/a.png', '/b.png']) {
    origin.on(
      path,
      well(() => picture),
    );
  }
  assert.deepEqual(facts(await job({ target_image: at('/a.png') })), RAN);
  assert.deepEqual(facts(await job({ target_image: at('/b.png') })), HIT);
  picture = Buffer.concat([picture, Buffer.from('more')]);
  assert.deepEqual(facts(await job({ target_image: at('/a.png') })), RAN);
});

test('what is to be gone after its retention is not kept for like jobs', async () => {
  await using service = await startService(ON);
  const { client, job } = runner(service);
  const { job_id: id } = await job({ retention: '1.5s' });
  const isThere = () =>
    client.result(id as string).then(
      () => true,
      () => false,
    );
  while (await isThere()) await sleep(50);
  assert.deepEqual(facts(await job()), RAN);
  assert.deepEqual(facts(await job({ retention: '1.5s' })), HIT);
});

test('failures and refusals are not kept', async () => {
  await using service = await startService(ON);
  const { job } = runner(service);
  const verdicts: Json[] = [{ fail: 'NO_FACE_IN_SOURCE' }, { refuse: 'no' }];
  for (const parameters of verdicts) {
    for (let i = 0; i < 2; i++) assert.equal((await job({ parameters })).attempt, 1);
  }
});

test('like jobs in flight are one run, which outlives its first job', async () => {
  await using service = await startService({ ...ON, SLOTS: '1' });
  const client = restClient(service.baseUrl);
  const held = gate(service.inputDir);
  const submit = async () =>
    (await client.submit({ source_images: ['face.jpg'], target_image: 'target.png', parameters: held.parameters })).job_id as string;
  const first = await submit();
  const until = async (id: string, wanted: (job: Json) => boolean) => {
    for await (const event of client.watch(id)) {
      const state = (event.state ?? (event.snapshot as Json | undefined)?.job) as Json | undefined;
      if (state && wanted(state)) return;
    }
  };
  await until(first, ({ status }) => status === 'processing');
  const others = await Promise.all(Array.from({ length: 5 }, submit));
  for (const id of others) await until(id, ({ wait_reason }) => wait_reason === 'another_job');
  assert.equal((await client.cancel(first)).status, 'canceled');
  assert.equal((await client.cancel(others[0]!)).status, 'canceled');
  await held.open();
  for (const id of others.slice(1)) {
    await untilTerminal(client, id);
    assert.deepEqual(facts(await client.get(id)), HIT);
  }
  assert.deepEqual((await client.get(first)).status, 'canceled');
  assert.equal((await blobFiles(service)).length, 1);
});

test('a copy of its own is made for each job that wants one', async (t) => {
  const place = await mkdtemp(join(tmpdir(), 'ffjobs-out-'));
  t.after(() => rm(place, { recursive: true }));
  await using service = await startService({ ...ON, OUTPUT_ROOTS: place });
  const { job } = runner(service);
  await job({});
  const hit = await job({ output_uri: `${place}/` });
  assert.deepEqual(facts(hit), HIT, JSON.stringify(hit.error));
  assert.deepEqual(await readdir(place), [`${hit.job_id}.png`]);
  assert.equal(await readFile(join(place, `${hit.job_id}.png`), 'utf8'), 'scripted');
  assert.ok(!((await job({})).result as Json).output_uri);
});

for (const scope of ['tenant', 'all'] as const) {
  test(`tenants share results where the operator says so: ${scope}`, async () => {
    await using service = await startSecured({ ...ON, CACHE_SCOPE: scope });
    const ended: Json[] = [];
    for (const tenant of ['red', 'blue']) {
      await service.furnish(tenant);
      const client = restClient(service.baseUrl, await service.token({ tenant, scopes: ['submit', 'read'] }));
      const { job_id } = await client.submit({ source_images: ['face.jpg'], target_image: 'target.png' });
      await untilTerminal(client, job_id as string);
      ended.push(await client.get(job_id as string));
    }
    assert.deepEqual(ended.map(facts), [RAN, scope === 'all' ? HIT : RAN]);
  });
}
