// What the buttons of a page ask of the service. Always true: what went wrong with one is said until it is closed or another goes well.
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { messageOf } from '../service/errors.ts';
import { words } from '../words/words.ts';
import { Note } from './small.tsx';

export interface Acts {
  run(act: () => Promise<void>): Promise<void>;
  /** To be shown where it is seen. */
  readonly note: ComponentChildren;
}

export function useActs(): Acts {
  const w = words.value;
  const problem = useSignal<string | undefined>(undefined);
  const run = async (act: () => Promise<void>) => {
    try {
      await act();
      problem.value = undefined;
    } catch (error) {
      problem.value = messageOf(error);
    }
  };
  const note = problem.value !== undefined && (
    <Note kind="bad" role="alert" action={{ label: w.close, run: () => (problem.value = undefined) }}>
      <b>{w.somethingWrong}.</b> {problem.value}
    </Note>
  );
  return { run, note };
}
