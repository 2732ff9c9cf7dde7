// What must be true when a round is over and its cluster is whole again. Each check names the job and the fact; the first `Violation` ends the run.

import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Redis } from 'ioredis';
import { type Callers, type EventWords, isEnded, type JobWords, Violation } from './calls.ts';
import type { Submitted } from './load.ts';
import type { Cluster } from './members.ts';
import type { Receiver } from './receiver.ts';

/** What is known of all rounds. */
export class Model {
  /** By id, as it ended. */
  readonly ended = new Map<string, JobWords>();
  /** Those whose ends a receiver is to be told of. */
  readonly told = new Set<string>();
  readonly #purged = new Set<string>();
  /** Jobs that were failed because the workers that had them were killed thrice. */
  poisoned = 0;

  /** Throws a `Violation`. `purge`: jobs of the round whose results are to go. */
  async check(cluster: Cluster, callers: Callers, jobs: readonly Submitted[], signal: AbortSignal): Promise<void> {
    const ids = new Set(jobs.map(({ jobId }) => jobId));
    if (ids.size !== jobs.length) throw new Violation('two submits with different keys were given one job');
    for (const job of jobs) await this.#checkJob(cluster, callers, job, signal);
    for (const id of new Set(jobs.map(({ batchId }) => batchId))) if (id !== undefined) await this.#checkBatch(callers, id, jobs, signal);
    await this.#checkFinal(callers, ids, signal);
    await this.#purgeSome(callers, jobs, signal);
    await this.#checkTotals(callers, signal);
    await eventually('blobs', () => this.#blobProblem(cluster), signal);
    await eventually('processes', () => processProblem(cluster), signal);
    if (cluster.redis) await eventually('keys in Redis', () => redisProblem(cluster.redis!.url), signal);
    const doubled = (await readdir(cluster.ledger)).filter((name) => name.startsWith('doubled'));
    if (doubled.length > 0) throw new Violation(`two runs at once on one GPU: ${doubled.join(', ')}`);
  }

  async #checkJob({ apis }: Cluster, callers: Callers, job: Submitted, signal: AbortSignal): Promise<void> {
    const { jobId, kind } = job;
    const words = await callers.get(jobId, signal);
    if (!isEnded(words.status)) throw new Violation(`${jobId} is ${words.status} though its watcher saw its end`);
    this.ended.set(jobId, words);
    const reason = words.error?.reason;
    const poisoned = words.status === 'failed' && reason === 'JOB_KILLS_WORKERS';
    if (poisoned) this.poisoned++;
    if (job.told) this.told.add(jobId);
    const alone = job.after === undefined || this.ended.get(job.after)?.status === 'succeeded';
    const wanted = alone ? outcomes(job) : ['failed'];
    if (!poisoned && !wanted.includes(words.status)) {
      throw new Violation(
        `${jobId} (${kind}) is ${words.status}, and should be ${wanted.join(' or ')}: ${words.error?.message ?? ''} (${reason})`,
      );
    }
    if (words.status === 'failed' && !poisoned && reason !== (alone ? 'BROKEN' : 'INPUT_JOB_FAILED'))
      throw new Violation(`${jobId} (${kind}) failed with ${reason}: ${words.error?.message}`);
    if (words.status === 'succeeded') await checkResult(words, job.sha256, signal);
    for (const { address, name } of apis) {
      const replay: EventWords[] = [];
      for await (const event of callers.events(jobId, 0, signal, address)) replay.push(event);
      checkHistory(jobId, name, replay, words);
      for (const event of job.seen) {
        if (!isDeepStrictEqual(replay[event.sequence - 1], withoutSkip(event))) {
          throw new Violation(`${jobId}: event ${event.sequence} is another one on ${name} than its watcher saw`);
        }
      }
    }
  }

