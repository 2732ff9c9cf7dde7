// Jobs of a list, newest first. Always true: only the rows in sight are in the document, each keeps the height that it came with, and none moves unless somebody asks.
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { number } from '../format.ts';
import { useActs } from '../parts/acts.tsx';
import { Icon } from '../parts/icons.tsx';
import { isTyping } from '../parts/keys.ts';
import { AfterAMoment } from '../parts/small.tsx';
import { scrolledTo } from '../router.ts';
import { jobService } from '../service/clients.ts';
import type { JobList } from '../service/job-list.ts';
import { words } from '../words/words.ts';
import { cancelJob, purgeJob, submitAgain } from './acts.ts';
import { download } from './download.ts';
import { JobRow, SkeletonRow } from './job-row.tsx';
import { isOver, nameOf, shortId, shownStatus } from './status.ts';
import { Tops } from './tops.ts';

const ROW = 48;
const CARD = 110;
/** Of a job that was over when its card came. One that ends while it is shown keeps its height, so that nothing moves below it. */
const SHORT_CARD = 88;
const MARGIN_ROWS = 8;
const PHONE = matchMedia('(max-width: 720px)');
/** Further than this a search by name does not look by itself. */
const SEARCH_MOST = 20_000;

export interface JobRowsProps {
  readonly list: JobList;
  /** How many there are in all, as far as that is known: those that are not loaded yet keep their place. */
  readonly count: number;
  /** Shown where there is none. */
  readonly empty: ComponentChildren;
  /** What the list is narrowed to here, beside the service's filter. */
  readonly slot?: string;
  readonly terms?: readonly string[];
}

const NO_TERMS: readonly string[] = [];
/** After the one to select rows with, by the name of their words. */
const COLUMNS = ['job', 'statusColumn', 'stepColumn', 'progress', 'timeLeft', 'slot', 'age', 'actions'] as const;

