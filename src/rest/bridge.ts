// The REST face of RPC services, as a Fastify plugin, and in front of Fastify where calls are many. Always true: no route is written by hand; all
// come from `google.api.http` rules and are matched here (Fastify's own router reads colons and encoded slashes otherwise than those rules do),
// and every answer below the mounted prefixes, also to what does not exist, is JSON in one shape.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createRegistry, type DescService, type Message } from '@bufbuild/protobuf';
import { Code, ConnectError, type ContextValues, type Interceptor } from '@connectrpc/connect';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Call, callUnary, type Implementation, LiveCalls, requestedTimeout } from './call.ts';
import { allowOf, createErrorMapper, type ErrorAnswer, HttpError, notPossible, type ReportError } from './errors.ts';
import { type AnswerHeaders, type Exchange, FastifyExchange, NodeExchange } from './exchange.ts';
import { createJsonReader } from './json-reader.ts';
import { createJsonWriter } from './json-writer.ts';
import { compileDecoder, type Decode, decodeQuery } from './request.ts';
import { compileRoutes, type Route, RouteError } from './routes.ts';
import { answerStream, compileFormats, type StreamFormats, type StreamOptions, type TextRenderer, type Timers } from './streams.ts';
import { PathError, PathTable } from './template.ts';
import { type Answer, compileAnswer, heedPreference, readBody } from './unary.ts';

/** A service and what implements it; the same object that Connect's router is given. Methods that are missing are UNIMPLEMENTED. */
export interface Service {
  readonly desc: DescService;
  readonly implementation: object;
}

export interface BridgeOptions {
  /** Told of errors that callers do not get to see. */
  readonly report: ReportError;
  /** Aborted, with a ConnectError, when the process goes; every call's signal follows it, and streams end with that error. */
  readonly shutdownSignal?: AbortSignal;
  /** Context values that a call starts with which comes through Fastify. */
  readonly contextValues?: (request: FastifyRequest) => ContextValues;
  /** Bytes of a request body. Default 1 MiB. */
  readonly maxBodyBytes?: number;
  /** The longest deadline that a caller may ask for. Default: none. */
  readonly maxTimeoutMs?: number;
  /** Paths under which everything is this bridge's to answer, without a trailing slash. Default: the first segments of the routes. */
  readonly prefixes?: readonly string[];
  /** Methods that routes of others take at a path below the prefixes; none: there is nothing. */
  readonly others?: (path: string) => readonly string[];
  /** Query parameters that are nobody's field and are left to others. */
  readonly ignoredQuery?: readonly string[];
  /** Plain-text forms of stream messages, by type name. */
  readonly text?: Readonly<Record<string, TextRenderer>>;
  /** Silence before an SSE stream gets a comment. Default 15 s. */
  readonly keepAliveMs?: number;
  /** What SSE clients are told to wait before they connect again. Default 2 s. */
  readonly retryMs?: number;
  /** How long a stream's status waits for its first message. Default 100 ms. */
  readonly headerWaitMs?: number;
  readonly timers?: Timers;
}

export interface Bridge {
  readonly routes: readonly Route[];
  /** Registers the routes: `app.register(bridge.plugin)`. */
  readonly plugin: (app: FastifyInstance) => Promise<void>;
  /**
   * Serves a request for a method of the services, and answers whether it was one. For a server's request listener, before Fastify is handed what
   * is left: Fastify's hooks then see nothing of the call, nor cost it anything. `headers` go out with the answer.
   */
  readonly take: (request: IncomingMessage, response: ServerResponse, values: ContextValues, headers: AnswerHeaders) => boolean;
  /** What an error is answered with. */
  readonly answerOf: (error: unknown) => ErrorAnswer;
  /** For Fastify's option of this name, which alone sees paths with malformed percent-encoding: they get the same JSON errors. */
  readonly frameworkErrors: (error: Error, request: FastifyRequest, reply: FastifyReply) => void;
}

interface Endpoint {
  readonly route: Route;
  readonly implementation: Implementation;
  readonly decode: Decode;
  readonly answer: Answer | undefined;
  readonly formats: StreamFormats | undefined;
}

