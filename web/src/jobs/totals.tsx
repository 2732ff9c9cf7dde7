// How much is waiting, running and done, and the pace of the last hour.
import type { GetOverviewResponse_Throughput } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { duration, number, roughly, secondsOf } from '../format.ts';
import { Icon } from '../parts/icons.tsx';
import { now } from '../parts/small.tsx';
import { lastHour, oldestQueued, slots, today } from '../service/overview.ts';
import { words } from '../words/words.ts';

export function Totals({ choose }: { readonly choose: (status: string) => void }) {
  const w = words.value;
  const { totals, throughput = [] } = lastHour.value ?? {};
  const shown = (value: number | undefined) => (value === undefined ? '–' : number(value));
  const day = today.value;
  const oldest = lastHour.value && oldestQueued(lastHour.value);
  const median = secondsOf(lastHour.value?.recentRuns?.medianRun);
  return (
    <section class="totals" aria-label={w.list.totals}>
      <button type="button" onClick={() => choose('queued')}>
        <span class="k">
          <Icon name="queued" />
          {w.status.queued}
        </span>
        <span class="line">
          <span class="v">{shown(totals?.queued)}</span>
          {oldest !== undefined && <span class="meta">{w.list.oldest(roughly((now.value - oldest) / 1000))}</span>}
        </span>
      </button>
      <button type="button" onClick={() => choose('running')}>
        <span class="k">
          <Icon name="running" />
          {w.status.running}
        </span>
        <span class="line">
          <span class="v">{shown(totals?.processing)}</span>
          {slots.value && <span class="meta">{w.list.of(slots.value.length)}</span>}
        </span>
      </button>
      <button type="button" onClick={() => choose('succeeded')}>
        <span class="k">
          <Icon name="check" />
          {w.list.doneToday}
        </span>
        <span class="line">
          <span class="v">{shown(day?.succeeded)}</span>
          {median !== undefined && <span class="meta">{w.list.median(duration(median))}</span>}
        </span>
      </button>
      <button type="button" class={day && day.failed + day.refused > 0 ? 'bad' : ''} onClick={() => choose('failed')}>
        <span class="k">
          <Icon name="warn" />
          {w.list.failedToday}
        </span>
        <span class="line">
          <span class="v">{shown(day && day.failed + day.refused)}</span>
          {day && day.refused > 0 && <span class="meta">{w.list.failedSplit(number(day.failed), number(day.refused))}</span>}
        </span>
      </button>
      <Spark steps={throughput} />
    </section>
  );
}

/** Of one step of time. */
export function endedIn(step: GetOverviewResponse_Throughput): number {
  return step.succeeded + step.failed + step.canceled + step.refused;
}

function Spark({ steps }: { readonly steps: readonly GetOverviewResponse_Throughput[] }) {
  const w = words.value;
  const counts = steps.map(endedIn);
  const most = Math.max(1, ...counts);
  const last = counts.at(-1) ?? 0;
  return (
    <div class="spark">
      <div>
        <span class="k">{w.list.perMinute}</span>
        <span class="meta">{w.list.now(number(last))}</span>
      </div>
      <svg
        viewBox={`0 0 ${Math.max(1, counts.length) * 4 - 1} 44`}
        preserveAspectRatio="none"
        role="img"
        aria-label={w.list.spark(number(last), number(Math.max(0, ...counts)))}
      >
        {counts.map((count, i) => {
          const height = count === 0 ? 1 : Math.max(2, (count / most) * 44);
          return (
            <rect
              key={i}
              x={i * 4}
              y={44 - height}
              width="3"
              height={height}
              fill={i === counts.length - 1 ? 'var(--accent)' : 'var(--edge)'}
            />
          );
        })}
      </svg>
    </div>
  );
}
