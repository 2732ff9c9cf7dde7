// Source over target, small: what goes into what. Refused content is never shown.
import { useEffect, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { isVideo, shownStatus } from '../jobs/status.ts';
import { jobThumbnail } from '../service/thumbnails.ts';
import { Icon } from './icons.tsx';

const STAYS_MS = 150;

export function Pair({ job }: { readonly job: Job }) {
  const target = useThumbnail(job, 'target');
  const source = useThumbnail(job, 'source_images[0]');
  return (
    <span class="pair">
      {target ? (
        <img class="t" src={target} alt="" />
      ) : (
        <span class="blank">
          <Icon name={shownStatus(job) === 'refused' ? 'shield' : isVideo(job) ? 'video' : 'picture'} />
        </span>
      )}
      {source && <img class="s" src={source} alt="" />}
    </span>
  );
}

/** `input` as the service names it: `target`, `source_images[0]`. */
export function useThumbnail(job: Job, input: string): string | undefined {
  const [url, setUrl] = useState<string | undefined>(undefined);
  const index = /\[(\d+)\]/.exec(input)?.[1];
  const reference =
    input === 'target' ? job.request?.target.value : index === undefined ? undefined : job.request?.sourceImages[Number(index)];
  const shown = shownStatus(job) !== 'refused' && !job.purgedAt ? reference : undefined;
  const { jobId } = job;
  useEffect(() => {
    setUrl(undefined);
    if (shown === undefined) return;
    const stop = new AbortController();
    // A row that flies by asks for nothing.
    const timer = setTimeout(() => {
      void jobThumbnail(jobId, input, shown, stop.signal).then((found) => {
        if (!stop.signal.aborted) setUrl(found);
      });
    }, STAYS_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [jobId, input, shown]);
  return url;
}
