// The one port: every way in to the same implementations through the same interceptors. Fastify is the host; below it the listener tells the
// protocols apart, above it Connect serves the RPCs and the bridge their REST form. Requests are counted and logged here, once each, when
// their response ends, whatever became of them.
import { randomUUID } from 'node:crypto';
import { type IncomingHttpHeaders, type ServerResponse, STATUS_CODES } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import { type Code, createContextValues, type Interceptor } from '@connectrpc/connect';
import { fastifyConnectPlugin } from '@connectrpc/connect-fastify';
import { type FastifyInstance, type FastifyRequest, fastify } from 'fastify';
import type { Logger } from 'pino';
import comments from '../../gen/comments.json' with { type: 'json' };
import { createBridge, type Service } from '../rest/bridge.ts';
import { docs } from '../rest/docs.ts';
import { createOpenApi, type OpenApiOptions } from '../rest/openapi.ts';
import type { TextRenderer } from '../rest/streams.ts';
import { createCors } from './cors.ts';
import { grpcStreams } from './grpc-streams.ts';
import { type Call, callKey, codeName } from './interceptors.ts';
import { createListener } from './listener.ts';

export interface ServerOptions {
  /** Everything that is served as RPC. */
  readonly services: readonly Service[];
  /** Those of them with a REST form, in the order in which documents list them. */
  readonly restServices: readonly Service[];
  readonly interceptors: readonly Interceptor[];
  readonly log: Logger;
  /** Called once for each request. */
  readonly count: (facts: { method: string; endpoint: string; code: string; seconds: number }) => void;
  readonly maxBodyBytes: number;
  readonly tls?: SecureContextOptions;
  readonly closeGraceMs: number;
  /** Who serves server streams over gRPC: our own short way, or Connect as it comes. */
  readonly grpcStreams: 'own' | 'connect';
  /** Whose pages may call, besides the service's own. */
  readonly corsOrigins: readonly string[];
  /** Of the service, for the OpenAPI document. */
  readonly version: string;
  /** Plain-text forms of stream messages, by type name. */
  readonly text: Readonly<Record<string, TextRenderer>>;
  /** Bodies to begin with, by type name, for the OpenAPI document. */
  readonly examples?: OpenApiOptions['examples'];
  /** Paths of the routes below that belong into the OpenAPI document. */
  readonly openApiExtra?: OpenApiOptions['extra'];
  /** What `/readyz` says; not ready: the reason. */
  readonly ready: () => Promise<{ ready: boolean; facts: object }>;
  /** Routes that are no rpc: blobs and what else is listed in the design. */
  readonly routes: (app: FastifyInstance) => void;
}

export interface Server {
  /** Rejects when the port cannot be had. Answers the base URL. */
  listen(host: string, port: number): Promise<string>;
  /** Ends streams with UNAVAILABLE, lets calls finish within the grace; memoised. */
  close(): Promise<void>;
}

/** Under this prefix everything is the bridge's. */
const REST_PREFIX = '/api/v1';

