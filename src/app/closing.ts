// What has been opened, closed in the reverse order. Always true: it is done once, however often it is asked for, and every step runs, whatever
// another one did.
import type { Logger } from '../telemetry/logs.ts';

export class Closing {
  readonly #log: Logger;
  readonly #steps: { readonly name: string; readonly disposable: AsyncDisposable }[] = [];
  readonly #first: (() => void)[] = [];
  #closed: Promise<void> | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  get closing(): boolean {
    return this.#closed !== undefined;
  }

  last<T extends AsyncDisposable>(name: string, disposable: T): T {
    this.#steps.push({ name, disposable });
    return disposable;
  }

  first(run: () => void): void {
    this.#first.push(run);
  }

  close(): Promise<void> {
    this.#closed ??= Promise.resolve().then(() => this.#close());
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const run of this.#first) run();
    for (const { name, disposable } of this.#steps.toReversed()) {
      try {
        await disposable[Symbol.asyncDispose]();
      } catch (error) {
        this.#log.error({ err: error }, `closing the ${name} failed; the rest goes on`);
      }
    }
  }
}
