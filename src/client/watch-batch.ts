// How a batch goes, over as many connections as it takes: each one resumes after the last change seen. Ends when the batch has finished and all is
// told; throws only what a new connection cannot mend.
import { create } from '@bufbuild/protobuf';
import type { Client, ConnectError } from '@connectrpc/connect';
import { type JobService, type WatchBatchResponse, WatchBatchResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { Reconnects, type ResumeOptions } from './reconnects.ts';

export async function* watchBatch(
  jobs: Pick<Client<typeof JobService>, 'watchBatch' | 'getBatch'>,
  batchId: string,
  options: ResumeOptions = {},
): AsyncGenerator<WatchBatchResponse, void> {
  const reconnects = new Reconnects(options);
  const { signal } = reconnects;
  let watchToken = '';
  while (true) {
    let lost: ConnectError | undefined;
    try {
      let finished = false;
      for await (const change of jobs.watchBatch({ batchId, watchToken }, { signal })) {
        reconnects.told();
        watchToken = change.watchToken || watchToken;
        finished = change.batch?.finishedAt !== undefined;
        yield change;
      }
      if (finished) return;
      // The service went down in good order, or the last change was read before the batch was marked.
      const { batch } = await jobs.getBatch({ batchId }, { signal });
      if (batch?.finishedAt !== undefined) {
        yield create(WatchBatchResponseSchema, { batch, watchToken });
        return;
      }
    } catch (error) {
      lost = reconnects.lossOf(error);
    }
    await reconnects.pause(lost);
  }
}
