// What a job's stay on this node is accounted for: the time of each phase, for the job and the metrics, and the spans of its trace. Always true: times are those
// of this attempt alone, in seconds of the monotonic clock; numbers that an engine says of itself are finite here.
import { create } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { type Timings, TimingsSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type Failure, type Job, JobStatus, type MediaResult } from '../jobs/job.ts';
import type { Matched } from '../jobs/ports.ts';
import type { Span, TraceFacts, Traces } from '../jobs/traces.ts';
import type { RunEnd } from './worker.ts';

export interface AccountOptions {
  /** Undefined: nothing is traced. */
  readonly traces?: Pick<Traces, 'job'> | undefined;
  /** Milliseconds since 1970, the store's clock. */
  readonly now: () => number;
}

/** Ends of a run that have no reason of the engine's. */
const FAULTS: ReadonlySet<RunEnd['kind']> = new Set(['timed_out', 'stalled', 'crashed']);

export class Account {
  /** Of the stay; undefined: the job is not traced. */
  readonly #span: Span | undefined;
  readonly #timings: Partial<Record<'queuedSeconds' | 'prepareSeconds' | 'runSeconds' | 'storeSeconds' | 'gpuSeconds', number>> = {};
  #stepSeconds: Record<string, number> = {};
  #slotTaken = 0;
  #end: { readonly facts: TraceFacts; readonly reason: string | undefined } = { facts: {}, reason: undefined };

  constructor(job: Job, options: AccountOptions) {
    this.#span = spanOf(job, options);
  }

  /** 32 hex digits, for logs; undefined: the job is not traced. */
  get traceId(): string | undefined {
    return this.#span?.traceId;
  }

  get timings(): Timings {
    return create(TimingsSchema, { ...this.#timings, stepSeconds: this.#stepSeconds });
  }

  /** Of the engine, in seconds, by its own names of them. */
  get stepSeconds(): Readonly<Record<string, number>> {
    return this.#stepSeconds;
  }

  async preparing<T extends object>(prepare: () => Promise<T | Failure>): Promise<T | Failure> {
    const started = performance.now();
    const span = this.#span?.child('prepare');
    try {
      const prepared = await prepare();
      span?.end({}, 'reason' in prepared ? prepared.reason : undefined);
      return prepared;
    } finally {
      this.#timings.prepareSeconds = secondsSince(started);
    }
  }

  /** What there was for a job that might be like others. */
  matched(kind: Matched['kind']): void {
    if (kind !== 'run') this.#span?.child(kind).end();
  }

  /** It has been given a slot. */
  tookSlot(): void {
    this.#slotTaken = performance.now();
  }

  /** An attempt is spent on it. */
  begun({ createdAt, updatedAt }: Job): void {
    this.#timings.queuedSeconds = createdAt && updatedAt ? Math.max(0, timestampMs(updatedAt) - timestampMs(createdAt)) / 1000 : 0;
  }

  /** The engine runs; answers whom to tell of its end, when the slot is free again. */
  running(slot: string, { attempt, engine }: Job): (end: RunEnd) => void {
    const span = this.#span?.child('run', { 'ffjobs.slot': slot, 'ffjobs.engine': engine?.name, 'ffjobs.attempt': attempt });
    return (end) => {
      this.#timings.runSeconds = end.seconds;
      this.#timings.gpuSeconds = secondsSince(this.#slotTaken);
      if (end.kind === 'done') this.#stepSeconds = finiteOf(end.done.stepSeconds);
      const steps = Object.entries(this.#stepSeconds).map(([name, seconds]) => [`ffjobs.seconds.${name.toLowerCase()}`, seconds]);
      const failure = end.kind === 'failed' ? end.failure.reason : FAULTS.has(end.kind) ? end.kind : undefined;
      span?.end({ 'ffjobs.outcome': end.kind, ...Object.fromEntries(steps) }, failure);
    };
  }

  /** With the wait for its turn. Undefined: stopped meanwhile. */
  async storing(store: () => Promise<MediaResult | Failure | undefined>): Promise<MediaResult | Failure | undefined> {
    const started = performance.now();
    const span = this.#span?.child('store');
    const stored = await store();
    this.#timings.storeSeconds = secondsSince(started);
    const failure = stored && 'reason' in stored ? stored.reason : undefined;
    span?.end({ 'ffjobs.bytes': stored && 'bytes' in stored ? Number(stored.bytes) : undefined }, failure);
    return stored;
  }

  /** How the stay has ended, as the store has it. */
  concluded({ status, attempt, error }: Job): void {
    const facts = { 'ffjobs.status': JobStatus[status].toLowerCase(), 'ffjobs.attempts': attempt, 'ffjobs.reason': error?.reason };
    this.#end = { facts, reason: error?.reason };
  }

  /** Nothing follows. One that was not `concluded` ended by a defect, or its lease was lost. */
  close(): void {
    this.#span?.end(this.#end.facts, this.#end.reason);
  }
}

/** From the submit on, with the wait in the queue in it; of a later attempt, from its claim on. */
function spanOf({ jobId, tenant, traceparent, attempt, createdAt }: Job, { traces, now }: AccountOptions): Span | undefined {
  if (!traces || traceparent === undefined) return undefined;
  const startMs = attempt === 0 && createdAt ? Math.min(timestampMs(createdAt), now()) : undefined;
  const span = traces.job(traceparent, { 'ffjobs.job_id': jobId, 'ffjobs.tenant': tenant }, startMs);
  if (startMs !== undefined) span.child('queue', {}, startMs).end();
  return span;
}

function secondsSince(started: number): number {
  return (performance.now() - started) / 1000;
}

function finiteOf(seconds: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(seconds).filter(([, value]) => Number.isFinite(value)));
}
