// `ffjobs batch`: a file of jobs in one call, all or none, and a batch on this terminal until it has finished.
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { clone, create } from '@bufbuild/protobuf';
import { ConnectError } from '@connectrpc/connect';
import { JobRequestSchema, JobStatus, JobStatusSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import {
  type Batch,
  type BatchResult,
  BatchSchema,
  GetBatchResultsResponseSchema,
  SubmitBatchRequestSchema,
  SubmitBatchResponseSchema,
  WatchBatchResponseSchema,
} from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import type { UploadResponse } from '../../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { BadRequestSchema, ErrorInfoSchema } from '../../../gen/google/rpc/error_details_pb.js';
import type { Backoff } from '../../client/reconnects.ts';
import type { Service } from './client.ts';
import { CliError, Exit, type ExitCode, exitOfStatus, refused } from './errors.ts';
import { assertLeft, interruptible } from './interrupt.ts';
import { type FileLine, readJobsFile } from './jobs-file.ts';
import { dialect, enumName } from './json.ts';
import { upload } from './media.ts';
import { CONNECTION_LOST, type Progress, SILENT, showProgress, size } from './progress.ts';
import { TO_BE_UPLOADED, toBeUploaded } from './request.ts';
import { answer, answerJson, say, type Terminal } from './terminal.ts';

export interface BatchOptions {
  readonly json: boolean;
  readonly idempotencyKey: string | undefined;
  readonly stopOnFailure: boolean;
  readonly watch: boolean;
  readonly backoff?: Backoff | undefined;
}

/** Files that are on their way at once, and requests that are looked at. */
const AT_ONCE = 4;

export async function submitBatch(service: Service, terminal: Terminal, path: string, options: BatchOptions): Promise<ExitCode> {
  const lines = await readJobsFile(path);
  const files = await sizesOf(lines);
  const leaving = new AbortController();
  const undo = terminal.onInterrupt(() => leaving.abort());
  let progress = SILENT;
  try {
    if (files.size > 0) {
      await validate(service, lines, leaving.signal);
      if (!options.json) progress = showProgress(terminal);
    }
    await give(service, lines, files, progress, { title: basename(path), signal: leaving.signal, backoff: options.backoff });
  } catch (error) {
    if (leaving.signal.aborted) throw new CliError(Exit.interrupted, 'interrupted; nothing was submitted', { cause: error });
    throw error;
  } finally {
    undo();
    progress[Symbol.dispose]();
  }

  const request = create(SubmitBatchRequestSchema, {
    jobs: lines.map(({ ref, job }) => ({ ref, job })),
    // One call is one batch, however often it is sent.
    idempotencyKey: options.idempotencyKey ?? crypto.randomUUID(),
    stopOnFailure: options.stopOnFailure,
  });
  const submitted = await service.jobs.submitBatch(request).catch((error: unknown) => {
    throw files.size > 0 && isKeyReused(error) ? uploadedAnew(error) : inLines(error, lines);
  });
  const { batchId } = submitted.batch!;
  if (options.json) answerJson(terminal, dialect(SubmitBatchResponseSchema, submitted));
  else {
    answer(terminal, batchId);
    if (!submitted.created) say(terminal, 'The idempotency key was known: this is the batch that it made.');
  }
  return options.watch ? await watchBatch(service, terminal, batchId, options) : Exit.ok;
}

/** Until it has finished; then what became of each job. */
export async function watchBatch(
  service: Service,
  terminal: Terminal,
  batchId: string,
  { json, backoff }: Pick<BatchOptions, 'json' | 'backoff'>,
): Promise<ExitCode> {
  let progress: Progress = json ? SILENT : showProgress(terminal);
  let line = progress.line(batchId);
  let batch: Batch | undefined;
  const show = () => {
    if (batch) line.update(batch.progress, words(batch), String(ended(batch)));
  };
  const draw = (fresh: Progress) => {
    progress[Symbol.dispose]();
    progress = fresh;
    line = progress.line(batchId);
  };
  using leaving = interruptible(terminal, {
    what: () => (batch ? `the ${batch.jobs - ended(batch)} jobs of ${batchId} that have not ended` : batchId),
    hide: () => draw(SILENT),
    show() {
      if (json) return;
      draw(showProgress(terminal));
      show();
    },
    cancel: (signal) => service.jobs.cancelBatch({ batchId }, { signal }),
  });
  try {
    const onLost = () => progress.note(CONNECTION_LOST);
    for await (const change of service.watchBatch(batchId, { signal: leaving.signal, backoff, onLost })) {
      if (json) answerJson(terminal, dialect(WatchBatchResponseSchema, change));
      batch = change.batch ?? batch;
      show();
    }
    const results = await service.jobs.getBatchResults({ batchId }, { signal: leaving.signal });
    progress[Symbol.dispose]();
    if (json) answerJson(terminal, dialect(GetBatchResultsResponseSchema, results));
    else {
      for (const result of results.results) answer(terminal, rowOf(result));
      say(terminal, `${batchId} has finished: ${words(results.batch!)}`);
    }
    return exitOf(results.batch!);
  } catch (error) {
    assertLeft(error, leaving.signal);
    say(terminal, `${batchId} goes on without you; \`ffjobs watch ${batchId}\` comes back to it, \`ffjobs cancel ${batchId}\` stops it.`);
    return Exit.interrupted;
  } finally {
    progress[Symbol.dispose]();
  }
}

export const isBatchId = (id: string): boolean => id.startsWith('batch_');

export async function showBatch(service: Service, terminal: Terminal, batchId: string, json: boolean): Promise<ExitCode> {
  const { batch } = await service.jobs.getBatch({ batchId });
  tell(terminal, batch!, json);
  return batch!.finishedAt ? exitOf(batch!) : Exit.ok;
}

export async function cancelBatch(service: Service, terminal: Terminal, batchId: string, json: boolean): Promise<ExitCode> {
  const { batch } = await service.jobs.cancelBatch({ batchId });
  tell(terminal, batch!, json);
  return Exit.ok;
}

function tell(terminal: Terminal, batch: Batch, json: boolean): void {
  if (json) answerJson(terminal, dialect(BatchSchema, batch));
  else answer(terminal, `${batch.batchId}  ${batch.progress}%  ${words(batch)}`);
}

/** The worst that became of a job of it. */
function exitOf({ failed, refused, canceled }: Batch): ExitCode {
  if (failed > 0) return exitOfStatus(JobStatus.FAILED);
  if (refused > 0) return exitOfStatus(JobStatus.REFUSED);
  return canceled > 0 ? exitOfStatus(JobStatus.CANCELED) : Exit.ok;
}

function ended({ succeeded, failed, canceled, refused }: Batch): number {
  return succeeded + failed + canceled + refused;
}

/** `12 of 40 jobs, 2 running, 1 failed` */
function words(batch: Batch): string {
  const { jobs, processing, failed, canceled, refused } = batch;
  const parts = [`${ended(batch)} of ${jobs} jobs`];
  for (const [many, word] of [
    [processing, 'running'],
    [failed, 'failed'],
    [canceled, 'canceled'],
    [refused, 'refused'],
  ] as const) {
    if (many > 0) parts.push(`${many} ${word}`);
  }
  return parts.join(', ');
}

function rowOf({ ref, jobId, status, resultUrl, error }: BatchResult): string {
  const name = ref === '' ? jobId : `${jobId}  ${ref}`;
  const what = resultUrl ?? (error ? `${error.reason}: ${error.message}` : '');
  return `${name}  ${status === JobStatus.UNSPECIFIED ? 'forgotten' : enumName(JobStatusSchema, status)}  ${what}`.trimEnd();
}

/** Of each file that is named, once. */
async function sizesOf(lines: readonly FileLine[]): Promise<ReadonlyMap<string, number>> {
  const sizes = new Map<string, number>();
  for (const { given } of lines.flatMap(({ media }) => media)) {
    if (given.kind === 'file' && !sizes.has(given.path)) sizes.set(given.path, (await stat(given.path)).size);
  }
  return sizes;
}

/** Has the service look at each request that needs a file, before the first byte of one is sent. */
async function validate(service: Service, lines: readonly FileLine[], signal: AbortSignal): Promise<void> {
  const siblings = new Set(lines.map(({ ref }) => `job://${ref}`));
  const found: { field: string; description: string; reason: string }[] = [];
  await eachOf(lines, async ({ number, job, media }) => {
    const asked = clone(JobRequestSchema, job);
    // Not theirs to be found yet: results of siblings, which stand for any reference that is there.
    const standing = media.map(({ given }) => (given.kind === 'file' || siblings.has(given.reference) ? TO_BE_UPLOADED : given.reference));
    asked.sourceImages = standing.splice(0, job.sourceImages.length);
    if (job.sourceAudio !== undefined) asked.sourceAudio = standing.shift()!;
    if (asked.target.case !== undefined) asked.target.value = standing.shift()!;
    const { violations } = await service.jobs.validate({ job: asked }, { signal });
    for (const one of violations) if (!toBeUploaded(one)) found.push({ ...one, field: `line ${number}, ${one.field}` });
  });
  if (found.length === 0) return;
  const byLine = found.sort((a, b) => Number.parseInt(a.field.slice(5), 10) - Number.parseInt(b.field.slice(5), 10));
  throw refused('the file was not taken; nothing was uploaded', byLine);
}

/** Uploads each file once, and puts what came of it into the requests. */
async function give(
  service: Service,
  lines: readonly FileLine[],
  sizes: ReadonlyMap<string, number>,
  progress: Progress,
  { title, signal, backoff }: { readonly title: string; readonly signal: AbortSignal; readonly backoff: Backoff | undefined },
): Promise<void> {
  const line = progress.line(title);
  const onLost = () => progress.note(CONNECTION_LOST);
  const total = [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
  const sent = new Map<string, number>();
  const answers = new Map<string, UploadResponse>();
  const tell = () => {
    const done = [...sent.values()].reduce((sum, bytes) => sum + bytes, 0);
    line.update(
      total === 0 ? 100 : (100 * done) / total,
      `${answers.size} of ${sizes.size} files, ${size(done)} of ${size(total)} sent`,
      `upload ${answers.size}`,
    );
  };
  await eachOf([...sizes.keys()], async (path) => {
    const onProgress = (bytes: number) => {
      sent.set(path, bytes);
      tell();
    };
    answers.set(path, await upload(service, path, { onProgress, onLost, signal, backoff }));
    tell();
  });
  for (const { given, put } of lines.flatMap(({ media }) => media))
    put(given.kind === 'file' ? answers.get(given.path)!.uri : given.reference);
}

/** A few at a time; the first error ends the rest. */
async function eachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  let failed = false;
  const one = async () => {
    for (const item of left) {
      if (failed) return;
      await work(item).catch((error: unknown) => {
        failed = true;
        throw error;
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

/** The service names jobs by their place; a person has lines. */
function inLines(error: unknown, lines: readonly FileLine[]): unknown {
  if (!(error instanceof ConnectError)) return error;
  const violations = error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  if (violations.length === 0) return error;
  const named = violations.map(({ field, description, reason }) => {
    const [, index, rest] = /^jobs\[(\d+)\]\.(?:job\.?)?(.*)$/.exec(field) ?? [];
    const line = index === undefined ? undefined : lines[Number(index)];
    return { field: line ? `line ${line.number}${rest ? `, ${rest}` : ''}` : field, description, reason };
  });
  return refused(error.rawMessage, named);
}

function isKeyReused(error: unknown): error is ConnectError {
  return error instanceof ConnectError && error.findDetails(ErrorInfoSchema)[0]?.reason === 'IDEMPOTENCY_KEY_REUSED';
}

/** An upload has an id of its own each time, so that a request with files is another one each time. */
function uploadedAnew(error: ConnectError): CliError {
  const [info] = error.findDetails(ErrorInfoSchema);
  // A job's, where the key was used for one.
  const known = info?.metadata.batch_id ?? info?.metadata.job_id ?? 'what it made';
  const words = `this file names files, which were uploaded anew: under a key that was used that is another request. \`ffjobs watch ${known}\` comes back to what the key has made`;
  return new CliError(Exit.invalid, `${error.rawMessage}; ${words}`, { cause: error });
}
