import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { WorkerState } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { openWorker } from './fixtures/gpu/lone-worker.ts';
import { alive } from './fixtures/gpu/rig.ts';

const { STARTING, IDLE, BUSY, STOPPING, BACKING_OFF, CLOSED } = WorkerState;

/** Waits for another process's end, which tells nobody. */
async function gone(pid: number): Promise<void> {
  while (alive(pid)) await delay(5);
}

test('a worker starts, runs and is idle again', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const run = rig.run([['progress', ['STEP_PROCESSING', 40]]]);
  assert.equal(rig.worker.state, BUSY);
  assert.equal(rig.worker.facts.jobId, 'job_1');
  const end = await run.end;
  assert.equal(end.kind, 'done');
  assert.equal(rig.worker.state, IDLE);
  assert.deepEqual(rig.states, [STARTING, IDLE, BUSY, IDLE]);
  assert.deepEqual([rig.worker.ready?.engine, rig.worker.facts.warmModels, rig.worker.facts.rssBytes], ['fake', ['model'], 1e8]);
});

test('a busy worker takes no second run', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const run = rig.run([['wait', 0]]);
  assert.throws(() => rig.run([]), /not idle/);
  run.stop(1000);
  assert.equal((await run.end).kind, 'canceled');
});

test('the environment is named variables only, with the device of the slot', async () => {
  await using rig = openWorker({
    environment: { PATH: '/usr/bin:/bin', SECRET: 'x', LD_LIBRARY_PATH: '/opt/lib', CUDA_VISIBLE_DEVICES: '7' },
    passOn: ['LD_LIBRARY_PATH'],
  });
  await rig.reached(IDLE);
  const run = rig.run([['env', 0]]);
  await run.end;
  const env = JSON.parse(run.logs[0]!) as Record<string, string>;
  // Python's own.
  delete env.LC_CTYPE;
  assert.deepEqual(Object.keys(env).sort(), ['CUDA_VISIBLE_DEVICES', 'LD_LIBRARY_PATH', 'MALLOC_ARENA_MAX', 'PATH', 'PYTHONUNBUFFERED']);
  assert.equal(env.CUDA_VISIBLE_DEVICES, '3');
});

test('a refusal, a failure and silence are told apart', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const failed = { outcome: 'OUTCOME_ERROR', reason: 'NO_FACE_IN_SOURCE', message: 'no face', retryable: false };
  const one = await rig.run([['failed', failed]]).end;
  assert.deepEqual(one.kind === 'failed' && one.failure, { reason: 'NO_FACE_IN_SOURCE', message: 'no face', retryable: false });
  const two = await rig.run([['failed', { ...failed, outcome: 'OUTCOME_REFUSED', retryable: true }]]).end;
  assert.equal(two.kind === 'refused' && two.failure.retryable, false);
  const three = await rig.run([['idle_only', 0]]).end;
  assert.equal(three.kind === 'failed' && three.failure.reason, 'ENGINE_ERROR');
  const four = await rig.run([['failed', { outcome: 'OUTCOME_CANCELED' }]]).end;
  assert.equal(four.kind === 'failed' && four.failure.message, 'the engine stopped without being asked');
});

test('words of another attempt are not heard', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const run = rig.run([
    ['foreign', 0],
    ['progress', ['STEP_PROCESSING', 10]],
  ]);
  const end = await run.end;
  assert.equal(end.kind === 'done' && end.done.mediaType, 'image/png');
  assert.deepEqual(
    run.progress.map(({ percent }) => percent),
    [10],
  );
});

test('bad and huge lines are reported and the run goes on', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const end = await rig.run([
    ['raw', 'this is not JSON\n'],
    ['raw', '{"progress": {"percent": "many"}}\n'],
    ['raw', '{"dance": {}}\n'],
    ['huge', 5_000_000],
  ]).end;
  assert.equal(end.kind, 'done');
  const reported = rig.logger.lines.filter((line) => line.startsWith('warn not a message'));
  assert.equal(reported.length, 3);
  assert.match(reported[2]!, /longer than/);
});

test('a run settles on idle, not on done', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const started = performance.now();
  const end = await rig.run([['late_idle', 0.15]]).end;
  assert.equal(end.kind, 'done');
  assert.ok(performance.now() - started >= 140);
});

test('a worker that never becomes idle again is killed, and its result stands', async () => {
  await using rig = openWorker({ idleTimeoutMs: 50 });
  await rig.reached(IDLE);
  const { pid } = rig.worker.facts;
  const end = await rig.run([['done_no_idle', 0]]).end;
  assert.deepEqual([end.kind, end.killed, alive(pid!)], ['done', true, false]);
  await rig.reached(IDLE);
});

test('a worker that dies after done has done its work', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const end = await rig.run([['done_then_exit', 3]]).end;
  assert.deepEqual([end.kind, end.killed], ['done', true]);
});

