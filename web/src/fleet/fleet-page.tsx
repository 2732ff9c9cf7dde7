// The machines: what each slot does, how it is, who waits, and the pace of the work.
import { signal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Job } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import {
  type GetOverviewResponse,
  type Node as Machine,
  type Node_Gpu,
  type Slot,
  WorkerState,
} from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { bytes, countdown, msOf, number, percent, roughly, secondsOf } from '../format.ts';
import { isOver, nameOf, shownStatus } from '../jobs/status.ts';
import { type Acts, useActs } from '../parts/acts.tsx';
import { Icon, type IconName } from '../parts/icons.tsx';
import { Pair } from '../parts/pair.tsx';
import { AfterAMoment, Bar, Meter, Note, now } from '../parts/small.tsx';
import { href } from '../router.ts';
import { jobService, systemService } from '../service/clients.ts';
import { askIdentity, mayAdminister } from '../service/identity.ts';
import { poll } from '../service/link.ts';
import { lastHour, nodes as machines, oldestQueued, overviewProblem, slots } from '../service/overview.ts';
import { words } from '../words/words.ts';
import { DrainForm, isDrained, OutOfService, putBack, saidOf } from './drain.tsx';
import { Throughput } from './throughput.tsx';

type Span = 'hour' | 'day' | 'week';
const SECONDS: Readonly<Record<Span, bigint>> = { hour: 3600n, day: 86_400n, week: 604_800n };
const IDENTITY_MS = 60_000;
const REFRESH_MS: Readonly<Record<Span, number>> = { hour: 5_000, day: 20_000, week: 60_000 };

const span = signal<Span>('hour');
const spanned = signal<{ readonly span: Span; readonly overview: GetOverviewResponse } | undefined>(undefined);
/** Jobs that are on a slot now, by id. */
const running = signal<ReadonlyMap<string, Job>>(new Map());

export function FleetPage() {
  const w = words.value;
  const chosen = span.value;
  useEffect(() => {
    const stop = new AbortController();
    void poll(
      REFRESH_MS[chosen],
      async (signal) => {
        spanned.value = { span: chosen, overview: await systemService.getOverview({ window: { seconds: SECONDS[chosen] } }, { signal }) };
      },
      stop.signal,
    ).catch(() => {});
    return () => stop.abort();
  }, [chosen]);
  useEffect(() => {
    const stop = new AbortController();
    void poll(IDENTITY_MS, askIdentity, stop.signal).catch(() => {});
    return () => stop.abort();
  }, []);
  const acts = useActs();
  const busy = (slots.value ?? []).map(({ jobId }) => jobId).join(' ');
  useEffect(() => {
    const stop = new AbortController();
    void poll(
      1500,
      async (signal) => {
        const ids = (slots.value ?? []).map(({ jobId }) => jobId).filter((id) => id !== undefined);
        const found = await Promise.allSettled(ids.map((jobId) => jobService.get({ jobId }, { signal })));
        signal.throwIfAborted();
        const jobs = found.map((one) => (one.status === 'fulfilled' ? one.value.job : undefined)).filter((job) => job !== undefined);
        running.value = new Map(jobs.filter((job) => !isOver(job.status)).map((job) => [job.jobId, job]));
      },
      stop.signal,
    ).catch(() => {});
    return () => stop.abort();
  }, [busy]);

  const all = slots.value;
  const overview = lastHour.value;
  const nodes = Map.groupBy(all ?? [], ({ node }) => node);
  return (
    <>
      <div class="head">
        <h1>{w.fleet}</h1>
        {all && (
          <span class="meta">
            {w.fleetPage.sub(nodes.size, all.length)}
            {overview && overview.watchers > 0 && `${w.comma}${w.fleetPage.watchers(overview.watchers)}`}
          </span>
        )}
      </div>
      {overviewProblem.value !== undefined && (
        <Note kind="warn" role="status">
          {overviewProblem.value}
        </Note>
      )}
      {acts.note}
      {!all || !overview ? (
        <AfterAMoment>
          <section class="panel pad" aria-busy="true" aria-label={w.fleetPage.loading}>
            <span class="skel wide" />
          </section>
        </AfterAMoment>
      ) : (
        <>
          <Figures all={all} overview={overview} />
          <div class="fleet">
            <div>
              {all.length === 0 && <section class="panel pad quiet">{w.fleetPage.noSlots}</section>}
              {[...nodes].map(([node, of]) => (
                <Node key={node} node={node} slots={of} machine={machines.value.find((one) => one.node === node)} acts={acts} />
              ))}
              {machines.value.map((one) => one.away && <Away key={one.node} machine={one} acts={acts} />)}
            </div>
            <div>
              <Throughput
                overview={spanned.value?.span === chosen ? spanned.value.overview : undefined}
                spans={(['hour', 'day', 'week'] as const).map((one) => ({
                  label: w.fleetPage[one],
                  chosen: one === chosen,
                  choose: () => (span.value = one),
                }))}
              />
              <Queue overview={overview} />
            </div>
          </div>
        </>
      )}
    </>
  );
}

