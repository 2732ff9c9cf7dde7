// Which jobs a node would rather have: those that its engine can run, and among them those whose models are loaded. What a cold job costs is
// learned from its own runs, as the time to load models over the time of a run: so many turns such a job may wait for a node that is warm.
import type { Claim } from '../jobs/ports.ts';
import type { Worker } from './worker.ts';

/** Until a node has seen models being loaded. */
const FIRST_GUESS = 2;
/** No job is kept back longer, however quick the runs are. */
const MOST_TURNS = 20;
/** Weight of the newest run. */
const NEWEST = 0.2;
/** As the engines name the step, with or without the prefix of the enum. */
const LOADING = /(^|_)loading_models$/i;

export type Preference = Required<Pick<Claim, 'engines' | 'warmModels' | 'coldPenalty'>>;

export class Preferences {
  #loadSeconds: number | undefined;
  #runSeconds: number | undefined;

  /** A run has ended well. Times of its steps in seconds, by name. */
  learn(runSeconds: number, stepSeconds: Readonly<Record<string, number>>): void {
    const load = Object.entries(stepSeconds).reduce((sum, [name, seconds]) => sum + (LOADING.test(name) ? seconds : 0), 0);
    // A warm run says nothing of what loading costs.
    if (load > 0.05) this.#loadSeconds = mean(this.#loadSeconds, load);
    this.#runSeconds = mean(this.#runSeconds, Math.max(0.01, runSeconds - load));
  }

  /** What to claim with for these workers; undefined: none has said yet what it is. */
  of(workers: readonly Pick<Worker, 'ready' | 'facts'>[]): Preference | undefined {
    const engines = new Set<string>();
    const models = new Set<string>();
    for (const { ready, facts } of workers) {
      if (ready) engines.add(ready.engine);
      for (const model of facts.warmModels) models.add(model);
    }
    if (engines.size === 0) return undefined;
    const load = this.#loadSeconds;
    const run = this.#runSeconds;
    const turns = load === undefined || run === undefined ? FIRST_GUESS : Math.min(MOST_TURNS, Math.round(load / run));
    return { engines: [...engines].sort(), warmModels: [...models].sort(), coldPenalty: turns };
  }
}

function mean(before: number | undefined, now: number): number {
  return before === undefined ? now : before + (now - before) * NEWEST;
}

/** Whether two claims would ask for the same. */
export function samePreference(a: Preference | undefined, b: Preference | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
