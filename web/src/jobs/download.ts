// Saves a result as a file, under the name that the service gives it.
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { ROOT } from '../router.ts';
import { resultUrl } from '../service/results.ts';

/** Saves what the page has made itself. */
export function saveAs(filename: string, blob: Blob): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function download(job: Job): void {
  if (job.resultUrl === undefined) return;
  const link = document.createElement('a');
  link.href = resultUrl(job.resultUrl);
  link.download = new URL(link.href).searchParams.get('filename') ?? job.jobId;
  // Of another origin a browser opens what it can show: beside this page, not in its place.
  if (!link.href.startsWith(ROOT)) link.target = '_blank';
  link.click();
}
