// The job that is being put together. Always true: it is in this tab's session storage as it is here, but for files, which a page cannot keep; what
// an upload has brought so far goes on when the same file is chosen again.
import { create, type JsonObject, type JsonValue, toJson } from '@bufbuild/protobuf';
import { computed, effect, signal } from '@preact/signals';
import { type Job, type JobRequest, JobRequestSchema, JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { secondsOf } from '../format.ts';
import { baseName, NAME_LABEL, nameOf } from '../jobs/status.ts';
import { keepInput } from '../service/inputs.ts';
import { factsOf } from '../service/media-facts.ts';
import type { MediaFacts } from '../service/movie-facts.ts';
import { drawThumbnail, keepThumbnail, thumbnailOf } from '../service/thumbnails.ts';
import { Upload } from '../service/upload.ts';
import { isNameless, keepUploadName, uploadName } from '../service/upload-names.ts';

export type MediaKind = 'image' | 'video' | 'audio';

/** One input: a reference, or a file on its way to become one. */
export interface Input {
  readonly id: string;
  readonly name: string;
  readonly kind: MediaKind;
  /** What the job will name; undefined until the upload is complete. */
  readonly reference: string | undefined;
  readonly upload: Upload | undefined;
  readonly bytes: number;
  /** Object URL of a small picture. */
  readonly thumbnail: string | undefined;
  /** Of a file that was chosen here. */
  readonly facts?: MediaFacts | undefined;
}

export interface Draft {
  readonly sources: readonly Input[];
  readonly audio: Input | undefined;
  readonly target: Input | undefined;
  /** Undefined: the engine's default. */
  readonly processors: readonly string[] | undefined;
  /** What differs from the defaults. */
  readonly parameters: Readonly<Record<string, JsonValue>>;
  readonly outputFormat: string;
  readonly priority: number;
  /** As typed: one name=value a line. */
  readonly labels: string;
  readonly maxAttempts: number | undefined;
  readonly runMinutes: number | undefined;
  readonly previews: boolean;
  /** Where the job's changes are posted to; empty: nowhere. */
  readonly webhookUrl: string;
  /** Names of statuses that are posted; none: those that end a job. */
  readonly webhookStatuses: readonly WebhookStatus[];
  /** A statement of consent. It is made for one job, and again for the next. */
  readonly attestation: string;
  /** Of an earlier job's request, what the form has no field for. */
  readonly carried: Carried;
}

/** As REST has it. */
export type Carried = Readonly<Partial<Record<(typeof CARRIED)[number], JsonValue>>>;
const CARRIED = ['output_uri', 'engine', 'cache', 'start_timeout', 'retention'] as const;

/** Without UNSPECIFIED, in the order in which a job may have them. */
export const WEBHOOK_STATUSES = ['QUEUED', 'PROCESSING', 'SUCCEEDED', 'FAILED', 'REFUSED', 'CANCELED'] as const;
export type WebhookStatus = (typeof WEBHOOK_STATUSES)[number];

export const NOTHING: Draft = {
  sources: [],
  audio: undefined,
  target: undefined,
  processors: undefined,
  parameters: {},
  outputFormat: '',
  priority: 0,
  labels: '',
  maxAttempts: undefined,
  runMinutes: undefined,
  previews: true,
  webhookUrl: '',
  webhookStatuses: [],
  attestation: '',
  carried: {},
};

/** Which frames of a target are worked on: said of that one, and of no other. */
export const TRIM = ['trim_frame_start', 'trim_frame_end'] as const;
export const MOST_SOURCES = 16;
const KEPT = 'ffjobs.draft';

export const draft = signal<Draft>(restored());

export function change(next: Partial<Draft>): void {
  draft.value = { ...draft.value, ...next };
}

/** An option's value; undefined takes it back to the default. */
export function setParameter(name: string, value: JsonValue | undefined): void {
  const { [name]: _, ...others } = draft.value.parameters;
  change({ parameters: value === undefined ? others : { ...others, [name]: value } });
}

/** A file that nothing is done with: it is of no kind that belongs there, or there are as many faces as a job takes. */
export interface Unused {
  readonly name: string;
  readonly why: 'kind' | 'many';
}

/** Shown until something else is chosen. */
export const unused = signal<readonly Unused[]>([]);

export type Place = 'source' | 'target' | 'audio';

/** Takes files where they were dropped, or where they belong by their kind. */
export function takeFiles(files: readonly File[], place: Place | undefined): void {
  unused.value = [];
  for (const file of files) {
    const kind = kindOf(file);
    if (kind === undefined) {
      unused.value = [...unused.value, { name: file.name, why: 'kind' }];
      continue;
    }
    const { sources, target } = draft.value;
    const to =
      place ??
      (kind === 'audio' ? 'audio' : kind === 'video' ? 'target' : sources.length === 0 || target !== undefined ? 'source' : 'target');
    if ((to === 'audio') !== (kind === 'audio') || (to === 'source' && kind !== 'image')) {
      unused.value = [...unused.value, { name: file.name, why: 'kind' }];
      continue;
    }
    if (to === 'source' && draft.value.sources.length >= MOST_SOURCES) unused.value = [...unused.value, { name: file.name, why: 'many' }];
    else put(to, uploading(file, kind));
  }
}

/** Takes a path, URL or `s3://` reference. */
export function takeReference(reference: string, place: Place | undefined, kind = kindOfName(reference)): void {
  const { sources, target } = draft.value;
  const guess = kind ?? (place === 'audio' ? 'audio' : 'image');
  const to =
    place ??
    (guess === 'audio' ? 'audio' : guess === 'video' ? 'target' : sources.length === 0 || target !== undefined ? 'source' : 'target');
  put(to, {
    id: crypto.randomUUID(),
    name: uploadName(reference) ?? baseName(reference),
    kind: to === 'source' ? 'image' : guess,
    reference,
    upload: undefined,
    bytes: 0,
    thumbnail: undefined,
  });
}

function put(to: Place, input: Input): void {
  const { sources, audio, target } = draft.value;
  if (to === 'source') {
    if (sources.length >= MOST_SOURCES) unused.value = [{ name: input.name, why: 'many' }];
    else
      change({
        sources: [...sources.filter((one) => !(one.upload === undefined && one.reference === undefined && one.name === input.name)), input],
      });
  } else if (to === 'audio') {
    drop(audio);
    change({ audio: input });
  } else {
    drop(target);
    // A file that is chosen again goes on as what it was.
    change({ target: input, ...(target && target.name !== input.name ? untrimmed() : {}) });
  }
}

export function remove(id: string): void {
  const { sources, audio, target } = draft.value;
  drop([...sources, audio, target].find((one) => one?.id === id));
  change({
    sources: sources.filter((one) => one.id !== id),
    audio: audio?.id === id ? undefined : audio,
    target: target?.id === id ? undefined : target,
    ...(target?.id === id ? untrimmed() : {}),
  });
}

function untrimmed(): Pick<Draft, 'parameters'> {
  return { parameters: Object.fromEntries(Object.entries(draft.value.parameters).filter(([name]) => !TRIM.some((one) => one === name))) };
}

function drop(input: Input | undefined): void {
  input?.upload?.stop({ remove: true });
}

export function setTargetKind(kind: 'image' | 'video'): void {
  const { target } = draft.value;
  if (target) change({ target: { ...target, kind } });
}

/** Begins anew, with nothing. */
export function startOver(): void {
  for (const one of inputsOf(draft.value)) drop(one);
  draft.value = { ...NOTHING };
}

/** Uploads belong to a job now; the form keeps the options for the next one. */
export function afterSubmit(): void {
  change({ sources: [], audio: undefined, target: undefined, attestation: '', ...untrimmed() });
}

export function inputsOf({ sources, audio, target }: Draft): readonly Input[] {
  return [...sources, audio, target].filter((one) => one !== undefined);
}

function uploading(file: File, kind: MediaKind): Input {
  const upload = new Upload(file);
  const input: Input = {
    id: crypto.randomUUID(),
    name: file.name,
    kind,
    reference: undefined,
    upload,
    bytes: file.size,
    thumbnail: undefined,
  };
  const picture = kind === 'audio' ? Promise.resolve(undefined) : drawThumbnail(file);
  void picture.then((blob) => blob && update(input.id, { thumbnail: URL.createObjectURL(blob) }));
  if (kind !== 'audio') void factsOf(file).then((facts) => facts && update(input.id, { facts }));
  void upload.run().then(async () => {
    const uri = upload.uri.value;
    if (upload.state.value.is !== 'done' || uri === undefined) return;
    keepInput(uri, file);
    keepUploadName(uri, file.name);
    update(input.id, { reference: uri });
    const blob = await picture;
    if (blob) await keepThumbnail(uri, blob);
  });
  return input;
}

function update(id: string, next: Partial<Input>): void {
  const { sources, audio, target } = draft.value;
  const changed = (one: Input | undefined) => (one?.id === id ? { ...one, ...next } : one);
  change({ sources: sources.map((one) => changed(one)!), audio: changed(audio), target: changed(target) });
}

const EXTENSIONS: Readonly<Record<MediaKind, RegExp>> = {
  image: /\.(jpe?g|png|webp|bmp|tiff?|gif|avif|jfif)$/i,
  video: /\.(mp4|m4v|mov|webm|mkv|avi|wmv|mpe?g|ts|flv|3gp|mxf)$/i,
  audio: /\.(mp3|wav|m4a|aac|flac|ogg|opus|wma)$/i,
};

function kindOf(file: File): MediaKind | undefined {
  const kind = file.type.split('/')[0];
  return kind === 'image' || kind === 'video' || kind === 'audio' ? kind : kindOfName(file.name);
}

function kindOfName(reference: string): MediaKind | undefined {
  const name = baseName(reference);
  return (['image', 'video', 'audio'] as const).find((kind) => EXTENSIONS[kind].test(name));
}

/** The form's part of the request: what is not here yet is left out. */
export const request = computed(() => requestOf(draft.value));

export interface RequestJson extends Carried {
  readonly source_images: readonly string[];
  readonly source_audio?: string;
  readonly target_video?: string;
  readonly target_image?: string;
  readonly output_format?: string;
  readonly parameters?: JsonObject;
  readonly priority?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly max_attempts?: number;
  readonly run_timeout?: string;
  readonly previews?: boolean;
  /** Statuses by their names in the contract. */
  readonly webhook?: { readonly url: string; readonly statuses?: readonly `JOB_STATUS_${WebhookStatus}`[] };
  readonly attestation?: string;
}

/** As REST takes it: names of the contract, and only what was set. */
export function requestOf(from: Draft): RequestJson {
  const {
    sources,
    audio,
    target,
    processors,
    parameters,
    outputFormat,
    priority,
    maxAttempts,
    runMinutes,
    previews,
    webhookUrl,
    webhookStatuses,
    attestation,
    carried,
  } = from;
  const chosen: JsonObject = { ...(processors ? { processors: [...processors] } : {}), ...parameters };
  const labels = labelsOf(from).labels;
  return {
    source_images: sources.map((one) => one.reference).filter((one) => one !== undefined),
    ...(audio?.reference === undefined ? {} : { source_audio: audio.reference }),
    ...(target?.reference === undefined
      ? {}
      : target.kind === 'video'
        ? { target_video: target.reference }
        : { target_image: target.reference }),
    ...(outputFormat === '' ? {} : { output_format: outputFormat }),
    ...(Object.keys(chosen).length === 0 ? {} : { parameters: chosen }),
    ...(priority === 0 ? {} : { priority }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    ...(maxAttempts === undefined ? {} : { max_attempts: maxAttempts }),
    ...(runMinutes === undefined ? {} : { run_timeout: `${Math.round(runMinutes * 60)}s` }),
    ...(previews ? { previews } : {}),
    ...(webhookUrl.trim() === '' ? {} : { webhook: webhookOf(webhookUrl.trim(), webhookStatuses) }),
    ...(attestation.trim() === '' ? {} : { attestation: attestation.trim() }),
    ...carried,
  };
}

function webhookOf(url: string, chosen: readonly WebhookStatus[]): NonNullable<RequestJson['webhook']> {
  const statuses = WEBHOOK_STATUSES.filter((one) => chosen.includes(one)).map((one) => `JOB_STATUS_${one}` as const);
  return statuses.length === 0 ? { url } : { url, statuses };
}

/** Labels as typed, and the lines that are none. An upload's name goes along as one: its id says nothing to people. */
export function labelsOf({ labels, target }: Draft): { readonly labels: Record<string, string>; readonly wrong: readonly string[] } {
  const found: Record<string, string> = {};
  const wrong: string[] = [];
  for (const line of labels.split('\n').map((one) => one.trim())) {
    if (line === '') continue;
    const [, name, value] = /^([A-Za-z0-9][A-Za-z0-9._/-]{0,62})=(.{0,256})$/.exec(line) ?? [];
    if (name === undefined) wrong.push(line);
    else found[name] = value ?? '';
  }
  if (target?.reference?.startsWith('upload://') && !isNameless(target.reference, target.name))
    found[NAME_LABEL] ??= target.name.slice(0, 256);
  return { labels: found, wrong };
}

/** Id of the element that the form begins at, when somebody was sent to it. */
export const startAt = signal<string | undefined>(undefined);

/** Puts a job's request into the form, for submitting it again with changes. */
export function draftOfJob(
  job: Job,
  { changes = {}, at }: { readonly changes?: Draft['parameters']; readonly at?: string | undefined } = {},
): void {
  if (!job.request) return;
  const next = draftOf(job.request, nameOf(job));
  for (const one of inputsOf(next)) void illustrate(one, job.jobId);
  draft.value = { ...next, parameters: { ...next.parameters, ...changes } };
  startAt.value = at;
}

function draftOf(from: JobRequest, name: string): Draft {
  const input = (reference: string, kind: MediaKind, called?: string): Input => ({
    id: crypto.randomUUID(),
    name: (reference.startsWith('upload://') ? called : undefined) ?? uploadName(reference) ?? baseName(reference),
    kind,
    reference,
    upload: undefined,
    bytes: 0,
    thumbnail: undefined,
  });
  const { processors, ...parameters } = from.parameters ?? {};
  const { [NAME_LABEL]: _, ...labels } = from.labels;
  const { target } = from;
  const runSeconds = secondsOf(from.runTimeout);
  const next: Draft = {
    sources: from.sourceImages.map((reference) => input(reference, 'image')),
    audio: from.sourceAudio === undefined ? undefined : input(from.sourceAudio, 'audio'),
    target: target.value === undefined ? undefined : input(target.value, target.case === 'targetVideo' ? 'video' : 'image', name),
    processors: Array.isArray(processors) ? processors.map(String) : undefined,
    parameters,
    outputFormat: from.outputFormat ?? '',
    priority: from.priority,
    labels: Object.entries(labels)
      .map((pair) => pair.join('='))
      .join('\n'),
    maxAttempts: from.maxAttempts,
    runMinutes: runSeconds === undefined ? undefined : runSeconds / 60,
    previews: from.previews,
    webhookUrl: from.webhook?.url ?? '',
    webhookStatuses: WEBHOOK_STATUSES.filter((name) => from.webhook?.statuses.includes(JobStatus[name])),
    attestation: '',
    carried: carriedOf(from),
  };
  return next;
}

function carriedOf(from: JobRequest): Carried {
  const json = toJson(JobRequestSchema, create(JobRequestSchema, from), { useProtoFieldName: true }) as JsonObject;
  return Object.fromEntries(CARRIED.filter((name) => json[name] !== undefined).map((name) => [name, json[name]!]));
}

/** With what this browser has kept of it; `jobId`: of a job that it was an input of. */
async function illustrate({ id, reference }: Input, jobId?: string): Promise<void> {
  const thumbnail = reference === undefined ? undefined : await thumbnailOf(reference, jobId);
  if (thumbnail !== undefined) update(id, { thumbnail });
}

effect(() => {
  const { sources, audio, target, ...rest } = draft.value;
  const bare = (one: Input | undefined) =>
    one && { id: one.id, name: one.name, kind: one.kind, reference: one.reference, bytes: one.bytes, facts: one.facts };
  sessionStorage.setItem(KEPT, JSON.stringify({ ...rest, sources: sources.map(bare), audio: bare(audio), target: bare(target) }));
});

function restored(): Draft {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? 'null') as Draft | null;
    if (!kept) return NOTHING;
    const whole = { ...NOTHING, ...kept };
    // After this module is there: pictures come into the draft that it makes.
    queueMicrotask(() => {
      for (const one of inputsOf(whole)) void illustrate(one);
    });
    return whole;
  } catch {
    return NOTHING;
  }
}
