// What Ctrl-C does while something is watched. It never cancels by itself: a person is asked, what a script watches goes on, and a second Ctrl-C
// leaves at once.
import type { Terminal } from './terminal.ts';

export interface Interruptible extends Disposable {
  /** Aborted when the watch is to be left; its reason is an `Error` of another name than AbortError where something broke meanwhile. */
  readonly signal: AbortSignal;
}

export interface InterruptOptions {
  /** Such as `job_20250405_...`, or `the 12 jobs of batch_...`. */
  readonly what: () => string;
  /** Before and after the question: bars would be drawn over it. */
  hide(): void;
  show(): void;
  cancel(signal: AbortSignal): Promise<unknown>;
}

export function interruptible(terminal: Terminal, { what, hide, show, cancel }: InterruptOptions): Interruptible {
  const leaving = new AbortController();
  let asking = false;
  const ask = async () => {
    asking = true;
    hide();
    const word = await terminal.ask(`Cancel ${what()}? y: cancel, n: leave it running, Enter: go on watching. `, leaving.signal);
    if (leaving.signal.aborted) return;
    if (word === undefined || /^n/i.test(word)) leaving.abort();
    else if (/^y/i.test(word)) await cancel(leaving.signal);
    asking = false;
    if (!leaving.signal.aborted) show();
  };
  const undo = terminal.onInterrupt((signal) => {
    if (asking || !terminal.interactive || signal === 'SIGTERM') leaving.abort();
    else ask().catch((error: unknown) => leaving.abort(error));
  });
  return {
    signal: leaving.signal,
    [Symbol.dispose]() {
      undo();
      leaving.abort();
    },
  };
}

/** Where a watch was left on purpose: nothing. Where it was not, or something broke meanwhile, throws that. */
export function assertLeft(error: unknown, signal: AbortSignal): void {
  if (!signal.aborted) throw error;
  const { reason } = signal;
  if (reason instanceof Error && reason.name !== 'AbortError') throw reason;
}