function Figures({ all, overview }: { readonly all: readonly Slot[]; readonly overview: GetOverviewResponse }) {
  const w = words.value.fleetPage;
  const busy = all.filter(({ state }) => state === WorkerState.BUSY || state === WorkerState.STOPPING);
  const uses = busy.map(({ gpuUtilization }) => gpuUtilization).filter((use) => use !== undefined);
  const drained = all.filter(isDrained).length;
  const queued = overview.queueByTenant.reduce((sum, one) => sum + one.queued, 0);
  const oldest = oldestQueued(overview);
  const median = secondsOf(overview.recentRuns?.medianWait);
  const most = secondsOf(overview.recentRuns?.waitP95);
  // Whole seconds: what is shorter is no wait.
  const whole = (seconds: number) => countdown(Math.max(1, seconds));
  const restarting = all.filter(({ state }) => state === WorkerState.BACKING_OFF).length;
  const figures = [
    [w.atWork, number(busy.length), w.ofSlots(all.length, drained, restarting)],
    [
      w.gpuUse,
      uses.length > 0 ? percent((100 * uses.reduce((a, b) => a + b, 0)) / uses.length) : '–',
      uses.length > 0 ? w.gpuMean : w.gpuUnknown,
    ],
    [w.waiting, number(queued), oldest === undefined ? w.noneWaits : w.oldest(roughly((now.value - oldest) / 1000))],
    [
      w.wait,
      median === undefined ? '–' : median < 1 ? `< ${whole(median)}` : whole(median),
      most === undefined ? w.waitUnknown : w.waitMost(whole(most)),
    ],
  ] as const;
  return (
    <section class="totals four" aria-label={words.value.list.totals}>
      {figures.map(([name, value, small]) => (
        <div key={name}>
          <span class="k">{name}</span>
          <span class="line">
            <span class="v">{value}</span>
            <span class="meta">{small}</span>
          </span>
        </div>
      ))}
    </section>
  );
}

/** A node that is gone, and that will be out of service when it comes again. */
function Away({ machine: { node, drain }, acts: { run } }: { readonly machine: Machine; readonly acts: Acts }) {
  const w = words.value.fleetPage;
  const id = nodeId(node);
  return (
    <section class="panel" aria-labelledby={id}>
      <header>
        <h2 id={id} class="node clip">
          {node}
        </h2>
        <span class="quiet small">{w.away}</span>
        {mayAdminister.value && (
          <button class="btn ghost push" type="button" onClick={() => void run(() => putBack(node))}>
            {w.putBack}
            <span class="sr"> {node}</span>
          </button>
        )}
      </header>
      {drain && <p class="pad quiet">{saidOf({ ...drain, wholeNode: false })}</p>}
    </section>
  );
}

interface NodeProps {
  readonly node: string;
  readonly slots: readonly Slot[];
  readonly machine: Machine | undefined;
  readonly acts: Acts;
}

const nodeId = (node: string) => `node-${node.replace(/[^\w-]/g, '_')}`;

