// The jobs that match a filter: pages as they are asked for, and every change over one stream. Always true: an order once shown stays; a job that
// is new to it waits until somebody asks for it. After a break the stream goes on from its token, so no change is missed.
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { signal } from '@preact/signals';
import type { Job, JobStatus } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { msOf } from '../format.ts';
import { jobService } from './clients.ts';
import { follow } from './link.ts';

export interface Filter {
  readonly statuses: readonly JobStatus[];
  /** `key=value` or `key`. */
  readonly labels: readonly string[];
  readonly errorReason: string;
  readonly batchId: string;
  /** Milliseconds since 1970. */
  readonly createdAfter: number | undefined;
}

const FIRST_PAGE = 200;
/** For who jumps far down. */
const PAGE = 1000;

export class JobList {
  /** Ids, newest first. */
  readonly rows = signal<readonly string[]>([]);
  /** Rises with each change of a job that is shown. */
  readonly version = signal(0);
  /** Ids of jobs that match and wait to be shown. */
  readonly waiting = signal<readonly string[]>([]);
  /** All pages are here. */
  readonly whole = signal(false);
  readonly loaded = signal(false);
  readonly problem = signal<unknown>(undefined);
  readonly #filter: Filter;
  readonly #jobs = new Map<string, Job>();
  readonly #shown = new Set<string>();
  readonly #stop = new AbortController();
  #nextPage = '';
  #token = '';
  #loading: Promise<void> | undefined;
  #drawing = false;

  constructor(filter: Filter) {
    this.#filter = filter;
    follow((attempt, alive) => this.#run(attempt, alive), this.#stop.signal).catch((error: unknown) => {
      this.problem.value = error;
    });
  }

  get(id: string): Job | undefined {
    return this.#jobs.get(id);
  }

  close(): void {
    this.#stop.abort();
  }

  /** Loads pages until there are `count` rows or no more. */
  load(count: number): Promise<void> {
    // The stream's first run brings the first page.
    if (!this.loaded.peek()) return Promise.resolve();
    this.#loading ??= this.#load(count).finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  /** Puts the jobs that wait where they belong. */
  showWaiting(): void {
    for (const id of this.waiting.value) this.#shown.add(id);
    const at = (id: string) => msOf(this.#jobs.get(id)?.createdAt) ?? 0;
    this.rows.value = [...this.waiting.value, ...this.rows.value].sort((a, b) => at(b) - at(a) || (a < b ? 1 : -1));
    this.waiting.value = [];
  }

  /** Takes over what a call of this page answered, before the stream tells it. */
  put(job: Job): void {
    if (this.#jobs.has(job.jobId)) this.#set(job);
  }

  async #load(count: number): Promise<void> {
    try {
      while (!this.whole.value && this.rows.value.length < count && !this.#stop.signal.aborted) {
        const missing = count - this.rows.value.length;
        await this.#page(missing > 2 * FIRST_PAGE ? PAGE : FIRST_PAGE, this.#stop.signal);
      }
    } catch {
      // The stream notices a lost connection, and whoever scrolls asks again.
    }
  }

  async #run(attempt: AbortSignal, alive: () => void): Promise<'again'> {
    if (this.#token === '') await this.#first(attempt);
    alive();
    const { statuses, labels, errorReason, batchId } = this.#filter;
    const request = { status: [...statuses], label: [...labels], errorReason, batchId, watchToken: this.#token };
    for await (const change of jobService.watchJobs(request, { signal: attempt })) {
      alive();
      if (change.reset) {
        this.#token = '';
        return 'again';
      }
      this.#token = change.watchToken;
      if (change.job) this.#changed(change.job, change.leftFilter);
    }
    return 'again';
  }

  async #first(signal: AbortSignal): Promise<void> {
    this.rows.value = [];
    this.waiting.value = [];
    this.#jobs.clear();
    this.#shown.clear();
    this.whole.value = false;
    this.#nextPage = '';
    this.#token = await this.#page(FIRST_PAGE, signal);
    this.loaded.value = true;
  }

  /** Appends one page; answers its watch token. */
  async #page(pageSize: number, signal: AbortSignal): Promise<string> {
    const { statuses, labels, errorReason, batchId, createdAfter } = this.#filter;
    const page = await jobService.list(
      {
        status: [...statuses],
        label: [...labels],
        errorReason,
        batchId,
        createdAfter: createdAfter === undefined ? undefined : timestampFromMs(createdAfter),
        pageSize,
        pageToken: this.#nextPage,
      },
      { signal },
    );
    const added: string[] = [];
    for (const job of page.jobs) {
      const known = this.#jobs.get(job.jobId);
      // What the stream told meanwhile is newer.
      if (!known || known.sequence <= job.sequence) this.#jobs.set(job.jobId, job);
      if (this.#shown.has(job.jobId)) continue;
      this.#shown.add(job.jobId);
      added.push(job.jobId);
    }
    this.waiting.value = this.waiting.value.filter((id) => !this.#shown.has(id));
    this.rows.value = [...this.rows.value, ...added];
    this.#nextPage = page.nextPageToken;
    this.whole.value = page.nextPageToken === '';
    return page.watchToken;
  }

  #changed(job: Job, left: boolean): void {
    const id = job.jobId;
    if (this.#shown.has(id)) {
      this.#set(job);
      return;
    }
    const waits = this.waiting.value.includes(id);
    if (left) {
      if (waits) this.waiting.value = this.waiting.value.filter((one) => one !== id);
      this.#jobs.delete(id);
      return;
    }
    const { createdAfter } = this.#filter;
    const created = msOf(job.createdAt) ?? 0;
    if (createdAfter !== undefined && created < createdAfter) return;
    // Below what is loaded: a later page brings it.
    const last = this.rows.value.at(-1);
    if (!waits && !this.whole.value && last !== undefined && created < (msOf(this.#jobs.get(last)?.createdAt) ?? 0)) return;
    this.#set(job);
    if (!waits) this.waiting.value = [id, ...this.waiting.value];
    // Nothing is there that could move.
    if (this.rows.value.length === 0) this.showWaiting();
  }

  #set(job: Job): void {
    const known = this.#jobs.get(job.jobId);
    if (known && known.sequence > job.sequence) return;
    this.#jobs.set(job.jobId, job);
    if (this.#drawing) return;
    this.#drawing = true;
    // Once a frame, however many changes come.
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.version.value++;
    });
  }
}
