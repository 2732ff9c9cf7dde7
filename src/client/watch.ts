// A job's events, in order and without gaps, over as many connections as it takes: each one resumes after the last sequence seen. Ends
// after the terminal event; throws only what a new connection cannot mend.
import { create } from '@bufbuild/protobuf';
import { type Client, Code, ConnectError } from '@connectrpc/connect';
import { type JobEvent, JobEventSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { backoffMs, isLoss, pause } from './retry.ts';

export interface Backoff {
  readonly baseMs: number;
  readonly maxMs: number;
  /** Connections in a row without an event after which it gives up. */
  readonly attempts: number;
}
/** About 45 seconds in all. */
const BACKOFF: Backoff = { baseMs: 250, maxMs: 5_000, attempts: 12 };

export interface WatchOptions {
  /** The sequence of the last event that is known: what follows is told. Unset: begins with a snapshot. */
  readonly after?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly backoff?: Backoff | undefined;
  /** The connection was lost and is tried again. */
  onLost?(error: ConnectError | undefined): void;
}

export async function* watch(
  jobs: Pick<Client<typeof JobService>, 'watch' | 'get'>,
  jobId: string,
  options: WatchOptions = {},
): AsyncGenerator<JobEvent, void> {
  const { signal = new AbortController().signal, backoff = BACKOFF } = options;
  let after = options.after;
  let failures = 0;
  while (true) {
    let lost: ConnectError | undefined;
    try {
      for await (const { event } of jobs.watch({ jobId, afterSequence: after }, { signal })) {
        if (event === undefined) continue;
        failures = 0;
        if (event.sequence > 0) after = event.sequence;
        yield event;
        if (isTerminal(statusIn(event))) return;
      }
      // Ended without a terminal event: the service went down in good order, or we asked for what lies past the job's end.
      const { job } = await jobs.get({ jobId }, { signal });
      if (job !== undefined && isTerminal(job.status)) {
        yield create(JobEventSchema, {
          sequence: job.sequence,
          time: job.updatedAt,
          event: { case: 'snapshot', value: { job, reset: false } },
        });
        return;
      }
    } catch (error) {
      lost = ConnectError.from(error);
      if (signal.aborted || !isLoss(lost)) throw error;
    }
    failures++;
    if (failures >= backoff.attempts) throw lost ?? new ConnectError('the event stream ended early again and again', Code.Unavailable);
    options.onLost?.(lost);
    await pause(backoffMs(failures - 1, { firstMs: backoff.baseMs, longestMs: backoff.maxMs }), signal);
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