function Node({ node, slots: of, machine, acts: { run } }: NodeProps) {
  const w = words.value.fleetPage;
  const id = nodeId(node);
  const gpus = machine?.gpus ?? [];
  const [asking, setAsking] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  const isOut = of.every(({ drain }) => drain);
  const close = () => {
    setAsking(false);
    button.current?.focus();
  };
  return (
    <section class="panel" aria-labelledby={id}>
      <header>
        <h2 id={id} class="node clip">
          {node}
        </h2>
        <span class="quiet small gpus">{gpuWords(gpus, of)}</span>
        <span class="meta only-wide">
          {[
            machine?.gpuDriver && w.driver(machine.gpuDriver),
            machine?.diskFreeBytes !== undefined && w.diskFree(bytes(machine.diskFreeBytes)),
            ...new Set(of.map(({ engine }) => engine && `${engine.name} ${engine.version}`)),
          ]
            .filter(Boolean)
            .join(words.value.comma)}
        </span>
        {mayAdminister.value && (
          <button
            ref={button}
            class="btn ghost push"
            type="button"
            {...(isOut ? {} : { 'aria-expanded': asking, 'aria-controls': `${id}-drain` })}
            onClick={() => (isOut ? void run(() => putBack(node)) : setAsking(!asking))}
          >
            {isOut ? w.putBack : w.drain}
            <span class="sr"> {node}</span>
          </button>
        )}
      </header>
      {asking && !isOut && <DrainForm id={`${id}-drain`} node={node} slots={of} run={run} close={close} />}
      <table class="slots">
        <thead>
          <tr>
            <th scope="col">{w.slotColumn}</th>
            <th scope="col">{w.stateColumn}</th>
            <th scope="col">{gpus.length > 0 ? w.gpuMemoryColumn : w.memoryColumn}</th>
            <th scope="col">{w.jobColumn}</th>
            <th scope="col">{w.modelsColumn}</th>
          </tr>
        </thead>
        <tbody>
          {of.map((slot) => (
            <SlotRow key={slot.slot} slot={slot} gpu={gpus.find(({ index }) => index === slot.gpu)} run={run} />
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** `2 × NVIDIA H100 80GB`; where the driver does not tell, which devices the slots have. */
function gpuWords(gpus: readonly Node_Gpu[], of: readonly Slot[]): string {
  const w = words.value.fleetPage;
  const names = [...Map.groupBy(gpus, ({ name }) => name)].map(([name, { length }]) => (length > 1 ? `${length} × ${name}` : name));
  if (names.length > 0) return names.join(words.value.comma);
  const indices = [...new Set(of.map(({ gpu }) => gpu).filter((gpu) => gpu !== undefined))];
  return indices.length > 0 ? indices.map((gpu) => w.gpu(gpu)).join(words.value.comma) : w.cpu;
}

/** As GPUs are sold: in units of 2^30. */
function gigabytes(count: bigint, digits: number): string {
  return number(Number(count) / 2 ** 30, digits);
}

/** Above this share of its memory a GPU is shown as nearly full. */
const NEARLY_FULL = 0.9;

const STATES: Readonly<
  Record<WorkerState, { readonly look: string; readonly icon: IconName; readonly word: keyof typeof words.value.fleetPage.state }>
> = {
  [WorkerState.UNSPECIFIED]: { look: 'queued', icon: 'queued', word: 'starting' },
  [WorkerState.STARTING]: { look: 'queued', icon: 'queued', word: 'starting' },
  [WorkerState.IDLE]: { look: 'succeeded', icon: 'check', word: 'idle' },
  [WorkerState.BUSY]: { look: 'running', icon: 'running', word: 'busy' },
  [WorkerState.STOPPING]: { look: 'stopping', icon: 'stopping', word: 'stopping' },
  [WorkerState.BACKING_OFF]: { look: 'stopping', icon: 'again', word: 'restarting' },
  [WorkerState.CLOSED]: { look: 'canceled', icon: 'canceled', word: 'closed' },
};

function SlotRow({ slot, gpu, run }: { readonly slot: Slot; readonly gpu: Node_Gpu | undefined; readonly run: Acts['run'] }) {
  const w = words.value.fleetPage;
  const { look, icon, word } = isDrained(slot)
    ? { look: 'canceled', icon: 'canceled' as const, word: 'drained' as const }
    : STATES[slot.state];
  const up = msOf(slot.upSince);
  const next = msOf(slot.nextStartAt);
  const use = slot.gpuUtilization;
  const job = slot.jobId === undefined ? undefined : running.value.get(slot.jobId);
  return (
    <tr>
      <td>
        <b>{w.slot(slot.slot)}</b>
        <br />
        <span class="meta">
          {[up !== undefined && w.up(roughly((now.value - up) / 1000)), w.jobsDone(slot.jobsDone)].filter(Boolean).join(words.value.comma)}
        </span>
      </td>
      <td>
        <span class={`chip ${look}`}>
          <Icon name={icon} />
          {w.state[word]}
        </span>
        {slot.restarts > 0 && <div class="meta">{w.restarts(slot.restarts)}</div>}
      </td>
      <td>
        <div class="row small use">
          <span>
            {gpu
              ? w.memoryOf(gigabytes(gpu.memoryUsedBytes, 1), gigabytes(gpu.memoryBytes, 0))
              : slot.memoryBytes !== undefined && bytes(slot.memoryBytes)}
          </span>
          {use !== undefined && <span class="push quiet">{percent(use * 100)}</span>}
        </div>
        {gpu && <GpuMemory gpu={gpu} />}
      </td>
      <td>
        {job ? (
          <div class="job">
            <Pair job={job} />
            <div>
              <div class="row">
                <a class="name clip" href={href(`jobs/${job.jobId}`)}>
                  {nameOf(job)}
                </a>
                <span class="push nowrap">{percent(job.progress)}</span>
              </div>
              <Bar job={job} stopping={shownStatus(job) === 'stopping'} />
            </div>
          </div>
        ) : slot.jobId !== undefined ? (
          <a class="mono" href={href(`jobs/${slot.jobId}`)}>
            {slot.jobId}
          </a>
        ) : (
          <span class={slot.problem ? 'why' : 'quiet'}>
            {slot.problem ?? (slot.state === WorkerState.IDLE && !slot.draining ? w.noJob : '')}
            {next !== undefined && ` ${w.nextStart(countdown(Math.max(0, (next - now.value) / 1000)))}`}
          </span>
        )}
        <OutOfService slot={slot} run={run} />
      </td>
      <td>
        <div class="models">
          {slot.warmModels.map((model) => (
            <span class="tag" key={model}>
              {model}
            </span>
          ))}
          {slot.warmModels.length === 0 && <span class="meta">{w.noModels}</span>}
        </div>
      </td>
    </tr>
  );
}

function GpuMemory({ gpu: { memoryBytes, memoryUsedBytes } }: { readonly gpu: Node_Gpu }) {
  const share = Number(memoryUsedBytes) / Math.max(1, Number(memoryBytes));
  return <Meter value={share * 100} kind={share > NEARLY_FULL ? 'warn' : ''} label={words.value.fleetPage.gpuMemory} />;
}

function Queue({ overview }: { readonly overview: GetOverviewResponse }) {
  const w = words.value.fleetPage;
  const queues = overview.queueByTenant.filter(({ queued, processing }) => queued + processing > 0);
  const most = Math.max(1, ...queues.map(({ queued }) => queued));
  const all = queues.reduce((sum, { queued }) => sum + queued, 0);
  return (
    <section class="panel" aria-labelledby="queue-title">
      <header>
        <h2 id="queue-title">{w.queueByTenant}</h2>
        <span class="meta push">{w.jobsCount(number(all))}</span>
      </header>
      {queues.length === 0 && <p class="pad quiet">{w.noQueue}</p>}
      {queues.map(({ tenant, queued, processing, oldestQueuedAt }) => (
        <div class="tenant" key={tenant}>
          <div class="row">
            <b>{tenant}</b>
            <span class="push">
              <b>{number(queued)}</b> {w.waitingCount}
            </span>
          </div>
          <Meter value={(100 * queued) / most} />
          <div class="row meta">
            {oldestQueuedAt && <span>{w.oldest(roughly((now.value - msOf(oldestQueuedAt)!) / 1000))}</span>}
            <span class="push">{w.runningCount(number(processing))}</span>
          </div>
        </div>
      ))}
    </section>
  );
}
