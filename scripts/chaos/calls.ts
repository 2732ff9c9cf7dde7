// How callers reach the cluster: any replica that listens, another one when it does not answer, with the words that it may use. Always true here: an
// answer that no caller should ever get is a `Violation`, whatever has been done to the cluster.
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../random.ts';

/** A process that may be called. */
export interface Replica {
  /** Undefined while it does not listen. */
  readonly address: string | undefined;
}

/** What must never happen has. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

export interface JobWords {
  readonly job_id: string;
  readonly status: string;
  readonly sequence: number;
  readonly attempt: number;
  readonly cancel_requested_at: string | null;
  readonly error: { readonly reason: string; readonly message: string } | null;
  readonly result: { readonly sha256: string; readonly bytes: string } | null;
  readonly result_url: string | null;
  readonly slot: string | null;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface EventWords {
  readonly sequence: number;
  readonly snapshot?: { readonly job: JobWords; readonly reset: boolean } | null;
  readonly state?: {
    readonly status: string;
    readonly attempt: number;
    readonly progress: number;
    readonly error: { readonly reason: string } | null;
  } | null;
  readonly progress?: { readonly percent: number; readonly attempt: number } | null;
  readonly skipped_after?: number | null;
}

const ENDED = new Set(['succeeded', 'failed', 'canceled', 'refused']);
export const isEnded = (status: string | undefined) => status !== undefined && ENDED.has(status);

/** Answers that a cluster with faults may give, and after which a caller tries again. */
const PASSING = new Set([429, 502, 503, 504]);
const CALL_MS = 8_000;

export class Callers {
  readonly #apis: readonly Replica[];
  readonly #random: Random;
  /** Answers that had to be asked for again. */
  retries = 0;

  constructor(apis: readonly Replica[], random: Random) {
    this.#apis = apis;
    this.#random = random;
  }

  /** A replica's address; waits until one listens. */
  async address(signal: AbortSignal): Promise<string> {
    for (;;) {
      signal.throwIfAborted();
      const up = this.#apis.flatMap(({ address }) => address ?? []);
      if (up.length > 0) return this.#random.pick(up);
      await delay(50, undefined, { signal });
    }
  }

  /** Until some replica answers. Throws a `Violation` for an answer that is none. */
  async call<T>(method: string, path: string, signal: AbortSignal, body?: unknown): Promise<{ readonly status: number; readonly body: T }> {
    for (let wait = 50; ; wait = Math.min(1000, wait * 2)) {
      const answer = await this.#once(method, path, signal, body);
      if (answer) return answer as { status: number; body: T };
      this.retries++;
      await delay(wait + this.#random.int(0, 50), undefined, { signal });
    }
  }

  async #once(method: string, path: string, signal: AbortSignal, body: unknown): Promise<{ status: number; body: unknown } | undefined> {
    const address = await this.address(signal);
    let response: Response;
    let text: string;
    try {
      response = await fetch(new URL(path, address), {
        method,
        headers: body === undefined ? {} : { 'content-type': 'application/json' },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]),
      });
      text = await response.text();
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof TypeError || (error as Error).name === 'TimeoutError') return undefined;
      throw error;
    }
    if (PASSING.has(response.status)) return undefined;
    if (response.status >= 500) throw new Violation(`${method} ${path} is answered ${response.status}: ${text.slice(0, 300)}`);
    return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
  }

  get(jobId: string, signal: AbortSignal): Promise<JobWords> {
    return this.#found(jobId, this.call<JobWords>('GET', `/api/v1/jobs/${jobId}`, signal));
  }

  cancel(jobId: string, signal: AbortSignal): Promise<JobWords> {
    return this.#found(jobId, this.call<JobWords>('DELETE', `/api/v1/jobs/${jobId}`, signal));
  }

  /** Events after a sequence, from one connection; ends when that does, whyever. `address`: of that replica alone. */
  async *events(jobId: string, after: number | undefined, signal: AbortSignal, address?: string): AsyncGenerator<EventWords, void> {
    const path = `/api/v1/jobs/${jobId}/events${after === undefined ? '' : `?after_sequence=${after}`}`;
    try {
      const response = await fetch(new URL(path, address ?? (await this.address(signal))), {
        headers: { accept: 'application/x-ndjson' },
        signal,
      });
      if (response.status === 204) return;
      if (!response.ok) {
        const text = await response.text();
        if (!PASSING.has(response.status)) throw new Violation(`GET ${path} is answered ${response.status}: ${text.slice(0, 300)}`);
        return;
      }
      let rest = '';
      const decoder = new TextDecoder();
      for await (const chunk of response.body!) {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
        rest = lines.pop()!;
        for (const line of lines) {
          if (line === '') continue;
          const event = JSON.parse(line) as EventWords & { readonly error?: { readonly code: string; readonly message: string } };
          if (event.error && event.error.code !== 'UNAVAILABLE') {
            throw new Violation(`GET ${path} ends with ${event.error.code}: ${event.error.message}`);
          }
          if (event.error) return;
          yield event;
        }
      }
    } catch (error) {
      if (error instanceof Violation || (error instanceof SyntaxError && !signal.aborted)) throw error;
      // Broken off; whoever watches comes again.
    }
  }

  async #found(jobId: string, call: Promise<{ status: number; body: JobWords }>): Promise<JobWords> {
    const { status, body } = await call;
    if (status === 404) throw new Violation(`${jobId} was accepted and is not known any more`);
    if (status >= 400) throw new Violation(`${jobId} is answered ${status}: ${JSON.stringify(body).slice(0, 300)}`);
    return body;
  }
}
