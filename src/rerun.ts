// Work that is asked for whenever there may be some, and done by one at a time. Always true here: whoever asks is followed by a pass that began after the
// asking, or by an error that was told; one that comes with the last step of a pass is not lost.

export class Rerun {
  readonly #pass: () => Promise<void>;
  readonly #failed: (error: unknown) => void;
  #asked = false;
  #running: Promise<void> | undefined;

  /** `failed`: told of a pass that threw. What was asked for meanwhile is not done: whoever is told asks again in its own time. */
  constructor(pass: () => Promise<void>, failed: (error: unknown) => void) {
    this.#pass = pass;
    this.#failed = failed;
  }

  /** A pass begins now, or follows the one that is under way. A pass may ask for the next one. */
  ask(): void {
    this.#asked = true;
    this.#running ??= this.#run();
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** When no pass is under way. Never rejects. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    try {
      while (this.#asked) {
        this.#asked = false;
        await this.#pass();
      }
    } catch (error) {
      this.#failed(error);
    } finally {
      // In the same turn as the last look at `#asked`: done by a `finally` of the promise, it would be some turns late, and who asks in between would not be heard.
      this.#running = undefined;
    }
  }
}
