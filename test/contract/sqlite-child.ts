// A process of its own that opens the SQLite store at argv[2], for tests that kill it or take its disk away. It prints a line for each thing
// that the store has acknowledged.
import { writeSync } from 'node:fs';
import { JobsError } from '../../src/jobs/errors.ts';
import { openSqliteJobStore } from '../../src/store/jobs-sqlite.ts';
import { wantedJob } from './job-store.ts';

const say = (line: string) => writeSync(1, `${line}\n`);
const [, , path, task] = process.argv;
const limits = { maxQueued: 1_000_000, idempotencyMs: 1000 };

try {
  const store = await openSqliteJobStore({ path: path! });
  say('open');
  if (task === 'hold') setInterval(() => {}, 1000);
  if (task === 'work') {
    // Submits from several sides and works on what comes, until it is killed.
    const submitting = async () => {
      for (;;) {
        const { job } = await store.submit(wantedJob(), limits);
        say(`submitted ${job.jobId}`);
      }
    };
    const working = async () => {
      for (;;) {
        const lease = (await store.claim({ node: 'child' }, new AbortController().signal))!;
        await lease.begin({ slot: '0', engine: undefined });
        const { jobId, sequence } = await lease.fail({ reason: 'NO', message: 'no', retryable: false, killedWorker: false });
        say(`failed ${jobId} ${sequence}`);
      }
    };
    await Promise.all([submitting(), submitting(), submitting(), working()]);
  }
  if (task === 'fill') {
    // Submits until the disk is full, then shows that the store still answers truthfully.
    const labels = { filler: 'x'.repeat(200) };
    let count = 0;
    try {
      for (;;) {
        await Promise.all(
          Array.from({ length: 20 }, async () => {
            await store.submit(wantedJob({ request: { labels } }), limits);
            count++;
          }),
        );
      }
    } catch (error) {
      if (!(error instanceof JobsError)) throw error;
      say(`refused ${error.reason}`);
    }
    const { totals, queueByTenant } = await store.overview(60_000);
    const { jobs } = await store.list({ pageSize: 1 });
    const last = jobs[0]?.queuePosition;
    say(`counted ${count} ${totals.get(1)} ${queueByTenant[0]?.queued} ${last === undefined ? 0 : last + 1}`);
  }
} catch (error) {
  say(`error ${(error as Error).message}`);
}
