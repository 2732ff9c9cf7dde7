// The console's glyphs, drawn on a grid of 16. All are decoration: the word stands beside them or in the control's label.
import type { ComponentChildren } from 'preact';
import type { Shown } from '../jobs/status.ts';

const DOT = { 'stroke-width': '2.2' };
const GLYPHS = {
  jobs: <path d="M2.5 4h11M2.5 8h11M2.5 12h7" />,
  plus: <path d="M8 3v10M3 8h10" />,
  fleet: (
    <>
      <rect x="2" y="3" width="12" height="4" rx="1" />
      <rect x="2" y="9" width="12" height="4" rx="1" />
      <path d="M4.5 5h.01M4.5 11h.01" stroke-width="2" />
    </>
  ),
  theme: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M8 2v12a6 6 0 0 0 0-12z" fill="currentColor" stroke="none" />
    </>
  ),
  search: (
    <>
      <circle cx="7" cy="7" r="4.5" />
      <path d="M10.4 10.4L14 14" />
    </>
  ),
  cross: <path d="M4 4l8 8M12 4l-8 8" />,
  more: <path d="M3.5 8h.01M8 8h.01M12.5 8h.01" stroke-width="2.6" />,
  download: <path d="M8 2.5v7.5M4.8 7.2L8 10.4l3.2-3.2M3 13.5h10" />,
  again: <path d="M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3" />,
  copy: (
    <>
      <rect x="5.5" y="5.5" width="8" height="8" rx="1" />
      <path d="M10.5 3V2.5h-8v8H3" />
    </>
  ),
  save: <path d="M3 3h8l2 2v8H3zM5.5 3v3.5h5V3M5.5 13V9.5h5V13" />,
  left: <path d="M10 3.5L5.5 8l4.5 4.5" />,
  right: <path d="M6 3.5L10.5 8 6 12.5" />,
  bin: <path d="M3 4.5h10M6 4.5V3h4v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5" />,
  grip: <path d="M6 4h.01M10 4h.01M6 8h.01M10 8h.01M6 12h.01M10 12h.01" {...DOT} />,
  warn: (
    <>
      <path d="M8 2l6.4 11.4H1.6z" />
      <path d="M8 6.4v3.2M8 11.6v.1" />
    </>
  ),
  info: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M8 7.4v3.4M8 5.2v.1" />
    </>
  ),
  check: <path d="M3 8.5l3.3 3.3L13 4.7" />,
  divide: <path d="M5.5 4.5L2 8l3.5 3.5M10.5 4.5L14 8l-3.5 3.5" />,
  play: <path d="M5 3.2v9.6L12.5 8z" fill="currentColor" />,
  pause: <path d="M5.5 3.5v9M10.5 3.5v9" stroke-width="2.4" />,
  shield: (
    <>
      <path d="M8 1.8l5 1.8v4c0 3.2-2.1 5.4-5 6.6-2.9-1.2-5-3.4-5-6.6v-4z" />
      <path d="M5.7 7.8h4.6" />
    </>
  ),
  picture: (
    <>
      <rect x="2" y="3" width="12" height="10" rx="1" />
      <path d="M2.5 11l3.2-3.4 2.6 2.6 2-1.9 3.2 3" />
      <path d="M10.5 5.9h.01" {...DOT} />
    </>
  ),
  video: (
    <>
      <rect x="2" y="3" width="12" height="10" rx="1" />
      <path d="M6.6 5.8v4.4L10.2 8z" fill="currentColor" />
    </>
  ),
  sound: <path d="M2.5 6.5v3M5.2 4.5v7M8 2.5v11M10.8 4.5v7M13.5 6.5v3" />,
  key: (
    <>
      <circle cx="5.2" cy="8" r="2.7" />
      <path d="M7.9 8h5.6M11.2 8v2.4M13.5 8v1.7" />
    </>
  ),
  queued: <circle cx="8" cy="8" r="6" stroke-dasharray="2.2 2.5" />,
  running: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M8 2a6 6 0 0 1 0 12z" fill="currentColor" stroke="none" />
    </>
  ),
  stopping: (
    <>
      <circle cx="8" cy="8" r="6" />
      <rect x="5.7" y="5.7" width="4.6" height="4.6" fill="currentColor" stroke="none" />
    </>
  ),
  canceled: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M3.8 3.8l8.4 8.4" />
    </>
  ),
} satisfies Record<string, ComponentChildren>;

export type IconName = keyof typeof GLYPHS;

export function Icon({ name }: { readonly name: IconName }) {
  return (
    <svg class="ic" viewBox="0 0 16 16" aria-hidden="true">
      {GLYPHS[name]}
    </svg>
  );
}

export const STATUS_ICONS: Readonly<Record<Shown, IconName>> = {
  queued: 'queued',
  running: 'running',
  stopping: 'stopping',
  succeeded: 'check',
  failed: 'warn',
  canceled: 'canceled',
  refused: 'shield',
};

export function Mark() {
  return (
    <svg viewBox="0 0 20 20" aria-hidden="true">
      <circle cx="10" cy="10" r="8.5" fill="none" stroke="currentColor" stroke-width="2" />
      <path d="M10 1.5a8.5 8.5 0 0 1 0 17z" fill="var(--accent)" />
      <path d="M10 0v20" stroke="currentColor" stroke-width="2" />
    </svg>
  );
}
