// A job in Redis: its record as a hash, and the arguments by which one step changes it. Always true here: a `RedisJob` is immutable, and is
// what the record was at version `ver`.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { JobEvent } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import { type Job, JobRequestSchema, JobSchema, MediaResultSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { batchMove } from '../../jobs/batches.ts';
import type { Fingerprint } from '../../jobs/fingerprint.ts';
import { isTerminal, JobStatus, transition, WaitReason } from '../../jobs/job.ts';
import type { Match, NewJob } from '../../jobs/ports.ts';
import { dayOf, usedBy } from '../../jobs/quotas.ts';
import { after, eventOf, type Outcome, type Step, type Subject } from '../../jobs/steps.ts';
import { deliveryOf, GIVE_WAY, type WebhookRules } from '../../jobs/webhooks.ts';
import type { Recent } from '../../recent.ts';
import type { Reply } from './connection.ts';
import { encodeEvents } from './event-log.ts';
import type { Arguments } from './pack.ts';

export interface RedisJob extends Subject {
  /** Rises by one with each change of the record. */
  readonly ver: number;
  readonly tenant: string;
  readonly place: string;
  readonly score: number;
  /** Of the lease that holds it. */
  readonly token: string | undefined;
  /** Events up to this sequence are trimmed away. */
  readonly trimmedTo: number;
  /** The last write made by a lease. */
  readonly op: string | undefined;
  /** What another job's end means for it and is still to be written: see chains.lua. */
  readonly owed: string | undefined;
  /** Of the run that it leads or has joined. */
  readonly fingerprint: Fingerprint | undefined;
  /** Jobs that have joined the run that it leads. */
  readonly followers: number;
  /** How it wants the end of a run that it joined. */
  readonly joined: Pick<Match, 'retentionMs' | 'again'> | undefined;
}

/** Of a place, before the job's id. */
const PLACE_DIGITS = 14;

/** In the order of RECORD in head.lua. */
type Fields = [
  ver: Buffer | number,
  state: Buffer,
  request: Buffer,
  facts: Buffer,
  tenant: Buffer,
  place: Buffer,
  score: Buffer,
  status: Buffer,
  token: Buffer | null,
  blob: Buffer | null,
  claimed: Buffer | number | null,
  deadline: Buffer | null,
  op: Buffer | null,
  owed: Buffer | null,
  fp: Buffer | null,
  riders: Buffer | null,
  joined: Buffer | null,
];

export function decodeJob(record: Reply, known: Recent<RedisJob>): RedisJob {
  const [ver, state, request, facts, tenant, place, score, , token, blob, claimed, deadline, op, owed, fp, riders, joined] =
    record as Fields;
  const had = known.get(place.toString('latin1', PLACE_DIGITS));
  // Held since the version before: that was its claim, and nothing else has changed.
  if (had && claimed && token && !had.held && had.ver === Number(ver) - 1) {
    const job = transition(had.job, { type: 'claim' }, Number(claimed));
    return { ...had, ver: had.ver + 1, job, held: true, token: token.toString() };
  }
  let job = fromBinary(JobSchema, state);
  job.tenant = tenant.toString();
  job.request = had?.job.request ?? fromBinary(JobRequestSchema, request);
  // A claim is made inside Redis, which leaves a note of it; the transition itself has one definition.
  if (claimed) job = transition(job, { type: 'claim' }, Number(claimed));
  const [maxAttempts, spent, kills, trimmedTo] = facts.toString().split(' ').map(Number) as [number, number, number, number];
  return {
    ver: Number(ver),
    tenant: tenant.toString(),
    place: place.toString(),
    job,
    held: token !== null,
    token: token?.toString(),
    score: Number(score),
    deadlineMs: deadline && deadline.length > 0 ? Number(deadline) : undefined,
    maxAttempts,
    spent,
    kills,
    blob: blob?.toString() || undefined,
    trimmedTo,
    op: op?.toString(),
    owed: owed?.toString(),
    fingerprint: fp?.toString(),
    followers: Number(riders ?? 0),
    joined: joined ? (JSON.parse(joined.toString()) as RedisJob['joined']) : undefined,
  };
}

export function encodeState(job: Job): Uint8Array {
  return toBinary(JobSchema, { ...job, request: undefined });
}

export function encodeFacts({
  maxAttempts,
  spent,
  kills,
  trimmedTo,
}: Pick<RedisJob, 'maxAttempts' | 'spent' | 'kills' | 'trimmedTo'>): string {
  return `${maxAttempts} ${spent} ${kills} ${trimmedTo}`;
}

/** What a step means for like jobs: see flights.lua. */
export interface Share {
  readonly kind: 'lead' | 'force' | 'join' | 'leave' | 'hit' | 'won' | 'verdict';
  /** Of the run; of one that is won its blob. */
  readonly of: string;
  /** What came of the run, for those that joined it; `encodeOutcome`. */
  readonly facts?: string;
  readonly keep?: { readonly fingerprint: Fingerprint; readonly expiresMs: number } | undefined;
  readonly joined?: RedisJob['joined'];
}

export function encodeOutcome(outcome: Outcome): string {
  if (outcome.type !== 'succeed') return JSON.stringify(outcome);
  return JSON.stringify({ ...outcome, result: Buffer.from(toBinary(MediaResultSchema, outcome.result)).toString('base64') });
}

