// One job as it goes on: its state, its steps, its log, its last preview. Always true: events come in the order of their sequence, each once; after
// a break the stream goes on after the last one.
import { clone, create, toJson } from '@bufbuild/protobuf';
import { type Signal, signal } from '@preact/signals';
import { type JobEvent, JobEventSchema, LogLevel, type Progress } from '../../../gen/facefusion/jobs/v1/event_pb.js';
import { type Job, JobSchema, type JobState, type JobStatus, type JobStep } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { msOf } from '../format.ts';
import { isOver } from '../jobs/status.ts';
import { jobService } from './clients.ts';
import { followed, type WatchProblem } from './link.ts';

export interface LogLine {
  readonly ms: number;
  readonly level: 'info' | 'warn' | 'error';
  readonly text?: string;
  /** A change of state, put into words by who shows it. */
  readonly state?: {
    readonly status: JobStatus;
    readonly attempt: number;
    /** Cancel was asked for, and it has not ended. */
    readonly stopping: boolean;
    readonly reason: string | undefined;
    readonly message: string | undefined;
  };
}

/** A step of the attempt: when it was first heard of, and its last progress. Milliseconds since 1970. */
export interface StepSeen {
  readonly step: JobStep;
  readonly from: number;
  readonly last: Progress | undefined;
}

const MOST_LINES = 2000;
const MOST_EVENTS = 1000;

export class JobWatch {
  readonly job = signal<Job | undefined>(undefined);
  readonly progress = signal<Progress | undefined>(undefined);
  readonly steps = signal<readonly StepSeen[]>([]);
  readonly lines = signal<readonly LogLine[]>([]);
  /** The latest events as JSON, for people. */
  readonly events = signal<readonly object[]>([]);
  readonly preview = signal<{ readonly url: string; readonly frame: number } | undefined>(undefined);
  /** Of the last event, by the clock here. */
  readonly heardAt = signal(Date.now());
  readonly problem: Signal<WatchProblem | undefined>;
  readonly #id: string;
  readonly #stop = new AbortController();
  readonly #lines: LogLine[] = [];
  readonly #events: object[] = [];
  #steps: StepSeen[] = [];
  #after = 0;
  #attempt = 0;
  #drawing = false;

