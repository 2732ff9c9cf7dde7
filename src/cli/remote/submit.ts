// `ffjobs submit`: one job from the words of a command line. Always true here: what is wrong with the words, and what the service finds wrong without the files,
// is told before the first byte of one is sent.
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { SubmitResponseSchema } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import type { UploadResponse } from '../../../gen/facefusion/jobs/v1/upload_service_pb.js';
import type { Backoff } from '../../client/reconnects.ts';
import type { Service } from './client.ts';
import { CliError, Exit, type ExitCode, refused } from './errors.ts';
import { dialect } from './json.ts';
import { checkOutput, upload, uploadOn } from './media.ts';
import { CONNECTION_LOST, SILENT, showProgress } from './progress.ts';
import {
  cachePolicy,
  duration,
  media,
  pair,
  parameters,
  paramsObject,
  type RequestInit,
  roles,
  TO_BE_UPLOADED,
  targetField,
  targetFieldOfFile,
  toBeUploaded,
  wholeNumber,
} from './request.ts';
import { answer, answerJson, say, type Terminal } from './terminal.ts';
import { watchJob } from './watch.ts';

/** The options of `ffjobs submit` as they were written. */
export interface SubmitOptions {
  readonly json: boolean;
  readonly source?: string[];
  readonly target?: string;
  readonly audio?: string;
  readonly processor?: string[];
  readonly param?: string[];
  readonly params?: string;
  readonly format?: string;
  readonly engine?: string;
  readonly priority?: string;
  readonly label?: string[];
  readonly idempotencyKey?: string;
  readonly maxAttempts?: string;
  readonly startTimeout?: string;
  readonly runTimeout?: string;
  readonly cache?: string;
  readonly retention?: string;
  readonly preview?: string | true;
  readonly watch?: true;
  readonly output?: string;
  readonly backoff?: Backoff | undefined;
}

/** `files`: source pictures, then the target. */
export async function submit(service: Service, terminal: Terminal, files: readonly string[], options: SubmitOptions): Promise<ExitCode> {
  const words = roles(files, options.source ?? [], options.target);
  // Everything that can be wrong with the words is told before the first byte is sent.
  const [target, ...others] = await Promise.all([words.target, ...words.sources, ...(options.audio ? [options.audio] : [])].map(media));
  await checkOutput(options.output);
  const base = await paramsBase(options.params);
  const request: RequestInit = {
    outputFormat: options.format ?? (options.output === undefined ? undefined : formatOf(options.output)),
    engine: options.engine,
    priority: wholeNumber(options.priority, '--priority'),
    labels: Object.fromEntries((options.label ?? []).map((label) => pair(label, '--label'))),
    idempotencyKey: options.idempotencyKey,
    maxAttempts: wholeNumber(options.maxAttempts, '--max-attempts'),
    startTimeout: duration(options.startTimeout, '--start-timeout'),
    runTimeout: duration(options.runTimeout, '--run-timeout'),
    retention: duration(options.retention, '--retention'),
    cache: cachePolicy(options.cache),
    previews: options.preview !== undefined,
  };
  const { processor: processors = [], param: params = [] } = options;
  const capabilities = params.length > 0 ? await service.system.getCapabilities({}) : undefined;
  request.parameters = parameters({ processors, params, base }, capabilities);

  await validate(service, request, target!, others, options.audio !== undefined);

  const sent = new Map<string, Promise<UploadResponse>>();
  using progress = options.json ? SILENT : showProgress(terminal);
  const giving = new AbortController();
  const undo = terminal.onInterrupt(() => giving.abort());
  const onLost = () => progress.note(CONNECTION_LOST);
  const given = async (one: Awaited<ReturnType<typeof media>>) => {
    if (one.kind === 'reference') return { reference: one.reference, mediaType: undefined };
    const known =
      sent.get(one.path) ??
      upload(service, one.path, { onProgress: uploadOn(progress.line(one.path)), onLost, signal: giving.signal, backoff: options.backoff });
    sent.set(one.path, known);
    const { uri, mediaType } = await known;
    return { reference: uri, mediaType };
  };
  try {
    const references: string[] = [];
    for (const one of others) references.push((await given(one)).reference);
    if (options.audio !== undefined) request.sourceAudio = references.pop();
    request.sourceImages = references;
    const { reference, mediaType } = await given(target!);
    request.target = { case: targetField(reference, mediaType), value: reference };
  } catch (error) {
    if (giving.signal.aborted) throw new CliError(Exit.interrupted, 'interrupted; nothing was submitted', { cause: error });
    throw error;
  } finally {
    undo();
    progress[Symbol.dispose]();
  }

  const submitted = await service.jobs.submit({ job: request });
  const job = submitted.job!;
  if (options.json) answerJson(terminal, dialect(SubmitResponseSchema, submitted));
  else {
    answer(terminal, job.jobId);
    if (!submitted.created) say(terminal, 'The idempotency key was known: this is the job that it made.');
  }
  if (options.watch === undefined && options.output === undefined) {
    if (!options.json) for (const warning of job.warnings) say(terminal, `warning: ${warning}`);
    return Exit.ok;
  }
  return watchJob(service, terminal, job.jobId, {
    json: options.json,
    output: options.output,
    preview: options.preview === true ? undefined : options.preview,
    backoff: options.backoff,
  });
}

type GivenMedia = Awaited<ReturnType<typeof media>>;

/**
 * Has the service look at everything but the files, before the first byte of one is sent. A target whose name does not tell whether it is a picture or
 * a video is left to submit.
 */
async function validate(service: Service, request: RequestInit, target: GivenMedia, others: readonly GivenMedia[], hasAudio: boolean) {
  const all = [target, ...others];
  if (all.every(({ kind }) => kind === 'reference')) return;
  const field = target.kind === 'reference' ? targetField(target.reference, undefined) : targetFieldOfFile(target.path);
  if (field === undefined) return;
  const references = others.map((one) => (one.kind === 'reference' ? one.reference : TO_BE_UPLOADED));
  const sourceAudio = hasAudio ? references.pop() : undefined;
  const value = target.kind === 'reference' ? target.reference : TO_BE_UPLOADED;
  const job = { ...request, sourceImages: references, sourceAudio, target: { case: field, value } };
  const { violations } = await service.jobs.validate({ job });
  const wrong = violations.filter((one) => !toBeUploaded(one));
  if (wrong.length === 0) return;
  throw refused('the request was not taken; nothing was uploaded', wrong);
}

async function paramsBase(word: string | undefined) {
  if (word === undefined) return {};
  if (!word.startsWith('@')) return paramsObject(word, '--params');
  const text = await readFile(word.slice(1), 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new CliError(Exit.invalid, `'${word.slice(1)}' cannot be read (${error.code})`);
  });
  return paramsObject(text, `'${word.slice(1)}'`);
}

function formatOf(path: string): string | undefined {
  return extname(path).slice(1).toLowerCase() || undefined;
}