test('a crash is told with its exit and last words, and the worker comes back', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const one = await rig.run([
    ['stderr', 'RuntimeError: CUDA out of memory'],
    ['exit', 3],
  ]).end;
  assert.equal(one.kind, 'crashed');
  assert.deepEqual(one.kind === 'crashed' && [one.exit, one.lastLines], ['exited with code 3', ['RuntimeError: CUDA out of memory']]);
  await rig.reached(BACKING_OFF);
  await rig.reached(IDLE);
  const two = await rig.run([['kill', 'SIGSEGV']]).end;
  assert.equal(two.kind === 'crashed' && two.exit, 'was killed by SIGSEGV');
  await rig.reached(IDLE);
  assert.equal(rig.worker.facts.restarts, 2);
});

test('descendants of a worker that crashed are dead before its run settles', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const run = rig.run([
    ['child', 0],
    ['sleep', 0.05],
    ['exit', 1],
  ]);
  const end = await run.end;
  assert.equal(end.kind, 'crashed');
  const child = Number(run.logs[0]!.split(' ')[1]);
  assert.equal(alive(child), false);
});

test('a hung run is judged by progress, whatever the heartbeat says', async () => {
  await using rig = openWorker({ stallTimeoutMs: 150 }, 'beat');
  await rig.reached(IDLE);
  const end = await rig.run([
    ['progress', ['STEP_PROCESSING', 1]],
    ['hang', 0],
  ]).end;
  assert.deepEqual([end.kind, end.killed], ['stalled', true]);
  await rig.reached(IDLE);
});

test('a run that gets on is not taken for hung', async () => {
  await using rig = openWorker({ stallTimeoutMs: 800 });
  await rig.reached(IDLE);
  const acts = Array.from({ length: 10 }, (_, i) => [['sleep', 0.1] as const, ['log', `step ${i}`] as const]).flat();
  assert.equal((await rig.run(acts).end).kind, 'done');
});

test('the run timeout cancels first and kills after the grace', async () => {
  await using rig = openWorker({ cancelGraceMs: 300 });
  await rig.reached(IDLE);
  const { pid } = rig.worker.facts;
  const gentle = await rig.run([['wait', 0]], 50).end;
  assert.deepEqual([gentle.kind, gentle.killed, rig.worker.facts.pid], ['timed_out', false, pid]);
  const hard = await rig.run([['hang', 0]], 50).end;
  assert.deepEqual([hard.kind, hard.killed], ['timed_out', true]);
  assert.ok(hard.seconds >= 0.34);
});

test('a stop with grace 0 kills, and a later stop with less grace comes sooner', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const one = rig.run([['hang', 0]]);
  one.stop(0);
  assert.deepEqual([(await one.end).kind, (await one.end).killed], ['canceled', true]);
  await rig.reached(IDLE);
  const two = rig.run([['hang', 0]]);
  two.stop(3_600_000);
  assert.equal(rig.worker.state, STOPPING);
  two.stop(10);
  assert.equal((await two.end).kind, 'canceled');
});

test('a worker that closes its descriptors is killed', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const end = await rig.run([['close_events', 0]]).end;
  assert.equal(end.kind === 'crashed' && end.exit, 'closed its descriptors and was killed');
});

test('a worker that cannot start says why, backs off longer and longer, and is tried again', async () => {
  await using rig = openWorker({ backoffMs: { first: 10, most: 40 }, random: () => 1 }, 'exit:1');
  await rig.until(() => rig.worker.facts.restarts >= 3 && rig.worker.state === BACKING_OFF);
  assert.equal(
    rig.worker.facts.problem,
    "the worker exited with code 1; it said last: ModuleNotFoundError: No module named 'facefusion_engine'",
  );
  assert.equal(rig.worker.up, false);
  assert.equal(rig.worker.ready, undefined);
});

test('a worker of a slot has the variables of that slot, over all others', async () => {
  await using rig = openWorker({ environment: { PATH: '/usr/bin:/bin', LANG: 'C' }, variables: { LANG: 'en', MODE: 'cpu' } });
  await rig.reached(IDLE);
  const run = rig.run([['env', 0]]);
  await run.end;
  const env = JSON.parse(run.logs[0]!) as Record<string, string>;
  assert.deepEqual([env.LANG, env.MODE, env.CUDA_VISIBLE_DEVICES], ['en', 'cpu', '3']);
});

test('a start that failed once is forgotten when the next one succeeds', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ffjobs-gpu-'));
  {
    await using rig = openWorker({}, `fail-once:${join(folder, 'mark')}`);
    await rig.reached(BACKING_OFF);
    assert.match(rig.worker.facts.problem!, /broken the first time/);
    await rig.reached(IDLE);
    assert.deepEqual([rig.worker.facts.problem, rig.worker.up], [undefined, true]);
  }
  await rm(folder, { recursive: true });
});