export function decodeOutcome(facts: string): Outcome {
  const outcome = JSON.parse(facts) as Outcome & { readonly result?: string };
  if (outcome.type !== 'succeed') return outcome;
  return { ...outcome, result: fromBinary(MediaResultSchema, Buffer.from(outcome.result, 'base64')) };
}

/** What one step, or several together, make of a job. */
export interface Changed {
  readonly next: RedisJob;
  readonly events: readonly JobEvent[];
  readonly lease: 'keep' | 'pin' | 'end';
  readonly queue: Step['queue'];
  readonly keepsUploads?: boolean | undefined;
  readonly share?: Share | undefined;
  /** Whoever watches all jobs sees it. */
  readonly visible: boolean;
}

/** Applies a step: what it makes of the job, its state event, and what it does to the lease. */
export function applyStep(before: RedisJob, step: Step, nowMs: number): Changed {
  const { change, lease, queue, keepsUploads } = step;
  const { job, held, spent, kills, deadlineMs, blob, event } = after(before, step, nowMs);
  const next: RedisJob = {
    ...before,
    job,
    held,
    spent,
    kills,
    deadlineMs,
    blob,
    owed: queue === 'ready' ? undefined : before.owed,
    token: lease === 'keep' ? before.token : undefined,
  };
  return { next, events: event ? [eventOf(job, event, nowMs)] : [], lease, queue, visible: change !== undefined, keepsUploads };
}

/** The record as a commit has left it. */
export function afterCommit({ next, share, lease, queue }: Changed, ver: number, op: string | undefined): RedisJob {
  const entered = share?.kind === 'lead' || share?.kind === 'force' || share?.kind === 'join';
  if (entered) return { ...next, ver, op, fingerprint: share.of, joined: share.joined };
  const left = share?.kind === 'leave' || (lease === 'end' && queue !== 'ready');
  return left ? { ...next, ver, op, fingerprint: undefined, followers: 0, joined: undefined } : { ...next, ver, op };
}

/** Arguments of commit.lua. */
export function encodeCommit(
  before: RedisJob,
  changed: Changed,
  fence: { token: string; op: string },
  nowMs: number,
  webhookRules: WebhookRules,
): Arguments {
  const { next, events, lease, queue, visible } = changed;
  const { job } = next;
  const fields: (string | Uint8Array)[] = ['state', encodeState(job)];
  const facts = encodeFacts(next);
  if (facts !== encodeFacts(before)) fields.push('facts', facts);
  if (next.deadlineMs !== before.deadlineMs) fields.push('deadline', next.deadlineMs === undefined ? '' : `${next.deadlineMs}`);
  if (job.cancelRequestedAt && !isTerminal(job.status)) fields.push('cancel', '1');
  const used = usedBy(before.job, job);
  const ends = isTerminal(job.status) && !isTerminal(before.job.status);
  if (changed.keepsUploads) fields.push('keeps', '1');
  const { share } = changed;
  const pieces = encodeEvents(events);
  if (share?.joined) fields.push('joined', JSON.stringify(share.joined));
  return [
    job.jobId,
    `${before.ver}`,
    fence.token,
    fence.op,
    `${job.status}`,
    lease,
    queue === undefined ? '' : typeof queue === 'string' ? queue : `${queue.readyAtMs}`,
    next.blob ?? '',
    job.error?.reason ?? '',
    visible ? '1' : '',
    next.trimmedTo > before.trimmedTo ? `${next.trimmedTo + 1}` : '',
    ends ? Math.floor(nowMs / 60_000) : '',
    ends ? timestampMs(job.finishedAt!) : '',
    ends && job.resultExpireTime ? timestampMs(job.resultExpireTime) : '',
    used.bytes === 0 && used.gpuMs === 0 ? '' : [used.bytes, used.gpuMs, dayOf(nowMs)],
    share ? [share.kind, share.of, share.facts ?? '', share.keep?.fingerprint ?? '', share.keep?.expiresMs ?? '', nowMs] : '',
    encodeEffects(before.job, job, nowMs, webhookRules),
    pieces.length / 2,
    ...pieces,
    ...fields,
  ];
}

/** What a step does beside the job itself. `before` undefined: it is submitted. */
export function encodeEffects(before: Job | undefined, after: Job, nowMs: number, webhookRules: WebhookRules): string {
  const move = before && batchMove(before, after);
  const delivery = deliveryOf(before, after, webhookRules);
  if (!move && !delivery) return '';
  const news = delivery?.news && { ...delivery.news, give: GIVE_WAY };
  const hook = delivery && { ...delivery, news, state: Buffer.from(encodeState(after)).toString('base64') };
  return JSON.stringify({ at: nowMs, batch: move?.batchId, done: move?.done, hook });
}

/** Each label twice, as they are looked for. */
export function labelsOf({ labels }: NewJob['request']): string[] {
  return Object.entries(labels).flatMap(([label, value]) => [label, `${label}=${value}`]);
}

/** The job as a caller sees it. `position`: of one that is queued; -1 less that where its tenant runs as many jobs as it may. */
export function present({ job }: RedisJob, position: number | null): Job {
  if (job.status !== JobStatus.QUEUED) return job;
  if (position === null || position >= 0) return { ...job, queuePosition: position ?? 0 };
  const waitReason = job.waitReason === WaitReason.SLOT ? WaitReason.QUOTA : job.waitReason;
  return { ...job, waitReason, queuePosition: -1 - position };
}
