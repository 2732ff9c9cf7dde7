// Batches: jobs that were admitted together, and how far they are. Always true: the counts are kept with each job's own steps and add up to the
// number of its jobs; a batch has finished when none of them is queued or processing, and nothing is added to it later. Pure.
import { JobsError, type Violation } from './errors.ts';
import { isTerminal, type Job, type JobRequest, type JobStatus, newJobId } from './job.ts';

export const MAX_BATCH = 1000;

export interface Batch {
  readonly batchId: string;
  readonly tenant: string;
  readonly jobs: number;
  readonly counts: ReadonlyMap<JobStatus, number>;
  /** Sum of `doneOf` over its jobs. */
  readonly done: number;
  /** Milliseconds since 1970, the store's clock. */
  readonly createdMs: number;
  readonly finishedMs: number | undefined;
  readonly stopsOnFailure: boolean;
  readonly cancelRequestedMs: number | undefined;
  /** In the order in which they were asked for. */
  readonly members: readonly BatchMember[];
}

export interface BatchMember {
  readonly jobId: string;
  readonly ref: string;
}

export function membersOf({
  jobs,
  refs,
}: {
  readonly jobs: readonly { readonly jobId: string }[];
  readonly refs: readonly string[];
}): BatchMember[] {
  return jobs.map(({ jobId }, i) => ({ jobId, ref: refs[i] ?? '' }));
}

/** Percent that a job adds to its batch: whatever it has come to, what has ended is done. */
function doneOf({ status, progress }: Job): number {
  return isTerminal(status) ? 100 : progress;
}

/** What a step changes in the counts of the job's batch; undefined: nothing, or it is in none. */
export interface BatchMove {
  readonly batchId: string;
  readonly from: JobStatus;
  readonly to: JobStatus;
  readonly done: number;
}

export function batchMove(before: Job, after: Job): BatchMove | undefined {
  const { batchId } = after;
  const done = doneOf(after) - doneOf(before);
  if (batchId === undefined || (before.status === after.status && done === 0)) return undefined;
  return { batchId, from: before.status, to: after.status, done };
}

const PREFIX = 'batch_';

/** `batch_20250405_` and 12 random base32 characters. `random` gives at least 12 bytes. */
export function newBatchId(nowMs: number, random: Uint8Array): string {
  return newJobId(nowMs, random).replace('job_', PREFIX);
}

/** Of an id that is a job's or a batch's. */
export function isBatchId(id: string): boolean {
  return id.startsWith(PREFIX);
}

export function batchNotFound(id: string): JobsError {
  return new JobsError('not_found', 'BATCH_NOT_FOUND', `there is no batch '${id}'`, { metadata: { batch_id: id } });
}

const SCHEME = 'job://';

export interface Sibling {
  readonly ref: string;
  readonly jobId: string;
  /** `job://REF` of a sibling becomes `job://ID` in it. */
  readonly request: JobRequest;
}

/**
 * Turns the references between siblings into references to jobs, in the requests given. Answers the places of the jobs in an order in which each
 * comes after those whose results it takes, else as they were, and what is wrong: a name twice, a name like a job's id, jobs that wait for one another.
 */
export function linkSiblings(siblings: readonly Sibling[]): {
  readonly order: readonly number[];
  readonly violations: readonly Violation[];
} {
  const violations: Violation[] = [];
  const byRef = new Map<string, number>();
  for (const [i, { ref }] of siblings.entries()) {
    if (ref === '') continue;
    const field = `jobs[${i}].ref`;
    const other = byRef.get(ref);
    if (ref.startsWith('job_')) {
      violations.push({
        field,
        reason: 'NOT_A_REF',
        description: `'${ref}' could be the id of another job: give it a name of another kind`,
      });
    } else if (other !== undefined) {
      violations.push({
        field,
        reason: 'REF_TWICE',
        description: `'${ref}' is the name of jobs[${other}] already: each needs one of its own`,
      });
    } else byRef.set(ref, i);
  }
  const needs = siblings.map(({ request }) => {
    const needed = new Set<number>();
    const linked = (reference: string): string => {
      const named = reference.slice(0, SCHEME.length).toLowerCase() === SCHEME ? byRef.get(reference.slice(SCHEME.length)) : undefined;
      if (named === undefined) return reference;
      needed.add(named);
      return `${SCHEME}${siblings[named]!.jobId}`;
    };
    request.sourceImages = request.sourceImages.map(linked);
    if (request.sourceAudio !== undefined) request.sourceAudio = linked(request.sourceAudio);
    if (request.target.case !== undefined) request.target = { case: request.target.case, value: linked(request.target.value) };
    return needed;
  });
  const order = inOrder(needs);
  const placed = new Set(order);
  for (const [i, needed] of needs.entries()) {
    if (placed.has(i)) continue;
    const others = [...needed].filter((one) => !placed.has(one)).map((one) => (one === i ? 'itself' : `jobs[${one}]`));
    violations.push({ field: `jobs[${i}].job`, reason: 'REF_CYCLE', description: `it waits for ${others.join(' and ')}, in a circle` });
  }
  return { order, violations };
}

/** Those that need nothing that is not before them; what is in a circle, or needs such, is left out. */
function inOrder(needs: readonly ReadonlySet<number>[]): number[] {
  const wantedBy: number[][] = needs.map(() => []);
  const missing = needs.map((needed, i) => {
    for (const one of needed) wantedBy[one]!.push(i);
    return needed.size;
  });
  const order: number[] = [];
  for (const [first] of needs.entries()) {
    if (missing[first] !== 0) continue;
    missing[first] = -1;
    // Whoever becomes free by this one follows it.
    for (const ready = [first]; ready.length > 0; ) {
      const one = ready.shift()!;
      order.push(one);
      for (const waiting of wantedBy[one]!) {
        if (--missing[waiting]! !== 0 || waiting > first) continue;
        missing[waiting] = -1;
        ready.push(waiting);
      }
    }
  }
  return order;
}
