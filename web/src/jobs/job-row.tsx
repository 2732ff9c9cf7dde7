// One job in the list: a row, or a card on a phone.
import { memo } from 'preact/compat';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { bytes, countdown, duration, msOf, number, percent, roughly } from '../format.ts';
import { Menu, type MenuItem } from '../parts/menu.tsx';
import { Pair } from '../parts/pair.tsx';
import { Bar, Chip, IconButton, now } from '../parts/small.tsx';
import { href } from '../router.ts';
import { slotWords, startsIn } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { furtherActs, submitAgain } from './acts.ts';
import { download } from './download.ts';
import { failureWords, NAME_LABEL, nameOf, type Shown, shortId, shownStatus, stepName, stepWords, waitWords } from './status.ts';

export interface JobRowProps {
  readonly job: Job;
  /** From 0, of the whole list. */
  readonly index: number;
  readonly selected: boolean;
  /** The row that the keyboard is at. */
  readonly active: boolean;
  /** A card without the line of a bar. */
  readonly short: boolean;
  readonly toggle: (id: string, on: boolean) => void;
  readonly cancel: (job: Job) => void;
  readonly purge: (job: Job) => void;
  readonly focus: (index: number) => void;
}

export const JobRow = memo(
  function JobRow({ job, index, selected, active, short, toggle, cancel, purge, focus }: JobRowProps) {
    const w = words.value;
    const name = nameOf(job);
    const status = shownStatus(job);
    const over = ['succeeded', 'failed', 'canceled', 'refused'].includes(status);
    const link = useRef<HTMLAnchorElement>(null);
    // With the drawing itself: later, it would take the focus back from a row that the keyboard has moved on to.
    useLayoutEffect(() => {
      if (active) link.current?.focus({ preventScroll: true });
    }, [active]);
    const labels = Object.entries(job.request?.labels ?? {}).filter(([label]) => label !== NAME_LABEL);
    return (
      <tr role="row" aria-rowindex={index + 2} class={`${over ? 'flat' : ''}${short ? ' short' : ''}`} aria-selected={selected}>
        <td role="cell" class="c-sel">
          <input
            type="checkbox"
            aria-label={w.list.select(name)}
            checked={selected}
            onChange={(event) => toggle(job.jobId, event.currentTarget.checked)}
          />
        </td>
        <td role="cell" class="c-job">
          <div class="job">
            <Pair job={job} />
            <div>
              <a class="name clip" href={href(`jobs/${job.jobId}`)} ref={link} onFocus={() => focus(index)}>
                {name}
              </a>
              <span class="sub">
                <span class="mono">{shortId(job)}</span>
                {labels.length > 0 && <span class="clip">{labels.map((pair) => pair.join('=')).join(' ')}</span>}
              </span>
            </div>
          </div>
        </td>
        <td role="cell" class="c-status">
          <Chip status={status} />
        </td>
        {over ? (
          <td role="cell" class="c-prog" colSpan={2} aria-colspan={2}>
            <Outcome job={job} status={status} />
          </td>
        ) : (
          <>
            <td role="cell" class="c-step">
              <Step job={job} status={status} />
            </td>
            <td role="cell" class="c-prog">
              <div class="prog">
                <Bar job={job} stopping={status === 'stopping'} />
                <b class={status === 'queued' ? 'meta' : ''}>{percent(job.progress)}</b>
              </div>
            </td>
          </>
        )}
        <td role="cell" class={`c-eta nowrap${over || status === 'queued' ? ' quiet' : ''}`}>
          <Time job={job} status={status} />
        </td>
        <td role="cell" class="c-slot nowrap quiet clip" title={job.slot}>
          {job.slot === undefined ? '' : slotWords(job.slot)}
        </td>
        <td role="cell" class="c-age nowrap quiet">
          <Age job={job} />
        </td>
        <td role="cell" class="c-acts">
          <div class="acts">
            <Action job={job} status={status} name={name} cancel={cancel} />
            <Menu label={w.list.moreOne(name)} items={itemsOf(job, status, cancel, purge)} />
          </div>
        </td>
      </tr>
    );
  },
  (a, b) => a.job === b.job && a.index === b.index && a.selected === b.selected && a.active === b.active && a.short === b.short,
);

