// `job://ID`: the result of another job as an input. Always true: what is read are the bytes that the job itself refers to since they exist, so nothing
// that happens to the other job can take them away, and no id gives a tenant the result of another's.
import { inputJobProblem, jobIdOf, noSuchJob } from '../jobs/chains.ts';
import { JobsError } from '../jobs/errors.ts';
import type { Job } from '../jobs/job.ts';
import type { BlobStore, JobId } from '../jobs/ports.ts';
import type { MediaResolver } from './references.ts';

/** Checks such references. What a job takes is fetched by the resolver that `takingResults` makes for it. */
export function jobReferences(find: (id: JobId) => Promise<Job | undefined>): MediaResolver {
  return {
    schemes: ['job'],
    check: async (reference, field, tenant) => {
      const jobId = jobIdOf(reference);
      if (jobId === undefined) return { field, reason: 'JOB_NOT_FOUND', description: noSuchJob(reference.slice(0, 100)) };
      return inputJobProblem({ jobId, field }, await find(jobId), tenant);
    },
    fetch: async (reference) => notTaken(reference),
  };
}

/** For one job: its references by `resolver`, and those to other jobs by the blobs that it took from them. */
export function takingResults(resolver: MediaResolver, inputs: ReadonlyMap<JobId, string>, blobs: Pick<BlobStore, 'fetch'>): MediaResolver {
  if (inputs.size === 0) return resolver;
  return {
    ...resolver,
    async fetch(reference, toPath, signal, observer) {
      const jobId = jobIdOf(reference);
      if (jobId === undefined) return await resolver.fetch(reference, toPath, signal, observer);
      const key = inputs.get(jobId);
      if (key === undefined) return notTaken(reference);
      try {
        await blobs.fetch(key, toPath, signal, observer?.progress);
      } catch (error) {
        if (error instanceof JobsError && error.reason === 'NO_RESULT') return notTaken(reference);
        throw error;
      }
      observer?.digested(key);
      return undefined;
    },
  };
}

function notTaken(reference: string) {
  return { reason: 'INPUT_NOT_FOUND', message: `the result of ${reference.slice(0, 100)} is not there any more`, retryable: false };
}
