// Unary methods over HTTP. Always true: a request is answered once, after its body was counted against the limit before it was parsed, and what
// the method option says (status, Location, Retry-After, redirect, Prefer) is said about successes only. What an implementation answers with is
// immutable from then on.
import type { IncomingMessage } from 'node:http';
import type { DescField, Message } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import { type Call, waitSeconds } from './call.ts';
import { badRequest, HttpError } from './errors.ts';
import { type AnswerHeaders, type Exchange, JSON_TYPE } from './exchange.ts';
import type { JsonWriter } from './json-writer.ts';
import { type Route, readField } from './routes.ts';
import { compileExpansion } from './template.ts';

const MAX_WAIT_SECONDS = 60;

/** What is sent for a response message. */
export type Answer = (call: Call, message: Message, exchange: Exchange) => void;

/** Hands on what the request prefers, where the route heeds it. */
export function heedPreference(route: Route, call: Call, request: IncomingMessage): void {
  if (!route.preferWait) return;
  const wait = preferredWait(request);
  if (wait !== undefined) call.values.set(waitSeconds, wait);
}

/** Compiles how successes of a route are sent. */
export function compileAnswer(route: Route, writer: JsonWriter): Answer {
  const write = route.responseBody ? keeping(writer.field(route.responseBody), route.responseBody) : writer.message(route.method.output);
  const { redirect, successStatus, retryAfterSeconds } = route;
  const location = route.location && compileLocation(route.location);
  return (call, message, exchange) => {
    if (redirect) {
      const target = readField(message, redirect);
      if (typeof target !== 'string' || target === '') {
        throw new Error(`${route.method.name} answered without a ${redirect.at(-1)!.name} to redirect to`);
      }
      exchange.send(302, { ...writtenHeaders(call), location: target }, '');
      return;
    }
    const body = write(message);
    const written = writtenHeaders(call);
    if (location === undefined && !retryAfterSeconds && !written) {
      exchange.send(successStatus, JSON_HEADERS, body);
      return;
    }
    const headers = written ?? {};
    const applied = route.preferWait && 'preference-applied' in headers;
    const target = location?.(message);
    if (target) headers.location = target;
    if (retryAfterSeconds && !applied) headers['retry-after'] ??= retryAfterSeconds;
    headers['content-type'] = JSON_TYPE;
    exchange.send(applied ? 200 : successStatus, headers, body);
  };
}

function compileLocation({ template, fields }: NonNullable<Route['location']>): (message: Message) => string {
  return compileExpansion(template, (path) => {
    const field = fields.get(path.join('.'))!;
    return (message) => String(readField(message, field) ?? '');
  });
}

const JSON_HEADERS: AnswerHeaders = { 'content-type': JSON_TYPE };

/**
 * A field's text, kept with the message that it holds: many callers ask for the same one, and a message that was answered with is never changed.
 */
function keeping(write: (holder: Message) => string, field: DescField): (holder: Message) => string {
  if (field.fieldKind !== 'message') return write;
  const texts = new WeakMap<object, string>();
  return (holder) => {
    const value = (holder as unknown as Record<string, unknown>)[field.localName];
    if (typeof value !== 'object' || value === null) return write(holder);
    let text = texts.get(value);
    if (text === undefined) {
      text = write(holder);
      texts.set(value, text);
    }
    return text;
  };
}

/** Headers that the implementation or an interceptor set, and trailers as `trailer-*`, as Connect's unary protocol has them. */
function writtenHeaders({ writtenHeader, writtenTrailer }: Call): Record<string, number | string | string[]> | undefined {
  if (!writtenHeader && !writtenTrailer) return undefined;
  const headers: Record<string, number | string | string[]> = {};
  writtenHeader?.forEach((value, key) => {
    headers[key] = key === 'set-cookie' ? writtenHeader.getSetCookie() : value;
  });
  writtenTrailer?.forEach((value, key) => {
    headers[`trailer-${key}`] = value;
  });
  return headers;
}

/** Seconds of `Prefer: wait=N` (RFC 7240), clamped; undefined when it is not there or makes no sense: a preference is never an error. */
function preferredWait({ headers: { prefer } }: IncomingMessage): number | undefined {
  if (prefer === undefined) return undefined;
  const found = WAIT.exec(String(prefer));
  return found ? Math.min(Number(found[1]), MAX_WAIT_SECONDS) : undefined;
}

/** The first one in a list of preferences. */
const WAIT = /(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[;,]|$)/i;

/**
 * Reads a JSON request body as text; '' where there is none. Rejects with 415 on another media type, 413 once there is more than `limit` bytes
 * (by what is announced or by what has come), 400 on bytes that are no UTF-8.
 */
export function readBody(request: IncomingMessage, limit: number): Promise<string> {
  const { headers } = request;
  const length = headers['content-length'];
  if (
    length === '0' ||
    (length === undefined && headers['transfer-encoding'] === undefined && request.httpVersionMajor < 2) ||
    request.readableEnded
  ) {
    return NOTHING;
  }
  return new Promise((resolve, reject) => {
    const tooLarge = () =>
      new HttpError(
        413,
        Code.ResourceExhausted,
        `the body is larger than ${limit} bytes`,
        request.httpVersionMajor < 2 ? { connection: 'close' } : {},
      );
    if (length !== undefined && Number(length) > limit) return reject(tooLarge());
    const chunks: Buffer[] = [];
    let size = 0;
    const refused = refuseMediaType(request);
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (refused) reject(refused);
      else if (size > limit) {
        reject(tooLarge());
        chunks.length = 0;
      } else chunks.push(chunk);
    });
    request.once('end', () => {
      try {
        resolve(size === 0 ? '' : utf8.decode(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)));
      } catch {
        reject(badRequest([], 'the body is not valid UTF-8'));
      }
    });
    request.once('error', reject);
    request.once('aborted', () => reject(badRequest([], 'the body ended too early')));
  });
}

const NOTHING = Promise.resolve('');
const utf8 = new TextDecoder('utf-8', { fatal: true });

function refuseMediaType({ headers }: IncomingMessage): HttpError | undefined {
  const type = headers['content-type'] ?? '';
  if (type === 'application/json' && headers['content-encoding'] === undefined) return undefined;
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding !== 'identity')
    return new HttpError(415, Code.InvalidArgument, `the body must not be encoded, and is "${encoding}"`, {
      'accept-encoding': 'identity',
    });
  if (/^application\/json\s*(?:;\s*charset\s*=\s*"?utf-?8"?\s*)?$/i.test(type)) return undefined;
  const given = type === '' ? 'and its type is not given' : `and is ${JSON.stringify(type)}`;
  return new HttpError(415, Code.InvalidArgument, `the body must be application/json, ${given}`, { accept: 'application/json' });
}
