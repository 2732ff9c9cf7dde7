// One file over HTTP, from the request to the last byte on disk. Always true here: what is handed on has every byte that the server announced,
// of one version of the file, and its digest; limits count the bytes that come and not those that are announced.
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { type Dispatcher, errors, request } from 'undici';
import type { Failure } from '../jobs/job.ts';
import { Appender } from './appender.ts';
import { HostNotAllowed, type Hosts } from './hosts.ts';
import { type FetchObserver, storageFull } from './references.ts';
import { mediaTypeOf, SNIFF_BYTES } from './sniff.ts';

/** Times in milliseconds. */
export interface DownloadLimits {
  readonly maxBytes: number;
  readonly totalMs: number;
  readonly connectMs: number;
  readonly headersMs: number;
  /** A transfer that brings fewer bytes than this in a window is given up, and gone on with anew. */
  readonly windowBytes: number;
  readonly windowMs: number;
  readonly maxRedirects: number;
  /** Requests in a row that bring fewer bytes than `windowBytes`. */
  readonly tries: number;
  /** Before the second try; doubled with each further one. */
  readonly retryMs: number;
}

/** What tells one version of a file from another without a doubt: a strong ETag, or a Last-Modified that is old enough (RFC 9110, 8.8). */
export interface Validator {
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
}

export interface Downloaded {
  readonly sha256: string;
  readonly bytes: number;
  /** Undefined: the server gives no way to ask whether it changed, or wants it not kept. */
  readonly validator: Validator | undefined;
}

/** Ends a request with a verdict for the caller. */
class Stopped extends Error {
  override readonly name = 'Stopped';
  readonly failure: Failure;
  /** Whether to ask again at once. */
  readonly again: boolean;
  constructor(failure: Failure, again: boolean) {
    super(failure.message);
    this.failure = failure;
    this.again = again;
  }
}

const REDIRECTS = [301, 302, 303, 307, 308];
/** Requests for one file, however much each of them brings. */
const MAX_REQUESTS = 50;
/** A Last-Modified of the last minute may be that of two versions (RFC 9110, 8.8.2.2). */
const SETTLED_MS = 60_000;

/**
 * Downloads `url` to `path`, which must not be there. With `known`, asks first whether that version is still the one: 'not_modified'. Throws
 * with the signal's reason, or when the disk fails; then and on a failure nothing is left behind.
 */
export async function download(
  url: URL,
  path: string,
  options: {
    readonly hosts: Hosts;
    readonly dispatcher: Dispatcher;
    readonly limits: DownloadLimits;
    readonly known: Validator | undefined;
    readonly signal: AbortSignal;
    readonly progress: FetchObserver['progress'];
  },
): Promise<Downloaded | 'not_modified' | Failure> {
  const file = await open(path, 'wx');
  let whole = false;
  const late = new AbortController();
  const timer = setTimeout(
    () => late.abort(new Stopped(failed('INPUT_TIMED_OUT', `${url.host} took too long to send the file`, true), false)),
    options.limits.totalMs,
  );
  try {
    const transfer = new Transfer(url, file, { ...options, signal: AbortSignal.any([options.signal, late.signal]) });
    const outcome = await transfer.run();
    whole = typeof outcome === 'object' && 'sha256' in outcome;
    return outcome;
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof Stopped) return error.failure;
    throw storageFull(error, 'the disk for downloads is full');
  } finally {
    clearTimeout(timer);
    await file.close();
    if (!whole) await rm(path, { force: true });
  }
}

class Transfer {
  readonly #url: URL;
  readonly #file: FileHandle;
  readonly #options: Parameters<typeof download>[2];
  #known: Validator | undefined;
  #hash: Hash = createHash('sha256');
  #received = 0;
  #head = Buffer.alloc(0);
  #total: number | undefined;
  #validator: Validator | undefined;
  #keepable = true;

  constructor(url: URL, file: FileHandle, options: Parameters<typeof download>[2]) {
    this.#url = url;
    this.#file = file;
    this.#options = options;
    this.#known = options.known;
  }

