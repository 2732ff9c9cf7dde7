// What the command line has of its surroundings: two streams, a person or none, and Ctrl-C. Given by `main.ts`, made up by tests; nothing
// else here touches the process. Answers go to `out`, everything that is said on the way goes to `err`.

export interface Output {
  write(text: string): unknown;
}

export interface Terminal {
  readonly out: Output;
  /** Where progress is drawn; a terminal draws bars, anything else gets plain lines. */
  readonly err: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
  /** Somebody can answer a question. */
  readonly interactive: boolean;
  /** One line from the person; undefined at the end of the input. */
  ask(question: string, signal: AbortSignal): Promise<string | undefined>;
  /** From now on Ctrl-C and SIGTERM call `handler` instead of ending the process. The answer undoes it. */
  onInterrupt(handler: (signal: 'SIGINT' | 'SIGTERM') => void): () => void;
}

export function say(terminal: Pick<Terminal, 'err'>, line: string): void {
  terminal.err.write(`${line}\n`);
}

export function answer(terminal: Terminal, line: string): void {
  terminal.out.write(`${line}\n`);
}

/** One JSON value on a line of its own. */
export function answerJson(terminal: Terminal, value: unknown): void {
  terminal.out.write(`${JSON.stringify(value)}\n`);
}
