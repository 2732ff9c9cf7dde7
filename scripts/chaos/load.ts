// Callers that submit, watch and cancel while a round goes on, and what each of them was told. Always true here: a submit is repeated under its key until
// it is answered, so that every job of the load was accepted, and each watcher goes on after the last sequence that it has seen.
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../random.ts';
import { type Callers, type EventWords, isEnded, type JobWords, Violation } from './calls.ts';

/** What a job is to do, and so how it may end. */
export type Kind = 'plain' | 'crash' | 'flaky' | 'broken' | 'refused' | 'canceled' | 'chained';

export interface Submitted {
  readonly kind: Kind;
  readonly key: string;
  /** That it came in. */
  batchId: string | undefined;
  /** Whose result it takes. */
  after: string | undefined;
  /** A receiver is told of it. */
  readonly told: boolean;
  /** SHA-256 of the result that it is to have. */
  readonly sha256: string;
  jobId: string;
  /** Answers to its cancel. */
  canceled: JobWords | undefined;
  /** As its watcher saw them: the same sequence never twice. */
  readonly seen: EventWords[];
  /** Connections that its watcher needed. */
  connections: number;
}

const KINDS: readonly (readonly [Kind, number])[] = [
  ['plain', 46],
  ['chained', 12],
  ['crash', 8],
  ['flaky', 8],
  ['broken', 6],
  ['refused', 5],
  ['canceled', 15],
];

export interface LoadOptions {
  readonly callers: Callers;
  readonly random: Random;
  readonly round: number;
  readonly jobs: number;
  /** In which the submits come, in milliseconds. */
  readonly spreadMs: number;
  readonly ledger: string;
  /** Of a receiver of webhooks. */
  readonly receiver: string;
  readonly signal: AbortSignal;
}

/** Settles when every job has been accepted and every watcher has seen its end. Throws a `Violation` that a caller has met. */
export async function runLoad(options: LoadOptions, jobs: Submitted[]): Promise<void> {
  const { random } = options;
  const groups: Promise<void>[] = [];
  for (let number = 0; number < options.jobs; ) {
    // Some come as a batch.
    const size = random.chance(0.1) ? Math.min(random.int(2, 4), options.jobs - number) : 1;
    const planned = Array.from({ length: size }, () => plan(options, number++));
    groups.push(submit(options, planned, size > 1, random.int(0, options.spreadMs), jobs));
  }
  await Promise.all(groups);
}

interface Planned {
  readonly job: Submitted;
  readonly body: Readonly<Record<string, unknown>>;
  readonly cancelAfterMs: number;
}

function plan({ random, round, ledger, receiver }: LoadOptions, number: number): Planned {
  const kind = random.weighted(KINDS);
  const key = `round-${round}-${number}`;
  // Some results are the same, so that jobs share a blob. All begin as a WebP does, so that other jobs can take them.
  const output = `RIFF0000WEBPVP8 ${random.chance(0.3) ? `shared ${random.int(0, 4)}` : key}`;
  // Some are like others, so that they share one run and its result.
  const twin = (kind === 'plain' || kind === 'canceled') && random.chance(0.4) ? random.int(0, 4) : undefined;
  const parameters =
    twin === undefined
      ? { ledger, output, steps: random.int(1, 12), seconds_per_step: random.int(0, 150) / 1000, ...script(kind) }
      : { ledger, output: `RIFF0000WEBPVP8 twin ${round} ${twin}`, steps: 8, seconds_per_step: 0.15 };
  const told = random.chance(0.5);
  const sha256 = createHash('sha256').update(parameters.output).digest('hex');
  return {
    job: { kind, key, sha256, told, batchId: undefined, after: undefined, jobId: '', canceled: undefined, seen: [], connections: 0 },
    body: {
      source_images: ['face.jpg'],
      target_image: 'target.png',
      output_format: 'webp',
      parameters,
      max_attempts: 10,
      priority: random.int(-2, 2),
      labels: { round: `${round}`, key },
      cache: twin === undefined ? 'off' : 'use',
      ...(told && { webhook: { url: receiver, statuses: ['processing', 'succeeded', 'failed', 'canceled', 'refused'] } }),
    },
    cancelAfterMs: random.int(0, 1500),
  };
}

