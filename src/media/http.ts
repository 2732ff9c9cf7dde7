// http:// and https:// references. Always true here: one URL is downloaded once at a time, however many jobs want it, and by nobody when the
// last of them has left; what was downloaded before is used again only when its server says in this moment that it is still the same.
import { chmod, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent } from 'undici';
import type { Failure } from '../jobs/job.ts';
import { type Downloaded, type DownloadLimits, download, type Validator } from './download.ts';
import { type HostRules, Hosts, type Lookup } from './hosts.ts';
import { type FetchObserver, linkOrCopy, type MediaResolver } from './references.ts';

export interface HttpOptions {
  /** Made when it is not there, and emptied: this process alone uses it. On the disk of the work folders nothing is copied. */
  readonly dir: string;
  readonly hosts: HostRules;
  /** Of downloads that are kept for the next job; the least recently used ones go. 0: none. */
  readonly cacheBytes: number;
  /** One that no job has used for so long goes, in milliseconds. */
  readonly cacheMs?: number;
  readonly limits: Pick<DownloadLimits, 'maxBytes'> & Partial<DownloadLimits>;
  /** Instead of the system's. */
  readonly lookup?: Lookup;
}

export type HttpReferences = MediaResolver & AsyncDisposable;

const SWEEP_MS = 60_000;

const LIMITS: Omit<DownloadLimits, 'maxBytes'> = {
  totalMs: 3_600_000,
  connectMs: 10_000,
  headersMs: 30_000,
  windowBytes: 32 * 1024,
  windowMs: 30_000,
  maxRedirects: 5,
  tries: 3,
  retryMs: 250,
};

export async function openHttp(options: HttpOptions): Promise<HttpReferences> {
  await rm(options.dir, { recursive: true, force: true });
  await mkdir(options.dir, { recursive: true });
  return new Downloads(options);
}

/** A whole download on disk. */
interface Entry extends Downloaded {
  readonly path: string;
  /** Flights that hand it out. */
  users: number;
  kept: boolean;
  /** Monotonic. */
  usedMs: number;
}

/** A download under way, and those who wait for it. */
class Flight {
  readonly controller = new AbortController();
  readonly listeners = new Set<FetchObserver['progress']>();
  outcome: Promise<Entry | Failure> = Promise.reject(new Error('not started'));
  waiters = 0;
  last: Parameters<FetchObserver['progress']> | undefined;

  constructor() {
    this.outcome.catch(() => {});
  }

  readonly progress: FetchObserver['progress'] = (...now) => {
    this.last = now;
    for (const listener of this.listeners) listener(...now);
  };
}

class Downloads implements HttpReferences {
  readonly schemes: readonly string[];
  readonly #options: HttpOptions;
  readonly #hosts: Hosts;
  readonly #limits: DownloadLimits;
  readonly #agent: Agent;
  readonly #flights = new Map<string, Flight>();
  /** By URL, least recently used first. */
  readonly #kept = new Map<string, Entry>();
  readonly #timer: NodeJS.Timeout | undefined;
  #keptBytes = 0;
  #count = 0;

