// The one port: every way in to the same implementations through the same interceptors. Fastify is the host; below it the listener tells the
// protocols apart, above it Connect serves the RPCs and the bridge their REST form. Calls that come often (REST, gRPC) are taken before Fastify
// sees them, because its hooks would cost more than they do.
import { type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import type { DescMethod } from '@bufbuild/protobuf';
import { createContextValues, type Interceptor } from '@connectrpc/connect';
import { fastifyConnectPlugin } from '@connectrpc/connect-fastify';
import { type FastifyInstance, type FastifyRequest, fastify } from 'fastify';
import type { Logger } from 'pino';
import comments from '../../gen/comments.json' with { type: 'json' };
import type { Caller } from '../jobs/caller.ts';
import type { Guard } from '../jobs/guard.ts';
import type { Traces } from '../jobs/traces.ts';
import { type Bridge, createBridge, type Service } from '../rest/bridge.ts';
import { docs } from '../rest/docs.ts';
import { allowOf, notPossible } from '../rest/errors.ts';
import { createOpenApi, type OpenApiOptions } from '../rest/openapi.ts';
import { PlainRoutes } from '../rest/plain-routes.ts';
import type { TextRenderer } from '../rest/streams.ts';
import { createCors } from './cors.ts';
import { createEntrance } from './entrance.ts';
import { createGrpc, type GrpcOptions } from './grpc.ts';
import { callKey } from './interceptors.ts';
import { createListener } from './listener.ts';
import { readableBody } from './readable-body.ts';
import { createRequests, type RequestCall } from './requests.ts';
import { API, EVERY } from './security-headers.ts';
import { streamBody } from './unread-body.ts';

export interface ServerOptions {
  /** Everything that is served as RPC. */
  readonly services: readonly Service[];
  /** Those of them with a REST form, in the order in which documents list them. */
  readonly restServices: readonly Service[];
  readonly interceptors: readonly Interceptor[];
  /** Finds out who calls, before a call is read. */
  readonly guard: Pick<Guard, 'identify' | 'addressOf' | 'noteRefusal' | 'ruleOf'>;
  /** Paths of the routes below that are for everybody; one that ends with a slash stands for all below it. */
  readonly openPaths: readonly string[];
  readonly log: Logger;
  /** Called once for each request. */
  readonly count: (facts: { method: string; endpoint: string; code: string; seconds: number }) => void;
  /** `ListenerOptions.maxConnections` */
  readonly maxConnections?: number;
  readonly maxBodyBytes: number;
  readonly tls?: SecureContextOptions;
  readonly closeGraceMs: number;
  /** Who serves unary calls and server streams over gRPC: our own short way, or Connect as it comes. */
  readonly grpc: 'own' | 'connect';
  /** Fields of client streams that may be handed on in pieces, by `package.Service.Method`. */
  readonly splittable?: GrpcOptions['splittable'];
  /** Whose pages may call, besides the service's own. */
  readonly corsOrigins: readonly string[];
  /** `RequestsOptions.hostNames` */
  readonly hostNames?: ReadonlySet<string> | undefined;
  /** Undefined: calls are not traced. */
  readonly traces?: Pick<Traces, 'call'> | undefined;
  /** Of the service, for the OpenAPI document. */
  readonly version: string;
  /** Plain-text forms of stream messages, by type name. */
  readonly text: Readonly<Record<string, TextRenderer>>;
  /** Bodies to begin with, by type name, for the OpenAPI document. */
  readonly examples?: OpenApiOptions['examples'];
  /** Headers that implementations heed, by method, for the OpenAPI document. */
  readonly openApiHeaders?: OpenApiOptions['headers'];
  /** Paths of the routes below that belong into the OpenAPI document. */
  readonly openApiExtra?: OpenApiOptions['extra'];
  /** How callers prove who they are, for the OpenAPI document. */
  readonly openApiSecurity?: OpenApiOptions['security'] | undefined;
  /** What `/readyz` says; not ready: the reason. */
  readonly ready: () => Promise<{ ready: boolean; facts: object }>;
  /** Routes that are no rpc: blobs and what else is listed in the design. `callerOf`: undefined where nobody is known to call. */
  readonly routes: (app: FastifyInstance, callerOf: (request: FastifyRequest) => Caller | undefined) => void;
}

export interface Server {
  /** Rejects when the port cannot be had. Answers the base URL. */
  listen(host: string, port: number): Promise<string>;
  /** Ends streams with UNAVAILABLE, lets calls finish within the grace; memoised. */
  close(): Promise<void>;
}

const GRPC = /^application\/grpc(?!-web)/;
const TITLE = 'facefusion-jobs';
/** Under this prefix everything is the bridge's. */
const REST_PREFIX = '/api/v1';

export async function createServer(options: ServerOptions): Promise<Server> {
  const shutdown = new AbortController();
  const listener = createListener({
    tls: options.tls,
    graceMs: options.closeGraceMs,
    maxConnections: options.maxConnections,
    shutdown,
  });
  const requests = createRequests({
    log: options.log,
    count: options.count,
    cors: createCors(options.corsOrigins),
    hostNames: options.hostNames,
    traces: options.traces,
  });
  /** Calls that Fastify was handed. */
  const passedOn = new WeakMap<IncomingMessage, RequestCall>();
  const contextValues = ({ raw }: FastifyRequest) => createContextValues().set(callKey, passedOn.get(raw));
  const plain = new PlainRoutes();
  const bridge = createBridge(options.restServices, options.interceptors, {
    report: (reference, cause) => options.log.error({ err: cause, reference }, 'internal error'),
    shutdownSignal: shutdown.signal,
    contextValues,
    maxBodyBytes: options.maxBodyBytes,
    prefixes: [REST_PREFIX],
    others: (path) => plain.methodsAt(path),
    text: options.text,
  });
  const take =
    options.grpc === 'own'
      ? createGrpc({
          services: options.services,
          interceptors: options.interceptors,
          shutdownSignal: shutdown.signal,
          readMaxBytes: options.maxBodyBytes,
          splittable: options.splittable,
          report: (cause) => options.log.error({ err: cause }, 'internal error'),
        })
      : undefined;
  const enter = createEntrance({
    guard: options.guard,
    services: options.services.map((one) => one.desc),
    prefix: REST_PREFIX,
    openPaths: [`${REST_PREFIX}/openapi.json`, ...options.openPaths],
    answerOf: bridge.answerOf,
    log: options.log,
  });
  const rpcs = new Set(options.services.map(({ desc }) => desc.typeName));
  const isRpc = (url = '') => rpcs.has(url.slice(1, url.indexOf('/', 1)));
  const app = fastify({
    serverFactory: (handler) =>
      listener.serverFactory((request, response) => {
        const call = requests.begin(request, response);
        if (call === undefined) return;
        const serve = () => {
          if (!shutdown.signal.aborted) {
            const values = createContextValues().set(callKey, call);
            const { headers } = call;
            if (take?.(request, response, values, headers) || bridge.take(request, response, values, { ...API, ...headers })) return;
          }
          passedOn.set(request, call);
          for (const name in call.headers) response.setHeader(name, call.headers[name]!);
          // What is no part of the API has a policy of its own.
          const standard = isRpc(request.url) || request.url?.startsWith(`${REST_PREFIX}/`) ? API : EVERY;
          for (const name in standard) response.setHeader(name, standard[name]!);
          handler(request, response);
        };
        enter(request, response, call, serve);
      }),
    forceCloseConnections: 'idle',
    frameworkErrors: bridge.frameworkErrors,
    clientErrorHandler(error, socket) {
      const code = refuseUnread(error, socket as Socket);
      if (code !== undefined) options.count({ method: 'other', endpoint: 'unmatched', code: code.toLowerCase(), seconds: 0 });
    },
    bodyLimit: options.maxBodyBytes,
    genReqId: (request) => passedOn.get(request as IncomingMessage)?.id ?? '',
    routerOptions: { maxParamLength: 500 },
  });

  app.addHook('onRequest', (request, _reply, done) => {
    passedOn.get(request.raw)!.route = request.routeOptions.url;
    done();
  });

  // Of the routes that are no rpc.
  app.setErrorHandler(bridge.frameworkErrors);
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.replace(/\?.*$/s, '');
    const methods = plain.methodsAt(path);
    if (methods.length > 0) {
      const allow = allowOf(methods);
      if (request.method === 'OPTIONS')
        return reply
          .code(204)
          .headers({ ...API, allow })
          .send();
      throw notPossible(request.method, path, allow);
    }
    const message = `there is nothing at ${request.url}; the API is under ${REST_PREFIX}, its documentation at /docs`;
    return reply.code(404).headers(API).send({ code: 'NOT_FOUND', message, details: [] });
  });

  await serveConnect(app, options, { contextValues, shutdownSignal: shutdown.signal });
  plain.follow(app, new Set([REST_PREFIX, `${REST_PREFIX}/*`]));
  await serveDocuments(app, bridge.routes, options);
  await app.register(bridge.plugin);
  app.get('/healthz', (_request, reply) => reply.headers(API).send({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    const { ready, facts } = await options.ready();
    return reply
      .code(ready ? 200 : 503)
      .headers(API)
      .send({ status: ready ? 'ready' : 'not ready', ...facts });
  });
  options.routes(app, ({ raw }) => passedOn.get(raw)?.caller);
  app.addHook('preClose', async () => await listener.close());
  let closing: Promise<void> | undefined;
  return {
    async listen(host, port) {
      const address = await app.listen({ host, port });
      // Fastify does not know what its listener speaks.
      return options.tls ? address.replace(/^http:/, 'https:') : address;
    },
    close: () => (closing ??= app.close()),
  };
}

