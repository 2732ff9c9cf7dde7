// One call as interceptors and implementations see it. Always true: they get what Connect would have given them (HandlerContext, UnaryRequest,
// StreamRequest), composed per call in Connect's order, and cannot tell REST from RPC but by `protocolName`. Whatever costs something (Headers,
// AbortController, URL) is made when it is first asked for.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  isMessage,
  type Message,
  type MessageInitShape,
} from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextKey,
  createContextValues,
  type HandlerContext,
  type Interceptor,
} from '@connectrpc/connect';
import { badRequest } from './errors.ts';
import { LazyHeaders } from './headers.ts';

/** Seconds that the caller is ready to wait for a final answer (`Prefer: wait=N`, RFC 7240), at most 60; 0 when it did not ask. */
export const waitSeconds = createContextKey<number>(0, { description: 'Prefer: wait' });

type AnyRequest = Parameters<ReturnType<Interceptor>>[0];
type AnyResponse = Awaited<ReturnType<ReturnType<Interceptor>>>;
type Next = ReturnType<Interceptor>;

/** An implementation's method, seen without its types. */
export type Implementation = (request: Message, context: HandlerContext) => unknown;

/** Why a signal aborts when its call is simply over, as Connect's do. Shared: an error a call would be dear. */
const ENDED = new ConnectError('the call has ended', Code.Canceled);
const LEFT = new ConnectError('the client has left', Code.Canceled);

/** Node fires a timer at once that is set for longer. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The calls in flight, for a shutdown to reach. One listener on the shutdown signal serves them all. */
export class LiveCalls {
  readonly #calls = new Set<Call>();
  readonly #shutdown: AbortSignal | undefined;