export function JobRows({ list, count, empty, slot = '', terms = NO_TERMS }: JobRowsProps) {
  const w = words.value;
  const selected = useSignal<ReadonlySet<string>>(new Set());
  const { run, note } = useActs();
  const act = (call: (job: Job) => Promise<Job | undefined>) => (job: Job) =>
    void run(async () => {
      const now = await call(job);
      if (now) list.put(now);
    });
  const cancel = act(cancelJob);
  const purge = act(purgeJob);
  const narrowed = terms.length > 0 || slot !== '';
  const all = list.rows.value;
  // Read so that this is drawn again when a job changes.
  const version = list.version.value;
  const ids = useMemo(() => {
    if (!narrowed) return all;
    return all.filter((id) => {
      const job = list.get(id)!;
      if (slot !== '' && job.slot !== slot) return false;
      const where = `${nameOf(job)} ${job.jobId} ${Object.entries(job.request?.labels ?? {})
        .flat()
        .join(' ')}`.toLowerCase();
      return terms.every((term) => where.includes(term));
    });
  }, [all, list, narrowed, slot, terms.join(' '), narrowed && version]);
  // A search by name looks at what is loaded, so all is loaded for it.
  useEffect(() => {
    if (narrowed) void list.load(SEARCH_MOST);
  }, [narrowed, list, terms.join(' ')]);

  const rowCount = narrowed || list.whole.value ? ids.length : Math.max(ids.length, count);
  const phone = usePhone();
  const short = useRef(new Map<string, boolean>());
  const tops = useMemo(() => {
    if (!phone) return new Tops([], ROW);
    const heights = ids.map((id) => {
      const known = short.current.get(id);
      const isShort = known ?? isOver(list.get(id)!.status);
      if (known === undefined) short.current.set(id, isShort);
      return isShort ? SHORT_CARD : CARD;
    });
    // What is not loaded yet is older, and mostly over.
    return new Tops(heights, SHORT_CARD);
  }, [ids, list, phone]);
  const { first, last, body } = useWindow(rowCount, tops);
  useEffect(() => {
    if (!narrowed && last >= all.length - 40) void list.load(last + 40);
  }, [last, all.length, narrowed, list]);
  const { active, moveTo } = useRowKeys(ids, body, tops);

  if (!list.loaded.value) return <Loading />;
  if (ids.length === 0 && list.waiting.value.length === 0 && (list.whole.value || (narrowed && all.length >= SEARCH_MOST)))
    return <section class="panel">{empty}</section>;

  const toggle = (id: string, on: boolean) => {
    const next = new Set(selected.value);
    if (on) next.add(id);
    else next.delete(id);
    selected.value = next;
  };
  const shown = ids.slice(first, last);
  const missing = Math.max(0, Math.min(last, rowCount) - Math.max(first, ids.length));
  return (
    <section class="panel" aria-label={w.jobs}>
      {note}
      <SelectedBar list={list} selected={selected} />
      {list.waiting.value.length > 0 && (
        <div class="fresh" role="status">
          <button type="button" onClick={() => list.showWaiting()}>
            {w.list.newer(number(list.waiting.value.length), list.waiting.value.length)}
          </button>
        </div>
      )}
      <table class="jobs" role="table" aria-label={w.jobs} aria-rowcount={rowCount + 1}>
        <Widths />
        {/* Cards take the table's display away, and with it its roles; so they are said. */}
        <thead role="rowgroup">
          <tr role="row" aria-rowindex={1}>
            <th role="columnheader" scope="col">
              <input
                type="checkbox"
                aria-label={w.list.selectAll}
                checked={selected.value.size > 0 && selected.value.size === ids.length}
                onChange={(event) => {
                  selected.value = new Set(event.currentTarget.checked ? ids : []);
                }}
              />
            </th>
            {COLUMNS.map((name) => (
              <th key={name} role="columnheader" scope="col" aria-sort={name === 'age' ? 'descending' : undefined}>
                {name === 'actions' ? <span class="sr">{w.list[name]}</span> : w.list[name]}
              </th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup" ref={body}>
          {first > 0 && <Space height={tops.of(first)} />}
          {shown.map((id, i) => (
            <JobRow
              key={id}
              job={list.get(id)!}
              index={first + i}
              selected={selected.value.has(id)}
              active={active === first + i}
              short={phone && short.current.get(id) === true}
              toggle={toggle}
              cancel={cancel}
              purge={purge}
              focus={moveTo}
            />
          ))}
          {Array.from({ length: missing }, (_, i) => (
            <SkeletonRow key={`missing-${i}`} seed={i} short={phone} />
          ))}
          {rowCount > last && <Space height={tops.of(rowCount) - tops.of(last)} />}
        </tbody>
      </table>
      <div class="foot">
        <b>
          {w.list.range(
            number(Math.min(rowCount, first + 1)),
            number(Math.min(rowCount, last)),
            list.whole.value || rowCount > ids.length ? number(rowCount) : `${number(rowCount)}+`,
          )}
        </b>
        <span>{narrowed ? w.list.searched(number(all.length)) : w.list.scroll}</span>
        <span class="push only-wide keys" aria-hidden="true">
          <kbd>J</kbd> <kbd>K</kbd> {w.list.move} <kbd>Enter</kbd> {w.list.open}{' '}
          {terms !== NO_TERMS && (
            <>
              <kbd>/</kbd> {w.list.searchKey}{' '}
            </>
          )}
          <kbd>N</kbd> {w.list.newKey}
        </span>
      </div>
    </section>
  );
}

function Widths() {
  return (
    <colgroup>
      <col class="w-sel" />
      <col class="w-job" />
      <col class="w-status" />
      <col class="w-step" />
      <col />
      <col class="w-eta" />
      <col class="w-slot" />
      <col class="w-age" />
      <col class="w-acts" />
    </colgroup>
  );
}

/** Rows out of sight, as empty space. */
function Space({ height }: { readonly height: number }) {
  return (
    <tr class="space" role="presentation">
      <td role="presentation" colSpan={9} style={{ height: `${height}px` }} />
    </tr>
  );
}

function usePhone(): boolean {
  const [phone, setPhone] = useState(PHONE.matches);
  useEffect(() => {
    const changed = () => setPhone(PHONE.matches);
    PHONE.addEventListener('change', changed);
    return () => PHONE.removeEventListener('change', changed);
  }, []);
  return phone;
}

/** The rows in sight of the window, and some above and below. */
function useWindow(count: number, tops: Tops) {
  const body = useRef<HTMLTableSectionElement>(null);
  const [range, setRange] = useState({ first: 0, last: 40 });
  useLayoutEffect(() => {
    let waiting = false;
    const measure = () => {
      waiting = false;
      if (!body.current) return;
      const top = body.current.getBoundingClientRect().top;
      const first = Math.max(0, tops.at(-top) - MARGIN_ROWS);
      // In steps, so that a slow scroll does not draw with each pixel.
      const from = first - (first % 4);
      const last = Math.min(count, tops.at(innerHeight - top) + 1 + MARGIN_ROWS + 4);
      const start = Math.min(from, Math.max(0, count - 1));
      setRange((before) => (before.first === start && before.last === last ? before : { first: start, last }));
    };
    const soon = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(measure);
    };
    measure();
    addEventListener('scroll', soon, { passive: true });
    addEventListener('resize', soon);
    return () => {
      removeEventListener('scroll', soon);
      removeEventListener('resize', soon);
    };
  }, [count, tops]);
  // Back from another page: where it was left.
  useLayoutEffect(() => {
    const y = scrolledTo();
    if (y > 0) scrollTo(0, y);
  }, []);
  return { first: Math.min(range.first, count), last: Math.min(range.last, count), body };
}

/** J and K move from row to row; Enter opens, as on any link. */
function useRowKeys(ids: readonly string[], body: { current: HTMLTableSectionElement | null }, tops: Tops) {
  const [active, setActive] = useState(-1);
  // Beside the state, because keys come faster than the page is drawn, and each moves on from the one before.
  const at = useRef(-1);
  const moveTo = useCallback((index: number) => {
    at.current = index;
    setActive(index);
  }, []);
  useLayoutEffect(() => {
    const keys = (event: KeyboardEvent) => {
      const by = { j: 1, k: -1 }[event.key];
      if (by === undefined || event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
      const next = Math.min(ids.length - 1, Math.max(0, at.current + by));
      event.preventDefault();
      moveTo(next);
      const top = (body.current?.getBoundingClientRect().top ?? 0) + tops.of(next);
      if (top < 60 || top + tops.of(next + 1) - tops.of(next) > innerHeight - 70) scrollBy(0, top - innerHeight / 2);
    };
    addEventListener('keydown', keys);
    return () => removeEventListener('keydown', keys);
  }, [ids, moveTo, body, tops]);
  return { active, moveTo };
}

function SelectedBar({ list, selected }: { readonly list: JobList; readonly selected: { value: ReadonlySet<string> } }) {
  const w = words.value;
  if (selected.value.size === 0) return null;
  const jobs = [...selected.value].map((id) => list.get(id)).filter((job) => job !== undefined);
  const running = jobs.filter((job) => ['queued', 'running'].includes(shownStatus(job)));
  const done = jobs.filter((job) => job.resultUrl !== undefined);
  // Into the form goes one job.
  const again = jobs.filter((job) => isOver(job.status) && job.request);
  const cancelAll = async () => {
    // Some at a time: a thousand at once would be a thousand requests at once.
    for (let i = 0; i < running.length; i += 8) {
      const answers = await Promise.allSettled(running.slice(i, i + 8).map(({ jobId }) => jobService.cancel({ jobId })));
      for (const answer of answers) if (answer.status === 'fulfilled' && answer.value.job) list.put(answer.value.job);
    }
  };
  return (
    <div class="pad row wrap selected">
      <b role="status">{w.list.selected(selected.value.size)}</b>
      {done.length > 0 && (
        <button class="btn" type="button" onClick={() => done.forEach(download)}>
          <Icon name="download" />
          {w.list.downloadSome(done.length)}
        </button>
      )}
      {again.length === 1 && (
        <button class="btn" type="button" onClick={() => submitAgain(again[0]!)}>
          <Icon name="again" />
          {w.job.again}
        </button>
      )}
      {running.length > 0 && (
        <button class="btn danger" type="button" onClick={() => void cancelAll()}>
          <Icon name="cross" />
          {w.list.cancelSome(running.length)}
        </button>
      )}
      <button class="btn ghost" type="button" onClick={() => (selected.value = new Set())}>
        {w.list.clear}
      </button>
      <span class="meta push clip only-wide">{jobs.slice(0, 4).map(shortId).join(', ')}</span>
    </div>
  );
}

function Loading() {
  return (
    <AfterAMoment>
      <section class="panel" aria-busy="true" aria-label={words.value.list.loading}>
        <table class="jobs" role="presentation">
          <Widths />
          {/* The words of the head, so that nothing moves when the rows come. */}
          <thead role="presentation" aria-hidden="true">
            <tr>
              <th />
              {COLUMNS.map((name) => (
                <th key={name}>{name === 'actions' ? '' : words.value.list[name]}</th>
              ))}
            </tr>
          </thead>
          <tbody role="presentation">
            {Array.from({ length: 8 }, (_, i) => (
              <SkeletonRow key={`loading-${i}`} seed={i} />
            ))}
          </tbody>
        </table>
      </section>
    </AfterAMoment>
  );
}
