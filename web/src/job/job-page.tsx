// One job: how far it is or how it ended, what it makes, what it said, and what was asked for.
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { useSignal } from '@preact/signals';
import { useEffect, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { bytes } from '../format.ts';
import { download } from '../jobs/download.ts';
import { isOver, nameOf, shownStatus } from '../jobs/status.ts';
import { Icon } from '../parts/icons.tsx';
import { AfterAMoment, Chip, CopyButton, Note } from '../parts/small.tsx';
import { go, href } from '../router.ts';
import { jobService } from '../service/clients.ts';
import { messageOf } from '../service/errors.ts';
import { JobWatch } from '../service/job-watch.ts';
import { draftOfJob } from '../submit/draft.ts';
import { words } from '../words/words.ts';
import { Details } from './details.tsx';
import { Progress } from './progress.tsx';
import { RequestPanel, ResultPanel, WorkerPanel } from './side.tsx';
import { Stage } from './stage.tsx';
import { Verdict } from './verdict.tsx';

export function JobPage({ id }: { readonly id: string }) {
  const [watch, setWatch] = useState<JobWatch | undefined>(undefined);
  useEffect(() => {
    const opened = new JobWatch(id);
    setWatch(opened);
    return () => opened.close();
  }, [id]);
  const w = words.value;
  const job = watch?.job.value;
  useEffect(() => {
    if (job) document.title = `${isOver(job.status) ? '' : `${job.progress} % · `}${nameOf(job)} · facefusion-jobs`;
  }, [job]);
  if (watch?.problem.value && !job) return <Missing id={id} watch={watch} />;
  if (!watch || !job) {
    return (
      <AfterAMoment>
        <section class="panel pad" aria-busy="true" aria-label={w.list.loading}>
          <span class="skel wide" />
        </section>
      </AfterAMoment>
    );
  }
  return <Shown watch={watch} job={job} />;
}

function Shown({ watch, job }: { readonly watch: JobWatch; readonly job: Job }) {
  const w = words.value;
  const status = shownStatus(job);
  const problem = useSignal<string | undefined>(undefined);
  const act = async (run: () => Promise<{ job?: Job | undefined }>) => {
    try {
      const { job: now } = await run();
      problem.value = undefined;
      if (now) watch.put(now);
    } catch (error) {
      problem.value = messageOf(error);
    }
  };
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
        <p class="crumb">
          <a href={href('jobs')}>{w.jobs}</a>
          <span aria-hidden="true">/</span>
          <span class="mono id">{job.jobId}</span>
          <CopyButton text={job.jobId} label={w.job.copyId} small />
        </p>
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
            {isOver(job.status) && !job.purgedAt && (
              <button class="btn ghost icon" type="button" aria-label={w.job.purge} title={w.job.purge} onClick={purge}>
                <Icon name="bin" />
              </button>
            )}
          </div>
        </div>
      </div>
      {problem.value !== undefined && (
        <Note kind="bad" role="alert" action={{ label: w.close, run: () => (problem.value = undefined) }}>
          <b>{w.somethingWrong}.</b> {problem.value}
        </Note>
      )}
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

function Missing({ id, watch }: { readonly id: string; readonly watch: JobWatch }) {
  const w = words.value;
  const { notFound, error } = watch.problem.value!;
  return (
    <section class="panel">
      <div class="empty">
        <h1>{notFound ? w.job.noJobTitle : w.somethingWrong}</h1>
        <p>{notFound ? w.job.noJobWhy(id) : messageOf(error)}</p>
        <a class="btn primary" href={href('jobs')}>
          {w.job.toList}
        </a>
      </div>
    </section>
  );
}
