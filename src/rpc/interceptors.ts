// The onion around every call, REST and RPC alike, outermost first: observe -> translate errors -> authorize -> validate ->
// implementation.
import { type DescField, type DescMessage, type Message, ScalarType } from '@bufbuild/protobuf';
import { type Path, pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator } from '@bufbuild/protovalidate';
import { Code, ConnectError, type ContextKey, createContextKey, type Interceptor, type StreamResponse } from '@connectrpc/connect';
import type { Logger } from 'pino';
import type { Caller } from '../jobs/caller.ts';
import { JobsError, type Violation } from '../jobs/errors.ts';
import type { Span } from '../jobs/traces.ts';
import { Recent } from '../recent.ts';
import { findTooLarge } from '../rest/limits.ts';
import { toConnectError } from './errors.ts';

/** One call as the server sees it, from its first byte: made per HTTP request, filled by `observe`, counted once when the response ends. */
export interface Call {
  readonly id: string;
  readonly log: Logger;
  /** Whoever made it; undefined: nobody was asked, because what was called is for everybody. */
  caller: Caller | undefined;
  /** `facefusion.jobs.v1.JobService/Get`; undefined until a method is found. */
  endpoint: string | undefined;
  /** gRPC code in lower snake case; undefined: the call ended before its method ran. */
  code: string | undefined;
  /** By this service's own fault. */
  failed: boolean;
  /** Undefined: it is not traced. */
  readonly span: Span | undefined;
}

export const callKey: ContextKey<Call | undefined> = createContextKey<Call | undefined>(undefined, { description: 'call' });

/** Messages that the implementation validates itself, together with what only it can know, so that every violation comes at once. */
export type SelfValidated = ReadonlySet<DescMessage>;

/** The interceptors in order; `authorize` says who may. */
export function interceptors(authorize: Interceptor, selfValidated: SelfValidated): Interceptor[] {
  return [observe, authorize, validate(selfValidated)];
}

const CODE_NAMES = new Map(
  Object.entries(Code)
    .filter(([, value]) => typeof value === 'number')
    .map(([name, value]) => [value as Code, name.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase()]),
);

/** Lower snake case, as gRPC names it. */
export function codeName(code: Code): string {
  return CODE_NAMES.get(code) ?? 'unknown';
}

const observe: Interceptor = (next) => async (request) => {
  const call = request.contextValues.get(callKey);
  if (call) call.endpoint = `${request.service.typeName}/${request.method.name}`;
  try {
    const response = await next(request);
    if (!response.stream) {
      if (call) call.code = 'ok';
      return response;
    }
    // A getter-based response (a lazy one) must not be spread.
    return withMessages(response, observed(response.message, call));
  } catch (error) {
    throw ended(call, error);
  }
};

function ended(call: Call | undefined, error: unknown): ConnectError {
  const mapped = toConnectError(error, (err, reference) => {
    if (!call) return;
    if (reference !== undefined) call.failed = true;
    call.log.error({ err, reference, endpoint: call.endpoint }, reference === undefined ? 'a call could not be served' : 'internal error');
  });
  if (call) call.code = codeName(mapped.code);
  return mapped;
}

function withMessages(response: StreamResponse, message: StreamResponse['message']): StreamResponse {
  return {
    stream: true,
    service: response.service,
    method: response.method,
    header: response.header,
    trailer: response.trailer,
    message,
  } as StreamResponse;
}

function observed<T>(messages: AsyncIterable<T>, call: Call | undefined): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const inner = messages[Symbol.asyncIterator]();
      return {
        async next() {
          try {
            const result = await inner.next();
            if (result.done && call) call.code ??= 'ok';
            return result;
          } catch (error) {
            throw ended(call, error);
          }
        },
        async return(value) {
          if (call) call.code ??= 'canceled';
          return (await inner.return?.(value)) ?? { done: true, value: undefined };
        },
        async throw(error) {
          return (await inner.throw?.(error)) ?? Promise.reject(error);
        },
      };
    },
  };
}

function validate(selfValidated: SelfValidated): Interceptor {
  return (next) => (request) => {
    const { input } = request.method;
    if (!request.stream) {
      try {
        if (!selfValidated.has(input)) check(input, request.message);
      } catch (error) {
        return Promise.reject(error);
      }
      return next(request);
    }
    const messages = request.message;
    const checked = (async function* () {
      try {
        for await (const message of messages) {
          check(input, message);
          yield message;
        }
      } catch (error) {
        throw readable(error);
      }
    })();
    return next({ ...request, message: checked } as typeof request);
  };
}

/** Bytes that are no message are their sender's fault; Connect takes them for an error of its own. */
function readable(error: unknown): unknown {
  if (!(error instanceof ConnectError) || error.code !== Code.Internal || !error.rawMessage.startsWith(UNREAD)) return error;
  return new ConnectError(`the message cannot be read: ${error.rawMessage.slice(UNREAD.length)}`, Code.InvalidArgument);
}

const UNREAD = 'parse binary: ';

function check(desc: DescMessage, message: Message): void {
  const { field, valid } = onlyText(desc) ?? {};
  const text = field && (message as unknown as Record<string, unknown>)[field.localName];
  if (typeof text === 'string' && valid!.get(text)) return;
  const violations = violationsOf(desc, message);
  if (violations.length > 0) throw JobsError.invalid(violations);
  if (typeof text === 'string' && text.length <= RECENT_LENGTH) valid!.set(text, true);
}

interface OnlyText {
  readonly field: DescField;
  /** Texts that were valid. */
  readonly valid: Recent<true>;
}

/** Of each message type that is a single text, the texts used last: an id is asked for again and again, and its rules are dearer than what it is asked for. */
const onlyTexts = new Map<DescMessage, OnlyText | undefined>();
const RECENT_TEXTS = 1_000;
const RECENT_LENGTH = 200;

function onlyText(desc: DescMessage): OnlyText | undefined {
  const known = onlyTexts.get(desc);
  if (known !== undefined || onlyTexts.has(desc)) return known;
  const [field, ...more] = desc.fields;
  const single = field?.fieldKind === 'scalar' && field.scalar === ScalarType.STRING && !field.oneof && more.length === 0;
  const made = single ? { field, valid: new Recent<true>(RECENT_TEXTS) } : undefined;
  onlyTexts.set(desc, made);
  return made;
}

/** Compiles the rules of a message when it first sees one. */
const validator = createValidator();

/** What protovalidate's rules in the contract say of a message; fields are relative to it. */
export function violationsOf(desc: DescMessage, message: Message): Violation[] {
  // Rules that look at each element would keep everyone else waiting.
  const tooLarge = findTooLarge(desc, message);
  if (tooLarge.length > 0) return tooLarge.map(({ field, description, rule }) => ({ field, description, reason: reasonOf(rule) }));
  const result = validator.validate(desc, message);
  if (result.kind === 'valid') return [];
  if (result.kind === 'error') throw result.error;
  return result.violations.map((one) => ({
    field: pathToString(one.field),
    description: ofOneof(one.field) ?? one.message,
    reason: reasonOf(one.ruleId),
  }));
}

function reasonOf(ruleId: string): string {
  return ruleId.replaceAll(/[^a-zA-Z0-9]+/g, '_').toUpperCase();
}

/** The rule on a oneof speaks of "exactly one field" and names none; the caller's request has no field of the oneof's name either. */
function ofOneof(path: Path): string | undefined {
  const last = path.at(-1);
  return last?.kind === 'oneof' ? `one of ${last.fields.map((field) => field.name).join(', ')} is required` : undefined;
}
