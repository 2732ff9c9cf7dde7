// SystemService: what the engine can do, how the slots are, how the queue is.
import { create } from '@bufbuild/protobuf';
import { durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  GetCapabilitiesResponseSchema,
  GetOverviewResponseSchema,
  ListSlotsResponseSchema,
  OptionSchema,
  ProcessorSchema,
  type Slot,
  type SystemService,
  WorkerState,
} from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { JobStatus } from '../jobs/job.ts';
import { ALIASES, parametersSchema } from '../jobs/parameters.ts';
import type { JobStore } from '../jobs/ports.ts';
import type { Engine } from './admission.ts';

export interface SystemServiceOptions {
  readonly version: string;
  readonly store: JobStore;
  readonly engine: () => Engine;
  readonly slots: () => Slot[];
  readonly referenceSchemes: readonly string[];
  readonly watchers: () => number;
}

const HOUR_MS = 3_600_000;

export function createSystemService(options: SystemServiceOptions): ServiceImpl<typeof SystemService> {
  return {
    getCapabilities() {
      const { name, version, capabilities } = options.engine();
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
        referenceSchemes: [...options.referenceSchemes],
        parametersSchema: parametersSchema(name, capabilities),
      });
    },

    listSlots: () => create(ListSlotsResponseSchema, { slots: options.slots() }),

    async getOverview({ window }) {
      const overview = await options.store.overview(window ? durationMs(window) : HOUR_MS);
      const total = (status: JobStatus) => overview.totals.get(status) ?? 0;
      const slots = options.slots();
      return create(GetOverviewResponseSchema, {
        totals: {
          queued: total(JobStatus.QUEUED),
          processing: total(JobStatus.PROCESSING),
          succeeded: total(JobStatus.SUCCEEDED),
          failed: total(JobStatus.FAILED),
          canceled: total(JobStatus.CANCELED),
          refused: total(JobStatus.REFUSED),
        },
        queueByTenant: overview.queueByTenant.map((one) => ({ ...one })),
        throughput: overview.throughput.map(({ startMs, ended }) => ({
          time: timestampFromMs(startMs),
          seconds: overview.stepSeconds,
          succeeded: ended.get(JobStatus.SUCCEEDED) ?? 0,
          failed: ended.get(JobStatus.FAILED) ?? 0,
          canceled: ended.get(JobStatus.CANCELED) ?? 0,
          refused: ended.get(JobStatus.REFUSED) ?? 0,
        })),
        slots: slots.length,
        slotsBusy: slots.filter((slot) => slot.state === WorkerState.BUSY || slot.state === WorkerState.STOPPING).length,
        watchers: options.watchers(),
      });
    },
  };
}