export async function createServer(options: ServerOptions): Promise<Server> {
  const shutdown = new AbortController();
  const listener = createListener({
    tls: options.tls,
    graceMs: options.closeGraceMs,
    shutdown,
  });
  const calls = new WeakMap<object, Call & { readonly startedAt: number }>();
  const contextValues = (request: FastifyRequest) => createContextValues().set(callKey, calls.get(request.raw));
  const bridge = createBridge(options.restServices, options.interceptors, {
    report: (reference, cause) => options.log.error({ err: cause, reference }, 'internal error'),
    shutdownSignal: shutdown.signal,
    contextValues,
    maxBodyBytes: options.maxBodyBytes,
    prefixes: [REST_PREFIX],
    text: options.text,
  });
  const app = fastify({
    serverFactory: (handler) => listener.serverFactory(handler),
    forceCloseConnections: 'idle',
    frameworkErrors: bridge.frameworkErrors,
    clientErrorHandler(error, socket) {
      // The other end has gone, or an answer is on its way already.
      if (error.code === 'ECONNRESET' || !socket.writable || (socket as Socket).bytesWritten > 0) {
        socket.destroy();
        return;
      }
      const { status, code, message } = PARSE_ERRORS[error.code] ?? {
        status: 400,
        code: 'INVALID_ARGUMENT',
        message: 'this is no HTTP/1.1 request',
      };
      options.count({ method: 'other', endpoint: 'unmatched', code: code.toLowerCase(), seconds: 0 });
      const body = JSON.stringify({ code, message, details: [] });
      socket.end(
        `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
      );
    },
    bodyLimit: options.maxBodyBytes,
    genReqId: requestId,
    routerOptions: { maxParamLength: 500 },
    exposeHeadRoutes: false,
  });

  app.addHook('onRequest', (request, reply, done) => {
    dropFarDeadline(request.raw.headers);
    calls.set(request.raw, {
      id: request.id,
      log: options.log,
      endpoint: undefined,
      code: undefined,
      failed: false,
      startedAt: performance.now(),
    });
    reply.raw.setHeader('x-request-id', request.id);
    // Connect makes a URL of it, and where it cannot the call would stay without an answer.
    if (isHost(request.headers[':authority'] ?? request.headers.host)) done();
    else {
      const message = 'the header Host is malformed';
      void reply.code(400).header('connection', request.raw.httpVersionMajor < 2 ? 'close' : undefined);
      void reply.send({ code: 'INVALID_ARGUMENT', message, details: [] });
    }
  });
  const cors = createCors(options.corsOrigins);
  app.addHook('onRequest', (request, reply, done) => {
    if (!cors(request.method, request.headers, reply.raw)) return done();
    calls.get(request.raw)!.endpoint = PREFLIGHT;
    reply.code(204).send();
  });
  app.addHook('onResponse', (request, reply, done) => {
    const call = calls.get(request.raw);
    if (call) {
      const code = call.code ?? codeOfAnswer(reply.raw);
      const endpoint = call.endpoint ?? request.routeOptions.url ?? 'unmatched';
      const seconds = (performance.now() - call.startedAt) / 1000;
      // HTTP/2 lets a caller make up methods; a label for each would never end.
      const method = METHODS.includes(request.method) ? request.method : 'other';
      options.count({ method, endpoint, code, seconds });
      logCall(options.log, call.failed || code === 'data_loss', {
        request_id: call.id,
        method,
        endpoint,
        code,
        status: reply.raw.statusCode,
        ms: Math.round(seconds * 1000),
      });
    }
    done();
  });

  // Of the routes that are no rpc.
  app.setErrorHandler(bridge.frameworkErrors);
  app.setNotFoundHandler((request, reply) => {
    const message = `there is nothing at ${request.url}; the API is under ${REST_PREFIX}, its documentation at /docs`;
    return reply.code(404).send({ code: 'NOT_FOUND', message, details: [] });
  });

  await app.register(async (rpc) => {
    if (options.grpcStreams === 'own') {
      const take = grpcStreams({
        services: options.services,
        interceptors: options.interceptors,
        shutdownSignal: shutdown.signal,
        readMaxBytes: options.maxBodyBytes,
        contextValues,
        report: (cause) => options.log.error({ err: cause }, 'internal error'),
      });
      rpc.addHook('onRequest', (request, reply, done) => {
        if (!take(request, reply)) done();
      });
    }
    rpc.addHook('onRoute', (route) => {
      const handle = route.handler;
      route.handler = async function (request, reply) {
        await handle.call(this, request, reply);
        // What the library can neither read nor put into a header it gives up on without an answer.
        if (reply.raw.headersSent || reply.raw.destroyed) return reply;
        return reply.code(400).send({ code: 'INVALID_ARGUMENT', message: 'the call cannot be read', details: [] });
      };
    });
    await rpc.register(fastifyConnectPlugin, {
      routes(router) {
        for (const { desc, implementation } of options.services) router.service(desc, implementation as never);
      },
      interceptors: [...options.interceptors],
      contextValues,
      shutdownSignal: shutdown.signal,
      readMaxBytes: options.maxBodyBytes,
      requireConnectProtocolHeader: false,
    });
  });
  const document = createOpenApi(bridge.routes, {
    info: {
      title: 'facefusion-jobs',
      version: options.version,
      description: 'FaceFusion as jobs: submit, watch, fetch the result, cancel.',
    },
    comments,
    text: Object.keys(options.text),
    examples: options.examples,
    extra: options.openApiExtra,
  });
  const documentText = JSON.stringify(document);
  app.get(`${REST_PREFIX}/openapi.json`, (_request, reply) => reply.header('content-type', 'application/json').send(documentText));
  await app.register(bridge.plugin);
  await app.register(docs, { document, title: 'facefusion-jobs' });
  app.get('/healthz', (_request, reply) => reply.send({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    const { ready, facts } = await options.ready();
    return reply.code(ready ? 200 : 503).send({ status: ready ? 'ready' : 'not ready', ...facts });
  });
  options.routes(app);
  app.addHook('preClose', async () => await listener.close());
  let closing: Promise<void> | undefined;
  return {
    listen: (host, port) => app.listen({ host, port }),
    close: () => (closing ??= app.close()),
  };
}

/** The caller's own id where it is a decent one. */
function requestId(request: { headers: Record<string, string | string[] | undefined> }): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID();
}

const TIMEOUT_UNITS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
/** Node fires a timer at once that is set for longer, so that a deadline in a month would be over now. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

function dropFarDeadline(headers: IncomingHttpHeaders): void {
  const [, count, unit] = /^(\d{1,8})([HMSmun])$/.exec(String(headers['grpc-timeout'] ?? '')) ?? [];
  if (Number(count) * TIMEOUT_UNITS[unit ?? '']! > LONGEST_TIMER_MS) delete headers['grpc-timeout'];
  if (Number(headers['connect-timeout-ms']) > LONGEST_TIMER_MS && /^\d{1,10}$/.test(String(headers['connect-timeout-ms']))) {
    delete headers['connect-timeout-ms'];
  }
}

function isHost(host: unknown): boolean {
  if (host === undefined || host === '') return true;
  return typeof host === 'string' && (/^[\w.-]+(:\d{1,4})?$/.test(host) || URL.canParse(`http://${host}/`));
}

const METHODS: readonly string[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

/** What Node's parser gives up on, before there is a request. */
const PARSE_ERRORS: Readonly<Record<string, { status: number; code: string; message: string }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, code: 'RESOURCE_EXHAUSTED', message: 'the headers are too large' },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, code: 'RESOURCE_EXHAUSTED', message: 'the chunk extensions are too large' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, code: 'DEADLINE_EXCEEDED', message: 'the headers took too long' },
};

const CODES_BY_STATUS: Readonly<Record<number, string>> = {
  400: 'invalid_argument',
  401: 'unauthenticated',
  403: 'permission_denied',
  404: 'not_found',
  405: 'unimplemented',
  409: 'aborted',
  410: 'not_found',
  413: 'resource_exhausted',
  415: 'invalid_argument',
  416: 'out_of_range',
  429: 'resource_exhausted',
  431: 'resource_exhausted',
  499: 'canceled',
  501: 'unimplemented',
  503: 'unavailable',
  504: 'deadline_exceeded',
  505: 'unimplemented',
};

/** Of a call that ended before its method ran: gRPC says why in trailers, under a status of 200. */
function codeOfAnswer(response: ServerResponse): string {
  if (!response.headersSent) return 'canceled';
  const { stream } = response as ServerResponse & { stream?: ServerHttp2Stream };
  const status = stream?.sentTrailers?.['grpc-status'] ?? response.getHeader('grpc-status');
  return status === undefined ? codeOfStatus(response.statusCode) : codeName(Number(status) as Code);
}

function codeOfStatus(status: number): string {
  return status < 400 ? 'ok' : (CODES_BY_STATUS[status] ?? (status < 500 ? 'invalid_argument' : 'internal'));
}

/** Reads that went well, and questions of probes, are not worth a line in production. */
function logCall(log: Logger, failed: boolean, facts: { code: string; endpoint: string; [name: string]: unknown }): void {
  if (failed) log.error(facts, 'call failed');
  else if (PROBES.has(facts.endpoint) || (facts.code === 'ok' && READS.test(facts.endpoint))) log.debug(facts, 'call');
  else log.info(facts, 'call');
}

const PREFLIGHT = 'preflight';
const PROBES: ReadonlySet<string> = new Set([PREFLIGHT, '/healthz', '/readyz', 'grpc.health.v1.Health/Check']);
const READS = /^\/|\/(Get|List|Watch|Validate)/;
