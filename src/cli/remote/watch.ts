// Watches one job to its end on this terminal.
import { rename, writeFile } from 'node:fs/promises';
import { JobEventSchema } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import { type Job, JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import type { Backoff } from '../../client/reconnects.ts';
import type { Service } from './client.ts';
import { Exit, type ExitCode, exitOfStatus } from './errors.ts';
import { assertLeft, interruptible } from './interrupt.ts';
import { dialect } from './json.ts';
import { download } from './media.ts';
import { CONNECTION_LOST, NOTHING_YET, type Progress, SILENT, showProgress, showView, size, type View, withEvent } from './progress.ts';
import { answer, answerJson, say, type Terminal } from './terminal.ts';

export interface WatchOptions {
  readonly json: boolean;
  /** Where to put the result. */
  readonly output?: string;
  /** Where to keep the latest preview. */
  readonly preview?: string;
  readonly after?: number;
  readonly backoff?: Backoff;
}

export async function watchJob(service: Service, terminal: Terminal, jobId: string, options: WatchOptions): Promise<ExitCode> {
  let progress = options.json ? SILENT : showProgress(terminal);
  let line = progress.line(jobId);
  let view: View = NOTHING_YET;

  const draw = (fresh: Progress) => {
    progress[Symbol.dispose]();
    progress = fresh;
    line = progress.line(jobId);
  };
  using leaving = interruptible(terminal, {
    what: () => jobId,
    hide: () => draw(SILENT),
    show() {
      if (options.json) return;
      draw(showProgress(terminal));
      showView(line, view);
    },
    cancel: (signal) => service.jobs.cancel({ jobId }, { signal }),
  });

  try {
    const events = service.watch(jobId, {
      after: options.after,
      signal: leaving.signal,
      backoff: options.backoff,
      onLost: () => progress.note(CONNECTION_LOST),
    });
    for await (const event of events) {
      if (options.json) answerJson(terminal, dialect(JobEventSchema, event));
      view = withEvent(view, event);
      if (event.event.case === 'log') progress.note(event.event.value.message);
      else if (event.event.case === 'preview') await keepPreview(options.preview, event.event.value.jpeg);
      else showView(line, view);
    }
    const { job } = await service.jobs.get({ jobId }, { signal: leaving.signal });
    if (job === undefined) return Exit.failed;
    let saved: string | undefined;
    if (job.status === JobStatus.SUCCEEDED && options.output !== undefined) {
      const bytes = await download(service, jobId, options.output, progress.line(options.output), leaving.signal);
      saved = options.output;
      if (options.json) answerJson(terminal, { saved: { path: saved, bytes: String(bytes) } });
    }
    progress[Symbol.dispose]();
    if (!options.json) tellEnd(terminal, job, saved);
    return exitOfStatus(job.status);
  } catch (error) {
    assertLeft(error, leaving.signal);
    progress[Symbol.dispose]();
    say(terminal, `${jobId} goes on without you; \`ffjobs watch ${jobId}\` comes back to it, \`ffjobs cancel ${jobId}\` stops it.`);
    return Exit.interrupted;
  } finally {
    progress[Symbol.dispose]();
  }
}

async function keepPreview(path: string | undefined, jpeg: Uint8Array): Promise<void> {
  if (path === undefined) return;
  await writeFile(`${path}.part`, jpeg);
  await rename(`${path}.part`, path);
}

function tellEnd(terminal: Terminal, job: Job, saved: string | undefined): void {
  for (const warning of job.warnings) say(terminal, `warning: ${warning}`);
  const { jobId, result, error } = job;
  switch (job.status) {
    case JobStatus.SUCCEEDED: {
      const facts = result === undefined ? '' : `: ${result.mediaType}, ${result.width}x${result.height}, ${size(Number(result.bytes))}`;
      say(terminal, `${jobId} succeeded${facts}${job.cached ? ', from the cache' : ''}`);
      if (saved !== undefined) answer(terminal, saved);
      else if (job.resultUrl !== undefined) answer(terminal, job.resultUrl);
      return;
    }
    case JobStatus.CANCELED:
      say(terminal, `${jobId} was canceled`);
      return;
    case JobStatus.REFUSED:
      say(terminal, `${jobId} was refused by the content analyser: ${error?.message ?? 'no reason given'}`);
      return;
    default:
      say(terminal, `${jobId} failed: ${error?.message ?? job.errorMessage ?? 'no reason given'} (${error?.reason ?? 'UNKNOWN'})`);
      if (error?.retryable) say(terminal, 'The same request may succeed when it is submitted again.');
  }
}
