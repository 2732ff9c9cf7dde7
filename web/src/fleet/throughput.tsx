// Jobs that ended, over time.
import type { GetOverviewResponse } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { msOf, number } from '../format.ts';
import { Facts } from '../job/side.tsx';
import { endedIn } from '../jobs/totals.tsx';
import { words } from '../words/words.ts';

const WIDTH = 320;
const HEIGHT = 132;

interface ThroughputProps {
  readonly overview: GetOverviewResponse | undefined;
  readonly spans: readonly { readonly label: string; readonly chosen: boolean; readonly choose: () => void }[];
}

export function Throughput({ overview, spans }: ThroughputProps) {
  const w = words.value.fleetPage;
  const steps = overview?.throughput ?? [];
  const perMinute = steps.map((step) => (60 * endedIn(step)) / Math.max(1, step.seconds));
  const most = Math.max(1, ...perMinute);
  const top = niceCeiling(most);
  const last = perMinute.at(-1) ?? 0;
  const points = perMinute.map(
    (value, i) => `${((i / Math.max(1, perMinute.length - 1)) * WIDTH).toFixed(1)},${(HEIGHT - (value / top) * HEIGHT).toFixed(1)}`,
  );
  const sum = (pick: (step: (typeof steps)[number]) => number) => steps.reduce((total, step) => total + pick(step), 0);
  const digits = top < 10 ? 1 : 0;
  return (
    <section class="panel" aria-labelledby="throughput-title">
      <header>
        <h2 id="throughput-title">{w.throughput}</h2>
        <fieldset class="seg push" aria-label={w.window}>
          {spans.map(({ label, chosen, choose }) => (
            <button key={label} type="button" aria-pressed={chosen} onClick={choose}>
              {label}
            </button>
          ))}
        </fieldset>
      </header>
      <div class="chart">
        <p class="meta">{w.perMinute}</p>
        <div class="plot">
          {[top, top / 2, 0].map((value, i) => (
            <span key={value} class={`y y${i}`}>
              {number(value, Number.isInteger(value) ? 0 : digits)}
            </span>
          ))}
          <svg
            viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
            preserveAspectRatio="none"
            role="img"
            aria-label={w.chart(number(Math.max(0, ...perMinute), digits), number(last, digits))}
          >
            {[0, HEIGHT / 2, HEIGHT].map((y) => (
              <path key={y} d={`M0 ${y}H${WIDTH}`} stroke="var(--line)" vector-effect="non-scaling-stroke" />
            ))}
            {points.length > 1 && (
              <polyline
                points={points.join(' ')}
                fill="none"
                stroke="var(--accent)"
                stroke-width="1.6"
                vector-effect="non-scaling-stroke"
                stroke-linejoin="round"
              />
            )}
          </svg>
        </div>
        <div class="ticks meta">
          <span>{tick(steps[0])}</span>
          <span class="push">{tick(steps.at(-1))}</span>
        </div>
        <Facts
          facts={[
            [w.now, w.aMinute(number(last, digits))],
            [w.succeeded, number(sum(({ succeeded }) => succeeded))],
            [w.failed, number(sum(({ failed, refused }) => failed + refused))],
            [w.canceled, number(sum(({ canceled }) => canceled))],
          ]}
        />
      </div>
    </section>
  );
}

/** 1, 2, 4, 10, 20, 40, ...: halves are round numbers too. */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 10].map((one) => one * power).find((one) => one >= value) ?? 10 * power;
}

function tick(step: GetOverviewResponse['throughput'][number] | undefined): string {
  const ms = msOf(step?.time);
  if (ms === undefined) return '';
  const then = new Date(ms);
  const { locale } = words.value;
  return Date.now() - ms > 2 * 86_400_000
    ? then.toLocaleDateString(locale, { day: 'numeric', month: 'short' })
    : then.toLocaleTimeString(locale, { hour: '2-digit', minute: '2-digit', hour12: false });
}
