// One batch as it goes on: how many of its jobs are where. Always true: after a break the stream goes on after the last change seen.
import { create, toJson } from '@bufbuild/protobuf';
import { type Signal, signal } from '@preact/signals';
import { type Batch, type GetBatchResultsResponse, GetBatchResultsResponseSchema } from '../../../gen/facefusion/jobs/v1/job_service_pb.js';
import { jobService } from './clients.ts';
import { plain } from './job-watch.ts';
import { followed, type WatchProblem } from './link.ts';

export class BatchWatch {
  readonly batch = signal<Batch | undefined>(undefined);
  readonly problem: Signal<WatchProblem | undefined>;
  readonly #id: string;
  readonly #stop = new AbortController();
  #token = '';

  constructor(id: string) {
    this.#id = id;
    this.problem = followed((attempt, alive) => this.#run(attempt, alive), this.#stop.signal);
  }

  close(): void {
    this.#stop.abort();
  }

  put(batch: Batch): void {
    this.batch.value = batch;
  }

  async #run(attempt: AbortSignal, alive: () => void): Promise<'done' | 'again'> {
    const { batch } = await jobService.getBatch({ batchId: this.#id }, { signal: attempt });
    this.batch.value = batch;
    alive();
    if (batch?.finishedAt) return 'done';
    for await (const change of jobService.watchBatch({ batchId: this.#id, watchToken: this.#token }, { signal: attempt })) {
      alive();
      this.#token = change.watchToken || this.#token;
      if (change.batch) this.batch.value = change.batch;
    }
    return this.batch.value?.finishedAt ? 'done' : 'again';
  }
}

/** What became of each job, with URLs signed now, as REST has it. */
export function manifestJson(results: GetBatchResultsResponse): unknown {
  return plain(
    toJson(GetBatchResultsResponseSchema, create(GetBatchResultsResponseSchema, results), {
      useProtoFieldName: true,
      alwaysEmitImplicit: true,
    }),
  );
}
