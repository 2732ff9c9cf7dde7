// Jobs and the service itself as a person reads them: in rows, in facts, in a list of options.
import { toJson } from '@bufbuild/protobuf';
import { timestampDate, ValueSchema } from '@bufbuild/protobuf/wkt';
import { type Job, JobSchema, JobStatus, JobStatusSchema, JobStepSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { type GetCapabilitiesResponse, OptionTypeSchema } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { isTerminal } from '../../client/watch.ts';
import type { Service } from './client.ts';
import { Exit, type ExitCode, exitOfStatus } from './errors.ts';
import { dialect, enumName, timeInRow } from './json.ts';
import { size } from './progress.ts';
import { limitOf } from './request.ts';
import { answer, answerJson, say, type Terminal } from './terminal.ts';

export const STATUS_NAMES = JobStatusSchema.values
  .filter(({ number }) => number !== 0)
  .map(({ number }) => enumName(JobStatusSchema, number));
export const statusName = (status: JobStatus) => enumName(JobStatusSchema, status);

/** Newest first. `limit`: a word of the command line. */
export async function listJobs(
  service: Service,
  terminal: Terminal,
  json: boolean,
  options: { readonly status?: string[]; readonly label?: string[]; readonly limit: string },
): Promise<ExitCode> {
  const status = options.status?.map(
    (name) => JobStatusSchema.values.find(({ number }) => statusName(number) === name)!.number as JobStatus,
  );
  let left = limitOf(options.limit);
  let pageToken = '';
  let none = true;
  do {
    const page = await service.jobs.list({ status, label: options.label, pageSize: Math.min(left, 1000), pageToken });
    for (const job of page.jobs.slice(0, left)) {
      if (json) answerJson(terminal, dialect(JobSchema, job));
      else {
        if (none) answer(terminal, row('JOB', 'STATUS', '%', 'CREATED', 'STEP'));
        answer(terminal, row(job.jobId, statusName(job.status), String(job.progress), timeInRow(job.createdAt), stepName(job)));
      }
      none = false;
    }
    left -= page.jobs.length;
    pageToken = page.nextPageToken;
  } while (pageToken !== '' && left > 0);
  if (none && !json) say(terminal, 'No jobs.');
  return Exit.ok;
}

/** What a job is at; what went wrong with one that has ended without a result. One that is tried again has an error too, and goes on. */
function stepName(job: Job): string {
  if (isTerminal(job.status) && job.status !== JobStatus.SUCCEEDED) return job.error?.reason ?? '';
  return enumName(JobStepSchema, job.step).replaceAll('_', ' ');
}

function row(id: string, status: string, percent: string, created: string, step: string): string {
  return `${id.padEnd(25)}  ${status.padEnd(10)}  ${percent.padStart(3)}  ${created.padEnd(19)}  ${step}`.trimEnd();
}

export function showJob(terminal: Terminal, job: Job | undefined, json: boolean): ExitCode {
  if (job === undefined) return Exit.failed;
  if (json) {
    answerJson(terminal, dialect(JobSchema, job));
    return exitOfStatus(job.status);
  }
  const time = (at: Job['createdAt']) => (at === undefined ? undefined : timestampDate(at).toISOString());
  const { result, engine } = job;
  const facts: [string, string | undefined][] = [
    ['job', job.jobId],
    ['status', statusName(job.status)],
    ['progress', [`${job.progress}%`, isTerminal(job.status) ? '' : stepName(job)].filter((word) => word !== '').join(', ')],
    ['before it', job.queuePosition === undefined ? undefined : `${job.queuePosition} jobs`],
    ['attempt', job.attempt > 0 ? String(job.attempt) : undefined],
    ['engine', engine && `${engine.name} ${engine.version}`.trim()],
    ['created', time(job.createdAt)],
    ['started', time(job.startedAt)],
    ['finished', time(job.finishedAt)],
    ['expected', time(job.estimatedFinishTime)],
    ['purged', time(job.purgedAt)],
    ['error', job.error && `${job.error.reason}: ${job.error.message}`],
    ['result', result && `${result.mediaType}, ${result.width}x${result.height}, ${size(Number(result.bytes))}`],
    ['url', job.resultUrl],
    ...Object.entries(job.request?.labels ?? {}).map(([key, value]): [string, string] => ['label', `${key}=${value}`]),
    ...job.warnings.map((warning): [string, string] => ['warning', warning]),
  ];
  for (const [name, value] of facts) if (value !== undefined) answer(terminal, `${name.padEnd(10)} ${value}`);
  return exitOfStatus(job.status);
}

export function showCapabilities(terminal: Terminal, capabilities: GetCapabilitiesResponse): void {
  const { engine } = capabilities;
  answer(terminal, `engine      ${engine?.name ?? 'none'} ${engine?.version ?? ''}`.trimEnd());
  answer(terminal, `service     facefusion-jobs ${capabilities.serviceVersion}`);
  answer(terminal, `pictures    ${capabilities.imageFormats.join(', ')}`);
  answer(terminal, `videos      ${capabilities.videoFormats.join(', ')}`);
  answer(terminal, `references  ${capabilities.referenceSchemes.join(', ')}`);
  answer(terminal, '\nprocessors');
  for (const { name, description } of capabilities.processors) answer(terminal, `  ${name.padEnd(18)} ${description}`);
  answer(terminal, '\noptions (--param NAME=VALUE)');
  for (const option of capabilities.options) {
    const type = `${option.list ? 'list of ' : ''}${enumName(OptionTypeSchema, option.type)}`;
    const range =
      option.choices.length > 0
        ? `: ${option.choices.join(', ')}`
        : option.minimum !== undefined || option.maximum !== undefined
          ? `: ${option.minimum ?? ''}..${option.maximum ?? ''}`
          : '';
    const fallback = option.default === undefined ? undefined : toJson(ValueSchema, option.default);
    const said = fallback === undefined || fallback === null ? '' : `; default ${Array.isArray(fallback) ? fallback.join(', ') : fallback}`;
    answer(terminal, `  ${option.name} (${type}${range}${said})${option.help ? `\n      ${option.help}` : ''}`);
  }
  const aliases = capabilities.aliases.filter(({ options }) => options.length > 0);
  if (aliases.length > 0) answer(terminal, '\nother names');
  for (const { name, options } of aliases) answer(terminal, `  ${name.padEnd(18)} ${options.join(', ')}`);
}
