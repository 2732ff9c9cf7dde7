// A thousand watchers of one job at ten events a second: how late an event is and what a watcher costs. The engine alternates progress and
// log lines, so that all ten are stored events (of progress alone the service lets fewer through). The peers send one shared event as often.
import { setTimeout as sleep } from 'node:timers/promises';
import { JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Bench, Group } from '../bench.ts';
import { median, notRun, type Row, rowOf } from '../figures.ts';
import { LoadGenerator } from '../load/generator.ts';
import type { DeliveriesDone, Request } from '../load/tasks.ts';
import { startNodePeer } from '../peers/start.ts';
import { CannotRun, cpuSeconds, residentBytes } from '../processes.ts';
import { noopJob, watchByGrpc, watchBySse } from '../requests.ts';
import type { Service } from '../service.ts';

const EVENTS_PER_SECOND = 10;
const GRPC_CONNECTIONS = 10;

interface Watched extends DeliveriesDone {
  /** Resident kilobytes that the server grew by, per watcher. */
  readonly kilobytesEach: number;
  /** Heap in use that it grew by, per watcher; undefined: the server does not tell. */
  readonly heapKilobytesEach: number | undefined;
  readonly cpuShare: number;
}

export const watch: Group = {
  name: 'watch',
  about: '1,000 watchers of one job at 10 events a second',

  async *run(bench: Bench): AsyncIterable<Row> {
    const watchers = bench.pick(1000, 20);
    for (const [protocol, request, peerName, peerLabel] of [
      ['gRPC', watchByGrpc, 'connect', 'bare Connect'],
      ['SSE', watchBySse, 'fastify', 'bare SSE'],
    ] as const) {
      await using load = LoadGenerator.start();
      const ours = await (async () => {
        await using lent = await bench.service();
        const { service } = lent;
        const jobId = await longJob(service);
        bench.say(`${protocol}: ${watchers} watchers of the service`);
        const done = await watched(bench, load, service, request(jobId), watchers, () => service.metric('nodejs_heap_size_used_bytes'));
        await service.clients().jobs.cancel({ jobId });
        return done;
      })();
      bench.say(`${protocol}: ${watchers} watchers of the peer`);
      const peer = await (async () => {
        await using server = await startNodePeer(peerName, { json: [], messages: [] });
        return await watched(bench, load, server, request('job_20250101_aaaaaaaaaaaa'), watchers);
      })();

      const each = ours.events / ours.watchersOpen / ours.seconds;
      yield rowOf('watch', {
        name: `${protocol}: delivery, p99`,
        figure: ours.p99Ms,
        unit: 'ms',
        peer: { name: peerLabel, figure: peer.p99Ms },
        target: { kind: 'at most', value: 500 },
        note:
          `p50 ${ours.p50Ms} ms, longest ${ours.maxMs} ms; from the engine's report p99 ${ours.fromEngineP99Ms} ms; ` +
          `${each.toFixed(1)} events a second each, ${ours.holes} missing; ${ours.watchersOpen} watchers; ` +
          `load generator ${Math.round((ours.cpuSeconds / ours.seconds) * 100)} % of a core`,
      });
      const memory = {
        unit: 'KB each',
        peer: { name: peerLabel, figure: peer.kilobytesEach },
        target: { kind: 'at most', value: 120 },
      } as const;
      yield Number.isNaN(ours.kilobytesEach)
        ? notRun('watch', `${protocol}: memory`, 'this system has no /proc to read it from')
        : rowOf('watch', {
            name: `${protocol}: memory`,
            figure: ours.kilobytesEach,
            ...memory,
            note: `growth of the resident set; of the heap ${ours.heapKilobytesEach?.toFixed(0)} KB`,
          });
      yield rowOf('watch', {
        name: `${protocol}: server CPU while delivering`,
        figure: ours.cpuShare * 100,
        unit: '% of a core',
        peer: { name: peerLabel, figure: peer.cpuShare * 100 },
        note: `${((ours.cpuShare * ours.seconds * 1e6) / ours.events).toFixed(1)} µs an event, peer ${((peer.cpuShare * peer.seconds * 1e6) / peer.events).toFixed(1)} µs`,
      });
      if (ours.watchersOpen < watchers) throw new Error(`${watchers - ours.watchersOpen} of ${watchers} ${protocol} watches ended early`);
    }
  },
};

async function longJob(service: Service): Promise<string> {
  const { jobs } = service.clients();
  const { job } = await jobs.submit({ job: noopJob({ hold_seconds: 3600, events_per_second: EVENTS_PER_SECOND }) });
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; await sleep(20)) {
    if ((await jobs.getStatus({ jobId: job!.jobId })).state!.status === JobStatus.PROCESSING) return job!.jobId;
  }
  throw new Error('the job to watch did not run within 20 s');
}

async function watched(
  bench: Bench,
  load: LoadGenerator,
  server: { readonly port: number; readonly pid: number },
  request: Request,
  watchers: number,
  heap?: () => Promise<number>,
): Promise<Watched> {
  const open = (count: number) =>
    load.run({ kind: 'watch', port: server.port, request, watchers: count, connections: GRPC_CONNECTIONS, timeoutMs: 30_000 });
  // What the first watchers load and compile is not what a watcher costs.
  await open(Math.ceil(watchers / 10));
  await sleep(bench.pick(3000, 100));
  await load.run({ kind: 'unwatch' });
  await sleep(bench.pick(2000, 100));

  const before = await memory(server.pid, heap, bench.pick(5, 1));
  await open(watchers);
  await sleep(bench.pick(5000, 100));
  const cpu = cpuSeconds(server.pid) ?? Number.NaN;
  const during = memory(server.pid, heap, bench.pick(5, 1));
  const done = await load.run({ kind: 'deliveries', seconds: bench.pick(15, 0.5) });
  const cpuShare = ((cpuSeconds(server.pid) ?? Number.NaN) - cpu) / done.seconds;
  const after = await during;
  await load.run({ kind: 'unwatch' });
  if (done.events === 0) throw new CannotRun('no event came while the watchers were open');
  return {
    ...done,
    cpuShare,
    kilobytesEach: (after.resident - before.resident) / 1000 / watchers,
    heapKilobytesEach: heap && (after.heap - before.heap) / 1000 / watchers,
  };
}

/** Medians over some seconds: a collector's cycles come and go. */
async function memory(pid: number, heap: (() => Promise<number>) | undefined, samples: number) {
  const resident: number[] = [];
  const used: number[] = [];
  for (let taken = 0; taken < samples; taken++) {
    resident.push(residentBytes(pid) ?? Number.NaN);
    if (heap) used.push(await heap());
    if (taken + 1 < samples) await sleep(1000);
  }
  return { resident: median(resident), heap: median(used) };
}
