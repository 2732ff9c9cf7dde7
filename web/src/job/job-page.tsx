// One job: how far it is or how it ended, what it makes, what it said, and what was asked for.
import { useEffect } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { bytes } from '../format.ts';
import { cancelJob, furtherActs, purgeJob, submitAgain } from '../jobs/acts.ts';
import { download } from '../jobs/download.ts';
import { isOver, nameOf, shownStatus } from '../jobs/status.ts';
import { useActs } from '../parts/acts.tsx';
import { Icon } from '../parts/icons.tsx';
import { Menu } from '../parts/menu.tsx';
import { Chip, Note } from '../parts/small.tsx';
import { Absent, Crumb, useWatch } from '../parts/watched.tsx';
import { JobWatch } from '../service/job-watch.ts';
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
  const act = (call: (job: Job) => Promise<Job | undefined>) =>
    void run(async () => {
      const now = await call(job);
      if (now) watch.put(now);
    });
  return (
    <>
      <div class="stack">
        <Crumb id={job.jobId} />
        <div class="head named">
          <h1 class="clip">{nameOf(job)}</h1>
          <Chip status={status} big />
          <div class="row push acts">
            {(status === 'queued' || status === 'running') && (
              <button class="btn danger" type="button" onClick={() => act(cancelJob)}>
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
              <button class="btn" type="button" onClick={() => submitAgain(job)}>
                <Icon name="again" />
                {w.job.again}
              </button>
            )}
            <Menu label={w.more} items={furtherActs(job, () => act(purgeJob))} />
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