/** Compiles the bridge. Throws a RouteError, naming method and template, on any rule that cannot be served. */
export function createBridge(services: readonly Service[], interceptors: readonly Interceptor[], options: BridgeOptions): Bridge {
  const registry = createRegistry(...services.map((service) => service.desc.file));
  const reader = createJsonReader(registry);
  const writer = createJsonWriter(registry);
  const errors = createErrorMapper(options.report, registry);
  const live = new LiveCalls(options.shutdownSignal);
  const ignoredQuery = new Set(options.ignoredQuery);
  const maxBodyBytes = options.maxBodyBytes ?? 1 << 20;
  const maxTimeoutMs = options.maxTimeoutMs ?? Number.POSITIVE_INFINITY;
  const streaming: StreamOptions = {
    keepAliveMs: options.keepAliveMs ?? 15_000,
    retryMs: options.retryMs ?? 2_000,
    headerWaitMs: options.headerWaitMs ?? 100,
    timers: options.timers ?? (globalThis as unknown as Timers),
  };

  const table = new PathTable<Endpoint>();
  const routes = compileRoutes(services.map((service) => service.desc));
  for (const route of routes) {
    const { implementation } = services.find((service) => service.desc === route.method.parent)!;
    const stream = route.method.methodKind === 'server_streaming';
    const endpoint: Endpoint = {
      route,
      implementation: bind(implementation, route),
      decode: compileDecoder(route, { reader, ignoredQuery }),
      answer: stream ? undefined : compileAnswer(route, writer),
      formats: stream ? compileFormats(route, writer, streaming.retryMs, options.text?.[route.method.output.typeName]) : undefined,
    };
    try {
      table.add(route.httpMethod, route.template, endpoint);
    } catch (error) {
      if (!(error instanceof PathError)) throw error;
      const { method } = route;
      throw new RouteError(
        `${method.parent.typeName}.${method.name} cannot be served at "${route.httpMethod} ${route.template.text}": ${error.message}`,
      );
    }
  }

  function handle(request: FastifyRequest, reply: FastifyReply): void {
    const exchange = new FastifyExchange(reply, options.contextValues?.(request));
    try {
      const { raw } = request;
      const [path, query] = split(raw.url ?? '/');
      const found = find(raw.method === 'HEAD' ? 'GET' : (raw.method ?? ''), path);
      // OPTIONS of a path that exists; any other wrong method has thrown.
      if ('allow' in found) exchange.send(204, { allow: found.allow }, '');
      else void serve(found.value, found.segments, query, exchange);
    } catch (error) {
      sendError(exchange, error);
    }
  }

  function take(request: IncomingMessage, response: ServerResponse, values: ContextValues, headers: AnswerHeaders): boolean {
    const [path, query] = split(request.url ?? '/');
    let found: ReturnType<typeof table.find>;
    try {
      found = table.find(request.method === 'HEAD' ? 'GET' : (request.method ?? ''), path);
    } catch {
      return false; // malformed, and refused where it comes next
    }
    if (found === undefined || !('value' in found)) return false;
    void serve(found.value, found.segments, query, new NodeExchange(request, response, values, headers));
    return true;
  }

  /** Never rejects. */
  async function serve(endpoint: Endpoint, segments: readonly string[], query: string, exchange: Exchange): Promise<void> {
    const { request, response } = exchange;
    let call: Call | undefined;
    try {
      const body = request.method === 'GET' || request.method === 'HEAD' ? '' : await readBody(request, maxBodyBytes);
      call = new Call({
        method: endpoint.route.method,
        request,
        response,
        live,
        protocolName: 'rest',
        timeoutMs: requestedTimeout(request.headers, maxTimeoutMs),
        values: exchange.values,
      });
      if (endpoint.answer) {
        const message = endpoint.decode(segments, query, body);
        heedPreference(endpoint.route, call, request);
        endpoint.answer(call, await callUnary(endpoint.implementation, interceptors, call, message), exchange);
      } else await stream(endpoint, call, segments, query, body, exchange);
      call.end();
    } catch (error) {
      // An implementation that was told to stop throws an error of its own making; what it was told says more.
      const told = error instanceof ConnectError && error.code !== Code.Canceled ? undefined : call?.reason;
      call?.end();
      sendError(exchange, told ?? error);
    }
  }

  async function stream(
    endpoint: Endpoint,
    call: Call,
    segments: readonly string[],
    query: string,
    body: string,
    exchange: Exchange,
  ): Promise<void> {
    const { route } = endpoint;
    const { headers, method } = exchange.request;
    const format = endpoint.formats!.choose(headers.accept);
    const [last, rest] = route.resume ? takeLastEventId(headers['last-event-id'], query) : [undefined, query];
    const message = endpoint.decode(segments, rest, body, last);
    if (method === 'HEAD') {
      exchange.send(200, { 'content-type': format.contentType }, '');
      return;
    }
    exchange.hijack();
    await answerStream(
      endpoint.implementation,
      interceptors,
      call,
      message,
      exchange.response,
      errors,
      { format, resumed: last !== undefined, headers: exchange.headers },
      streaming,
    );
  }

  function find(method: string, path: string): { value: Endpoint; segments: readonly string[] } | { allow: string } {
    let found: ReturnType<typeof table.find>;
    try {
      found = table.find(method, path);
    } catch (error) {
      if (error instanceof PathError) throw new HttpError(400, Code.InvalidArgument, error.message);
      throw error;
    }
    if (found !== undefined && 'value' in found) return found;
    const methods = found ?? options.others?.(path) ?? [];
    if (methods.length === 0) throw new HttpError(404, Code.NotFound, `there is nothing at ${path}`);
    const allow = allowOf(methods);
    if (method === 'OPTIONS') return { allow };
    throw notPossible(method, path, allow);
  }

  function sendError(exchange: Exchange, error: unknown): void {
    const { status, headers, body } = errors.answer(error);
    exchange.send(status, headers, body);
  }

  function frameworkErrors(error: unknown, _request: FastifyRequest, reply: FastifyReply): void {
    sendError(new FastifyExchange(reply, undefined), fromFramework(error));
  }

  const plugin = async (app: FastifyInstance): Promise<void> => {
    // Bodies are read here, after the route and the media type are known.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('*', (_request, _payload, done) => done(null));
    app.setErrorHandler(frameworkErrors);
    for (const prefix of options.prefixes ?? defaultPrefixes(routes)) {
      app.all(prefix, handle);
      app.all(`${prefix}/*`, handle);
    }
  };
  return { routes, plugin, take, answerOf: (error) => errors.answer(error), frameworkErrors };
}

