// `parameters` against what the engine says it can do: every violation at once, each with what is allowed, and the values the engine gets.
// The engine's own option names rule; the four aliases below are ours and fixed by the contract.
import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { toJson } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { closest, distance } from 'fastest-levenshtein';
import { type Capabilities, type Option, OptionType } from '../../gen/facefusion/worker/v1/worker_pb.js';
import type { Violation } from './errors.ts';

export type TargetKind = 'image' | 'video';

/** FaceFusion's options that belong to whoever runs the service (its command line has them; a remote caller has not). */
const OPERATOR_OPTIONS: ReadonlySet<string> = new Set([
  'config_path',
  'temp_path',
  'jobs_path',
  'source_paths',
  'target_path',
  'output_path',
  'execution_device_ids',
  'execution_providers',
  'execution_thread_count',
  'download_providers',
  'video_memory_strategy',
  'log_level',
]);

/** More options, or values of a list, than any engine has; each that is wrong costs a look for what may have been meant. */
const MAX_ENTRIES = 1000;

export interface Alias {
  readonly name: string;
  /** The engine's option by the kind of target. */
  readonly option: (target: TargetKind) => string | undefined;
  readonly options: readonly string[];
  readonly help: string;
}

/** Names of our own for engine options. */
export const ALIASES: readonly Alias[] = [
  { name: 'face_detector', option: () => 'face_detector_model', options: ['face_detector_model'], help: 'model that finds the faces' },
  {
    name: 'output_quality',
    option: (target) => (target === 'image' ? 'output_image_quality' : 'output_video_quality'),
    options: ['output_image_quality', 'output_video_quality'],
    help: 'quality of the result, 0..100',
  },
  {
    name: 'fps',
    option: (target) => (target === 'video' ? 'output_video_fps' : undefined),
    options: ['output_video_fps'],
    help: 'frames per second of the result',
  },
  {
    name: 'temp_directory',
    option: () => undefined,
    options: [],
    help: 'taken with a warning: where temporary files go is set by the operator',
  },
];

export interface Resolved {
  /** Every option of the chosen processors with its value, defaults filled in, by the engine's names. */
  readonly parameters: JsonObject;
  readonly processors: readonly string[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly string[];
}

/** Resolves `given` for one target. Fields of violations start with `parameters.`. */
export function resolveParameters(given: JsonObject, target: TargetKind, engine: { name: string; capabilities: Capabilities }): Resolved {
  const { capabilities } = engine;
  const { options, ignored, defaults, narrowed } = indexOf(capabilities);
  const violations: Violation[] = [];
  const warnings: string[] = [];
  const chosen = new Map<string, { value: JsonValue; field: string }>();
  const entries = Object.entries(given);
  if (entries.length > MAX_ENTRIES) violations.push(tooMany('parameters', entries.length));

  for (const [name, value] of entries.slice(0, MAX_ENTRIES)) {
    const field = `parameters.${shortened(name)}`;
    if (value === null) continue;
    const alias = ALIASES.find((one) => one.name === name);
    if (name === 'temp_directory') {
      warnings.push("temp_directory is the operator's affair: temporary files go where the service keeps them");
      continue;
    }
    if (OPERATOR_OPTIONS.has(name)) {
      violations.push({ field, reason: 'OPERATOR_OPTION', description: `'${name}' is set by whoever runs the service; leave it out` });
      continue;
    }
    const option = alias ? alias.option(target) : name;
    if (option === undefined) {
      warnings.push(`'${name}' means nothing for ${target === 'image' ? 'a picture' : 'a video'} and was left out`);
      continue;
    }
    if (!options.has(option)) {
      if (ignored.has(option))
        warnings.push(`'${name}' is an option of FaceFusion that the engine '${engine.name}' does not have; it was left out`);
      else violations.push(unknownOption(name, capabilities));
      continue;
    }
    const earlier = chosen.get(option);
    if (earlier) {
      violations.push({
        field,
        reason: 'GIVEN_TWICE',
        description: `'${name}' and '${earlier.field.slice(11)}' set the same option; give one`,
      });
      continue;
    }
    chosen.set(option, { value, field });
  }

  const processors = textsOf(chosen.get('processors')?.value ?? defaults.get('processors')?.value);
  const parameters: JsonObject = {};
  for (const [name, { option, value }] of defaults) {
    if (!chosen.has(name) && applies(option, processors)) parameters[name] = value;
  }
  const at = (name: string): JsonValue | undefined => chosen.get(name)?.value ?? parameters[name];
  // A default may be none of the choices that another option leaves: what fits then is for the engine to say.
  for (const option of narrowed) {
    const value = parameters[option.name];
    if (value === undefined || chosen.has(option.name)) continue;
    if (!choicesOf(option, at).choices.includes(String(value))) delete parameters[option.name];
  }
  for (const [name, { value, field }] of chosen) {
    const option = options.get(name)!;
    const found = checkValue(option, value, field, at);
    violations.push(...found);
    if (found.length > 0) continue;
    if (!applies(option, processors)) warnings.push(`'${name}' has no effect: '${option.processor}' is not among the processors`);
    else parameters[name] = value;
  }
  return { parameters, processors, violations, warnings };
}

interface Index {
  readonly options: ReadonlyMap<string, Option>;
  readonly ignored: ReadonlySet<string>;
  readonly defaults: ReadonlyMap<string, { readonly option: Option; readonly value: JsonValue }>;
  /** Whose choices are others where other options are so. */
  readonly narrowed: readonly Option[];
}

/** What an engine can do is said once, and asked for with every job. */
const indexes = new WeakMap<Capabilities, Index>();

function indexOf(capabilities: Capabilities): Index {
  let index = indexes.get(capabilities);
  if (!index) {
    const { options, ignoredOptions } = capabilities;
    index = {
      options: new Map(options.map((option) => [option.name, option])),
      ignored: new Set(ignoredOptions),
      defaults: new Map(
        options.flatMap((option) => (option.default ? [[option.name, { option, value: toJson(ValueSchema, option.default) }]] : [])),
      ),
      narrowed: options.filter(({ dependentChoices }) => dependentChoices.length > 0),
    };
    indexes.set(capabilities, index);
  }
  return index;
}

function textsOf(value: JsonValue | undefined): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : typeof value === 'string' ? [value] : [];
}