  /** Its counts are of its jobs as they ended. */
  async #checkBatch(callers: Callers, batchId: string, jobs: readonly Submitted[], signal: AbortSignal): Promise<void> {
    const { status, body } = await callers.call<Record<string, unknown>>('GET', `/api/v1/batches/${batchId}`, signal);
    if (status !== 200) throw new Violation(`${batchId} was accepted and is answered ${status}`);
    const own = jobs.filter((job) => job.batchId === batchId).map(({ jobId }) => this.ended.get(jobId)!.status);
    for (const name of ['queued', 'processing', 'succeeded', 'failed', 'canceled', 'refused']) {
      const count = own.filter((one) => one === name).length;
      if (body[name] !== count) throw new Violation(`${batchId} says that ${String(body[name])} of its jobs are ${name}, and ${count} are`);
    }
  }

  /** Of earlier rounds: as they were. */
  async #checkFinal(callers: Callers, now: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const earlier = [...this.ended.keys()].filter((id) => !now.has(id)).slice(-10);
    for (const id of earlier) {
      const words = await callers.get(id, signal);
      const was = this.ended.get(id)!;
      if (words.status !== was.status || words.sequence !== was.sequence) {
        throw new Violation(`${id} had ended ${was.status} at ${was.sequence} and is ${words.status} at ${words.sequence}`);
      }
    }
  }

  /** At the end of all rounds: a delivery that went wrong is tried again in its own time, up to a minute or two. */
  async checkReceiver(receiver: Receiver, signal: AbortSignal): Promise<void> {
    await eventually('webhooks', () => receiver.check(this.ended, this.told), signal, 180_000);
  }

  async #purgeSome(callers: Callers, jobs: readonly Submitted[], signal: AbortSignal): Promise<void> {
    for (const { jobId } of jobs.filter((_, i) => i % 2 === 0)) {
      const { status, body } = await callers.call('POST', `/api/v1/jobs/${jobId}:purge`, signal);
      if (status !== 202) throw new Violation(`the purge of ${jobId} is answered ${status}: ${JSON.stringify(body)}`);
      this.#purged.add(jobId);
    }
  }

  async #checkTotals(callers: Callers, signal: AbortSignal): Promise<void> {
    const { body } = await callers.call<{ totals: Record<string, number> }>('GET', '/api/v1/overview', signal);
    const counted: Record<string, number> = { queued: 0, processing: 0, succeeded: 0, failed: 0, canceled: 0, refused: 0 };
    for (const { status } of this.ended.values()) counted[status] = counted[status]! + 1;
    if (!isDeepStrictEqual(body.totals, counted)) {
      throw new Violation(`the overview says ${JSON.stringify(body.totals)}, and ${JSON.stringify(counted)} were seen`);
    }
  }

  /** Results that are there and nobody's, and those that should be there and are not. */
  async #blobProblem({ blobs }: Cluster): Promise<string | undefined> {
    const wanted = new Set<string>();
    for (const [id, { result, status }] of this.ended)
      if (status === 'succeeded' && result && !this.#purged.has(id)) wanted.add(result.sha256);
    const there = new Set<string>();
    for (const name of await readdir(blobs, { recursive: true })) {
      const key = /(?:^|\/)([0-9a-f]{64})$/.exec(name)?.[1];
      if (key) there.add(key);
    }
    const lost = [...wanted].filter((key) => !there.has(key));
    if (lost.length > 0) throw new Violation(`results are gone that no job has let go: ${lost.join(', ')}`);
    const leaked = [...there].filter((key) => !wanted.has(key));
    return leaked.length > 0 ? `results that no job refers to are still there: ${leaked.join(', ')}` : undefined;
  }
}

/** How it may have ended. A cancel that was taken before the end is kept. */
function outcomes({ kind, canceled }: Submitted): string[] {
  if (kind === 'broken') return ['failed'];
  if (kind === 'refused') return ['refused'];
  if (kind !== 'canceled') return ['succeeded'];
  const taken = canceled && (canceled.status === 'canceled' || (!isEnded(canceled.status) && canceled.cancel_requested_at !== null));
  return taken ? ['canceled'] : ['succeeded'];
}

