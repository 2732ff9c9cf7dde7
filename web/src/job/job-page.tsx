// One job: how far it is or how it ended, what it makes, what it said, and what was asked for.
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { useEffect } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { bytes } from '../format.ts';
import { download } from '../jobs/download.ts';
import { isOver, nameOf, shownStatus } from '../jobs/status.ts';
import { useActs } from '../parts/acts.tsx';
import { Icon } from '../parts/icons.tsx';
import { Chip, IconButton, Note } from '../parts/small.tsx';
import { Absent, Crumb, useWatch } from '../parts/watched.tsx';
import { go } from '../router.ts';
import { jobService } from '../service/clients.ts';
import { JobWatch } from '../service/job-watch.ts';
import { draftOfJob } from '../submit/draft.ts';
import { words } from '../words/words.ts';
import { Details } from './details.tsx';
import { Progress } from './progress.tsx';
import { RequestPanel, ResultPanel, WorkerPanel } from './side.tsx';
import { Stage } from './stage.tsx';
import { Verdict } from './verdict.tsx';

export function JobPage({ id }: { readonly id: string }) {
  const watch = useWatch(JobWatch, id);
  const w = words.value;
  const job = watch?.job.value;
  useEffect(() => {
    if (job) document.title = `${isOver(job.status) ? '' : `${job.progress} % · `}${nameOf(job)} · facefusion-jobs`;
  }, [job]);
  if (!watch || !job) return <Absent problem={watch?.problem.value} none={{ title: w.job.noJobTitle, why: w.job.noJobWhy(id) }} />;
  return <Shown watch={watch} job={job} />;
}

function Shown({ watch, job }: { readonly watch: JobWatch; readonly job: Job }) {
  const w = words.value;
  const status = shownStatus(job);
  const { run, note } = useActs();
  const act = (call: () => Promise<{ job?: Job | undefined }>) =>
    run(async () => {
      const { job: now } = await call();
      if (now) watch.put(now);
    });
  const cancel = () => act(() => jobService.cancel({ jobId: job.jobId }));
  const purge = () => {
    if (!confirm(w.job.purgeSure)) return;
    void act(async () => {
      const { job: now } = await jobService.purge({ jobId: job.jobId });
      // The answer may be older than what the page knows by its sequence.
      return { job: now && { ...now, purgedAt: now.purgedAt ?? timestampFromMs(Date.now()) } };
    });
  };
  const again = () => {
    draftOfJob(job);
    go('new');
  };
  return (
    <>
      <div class="stack">
        <Crumb id={job.jobId} />
        <div class="head named">
          <h1 class="clip">{nameOf(job)}</h1>
          <Chip status={status} big />
          <div class="row push acts">
            {(status === 'queued' || status === 'running') && (
              <button class="btn danger" type="button" onClick={() => void cancel()}>
                <Icon name="cross" />
                {w.job.cancel}
              </button>
            )}
            {job.resultUrl !== undefined && job.result && !job.purgedAt && (
              <button class="btn primary" type="button" onClick={() => download(job)}>
                <Icon name="download" />
                {w.job.download(bytes(job.result.bytes))}
              </button>
            )}
            {isOver(job.status) && (
              <button class="btn" type="button" onClick={again}>
                <Icon name="again" />
                {w.job.again}
              </button>
            )}
            {isOver(job.status) && !job.purgedAt && <IconButton icon="bin" label={w.job.purge} press={purge} />}
          </div>
        </div>
      </div>
      {note}
      {job.purgedAt && <Note>{w.job.purged}</Note>}
      <section class={`panel ${PANEL[status] ?? ''}`} aria-label={isOver(job.status) ? w.job.outcome : w.job.progress}>
        <Verdict job={job} status={status} />
        <Progress watch={watch} job={job} status={status} />
      </section>
      <div class="split">
        <div>
          <Stage watch={watch} job={job} status={status} />
          <Details watch={watch} job={job} />
        </div>
        <div>
          {status === 'running' && job.slot !== undefined && <WorkerPanel job={job} />}
          {job.result && <ResultPanel job={job} />}
          <RequestPanel job={job} />
        </div>
      </div>
    </>
  );
}

const PANEL: Readonly<Record<string, string>> = {
  stopping: 'stopping',
  failed: 'failed',
  refused: 'refused',
  canceled: 'canceled',
  succeeded: 'ok',
};
