// What the job said, and the job itself as the API gives it.
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { type Job, JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { clockMs } from '../format.ts';
import { CopyButton, Tabs } from '../parts/small.tsx';
import { type JobWatch, jobJson, type LogLine, plain } from '../service/job-watch.ts';
import { words } from '../words/words.ts';

export function Details({ watch, job }: { readonly watch: JobWatch; readonly job: Job }) {
  const w = words.value;
  const textOf = (tab: string) =>
    tab === 'job' ? JSON.stringify(jobJson(job), null, 2) : tab === 'events' ? eventsText(watch) : logText(watch.lines.value);
  return (
    <section class="panel" aria-label={w.details}>
      <Tabs
        label={w.details}
        end={(tab) => <CopyButton text={() => textOf(tab)} label={w.copy} />}
        tabs={[
          { id: 'log', label: w.job.events, panel: () => <Log lines={watch.lines.value} /> },
          { id: 'job', label: w.job.json, panel: () => <JobJson job={job} /> },
          { id: 'events', label: w.job.eventsJson, panel: () => <pre class="code">{eventsText(watch)}</pre> },
        ]}
      />
    </section>
  );
}

function JobJson({ job }: { readonly job: Job }) {
  const text = useMemo(() => JSON.stringify(jobJson(job), null, 2), [job]);
  return <pre class="code">{text}</pre>;
}

function eventsText(watch: JobWatch): string {
  return watch.events.value.map((event) => JSON.stringify(plain(event))).join('\n');
}

function Log({ lines }: { readonly lines: readonly LogLine[] }) {
  const list = useRef<HTMLOListElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    const panel = list.current?.parentElement;
    if (!panel) return;
    const scrolled = () => {
      atEnd.current = panel.scrollTop + panel.clientHeight > panel.scrollHeight - 24;
    };
    panel.addEventListener('scroll', scrolled, { passive: true });
    return () => panel.removeEventListener('scroll', scrolled);
  }, []);
  // Follows what is said, unless somebody reads further up.
  useEffect(() => {
    const panel = list.current?.parentElement;
    if (panel && atEnd.current) panel.scrollTop = panel.scrollHeight;
  }, [lines]);
  if (lines.length === 0) return <p class="pad quiet">{words.value.job.noEvents}</p>;
  return (
    <ol class="log" ref={list}>
      {lines.map((line, i) => (
        <li key={i} class={line.level === 'info' ? '' : line.level.slice(0, 1)}>
          <time>{clockMs(line.ms)}</time>
          <span class="lv">{line.level}</span>
          <span>{lineText(line)}</span>
        </li>
      ))}
    </ol>
  );
}

function logText(lines: readonly LogLine[]): string {
  return lines.map((line) => `${new Date(line.ms).toISOString()} ${line.level} ${lineText(line)}`).join('\n');
}

const STATUS_WORDS = {
  [JobStatus.UNSPECIFIED]: 'queued',
  [JobStatus.QUEUED]: 'queued',
  [JobStatus.PROCESSING]: 'running',
  [JobStatus.SUCCEEDED]: 'succeeded',
  [JobStatus.FAILED]: 'failed',
  [JobStatus.CANCELED]: 'canceled',
  [JobStatus.REFUSED]: 'refused',
} as const;

function lineText({ text, state }: LogLine): string {
  if (!state) return text ?? '';
  const line = words.value.job.stateLine(words.value.status[state.stopping ? 'stopping' : STATUS_WORDS[state.status]], state.attempt);
  return [line, state.reason, state.message].filter(Boolean).join(': ');
}
