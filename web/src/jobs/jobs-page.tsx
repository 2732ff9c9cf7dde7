// All jobs, newest first, and what they are narrowed to.
import { useEffect, useRef } from 'preact/hooks';
import { Icon } from '../parts/icons.tsx';
import { isTyping } from '../parts/keys.ts';
import { Note } from '../parts/small.tsx';
import { href } from '../router.ts';
import { messageOf } from '../service/errors.ts';
import { JobList } from '../service/job-list.ts';
import { lastHour, slots } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { batchOf, chosen, EVERYTHING, filterOf, type Since, STATUSES, type StatusName, wordsOf } from './filters.ts';
import { JobRows } from './rows.tsx';
import { Totals } from './totals.tsx';

/** Kept while other pages are shown, so that coming back shows the same rows at the same place. */
let current: { readonly name: string; readonly list: JobList } | undefined;

/** The list of what is chosen; the one before is let go of. */
function listOf(): JobList {
  const { status, since } = chosen.value;
  const filter = filterOf(chosen.value, Date.now());
  const name = JSON.stringify([status, since, filter.labels, filter.errorReason, filter.batchId]);
  if (current?.name !== name) {
    current?.list.close();
    current = { name, list: new JobList(filter) };
  }
  return current.list;
}

export function JobsPage() {
  const w = words.value;
  const list = listOf();
  const { slot, text } = chosen.value;
  return (
    <>
      <div class="head">
        <h1>{w.jobs}</h1>
        <span class="meta only-wide">{w.list.sub}</span>
        <a class="btn primary push" href={href('new')}>
          <Icon name="plus" />
          {w.newJob}
        </a>
      </div>
      <Totals choose={(status) => choose({ status: status as StatusName })} />
      <Filters />
      {batchOf(text) && (
        <p class="meta">
          <a href={href(`batches/${batchOf(text)}`)}>{w.batch.open(batchOf(text))}</a>
        </p>
      )}
      {list.problem.value !== undefined && (
        <Note kind="bad" role="alert" action={{ label: w.list.clearAll, run: () => (chosen.value = EVERYTHING) }}>
          {messageOf(list.problem.value)}
        </Note>
      )}
      <JobRows list={list} count={expected()} slot={slot} terms={wordsOf(text)} empty={<Empty />} />
    </>
  );
}

function choose(next: Partial<typeof EVERYTHING>): void {
  chosen.value = { ...chosen.value, ...next };
}

function Filters() {
  const w = words.value;
  const { status, slot, since, text } = chosen.value;
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      if (event.key !== '/' || event.ctrlKey || event.metaKey || isTyping(event)) return;
      event.preventDefault();
      field.current?.focus();
    };
    addEventListener('keydown', keys);
    return () => removeEventListener('keydown', keys);
  }, []);
  const names = (slots.value ?? []).map(({ node, slot: name }) => `${node}/${name}`);
  return (
    // biome-ignore lint/a11y/useSemanticElements: <search> is younger than the oldest browser that this is for
    <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
      <div class="search">
        <Icon name="search" />
        <input
          ref={field}
          class="field"
          type="search"
          placeholder={w.list.search}
          aria-label={w.list.search}
          value={text}
          onInput={(event) => choose({ text: event.currentTarget.value })}
        />
        <kbd class="only-wide">/</kbd>
      </div>
      <fieldset class="seg" aria-label={w.list.filterStatus}>
        {[undefined, ...(Object.keys(STATUSES) as StatusName[])].map((one) => (
          <button key={one ?? 'all'} type="button" aria-pressed={status === one} onClick={() => choose({ status: one })}>
            {one ? w.status[one] : w.list.all}
          </button>
        ))}
      </fieldset>
      {names.length > 1 && (
        <select class="field" aria-label={w.list.slot} value={slot} onChange={(event) => choose({ slot: event.currentTarget.value })}>
          <option value="">{w.list.anySlot}</option>
          {names.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      )}
      <select
        class="field"
        aria-label={w.list.age}
        value={since}
        onChange={(event) => choose({ since: event.currentTarget.value as Since })}
      >
        <option value="any">{w.list.anyTime}</option>
        <option value="hour">{w.list.lastHour}</option>
        <option value="day">{w.list.lastDay}</option>
        <option value="week">{w.list.lastWeek}</option>
      </select>
    </form>
  );
}

/** How many jobs there are of those that are listed, as far as the service's totals tell. */
function expected(): number {
  const { status, since, text } = chosen.value;
  const { totals } = lastHour.value ?? {};
  if (!totals || since !== 'any' || text.trim() !== '') return 0;
  const { queued, processing, succeeded, failed, canceled, refused } = totals;
  const by = { running: processing, queued, succeeded, failed, canceled, refused };
  return status ? by[status] : queued + processing + succeeded + failed + canceled + refused;
}

function Empty() {
  const w = words.value;
  const { status, slot, since, text } = chosen.value;
  const all = status === undefined && slot === '' && since === 'any' && text.trim() === '';
  return (
    <div class="empty">
      <p class="lead">
        <b>{all ? w.list.emptyTitle : w.list.noMatchTitle}</b>
      </p>
      <p>{all ? w.list.emptyWhy : w.list.noMatchWhy}</p>
      <div class="row wrap">
        {all ? (
          <>
            <a class="btn primary" href={href('new')}>
              <Icon name="plus" />
              {w.newJob}
            </a>
            <a class="btn" href={href('docs')}>
              {w.list.emptyApi}
            </a>
          </>
        ) : (
          <>
            {since !== 'any' && (
              <button class="btn primary" type="button" onClick={() => choose({ since: 'any' })}>
                {w.list.allTime}
              </button>
            )}
            <button class="btn" type="button" onClick={() => (chosen.value = EVERYTHING)}>
              {w.list.clearAll}
            </button>
          </>
        )}
      </div>
    </div>
  );
}