async function submit(
  { callers, random, signal }: LoadOptions,
  planned: readonly Planned[],
  asBatch: boolean,
  atMs: number,
  jobs: Submitted[],
): Promise<void> {
  const chosen = random.next();
  await delay(atMs, undefined, { signal });
  const first = planned[0]!.job;
  const requests = planned.map(({ job, body }) => {
    // Of what was accepted so far, and can only end well.
    const before = jobs.filter(({ kind }) => kind === 'plain');
    if (job.kind !== 'chained' || before.length === 0) return body;
    job.after = before[Math.floor(chosen * before.length)]!.jobId;
    return { ...body, target_image: `job://${job.after}` };
  });
  if (asBatch) {
    const body = { jobs: requests.map((job) => ({ job })), idempotency_key: first.key };
    const batch = await accepted<{ batch_id: string; job_ids: string[] }>(callers, '/api/v1/jobs:batch', body, signal);
    for (const [i, { job }] of planned.entries()) {
      job.batchId = batch.batch_id;
      job.jobId = batch.job_ids[i]!;
    }
  } else {
    const body = { ...requests[0], idempotency_key: first.key };
    first.jobId = (await accepted<JobWords>(callers, '/api/v1/jobs', body, signal)).job_id;
  }
  jobs.push(...planned.map(({ job }) => job));
  await Promise.all(
    planned.map(({ job, cancelAfterMs }) =>
      Promise.all([watch(callers, job, signal), job.kind === 'canceled' ? cancel(callers, job, cancelAfterMs, signal) : undefined]),
    ),
  );
}

async function accepted<T>(callers: Callers, path: string, body: unknown, signal: AbortSignal): Promise<T> {
  const answer = await callers.call<T>('POST', path, signal, body);
  if (answer.status !== 202) throw new Violation(`a submit is answered ${answer.status}: ${JSON.stringify(answer.body).slice(0, 300)}`);
  return answer.body;
}

function script(kind: Kind): Record<string, unknown> {
  switch (kind) {
    case 'crash':
      return { crash_at: 0, fail_attempts: 1 };
    case 'flaky':
      return { fail: 'FLAKY', retryable: true, fail_attempts: 1 };
    case 'broken':
      return { fail: 'BROKEN' };
    case 'refused':
      return { refuse: 'not this' };
    default:
      return {};
  }
}

async function cancel(callers: Callers, job: Submitted, afterMs: number, signal: AbortSignal): Promise<void> {
  await delay(afterMs, undefined, { signal });
  job.canceled = await callers.cancel(job.jobId, signal);
}

/** Until the terminal event, over as many connections as it takes. */
async function watch(callers: Callers, job: Submitted, signal: AbortSignal): Promise<void> {
  let after = 0;
  for (let ended = false; !ended; ) {
    signal.throwIfAborted();
    job.connections++;
    for await (const event of callers.events(job.jobId, after, signal)) {
      if (event.snapshot) throw new Violation(`${job.jobId}: a watcher that goes on after ${after} is told a snapshot (reset)`);
      const from = event.skipped_after ?? event.sequence - 1;
      if (from !== after || event.sequence <= after) {
        throw new Violation(
          `${job.jobId}: a watcher that has seen ${after} is told ${event.sequence}, skipped after ${event.skipped_after}`,
        );
      }
      if (ended) throw new Violation(`${job.jobId}: event ${event.sequence} after the terminal one`);
      job.seen.push(event);
      after = event.sequence;
      ended = isEnded(event.state?.status);
    }
    if (!ended) await delay(100, undefined, { signal });
  }
}
