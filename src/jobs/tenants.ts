// What one tenant may have, and which options it may not use. Pure: the same policy and job give the same verdict wherever it is asked for.
import type { Capabilities } from '../../gen/facefusion/worker/v1/worker_pb.js';
import type { Violation } from './errors.ts';

/** Undefined: no limit. */
export interface Quotas {
  readonly queuedJobs: number | undefined;
  /** Further jobs wait. */
  readonly runningJobs: number | undefined;
  /** Seconds that slots were held, since midnight UTC. */
  readonly gpuSecondsPerDay: number | undefined;
  /** Of results that are not purged. */
  readonly storedBytes: number | undefined;
}

export interface TenantPolicy {
  readonly quotas: Quotas;
  /** Share of the slots against other tenants. */
  readonly weight: number;
  /** A job without a statement of consent is refused. */
  readonly attestation: boolean;
  /** By option (`processors` among them): patterns of values that are refused, with `*` for any text. */
  readonly denied: ReadonlyMap<string, readonly string[]>;
  /** How its results are marked as made by AI. */
  readonly mark: Mark;
}

export interface Mark {
  /** With a signed manifest. */
  readonly signed: boolean;
  /** Text that is drawn over the picture; empty: none. */
  readonly label: string;
}

/** What can be drawn: the strokes that it is drawn with know no other letters. */
export const LABEL = /^[\x20-\x7e]{0,60}$/;
export const LABEL_WORDS = 'up to 60 letters, digits and signs of ASCII';

/** Every value among the resolved parameters of a job that its tenant may not use, and what it may. */
export function deniedValues(
  parameters: Readonly<Record<string, unknown>>,
  denied: TenantPolicy['denied'],
  capabilities?: Capabilities,
): Violation[] {
  const violations: Violation[] = [];
  for (const [option, patterns] of denied) {
    const value = parameters[option];
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one === undefined || one === null || !matches(String(one), patterns)) continue;
      const description = `'${String(one)}' is not allowed for you: the operator of this service has put it on a list${allowedOf(option, patterns, capabilities)}`;
      violations.push({ field: `parameters.${option}`, reason: 'NOT_ALLOWED', description });
    }
  }
  return violations;
}

/** In words; empty where the engine names no choices. */
function allowedOf(option: string, patterns: readonly string[], capabilities: Capabilities | undefined): string {
  const choices =
    option === 'processors'
      ? capabilities?.processors.map(({ name }) => name)
      : capabilities?.options.find(({ name }) => name === option)?.choices;
  if (!choices || choices.length === 0) return '';
  const allowed = choices.filter((one) => !matches(one, patterns));
  const more = allowed.length > MAX_NAMED ? ` and ${allowed.length - MAX_NAMED} more` : '';
  return `; allowed: ${allowed.slice(0, MAX_NAMED).join(', ') || 'none of its choices'}${more}`;
}

/** Choices that a sentence can hold. */
const MAX_NAMED = 20;

/** What an engine can do, less what a tenant may not use. */
export function allowedCapabilities(capabilities: Capabilities, denied: TenantPolicy['denied']): Capabilities {
  if (denied.size === 0) return capabilities;
  const isAllowed = (option: string, value: string) => !matches(value, denied.get(option) ?? []);
  const processors = capabilities.processors.filter((one) => isAllowed('processors', one.name));
  const gone = new Set(capabilities.processors.filter((one) => !processors.includes(one)).map((one) => one.name));
  const options = capabilities.options
    .filter((option) => !gone.has(option.processor))
    .map((option) => ({
      ...option,
      choices: option.choices.filter((choice) => isAllowed(option.name, choice)),
      dependentChoices: option.dependentChoices
        .filter((one) => isAllowed(one.option, one.value))
        .map((one) => ({ ...one, choices: one.choices.filter((choice) => isAllowed(option.name, choice)) })),
    }))
    // All of its choices are denied: there is nothing to choose.
    .filter(
      (option) => option.choices.length > 0 || !capabilities.options.some((one) => one.name === option.name && one.choices.length > 0),
    );
  return { ...capabilities, processors, options };
}

function matches(value: string, patterns: readonly string[]): boolean {
  const text = value.toLowerCase();
  return patterns.some((pattern) => isLike(text, pattern.toLowerCase()));
}

/** Whether a text is as a pattern with `*` has it. After each star the first place that fits is taken, so that no pattern costs more than its length times the text's. */
function isLike(text: string, pattern: string): boolean {
  const [head = '', ...parts] = pattern.split('*');
  const tail = parts.pop();
  if (tail === undefined) return text === head;
  if (!text.startsWith(head) || text.length < head.length + tail.length || !text.endsWith(tail)) return false;
  let at = head.length;
  for (const part of parts) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= text.length - tail.length;
}