function Step({ job, status }: { readonly job: Job; readonly status: Shown }) {
  const w = words.value;
  const name = stepName(job, job.step) ?? 'prepare';
  if (status === 'queued') {
    return (
      <>
        <span class="clip">{waitWords(job)}</span>
        <span class="sub">{job.queuePosition !== undefined && <span class="clip">{w.position(job.queuePosition + 1)}</span>}</span>
      </>
    );
  }
  const processors = job.request?.parameters?.processors;
  const force = msOf(job.forceStopAt);
  return (
    <>
      <span class="clip">{stepWords(job, name)}</span>
      <span class="sub">
        <span class="clip">
          {status === 'stopping' && force !== undefined
            ? w.forcedIn(countdown((force - now.value) / 1000))
            : Array.isArray(processors)
              ? processors.join(', ')
              : ''}
        </span>
      </span>
    </>
  );
}

function Outcome({ job, status }: { readonly job: Job; readonly status: Shown }) {
  const w = words.value;
  if (status === 'failed') return <div class="why clip">{failureWords(job)}</div>;
  if (status === 'refused') return <div class="why warn clip">{w.refusedRow}</div>;
  if (status === 'canceled') return <div class="quiet clip">{w.canceledAt(percent(job.progress))}</div>;
  const { result } = job;
  const facts = job.purgedAt
    ? [w.deleted]
    : result
      ? [
          result.width > 0 && `${result.width} × ${result.height}`,
          result.frames > 1 && w.frames(number(result.frames)),
          bytes(result.bytes),
          job.cached && w.fromCache,
        ]
      : [];
  return <div class="quiet clip">{facts.filter(Boolean).join(' · ')}</div>;
}

function Time({ job, status }: { readonly job: Job; readonly status: Shown }) {
  const w = words.value;
  const ended = msOf(job.finishedAt);
  if (ended !== undefined) {
    const began = msOf(job.startedAt);
    return <>{began === undefined ? '' : w.took(duration((ended - began) / 1000))}</>;
  }
  const start = startsIn(job);
  if (start !== undefined) return <>{start < 1 ? w.startsSoon : w.startsIn(roughly(start))}</>;
  const eta = msOf(job.estimatedFinishTime);
  // An estimate that has passed is none.
  if (status !== 'running' || eta === undefined || eta < now.value) return null;
  return <>{countdown((eta - now.value) / 1000)}</>;
}

function Age({ job }: { readonly job: Job }) {
  const created = msOf(job.createdAt);
  return <>{created === undefined ? '' : words.value.ago(roughly((now.value - created) / 1000))}</>;
}

function Action({
  job,
  status,
  name,
  cancel,
}: {
  readonly job: Job;
  readonly status: Shown;
  readonly name: string;
  readonly cancel: (job: Job) => void;
}) {
  const w = words.value.list;
  if (status === 'stopping') return null;
  if (status === 'queued' || status === 'running') return <IconButton icon="cross" label={w.cancelOne(name)} press={() => cancel(job)} />;
  if (job.resultUrl !== undefined) return <IconButton icon="download" label={w.downloadOne(name)} press={() => download(job)} />;
  return <IconButton icon="again" label={w.againOne(name)} press={() => submitAgain(job)} />;
}

/** Everything that can be done with it, also what its row has a button for. */
function itemsOf(job: Job, status: Shown, cancel: (job: Job) => void, purge: (job: Job) => void): MenuItem[] {
  const w = words.value.job;
  const items: MenuItem[] = [];
  if (status === 'queued' || status === 'running') items.push({ icon: 'cross', label: w.cancel, run: () => cancel(job) });
  if (job.resultUrl !== undefined && job.result && !job.purgedAt)
    items.push({ icon: 'download', label: w.download(bytes(job.result.bytes)), run: () => download(job) });
  if (job.request) items.push({ icon: 'again', label: w.again, run: () => submitAgain(job) });
  return [...items, ...furtherActs(job, () => purge(job))];
}

const WIDTHS = [180, 140, 210, 160];

export function SkeletonRow({ seed, short = false }: { readonly seed: number; readonly short?: boolean }) {
  const width = WIDTHS[seed % WIDTHS.length]!;
  const bar = (px: number) => <span class="skel" style={{ width: `${px}px` }} />;
  return (
    <tr aria-hidden="true" class={short ? 'short' : ''}>
      <td class="c-sel" />
      <td class="c-job">
        <div class="job">
          <span class="pair">
            <span class="blank" />
          </span>
          <div>{bar(width)}</div>
        </div>
      </td>
      <td class="c-status">{bar(70)}</td>
      <td class="c-step">{bar(width * 0.6)}</td>
      <td class="c-prog">{bar(width)}</td>
      <td class="c-eta">{bar(56)}</td>
      <td class="c-slot">{bar(56)}</td>
      <td class="c-age">{bar(40)}</td>
      <td class="c-acts" />
    </tr>
  );
}
