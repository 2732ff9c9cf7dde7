// The commands that talk to a service, here or far away. They know the contract in `gen` and nothing else of this repository.
import { type Command, Option } from 'commander';
import { JobSchema, JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { GetCapabilitiesResponseSchema } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Backoff } from '../../client/reconnects.ts';
import { cancelBatch, isBatchId, showBatch, submitBatch, watchBatch } from './batch.ts';
import { connect, type Service } from './client.ts';
import { CliError, Exit, type ExitCode } from './errors.ts';
import { dialect } from './json.ts';
import { checkOutput } from './media.ts';
import { many, wholeNumber } from './request.ts';
import { listJobs, STATUS_NAMES, showCapabilities, showJob, statusName } from './show.ts';
import { addSlotCommands } from './slots.ts';
import { type SubmitOptions, submit } from './submit.ts';
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
      against(command, (service) =>
        submit(service, terminal, files, { ...command.optsWithGlobals<SubmitOptions>(), backoff: context.backoff }),
      ),
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
        listJobs(service, terminal, json, command.opts<{ status?: string[]; label?: string[]; limit: string }>()),
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
  addSlotCommands(program, terminal, against);

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
