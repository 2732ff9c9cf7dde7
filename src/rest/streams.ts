// Server streams over HTTP: Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html), NDJSON and plain text. Always
// true: a message object that goes to many subscribers is serialised once for each format, so what a stream yields must never be changed
// afterwards; and when a client, the deadline or the process goes, the iterable's signal aborts and its `return()` is called at once.
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { create, isMessage, type Message } from '@bufbuild/protobuf';
import { Code, type Interceptor } from '@connectrpc/connect';
import { type Call, callStream, type Implementation } from './call.ts';
import { type ErrorMapper, HttpError } from './errors.ts';
import type { AnswerHeaders } from './exchange.ts';
import type { JsonWriter } from './json-writer.ts';
import { type Route, readField } from './routes.ts';

/** A live line or lines for `curl -N`, line end included, for a message. Pure: its text is kept with the message. */
export type TextRenderer = (message: Message) => string;

/** The timers that streams use. */
export interface Timers {
  setTimeout(run: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  setInterval(run: () => void, ms: number): unknown;
  clearInterval(timer: unknown): void;
}

export interface StreamOptions {
  /** Silence after which an SSE stream gets a comment, so that proxies keep it open. */
  readonly keepAliveMs: number;
  /** What an SSE client is told to wait before it connects again. */
  readonly retryMs: number;
  /**
   * How long the status line waits for a first message: an error or an end that comes within it still has a status of its own (404, 204). Then
   * the headers go out, and a quiet stream is open.
   */
  readonly headerWaitMs: number;
  readonly timers: Timers;
}

/** How messages of one route are written in one format. */
export interface StreamFormat {
  readonly contentType: string;
  /** Sent with the headers. */
  readonly opening: string;
  readonly keepAlive: string | undefined;
  /** The end of a stream that was resumed and has nothing more to say is a 204, which tells an EventSource to stop. */
  readonly endsWithStatus: boolean;
  bytes(message: Message): Buffer;
  error(json: string): string;
}

export interface StreamFormats {
  /** Chooses by `Accept`; throws 406 when nothing fits. */
  choose(accept: string | undefined): StreamFormat;
}

/** Compiles the formats of a streaming route. */
export function compileFormats(route: Route, writer: JsonWriter, retryMs: number, text: TextRenderer | undefined): StreamFormats {
  const { output } = route.method;
  const write = route.responseBody ? writer.field(route.responseBody) : writer.message(output);
  const sse: StreamFormat = {
    contentType: 'text/event-stream',
    opening: `retry: ${retryMs}\n\n`,
    keepAlive: ': keep-alive\n\n',
    endsWithStatus: true,
    bytes: once((message) => {
      let head = '';
      const id = route.eventId && readField(message, route.eventId);
      // An id of 0 or '' is none; one with a line end or a NUL cannot be sent.
      if (id && !/[\0\r\n]/.test(String(id))) head += `id: ${id}\n`;
      const event = route.eventName && (readField(message, [...route.eventName.holder]) as Record<string, { case?: string }> | undefined);
      const chosen = event?.[route.eventName!.oneof.localName]?.case;
      if (chosen !== undefined) head += `event: ${route.eventName!.oneof.fields.find((f) => f.localName === chosen)!.name}\n`;
      return `${head}data: ${write(message)}\n\n`;
    }),
    error: (json) => `event: error\ndata: ${json}\n\n`,
  };
  const ndjson: StreamFormat = {
    contentType: 'application/x-ndjson',
    opening: '',
    keepAlive: undefined,
    endsWithStatus: false,
    bytes: once((message) => `${write(message)}\n`),
    error: (json) => `{"error":${json}}\n`,
  };
  const plain: StreamFormat | undefined = text && {
    contentType: 'text/plain; charset=utf-8',
    opening: '',
    keepAlive: undefined,
    endsWithStatus: false,
    bytes: once(text),
    error: (json) => {
      const { code, message } = JSON.parse(json) as { code: string; message: string };
      return `error: ${code}: ${message}\n`;
    },
  };
  const offers: [type: string, format: StreamFormat][] = [
    ['text/event-stream', sse],
    ['application/x-ndjson', ndjson],
    ['application/json', ndjson],
  ];
  if (plain) offers.unshift(['text/plain', plain]);
  else offers.unshift(['application/x-ndjson', ndjson]);
  const contentTypes = [...new Set(offers.map(([type]) => type).filter((type) => type !== 'application/json'))];
  return {
    choose: (accept) => {
      const chosen = negotiate(accept, offers);
      if (!chosen) throw new HttpError(406, Code.InvalidArgument, `this stream comes as ${contentTypes.join(', ')}`);
      return chosen;
    },
  };

  function once(render: (message: Message) => string): (message: Message) => Buffer {
    const kept = new WeakMap<Message, Buffer>();
    return (yielded) => {
      let bytes = kept.get(yielded);
      if (!bytes) {
        const message = isMessage(yielded, output) ? yielded : create(output, yielded);
        bytes = Buffer.from(render(message));
        kept.set(yielded, bytes);
      }
      return bytes;
    };
  }
}

/** The first offer of the highest quality that `Accept` allows (RFC 9110, 12.5.1); the first of all when the header is missing. */
function negotiate<T>(accept: string | undefined, offers: readonly (readonly [type: string, value: T])[]): T | undefined {
  if (accept === undefined || accept.trim() === '') return offers[0]![1];
  const ranges = accept.split(',').map((range) => {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const q = parameters.find((p) => p.startsWith('q='));
    return { type, q: q === undefined ? 1 : Number(q.slice(2)) || 0 };
  });
  let best: T | undefined;
  let quality = 0;
  for (const [type, value] of offers) {
    const major = `${type.slice(0, type.indexOf('/'))}/*`;
    const range = ranges.find((r) => r.type === type) ?? ranges.find((r) => r.type === major) ?? ranges.find((r) => r.type === '*/*');
    if (range && range.q > quality) {
      quality = range.q;
      best = value;
    }
  }
  return best;
}

export interface StreamRequest {
  readonly format: StreamFormat;
  /** The client has seen a part of this stream already. */
  readonly resumed: boolean;
  /** Headers that hooks have set before. */
  readonly headers: AnswerHeaders;
}

/** Where the messages of a stream go. */
export interface Sink {
  readonly response: ServerResponse;
  /** What is written for a message; the response is open by then. */
  bytes(message: Message): Uint8Array;
  /** Opens the response, when it is not open yet. */
  open(): void;
  /** Ends the response, well (undefined) or with an error. Called once, and not when the client has left. */
  end(error: unknown): void;
  /** Frees what the sink holds. Called once, whatever happens. */
  release(): void;
}

/**
 * Runs a streaming call into a sink: one message after the other, no faster than the client reads. A client that leaves, a deadline or a
 * shutdown ends the iterable at once, through the call's signal where it waits and by `return()` where it is suspended. Never rejects.
 */
export async function pump(start: () => Promise<AsyncIterable<Message>>, call: Call, sink: Sink): Promise<void> {
  const { response } = sink;
  let iterator: AsyncIterator<Message> | undefined;
  let wake: (() => void) | undefined;
  let over = false;

  const finish = (error?: unknown) => {
    if (over) return;
    over = true;
    sink.release();
    wake?.();
    if (!response.destroyed) sink.end(error);
    // A generator that waits is woken by its signal; one that is suspended is ended here.
    iterator?.return?.()?.then(undefined, () => {});
    call.end();
  };

  call.watch();
  call.onabort = finish;
  response.on('drain', () => wake?.());
  response.on('error', () => {});
  if (call.reason !== undefined) return finish(call.reason);
  try {
    const messages = await start();
    iterator = messages[Symbol.asyncIterator]();
    if (over) {
      iterator.return?.()?.then(undefined, () => {});
      return;
    }
    for (;;) {
      const { done, value } = await iterator.next();
      if (over) return;
      if (done) break;
      const bytes = sink.bytes(value);
      sink.open();
      if (!response.write(bytes)) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
        if (over) return;
      }
    }
    iterator = undefined;
    finish();
  } catch (error) {
    finish(error);
  }
}