function bind(implementation: object, route: Route): Implementation {
  const method = (implementation as Record<string, unknown>)[route.method.localName];
  if (typeof method === 'function') return (request: Message, context) => method.call(implementation, request, context);
  const { parent, name } = route.method;
  return () => {
    throw new HttpError(501, Code.Unimplemented, `${parent.typeName}.${name} is not implemented`);
  };
}

function defaultPrefixes(routes: readonly Route[]): string[] {
  return [
    ...new Set(
      routes.map(({ template, method }) => {
        const [first] = template.segments;
        if (first?.kind === 'literal') return `/${first.value}`;
        throw new RouteError(
          `${method.parent.typeName}.${method.name}: "${template.text}" begins with a variable; say in \`prefixes\` where the bridge is mounted`,
        );
      }),
    ),
  ];
}

/** Errors of Fastify and its hooks carry an HTTP status. */
function fromFramework(error: unknown): unknown {
  if (!(error instanceof Error) || !('statusCode' in error) || typeof error.statusCode !== 'number' || error.statusCode >= 500)
    return error;
  const codes: Record<number, Code> = {
    401: Code.Unauthenticated,
    403: Code.PermissionDenied,
    404: Code.NotFound,
    409: Code.Aborted,
    413: Code.ResourceExhausted,
    429: Code.ResourceExhausted,
  };
  return new HttpError(error.statusCode, codes[error.statusCode] ?? Code.InvalidArgument, error.message);
}

function split(url: string): [path: string, query: string] {
  // The absolute form, `GET http://host/path`, which proxies send.
  const text = url.startsWith('/') ? url : url.replace(/^[a-z][a-z\d+.-]*:\/\/[^/?]*/i, '');
  const mark = text.indexOf('?');
  return mark < 0 ? [text, ''] : [text.slice(0, mark), text.slice(mark + 1)];
}

/** The id to resume after: the header, which a reconnecting EventSource sends, or else the parameter of the same meaning, cut out of the query. */
function takeLastEventId(header: IncomingMessage['headers'][string], query: string): [id: string | undefined, rest: string] {
  const pairs = query.split('&');
  const given = pairs.find((pair) => pair.startsWith(PARAMETER));
  const rest = given === undefined ? query : pairs.filter((pair) => pair !== given).join('&');
  if (typeof header === 'string' && header !== '') return [header, rest];
  const id = decodeQuery(given?.slice(PARAMETER.length) ?? '');
  return [id === '' ? undefined : id, rest];
}

const PARAMETER = 'last_event_id=';