function applies(option: Option, processors: readonly string[]): boolean {
  return option.processor === '' || processors.includes(option.processor);
}

const TYPE_WORDS: Readonly<Record<OptionType, string>> = {
  [OptionType.UNSPECIFIED]: 'value',
  [OptionType.BOOLEAN]: 'true or false',
  [OptionType.INTEGER]: 'a whole number',
  [OptionType.NUMBER]: 'a number',
  [OptionType.STRING]: 'a string',
};

function checkValue(option: Option, value: JsonValue, field: string, at: (name: string) => JsonValue | undefined): Violation[] {
  if (!option.list) return checkOne(option, value, field, at);
  if (!Array.isArray(value)) {
    return [
      { field, reason: 'WRONG_TYPE', description: `takes a list of values, each ${TYPE_WORDS[option.type]}, not ${describe(value)}` },
    ];
  }
  if (value.length > MAX_ENTRIES) return [tooMany(field, value.length)];
  const violations = value.flatMap((one, i) => checkOne(option, one, `${field}[${i}]`, at));
  if (option.choices.length > 0) {
    const seen = new Set<JsonValue>();
    value.forEach((one, i) => {
      if (seen.has(one))
        violations.push({ field: `${field}[${i}]`, reason: 'REPEATED', description: `${describe(one)} is in the list twice` });
      seen.add(one);
    });
  }
  return violations;
}

function checkOne(option: Option, value: JsonValue, field: string, at: (name: string) => JsonValue | undefined): Violation[] {
  const right =
    option.type === OptionType.BOOLEAN
      ? typeof value === 'boolean'
      : option.type === OptionType.INTEGER
        ? typeof value === 'number' && Number.isInteger(value)
        : option.type === OptionType.NUMBER
          ? typeof value === 'number' && Number.isFinite(value)
          : typeof value === 'string';
  if (!right) return [{ field, reason: 'WRONG_TYPE', description: `takes ${TYPE_WORDS[option.type]}, not ${describe(value)}` }];
  const { choices, dependent } = choicesOf(option, at);
  if (choices.length > 0 && !choices.includes(String(value))) {
    const because = dependent.length > 0 ? ` with ${dependent.map((one) => `${one.option} ${one.value}`).join(', ')}` : '';
    return [
      {
        field,
        reason: 'NOT_A_CHOICE',
        description: `${describe(value)} is not a choice${because}${didYouMean(String(value), choices)}; allowed: ${listed(choices)}`,
      },
    ];
  }
  if (typeof value === 'number') {
    const { minimum, maximum } = option;
    if ((minimum !== undefined && value < minimum) || (maximum !== undefined && value > maximum)) {
      const range =
        minimum === undefined ? `at most ${maximum}` : maximum === undefined ? `at least ${minimum}` : `${minimum} to ${maximum}`;
      return [{ field, reason: 'OUT_OF_RANGE', description: `${value} is out of range; allowed: ${range}` }];
    }
  }
  return [];
}

