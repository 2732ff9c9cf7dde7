// What is done for a job on this node around its run, by whoever opens the scheduler: this folder knows slots and workers, and neither media nor results.
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Done, RunSchema } from '../../gen/facefusion/worker/v1/worker_pb.js';
import type { Failure, Job, MediaResult } from '../jobs/job.ts';
import type { MarkingPlan } from '../jobs/marking.ts';
import type { Lease, Match } from '../jobs/ports.ts';

/** What a job needs on this machine, as local files. */
export type Prepared = Pick<
  MessageInitShape<typeof RunSchema>,
  'sourcePaths' | 'sourceAudioPath' | 'targetPath' | 'targetKind' | 'outputFormat' | 'parameters'
> & {
  readonly warnings?: readonly string[];
  /** As far as the run may be one with others; undefined: it is not. `keepMs`: how long its result is kept for them, in milliseconds. */
  readonly like?: Pick<Match, 'fingerprint' | 'runs'> & { readonly keepMs: number };
  /** Undefined: the result is stored as the engine leaves it. */
  readonly marking?: MarkingPlan;
};

/** Told how many bytes, of how many, have been moved. */
export type ReportBytes = (done: number, total: number) => void;

/**
 * Brings the job's inputs into `folder`, or as far as they are local says where they are. A failure that the caller should read is returned
 * or thrown as `JobsError`. Ends soon after `signal` aborts, and leaves nothing running. `report` is for bytes that have to come from elsewhere.
 */
export type Prepare = (
  job: Job,
  folder: string,
  signal: AbortSignal,
  report: ReportBytes,
  inputs: Lease['inputs'],
) => Promise<Prepared | Failure>;

/** A result on its way to where it is kept. */
export interface Delivering {
  readonly job: Job;
  readonly signal: AbortSignal;
  /** For bytes that have to be sent elsewhere. */
  readonly report: ReportBytes;
}

/** As it comes from the engine. */
export interface StoreContext extends Delivering {
  readonly done: Done;
  /** `Lease.pin` */
  readonly pin: Lease['pin'];
  readonly marking: MarkingPlan | undefined;
  /** Of the job, for its caller. */
  readonly warn: (warnings: readonly string[]) => void;
}

export interface Work {
  /**
   * Before a job takes a place among those whose inputs are brought: until this machine can take more, so that who waits for that delays nobody. Throws
   * `JobsError` where that will not be; ends soon after `signal` aborts.
   */
  readonly admit?: (signal: AbortSignal) => Promise<void>;
  readonly prepare: Prepare;
  /** Makes a prepared work folder the engine's, where that runs as another user. */
  readonly handOver?: ((folder: string) => Promise<void>) | undefined;
  /**
   * Whether the bytes of a result that is known are there. They need not be where a store was put back from a replica or a copy: the bytes come
   * by another way, and may be late. Not given: they are.
   */
  readonly hasBytes?: (result: MediaResult) => Promise<boolean>;
  /**
   * Stores the engine's output for good, once `pin` has settled for its key. Tried again when it throws; a failure that no further try mends is
   * returned. Ends soon after `signal` aborts.
   */
  readonly storeResult: (outputPath: string, context: StoreContext) => Promise<MediaResult | Failure>;
  /**
   * What has to be done with a result that is there already, before the job ends with it: `path` is free for its bytes. As `storeResult`, for jobs that
   * want a copy of their own.
   */
  readonly takeResult?: (result: MediaResult, path: string, context: Delivering) => Promise<MediaResult | Failure>;
  /** How long a job's result is kept after its end, in milliseconds; undefined: as long as the job. */
  readonly retentionMs?: (job: Job) => number | undefined;
}
