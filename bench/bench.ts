// What a group of benches is and what it is given. A group answers rows one by one, as it has them.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Row } from './figures.ts';
import { Service } from './service.ts';

export interface Bench {
  /** A smoke run: every path is walked, no figure means anything, nothing is installed. */
  readonly quick: boolean;
  /** `full`, or `quick` in a smoke run. */
  pick<T>(full: T, quick: T): T;
  /** A fresh folder, removed after the group. */
  folder(): string;
  /** The service with the no-op engine, on fresh data. A smoke run has one for all groups, so they leave no job running. */
  service(): Promise<Lent>;
  /** What is going on, for a person who waits. */
  say(text: string): void;
}

/** Disposing it stops the service, unless others use it too. */
export interface Lent extends AsyncDisposable {
  readonly service: Service;
}

export interface Group {
  readonly name: string;
  readonly about: string;
  run(bench: Bench): AsyncIterable<Row>;
}

export class Benches implements AsyncDisposable {
  readonly #quick: boolean;
  readonly #home = mkdtempSync(join(tmpdir(), 'ffjobs-bench-'));
  readonly #remove = () => rmSync(this.#home, { recursive: true, force: true, maxRetries: 5 });
  #shared: Promise<Service> | undefined;

  constructor(quick: boolean) {
    this.#quick = quick;
    process.once('exit', this.#remove); // Ctrl-C in the middle of a group
  }

  /** What one group is given; its folders go when it is disposed. */
  for(group: Group, say: (text: string) => void): Bench & Disposable {
    const home = mkdtempSync(join(this.#home, `${group.name}-`));
    const folder = () => mkdtempSync(join(home, 'data-'));
    return {
      quick: this.#quick,
      pick: (full, small) => (this.#quick ? small : full),
      folder,
      service: async () => {
        const service = await (this.#quick ? this.#sharedService() : Service.start({ dataDir: folder() }));
        return { service, [Symbol.asyncDispose]: async () => await (this.#quick ? undefined : service.stop()) };
      },
      say,
      [Symbol.dispose]: () => rmSync(home, { recursive: true, force: true, maxRetries: 5 }),
    };
  }

  #sharedService(): Promise<Service> {
    this.#shared ??= Service.start({ dataDir: mkdtempSync(join(this.#home, 'shared-')) });
    return this.#shared;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#shared?.catch(() => undefined))?.stop();
    process.off('exit', this.#remove);
    this.#remove();
  }
}
