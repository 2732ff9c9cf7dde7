// Pipelines with their options under a name, in this browser. References are no part of them.
import type { JsonValue } from '@bufbuild/protobuf';
import { signal } from '@preact/signals';
import { change, draft } from './draft.ts';

export interface Preset {
  readonly processors: readonly string[] | undefined;
  readonly parameters: Readonly<Record<string, JsonValue>>;
  readonly outputFormat: string;
}

const KEPT = 'ffjobs.presets';

export const presets = signal<Readonly<Record<string, Preset>>>(restored());

export function savePreset(name: string): void {
  const { processors, parameters, outputFormat } = draft.value;
  keep({ ...presets.value, [name]: { processors, parameters, outputFormat } });
}

export function deletePreset(name: string): void {
  const { [name]: _, ...others } = presets.value;
  keep(others);
}

export function usePreset(name: string): void {
  const preset = presets.value[name];
  if (preset) change(preset);
}

/** The preset that the form is at. */
export function presetNow(): string {
  const { processors, parameters, outputFormat } = draft.value;
  const now = JSON.stringify(sorted({ processors, parameters, outputFormat }));
  return Object.entries(presets.value).find(([, preset]) => JSON.stringify(sorted(preset)) === now)?.[0] ?? '';
}

function sorted({ processors, parameters, outputFormat }: Preset) {
  return [processors ?? null, Object.entries(parameters).sort(([a], [b]) => (a < b ? -1 : 1)), outputFormat];
}

function keep(next: Readonly<Record<string, Preset>>): void {
  presets.value = next;
  localStorage.setItem(KEPT, JSON.stringify(next));
}

function restored(): Readonly<Record<string, Preset>> {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? '{}') as Readonly<Record<string, Preset>>;
  } catch {
    return {};
  }
}
