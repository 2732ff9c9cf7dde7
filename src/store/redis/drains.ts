// What was taken out of service, in Redis: one hash, a field for each node. Always true: a change is made to what it was worked out from, or not at all.
import type { DrainStore, NodeDrains } from '../../jobs/drains.ts';
import type { Reply } from './connection.ts';

export const DRAINS = 'drains';

/** The two ways to Redis; both throw once the store is closed. */
export interface DrainCalls {
  /** Runs drains.lua. */
  run(args: readonly string[]): Promise<Reply>;
  /** The whole hash. */
  read(): Promise<Record<string, Buffer>>;
}

export class RedisDrains implements DrainStore {
  onChange = () => {};
  readonly #calls: DrainCalls;

  constructor(calls: DrainCalls) {
    this.#calls = calls;
  }

  async all(): Promise<ReadonlyMap<string, NodeDrains>> {
    const found = Object.entries(await this.#calls.read()).sort(([a], [b]) => (a < b ? -1 : 1));
    return new Map(found.map(([node, text]) => [node, JSON.parse(text.toString()) as NodeDrains]));
  }

  async change(node: string, step: (now: NodeDrains | undefined) => NodeDrains | undefined): Promise<void> {
    let text = ((await this.#calls.run(['find', node])) as Buffer | null)?.toString() ?? '';
    for (;;) {
      const next = step(text === '' ? undefined : (JSON.parse(text) as NodeDrains));
      const found = (await this.#calls.run(['change', node, text, next ? JSON.stringify(next) : ''])) as Buffer | null;
      if (found === null) return;
      text = found.toString();
    }
  }
}
