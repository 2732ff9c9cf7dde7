// How the service is: its engine, its slots, its queue. Asked for while a page is visible; the answer to each question is one signal.
import { timestampNow } from '@bufbuild/protobuf/wkt';
import { effect, signal } from '@preact/signals';
import { type Job, JobStatus, WaitReason } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import {
  type GetCapabilitiesResponse,
  type GetOverviewResponse,
  type Node,
  type Slot,
  WorkerState,
} from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { msOf, secondsOf } from '../format.ts';
import { systemService } from './clients.ts';
import { isPassing, messageOf } from './errors.ts';
import { key } from './key.ts';
import { poll } from './link.ts';

export const capabilities = signal<GetCapabilitiesResponse | undefined>(undefined);
export const slots = signal<readonly Slot[] | undefined>(undefined);
export const nodes = signal<readonly Node[]>([]);
/** A job's `NODE/SLOT`; where all slots are one node's, that goes without saying. */
export function slotWords(slot: string): string {
  const nodes = new Set((slots.value ?? []).map(({ node }) => node));
  return nodes.size <= 1 ? slot.slice(slot.lastIndexOf('/') + 1) : slot;
}

/**
 * Seconds until a queued job is likely to start, by the pace of the last hour; undefined: nothing tells, or it waits for something else than its turn.
 */
export function startsIn({ status, queuePosition, waitReason, cancelRequestedAt }: Job): number | undefined {
  if (status !== JobStatus.QUEUED || queuePosition === undefined || cancelRequestedAt) return undefined;
  if (waitReason !== WaitReason.UNSPECIFIED && waitReason !== WaitReason.SLOT) return undefined;
  const pace = secondsOf(lastHour.value?.pace);
  if (pace === undefined || slots.value === undefined) return undefined;
  const free = slots.value.filter(({ state, draining }) => state === WorkerState.IDLE && !draining).length;
  return Math.max(0, queuePosition + 1 - free) * pace;
}

/** When the job that has been queued for longest was submitted, of all that the caller sees. Milliseconds since 1970. */
export function oldestQueued(overview: GetOverviewResponse): number | undefined {
  const all = overview.queueByTenant.map(({ oldestQueuedAt }) => msOf(oldestQueuedAt)).filter((ms) => ms !== undefined);
  return all.length > 0 ? Math.min(...all) : undefined;
}

/** Of the last hour, by the minute. */
export const lastHour = signal<GetOverviewResponse | undefined>(undefined);
/** Jobs that ended since midnight. */
export const today = signal<{ readonly succeeded: number; readonly failed: number; readonly refused: number } | undefined>(undefined);

const EVERY_MS = 4_000;
const TODAY_MS = 20_000;

/** Why the service does not tell: this key may not see it. */
export const overviewProblem = signal<string | undefined>(undefined);

/** Asks until `stop`; where it is not allowed to, again with the next key. */
export async function followOverview(stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    const asked = key.value;
    try {
      await ask(stop);
    } catch (error) {
      overviewProblem.value = messageOf(error);
      await changed(asked);
      overviewProblem.value = undefined;
    }
  }
}

function changed(from: string): Promise<void> {
  return new Promise((resolve) => {
    const stop = effect(() => {
      if (key.value === from) return;
      queueMicrotask(() => stop());
      resolve();
    });
  });
}

async function ask(stop: AbortSignal): Promise<void> {
  let todayAt = Number.NEGATIVE_INFINITY;
  await poll(
    EVERY_MS,
    async (signal) => {
      const [overview, listed] = await Promise.all([systemService.getOverview({}, { signal }), systemService.listSlots({}, { signal })]);
      lastHour.value = overview;
      slots.value = listed.slots;
      nodes.value = listed.nodes;
      if (capabilities.value === undefined) await askCapabilities(signal);
      if (performance.now() - todayAt < TODAY_MS) return;
      today.value = await sinceMidnight(signal);
      todayAt = performance.now();
    },
    stop,
  );
}

/** Unknown until the first worker is warm; asked again with the next round. */
async function askCapabilities(signal: AbortSignal): Promise<void> {
  try {
    capabilities.value = await systemService.getCapabilities({}, { signal });
  } catch (error) {
    if (!isPassing(error) || signal.aborted) throw error;
  }
}

async function sinceMidnight(signal: AbortSignal) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const seconds = timestampNow().seconds - BigInt(Math.floor(midnight / 1000));
  const { throughput } = await systemService.getOverview({ window: { seconds: seconds > 0n ? seconds : 1n } }, { signal });
  const sum = { succeeded: 0, failed: 0, refused: 0 };
  for (const step of throughput) {
    sum.succeeded += step.succeeded;
    sum.failed += step.failed;
    sum.refused += step.refused;
  }
  return sum;
}