  constructor(id: string) {
    this.#id = id;
    this.problem = followed((attempt, alive) => this.#run(attempt, alive), this.#stop.signal);
  }

  close(): void {
    this.#stop.abort();
    this.#showPreview(undefined);
  }

  /** Takes over what a call of this page answered. */
  put(job: Job): void {
    if (this.job.value && job.sequence < this.job.value.sequence) return;
    this.job.value = job;
  }

  async #run(attempt: AbortSignal, alive: () => void): Promise<'done' | 'again'> {
    const { job } = await jobService.get({ jobId: this.#id }, { signal: attempt });
    if (job) this.put(job);
    alive();
    if (job && isOver(job.status) && job.sequence <= this.#after) return 'done';
    // From the beginning, the first time: the log and the times of the steps are in the events.
    for await (const { event } of jobService.watch({ jobId: this.#id, afterSequence: this.#after }, { signal: attempt })) {
      alive();
      if (event) this.#take(event);
    }
    const now = this.job.value;
    if (!now || !isOver(now.status)) return 'again';
    // The last state carries no URL of the result.
    const { job: ended } = await jobService.get({ jobId: this.#id }, { signal: attempt });
    if (ended) this.put(ended);
    this.#showPreview(now.result ? undefined : this.preview.value);
    return 'done';
  }

  #take(event: JobEvent): void {
    const { value, case: kind } = event.event;
    if (kind === 'preview') {
      this.#showPreview({ url: URL.createObjectURL(new Blob([value.jpeg as BlobPart], { type: 'image/jpeg' })), frame: value.frame });
      return;
    }
    this.#after = Math.max(this.#after, event.sequence);
    this.heardAt.value = Date.now();
    const ms = msOf(event.time) ?? Date.now();
    this.#events.push(toJson(JobEventSchema, event, { useProtoFieldName: true }) as object);
    if (this.#events.length > MOST_EVENTS) this.#events.splice(0, this.#events.length - MOST_EVENTS);
    if (kind === 'snapshot' && value.job) this.put(value.job);
    else if (kind === 'state') this.#state(value, ms);
    else if (kind === 'progress') this.#progress(value, ms, event.sequence);
    else if (kind === 'log') {
      const level = value.level === LogLevel.ERROR ? 'error' : value.level === LogLevel.WARN ? 'warn' : 'info';
      this.#line({ ms, level, text: value.message });
    }
    this.#draw();
  }

  #state(state: JobState, ms: number): void {
    const { status, attempt, errorMessage, error } = state;
    this.#begin(attempt);
    if (!isOver(status)) this.#enter(state.step, ms, undefined);
    const level = error
      ? 'error'
      : state.cancelRequestedAt || state.warnings.length > (this.job.value?.warnings.length ?? 0)
        ? 'warn'
        : 'info';
    this.#line({
      ms,
      level,
      state: {
        status,
        attempt,
        stopping: !isOver(status) && state.cancelRequestedAt !== undefined,
        reason: error?.reason,
        message: errorMessage,
      },
    });
    const known = this.job.value;
    // A replay tells of states that the job has left behind.
    if (!known || state.sequence < known.sequence) return;
    const { $typeName: _, $unknown: __, jobId: ___, ...changed } = state;
    this.job.value = Object.assign(clone(JobSchema, known), changed);
  }

  #progress(progress: Progress, ms: number, sequence: number): void {
    this.#begin(progress.attempt);
    this.#enter(progress.step, ms, progress);
    this.progress.value = progress;
    const known = this.job.value;
    if (!known || sequence <= known.sequence) return;
    this.job.value = Object.assign(clone(JobSchema, known), {
      sequence,
      step: progress.step,
      progress: Math.floor(progress.percent),
      estimatedFinishTime: progress.estimatedFinishTime ?? known.estimatedFinishTime,
    });
  }

  /** A new attempt begins its steps anew. */
  #begin(attempt: number): void {
    if (attempt <= this.#attempt) return;
    this.#attempt = attempt;
    this.#steps = [];
    this.progress.value = undefined;
  }

  #enter(step: JobStep, ms: number, last: Progress | undefined): void {
    const known = this.#steps.findIndex((one) => one.step === step);
    if (known < 0) this.#steps.push({ step, from: ms, last });
    else if (last) this.#steps[known] = { ...this.#steps[known]!, last };
  }

  #line(line: LogLine): void {
    this.#lines.push(line);
    if (this.#lines.length > MOST_LINES) this.#lines.splice(0, this.#lines.length - MOST_LINES);
  }

  #showPreview(next: { readonly url: string; readonly frame: number } | undefined): void {
    const before = this.preview.value;
    if (before && before !== next) setTimeout(() => URL.revokeObjectURL(before.url), 1000);
    this.preview.value = next;
  }

  /** A replay brings thousands of events at once; what they make is shown once a frame. */
  #draw(): void {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.lines.value = [...this.#lines];
      this.steps.value = [...this.#steps];
      this.events.value = [...this.#events];
    });
  }
}

/** A job as REST shows it: names of the contract, enum values without their prefix. */
export function jobJson(job: Job): unknown {
  return plain(toJson(JobSchema, create(JobSchema, job), { useProtoFieldName: true, alwaysEmitImplicit: true }));
}

export function plain(value: unknown): unknown {
  if (typeof value === 'string')
    return /^(JOB_STATUS|JOB_STEP|WAIT_REASON|CACHE_POLICY|LOG_LEVEL)_/.test(value)
      ? value.replace(/^[A-Z]+_[A-Z]+_/, '').toLowerCase()
      : value;
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)]));
}
