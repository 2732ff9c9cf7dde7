// One file on its way to the service, as the page shows it; the protocol is the client package's. Always true: a broken connection, a restart or a
// closed tab costs only what was under way; the same file chosen again goes on where it was.
import { signal } from '@preact/signals';
import { BadRequestSchema } from '../../../gen/google/rpc/error_details_pb.js';
import { type SendPiece, TusProblem, TusUpload } from '../../../src/client/tus.ts';
import { ROOT } from '../router.ts';
import { messageOf, violationWords } from './errors.ts';
import { authorization, key, keyRefused, keyWanted } from './key.ts';

export type UploadState =
  | { readonly is: 'waiting' | 'sending' | 'done' }
  /** Times in milliseconds since 1970. */
  | { readonly is: 'lost'; readonly retryAt: number }
  | { readonly is: 'failed'; readonly why: string };

/** Larger pieces than those of who knows of no progress inside of one. */
const PIECE_BYTES = 32 * 1024 * 1024;
const LONGEST_WAIT_MS = 10_000;
const KEPT = 'ffjobs.uploads';
/** A pace is told once it has been watched for this long. */
const PACE_MS = 800;

export class Upload {
  readonly state = signal<UploadState>({ is: 'waiting' });
  /** Bytes that the service has, and those under way. */
  readonly sent = signal(0);
  /** Bytes a second; 0 until it is known. */
  readonly pace = signal(0);
  /** `upload://ID`, known as soon as the service has a place for it; it can be used once the state is `done`. */
  readonly uri = signal<string | undefined>(undefined);
  readonly file: File;
  readonly #tus: TusUpload;
  readonly #stop = new AbortController();
  #since = { at: 0, sent: 0 };

  constructor(file: File) {
    this.file = file;
    const { name, size } = file;
    const place = { url: `${ROOT}api/v1/tus`, headers: authorization, pieceBytes: PIECE_BYTES, send };
    this.#tus = new TusUpload({ name, size, slice: (start, end) => file.slice(start, end) }, place, remembered(file));
  }

  async run(): Promise<void> {
    let waitMs = 500;
    while (!this.#stop.signal.aborted) {
      const sent = key.value;
      try {
        await this.#attempt(() => {
          waitMs = 500;
        });
        return;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        const problem = error instanceof TusProblem ? error : undefined;
        if (problem?.status === 401) keyRefused(sent);
        else if (problem?.gone) {
          forget(this.file);
          this.uri.value = undefined;
          continue;
        } else if (problem && !problem.passing) {
          this.state.value = { is: 'failed', why: wordsOf(problem) };
          forget(this.file);
          return;
        }
        this.state.value = { is: 'lost', retryAt: Date.now() + waitMs };
        await pause(waitMs, this.#stop.signal);
        waitMs = Math.min(LONGEST_WAIT_MS, waitMs * 2);
      }
    }
  }

  /** Stops; with `remove` the service forgets it too. */
  stop({ remove }: { readonly remove: boolean }): void {
    const done = this.state.value.is === 'done';
    this.#stop.abort();
    if (!remove) return;
    forget(this.file);
    // A finished one may be a job's already; it expires by itself.
    if (!done) void this.#tus.remove();
  }

  async #attempt(answered: () => void): Promise<void> {
    this.#since = { at: performance.now(), sent: this.sent.value };
    const { uri } = await this.#tus.attempt({
      signal: this.#stop.signal,
      onPlace: (place) => {
        this.uri.value = place;
        remember(this.file, place);
      },
      onAnswer: () => {
        answered();
        if (this.state.value.is === 'sending') return;
        this.state.value = { is: 'sending' };
        this.#since = { at: performance.now(), sent: this.sent.value };
      },
      onProgress: (sent) => this.#progress(sent),
    });
    this.uri.value = uri;
    this.state.value = { is: 'done' };
  }

  #progress(sent: number): void {
    this.sent.value = sent;
    const ms = performance.now() - this.#since.at;
    if (ms < PACE_MS) return;
    const pace = ((sent - this.#since.sent) * 1000) / ms;
    this.pace.value = this.pace.value === 0 ? pace : this.pace.value * 0.6 + pace * 0.4;
    this.#since = { at: performance.now(), sent };
  }
}

/** Not by fetch, which tells no progress of what it sends. */
const send: SendPiece = (url, headers, body, signal, onSent) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    const end = () => signal.removeEventListener('abort', stop);
    request.open('PATCH', url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded }) => onSent(loaded);
    request.onload = () => {
      end();
      resolve({ status: request.status, header: (name) => request.getResponseHeader(name), text: async () => request.responseText });
    };
    request.onerror = request.onabort = () => {
      end();
      // As fetch has it.
      reject(new TypeError('the connection was lost'));
    };
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    else request.send(body);
  });

/** The violation's own words where there is one. */
function wordsOf({ error }: TusProblem): string {
  const [violation] = error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  return violation ? violationWords(violation) : messageOf(error);
}

/** Which upload a file was last sent as, by what the browser tells of the file. */
function nameOf(file: File): string {
  return `${file.name} ${file.size} ${file.lastModified} ${file.type}`;
}

function all(): Record<string, string> {
  return JSON.parse(localStorage.getItem(KEPT) ?? '{}') as Record<string, string>;
}

function remembered(file: File): string | undefined {
  return all()[nameOf(file)];
}

function remember(file: File, uri: string): void {
  // The latest hundred.
  const { [nameOf(file)]: _, ...others } = all();
  localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries([...Object.entries(others).slice(-99), [nameOf(file), uri]])));
}

function forget(file: File): void {
  const { [nameOf(file)]: _, ...others } = all();
  localStorage.setItem(KEPT, JSON.stringify(others));
}

/** Waits, at least until there is a key again, and no longer than until the network is back. */
function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const ends: (() => void)[] = [];
    const end = () => {
      for (const one of ends) one();
      resolve();
    };
    const timer = setTimeout(() => {
      if (keyWanted.value === undefined) return end();
      ends.push(key.subscribe((value) => value !== '' && keyWanted.value === undefined && queueMicrotask(end)));
    }, ms);
    ends.push(() => clearTimeout(timer));
    addEventListener('online', end, { once: true });
    stop.addEventListener('abort', end, { once: true });
    ends.push(() => removeEventListener('online', end));
  });
}