/** Runs a streaming call and writes it to the response, which it ends. Never rejects. */
export async function answerStream(
  implementation: Implementation,
  interceptors: readonly Interceptor[],
  call: Call,
  message: Message,
  response: ServerResponse,
  errors: ErrorMapper,
  { format, resumed, headers }: StreamRequest,
  { keepAliveMs, headerWaitMs, timers }: StreamOptions,
): Promise<void> {
  let silent = true;
  let keepAlive: unknown;
  let headerWait: unknown;
  let released = false;

  const open = () => {
    if (response.headersSent) return;
    timers.clearTimeout(headerWait);
    response.writeHead(200, streamHeaders(call, format, headers));
    if (format.opening) response.write(format.opening);
    else response.flushHeaders();
    if (format.keepAlive === undefined || released) return;
    keepAlive = timers.setInterval(() => {
      if (silent && !response.writableNeedDrain) response.write(format.keepAlive);
      silent = true;
    }, keepAliveMs);
  };
  const start = async () => {
    const messages = await callStream(implementation, interceptors, call, message);
    if (!released) headerWait = timers.setTimeout(open, headerWaitMs);
    return messages;
  };
  const end = (error: unknown) => {
    if (error !== undefined) {
      const answer = errors.answer(error);
      if (response.headersSent) response.end(format.error(answer.body));
      else {
        const length = Buffer.byteLength(answer.body);
        response.writeHead(answer.status, { ...headers, ...answer.headers, 'content-length': length }).end(answer.body);
      }
    } else if (!response.headersSent && resumed && format.endsWithStatus) {
      response.writeHead(204, { ...headers, 'cache-control': 'no-store' }).end();
    } else {
      open();
      response.end();
    }
  };
  const bytes = (value: Message) => {
    silent = false;
    return format.bytes(value);
  };
  const release = () => {
    released = true;
    timers.clearTimeout(headerWait);
    timers.clearInterval(keepAlive);
  };
  await pump(start, call, { response, bytes, open, end, release });
}

function streamHeaders(call: Call, format: StreamFormat, headers: StreamRequest['headers']): OutgoingHttpHeaders {
  const out: OutgoingHttpHeaders = { ...headers };
  call.writtenHeader?.forEach((value, key) => {
    out[key] = value;
  });
  out['content-type'] = format.contentType;
  out['cache-control'] = 'no-store';
  out['x-accel-buffering'] = 'no';
  return out;
}
