// The commands that talk to a service, here or far away. They know the contract in `gen` and nothing else of this repository.
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { toJson } from '@bufbuild/protobuf';
import { timestampDate, ValueSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { type Command, Option } from 'commander';
import { type Job, JobSchema, JobStatus, JobStatusSchema, JobStepSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { SubmitResponseSchema } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import {
  type GetCapabilitiesResponse,
  GetCapabilitiesResponseSchema,
  OptionTypeSchema,
} from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { UploadResponse } from '../../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { BadRequestSchema } from '../../../gen/google/rpc/error_details_pb.js';
import type { Backoff } from '../../client/reconnects.ts';
import { isTerminal } from '../../client/watch.ts';
import { cancelBatch, isBatchId, showBatch, submitBatch, watchBatch } from './batch.ts';
import { connect, type Service } from './client.ts';
import { CliError, Exit, type ExitCode, exitOfStatus } from './errors.ts';
import { dialect, enumName } from './json.ts';
import { checkOutput, upload, uploadOn } from './media.ts';
import { SILENT, showProgress, size } from './progress.ts';
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
import { addWebhookCommands } from './webhooks.ts';

export interface RemoteContext {
  readonly terminal: Terminal;
  /** The exit code of the command that ran. */
  finish(exit: ExitCode): void;
  /** Who the caller is, for a service that asks. */
  readonly token: string | undefined;
  /** For tests: how a lost connection is tried again. */
  readonly backoff?: Backoff;
}

interface Common {
  readonly server: string;
  readonly json: boolean;
}

interface SubmitOptions extends Common {
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
}

/** No default of its own: the help would print it. */
const many = (value: string, before: string[] = []): string[] => [...before, value];

export function addRemoteCommands(program: Command, context: RemoteContext): void {
  const { terminal } = context;
  /** Runs `body` with the service that the options name, and hands on its exit code. */
  const against = async (command: Command, body: (service: Service, options: Common) => Promise<ExitCode>): Promise<void> => {
    const options = command.optsWithGlobals<Common>();
    using service = connect(options.server, {
      token: context.token,
      onWait: (message) => options.json || say(terminal, `${message}; waiting for it`),
    });
    context.finish(await body(service, options));
  };

  program
    .command('submit')
    .summary('submit a job')
    .description(
      'Submits a job. The last FILE is what is worked on, those before it are pictures of the face to put in. Files are uploaded; ' +
        'references such as https://..., s3://..., upload://... and job://... are handed on, and server:PATH is a path under the service’s input root.',
    )
    .argument('[files...]', 'source pictures, then the target')
    .option('--source <file>', 'a source picture (repeatable)', many)
    .option('--target <file>', 'picture or video to work on; every FILE is then a source')
    .option('--audio <file>', 'sound that drives the lips')
    .option('-p, --processor <name>', 'a processor, in order (repeatable); default: the service’s', many)
    .option('--param <key=value>', 'an option of the engine (repeatable); see `ffjobs capabilities`', many)
    .option('--params <json>', 'options as a JSON object, or @FILE with one')
    .option('--format <extension>', 'format of the result; default: as --output says, else as the target')
    .option('--engine <name>', 'engine to run on')
    .option('--priority <-10..10>', 'a head start of a minute a step in your own queue')
    .option('--label <key=value>', 'kept with the job, for `ffjobs list --label` (repeatable)', many)
    .option('--idempotency-key <key>', 'the same key and request give the same job')
    .option('--max-attempts <n>', 'attempts in all')
    .option('--start-timeout <duration>', 'longest wait until the engine runs, such as 10m')
    .option('--run-timeout <duration>', 'longest engine time of an attempt, such as 2h')
    .option('--retention <duration>', 'how long the result is kept, such as 7d')
    .addOption(new Option('--cache <policy>', 'use of the result cache').choices(['use', 'refresh', 'off']))
    .option('--preview [file]', 'ask for previews; the latest is kept in FILE while watching')
    .option('-w, --watch', 'stay until the job ends')
    .option('-o, --output <file>', 'stay, then download the result to FILE')
    .action((files: string[], _options: unknown, command: Command) =>
      against(command, (service) => submit(service, context, files, command.optsWithGlobals<SubmitOptions>())),
    );

  program
    .command('batch')
    .summary('submit a file of jobs, all or none')
    .description(
      'Submits up to 1,000 jobs in one call, all or none. FILE has a request in JSON on each line, as POST /api/v1/jobs takes it, or ' +
        '{"ref": "a", "job": {...}} for others to take its result as job://a. Media are named as for `ffjobs submit`: files are uploaded, each once, ' +
        'references are handed on, and server:PATH is a path under the service’s input root.',
    )
    .argument('<file>', 'requests, one a line')
    .option('--idempotency-key <key>', 'the same key and requests give the same batch; an upload is another request each time')
    .option('--stop-on-failure', 'cancel the rest when one has failed', false)
    .option('-w, --watch', 'stay until the last job has ended, then list what became of each', false)
    .action((file: string, _options: unknown, command: Command) =>
      against(command, (service, { json }) => {
        const options = command.opts<{ idempotencyKey?: string; stopOnFailure: boolean; watch: boolean }>();
        const { idempotencyKey, stopOnFailure } = options;
        return submitBatch(service, terminal, file, {
          json,
          idempotencyKey,
          stopOnFailure,
          watch: options.watch,
          backoff: context.backoff,
        });
      }),
    );

  program
    .command('watch')
    .description('watch a job or a batch until it ends; over lost connections too')
    .argument('<job>', 'or a batch')
    .option('--after <sequence>', 'replay the events after this one instead of a snapshot')
    .option('--preview <file>', 'keep the latest preview in FILE')
    .option('-o, --output <file>', 'then download the result to FILE')
    .action((jobId: string, _options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const { after, preview, output } = command.opts<{ after?: string; preview?: string; output?: string }>();
        if (isBatchId(jobId)) {
          if (preview !== undefined || output !== undefined || after !== undefined)
            throw new CliError(Exit.invalid, `--after, --preview and --output are of one job, and ${jobId} is a batch`);
          return watchBatch(service, terminal, jobId, { json, backoff: context.backoff });
        }
        await checkOutput(output);
        return watchJob(service, terminal, jobId, {
          json,
          output,
          preview,
          after: wholeNumber(after, '--after'),
          backoff: context.backoff,
        });
      }),
    );

  program
    .command('get')
    .description('show a job or a batch; the exit code tells how it ended')
    .argument('<job>', 'or a batch')
    .action((jobId: string, _options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        if (isBatchId(jobId)) return showBatch(service, terminal, jobId, json);
        const { job } = await service.jobs.get({ jobId });
        return showJob(terminal, job, json);
      }),
    );

  program
    .command('list')
    .description('list jobs, newest first')
    .addOption(new Option('--status <status...>', 'only these').choices(STATUS_NAMES))
    .option('--label <key=value>', 'only with this label, or with KEY alone any value (repeatable)', many)
    .option('--limit <n>', 'how many', '20')
    .action((_options: unknown, command: Command) =>
      against(command, (service, { json }) =>
        list(service, terminal, json, command.opts<{ status?: string[]; label?: string[]; limit: string }>()),
      ),
    );

  program
    .command('cancel')
    .description('stop a job wherever it is, or all of a batch; what has ended stays as it is')
    .argument('<job>', 'or a batch')
    .action((jobId: string, _options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        if (isBatchId(jobId)) return cancelBatch(service, terminal, jobId, json);
        const { job } = await service.jobs.cancel({ jobId });
        if (json) answerJson(terminal, dialect(JobSchema, job!));
        else answer(terminal, `${jobId} ${job!.status === JobStatus.PROCESSING ? 'is being stopped' : `is ${statusName(job!.status)}`}`);
        return Exit.ok;
      }),
    );

  program
    .command('purge')
    .description('delete a finished job’s inputs and result now')
    .argument('<job>')
    .action((jobId: string, _options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const { job } = await service.jobs.purge({ jobId });
        if (json) answerJson(terminal, dialect(JobSchema, job!));
        else answer(terminal, `${jobId} is purged`);
        return Exit.ok;
      }),
    );

  addWebhookCommands(program, terminal, against);

  program
    .command('capabilities')
    .description('what the service can do: engine, processors, every option')
    .action((_options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const capabilities = await service.system.getCapabilities({});
        if (json) answerJson(terminal, dialect(GetCapabilitiesResponseSchema, capabilities));
        else showCapabilities(terminal, capabilities);
        return Exit.ok;
      }),
    );
}