  constructor(options: HttpOptions) {
    this.schemes = options.hosts.schemes;
    this.#options = options;
    this.#hosts = new Hosts(options.hosts);
    this.#limits = { ...LIMITS, ...options.limits };
    this.#agent = new Agent({
      connect: this.#hosts.connector(this.#limits.connectMs, options.lookup),
      maxHeaderSize: 32 * 1024,
      keepAliveTimeout: 4_000,
    });
    const { cacheMs = Number.POSITIVE_INFINITY } = options;
    if (!Number.isFinite(cacheMs)) return;
    this.#timer = setInterval(() => void this.#dropUnused(performance.now() - cacheMs).catch(() => {}), Math.min(cacheMs, SWEEP_MS));
    this.#timer.unref();
  }

  async check(reference: string, field: string) {
    const url = this.#hosts.parse(reference);
    return url instanceof URL ? undefined : { field, ...url };
  }

  async fetch(reference: string, toPath: string, signal: AbortSignal, observer?: FetchObserver): Promise<Failure | undefined> {
    signal.throwIfAborted();
    const url = this.#hosts.parse(reference);
    if (!(url instanceof URL)) return { reason: url.reason, message: url.description, retryable: false };
    const flight = this.#flights.get(url.href) ?? this.#start(url);
    const progress: FetchObserver['progress'] = (...now) => observer?.progress(...now);
    flight.waiters++;
    flight.listeners.add(progress);
    if (flight.last) progress(...flight.last);
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = () => reject(signal.reason);
    signal.addEventListener('abort', leave, { once: true });
    try {
      const outcome = await Promise.race([flight.outcome, left]);
      if ('reason' in outcome) return outcome;
      await linkOrCopy(outcome.path, toPath, signal);
      observer?.digested(outcome.sha256);
      return undefined;
    } finally {
      signal.removeEventListener('abort', leave);
      flight.listeners.delete(progress);
      flight.waiters--;
      if (flight.waiters === 0) await this.#land(url.href, flight);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (const flight of this.#flights.values()) flight.controller.abort(new Error('the service is shutting down'));
    await Promise.allSettled([...this.#flights.values()].map((flight) => flight.outcome));
    await this.#agent.destroy();
    await rm(this.#options.dir, { recursive: true, force: true });
  }

  #start(url: URL): Flight {
    const flight = new Flight();
    this.#flights.set(url.href, flight);
    flight.outcome = this.#fly(url, flight).finally(() => this.#forget(url.href, flight));
    // Each waiter hears of it; when there is none left nobody needs to.
    flight.outcome.catch(() => {});
    return flight;
  }

  async #fly(url: URL, flight: Flight): Promise<Entry | Failure> {
    const kept = this.#kept.get(url.href);
    if (kept) kept.users++;
    try {
      const path = join(this.#options.dir, `${++this.#count}`);
      // Somebody may have tidied the data folder up.
      await mkdir(this.#options.dir, { recursive: true });
      const got = await this.#download(url, path, flight, kept?.validator);
      if (got === 'not_modified') {
        kept!.users++;
        this.#touch(url.href, kept!);
        return kept!;
      }
      if ('reason' in got) return got;
      // Jobs get it under a second name, and an engine that wrote to its input would write to theirs.
      await chmod(path, 0o444);
      const entry: Entry = { ...got, path, users: 1, kept: false, usedMs: performance.now() };
      await this.#keep(url.href, entry);
      return entry;
    } finally {
      if (kept) await this.#release(kept);
    }
  }

  #download(url: URL, path: string, flight: Flight, known: Validator | undefined): Promise<Downloaded | 'not_modified' | Failure> {
    return download(url, path, {
      hosts: this.#hosts,
      dispatcher: this.#agent,
      limits: this.#limits,
      known,
      signal: flight.controller.signal,
      progress: flight.progress,
    });
  }

  /** The last waiter has left: with its file, or before there was one. */
  async #land(href: string, flight: Flight): Promise<void> {
    this.#forget(href, flight);
    flight.controller.abort(new Error('nobody waits for this download any more'));
    const outcome = await flight.outcome.catch(() => undefined);
    if (outcome && 'path' in outcome) await this.#release(outcome);
  }

  /** Who comes now begins anew. */
  #forget(href: string, flight: Flight): void {
    if (this.#flights.get(href) === flight) this.#flights.delete(href);
  }

  async #keep(href: string, entry: Entry): Promise<void> {
    const old = this.#kept.get(href);
    if (old) await this.#drop(href, old);
    if (entry.validator === undefined || entry.bytes > this.#options.cacheBytes) return;
    entry.kept = true;
    this.#kept.set(href, entry);
    this.#keptBytes += entry.bytes;
    for (const [key, least] of this.#kept) {
      if (this.#keptBytes <= this.#options.cacheBytes) break;
      await this.#drop(key, least);
    }
  }

  #touch(href: string, entry: Entry): void {
    if (this.#kept.get(href) !== entry) return;
    entry.usedMs = performance.now();
    this.#kept.delete(href);
    this.#kept.set(href, entry);
  }

  async #dropUnused(sinceMs: number): Promise<void> {
    for (const [key, least] of this.#kept) {
      if (least.usedMs > sinceMs) return;
      await this.#drop(key, least);
    }
  }

  async #drop(href: string, entry: Entry): Promise<void> {
    if (this.#kept.get(href) === entry) this.#kept.delete(href);
    if (!entry.kept) return;
    entry.kept = false;
    this.#keptBytes -= entry.bytes;
    if (entry.users === 0) await rm(entry.path, { force: true });
  }

  async #release(entry: Entry): Promise<void> {
    entry.users--;
    if (entry.users === 0 && !entry.kept) await rm(entry.path, { force: true });
  }
}
