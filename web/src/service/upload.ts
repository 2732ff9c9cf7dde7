// One file on its way to the service, over tus 1.0.0 (https://tus.io/protocols/resumable-upload). Always true: what the service has got is asked of
// it before anything is sent again, so a broken connection, a restart or a closed tab costs only what was under way; the same file chosen again goes
// on where it was.
import { signal } from '@preact/signals';
import { ROOT } from '../router.ts';
import { authorization, key, keyRefused, keyWanted } from './key.ts';

export type UploadState =
  | { readonly is: 'waiting' | 'sending' | 'done' }
  /** Times in milliseconds since 1970. */
  | { readonly is: 'lost'; readonly retryAt: number }
  | { readonly is: 'failed'; readonly why: string };

const TUS = `${ROOT}api/v1/tus`;
const VERSION = { 'tus-resumable': '1.0.0' };
/** Large enough that asking costs nothing, small enough that a body limit of a proxy lets it through. */
const CHUNK = 32 * 1024 * 1024;
const LONGEST_WAIT_MS = 10_000;
const KEPT = 'ffjobs.uploads';
/** A pace is told once it has been watched for this long. */
const PACE_MS = 800;

class Refused extends Error {}
class Gone extends Error {}

export class Upload {
  readonly state = signal<UploadState>({ is: 'waiting' });
  /** Bytes that the service has, and those under way. */
  readonly sent = signal(0);
  /** Bytes a second; 0 until it is known. */
  readonly pace = signal(0);
  /** `upload://ID`, known as soon as the service has a place for it; it can be used once the state is `done`. */
  readonly uri = signal<string | undefined>(undefined);
  readonly file: File;
  readonly #stop = new AbortController();
  #since = { at: 0, sent: 0 };

  constructor(file: File) {
    this.file = file;
  }

  async run(): Promise<void> {
    let waitMs = 500;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#attempt(() => {
          waitMs = 500;
        });
        return;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        if (error instanceof Refused) {
          this.state.value = { is: 'failed', why: error.message };
          forget(this.file);
          return;
        }
        if (error instanceof Gone) {
          forget(this.file);
          this.uri.value = undefined;
          continue;
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
    const { value } = this.uri;
    forget(this.file);
    // A finished one may be a job's already; it expires by itself.
    if (value !== undefined && !done)
      void fetch(urlOf(value), { method: 'DELETE', headers: { ...VERSION, ...authorization() } }).catch(() => {});
  }

  async #attempt(answered: () => void): Promise<void> {
    const known = this.uri.value ?? remembered(this.file);
    const { uri, offset } =
      known === undefined ? { uri: await this.#create(), offset: 0 } : { uri: known, offset: await this.#offset(known) };
    this.uri.value = uri;
    remember(this.file, uri);
    answered();
    let at = offset;
    this.#since = { at: performance.now(), sent: at };
    this.#progress(at);
    this.state.value = { is: 'sending' };
    while (at < this.file.size) {
      at = await this.#send(uri, at);
      answered();
      this.#progress(at);
    }
    this.state.value = { is: 'done' };
  }

  async #create(): Promise<string> {
    const metadata = `filename ${base64(this.file.name)}`;
    const headers = { ...VERSION, 'upload-length': String(this.file.size), 'upload-metadata': metadata, ...authorization() };
    const answer = await fetch(TUS, { method: 'POST', headers, signal: this.#stop.signal });
    await checked(answer);
    const id = answer.headers.get('location')?.split('/').at(-1);
    if (!id) throw new Error('the service named no place for the upload');
    return `upload://${id}`;
  }

  async #offset(uri: string): Promise<number> {
    const answer = await fetch(urlOf(uri), { method: 'HEAD', headers: { ...VERSION, ...authorization() }, signal: this.#stop.signal });
    await checked(answer);
    const length = answer.headers.get('upload-length');
    if (length !== null && Number(length) !== this.file.size) throw new Gone();
    return Number(answer.headers.get('upload-offset') ?? 0);
  }

  /** Sends one piece; answers the new offset. Not by fetch, which tells no progress of what it sends. */
  #send(uri: string, offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const stop = () => request.abort();
      const end = () => this.#stop.signal.removeEventListener('abort', stop);
      request.open('PATCH', urlOf(uri));
      const headers = {
        ...VERSION,
        'upload-offset': String(offset),
        'content-type': 'application/offset+octet-stream',
        ...authorization(),
      };
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => this.#progress(offset + event.loaded);
      request.onload = () => {
        end();
        if (request.status === 204 || request.status === 200) {
          this.uri.value = request.getResponseHeader('upload-uri') ?? uri;
          resolve(Number(request.getResponseHeader('upload-offset')));
        } else reject(problemOf(request.status, request.responseText));
      };
      request.onerror = request.onabort = () => {
        end();
        reject(new Error('the connection was lost'));
      };
      this.#stop.signal.addEventListener('abort', stop);
      if (this.#stop.signal.aborted) stop();
      else request.send(this.file.slice(offset, offset + CHUNK));
    });
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

async function checked(answer: Response): Promise<void> {
  if (!answer.ok) throw problemOf(answer.status, await answer.text());
}

/** What stays wrong when it is tried again is `Refused`; an upload that is not there any more begins anew. */
function problemOf(status: number, body: string): Error {
  const message = messageIn(body) ?? `the service answered ${status}`;
  if (status === 401) {
    keyRefused();
    return new Error(message);
  }
  if (status === 404 || status === 410) return new Gone();
  // Another request for the same upload is under way, or the offset was not the service's: asked again, it tells.
  if (status === 409 || status === 423 || status === 429 || status >= 500)
    return status === 501 || status === 507 ? new Refused(message) : new Error(message);
  return new Refused(message);
}

/** The error's own words; a violation's where there is one. */
function messageIn(body: string): string | undefined {
  try {
    const { message, details = [] } = JSON.parse(body) as {
      message?: string;
      details?: { fieldViolations?: { description: string }[]; field_violations?: { description: string }[] }[];
    };
    const violations = details.flatMap((detail) => detail.field_violations ?? detail.fieldViolations ?? []);
    return violations[0]?.description ?? message;
  } catch {
    return undefined;
  }
}

function urlOf(uri: string): string {
  return `${TUS}/${uri.slice('upload://'.length)}`;
}

function base64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
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