async function submit(service: Service, context: RemoteContext, files: string[], options: SubmitOptions): Promise<ExitCode> {
  const { terminal } = context;
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
  const onLost = () => progress.note('The connection was lost; trying again ...');
  const given = async (one: Awaited<ReturnType<typeof media>>) => {
    if (one.kind === 'reference') return { reference: one.reference, mediaType: undefined };
    const known =
      sent.get(one.path) ??
      upload(service, one.path, { onProgress: uploadOn(progress.line(one.path)), onLost, signal: giving.signal, backoff: context.backoff });
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
    backoff: context.backoff,
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
  const fieldViolations = wrong.map(({ field: path, description, reason }) => ({ field: path, description, reason }));
  throw new ConnectError('the request was not taken; nothing was uploaded', Code.InvalidArgument, undefined, [
    { desc: BadRequestSchema, value: { fieldViolations } },
  ]);
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

const STATUS_NAMES = JobStatusSchema.values.filter(({ number }) => number !== 0).map(({ number }) => enumName(JobStatusSchema, number));
const statusName = (status: JobStatus) => enumName(JobStatusSchema, status);

async function list(
  service: Service,
  terminal: Terminal,
  json: boolean,
  options: { readonly status?: string[]; readonly label?: string[]; readonly limit: string },
): Promise<ExitCode> {
  const status = options.status?.map(
    (name) => JobStatusSchema.values.find(({ number }) => statusName(number) === name)!.number as JobStatus,
  );
  let left = wholeNumber(options.limit, '--limit') ?? 0;
  if (left < 1) throw new CliError(Exit.invalid, `--limit is '${options.limit}'; it takes a whole number from 1`);
  let pageToken = '';
  let none = true;
  do {
    const page = await service.jobs.list({ status, label: options.label, pageSize: Math.min(left, 1000), pageToken });
    for (const job of page.jobs.slice(0, left)) {
      if (json) answerJson(terminal, dialect(JobSchema, job));
      else {
        if (none) answer(terminal, row('JOB', 'STATUS', '%', 'CREATED', 'STEP'));
        const created = job.createdAt ? timestampDate(job.createdAt).toISOString().slice(0, 19).replace('T', ' ') : '';
        answer(terminal, row(job.jobId, statusName(job.status), String(job.progress), created, stepName(job)));
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

function showJob(terminal: Terminal, job: Job | undefined, json: boolean): ExitCode {
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

function showCapabilities(terminal: Terminal, capabilities: GetCapabilitiesResponse): void {
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
