// What the list is narrowed to. Always true: it is in the address's query nowhere but in this tab's history, and a search that the service can
// answer itself is left to it.
import { signal } from '@preact/signals';
import { JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import type { Filter } from '../service/job-list.ts';

export const STATUSES = {
  running: [JobStatus.PROCESSING],
  queued: [JobStatus.QUEUED],
  succeeded: [JobStatus.SUCCEEDED],
  failed: [JobStatus.FAILED],
  refused: [JobStatus.REFUSED],
  canceled: [JobStatus.CANCELED],
} as const;
export type StatusName = keyof typeof STATUSES;

export type Since = 'any' | 'hour' | 'day' | 'week';
const SINCE_MS: Readonly<Record<Exclude<Since, 'any'>, number>> = { hour: 3_600_000, day: 86_400_000, week: 7 * 86_400_000 };

export interface Chosen {
  readonly status: StatusName | undefined;
  readonly slot: string;
  readonly since: Since;
  readonly text: string;
}

export const EVERYTHING: Chosen = { status: undefined, slot: '', since: 'any', text: '' };

export const chosen = signal<Chosen>(EVERYTHING);

/** What of it the service filters by. */
export function filterOf({ status, since, text }: Chosen, nowMs: number): Filter {
  const terms = text.trim().split(/\s+/).filter(Boolean);
  const valueFor = (name: string) => terms.find((term) => term.startsWith(`${name}=`))?.slice(name.length + 1) ?? '';
  return {
    statuses: status ? STATUSES[status] : [],
    labels: terms.filter((term) => /^[A-Za-z0-9][\w./-]*=/.test(term) && !/^(batch|reason)=/.test(term)),
    errorReason: valueFor('reason'),
    batchId: valueFor('batch'),
    createdAfter: since === 'any' ? undefined : nowMs - SINCE_MS[since],
  };
}

/** The batch that a search names, where it is an id. */
export function batchOf(text: string): string {
  return /(?:^|\s)batch=(batch_\w{1,100})(?:\s|$)/.exec(text)?.[1] ?? '';
}

/** What is left to look for in names and ids here. */
export function wordsOf(text: string): readonly string[] {
  return text
    .trim()
    .toLowerCase()
    .split(/\s+/)
    .filter((term) => term !== '' && !term.includes('='));
}
