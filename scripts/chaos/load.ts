// Callers that submit, watch and cancel while a round goes on, and what each of them was told. Always true here: a submit is repeated under its key until
// it is answered, so that every job of the load was accepted, and each watcher goes on after the last sequence that it has seen.
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type Callers, type EventWords, isEnded, type JobWords, Violation } from './calls.ts';
import type { Random } from './random.ts';

/** What a job is to do, and so how it may end. */
export type Kind = 'plain' | 'crash' | 'flaky' | 'broken' | 'refused' | 'canceled';

export interface Submitted {
  readonly kind: Kind;
  readonly key: string;
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
  ['plain', 58],
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
  readonly signal: AbortSignal;
}

/** Settles when every job has been accepted and every watcher has seen its end. Throws a `Violation` that a caller has met. */
export async function runLoad(options: LoadOptions, jobs: Submitted[]): Promise<void> {
  await Promise.all(Array.from({ length: options.jobs }, (_, i) => one(options, i, jobs)));
}

async function one({ callers, random, round, spreadMs, ledger, signal }: LoadOptions, number: number, jobs: Submitted[]): Promise<void> {
  const kind = random.weighted(KINDS);
  const key = `round-${round}-${number}`;
  // Some results are the same, so that jobs share a blob.
  const output = random.chance(0.3) ? `shared ${random.int(0, 4)}` : `${key}`;
  const steps = random.int(1, 12);
  const parameters = { ledger, output, steps, seconds_per_step: random.int(0, 150) / 1000, ...script(kind) };
  const cancelAfter = random.int(0, 1500);
  await delay(random.int(0, spreadMs), undefined, { signal });
  const job: Submitted = {
    kind,
    key,
    sha256: createHash('sha256').update(output).digest('hex'),
    jobId: '',
    canceled: undefined,
    seen: [],
    connections: 0,
  };
  const { status, body } = await callers.call<JobWords>('POST', '/api/v1/jobs', signal, {
    source_images: ['face.jpg'],
    target_image: 'target.png',
    parameters,
    idempotency_key: key,
    max_attempts: 10,
    priority: random.int(-2, 2),
    labels: { round: `${round}`, key },
    cache: 'off',
  });
  if (status !== 202) throw new Violation(`a submit is answered ${status}: ${JSON.stringify(body).slice(0, 300)}`);
  job.jobId = body.job_id;
  jobs.push(job);
  await Promise.all([watch(callers, job, signal), kind === 'canceled' ? cancel(callers, job, cancelAfter, signal) : undefined]);
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