  constructor(shutdown: AbortSignal | undefined) {
    this.#shutdown = shutdown;
    shutdown?.addEventListener('abort', () => {
      for (const call of [...this.#calls]) call.abort(shutdown.reason);
    });
  }

  /** Reasons are given at once when the shutdown has begun already. */
  add(call: Call): void {
    this.#calls.add(call);
    if (this.#shutdown?.aborted) call.abort(this.#shutdown.reason);
  }

  delete(call: Call): void {
    this.#calls.delete(call);
  }
}

export interface CallInit {
  readonly method: DescMethod;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly live: LiveCalls;
  readonly protocolName: string;
  /** How long the caller is ready to wait, in milliseconds; undefined: as long as it takes. */
  readonly timeoutMs: number | undefined;
  readonly values?: ContextValues;
}

/** The HandlerContext of a call that Connect does not serve, and the owner of its signal and deadline. `end` must be called once, whatever happens. */
export class Call implements HandlerContext {
  readonly protocolName: string;
  readonly method: DescMethod;
  /** Called once, when the call is aborted (by deadline, shutdown or a client that left) before it ended. */
  onabort: ((reason: unknown) => void) | undefined;

  readonly #init: CallInit;
  #controller: AbortController | undefined;
  #values: ContextValues | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #deadline: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #reason: unknown;
  #watched = false;
  #left: (() => void) | undefined;

  constructor(init: CallInit) {
    this.#init = init;
    this.method = init.method;
    this.protocolName = init.protocolName;
    this.#values = init.values;
    const timeout = init.timeoutMs;
    if (timeout === undefined) return;
    this.#deadline = Date.now() + timeout;
    this.watch();
    const late = () => this.abort(new ConnectError('the operation timed out', Code.DeadlineExceeded));
    this.#timer = setTimeout(late, Math.min(timeout, MAX_TIMER_MS));
  }

  get service(): DescService {
    return this.method.parent;
  }

  get requestMethod(): string {
    return this.#init.request.method ?? '';
  }

  get url(): string {
    const { headers, socket, url } = this.#init.request;
    return `${'encrypted' in socket && socket.encrypted ? 'https' : 'http'}://${headers[':authority'] ?? headers.host ?? 'localhost'}${url}`;
  }

  get requestHeader(): Headers {
    this.#requestHeader ??= new LazyHeaders(this.#init.request.headers);
    return this.#requestHeader;
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new LazyHeaders(NONE);
    return this.#responseHeader;
  }

  get responseTrailer(): Headers {
    this.#responseTrailer ??= new LazyHeaders(NONE);
    return this.#responseTrailer;
  }

  get values(): ContextValues {
    this.#values ??= createContextValues();
    return this.#values;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      this.watch();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  timeoutMs(): number | undefined {
    return this.#deadline === undefined ? undefined : this.#deadline - Date.now();
  }

  /** Response headers that someone set; undefined: nobody did. */
  get writtenHeader(): Headers | undefined {
    return written(this.#responseHeader);
  }

  get writtenTrailer(): Headers | undefined {
    return written(this.#responseTrailer);
  }

  /** Why the call was aborted; undefined while it was not. */
  get reason(): unknown {
    return this.#reason;
  }

  /** Takes the headers of a response that an interceptor made anew. */
  adopt(header: Headers, trailer: Headers): void {
    if (header !== this.#responseHeader) this.#responseHeader = header;
    if (trailer !== this.#responseTrailer) this.#responseTrailer = trailer;
  }

  /** Ties the call to its client and to the shutdown. Asking for `signal` does it too. */
  watch(): void {
    if (this.#watched) return;
    this.#watched = true;
    const { live, response } = this.#init;
    const left = () => this.abort(LEFT);
    this.#left = left;
    response.once('close', left);
    live.add(this);
    if (response.closed || response.destroyed) left();
  }

  /** Aborts the signal. Later reasons are ignored. */
  abort(reason: unknown): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason ?? new ConnectError('This operation was aborted', Code.Canceled);
    this.#release();
    this.#controller?.abort(this.#reason);
    this.onabort?.(this.#reason);
  }

  /** The call is over, well or badly. */
  end(): void {
    this.onabort = undefined;
    if (this.#watched) this.abort(ENDED);
  }

  #release(): void {
    clearTimeout(this.#timer);
    if (this.#left === undefined) return;
    this.#init.live.delete(this);
    this.#init.response.off('close', this.#left);
  }
}

/**
 * Calls a unary implementation through the interceptors. Rejects with whatever they throw, and with DEADLINE_EXCEEDED in time even where they do
 * not heed their signal. Not an async function, like the parts of it that every call goes through: each costs a call half a kilobyte of garbage.
 */
export function callUnary(
  implementation: Implementation,
  interceptors: readonly Interceptor[],
  call: Call,
  message: Message,
): Promise<Message> {
  const own = requestOf(call, false, message);
  const { output } = call.method;
  let made: AnyResponse | undefined;
  const respondWith = (answer: unknown): AnyResponse => {
    made = respond(call, false, isMessage(answer, output) ? answer : create(output, answer as MessageInitShape<DescMessage>));
    return made;
  };
  const core: Next = (request) => {
    try {
      const context = request === own ? call : contextOf(call, request);
      const answer = implementation(request.message as Message, context);
      return answer instanceof Promise ? answer.then(respondWith) : Promise.resolve(answer).then(respondWith);
    } catch (error) {
      return Promise.reject(error);
    }
  };
  const answer = compose(core, interceptors)(own);
  return (call.timeoutMs() === undefined ? answer : beforeDeadline(call, answer)).then((response) => {
    if (response !== made) call.adopt(response.header, response.trailer);
    return response.message as Message;
  });
}

/** Calls a server-streaming implementation through the interceptors; what it yields may still be init objects. */
export async function callStream(
  implementation: Implementation,
  interceptors: readonly Interceptor[],
  call: Call,
  message: Message,
): Promise<AsyncIterable<Message>> {
  const own = requestOf(call, true, once(message));
  let made: AnyResponse | undefined;
  const core: Next = async (request) => {
    let first: Message | undefined;
    for await (const one of request.message as AsyncIterable<Message>) first ??= one;
    if (!first) throw new ConnectError('protocol error: missing input message for server-streaming method', Code.Unimplemented);
    made = respond(call, true, implementation(first, request === own ? call : contextOf(call, request)));
    return made;
  };
  const response = await compose(core, interceptors)(own);
  if (response !== made) call.adopt(response.header, response.trailer);
  return response.message as AsyncIterable<Message>;
}

/** Calls a client-streaming implementation through the interceptors. As Connect does, those see its one answer as a stream. */
export async function callClientStream(
  implementation: Implementation,
  interceptors: readonly Interceptor[],
  call: Call,
  messages: AsyncIterable<Message>,
): Promise<Message> {
  const own = requestOf(call, true, messages);
  const { output } = call.method;
  let made: AnyResponse | undefined;
  const core: Next = async (request) => {
    const context = request === own ? call : contextOf(call, request);
    const answer = await implementation(request.message as AsyncIterable<Message> & Message, context);
    made = respond(call, true, once(isMessage(answer, output) ? answer : create(output, answer as MessageInitShape<DescMessage>)));
    return made;
  };
  const answered = async () => {
    const response = await compose(core, interceptors)(own);
    if (response !== made) call.adopt(response.header, response.trailer);
    let last: Message | undefined;
    for await (const one of response.message as AsyncIterable<Message>) last = one;
    if (!last) throw new ConnectError('there is no answer', Code.Internal);
    return last;
  };
  return await (call.timeoutMs() === undefined ? answered() : beforeDeadline(call, answered()));
}

/** Composed anew for each call, as Connect does, so that an interceptor may keep state beside its inner function. */
function compose(core: Next, interceptors: readonly Interceptor[]): Next {
  let next = core;
  for (let i = interceptors.length - 1; i >= 0; i--) next = interceptors[i]!(next);
  return next;
}

function requestOf(call: Call, stream: boolean, message: unknown): AnyRequest {
  // Own properties, so that an interceptor that passes `{...request}` on has them all in its copy.
  const request = {
    stream,
    message,
    method: call.method,
    service: call.service,
    requestMethod: call.requestMethod,
    url: call.url,
    header: call.requestHeader,
    contextValues: call.values,
    [OWNER]: call,
  };
  Object.defineProperty(request, 'signal', LAZY_SIGNAL);
  return request as unknown as AnyRequest;
}

const OWNER = Symbol('call');

/** One getter for all requests: with one each, each would have a hidden class of its own, which costs more than the rest of the request. */
const LAZY_SIGNAL: PropertyDescriptor = {
  enumerable: true,
  configurable: true,
  get(this: { readonly [OWNER]: Call }) {
    return this[OWNER].signal;
  },
};

function respond({ method, responseHeader, responseTrailer }: Call, stream: boolean, message: unknown): AnyResponse {
  const response = { stream, message, method, service: method.parent, header: responseHeader, trailer: responseTrailer };
  return response as unknown as AnyResponse;
}

/** For a request that an interceptor put together anew. */
function contextOf(call: Call, request: AnyRequest): HandlerContext {
  const { header, signal, contextValues } = request;
  return {
    method: call.method,
    service: request.service,
    protocolName: call.protocolName,
    requestMethod: call.requestMethod,
    url: call.url,
    timeoutMs: () => call.timeoutMs(),
    requestHeader: header,
    signal,
    values: contextValues,
    responseHeader: call.responseHeader,
    responseTrailer: call.responseTrailer,
  };
}

/** Headers that nobody has touched since they were made lazily are not sent. */
function written(headers: Headers | undefined): Headers | undefined {
  return headers instanceof LazyHeaders && headers.untouched ? undefined : headers;
}

const NONE: IncomingHttpHeaders = {};

async function* once(message: Message): AsyncGenerator<Message> {
  yield message;
}

function beforeDeadline<T>(call: Call, answer: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const { onabort } = call;
    call.onabort = (reason) => {
      onabort?.(reason);
      if (reason instanceof ConnectError && reason.code === Code.DeadlineExceeded) reject(reason);
    };
    answer.then(resolve, reject);
  });
}

/**
 * `Connect-Timeout-Ms` as Connect defines it (at most 10 digits), or `X-Server-Timeout` in seconds, as Google's REST servers take it.
 * Throws INVALID_ARGUMENT on one that is malformed or asks for more than `max`.
 */
export function requestedTimeout(headers: IncomingHttpHeaders, max: number): number | undefined {
  const ms = headers['connect-timeout-ms'];
  const seconds = headers['x-server-timeout'];
  if (ms === undefined && seconds === undefined) return undefined;
  const header = ms !== undefined ? 'Connect-Timeout-Ms' : 'X-Server-Timeout';
  const text = String(ms ?? seconds);
  if (!(ms !== undefined ? /^\d{1,10}$/ : /^\d{1,7}(\.\d{1,9})?$/).test(text))
    throw badRequest([], `the header ${header} is malformed: ${JSON.stringify(text)}`);
  const timeout = ms !== undefined ? Number(ms) : Math.ceil(Number(seconds) * 1000);
  if (timeout > max) throw badRequest([], `the header ${header} asks for ${timeout} ms, and at most ${max} ms are allowed`);
  return timeout;
}
