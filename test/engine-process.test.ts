// What the worker of each slot is started with.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { engineProcesses } from '../src/app/engine-process.ts';
import { readConfig } from '../src/config.ts';
import { ROOT } from './api/service.ts';

const processes = async (settings: Record<string, string>, gpus: number[] = []) => {
  const config = readConfig({ FFJOBS_PYTHON: 'python3', ...settings }, ROOT);
  return await engineProcesses(config, { env: {}, root: ROOT, workRoot: '/tmp/none', gpus });
};

test('FFJOBS_SLOTS=auto makes a slot for each GPU, and one where there is none', async () => {
  const slots = async (settings: Record<string, string>, gpus: number[]) =>
    (await processes({ FFJOBS_ENGINE: 'classical', ...settings }, gpus)).slots.map((slot) => slot.gpu);
  assert.deepEqual(await slots({ FFJOBS_SLOTS: 'auto' }, [0, 1]), [0, 1]);
  assert.deepEqual(await slots({ FFJOBS_SLOTS: 'auto' }, []), [undefined]);
  assert.deepEqual(await slots({ FFJOBS_SLOTS: 'auto', FFJOBS_GPUS: '1' }, [0, 1]), [1]);
  assert.deepEqual(await slots({ FFJOBS_SLOTS: '4', FFJOBS_GPUS: '0,1' }, [0, 1]), [0, 1, 0, 1]);
  assert.deepEqual(await slots({ FFJOBS_SLOTS: '2' }, [0]), [undefined, undefined]);
  await assert.rejects(processes({ FFJOBS_SLOTS: 'many' }), /FFJOBS_SLOTS/);
});

test('a slot of FaceFusion has its own providers, devices and threads, and what all of them share', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'ffjobs-home-'));
  t.after(() => rm(home, { recursive: true }));
  const { slots, worker } = await processes(
    {
      FFJOBS_ENGINE: 'facefusion',
      FACEFUSION_HOME: home,
      FACEFUSION_PYTHON: '/opt/facefusion/bin/python',
      FACEFUSION_EXECUTION_PROVIDERS: 'tensorrt, cuda; cpu',
      FACEFUSION_EXECUTION_DEVICE_IDS: '0;1',
      FACEFUSION_EXECUTION_THREAD_COUNT: '4',
      FFJOBS_SLOTS: '3',
      FFJOBS_GPUS: '0,1',
      FFJOBS_MODEL_MEMORY: '2GiB',
    },
    [0, 1],
  );
  assert.equal(worker.command, '/opt/facefusion/bin/python');
  assert.equal(worker.recycleGrowthBytes, (2 + 4) * 2 ** 30, 'its models and what it may grow by');
  const own = ({ variables }: (typeof slots)[number]) => [
    variables?.FACEFUSION_EXECUTION_PROVIDERS,
    variables?.FACEFUSION_EXECUTION_DEVICE_IDS,
    variables?.FACEFUSION_EXECUTION_THREAD_COUNT,
  ];
  assert.deepEqual(slots.map(own), [
    ['tensorrt cuda', '0', '4'],
    ['cpu', '1', '4'],
    ['tensorrt cuda', '0', '4'],
  ]);
  assert.deepEqual(
    slots.map(({ gpu, variables }) => [gpu, variables?.FACEFUSION_HOME, variables?.FFJOBS_MODEL_MEMORY]),
    [0, 1, 0].map((gpu) => [gpu, home, `${2 * 2 ** 30}`]),
  );
});

test('a worker is replaced after so many jobs, or when it has grown', async () => {
  const replaced = async (settings: Record<string, string>) => {
    const { worker } = await processes({ FFJOBS_ENGINE: 'classical', ...settings });
    return [worker.recycleAfterJobs, worker.recycleGrowthBytes];
  };
  assert.deepEqual(await replaced({}), [10_000, 4 * 2 ** 30]);
  assert.deepEqual(await replaced({ FFJOBS_RECYCLE_AFTER_JOBS: '7', FFJOBS_RECYCLE_GROWTH: '512M' }), [7, 512 * 2 ** 20]);
  const never = { FFJOBS_RECYCLE_AFTER_JOBS: '0', FFJOBS_RECYCLE_GROWTH: 'off' };
  assert.deepEqual(await replaced(never), [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
});

test('a slot of FaceFusion that nothing is said of has what FaceFusion chooses by itself', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'ffjobs-home-'));
  t.after(() => rm(home, { recursive: true }));
  const { slots } = await processes({ FFJOBS_ENGINE: 'facefusion', FACEFUSION_HOME: home, FACEFUSION_PYTHON: 'python3' });
  assert.deepEqual(
    Object.keys(slots[0]?.variables ?? {}).filter((name) => name.startsWith('FACEFUSION_EXECUTION')),
    [],
  );
});
