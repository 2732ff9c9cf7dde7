// Source over target, small: what goes into what. Pictures are those that were chosen in this browser, or the ones that the service can show;
// refused content is never shown.
import { useEffect, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { isVideo, shownStatus } from '../jobs/status.ts';
import { thumbnailOf } from '../service/thumbnails.ts';
import { Icon } from './icons.tsx';

export function Pair({ job }: { readonly job: Job }) {
  const refused = shownStatus(job) === 'refused';
  const target = useThumbnail(refused ? undefined : job.request?.target.value);
  const source = useThumbnail(refused ? undefined : job.request?.sourceImages[0]);
  return (
    <span class="pair">
      {target ? (
        <img class="t" src={target} alt="" loading="lazy" />
      ) : (
        <span class="blank">
          <Icon name={refused ? 'shield' : isVideo(job) ? 'video' : 'picture'} />
        </span>
      )}
      {source && <img class="s" src={source} alt="" loading="lazy" />}
    </span>
  );
}

export function useThumbnail(reference: string | undefined): string | undefined {
  const [url, setUrl] = useState<string | undefined>(undefined);
  useEffect(() => {
    let current = true;
    setUrl(undefined);
    if (reference !== undefined) {
      void thumbnailOf(reference).then((found) => {
        if (current) setUrl(found);
      });
    }
    return () => {
      current = false;
    };
  }, [reference]);
  return url;
}
