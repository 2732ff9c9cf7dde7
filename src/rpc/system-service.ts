// SystemService: what the engine can do, how the slots are and which of them are in service, how the queue is.
import { create } from '@bufbuild/protobuf';
import { durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  DrainSlotsResponseSchema,
  GetCapabilitiesResponseSchema,
  GetOverviewResponseSchema,
  ListSlotsResponseSchema,
  type Node,
  OptionSchema,
  ProcessorSchema,
  RestoreSlotsResponseSchema,
  type Slot,
  type SystemService,
  WorkerState,
} from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import type { Place } from '../jobs/drains.ts';
import type { Engine } from '../jobs/engine.ts';
import { JobStatus } from '../jobs/job.ts';
import { ALIASES, parametersSchema } from '../jobs/parameters.ts';
import type { JobStore } from '../jobs/ports.ts';
import { allowedCapabilities, type TenantPolicy } from '../jobs/tenants.ts';
import { callerOf } from './authorize.ts';
import { durationOf, secondsPerJob } from './estimate.ts';
import { RecentRuns } from './recent-runs.ts';

/** Takes slots out of service and puts them back. `known`: all that there are; throws NODE_NOT_FOUND or SLOT_NOT_FOUND where the place is none of them. */
export interface SlotDrains {
  drain(place: Place, why: { readonly by: string; readonly reason: string }, known: readonly Slot[]): Promise<void>;
  restore(place: Place, by: string, known: readonly Slot[]): Promise<void>;
}

export interface SystemServiceOptions {
  readonly version: string;
  readonly store: JobStore;
  readonly engine: () => Engine;
  readonly slots: () => Slot[];
  readonly nodes: () => Node[];
  readonly drains: SlotDrains;
  readonly referenceSchemes: (tenant: string) => readonly string[];
  readonly watchers: () => number;
  readonly policyOf: (tenant: string) => TenantPolicy;
}

const HOUR_MS = 3_600_000;

export function createSystemService(options: SystemServiceOptions): ServiceImpl<typeof SystemService> {
  const recentRuns = new RecentRuns(options.store);
  return {
    getCapabilities(_request, context) {
      const { tenant } = callerOf(context).identity;
      const { name, version, capabilities: all } = options.engine();
      const capabilities = allowedCapabilities(all, options.policyOf(tenant).denied);
      return create(GetCapabilitiesResponseSchema, {
        serviceVersion: options.version,
        engine: { name, version },
        processors: capabilities.processors.map(({ $typeName, ...one }) => create(ProcessorSchema, one)),
        options: capabilities.options.map(({ $typeName, dependentChoices, ...one }) =>
          create(OptionSchema, {
            ...one,
            dependentChoices: dependentChoices.map(({ option, value, choices }) => ({ option, value, choices })),
          }),
        ),
        aliases: ALIASES.map((one) => ({ name: one.name, options: [...one.options], help: one.help })),
        ignoredOptions: capabilities.ignoredOptions,
        imageFormats: capabilities.imageFormats,
        videoFormats: capabilities.videoFormats,
        referenceSchemes: [...options.referenceSchemes(tenant)],
        parametersSchema: parametersSchema(name, capabilities),
      });
    },

    async listSlots(_request, context) {
      const { seesAll, tenant } = callerOf(context).identity;
      const slots = options.slots();
      const nodes = options.nodes();
      if (seesAll) return create(ListSlotsResponseSchema, { slots, nodes });
      return create(ListSlotsResponseSchema, {
        slots: await Promise.all(slots.map((slot) => ownView(slot, tenant))),
        nodes: nodes.filter(({ away }) => !away).map(({ node, gpus }) => ({ node, gpus })),
      });
    },

    async drainSlots({ node, slot, reason }, context) {
      const place = { node, slot: slot || undefined };
      await options.drains.drain(place, { by: callerOf(context).identity.name, reason: oneLine(reason) }, options.slots());
      return create(DrainSlotsResponseSchema, { slots: slotsAt(place) });
    },

    async restoreSlots({ node, slot }, context) {
      const place = { node, slot: slot || undefined };
      await options.drains.restore(place, callerOf(context).identity.name, options.slots());
      return create(RestoreSlotsResponseSchema, { slots: slotsAt(place) });
    },

    async getOverview({ window }, context) {
      const { seesAll, tenant } = callerOf(context).identity;
      const overview = await options.store.overview(window ? durationMs(window) : HOUR_MS);
      const recent = await recentRuns.of(tenant, seesAll ? overview.queueByTenant : []);
      const pace = secondsPerJob(overview);
      const total = (status: JobStatus) => overview.totals.get(status) ?? 0;
      const slots = options.slots();
      return create(GetOverviewResponseSchema, {
        // Of all tenants, and so for those who may see all.
        totals: !seesAll
          ? undefined
          : {
              queued: total(JobStatus.QUEUED),
              processing: total(JobStatus.PROCESSING),
              succeeded: total(JobStatus.SUCCEEDED),
              failed: total(JobStatus.FAILED),
              canceled: total(JobStatus.CANCELED),
              refused: total(JobStatus.REFUSED),
            },
        queueByTenant: overview.queueByTenant
          .filter((one) => seesAll || one.tenant === tenant)
          .map(({ oldestQueuedMs, ...one }) => ({
            ...one,
            oldestQueuedAt: oldestQueuedMs === undefined ? undefined : timestampFromMs(oldestQueuedMs),
          })),
        throughput: !seesAll
          ? []
          : overview.throughput.map(({ startMs, ended }) => ({
              time: timestampFromMs(startMs),
              seconds: overview.stepSeconds,
              succeeded: ended.get(JobStatus.SUCCEEDED) ?? 0,
              failed: ended.get(JobStatus.FAILED) ?? 0,
              canceled: ended.get(JobStatus.CANCELED) ?? 0,
              refused: ended.get(JobStatus.REFUSED) ?? 0,
            })),
        slots: slots.length,
        slotsBusy: slots.filter((slot) => slot.state === WorkerState.BUSY || slot.state === WorkerState.STOPPING).length,
        watchers: seesAll ? options.watchers() : 0,
        pace: pace === undefined ? undefined : durationOf(pace),
        recentRuns: recent,
      });
    },
  };

  function slotsAt({ node, slot }: Place): Slot[] {
    return options.slots().filter((one) => one.node === node && (slot === undefined || one.slot === slot));
  }

  /** A slot without what is another tenant's, or the operator's. */
  async function ownView({ jobId, pid, problem, drain, ...slot }: Slot, tenant: string): Promise<Slot> {
    const own = jobId !== undefined && (await options.store.get(jobId))?.tenant === tenant;
    return { ...slot, jobId: own ? jobId : undefined, problem: problem && 'the worker is not up' };
  }
}

/** It is shown in lists and logs. */
function oneLine(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ').trim();
}
