// What a job worked on, for showing it beside what it made: the file that was chosen in this tab. The service does not hand inputs out again.
import { useEffect, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';

/** Object URLs of files that were uploaded from this tab, by reference. */
const files = new Map<string, string>();

export function keepInput(reference: string, file: Blob): void {
  if (!files.has(reference)) files.set(reference, URL.createObjectURL(file));
}

/** URL of the target, once it is known. */
export function useInput(job: Job): string | undefined {
  const reference = job.request?.target.value;
  const [url, setUrl] = useState<string | undefined>(undefined);
  useEffect(() => {
    setUrl(reference === undefined ? undefined : files.get(reference));
  }, [reference]);
  return url;
}