/** What an option can be, and the rules that narrow it where other options are as they are. */
function choicesOf(option: Option, at: (name: string) => JsonValue | undefined) {
  const dependent = option.dependentChoices.filter((one) => String(at(one.option)) === one.value);
  return { choices: dependent.length > 0 ? dependent.flatMap((one) => one.choices) : option.choices, dependent };
}

function describe(value: JsonValue): string {
  return shortened(JSON.stringify(value));
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function tooMany(field: string, count: number): Violation {
  return { field, reason: 'TOO_MANY', description: `has ${count} entries; allowed: at most ${MAX_ENTRIES}` };
}

function listed(choices: readonly string[]): string {
  return choices.length > 40
    ? `${choices.slice(0, 40).join(', ')} and ${choices.length - 40} more (see GetCapabilities)`
    : choices.join(', ');
}

/** `; did you mean 'x'?` where a known name is near, else nothing. */
export function didYouMean(given: string, known: readonly string[]): string {
  if (known.length === 0 || given.length > 100) return '';
  const best = closest(given.toLowerCase(), known as string[]);
  const near = distance(given.toLowerCase(), best) <= Math.max(2, Math.floor(given.length / 3));
  return near || best.startsWith(given.toLowerCase()) ? `; did you mean '${best}'?` : '';
}

function unknownOption(name: string, capabilities: Capabilities): Violation {
  const known = [...capabilities.options.map((one) => one.name), ...ALIASES.map((one) => one.name), ...capabilities.ignoredOptions];
  const hint = didYouMean(name, known) || '; GetCapabilities lists all options';
  const short = shortened(name);
  return { field: `parameters.${short}`, reason: 'UNKNOWN_OPTION', description: `there is no option '${short}'${hint}` };
}

/** JSON Schema (2020-12) of `parameters`, for forms and editors. */
export function parametersSchema(engineName: string, capabilities: Capabilities): JsonObject {
  const properties: JsonObject = {};
  for (const option of capabilities.options) properties[option.name] = optionSchema(option);
  for (const alias of ALIASES) {
    const target = capabilities.options.find((one) => alias.options.includes(one.name));
    properties[alias.name] = {
      ...(target ? optionSchema(target) : {}),
      description: `${alias.help}${alias.options.length ? ` (${alias.options.join(', ')})` : ''}`,
    };
  }
  for (const name of capabilities.ignoredOptions) {
    properties[name] = {
      description: `an option of FaceFusion that the engine '${engineName}' does not have: taken with a warning`,
      deprecated: true,
    };
  }
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: `Parameters of the engine '${engineName}'`,
    type: 'object',
    additionalProperties: false,
    properties,
  };
}

const SCHEMA_TYPES: Readonly<Record<OptionType, string>> = {
  [OptionType.UNSPECIFIED]: 'string',
  [OptionType.BOOLEAN]: 'boolean',
  [OptionType.INTEGER]: 'integer',
  [OptionType.NUMBER]: 'number',
  [OptionType.STRING]: 'string',
};

function optionSchema(option: Option): JsonObject {
  const numeric = option.type === OptionType.INTEGER || option.type === OptionType.NUMBER;
  const one: JsonObject = { type: SCHEMA_TYPES[option.type] };
  if (option.choices.length > 0) one.enum = option.choices.map((choice) => (numeric ? Number(choice) : choice));
  if (option.minimum !== undefined) one.minimum = option.minimum;
  if (option.maximum !== undefined) one.maximum = option.maximum;
  const schema: JsonObject = option.list ? { type: 'array', items: one, ...(option.choices.length > 0 ? { uniqueItems: true } : {}) } : one;
  if (option.help) schema.description = option.help;
  if (option.default !== undefined) schema.default = toJson(ValueSchema, option.default);
  return schema;
}
