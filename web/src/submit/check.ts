// What is wrong with the form, told by the service as one types, and sending it off. Always true: what is said of an input is said of the one that is
// there now, and what waits for an upload is not called missing; a form is sent, or not, by what the service says of it as it is then.
import { create, fromJson } from '@bufbuild/protobuf';
import { computed, effect, signal } from '@preact/signals';
import { JobRequestSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import type { ValidateResponse } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import type { Option } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { number } from '../format.ts';
import { jobService } from '../service/clients.ts';
import { isPassing, messageOf, violationWords } from '../service/errors.ts';
import { capabilities } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { afterSubmit, type Draft, draft, type Input, inputsOf, labelsOf, type RequestJson, request, requestOf, TRIM } from './draft.ts';
import { choicesOf, optionLabel } from './options.ts';
import { processorsOf } from './processors.ts';

export interface Problem {
  /** Id of the element that it is mended at. */
  readonly at: string;
  readonly field: string;
  readonly text: string;
  readonly reason: string;
}

const WAIT_MS = 250;

interface Answered {
  readonly asked: RequestJson;
  readonly answer: ValidateResponse;
}

const answered = signal<Answered | undefined>(undefined);
/** Why the service could not be asked. */
export const checkFailure = signal<string | undefined>(undefined);
/** What the service said is of a form that has changed since. */
export const checking = computed(() => !same(answered.value?.asked, request.value));
export const answer = computed(() => answered.value?.answer);

let timer: ReturnType<typeof setTimeout> | undefined;
let asking: AbortController | undefined;

/** Asks the service about each change of the form, until called again. */
export function startChecking(): () => void {
  return effect(() => {
    const asked = request.value;
    // What was to be asked is of no interest any more, also where the form is again as it was.
    clearTimeout(timer);
    asking?.abort();
    if (!capabilities.value || same(answered.peek()?.asked, asked)) return;
    timer = setTimeout(() => void ask(asked), answered.peek() ? WAIT_MS : 0);
  });
}

/** Asks at once, in place of what was asked before. */
async function ask(asked: RequestJson): Promise<void> {
  clearTimeout(timer);
  asking?.abort();
  asking = new AbortController();
  const { signal: stop } = asking;
  try {
    const response = await jobService.validate(
      { job: fromJson(JobRequestSchema, asked as never) },
      { signal: AbortSignal.any([stop, AbortSignal.timeout(15_000)]) },
    );
    answered.value = { asked, answer: response };
    checkFailure.value = undefined;
  } catch (error) {
    if (stop.aborted) return;
    checkFailure.value = messageOf(error);
    if (isPassing(error)) timer = setTimeout(() => void ask(asked), 3000);
  }
}

/** Until the service has spoken of the form as it is now. Where it cannot be asked, sending says why. */
async function checked(): Promise<void> {
  while (checking.value) {
    await ask(request.value);
    if (checkFailure.value !== undefined) return;
  }
}

function same(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Everything that stands in the way, in the order of the page. */
export const problems = computed<readonly Problem[]>(() => {
  const found = [...ours(draft.value), ...theirs(draft.value, answered.value)];
  return found.filter(({ field }, i) => found.findIndex((one) => one.field === field) === i).sort((a, b) => rank(a.at) - rank(b.at));
});

/** What can be told without asking. */
function ours(from: Draft): Problem[] {
  const w = words.value.submit;
  const found: Problem[] = [];
  const processors = capabilities.value?.processors.filter(({ name }) => processorsOf(from).includes(name)) ?? [];
  if (from.sources.length === 0 && processors.some((one) => one.needsSourceImage))
    found.push({ at: 'source-add', field: 'source_images', text: w.missingSource, reason: 'REQUIRED' });
  if (!from.audio && processors.some((one) => one.needsSourceAudio))
    found.push({ at: 'audio-add', field: 'source_audio', text: w.missingAudio, reason: 'REQUIRED' });
  if (!from.target) found.push({ at: 'target-add', field: 'target', text: w.missingTarget, reason: 'REQUIRED' });
  if (from.processors?.length === 0)
    found.push({ at: 'add-processor', field: 'parameters.processors', text: w.noProcessor, reason: 'REQUIRED' });
  for (const input of inputsOf(from)) {
    const state = input.upload?.state.value;
    if (state?.is === 'failed')
      found.push({
        at: `input-${input.id}`,
        field: `upload ${input.id}`,
        text: w.uploadFailed(input.name, state.why),
        reason: 'UPLOAD_FAILED',
      });
    else if (!input.upload && input.reference === undefined)
      found.push({ at: `input-${input.id}`, field: `upload ${input.id}`, text: `${input.name}: ${w.again}`, reason: 'UPLOAD_STOPPED' });
  }
  const trimmed = trimProblem(from);
  if (trimmed) found.push(trimmed);
  for (const line of labelsOf(from).wrong)
    found.push({ at: 'labels', field: `labels ${line}`, text: w.labelsWrong(line), reason: 'MALFORMED' });
  return found;
}

/** The engine would find it out when the job runs. */
function trimProblem({ target, parameters }: Draft): Problem | undefined {
  const w = words.value.submit;
  const [start, end] = TRIM.map((name) => parameters[name]);
  if (target?.kind !== 'video' || typeof start !== 'number') return undefined;
  const said = (name: string, text: string): Problem => {
    const option = capabilities.value?.options.find((one) => one.name === name);
    return {
      at: `f-${name}`,
      field: `parameters.${name}`,
      text: `${option ? optionLabel(option) : name}: ${text}`,
      reason: 'OUT_OF_RANGE',
    };
  };
  if (typeof end === 'number' && end <= start) return said(TRIM[1], w.trimBackwards);
  const frames = target.facts?.frames;
  return frames !== undefined && start >= frames ? said(TRIM[0], w.trimBehind(number(frames))) : undefined;
}

/** What the service said, without what is only on its way, and what it said of inputs that others have taken the place of. */
function theirs(from: Draft, said: Answered | undefined): Problem[] {
  if (!said) return [];
  const { asked, answer } = said;
  const now = requestOf(from);
  const missing = (input: Input | undefined) => input === undefined || input.reference === undefined;
  const changed = (...names: readonly (keyof RequestJson)[]) => names.some((name) => !same(asked[name], now[name]));
  return answer.violations.flatMap((violation): Problem[] => {
    const { field, reason } = violation;
    const name = /^parameters\.([a-z0-9_]+)/.exec(field)?.[1];
    const option = capabilities.value?.options.find((one) => one.name === name);
    const description = violationWords(violation, option && allowedFor(option, from));
    if (field === 'source_images' && (from.sources.length === 0 || from.sources.some(missing) || changed('source_images'))) return [];
    if (field === 'source_audio' && (missing(from.audio) || changed('source_audio'))) return [];
    const source = /^source_images\[(\d+)\]/.exec(field)?.[1];
    if (source !== undefined) {
      const n = from.sources.findIndex(({ reference }) => reference !== undefined && reference === asked.source_images[Number(source)]);
      if (n < 0) return [];
      return [{ at: `input-${from.sources[n]!.id}`, field, reason, text: `${words.value.submit.sourceN(n + 1)}: ${description}` }];
    }
    if (field === '' || /^target/.test(field)) {
      if (missing(from.target) || changed('target_image', 'target_video')) return [];
      return [{ at: `input-${from.target!.id}`, field, reason, text: `${words.value.submit.target}: ${description}` }];
    }
    if (name === 'processors') return [{ at: 'add-processor', field, reason, text: `${words.value.submit.pipeline}: ${description}` }];
    if (option) return [{ at: `f-${option.name}`, field, reason, text: `${optionLabel(option)}: ${description}` }];
    const part = field.split(/[.[]/)[0]!;
    const label = fieldLabels()[part];
    return [{ at: AT[part] ?? 'further', field, reason, text: `${label ?? field}: ${description}` }];
  });
}

function allowedFor(option: Option, { parameters }: Draft) {
  const { minimum, maximum } = option;
  return { minimum, maximum, choices: choicesOf(option, capabilities.value?.options ?? [], parameters).choices };
}

const AT: Readonly<Record<string, string>> = {
  output_format: 'output-format',
  labels: 'labels',
  priority: 'priority',
  max_attempts: 'max-attempts',
  run_timeout: 'run-minutes',
  attestation: 'attestation',
  webhook: 'webhook-url',
};

/** What the form calls a field that has a place in it. */
function fieldLabels(): Readonly<Record<string, string>> {
  const w = words.value.submit;
  return {
    output_format: w.outputFormat,
    labels: w.labels,
    priority: w.priority,
    max_attempts: w.attempts,
    run_timeout: w.runTimeout,
    attestation: w.attestation,
    webhook: w.webhook,
  };
}
const ORDER = [/^(source|input)/, /^audio/, /^target/, /^add-processor/, /^f-/];
function rank(at: string): number {
  const place = ORDER.findIndex((pattern) => pattern.test(at));
  return place < 0 ? ORDER.length : place;
}

/** The problem of one option. */
export function problemOf(name: string): Problem | undefined {
  return problemAt(`f-${name}`);
}

/** What is to be mended at the element of that id. */
export function problemAt(id: string): Problem | undefined {
  return problems.value.find((one) => one.at === id);
}

const waitsForUpload = computed(() => inputsOf(draft.value).some(({ reference }) => reference === undefined));

export type Sending = { readonly is: 'no' | 'uploading' | 'sending' } | { readonly is: 'failed'; readonly why: string };
export const sending = signal<Sending>({ is: 'no' });
/** One for each form that is sent, so that a repeat after a lost answer makes no second job. */
let idempotency: { readonly of: string; readonly key: string } | undefined;

/** Submits, once all uploads are complete and the whole was checked; answers the job's id. Undefined: it was called off, refused, or has problems. */
export async function submit(): Promise<string | undefined> {
  do {
    sending.value = { is: 'uploading' };
    await uploaded();
    if (sending.peek().is !== 'uploading') return undefined;
    sending.value = { is: 'sending' };
    await checked();
    if (problems.value.length > 0) {
      sending.value = { is: 'no' };
      return undefined;
    }
    // What was added meanwhile goes along.
  } while (waitsForUpload.value);
  const json = requestOf(draft.value);
  const of = JSON.stringify(json);
  if (idempotency?.of !== of) idempotency = { of, key: crypto.randomUUID() };
  const job = Object.assign(create(JobRequestSchema, fromJson(JobRequestSchema, json as never)), { idempotencyKey: idempotency.key });
  try {
    const { job: made } = await jobService.submit({ job }, { signal: AbortSignal.timeout(30_000) });
    sending.value = { is: 'no' };
    idempotency = undefined;
    afterSubmit();
    return made?.jobId;
  } catch (error) {
    sending.value = { is: 'failed', why: messageOf(error) };
    return undefined;
  }
}

/** Until nothing is on its way any more, something is wrong, or it was called off. What the service said before the last change may not be so any more. */
function uploaded(): Promise<void> {
  return new Promise((resolve) => {
    let stop: (() => void) | undefined;
    stop = effect(() => {
      const wrong = ours(draft.value).length > 0 || (!checking.value && problems.value.length > 0);
      if (waitsForUpload.value && !wrong && sending.value.is === 'uploading') return;
      queueMicrotask(() => stop?.());
      resolve();
    });
  });
}

export function callOff(): void {
  if (sending.value.is === 'uploading') sending.value = { is: 'no' };
}
