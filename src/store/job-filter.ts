// Which jobs a filter means, in the same words for every store.
import { createHash } from 'node:crypto';
import { JobsError } from '../jobs/errors.ts';
import { isTerminal, type Job, JobStatus } from '../jobs/job.ts';
import type { JobFilter, JobQuery } from '../jobs/ports.ts';

/** What a filter looks at. */
export interface Filtered {
  readonly tenant: string;
  readonly job: Job;
  /** Attempts that count. */
  readonly spent: number;
}

/** Whether a job passes the part of a filter that never changes for it. */
export function inScope({ job, tenant }: Filtered, filter: JobFilter): boolean {
  if (filter.tenant !== undefined && filter.tenant !== tenant) return false;
  if (filter.batchId !== undefined && filter.batchId !== job.batchId) return false;
  const labels = job.request!.labels;
  return (filter.labels ?? []).every(({ key, value }) =>
    value === undefined ? Object.hasOwn(labels, key) : Object.hasOwn(labels, key) && labels[key] === value,
  );
}

/** Whether a job passes the part of a filter that its life changes. */
export function inState({ job }: Pick<Filtered, 'job'>, filter: JobFilter): boolean {
  if (filter.statuses?.length && !filter.statuses.includes(job.status)) return false;
  return filter.errorReason === undefined || job.error?.reason === filter.errorReason;
}

/** Whether a job may have passed `inState` at an earlier time. */
export function mayHaveBeenInState({ job, spent }: Filtered, filter: JobFilter): boolean {
  if (filter.errorReason !== undefined && spent === 0) return false;
  if (!filter.statuses?.length) return true;
  return filter.statuses.some(
    (status) => status === job.status || status === JobStatus.QUEUED || (status === JobStatus.PROCESSING && job.attempt > 0),
  );
}

/** No change but a purge can follow. */
export function hasEnded({ job }: Pick<Filtered, 'job'>): boolean {
  return isTerminal(job.status);
}

/** What a page token is bound to: one given for one filter is refused with another. */
export function filterScope(query: JobQuery): string {
  const { tenant, statuses, errorReason, labels, batchId, createdAfterMs, createdBeforeMs } = query;
  return createHash('sha256')
    .update(JSON.stringify([tenant, statuses, errorReason, labels, batchId, createdAfterMs, createdBeforeMs]))
    .digest('base64url');
}

export function pageTokenRefused(): JobsError {
  const description = 'not a token of this list: pass next_page_token as it was given, with the same filters';
  return JobsError.invalid([{ field: 'page_token', description, reason: 'INVALID_PAGE_TOKEN' }]);
}