test('a worker that is not ready in time is killed', async () => {
  await using rig = openWorker({ startTimeoutMs: 100 }, 'silent');
  await rig.reached(BACKING_OFF);
  assert.equal(rig.worker.facts.problem, 'the worker was not ready within 0.1 s');
});

test('a missing program, folder or right is told in words', async () => {
  const problemOf = async (options: Parameters<typeof openWorker>[0]) => {
    await using rig = openWorker(options);
    await rig.reached(BACKING_OFF);
    return rig.worker.facts.problem;
  };
  assert.match((await problemOf({ command: 'no-such-python' }))!, /there is no program 'no-such-python'/);
  assert.match((await problemOf({ cwd: '/no/such/folder' }))!, /the folder \/no\/such\/folder does not exist/);
  assert.match((await problemOf({ command: '/etc/passwd' }))!, /may not be executed/);
  assert.match((await problemOf({ args: ['bad\0argument'] }))!, /could not be started/);
});

test('a worker is replaced after its number of runs, gently', async () => {
  await using rig = openWorker({ recycleAfterJobs: 2 });
  await rig.reached(IDLE);
  const first = rig.worker.facts.pid!;
  await rig.run([]).end;
  assert.equal(rig.worker.facts.pid, first);
  await rig.run([]).end;
  assert.equal(rig.worker.state, STOPPING);
  await rig.reached(IDLE);
  assert.notEqual(rig.worker.facts.pid, first);
  assert.equal(alive(first), false);
  assert.deepEqual(rig.logger.errors, []);
});

test('a worker is replaced when its memory has grown', async () => {
  await using rig = openWorker({ recycleGrowthBytes: 5e8 });
  await rig.reached(IDLE);
  await rig.run([['rss', 2e9]]).end;
  assert.equal(rig.worker.state, IDLE);
  await rig.run([['grow', 4e8]]).end;
  assert.equal(rig.worker.state, IDLE);
  await rig.run([['grow', 2e8]]).end;
  assert.equal(rig.worker.state, STOPPING);
  await rig.reached(IDLE);
});

test('an option out of range is refused, and one that is undefined takes its default', async () => {
  assert.throws(() => openWorker({ stallTimeoutMs: 0 }), /stallTimeoutMs of a worker is 0 and must be more than 0/);
  await using rig = openWorker({ stallTimeoutMs: undefined });
  await rig.reached(IDLE);
  assert.equal((await rig.run([['sleep', 0.05]]).end).kind, 'done');
});

test('closing ends every kind of worker and leaves no process', async () => {
  for (const start of [[], ['deaf-to-shutdown'], ['deaf-to-shutdown', 'ignore-sigterm']]) {
    const rig = openWorker({ shutdownGraceMs: 100 }, ...start);
    await rig.reached(IDLE);
    const pid = rig.worker.facts.pid!;
    assert.equal(rig.worker.close(), rig.worker.close());
    await rig.worker.close();
    assert.deepEqual([rig.worker.state, alive(pid)], [CLOSED, false], start.join());
  }
  const starting = openWorker({ shutdownGraceMs: 100 }, 'silent');
  const pid = starting.worker.facts.pid!;
  await starting.worker.close();
  assert.equal(alive(pid), false);
  const failing = openWorker({ backoffMs: { first: 3_600_000, most: 3_600_000 } }, 'exit:1');
  await failing.reached(BACKING_OFF);
  await failing.worker.close();
  assert.equal(failing.worker.state, CLOSED);
  const busy = openWorker();
  await busy.reached(IDLE);
  const run = busy.run([['hang', 0]]);
  await busy.worker.close();
  assert.equal((await run.end).kind, 'canceled');
});

test('output is kept to a rate and a length', async () => {
  await using rig = openWorker();
  await rig.reached(IDLE);
  const run = rig.run([
    ['print', Array.from({ length: 5000 }, (_, i) => `line ${i}`).join('\n')],
    ['stderr', `10%\r50%\r100%`],
    ['sleep', 0.3],
    ['print', 'y'.repeat(100_000)],
    ['sleep', 0.1],
  ]);
  await run.end;
  assert.ok(run.logs.length < 300, `${run.logs.length}`);
  assert.ok(run.logs.some((line) => /\d+ lines of output were dropped/.test(line)));
  assert.ok(run.logs.every((line) => line.length < 9000 && !line.includes('\r')));
});

test('no worker outlives a service that was killed', async () => {
  const service = spawn(process.execPath, [join(import.meta.dirname, 'fixtures/gpu/service.ts')], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: service.stdout });
  const [line] = (await once(lines, 'line')) as [string];
  const pids = JSON.parse(line) as number[];
  assert.equal(pids.length, 2);
  assert.ok(pids.every(alive));
  service.kill('SIGKILL');
  await Promise.all(pids.map(gone));
});
