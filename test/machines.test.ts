// What is told of the machines of a fleet: GPUs, driver, disk, how long a worker is up and when the next one starts.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startRedis } from '../scripts/redis-server.ts';
import { Machine } from '../src/app/machine.ts';
import { startSecured } from './api/secured.ts';
import { startService } from './api/service.ts';
import { openRig, workerOptions } from './fixtures/gpu/rig.ts';
import { until } from './fixtures/until.ts';

type Json = Record<string, unknown>;

/** Surroundings with a driver's program that says these lines. */
async function drivenBy(...lines: string[]) {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-driver-'));
  await writeFile(join(folder, 'nvidia-smi'), `#!/bin/sh\nprintf '%s\\n' ${lines.map((line) => `'${line}'`).join(' ')}\n`);
  await chmod(join(folder, 'nvidia-smi'), 0o755);
  return {
    env: { ...process.env, PATH: `${folder}:${process.env.PATH}` },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

const TWO = ['0, NVIDIA L40S, 46068, 19968, 71, 570.86.15', '1, NVIDIA L40S, 46068, 512, 0, 570.86.15'];

async function listed(baseUrl: string, token?: string): Promise<{ slots: Json[]; nodes: Json[] }> {
  const response = await fetch(new URL('/api/v1/slots', baseUrl), { headers: token ? { authorization: `Bearer ${token}` } : {} });
  assert.equal(response.status, 200);
  return (await response.json()) as { slots: Json[]; nodes: Json[] };
}

test('any replica tells a node’s GPUs, their driver and the room on its disk; a tenant is told the GPUs alone', async () => {
  await using redis = await startRedis();
  await using driver = await drivenBy(...TWO);
  const fleet = { STORE: redis.url, FLEET: randomUUID() };
  await using api = await startSecured({ ...fleet, ROLE: 'api', NODE: 'api-1' });
  await using _ = await startService({ ...fleet, ROLE: 'worker', NODE: 'gpu-02', SLOTS: 'auto', ALLOW_ANONYMOUS: 'yes' }, driver);
  const [admin, tenant] = [
    await api.token({ tenant: 'operators', scopes: ['admin', 'read'] }),
    await api.token({ tenant: 'one', scopes: ['read'] }),
  ];
  const gpu = {
    index: 0,
    name: 'NVIDIA L40S',
    memory_bytes: `${46068 * 2 ** 20}`,
    memory_used_bytes: `${19968 * 2 ** 20}`,
    utilization: 0.71,
  };
  let said = await listed(api.baseUrl, admin);
  // Told as it was said last; the disk is looked at beside it.
  await until(async () => {
    said = await listed(api.baseUrl, admin);
    return said.nodes[0]?.disk_free_bytes != null && said.slots.every(({ up_since }) => up_since !== null);
  });
  const node = said.nodes[0]!;
  assert.deepEqual([said.nodes.length, node.node, node.gpu_driver, node.away, node.drain], [1, 'gpu-02', '570.86.15', false, null]);
  assert.deepEqual((node.gpus as Json[])[0], gpu);
  assert.deepEqual(
    said.slots.map((slot) => slot.gpu),
    [0, 1],
  );
  assert.ok(Number(node.disk_free_bytes) > 0);
  const { nodes, slots } = await listed(api.baseUrl, tenant);
  assert.deepEqual([nodes[0]!.gpu_driver, nodes[0]!.disk_free_bytes, (nodes[0]!.gpus as Json[]).length, slots.length], [null, null, 2, 2]);
});

test('a machine without a driver has no GPUs, and is told all the same', async () => {
  await using service = await startService({ NODE: 'plain' });
  const { nodes, slots } = await listed(service.baseUrl);
  assert.deepEqual([nodes[0]!.node, nodes[0]!.gpus, nodes[0]!.gpu_driver], ['plain', [], null]);
  assert.ok(Date.parse(slots[0]!.up_since as string) <= Date.now());
  assert.equal(slots[0]!.next_start_at, null);
});

test('a disk that does not answer makes what is told old, and no answer late', async () => {
  const answers: PromiseWithResolvers<number>[] = [];
  const diskFree = () => {
    answers.push(Promise.withResolvers<number>());
    return answers.at(-1)!.promise;
  };
  const machine = new Machine({ node: 'one', gpus: () => [], diskFree });
  assert.equal(machine.facts().diskFreeBytes, undefined);
  assert.equal(machine.facts().diskFreeBytes, undefined);
  assert.equal(answers.length, 1, 'it is not asked a second time meanwhile');
  answers[0]!.resolve(412_000_000_000);
  await new Promise(setImmediate);
  assert.equal(machine.facts().diskFreeBytes, 412_000_000_000n);
});

test('a worker that fails to start says when it is tried again, and one that is warm since when', async () => {
  await using broken = await openRig({ worker: { ...workerOptions('exit:1'), backoffMs: { first: 60_000, most: 60_000 } } });
  await broken.store.until(() => broken.scheduler.slots()[0]!.nextStartAt !== undefined);
  const [slot] = broken.scheduler.slots();
  const leftSeconds = Number(slot!.nextStartAt!.seconds) - Date.now() / 1000;
  assert.ok(leftSeconds > 25 && leftSeconds <= 60, `${leftSeconds}`);
  assert.equal(slot!.upSince, undefined);
  await using warm = await openRig();
  await warm.scheduler.ready;
  assert.ok(warm.scheduler.slots()[0]!.upSince);
  assert.equal(warm.scheduler.slots()[0]!.nextStartAt, undefined);
});