  async run(): Promise<Downloaded | 'not_modified'> {
    const { limits, signal } = this.#options;
    for (let requests = 1, barren = 0; ; requests++) {
      const before = this.#received;
      try {
        return await this.#request();
      } catch (error) {
        signal.throwIfAborted();
        const stopped = error instanceof Stopped ? error : stoppedBy(error, this.#url.host);
        if (!stopped?.again) throw stopped ?? error;
        barren = this.#received - before >= limits.windowBytes ? 0 : barren + 1;
        if (barren >= limits.tries || requests >= MAX_REQUESTS) throw stopped;
        // Without a word for 'the same version' the bytes so far are worth nothing.
        if (this.#validator === undefined) await this.#startOver();
        await delay(limits.retryMs * 2 ** barren, undefined, { signal });
      }
    }
  }

  /** One request and what its redirects lead to. */
  async #request(): Promise<Downloaded | 'not_modified'> {
    const { hosts, limits } = this.#options;
    let url = this.#url;
    for (let redirects = 0; ; redirects++) {
      const leaving = new AbortController();
      const signal = AbortSignal.any([this.#options.signal, leaving.signal]);
      try {
        const answer = await this.#ask(url, leaving, signal);
        if (!REDIRECTS.includes(answer.statusCode)) return await this.#take(answer, leaving);
        if (redirects === limits.maxRedirects) {
          throw new Stopped(
            failed('INPUT_NOT_READABLE', `${this.#url.host} redirects more than ${limits.maxRedirects} times`, false),
            false,
          );
        }
        url = redirected(url, one(answer.headers.location), hosts);
      } finally {
        // Whatever of the answer has not been read is not wanted.
        leaving.abort();
      }
    }
  }

  async #ask(url: URL, leaving: AbortController, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    const { limits, dispatcher } = this.#options;
    const tooLong = new Stopped(failed('INPUT_TIMED_OUT', `${url.host} does not answer`, true), true);
    const timer = setTimeout(() => leaving.abort(tooLong), limits.connectMs + limits.headersMs);
    try {
      const answer = await request(url, {
        dispatcher,
        signal,
        headers: {
          accept: '*/*',
          // Media are compressed already; and a length and a range mean the file's own bytes this way.
          'accept-encoding': 'identity',
          'user-agent': 'facefusion-jobs',
          ...(this.#received > 0 ? rangeHeaders(this.#received, this.#validator!) : this.#known ? conditionHeaders(this.#known) : {}),
        },
        // Both are watched here, to the millisecond.
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      // An abort after the last byte is ours.
      answer.body.on('error', () => {});
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  async #take(answer: Dispatcher.ResponseData, leaving: AbortController): Promise<Downloaded | 'not_modified'> {
    const { host } = this.#url;
    const { statusCode: status, headers } = answer;
    const { limits } = this.#options;
    if (status === 304 && this.#known && this.#received === 0) {
      if (sameVersion(this.#known, headers)) return 'not_modified';
      this.#known = undefined;
      throw new Stopped(failed('INPUT_UNREACHABLE', `${host} contradicts itself about the version of the file`, true), true);
    }
    if (status === 416) {
      await this.#startOver();
      throw new Stopped(failed('INPUT_UNREACHABLE', `${host} sends less of the file than it had announced`, true), true);
    }
    if (status === 206 && this.#received > 0) await this.#checkRange(headers, host);
    else if (status !== 200) throw badStatus(status, host);
    else {
      // The whole file, perhaps of another version.
      await this.#startOver();
      this.#total = lengthOf(headers);
      this.#validator = validatorOf(headers);
      this.#keepable = !/\bno-store\b/i.test(one(headers['cache-control']) ?? '');
    }
    const encoding = one(headers['content-encoding'])?.trim().toLowerCase() ?? 'identity';
    if (encoding !== 'identity' && encoding !== '') {
      const message = `${host} sends the file in an encoding; it must be sent as it is, which is what was asked for`;
      throw new Stopped(failed('INPUT_NOT_READABLE', message, false), false);
    }
    if ((this.#total ?? 0) > limits.maxBytes) throw tooLarge(limits.maxBytes);
    await this.#read(answer.body, leaving);

    if (this.#total !== undefined && this.#received !== this.#total) {
      const message = `${host} announced ${this.#total} bytes and sent ${this.#received}`;
      throw new Stopped(failed('INPUT_TRUNCATED', message, true), true);
    }
    if (this.#received === 0) throw new Stopped(failed('INPUT_NOT_READABLE', `${host} sends an empty file`, false), false);
    this.#judgeHead();
    return { sha256: this.#hash.digest('hex'), bytes: this.#received, validator: this.#keepable ? this.#validator : undefined };
  }

  async #read(body: AsyncIterable<Buffer>, leaving: AbortController): Promise<void> {
    const { limits, progress } = this.#options;
    let inWindow = 0;
    const slow = new Stopped(failed('INPUT_TIMED_OUT', `${this.#url.host} sends the file too slowly`, true), true);
    const timer = setInterval(() => {
      if (inWindow < limits.windowBytes) leaving.abort(slow);
      inWindow = 0;
    }, limits.windowMs);
    progress(this.#received, this.#total);
    const writer = new Appender(this.#file, this.#received);
    try {
      for await (const chunk of body) {
        inWindow += chunk.length;
        if (this.#received + chunk.length > limits.maxBytes) throw tooLarge(limits.maxBytes);
        // While the disk is busy.
        this.#hash.update(chunk);
        if (this.#head.length < SNIFF_BYTES) {
          this.#head = Buffer.concat([this.#head, chunk.subarray(0, SNIFF_BYTES - this.#head.length)]);
        }
        await writer.add(chunk);
        this.#received += chunk.length;
        // As soon as it can be told, so that what is no medium is not fetched in full.
        if (this.#received - chunk.length < SNIFF_BYTES && this.#head.length === SNIFF_BYTES) this.#judgeHead();
        progress(this.#received, this.#total);
      }
    } finally {
      clearInterval(timer);
      // Also of a transfer that broke off: it goes on after what it brought.
      await writer.flush();
    }
  }

  async #checkRange(headers: Dispatcher.ResponseData['headers'], host: string): Promise<void> {
    const [, from, , total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(one(headers['content-range']) ?? '') ?? [];
    const fits = Number(from) === this.#received && (total === '*' || this.#total === undefined || Number(total) === this.#total);
    if (fits && sameVersion(this.#validator!, headers)) {
      if (total !== '*') this.#total = Number(total);
      return;
    }
    await this.#startOver();
    throw new Stopped(failed('INPUT_UNREACHABLE', `${host} does not go on with the file where it broke off`, true), true);
  }

  async #startOver(): Promise<void> {
    if (this.#received > 0) await this.#file.truncate(0);
    this.#hash = createHash('sha256');
    this.#received = 0;
    this.#head = Buffer.alloc(0);
    this.#total = undefined;
    this.#validator = undefined;
  }

  #judgeHead(): void {
    if (mediaTypeOf(this.#head) !== undefined) return;
    const message = `what ${this.#url.host} sends is in no format that the service knows`;
    throw new Stopped(failed('INPUT_NOT_READABLE', message, false), false);
  }
}

function redirected(from: URL, location: string | undefined, hosts: Hosts): URL {
  const target = location !== undefined && URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (!target) throw new Stopped(failed('INPUT_NOT_READABLE', `${from.host} redirects to no URL`, false), false);
  if (from.protocol === 'https:' && target.protocol === 'http:') {
    throw new Stopped(failed('INPUT_HOST_NOT_ALLOWED', `${from.host} redirects from https to http, which is not followed`, false), false);
  }
  // An absolute target as it was written: the parser would hide an odd notation.
  const written = /^https?:\/\//i.test(location!) ? location! : target.href;
  const url = hosts.parse(written);
  if (url instanceof URL) return url;
  throw new Stopped(failed(url.reason, `${from.host} redirects to a place that is not allowed: ${url.description}`, false), false);
}

function badStatus(status: number, host: string): Stopped {
  if (status === 404 || status === 410)
    return new Stopped(failed('INPUT_NOT_FOUND', `${host} has no such file (status ${status})`, false), false);
  if (status === 401 || status === 403 || status === 407) {
    return new Stopped(
      failed('INPUT_FORBIDDEN', `${host} does not give this file out (status ${status}); give a presigned URL`, false),
      false,
    );
  }
  const transient = status >= 500 || status === 408 || status === 425 || status === 429;
  if (transient) return new Stopped(failed('INPUT_UNREACHABLE', `${host} answers with status ${status}`, true), true);
  return new Stopped(failed('INPUT_NOT_READABLE', `${host} answers with status ${status}`, false), false);
}

/** What a failed request means; undefined: a defect of ours, or of the disk. */
function stoppedBy(error: unknown, host: string): Stopped | undefined {
  const causes = error instanceof AggregateError ? error.errors : [error];
  for (const cause of causes) {
    if (cause instanceof Stopped) return cause;
    if (cause instanceof HostNotAllowed) {
      return new Stopped(failed('INPUT_HOST_NOT_ALLOWED', `${host} is not a host that media are fetched from`, false), false);
    }
    const { code, syscall } = cause as NodeJS.ErrnoException;
    if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
      return new Stopped(failed('INPUT_UNREACHABLE', `there is no host ${host}`, true), true);
    if (code !== undefined && /^(CERT_|ERR_TLS_CERT|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_)/.test(code)) {
      return new Stopped(failed('INPUT_UNREACHABLE', `the certificate of ${host} is not valid`, false), false);
    }
    if (cause instanceof errors.ConnectTimeoutError) {
      return new Stopped(failed('INPUT_TIMED_OUT', `${host} does not answer`, true), true);
    }
    if (cause instanceof errors.HTTPParserError || cause instanceof errors.HeadersOverflowError) {
      return new Stopped(failed('INPUT_NOT_READABLE', `${host} does not speak HTTP as it should`, false), false);
    }
    const network = cause instanceof errors.UndiciError || ['connect', 'read', 'write', 'getaddrinfo'].includes(syscall ?? '');
    if (network || code === 'EPIPE' || code === 'ECONNRESET' || code?.startsWith('ERR_SSL_')) {
      return new Stopped(failed('INPUT_UNREACHABLE', `${host} cannot be reached, or breaks off`, true), true);
    }
  }
  return undefined;
}

function failed(reason: string, message: string, retryable: boolean): Failure {
  return { reason, message, retryable };
}

function tooLarge(maxBytes: number): Stopped {
  return new Stopped(failed('INPUT_TOO_LARGE', `a file has at most ${maxBytes} bytes here`, false), false);
}

function rangeHeaders(from: number, { etag, lastModified }: Validator): Record<string, string> {
  return { range: `bytes=${from}-`, 'if-range': etag ?? lastModified! };
}

function conditionHeaders({ etag, lastModified }: Validator): Record<string, string> {
  return etag === undefined ? { 'if-modified-since': lastModified! } : { 'if-none-match': etag };
}

function validatorOf(headers: Dispatcher.ResponseData['headers']): Validator | undefined {
  const etag = one(headers.etag);
  if (etag !== undefined && /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag)) return { etag, lastModified: undefined };
  const lastModified = one(headers['last-modified']);
  const age = Date.parse(one(headers.date) ?? '') - Date.parse(lastModified ?? '');
  return age >= SETTLED_MS ? { etag: undefined, lastModified } : undefined;
}

/** Whether an answer that is bound to a version does not name another one. */
function sameVersion(known: Validator, headers: Dispatcher.ResponseData['headers']): boolean {
  const etag = one(headers.etag);
  if (known.etag !== undefined) return etag === undefined || etag === known.etag;
  const lastModified = one(headers['last-modified']);
  return lastModified === undefined || lastModified === known.lastModified;
}

function lengthOf(headers: Dispatcher.ResponseData['headers']): number | undefined {
  const text = one(headers['content-length']);
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function one(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
