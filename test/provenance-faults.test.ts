// A result is being marked when its job is canceled, when the service drains, and when it is killed: the job ends once and as it should, and no
// process and no file of a mark is left behind.
import assert from 'node:assert/strict';
import { watch as watchFolder } from 'node:fs';
import { appendFile, chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startServiceProcess } from '../scripts/cluster/service-process.ts';
import { type Json, restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { python, startService } from './api/service.ts';
import { copyPortraits } from './fixtures/media/portraits.ts';
import { makeTrial, type Trial } from './fixtures/provenance/trial.ts';

/** The program that marks, which says in a file who it is and then waits for another file before it signs. */
const HELD = `#!PYTHON
import os, runpy, sys, time
from facefusion_worker.provenance import manifest
sys.argv = sys.argv[2:]
inner = manifest.sign
def sign(*given):
    if sys.argv[1] == "sign" and not os.path.exists("GATE/open"):
        with open("GATE/held", "a") as file:
            file.write(f"{os.getpid()}\\n")
        while not os.path.exists("GATE/open"):
            time.sleep(0.02)
    return inner(*given)
manifest.sign = sign
runpy.run_module("facefusion_worker.provenance", run_name="__main__", alter_sys=True)
`;

/** One for each test: closed until it is opened. */
class Gate {
  readonly dir: string;
  readonly program: string;

  private constructor(dir: string) {
    this.dir = dir;
    this.program = join(dir, 'python');
  }

  static async make(dir: string): Promise<Gate> {
    const gate = new Gate(dir);
    await mkdir(dir);
    await appendFile(join(dir, 'held'), '');
    await writeFile(gate.program, HELD.replace('PYTHON', python()).replaceAll('GATE', dir));
    await chmod(gate.program, 0o755);
    return gate;
  }

  open(): Promise<void> {
    return writeFile(join(this.dir, 'open'), '');
  }

  /** Ids of the processes that were held, once there are so many. */
  async held(count: number, signal: AbortSignal): Promise<number[]> {
    const leave = new AbortController();
    const changes = watchFolder(this.dir, { signal: AbortSignal.any([signal, leave.signal]) });
    try {
      while (true) {
        const change = new Promise((resolve, reject) => changes.once('change', resolve).once('error', reject));
        change.catch(() => {});
        const pids = (await readFile(join(this.dir, 'held'), 'utf8')).split('\n').filter(Boolean).map(Number);
        if (pids.length >= count) return pids;
        await change;
      }
    } finally {
      leave.abort();
    }
  }
}

/** Resolves when the process has ended, whoever's child it is. */
async function gone(pid: number, signal: AbortSignal): Promise<void> {
  while (true) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    if (stat === '' || /\) [ZX] /.test(stat)) return;
    await delay(10, undefined, { signal });
  }
}

/** Resolves when no file of a job is left among the work folders, which are kept for the next one: they are emptied after its end is written. */
async function emptied(dir: string, signal: AbortSignal): Promise<void> {
  const files = async () => (await readdir(dir, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  while ((await files()).length > 0) await delay(10, undefined, { signal });
}

/** Resolves when the service says that it is ready (200), or that it is not any more (503). */
async function answers(baseUrl: string, status: number, signal: AbortSignal): Promise<void> {
  while ((await fetch(new URL('/readyz', baseUrl), { signal })).status !== status) await delay(10, undefined, { signal });
}

describe('while a result is being marked', { skip: process.platform !== 'linux' && 'machine: it looks at processes in /proc' }, () => {
  let trial: Trial;
  before(async () => {
    trial = await makeTrial();
  });
  after(() => trial[Symbol.asyncDispose]());
  const settingsOf = (gate: Gate) => ({ ENGINE: 'classical', PROVENANCE: 'c2pa', PROVENANCE_PYTHON: gate.program, ...trial.settings });
  const furnish = async (dir: string) => {
    await mkdir(dir, { recursive: true });
    await copyPortraits(dir);
  };
  const JOB: Json = { source_images: ['face.jpg'], target_image: 'target.jpg' };

  test('a cancel ends the process, and the job is canceled with nothing left', { timeout: 120_000 }, async (t) => {
    const gate = await Gate.make(join(trial.dir, 'cancel'));
    await using service = await startService(settingsOf(gate));
    await furnish(service.inputDir);
    const client = restClient(service.baseUrl);
    const { job_id } = await client.submit(JOB);
    const [pid] = await gate.held(1, t.signal);
    await client.cancel(job_id as string);
    await untilTerminal(client, job_id as string);
    const job = await client.get(job_id as string);
    assert.deepEqual([job.status, job.result, job.provenance], ['canceled', null, null]);
    await gone(pid!, t.signal);
    await gate.open();
    const next = await client.submit(JOB);
    await untilTerminal(client, next.job_id as string);
    assert.equal((await client.get(next.job_id as string)).status, 'succeeded');
    await emptied(join(service.dir, 'work'), t.signal);
  });

  test('a drain whose time is up waits for the mark, and the next start has the marked result', { timeout: 120_000 }, async (t) => {
    const gate = await Gate.make(join(trial.dir, 'drain'));
    await using service = await startService({ ...settingsOf(gate), DRAIN_TIMEOUT: '0s' });
    await furnish(service.inputDir);
    const { job_id } = await restClient(service.baseUrl).submit(JOB);
    await gate.held(1, t.signal);
    const restarting = service.restart();
    await gate.open();
    await restarting;
    const job = await restClient(service.baseUrl).get(job_id as string);
    assert.deepEqual([job.status, job.attempt, (job.provenance as Json).mark], ['succeeded', 1, 'embedded']);
  });

  for (const [what, draining] of [
    ['a kill', false],
    ['a kill in the middle of a drain', true],
  ] as const) {
    test(`${what} ends the process that marks, and the next start runs the job again`, { timeout: 240_000 }, async (t) => {
      const dir = join(trial.dir, draining ? 'killed-drain' : 'killed');
      const gate = await Gate.make(dir);
      const data = join(dir, 'data');
      await furnish(join(data, 'input'));
      const settings = { ...settingsOf(gate), DATA_DIR: data, PYTHON: python(), CONSOLE: 'off', CACHE_TTL: 'off' };
      const start = () => startServiceProcess({ settings, log: join(dir, 'log') });
      let pid: number;
      let jobId: string;
      {
        await using first = start();
        const client = restClient(await first.listening);
        await answers(await first.listening, 200, t.signal);
        jobId = (await client.submit(JOB)).job_id as string;
        pid = (await gate.held(1, t.signal))[0]!;
        if (draining) {
          first.child.kill('SIGTERM');
          await answers(await first.listening, 503, t.signal);
          // A second one on the same data is told whose they are, and leaves them alone.
          await using second = start();
          await assert.rejects(second.listening, /another process|is in use|held by/);
        }
        first.child.kill('SIGKILL');
        assert.equal(await first.ended, 'SIGKILL');
      }
      await gone(pid, t.signal);
      await gate.open();
      await using again = start();
      const client = restClient(await again.listening);
      await untilTerminal(client, jobId);
      const job = await client.get(jobId);
      assert.deepEqual([job.status, (job.provenance as Json).mark], ['succeeded', 'embedded'], String(job.error_message));
      assert.deepEqual(
        ((await client.list({})).jobs as Json[]).map(({ job_id }) => job_id),
        [jobId],
      );
      await emptied(join(data, 'work'), t.signal);
      await rm(data, { recursive: true });
    });
  }
});
