// What can be done with a job from more than one page.
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { copyText } from '../parts/copy.ts';
import type { MenuItem } from '../parts/menu.tsx';
import { go, href } from '../router.ts';
import { jobService } from '../service/clients.ts';
import { draftOfJob } from '../submit/draft.ts';
import { curlOf } from '../submit/snippets.ts';
import { words } from '../words/words.ts';
import { isOver } from './status.ts';

/** The form, with the job's request in it. */
export function submitAgain(job: Job): void {
  draftOfJob(job);
  go('new');
}

/** As it is then. */
export async function cancelJob({ jobId }: Job): Promise<Job | undefined> {
  return (await jobService.cancel({ jobId })).job;
}

/** Deletes inputs and result for good, when whoever asks is sure. As it is then; undefined: nothing was done. */
export async function purgeJob({ jobId }: Job): Promise<Job | undefined> {
  if (!confirm(words.value.job.purgeSure)) return undefined;
  const { job: now } = await jobService.purge({ jobId });
  // The answer may be older than what the page knows by its sequence.
  return now && { ...now, purgedAt: now.purgedAt ?? timestampFromMs(Date.now()) };
}

/** What can be done with any job; the last is what deletes. */
export function furtherActs(job: Job, purge: () => void): MenuItem[] {
  const w = words.value.job;
  const { request } = job;
  return [
    { icon: 'copy', label: w.copyId, run: () => void copyText(job.jobId) },
    { icon: 'copy', label: w.copyLink, run: () => void copyText(href(`jobs/${job.jobId}`)) },
    ...(request ? [{ icon: 'copy', label: w.copyCurl, run: () => void copyText(curlOf(request)) } as const] : []),
    ...(isOver(job.status) && !job.purgedAt ? [{ icon: 'bin', label: w.purge, run: purge, danger: true } as const] : []),
  ];
}
