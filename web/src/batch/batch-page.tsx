// A batch: how far it is as a whole, its jobs as they go on, and what became of them when it has finished.
import { useEffect, useState } from 'preact/hooks';
import type { Batch } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import { duration, moment, msOf, number, percent } from '../format.ts';
import { saveAs } from '../jobs/download.ts';
import { STATUSES, type StatusName } from '../jobs/filters.ts';
import { JobRows } from '../jobs/rows.tsx';
import type { Shown } from '../jobs/status.ts';
import { useActs } from '../parts/acts.tsx';
import { Icon, STATUS_ICONS } from '../parts/icons.tsx';
import { Chip, Meter, Note } from '../parts/small.tsx';
import { Absent, Crumb, useWatch } from '../parts/watched.tsx';
import { BatchWatch, manifestJson } from '../service/batch-watch.ts';
import { jobService } from '../service/clients.ts';
import { JobList } from '../service/job-list.ts';
import { words } from '../words/words.ts';

export function BatchPage({ id }: { readonly id: string }) {
  const w = words.value;
  const watch = useWatch(BatchWatch, id);
  const batch = watch?.batch.value;
  useEffect(() => {
    if (batch) document.title = `${batch.finishedAt ? '' : `${batch.progress} % · `}${w.batch.title(batch.jobs)} · facefusion-jobs`;
  }, [batch, w]);
  if (!watch || !batch) return <Absent problem={watch?.problem.value} none={{ title: w.batch.noneTitle, why: w.batch.noneWhy(id) }} />;
  return <Batched watch={watch} batch={batch} />;
}

/** As one word: what goes on, or the worst that became of a job of it. */
function shownOf({ finishedAt, cancelRequestedAt, processing, succeeded, failed, refused, canceled }: Batch): Shown {
  if (!finishedAt) return cancelRequestedAt ? 'stopping' : processing + succeeded + failed + refused + canceled > 0 ? 'running' : 'queued';
  return failed > 0 ? 'failed' : refused > 0 ? 'refused' : canceled > 0 ? 'canceled' : 'succeeded';
}

function Batched({ watch, batch }: { readonly watch: BatchWatch; readonly batch: Batch }) {
  const w = words.value;
  const { run, note } = useActs();
  const { batchId } = batch;
  const cancel = () =>
    run(async () => {
      const { batch: now } = await jobService.cancelBatch({ batchId });
      if (now) watch.put(now);
    });
  const save = () =>
    run(async () => {
      const json = manifestJson(await jobService.getBatchResults({ batchId }));
      saveAs(`${batchId}.json`, new Blob([`${JSON.stringify(json, null, 2)}\n`], { type: 'application/json' }));
    });
  const status = shownOf(batch);
  return (
    <>
      <div class="stack">
        <Crumb id={batchId} />
        <div class="head named">
          <h1>{w.batch.title(batch.jobs)}</h1>
          <Chip status={status} big />
          <div class="row push acts">
            {!batch.finishedAt && !batch.cancelRequestedAt && (
              <button class="btn danger" type="button" onClick={() => void cancel()}>
                <Icon name="cross" />
                {w.batch.cancel}
              </button>
            )}
            {batch.finishedAt && (
              <button class="btn primary" type="button" onClick={() => void save()}>
                <Icon name="download" />
                {w.batch.manifest}
              </button>
            )}
          </div>
        </div>
      </div>
      {note}
      <Whole batch={batch} />
      <Jobs batch={batch} />
    </>
  );
}

/** The bar and the sentence beside it. */
function Whole({ batch }: { readonly batch: Batch }) {
  const w = words.value;
  const { jobs, succeeded, failed, canceled, refused } = batch;
  const over = succeeded + failed + canceled + refused;
  const began = msOf(batch.createdAt) ?? 0;
  const ended = msOf(batch.finishedAt);
  return (
    <section class="panel pad stack" aria-label={w.job.progress}>
      <div class="row wrap">
        <b role="status">{w.batch.ended(number(over), number(jobs))}</b>
        <span class="meta">{ended === undefined ? w.batch.since(moment(began)) : w.took(duration((ended - began) / 1000))}</span>
        <b class="push">{percent(batch.progress)}</b>
      </div>
      <Meter value={batch.progress} kind="accent" label={w.job.progress} />
      {batch.cancelRequestedAt && !batch.finishedAt && <Note kind="warn">{w.batch.stopping}</Note>}
      {batch.stopOnFailure && !batch.finishedAt && !batch.cancelRequestedAt && <Note>{w.batch.stopsOnFailure}</Note>}
    </section>
  );
}

/** How many are where, each a filter of the list below it. */
function Jobs({ batch }: { readonly batch: Batch }) {
  const w = words.value;
  const [chosen, setChosen] = useState<StatusName | undefined>(undefined);
  const [list, setList] = useState<JobList | undefined>(undefined);
  const { batchId } = batch;
  useEffect(() => {
    const statuses = chosen ? STATUSES[chosen] : [];
    const opened = new JobList({ statuses, labels: [], errorReason: '', batchId, createdAfter: undefined });
    setList(opened);
    return () => opened.close();
  }, [batchId, chosen]);
  const counts: readonly (readonly [StatusName, number])[] = [
    ['queued', batch.queued],
    ['running', batch.processing],
    ['succeeded', batch.succeeded],
    ['failed', batch.failed],
    ['refused', batch.refused],
    ['canceled', batch.canceled],
  ];
  const count = chosen === undefined ? batch.jobs : (counts.find(([name]) => name === chosen)?.[1] ?? 0);
  return (
    <>
      <section class="totals six" aria-label={w.list.filterStatus}>
        {counts.map(([name, many]) => (
          <button
            key={name}
            type="button"
            class={name === 'failed' && many > 0 ? 'bad' : ''}
            aria-pressed={chosen === name}
            onClick={() => setChosen(chosen === name ? undefined : name)}
          >
            <span class="k">
              <Icon name={STATUS_ICONS[name]} />
              {w.status[name]}
            </span>
            <span class="line">
              <span class="v">{number(many)}</span>
            </span>
          </button>
        ))}
      </section>
      {list && <JobRows key={chosen ?? 'all'} list={list} count={count} empty={<p class="empty">{w.batch.none}</p>} />}
    </>
  );
}