async function checkResult({ job_id, result, result_url }: JobWords, sha256: string, signal: AbortSignal): Promise<void> {
  if (result?.sha256 !== sha256) throw new Violation(`${job_id} has the result ${result?.sha256}, and should have ${sha256}`);
  const response = await fetch(result_url!, { signal });
  const digest = Buffer.from(await crypto.subtle.digest('SHA-256', await response.arrayBuffer())).toString('hex');
  if (!response.ok || digest !== sha256)
    throw new Violation(`the result of ${job_id} is answered ${response.status}, with the digest ${digest}`);
}

/** Gapless, one terminal event and that the last, percent never falling. Throws a `Violation`. */
export function checkHistory(jobId: string, where: string, events: readonly EventWords[], words: JobWords): void {
  const hole = events.findIndex(({ sequence }, i) => sequence !== i + 1);
  if (hole !== -1 || events.length !== words.sequence) {
    throw new Violation(
      `${jobId}: ${where} tells ${events.length} events of ${words.sequence}${hole === -1 ? '' : `, the ${hole + 1}th is ${events[hole]!.sequence}`}`,
    );
  }
  const ends = events.filter(({ state }) => isEnded(state?.status));
  if (ends.length !== 1 || ends[0] !== events.at(-1)) throw new Violation(`${jobId}: ${ends.length} terminal events on ${where}`);
  let attempt = 0;
  let percent = 0;
  for (const { progress, state, sequence } of events) {
    // A job that is tried again, or goes on for another one, begins anew.
    if (state?.progress === 0) percent = 0;
    if (!progress) continue;
    if (progress.attempt < attempt) throw new Violation(`${jobId}: event ${sequence} is of attempt ${progress.attempt} after ${attempt}`);
    if (progress.attempt === attempt && progress.percent < percent) throw new Violation(`${jobId}: percent falls at event ${sequence}`);
    attempt = progress.attempt;
    percent = progress.percent;
  }
}

function withoutSkip(event: EventWords): EventWords {
  return 'skipped_after' in event && event.skipped_after != null ? { ...event, skipped_after: null } : event;
}

/** One worker a slot at the most, and none that nobody owns. */
function processProblem({ members, workers }: Cluster): string | undefined {
  const owners = new Set(members.map(({ pid }) => pid));
  const all = workers();
  const own = new Set(all.map(({ pid }) => pid));
  const orphans = all.filter(({ parent }) => !owners.has(parent) && !own.has(parent));
  return orphans.length > 0
    ? `workers that nobody owns: ${orphans.map(({ pid, parent }) => `${pid} (of ${parent})`).join(', ')}`
    : undefined;
}

/** What a queue without jobs leaves behind. */
async function redisProblem(url: string): Promise<string | undefined> {
  const redis = new Redis(url, { lazyConnect: true });
  try {
    await redis.connect();
    const sizes = await Promise.all(
      (['leases', 'delayed', 'deadlines', 'flows'] as const).map(async (key) => [key, await redis.zcard(`{ffjobs}:${key}`)] as const),
    );
    const held = await redis.hlen('{ffjobs}:held');
    const running = await redis.hgetall('{ffjobs}:running');
    const left = [
      ...sizes,
      ['held', held] as const,
      ...Object.entries(running).map(([tenant, n]) => [`running of ${tenant}`, Number(n)] as const),
    ];
    const wrong = left.filter(([, count]) => count !== 0);
    return wrong.length > 0 ? `no job is left, and there are: ${wrong.map(([what, count]) => `${what} ${count}`).join(', ')}` : undefined;
  } finally {
    redis.disconnect();
  }
}

/** Asks until there is no problem, for so long; then it is a violation. */
async function eventually(
  what: string,
  problem: () => Promise<string | undefined> | string | undefined,
  signal: AbortSignal,
  withinMs = 10_000,
): Promise<void> {
  for (const until = performance.now() + withinMs; ; await delay(100, undefined, { signal })) {
    const found = await problem();
    if (found === undefined) return;
    if (performance.now() > until) throw new Violation(`${what}: ${found}`);
  }
}
