// What stands around every page: the way from page to page, how the service is, and what stands in the way of talking to it.
import { useSignalEffect } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { BatchPage } from './batch/batch-page.tsx';
import { FleetPage } from './fleet/fleet-page.tsx';
import { clock, countdown, roughly } from './format.ts';
import { JobPage } from './job/job-page.tsx';
import { JobsPage } from './jobs/jobs-page.tsx';
import { Icon, Mark } from './parts/icons.tsx';
import { isTyping } from './parts/keys.ts';
import { IconButton, Note, now } from './parts/small.tsx';
import { go, href, page } from './router.ts';
import { key, keyWanted, useKey } from './service/key.ts';
import { link, reconnect } from './service/link.ts';
import { capabilities, slots } from './service/overview.ts';
import { SubmitPage } from './submit/submit-page.tsx';
import { switchTheme } from './theme.ts';
import { switchLanguage, words } from './words/words.ts';

export function App() {
  const w = words.value;
  const main = useRef<HTMLElement>(null);
  const shown = page.value;
  const first = useRef(true);
  // A reader that cannot see is told of the new page; the first one it reads by itself.
  useEffect(() => {
    if (first.current) first.current = false;
    else main.current?.focus({ preventScroll: true });
  }, [shown]);
  useSignalEffect(() => {
    const { name } = page.value;
    const title = {
      jobs: words.value.jobs,
      new: words.value.newJob,
      fleet: words.value.fleet,
      job: words.value.jobs,
      batch: words.value.jobs,
      unknown: words.value.notFoundTitle,
    }[name];
    if (name !== 'job' && name !== 'batch') document.title = `${title} · facefusion-jobs`;
  });
  return (
    <>
      <a class="skip" href="#main">
        {w.skip}
      </a>
      <Top />
      <main id="main" tabIndex={-1} ref={main}>
        {keyWanted.value ? <KeyPanel /> : <LostNote />}
        {/* Without a key there is nothing to show; with one that is not taken any more, what is known stays. */}
        {keyWanted.value !== 'missing' && <Shown />}
      </main>
    </>
  );
}

function Shown() {
  const w = words.value;
  const shown = page.value;
  switch (shown.name) {
    case 'jobs':
      return <JobsPage />;
    case 'job':
      return <JobPage key={shown.id} id={shown.id} />;
    case 'batch':
      return <BatchPage key={shown.id} id={shown.id} />;
    case 'new':
      return <SubmitPage />;
    case 'fleet':
      return <FleetPage />;
    case 'unknown':
      return (
        <section class="panel empty">
          <h1>{w.notFoundTitle}</h1>
          <p>{w.notFoundWhy}</p>
          <div class="row">
            <a class="btn primary" href={href('jobs')}>
              {w.jobs}
            </a>
            <a class="btn" href={href('new')}>
              {w.newJob}
            </a>
          </div>
        </section>
      );
  }
}

addEventListener('keydown', (event) => {
  if (event.key !== 'n' || event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
  event.preventDefault();
  go('new');
});

function Top() {
  const w = words.value;
  const { name } = page.value;
  const at = (one: string) => (name === one || (one === 'jobs' && (name === 'job' || name === 'batch')) ? 'page' : undefined);
  const { engine } = capabilities.value ?? {};
  const all = slots.value;
  const ready = all?.filter(({ state, draining }) => !draining && READY.has(state)).length ?? 0;
  const { state } = link.value;
  return (
    <header class="top">
      <a class="brand" href={href('jobs')}>
        <Mark />
        <span class="clip">facefusion-jobs</span>
      </a>
      <nav class="nav" aria-label={w.mainMenu}>
        <a href={href('jobs')} aria-current={at('jobs')}>
          <Icon name="jobs" />
          {w.jobs}
        </a>
        <a href={href('new')} aria-current={at('new')}>
          <Icon name="plus" />
          {w.newJob}
        </a>
        <a href={href('fleet')} aria-current={at('fleet')}>
          <Icon name="fleet" />
          {w.fleet}
        </a>
      </nav>
      <div class="top-end">
        <span class={`live${state === 'live' ? '' : ' off'}`} role="status">
          {state === 'live' ? w.live : state === 'lost' ? w.notLive : w.connecting}
        </span>
        {engine && (
          <span class="only-wide">
            {engine.name} {engine.version}
          </span>
        )}
        {all && <span class="only-wide">{w.slotsReady(ready, all.length)}</span>}
        {key.value !== '' && <IconButton icon="key" label={w.keyForget} press={() => useKey('')} />}
        <button
          class="btn ghost"
          type="button"
          lang={w.otherLanguage.code}
          aria-label={w.otherLanguage.title}
          onClick={() => void switchLanguage()}
        >
          {w.otherLanguage.label}
        </button>
        <IconButton icon="theme" label={w.theme} press={switchTheme} />
      </div>
    </header>
  );
}

const READY: ReadonlySet<WorkerState> = new Set([WorkerState.IDLE, WorkerState.BUSY, WorkerState.STOPPING]);

function LostNote() {
  const state = link.value;
  if (state.state !== 'lost') return null;
  const w = words.value;
  const age = roughly((now.value - state.since) / 1000);
  return (
    <Note kind="warn" role="status" action={{ label: w.tryNow, run: reconnect }}>
      <b>{w.lost(clock(state.since))}</b> {w.lostWhy(age, countdown(Math.max(0, state.retryAt - now.value) / 1000))}
    </Note>
  );
}

function KeyPanel() {
  const w = words.value;
  const [text, setText] = useState('');
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  // Alone on the page, or above what it shows.
  const Title = keyWanted.value === 'missing' ? 'h1' : 'h2';
  return (
    <section class="panel" aria-labelledby="key-title">
      <form
        class="pad stack"
        onSubmit={(event) => {
          event.preventDefault();
          useKey(text);
          setText('');
        }}
      >
        <Title id="key-title">{w.keyTitle}</Title>
        {keyWanted.value === 'wrong' && (
          <p class="err" role="alert">
            <Icon name="warn" />
            <span>{w.keyWrong}</span>
          </p>
        )}
        <div class="row wrap">
          <label class="sr" for="key-field">
            {w.key}
          </label>
          <input
            ref={field}
            class="field"
            id="key-field"
            type="password"
            autocomplete="off"
            spellcheck={false}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
          <button class="btn primary" type="submit" disabled={text.trim() === ''}>
            {w.keyUse}
          </button>
        </div>
        <p class="hint">{w.keyWhy}</p>
      </form>
    </section>
  );
}
