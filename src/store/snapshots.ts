// What watchers of one job begin with. Always true: it is one object for all who ask while nothing of it changes, so that it is encoded once.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type JobEvent, JobEventSchema, SnapshotSchema } from '../../gen/facefusion/jobs/v1/event_pb.js';
import type { Job } from '../jobs/job.ts';

export class Snapshots {
  #last: JobEvent | undefined;

  /** Of the job as callers see it now. */
  of(job: Job, reset: boolean, nowMs: number): JobEvent {
    const last = this.#last;
    if (last?.event.case === 'snapshot' && last.event.value.reset === reset) {
      const seen = last.event.value.job!;
      if (seen.sequence === job.sequence && seen.updatedAt === job.updatedAt && seen.queuePosition === job.queuePosition) return last;
    }
    const value = create(SnapshotSchema, { reset });
    value.job = job;
    const time = timestampFromMs(nowMs);
    this.#last = create(JobEventSchema, { sequence: job.sequence, time, event: { case: 'snapshot', value } });
    return this.#last;
  }
}
