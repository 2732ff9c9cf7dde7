// What a job worked on, for showing it beside what it made: the file that was chosen in this tab, or what the service still holds of it.
import { useEffect, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { jobService } from './clients.ts';

/** A larger one is not fetched to be looked at. */
const MOST_BYTES = 512 * 1024 * 1024;

/** Object URLs of files that were uploaded from this tab, by reference. */
const files = new Map<string, string>();

export function keepInput(reference: string, file: Blob): void {
  if (!files.has(reference)) files.set(reference, URL.createObjectURL(file));
}

/** One of a job's inputs as a file; undefined: the service does not hold it, or it is larger than `mostBytes`. */
export async function fetchInput(jobId: string, input: string, mostBytes: number, signal: AbortSignal): Promise<Blob | undefined> {
  const chunks: BlobPart[] = [];
  let type = '';
  const own = new AbortController();
  try {
    for await (const { part } of jobService.getInput({ jobId, input }, { signal: AbortSignal.any([signal, own.signal]) })) {
      if (part.case === 'facts') {
        if (Number(part.value.bytes) > mostBytes) return undefined;
        type = part.value.mediaType;
      } else if (part.case === 'chunk') chunks.push(part.value as BlobPart);
    }
    return new Blob(chunks, { type });
  } catch {
    return undefined;
  } finally {
    own.abort();
  }
}

export type ShownInput = { readonly is: 'loading' | 'none' } | { readonly is: 'there'; readonly url: string };

/** The target, for comparing. */
export function useInput(job: Job): ShownInput {
  const { jobId } = job;
  const reference = job.request?.target.value;
  const [shown, setShown] = useState<ShownInput>({ is: 'loading' });
  useEffect(() => {
    const here = reference === undefined ? undefined : files.get(reference);
    if (reference === undefined || here !== undefined) {
      setShown(here === undefined ? { is: 'none' } : { is: 'there', url: here });
      return;
    }
    const stop = new AbortController();
    let url: string | undefined;
    setShown({ is: 'loading' });
    void fetchInput(jobId, 'target', MOST_BYTES, stop.signal).then((file) => {
      if (stop.signal.aborted) return;
      url = file && URL.createObjectURL(file);
      setShown(url === undefined ? { is: 'none' } : { is: 'there', url });
    });
    return () => {
      stop.abort();
      if (url !== undefined) URL.revokeObjectURL(url);
    };
  }, [jobId, reference]);
  return shown;
}
