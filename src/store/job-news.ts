// What a step has to tell of a job: its event, the receivers that are to hear of it, and its batch. Always true here, inside the steps that call: it is written
// with the step, and shown when the step may be.
import type { JobEvent } from '../../gen/facefusion/jobs/v1/event_pb.js';
import { batchMove } from '../jobs/batches.ts';
import { isTerminal, type Job } from '../jobs/job.ts';
import { eventOf } from '../jobs/steps.ts';
import { deliveryOf, type WebhookRules } from '../jobs/webhooks.ts';
import type { BatchTable } from './batch-table.ts';
import type { JobEvents } from './job-events.ts';
import type { JobTable, StoredJob } from './job-table.ts';
import type { WebhookTable } from './webhook-table.ts';
import type { Writer } from './writer.ts';

export interface JobNewsOptions {
  readonly table: JobTable;
  readonly events: JobEvents;
  readonly batches: BatchTable;
  /** A job has failed that takes the rest of its batch with it; told after COMMIT. */
  readonly stopBatches: () => void;
  readonly webhooks: WebhookTable;
  readonly webhookRules: WebhookRules;
  /** A delivery has come to be due; told when it is on the disk. */
  readonly deliveryDue: () => void;
  /** A job has ended; told after COMMIT. */
  readonly ended: (job: Job) => void;
  readonly tx: Pick<Writer, 'committed' | 'told'>;
}

export class JobNews {
  readonly #options: JobNewsOptions;

  constructor(options: JobNewsOptions) {
    this.#options = options;
  }

  /** The job has an event more, with its sequence. */
  event({ num, job }: StoredJob, body: JobEvent['event'], nowMs: number): void {
    const { table, events, tx } = this.#options;
    const event = eventOf(job, body, nowMs);
    table.appendEvent(num, event);
    tx.told(job.jobId, () => events.publish(job.jobId, event, isTerminal(job.status)));
  }

  /** The job has another status. `before` undefined: it is new. */
  status(before: Job | undefined, after: Job, nowMs: number): void {
    const { webhooks, webhookRules, deliveryDue, ended, tx } = this.#options;
    if (isTerminal(after.status)) tx.committed(() => ended(after));
    const delivery = deliveryOf(before, after, webhookRules);
    if (!delivery) return;
    webhooks.add(delivery, after, nowMs);
    tx.told(after.jobId, deliveryDue);
  }

  /** The job is further than it was. */
  moved(before: Job, after: Job, nowMs: number): void {
    const move = batchMove(before, after);
    if (!move) return;
    const { batches, tx, stopBatches } = this.#options;
    if (batches.moved(move, nowMs)) tx.committed(stopBatches);
    // What is told of the job is told of its batch.
    tx.told(move.batchId, () => {});
  }
}
