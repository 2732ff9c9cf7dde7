// Which processors the job has, in the order in which they run: those of the form, else the engine's own choice.
import { capabilities } from '../service/overview.ts';
import { change, type Draft, draft } from './draft.ts';

export function processorsOf({ processors }: Draft): readonly string[] {
  return processors ?? defaultProcessors();
}

/** The engine's choice is not sent, so that it may change. */
export function setProcessors(next: readonly string[]): void {
  change({ processors: JSON.stringify(next) === JSON.stringify(defaultProcessors()) ? undefined : next });
}

export function addProcessor(name: string): void {
  setProcessors([...processorsOf(draft.value), name]);
}

function defaultProcessors(): readonly string[] {
  const value = capabilities.value?.options.find(({ name }) => name === 'processors')?.default?.kind;
  return value?.case === 'listValue' ? value.value.values.map((one) => String(one.kind.value)) : [];
}
