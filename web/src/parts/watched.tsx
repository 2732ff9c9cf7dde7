// What the pages of one thing have in common: a watch that lives as long as the page, the way back, and what is shown while there is nothing to show.
import { useEffect, useState } from 'preact/hooks';
import { href } from '../router.ts';
import { messageOf } from '../service/errors.ts';
import type { WatchProblem } from '../service/link.ts';
import { words } from '../words/words.ts';
import { AfterAMoment, CopyButton } from './small.tsx';

export function useWatch<Watch extends { close(): void }>(Watch: new (id: string) => Watch, id: string): Watch | undefined {
  const [watch, setWatch] = useState<Watch | undefined>(undefined);
  useEffect(() => {
    const opened = new Watch(id);
    setWatch(opened);
    return () => opened.close();
  }, [Watch, id]);
  return watch;
}

/** In place of what is not here yet, or not at all. */
export function Absent({
  problem,
  none,
}: {
  readonly problem: WatchProblem | undefined;
  /** Words for what there is none of. */
  readonly none: { readonly title: string; readonly why: string };
}) {
  const w = words.value;
  if (!problem) {
    return (
      <AfterAMoment>
        <section class="panel pad" aria-busy="true" aria-label={w.list.loading}>
          <span class="skel wide" />
        </section>
      </AfterAMoment>
    );
  }
  const { notFound, error } = problem;
  return (
    <section class="panel">
      <div class="empty">
        <h1>{notFound ? none.title : w.somethingWrong}</h1>
        <p>{notFound ? none.why : messageOf(error)}</p>
        <a class="btn primary" href={href('jobs')}>
          {w.job.toList}
        </a>
      </div>
    </section>
  );
}

/** The way back, and the id to copy. */
export function Crumb({ id }: { readonly id: string }) {
  const w = words.value;
  return (
    <p class="crumb">
      <a href={href('jobs')}>{w.jobs}</a>
      <span aria-hidden="true">/</span>
      <span class="mono id">{id}</span>
      <CopyButton text={id} label={w.job.copyId} small />
    </p>
  );
}
