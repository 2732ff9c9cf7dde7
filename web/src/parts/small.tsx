// Pieces that several pages are made of.
import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { nameOf, pieces, type Shown } from '../jobs/status.ts';
import { words } from '../words/words.ts';
import { copyText } from './copy.ts';
import { Icon, type IconName, STATUS_ICONS } from './icons.tsx';

/** Seconds tick by for whoever shows an age or a countdown. Milliseconds since 1970. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

export function Chip({ status, big, label }: { readonly status: Shown; readonly big?: boolean; readonly label?: string }) {
  return (
    <span class={`chip ${status}${big ? ' big' : ''}`}>
      <Icon name={STATUS_ICONS[status]} />
      {label ?? words.value.status[status]}
    </span>
  );
}

/** A button that is a picture, with its words for who does not know it. `idle`: it can be reached and does nothing. */
export function IconButton({
  icon,
  label,
  press,
  idle,
}: {
  readonly icon: IconName;
  readonly label: string;
  readonly press: () => void;
  readonly idle?: boolean;
}) {
  return (
    <button
      class="btn ghost icon"
      type="button"
      aria-label={label}
      title={label}
      aria-disabled={idle}
      onClick={() => {
        if (!idle) press();
      }}
    >
      <Icon name={icon} />
    </button>
  );
}

/** One bar everywhere: a piece for each step. */
export function Bar({ job, over, stopping }: { readonly job: Job; readonly over?: boolean; readonly stopping?: boolean }) {
  return (
    <div
      class={`bar${stopping ? ' stopping' : over ? ' over' : ''}`}
      role="progressbar"
      aria-label={nameOf(job)}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={job.progress}
    >
      {pieces(job).map(({ name, weight, state, fill }) => (
        <i key={name} class={state} style={{ '--w': weight, '--f': fill }} />
      ))}
    </div>
  );
}

export function Meter({
  value,
  kind = '',
  label,
}: {
  readonly value: number;
  readonly kind?: '' | 'accent' | 'warn';
  readonly label?: string;
}) {
  const shown = Math.min(100, Math.max(0, value));
  return label === undefined ? (
    <div class={`meter ${kind}`}>
      <i style={{ '--f': shown }} />
    </div>
  ) : (
    <div
      class={`meter ${kind}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(shown)}
    >
      <i style={{ '--f': shown }} />
    </div>
  );
}

export interface NoteProps {
  readonly kind?: '' | 'warn' | 'bad';
  readonly icon?: IconName;
  readonly children: ComponentChildren;
  readonly action?: { readonly label: string; readonly run: () => void };
  readonly role?: 'status' | 'alert';
}

export function Note({ kind = '', icon = kind === '' ? 'info' : 'warn', children, action, role }: NoteProps) {
  return (
    <div class={`note ${kind}`} role={role}>
      <Icon name={icon} />
      <span>{children}</span>
      {action && (
        <button class="btn push" type="button" onClick={action.run}>
          {action.label}
        </button>
      )}
    </div>
  );
}

/** Copies `text`, and says so for a moment. */
export function CopyButton({
  text,
  label,
  small,
  children,
}: {
  readonly text: string | (() => string);
  readonly label: string;
  readonly small?: boolean;
  readonly children?: ComponentChildren;
}) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(false), 1600);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = async () => {
    await copyText(typeof text === 'string' ? text : text());
    setDone(true);
  };
  return (
    <button
      class={`btn ghost${children ? '' : ' icon'}${small ? ' tiny' : ''}`}
      type="button"
      aria-label={children ? undefined : label}
      title={label}
      onClick={() => void copy()}
    >
      <Icon name={done ? 'check' : 'copy'} />
      {children && (done ? words.value.copied : children)}
      <span class="sr" role="status">
        {done ? words.value.copied : ''}
      </span>
    </button>
  );
}

export interface Tab {
  readonly id: string;
  readonly label: string;
  readonly panel: () => ComponentChildren;
}

/** Tabs with the keys that they have everywhere: arrows, Home, End. */
export function Tabs({
  tabs,
  label,
  end,
}: {
  readonly tabs: readonly Tab[];
  readonly label: string;
  readonly end?: (shown: string) => ComponentChildren;
}) {
  const [chosen, setChosen] = useState(tabs[0]!.id);
  const prefix = useId();
  const list = useRef<HTMLDivElement>(null);
  const at = Math.max(
    0,
    tabs.findIndex(({ id }) => id === chosen),
  );
  const keys = (event: KeyboardEvent) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = (to + tabs.length) % tabs.length;
    setChosen(tabs[next]!.id);
    (list.current?.children[next] as HTMLElement | undefined)?.focus();
  };
  return (
    <>
      <div class="tabs-row">
        <div class="tabs" role="tablist" aria-label={label} ref={list} onKeyDown={keys}>
          {tabs.map(({ id, label: name }, i) => (
            <button
              key={id}
              type="button"
              role="tab"
              id={`${prefix}-${id}`}
              aria-controls={`${prefix}-panel`}
              aria-selected={i === at}
              tabIndex={i === at ? 0 : -1}
              onClick={() => setChosen(id)}
            >
              {name}
            </button>
          ))}
        </div>
        {end?.(tabs[at]!.id)}
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a panel that scrolls has to be reached by the keyboard */}
      <div role="tabpanel" id={`${prefix}-panel`} aria-labelledby={`${prefix}-${tabs[at]!.id}`} tabIndex={0} class="tabpanel">
        {tabs[at]!.panel()}
      </div>
    </>
  );
}

/** Nothing for a moment, so that what comes at once does not flicker. */
export function AfterAMoment({ children }: { readonly children: ComponentChildren }) {
  const [shown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), 200);
    return () => clearTimeout(timer);
  }, []);
  return shown ? children : null;
}
