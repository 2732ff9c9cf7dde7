// Servers side by side: the same closed loop against each in turns, and what a row says of two of them. Always true here: a failed call breaks the
// bench, since a server that refuses is fast.
import type { Bench } from './bench.ts';
import { interleaved, type Measured, median, notRun, type Row, rowOf } from './figures.ts';
import type { LoadGenerator } from './load/generator.ts';
import type { CallsDone, Request } from './load/tasks.ts';
import { cpuSeconds } from './processes.ts';

const IN_FLIGHT = 64;
const GRPC_CONNECTIONS = 4;

/** A server and the call that is made to it. */
export type Contestant = readonly [{ readonly port: number; readonly pid: number }, Request];

export interface Sample {
  readonly perSecond: number;
  readonly p99Ms: number;
  /** Server CPU of one call; undefined where it cannot be read. */
  readonly cpuMicros: number | undefined;
  /** Share of one core that the load generator used. */
  readonly generatorShare: number;
}

/** The middle of several rounds for each contestant, warmed up first. */
export async function sideBySide(
  bench: Bench,
  load: LoadGenerator,
  contestants: Readonly<Record<string, Contestant>>,
): Promise<Record<string, Sample>> {
  const runs = (seconds: number) =>
    Object.fromEntries(
      Object.entries(contestants).map(([name, [server, request]]) => [name, () => measure(load, server, request, seconds)]),
    );
  if (!bench.quick) await interleaved(1, runs(1));
  const rounds = await interleaved(bench.pick(5, 1), runs(bench.pick(1.5, 0.2)));
  return Object.fromEntries(Object.entries(rounds).map(([name, samples]) => [name, middle(samples)]));
}

async function measure(
  load: LoadGenerator,
  server: { readonly port: number; readonly pid: number },
  request: Request,
  seconds: number,
): Promise<Sample> {
  const connections = request.protocol === 'grpc' ? GRPC_CONNECTIONS : IN_FLIGHT;
  const before = cpuSeconds(server.pid);
  const done = allWell(await load.run({ kind: 'calls', port: server.port, request, connections, inFlight: IN_FLIGHT, seconds }));
  const after = cpuSeconds(server.pid);
  return {
    perSecond: done.calls / done.seconds,
    p99Ms: done.p99Ms,
    cpuMicros: before === undefined || after === undefined ? undefined : ((after - before) / done.calls) * 1e6,
    generatorShare: done.cpuSeconds / done.seconds,
  };
}

/** Throws where a call failed. */
export function allWell(done: CallsDone): CallsDone {
  if (done.errors > 0) throw new Error(`${done.errors} of ${done.errors + done.calls} calls failed: ${done.firstError}`);
  return done;
}

/** Rate beside rate, with what they cost in the note. `why`: what to say where there is no peer. */
export function versus(
  group: string,
  name: string,
  ours: Sample,
  peerName: string,
  peer: Sample | undefined,
  { target, why }: { readonly target?: Measured['target']; readonly why?: string },
): Row {
  if (!peer && target) return notRun(group, name, `${Math.round(ours.perSecond)} calls/s; no peer to compare with: ${why}`);
  return rowOf(group, {
    name,
    figure: ours.perSecond,
    unit: 'calls/s',
    ...(peer ? { peer: { name: peerName, figure: peer.perSecond } } : {}),
    ...(target ? { target } : {}),
    note: [
      `server CPU ${micros(ours.cpuMicros)} a call${peer ? `, peer ${micros(peer.cpuMicros)}` : ''}`,
      `p99 ${ours.p99Ms.toFixed(1)} ms${peer ? `, peer ${peer.p99Ms.toFixed(1)} ms` : ''}`,
      `load generator ${Math.round(ours.generatorShare * 100)} %${peer ? `, ${Math.round(peer.generatorShare * 100)} %` : ''} of a core`,
    ].join('; '),
  });
}

const micros = (value: number | undefined) => (value === undefined ? 'unknown' : `${Math.round(value)} µs`);

function middle(samples: readonly Sample[]): Sample {
  const cpu = samples.map((sample) => sample.cpuMicros).filter((value) => value !== undefined);
  return {
    perSecond: median(samples.map((sample) => sample.perSecond)),
    p99Ms: median(samples.map((sample) => sample.p99Ms)),
    cpuMicros: cpu.length === samples.length ? median(cpu) : undefined,
    generatorShare: Math.max(...samples.map((sample) => sample.generatorShare)),
  };
}
