// A job's events, in order and without gaps, over as many connections as it takes: each one resumes after the last sequence seen. Ends
// after the terminal event; throws only what a new connection cannot mend.
import { setTimeout as pause } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { type JobEvent, JobEventSchema } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import { JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import type { JobsClient } from './client.ts';

export interface Backoff {
  readonly baseMs: number;
  readonly maxMs: number;
  /** Connections in a row without an event after which it gives up. */
  readonly attempts: number;
}
/** About 45 seconds in all. */
export const BACKOFF: Backoff = { baseMs: 250, maxMs: 5_000, attempts: 12 };

export interface FollowOptions {
  readonly after?: number;
  readonly signal: AbortSignal;
  readonly backoff?: Backoff;
  /** The connection was lost and is tried again. */
  onLost?(error: ConnectError | undefined): void;
}

export async function* follow(jobs: JobsClient, jobId: string, options: FollowOptions): AsyncGenerator<JobEvent, void> {
  const { signal, backoff = BACKOFF } = options;
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
    const cap = Math.min(backoff.maxMs, backoff.baseMs * 2 ** (failures - 1));
    await pause(cap / 2 + (Math.random() * cap) / 2, undefined, { signal });
  }
}

/** A broken connection rather than the service's word, which carries details. */
function isLoss(error: ConnectError): boolean {
  switch (error.code) {
    case Code.Unavailable:
    case Code.Aborted:
    case Code.Canceled:
      return true;
    case Code.Internal:
    case Code.Unknown:
      return error.details.length === 0;
    default:
      return false;
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
