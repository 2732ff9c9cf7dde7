// A job's events, in order and without gaps, over as many connections as it takes: each one resumes after the last sequence seen. Ends
// after the terminal event; throws only what a new connection cannot mend.
import { create } from '@bufbuild/protobuf';
import type { Client, ConnectError } from '@connectrpc/connect';
import { type JobEvent, JobEventSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { Reconnects, type ResumeOptions } from './reconnects.ts';

export interface WatchOptions extends ResumeOptions {
  /** The sequence of the last event that is known: what follows is told. Unset: begins with a snapshot. */
  readonly after?: number | undefined;
}

export async function* watch(
  jobs: Pick<Client<typeof JobService>, 'watch' | 'get'>,
  jobId: string,
  options: WatchOptions = {},
): AsyncGenerator<JobEvent, void> {
  const reconnects = new Reconnects(options);
  const { signal } = reconnects;
  let after = options.after;
  while (true) {
    let lost: ConnectError | undefined;
    try {
      for await (const { event } of jobs.watch({ jobId, afterSequence: after }, { signal })) {
        if (event === undefined) continue;
        reconnects.told();
        if (event.sequence > 0) after = event.sequence;
        yield event;
        if (isTerminal(statusIn(event))) return;
      }
      // Ended without a terminal event: the service went down in good order, or we asked for what lies past the job's end. What it may have told
      // meanwhile another connection replays.
      const { job } = await jobs.get({ jobId }, { signal });
      if (job !== undefined && isTerminal(job.status) && job.sequence <= (after ?? job.sequence)) {
        yield create(JobEventSchema, {
          sequence: job.sequence,
          time: job.updatedAt,
          event: { case: 'snapshot', value: { job, reset: false } },
        });
        return;
      }
    } catch (error) {
      lost = reconnects.lossOf(error);
    }
    await reconnects.pause(lost);
  }
}

export function statusIn(event: JobEvent): JobStatus | undefined {
  if (event.event.case === 'state') return event.event.value.status;
  if (event.event.case === 'snapshot') return event.event.value.job?.status;
  return undefined;
}

export function isTerminal(status: JobStatus | undefined): boolean {
  return status === JobStatus.SUCCEEDED || status === JobStatus.FAILED || status === JobStatus.CANCELED || status === JobStatus.REFUSED;
}
