// `npm run chaos [-- --rounds N --seed S --store redis|sqlite|both]`: real processes under load, and everything done to them that can happen; after each
// round a model says whether anything was lost, doubled, out of order or left behind. Round K of seed S is round 1 of seed S + K - 1. Exit code 0: all
// rounds held; 1: one did not, and its folder with all logs stays; 2: it could not be tried.
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { workerPython } from '../../src/cli/local/python.ts';
import { randomOf } from '../random.ts';
import { Callers, isEnded, Violation } from './calls.ts';
import { Model } from './checks.ts';
import { hurt } from './faults.ts';
import { runLoad, type Submitted } from './load.ts';
import { type Cluster, startCluster } from './members.ts';
import { Receiver } from './receiver.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** From the last fault's end until every job has ended; what takes longer hangs. */
const SETTLE_MS = 120_000;

export interface ChaosOptions {
  readonly kind: Cluster['kind'];
  readonly rounds: number;
  readonly seed: number;
  readonly jobs: number;
  /** In which faults begin and jobs are submitted, in milliseconds. */
  readonly roundMs: number;
  readonly python: string;
  readonly say: (line: string) => void;
  readonly signal?: AbortSignal;
}

export interface Held {
  readonly rounds: number;
  readonly jobs: number;
  readonly faults: number;
  /** Connections that watchers needed beyond one each. */
  readonly reconnects: number;
  readonly retries: number;
  readonly poisoned: number;
}

/** Throws a `Violation` whose message names the seed that shows it again. */
export async function chaos({
  kind,
  rounds,
  seed,
  jobs: count,
  roundMs,
  python,
  say,
  signal = new AbortController().signal,
}: ChaosOptions): Promise<Held> {
  await using receiver = await Receiver.start(randomOf(seed));
  const cluster = await startCluster(kind, python, receiver);
  const model = new Model();
  const total = { rounds: 0, jobs: 0, faults: 0, reconnects: 0, retries: 0, poisoned: 0 };
  let keep = false;
  try {
    for (let round = 0; round < rounds && !signal.aborted; round++) {
      const random = randomOf(seed + round);
      // Faults and load each have their own chance, so that how calls fall out does not change what is done.
      const callers = new Callers(cluster.apis, randomOf(random.int(0, 2 ** 31)));
      const faults = random.int(2, 6);
      const began = performance.now();
      const done: string[] = [];
      const jobs: Submitted[] = [];
      const settling = new AbortController();
      const within = AbortSignal.any([signal, settling.signal]);
      const load = runLoad(
        {
          callers,
          random: randomOf(random.int(0, 2 ** 31)),
          round,
          jobs: count,
          spreadMs: roundMs,
          ledger: cluster.ledger,
          receiver: receiver.url,
          signal: within,
        },
        jobs,
      );
      load.catch(() => {});
      try {
        await hurt(cluster, randomOf(random.int(0, 2 ** 31)), faults, roundMs, (line) => done.push(line));
        await cluster.heal();
        const late = delay(SETTLE_MS, 'late' as const, { signal: within, ref: false });
        late.catch(() => {});
        if ((await Promise.race([load, late])) === 'late') {
          const open = jobs.filter(({ seen }) => !isEnded(seen.at(-1)?.state?.status));
          throw new Violation(
            `${SETTLE_MS / 1000} s after the last fault not every job had ended: ${open.map(({ jobId }) => jobId).join(', ')}`,
          );
        }
        await model.check(cluster, callers, jobs, signal);
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        throw new Violation(
          `round ${round + 1} of seed ${seed} on ${kind} (alone: --store ${kind} --seed ${seed + round} --rounds 1): ${error.message}\n` +
            `  done to it: ${done.join('; ')}\n  logs: ${cluster.dir}`,
        );
      } finally {
        settling.abort();
      }
      const reconnects = jobs.reduce((sum, { connections }) => sum + connections - 1, 0);
      total.rounds++;
      total.jobs += jobs.length;
      total.faults += done.length;
      total.reconnects += reconnects;
      total.retries += callers.retries;
      total.poisoned = model.poisoned;
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      say(
        `${kind} round ${round + 1} (seed ${seed + round}): ${jobs.length} jobs, ${reconnects} reconnects, ${seconds} s; ${done.join('; ')}`,
      );
    }
    try {
      await model.checkReceiver(receiver, signal);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      throw new Violation(`${rounds} rounds of seed ${seed} on ${kind}, after the last: ${error.message}\n  logs: ${cluster.dir}`);
    }
  } catch (error) {
    keep = error instanceof Violation;
    throw error;
  } finally {
    await cluster.end(keep);
  }
  return total;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '20' },
      seed: { type: 'string', default: `${Date.now() % 1_000_000}` },
      store: { type: 'string', default: 'both' },
      jobs: { type: 'string', default: '30' },
    },
  });
  const [rounds, seed, jobs] = [values.rounds, values.seed, values.jobs].map(Number) as [number, number, number];
  const kinds = values.store === 'both' ? (['redis', 'sqlite'] as const) : ([values.store] as Cluster['kind'][]);
  if (
    ![rounds, seed, jobs].every((one) => Number.isSafeInteger(one) && one >= 0) ||
    kinds.some((kind) => kind !== 'redis' && kind !== 'sqlite')
  ) {
    console.error('npm run chaos -- [--rounds N] [--seed S] [--jobs J] [--store redis|sqlite|both]: whole numbers');
    return 2;
  }
  if (process.platform !== 'linux') {
    console.error('chaos needs Linux: it finds the processes that are left in /proc');
    return 2;
  }
  const leaving = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => leaving.abort());
  const python = await workerPython({
    root: ROOT,
    given: process.env.FFJOBS_PYTHON || undefined,
    env: process.env,
    dev: true,
    report: () => {},
  });
  for (const kind of kinds) {
    try {
      const held = await chaos({
        kind,
        rounds,
        seed,
        jobs,
        roundMs: 5_000,
        python,
        say: (line) => console.log(line),
        signal: leaving.signal,
      });
      const { jobs: all, faults, reconnects, retries, poisoned } = held;
      console.log(
        `${kind}: ${held.rounds} rounds of seed ${seed} held: ${all} jobs, ${faults} faults, ${reconnects} reconnects, ${retries} calls made again, ${poisoned} jobs failed as poisonous`,
      );
    } catch (error) {
      if (leaving.signal.aborted) return 130;
      if (!(error instanceof Violation)) throw error;
      console.error(`VIOLATION in ${error.message}`);
      return 1;
    }
  }
  return 0;
}

if (import.meta.main) process.exitCode = await main();
