// What a long preparation is doing, in one line: rewritten with its seconds on a terminal, a plain line a phase elsewhere.
import type { Terminal } from '../remote/terminal.ts';

export interface Phases extends Disposable {
  report(phase: string): void;
  /** Takes the line away, for something else to be said. */
  clear(): void;
}

export function showPhases({ err }: Pick<Terminal, 'err'>): Phases {
  if (!err.isTTY) return { report: (phase) => void err.write(`${phase} ...\n`), clear: () => {}, [Symbol.dispose]: () => {} };
  let phase = '';
  let since = 0;
  let timer: NodeJS.Timeout | undefined;
  const draw = () => {
    const text = `${phase} ... ${Math.round((performance.now() - since) / 1000)} s`;
    err.write(`\r\x1b[2K${text.slice(0, (err.columns ?? 80) - 1)}`);
  };
  const clear = () => {
    if (timer === undefined) return;
    clearInterval(timer);
    timer = undefined;
    err.write('\r\x1b[2K');
  };
  return {
    report(next) {
      phase = next;
      since = performance.now();
      timer ??= setInterval(draw, 1000);
      draw();
    },
    clear,
    [Symbol.dispose]: clear,
  };
}