/** What Connect speaks: its own protocol, gRPC-Web, and of gRPC what is not taken before. */
async function serveConnect(
  app: FastifyInstance,
  { services, interceptors, maxBodyBytes }: ServerOptions,
  shared: Pick<Parameters<typeof fastifyConnectPlugin>[1], 'contextValues' | 'shutdownSignal'>,
): Promise<void> {
  const methods: ReadonlyMap<string, DescMethod> = new Map(
    services.flatMap(({ desc }) => desc.methods.map((method) => [`/${desc.typeName}/${method.name}`, method] as const)),
  );
  await app.register(async (rpc) => {
    rpc.addHook('onRoute', (route) => {
      const handle = route.handler;
      const method = methods.get(route.url);
      route.handler = async function (request, reply) {
        if (method && request.method === 'POST') {
          // Of gRPC the answer ends after its body, with trailers.
          const streams = method.methodKind === 'client_streaming' && !GRPC.test(request.headers['content-type'] ?? '');
          request.body = streams ? streamBody(request, reply) : readableBody(method, request.raw, reply.raw, maxBodyBytes);
        }
        // Refused by Connect, which does not say what it takes (RFC 9110, section 15.5.6). No rpc here is declared to be without effects, so none takes GET.
        if (method && request.method !== 'POST') reply.raw.setHeader('allow', 'POST');
        await handle.call(this, request, reply);
        // What the library can neither read nor put into a header it gives up on without an answer.
        if (reply.raw.headersSent || reply.raw.destroyed) return reply;
        return reply.code(400).send({ code: 'INVALID_ARGUMENT', message: 'the call cannot be read', details: [] });
      };
    });
    await rpc.register(fastifyConnectPlugin, {
      routes(router) {
        for (const { desc, implementation } of services) router.service(desc, implementation as never);
      },
      interceptors: [...interceptors],
      ...shared,
      readMaxBytes: maxBodyBytes,
      requireConnectProtocolHeader: false,
    });
  });
}

