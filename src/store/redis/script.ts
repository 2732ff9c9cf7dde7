// One script on the server, and the steps that wait to be made by it. Always true here: steps that are asked for while others are under way go
// together in one command, which makes one after another, so that what each costs by itself (a command, a sync of the server's log) is shared by all; a
// step is answered by itself, and one that fails costs the others nothing.
import { type Arguments, packSteps } from './pack.ts';

/** What a script answers: bulk strings are Buffers. */
export type Reply = Buffer | number | null | Reply[];

interface Waiting {
  readonly args: Arguments;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: unknown) => void;
}

/** Commands under way at once: the server works on one while others are on their way. */
const AT_ONCE = 6;
/** Steps in a command at most: as long as it takes nobody else is served. */
const STEPS = 64;
/** And bytes, about. */
const BYTES = 512 * 1024;
/**
 * Answers handed on in one turn: what they lead to is sent before the next ones are looked at. All at once, and the server would wait while this process works
 * and this process while the server does. Fewer, and the commands that follow would be dear for the few steps in them.
 */
const ANSWERS = 12;

export class Script {
  readonly #send: (packed: Buffer) => Promise<(Reply | Error)[]>;
  readonly #meaning: (error: unknown) => unknown;
  #waiting: Waiting[] = [];
  #underWay = 0;
  #scheduled = false;

  /** `send` runs the script with the packed arguments of its steps, and answers one reply for each; `meaning`: what an error of either is to a caller. */
  constructor(send: (packed: Buffer) => Promise<(Reply | Error)[]>, meaning: (error: unknown) => unknown = (error) => error) {
    this.#send = send;
    this.#meaning = meaning;
  }

  run(args: Arguments): Promise<Reply> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ args, resolve, reject });
      this.#schedule();
    });
  }

  /** After all that comes in this turn, so that it goes together. */
  #schedule(): void {
    if (this.#scheduled || this.#underWay >= AT_ONCE || this.#waiting.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#go();
    });
  }

  #go(): void {
    while (this.#underWay < AT_ONCE && this.#waiting.length > 0) {
      const { packed, count } = packSteps(this.#waiting, STEPS, BYTES);
      void this.#make(this.#waiting.splice(0, count), packed);
    }
  }

  async #make(steps: readonly Waiting[], packed: Buffer): Promise<void> {
    this.#underWay++;
    try {
      const replies = await this.#send(packed);
      for (let i = 0; i < steps.length; i++) {
        if (i > 0 && i % ANSWERS === 0) await nextTurn();
        const { resolve, reject } = steps[i]!;
        const reply = replies[i];
        if (reply === undefined) reject(new Error('a script has not answered for all its steps'));
        else if (reply instanceof Error) reject(this.#meaning(reply));
        else resolve(reply);
      }
    } catch (error) {
      const meaning = this.#meaning(error);
      for (const { reject } of steps) reject(meaning);
      // A server that does not answer is not asked again by those that have waited as long.
      if ((error as Error).name !== 'ReplyError') for (const { reject } of this.#waiting.splice(0)) reject(meaning);
    }
    this.#underWay--;
    this.#schedule();
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
