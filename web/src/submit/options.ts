// The engine's options as a form shows them: labels, groups, values, choices. Everything comes from GetCapabilities; nothing is known here of
// any one option but a better word for it.
import type { JsonValue } from '@bufbuild/protobuf';
import { toJson } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { type Option, OptionType } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { words } from '../words/words.ts';

export type Parameters = Readonly<Record<string, JsonValue>>;

/** Groups of what belongs to no processor, by the beginnings of names; the first that fits. */
const GROUPS: readonly (readonly [group: string, section: Section, prefixes: readonly string[]])[] = [
  ['detector', 'faces', ['face_detector']],
  ['landmarker', 'faces', ['face_landmarker']],
  ['selector', 'faces', ['face_selector', 'reference_', 'face_tracker']],
  ['masks', 'faces', ['face_mask', 'face_occluder', 'face_parser']],
  ['voice', 'faces', ['voice_extractor']],
  ['picture', 'result', ['output_image']],
  ['video', 'result', ['output_video']],
  ['sound', 'result', ['output_audio', 'skip_audio']],
  ['frames', 'result', ['trim_frame', 'temp_frame', 'keep_temp']],
];

export type Section = 'processors' | 'faces' | 'result' | 'other';

export interface Group {
  readonly name: string;
  readonly section: Section;
  readonly options: readonly Option[];
}

/** Options that a job of these processors has, in groups; the pipeline itself is not one of them. */
export function groupsOf(options: readonly Option[], processors: readonly string[]): Group[] {
  const groups = new Map<string, { name: string; section: Section; options: Option[] }>();
  // In the order in which they run, then in that of the list above.
  for (const name of processors) groups.set(name, { name, section: 'processors', options: [] });
  for (const [name, section] of GROUPS) groups.set(name, { name, section, options: [] });
  groups.set('other', { name: 'other', section: 'other', options: [] });
  for (const option of options) {
    if (option.name === 'processors') continue;
    if (option.processor !== '') groups.get(option.processor)?.options.push(option);
    else
      groups
        .get(GROUPS.find(([, , prefixes]) => prefixes.some((prefix) => option.name.startsWith(prefix)))?.[0] ?? 'other')
        ?.options.push(option);
  }
  return [...groups.values()].filter((group) => group.options.length > 0);
}

export function processorLabel(name: string): string {
  return words.value.processorNames[name] ?? sentence(name);
}

export function groupLabel({ name, section }: Pick<Group, 'name' | 'section'>): string {
  return section === 'processors' ? processorLabel(name) : (words.value.groupNames[name] ?? name);
}

/** `face_swapper_pixel_boost` of face_swapper is "Pixel boost". */
export function optionLabel(option: Option): string {
  const short =
    option.processor !== '' && option.name.startsWith(`${option.processor}_`)
      ? option.name.slice(option.processor.length + 1)
      : shortened(option.name);
  return words.value.optionNames[option.name] ?? words.value.optionNames[short] ?? sentence(short);
}

/** Without what its group says already. */
function shortened(name: string): string {
  const [group, , prefixes] = GROUPS.find(([, , starts]) => starts.some((prefix) => name.startsWith(prefix))) ?? [];
  const prefix = prefixes?.find((one) => name.startsWith(one));
  if (group === undefined || prefix === undefined || !/^(output_|face_detector|face_landmarker|face_selector|face_mask)/.test(name))
    return name;
  const rest = name.slice(prefix.length).replace(/^_/, '');
  return rest === '' ? name : rest;
}

function sentence(name: string): string {
  const text = name.replaceAll('_', ' ');
  return text.slice(0, 1).toUpperCase() + text.slice(1).replace(/\bfps\b/g, 'FPS');
}

export function defaultOf(option: Option): JsonValue {
  return option.default ? toJson(ValueSchema, option.default) : null;
}

export function valueFor(option: Option, parameters: Parameters): JsonValue {
  return parameters[option.name] ?? defaultOf(option);
}

export function isChanged(option: Option, parameters: Parameters): boolean {
  const value = parameters[option.name];
  return value !== undefined && JSON.stringify(value) !== JSON.stringify(defaultOf(option));
}

export interface Choices {
  readonly choices: readonly string[];
  /** Names of options that they follow. */
  readonly follows: readonly string[];
}

/** What may be chosen as the other options are now: the service's own rule (`dependent_choices`). */
export function choicesOf(option: Option, options: readonly Option[], parameters: Parameters): Choices {
  const follows = [...new Set(option.dependentChoices.map((one) => one.option))];
  const holding = option.dependentChoices.filter((one) => {
    const other = options.find(({ name }) => name === one.option);
    return String(other ? valueFor(other, parameters) : parameters[one.option]) === one.value;
  });
  return { choices: holding.length > 0 ? [...new Set(holding.flatMap((one) => one.choices))] : option.choices, follows };
}

export function matches(option: Option, query: string): boolean {
  const where = `${option.name} ${optionLabel(option)} ${option.help} ${option.choices.join(' ')}`.toLowerCase();
  return query
    .toLowerCase()
    .split(/[\s_]+/)
    .every((term) => where.includes(term));
}

/** What a field's text means; undefined: nothing of this option's type. */
export function parsed(option: Option, text: string): JsonValue | undefined {
  if (option.list) {
    const parts = text.split(/[,，\s]+/).filter(Boolean);
    const values = parts.map((part) => one(option, part));
    return values.every((value) => value !== undefined) ? (values as JsonValue[]) : undefined;
  }
  return one(option, text.trim());
}

function one(option: Option, text: string): JsonValue | undefined {
  if (option.type === OptionType.STRING) return text;
  if (option.type === OptionType.BOOLEAN) return text === 'true' ? true : text === 'false' ? false : undefined;
  const value = Number(text);
  return text === '' || !Number.isFinite(value) ? undefined : value;
}

export function printed(value: JsonValue): string {
  return value === null ? '' : Array.isArray(value) ? value.join(', ') : String(value);
}

/** Of a slider: one in a hundred of its span, in whole numbers where the option has them. */
export function stepOf(option: Option): number {
  if (option.type === OptionType.INTEGER) return 1;
  const span = (option.maximum ?? 1) - (option.minimum ?? 0);
  return span <= 2 ? 0.05 : span <= 20 ? 0.1 : 1;
}
