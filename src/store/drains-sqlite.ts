// What was taken out of service, in the job store's file.
import type { DatabaseSync } from 'node:sqlite';
import type { DrainStore, NodeDrains } from '../jobs/drains.ts';

/** Runs a step of the store; answers when it is on the disk. */
type RunStep = <T>(durable: boolean, run: () => T) => Promise<T>;

export class SqliteDrains implements DrainStore {
  onChange = () => {};
  readonly #step: RunStep;
  readonly #assertOpen: () => void;
  readonly #all;
  readonly #find;
  readonly #put;
  readonly #drop;

  /** `assertOpen` throws once the file is closed. */
  constructor(db: DatabaseSync, step: RunStep, assertOpen: () => void) {
    this.#step = step;
    this.#assertOpen = assertOpen;
    this.#all = db.prepare('SELECT node, drains FROM drains ORDER BY node');
    this.#find = db.prepare('SELECT drains FROM drains WHERE node = ?');
    this.#put = db.prepare('INSERT INTO drains (node, drains) VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET drains = excluded.drains');
    this.#drop = db.prepare('DELETE FROM drains WHERE node = ?');
  }

  async all(): Promise<ReadonlyMap<string, NodeDrains>> {
    this.#assertOpen();
    const rows = this.#all.all() as { node: string; drains: string }[];
    return new Map(rows.map(({ node, drains }) => [node, JSON.parse(drains) as NodeDrains]));
  }

  async change(node: string, step: (now: NodeDrains | undefined) => NodeDrains | undefined): Promise<void> {
    await this.#step(true, () => {
      const row = this.#find.get(node) as { drains: string } | undefined;
      const next = step(row && (JSON.parse(row.drains) as NodeDrains));
      if (next) this.#put.run(node, JSON.stringify(next));
      else if (row) this.#drop.run(node);
    });
    this.onChange();
  }
}