/** The OpenAPI document, and the pages that show it. */
async function serveDocuments(app: FastifyInstance, routes: Bridge['routes'], options: ServerOptions): Promise<void> {
  const document = createOpenApi(routes, {
    info: { title: TITLE, version: options.version, description: 'FaceFusion as jobs: submit, watch, fetch the result, cancel.' },
    comments,
    text: Object.keys(options.text),
    examples: options.examples,
    headers: options.openApiHeaders,
    extra: options.openApiExtra,
    security: options.openApiSecurity,
  });
  const text = JSON.stringify(document);
  app.get(`${REST_PREFIX}/openapi.json`, (_request, reply) => reply.header('content-type', 'application/json').send(text));
  await app.register(docs, { document, title: TITLE });
}

/** What Node's parser gives up on, before there is a request. */
const PARSE_ERRORS: Readonly<Record<string, { status: number; code: string; message: string }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, code: 'RESOURCE_EXHAUSTED', message: 'the headers are too large' },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, code: 'RESOURCE_EXHAUSTED', message: 'the chunk extensions are too large' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, code: 'DEADLINE_EXCEEDED', message: 'the headers took too long' },
};
const NO_REQUEST = { status: 400, code: 'INVALID_ARGUMENT', message: 'this is no HTTP/1.1 request' };

/** Answers what cannot be read as a request, and ends its connection. Answers the code; undefined: nobody was there to be told. */
function refuseUnread({ code: why }: NodeJS.ErrnoException, socket: Socket): string | undefined {
  // The other end has gone, or an answer is on its way already.
  if (why === 'ECONNRESET' || !socket.writable || socket.bytesWritten > 0) {
    socket.destroy();
    return undefined;
  }
  const { status, code, message } = PARSE_ERRORS[why ?? ''] ?? NO_REQUEST;
  const body = JSON.stringify({ code, message, details: [] });
  const headers = { 'content-type': 'application/json', ...API, 'content-length': Buffer.byteLength(body), connection: 'close' };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
  return code;
}
