// From a caller's Submit to the engine's run, on an idle service, one job after another. Both ends read CLOCK_MONOTONIC of this machine: the
// load generator before it writes, the engine as its run begins.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench, Group } from '../bench.ts';
import { percentile, type Row, rowOf } from '../figures.ts';
import { LoadGenerator } from '../load/generator.ts';
import { noopJob, submitByGrpc, submitByRest } from '../requests.ts';

export const submit: Group = {
  name: 'submit',
  about: "Submit to the worker's run, durable, one at a time",

  async *run(bench: Bench): AsyncIterable<Row> {
    const timesFile = join(bench.folder(), 'times.txt');
    await using lent = await bench.service();
    const { service } = lent;
    await using load = LoadGenerator.start();
    const job = noopJob({ times_file: timesFile });
    for (const [protocol, request] of [
      ['gRPC', submitByGrpc(job)],
      ['REST', submitByRest(job)],
    ] as const) {
      bench.say(`${protocol}: submitting`);
      const task = { kind: 'submits', port: service.port, request, pauseMs: 20 } as const;
      await load.run({ ...task, count: bench.pick(100, 2) });
      const { submits } = await load.run({ ...task, count: bench.pick(400, 8) });
      const began = await runTimes(timesFile, submits.at(-1)!.jobId);
      const toRun = submits.map(({ jobId, startNs }) => Number(began.get(jobId)! - startNs) / 1e6);
      const ack = submits.map(({ ackMs }) => ackMs);
      const note = `${submits.length} submits`;
      yield rowOf('submit', {
        name: `${protocol}: submit to run, p50`,
        figure: percentile(toRun, 50),
        unit: 'ms',
        target: { kind: 'at most', value: 10 },
        note,
      });
      yield rowOf('submit', {
        name: `${protocol}: submit to run, p99`,
        figure: percentile(toRun, 99),
        unit: 'ms',
        target: { kind: 'at most', value: 40 },
        note: `${note}; longest ${percentile(toRun, 100).toFixed(1)} ms`,
      });
      yield rowOf('submit', {
        name: `${protocol}: submit to answer, p50`,
        figure: percentile(ack, 50),
        unit: 'ms',
        note: `p99 ${percentile(ack, 99).toFixed(1)} ms`,
      });
    }
  },
};

/** When each job's run began, once the file has `last`. */
async function runTimes(file: string, last: string): Promise<Map<string, bigint>> {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; await sleep(20)) {
    const lines = readFileSync(file, 'ascii').trimEnd().split('\n');
    const times = new Map(lines.map((line) => line.split(' ') as [string, string]).map(([jobId, ns]) => [jobId, BigInt(ns)]));
    if (times.has(last)) return times;
  }
  throw new Error(`${last} did not run within 30 s`);
}
