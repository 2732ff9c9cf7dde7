// A job's events as one line of text each, for `curl -N` and other eyes.
import type { Message } from '@bufbuild/protobuf';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { JobStatus, JobStep } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { WatchResponse } from '../../gen/facefusion/jobs/v1/job_service_pb.js';

/** The line of one WatchResponse, with its end; empty for an event that has nothing to say in text. */
export function eventLine(message: Message): string {
  const event = (message as WatchResponse).event;
  const text = event && describe(event);
  if (!text) return '';
  const time = event.time ? `${timestampDate(event.time).toISOString().slice(11, 19)}  ` : '';
  return `${time}${text}\n`;
}

function describe({ event }: JobEvent): string | undefined {
  switch (event.case) {
    case 'snapshot':
      return event.value.job && status(event.value.job);
    case 'state':
      return status(event.value);
    case 'progress': {
      const { percent, step, framesDone, framesTotal, framesPerSecond, etaSeconds } = event.value;
      const parts = [`${percent.toFixed(0).padStart(3)} %`, words(JobStep[step])];
      if (framesTotal > 1) parts.push(`${framesDone}/${framesTotal} frames`);
      if (framesPerSecond > 0) parts.push(`${framesPerSecond.toFixed(1)} fps`);
      if (etaSeconds !== undefined) parts.push(`${clock(etaSeconds)} left`);
      return parts.join('  ');
    }
    case 'log':
      return event.value.message;
    default:
      return undefined;
  }
}

function status(job: {
  jobId: string;
  status: JobStatus;
  step: JobStep;
  progress: number;
  errorMessage?: string;
  attempt: number;
}): string {
  const parts = [words(JobStatus[job.status])];
  if (job.status === JobStatus.PROCESSING) parts.push(words(JobStep[job.step]), `attempt ${job.attempt}`);
  if (job.errorMessage) parts.push(job.errorMessage);
  return `${job.jobId}  ${parts.join('  ')}`;
}

function words(name: string | undefined): string {
  return (name ?? 'unknown').toLowerCase().replaceAll('_', ' ');
}

function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${String(whole % 60).padStart(2, '0')}`;
}
