// `job://ID`: a job that takes another one's result as its input. Always true: a job waits for each job that it names until that has ended, holds a
// reference of its own to the bytes from then on, and fails with one reason when there will be none. Pure, and the one definition for every store.
import { fieldInItem, JobsError, type Violation } from './errors.ts';
import { type Failure, isTerminal, type Job, type JobRequest, JobStatus, newJob } from './job.ts';
import type { JobId, NewBatch } from './ports.ts';

const SCHEME = 'job://';
const ID = /^job_\d{8}_[a-z2-7]{12}$/;

/** When a job that waits for another one is ready, in milliseconds since 1970: not by the clock. */
export const NEVER_MS = Number.MAX_SAFE_INTEGER;

/** What a field takes. */
export type Wanted = 'picture' | 'video' | 'sound';

export interface InputJob {
  readonly jobId: JobId;
  /** Path in the request. */
  readonly field: string;
}

/** Id in `job://ID`; undefined where that cannot be one of ours. */
export function jobIdOf(reference: string): JobId | undefined {
  if (reference.slice(0, SCHEME.length).toLowerCase() !== SCHEME) return undefined;
  const id = reference.slice(SCHEME.length);
  return ID.test(id) ? id : undefined;
}

/** The jobs whose results a request takes, each use of them. */
export function inputJobsOf(request: JobRequest): readonly InputJob[] {
  const found: InputJob[] = [];
  const add = (reference: string | undefined, field: string) => {
    const jobId = reference === undefined ? undefined : jobIdOf(reference);
    if (jobId !== undefined) found.push({ jobId, field });
  };
  for (const [i, reference] of request.sourceImages.entries()) add(reference, `source_images[${i}]`);
  add(request.sourceAudio, 'source_audio');
  add(request.target.value, request.target.case === 'targetVideo' ? 'target_video' : 'target_image');
  return found;
}

/** What a field of a request takes; the field may lie in a list of requests. */
function wantedBy(field: string): Wanted {
  return field.endsWith('target_video') ? 'video' : field.endsWith('source_audio') ? 'sound' : 'picture';
}

/** Why a tenant's request may not take the result of `job` (undefined: there is none); undefined: it may. Another tenant's job is none. */
export function inputJobProblem({ jobId, field }: InputJob, job: Job | undefined, tenant: string): Violation | undefined {
  const violation = (reason: string, description: string) => ({ field, reason, description });
  if (!job || job.tenant !== tenant) return violation('JOB_NOT_FOUND', noSuchJob(jobId));
  if (isTerminal(job.status) && !job.result) return violation('NO_RESULT', `${jobId} ${endOf(job)} and has no result to take`);
  const kind = kindOf(job);
  const wanted = wantedBy(field);
  // A video has sound to take; a picture has none.
  if (kind === wanted || (kind === 'video' && wanted === 'sound')) return undefined;
  return violation('INPUT_WRONG_KIND', `${WORDS[wanted]} is wanted here, and the result of ${jobId} is ${WORDS[kind]}`);
}

export function noSuchJob(id: string): string {
  return `there is no job ${JSON.stringify(id)} whose result could be taken: give the id of a job of your own`;
}

/** Refuses a request for the jobs that it names. `find` gives a job of any tenant. */
export function checkInputJobs(request: JobRequest, tenant: string, find: (id: JobId) => Job | undefined): void {
  const violations = inputJobsOf(request).flatMap((input) => inputJobProblem(input, find(input.jobId), tenant) ?? []);
  if (violations.length > 0) throw JobsError.invalid(violations);
}

/** The same of all jobs of a batch, whose results they may take of one another. `find`: of the jobs that are there. */
export function checkBatchInputs({ jobs, tenant }: NewBatch, find: (id: JobId) => Job | undefined): void {
  const siblings = new Map(jobs.map(({ jobId, request }) => [jobId, newJob(jobId, request, 0, { tenant })]));
  const violations = jobs.flatMap(({ request }, i) =>
    inputJobsOf(request).flatMap((input) => {
      const problem = inputJobProblem(input, siblings.get(input.jobId) ?? find(input.jobId), tenant);
      return problem ? [{ ...problem, field: fieldInItem(i, problem.field) }] : [];
    }),
  );
  if (violations.length > 0) throw JobsError.invalid(violations);
}

/** What a job that waited for another one fails with, when that has ended without a result; `job` undefined: it is forgotten. */
export function inputJobFailure(jobId: JobId, job: Job | undefined): Failure {
  const message = `${jobId}, whose result this job takes, ${job ? endOf(job) : 'is gone'}`;
  return { reason: 'INPUT_JOB_FAILED', message, retryable: false };
}

const WORDS: Readonly<Record<Wanted | 'frames', string>> = {
  picture: 'a picture',
  video: 'a video',
  sound: 'sound',
  frames: 'an archive of frames',
};

/** What a job gives, or will give: its format says so, and its target where it names none. */
function kindOf({ result, request }: Job): 'picture' | 'video' | 'frames' {
  if (result) return result.mediaType.startsWith('video/') ? 'video' : result.mediaType === 'application/zip' ? 'frames' : 'picture';
  const format = request?.outputFormat ?? '';
  if (format === 'zip') return 'frames';
  // A picture may become a video, with a sound.
  if (['mp4', 'mov', 'webm'].includes(format)) return 'video';
  return request?.target.case === 'targetVideo' ? 'video' : 'picture';
}

function endOf({ status, purgedAt, error }: Job): string {
  if (status === JobStatus.SUCCEEDED) return purgedAt ? 'was purged' : 'has lost its result';
  if (status === JobStatus.CANCELED) return 'was canceled';
  if (status === JobStatus.REFUSED) return 'was refused by the content analyser';
  return `failed (${error?.reason ?? 'for no reason given'})`;
}
