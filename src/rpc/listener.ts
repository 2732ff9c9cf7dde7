// The one port: HTTP/1.1 and HTTP/2 on one listener, in the clear (told apart by their first bytes) or over TLS (by ALPN). Always true: every
// connection is known here and has a clock running against it while its client owes something (first bytes, settings, headers, a body, a ping),
// and none while the client only waits, so a stream may be quiet for hours. Owner of the sockets, of their limits and of the drain.
import http from 'node:http';
import http2 from 'node:http2';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import type { SecureContextOptions } from 'node:tls';
import { Code, ConnectError } from '@connectrpc/connect';
import { Connections } from './connections.ts';

export interface ListenerOptions {
  /** Certificate and key; without them the port is in the clear. */
  readonly tls?: SecureContextOptions;
  /** First bytes, TLS handshake, HTTP/2 preface and settings have to be there within this. Default 10 s. */
  readonly handshakeMs?: number;
  /** HTTP/1.1: a request's headers have to be complete within this. Default 10 s. */
  readonly headersMs?: number;
  /** In each such span a request body has to bring `bodyMinBytes` or its end, unless this side is the slow one. Default 30 s and 1024. */
  readonly bodyMs?: number;
  readonly bodyMinBytes?: number;
  /** HTTP/1.1: how long a connection is kept for a next request. Default 72 s, longer than usual proxies keep theirs. */
  readonly keepAliveMs?: number;
  /** HTTP/2: a session without a stream is closed after this. Default 300 s. */
  readonly idleMs?: number;
  /** HTTP/2: a ping goes out this often, and has to be answered within as long. Default 30 s. */
  readonly pingMs?: number;
  /** HTTP/2: streams of one session at a time. Default 1,000: fewer starve unary calls behind one client's streams. */
  readonly maxConcurrentStreams?: number;
  /** Connections at a time, of any protocol; a new one more makes an idle one go. Default 20,000. */
  readonly maxConnections?: number;
  /** Bytes of a request's headers. Default 16 KiB. */
  readonly maxHeaderBytes?: number;
  /** How long `close` waits for calls in flight. Default 10 s. */
  readonly graceMs?: number;
  /** While it waits, a request body that brings nothing for so long is given up on. Default 1 s. */
  readonly graceBodyMs?: number;
  /** Aborted first of all by `close`, with UNAVAILABLE. Give its signal to Connect and to the REST bridge. */
  readonly shutdown?: AbortController;
}

type Handler = (request: http.IncomingMessage, response: http.ServerResponse) => void;

export interface Listener {
  /** For Fastify, which calls it again for each further address of a name such as `localhost`; they all belong to this listener. */
  readonly serverFactory: (handler: Handler) => http.Server;
  /**
   * Ends all connections: aborts the shutdown controller, takes no new ones, lets calls in flight finish within the grace, and destroys what is
   * left. For Fastify's `preClose`. Resolves when the last connection is gone; every call returns the same promise.
   */
  readonly close: () => Promise<void>;
}

interface Limits {
  readonly handshakeMs: number;
  readonly headersMs: number;
  readonly bodyMs: number;
  readonly bodyMinBytes: number;
  readonly keepAliveMs: number;
  readonly idleMs: number;
  readonly pingMs: number;
  readonly maxConcurrentStreams: number;
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly graceMs: number;
  readonly graceBodyMs: number;
}

const DEFAULTS: Limits = {
  handshakeMs: 10_000,
  headersMs: 10_000,
  bodyMs: 30_000,
  bodyMinBytes: 1024,
  keepAliveMs: 72_000,
  idleMs: 300_000,
  pingMs: 30_000,
  maxConcurrentStreams: 1000,
  maxConnections: 20_000,
  maxHeaderBytes: 16 << 10,
  graceMs: 10_000,
  graceBodyMs: 1_000,
};

/** Throws a RangeError when a limit is not a positive number. */
export function createListener(options: ListenerOptions = {}): Listener {
  const limits = complete(options);
  const connections = new Connections(limits.maxConnections);
  /** Those whose protocol is not known yet. */
  const undecided = new Set<Socket>();
  const sessions = new Set<http2.ServerHttp2Session>();
  const bodies = new BodyWatch(limits);
  const servers: http.Server[] = [];
  let closed: Promise<void> | undefined;

  const http1Options: http.ServerOptions = {
    headersTimeout: limits.headersMs,
    // A whole request may take as long as it likes, if it gets on: see BodyWatch.
    requestTimeout: 0,
    keepAliveTimeout: limits.keepAliveMs,
    connectionsCheckingInterval: Math.min(limits.headersMs, 5000) / 4,
    maxHeaderSize: limits.maxHeaderBytes,
    noDelay: true,
  };
  const http2Options: http2.ServerOptions = {
    settings: {
      maxConcurrentStreams: limits.maxConcurrentStreams,
      maxHeaderListSize: limits.maxHeaderBytes,
      initialWindowSize: STREAM_WINDOW,
    },
    // In megabytes. The default of 10 turns streams away when a thousand of them have something buffered.
    maxSessionMemory: 64,
  };

  /** False: it is not let in. */
  function enter(socket: Socket): boolean {
    if (!closed) return connections.enter(socket);
    socket.destroy();
    return false;
  }

  function guard(inner: http2.Http2Server | http2.Http2SecureServer): void {
    inner.on('session', (session) => {
      sessions.add(session);
      guardSession(session, limits, bodies, connections);
      session.once('close', () => sessions.delete(session));
      if (closed) session.close();
    });
    // The session is destroyed with the error already.
    inner.on('sessionError', () => {});
  }

  function plain(handler: Handler): http.Server {
    const outer = http.createServer(http1Options, handler);
    const inner = http2.createServer(http2Options, handler as unknown as Parameters<typeof http2.createServer>[1]);
    guard(inner);
    const asHttp1 = outer.listeners('connection')[0] as (this: http.Server, socket: Socket) => void;
    outer.removeListener('connection', asHttp1);
    outer.on('connection', (socket: Socket) => {
      if (!enter(socket)) return;
      undecided.add(socket);
      socket.once('close', () => undecided.delete(socket));
      firstBytes(socket, limits.handshakeMs, (isHttp2) => {
        undecided.delete(socket);
        if (isHttp2) {
          // HTTP/1.1's clients may end their side and wait; here that is the end of the session and of its calls, as of a server of HTTP/2 alone.
          socket.allowHalfOpen = false;
          inner.emit('connection', socket);
        } else asHttp1.call(outer, socket);
      });
    });
    return outer;
  }

  function secure(handler: Handler): http2.Http2SecureServer {
    const outer = http2.createSecureServer(
      {
        ...http1Options,
        ...http2Options,
        ...options.tls,
        allowHTTP1: true,
        ALPNProtocols: ['h2', 'http/1.1'],
        handshakeTimeout: limits.handshakeMs,
      } as http2.SecureServerOptions,
      handler as unknown as Parameters<typeof http2.createSecureServer>[1],
    );
    Object.assign(outer, { headersTimeout: limits.headersMs, requestTimeout: 0, keepAliveTimeout: limits.keepAliveMs });
    guard(outer);
    outer.on('connection', enter);
    return outer;
  }

  function serverFactory(handler: Handler): http.Server {
    const server = options.tls ? (secure(handler) as unknown as http.Server) : plain(handler);
    server.prependListener('request', (request, response) => {
      if (request.httpVersionMajor >= 2) return;
      const connection = connections.of(request.socket);
      if (connection) {
        connection.begin();
        response.once('close', connection.answered);
      }
      bodies.watchRequest(request, response);
    });
    // Without a listener the connection would end without a word.
    server.on('connect', (request, socket) => {
      if (request.httpVersionMajor < 2) socket.end('HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      else (request as unknown as http2.Http2ServerRequest).stream.respond({ ':status': 405 }, { endStream: true });
    });
    servers.push(server);
    return server;
  }

  async function drain(): Promise<void> {
    options.shutdown?.abort(new ConnectError('the server is shutting down', Code.Unavailable));
    for (const server of servers) server.close();
    for (const session of sessions) session.close();
    for (const socket of undecided) socket.destroy();
    if (connections.isEmpty) return;
    bodies.hasten();
    const { promise: graceOver, resolve } = Promise.withResolvers<void>();
    const grace = setTimeout(() => {
      for (const session of sessions) session.destroy();
      connections.destroyAll();
      resolve();
    }, limits.graceMs);
    // HTTP/1.1 connections become idle as their answers end, and Node has no event for that.
    const sweeping = setInterval(() => {
      for (const server of servers) server.closeIdleConnections();
    }, 20);
    await Promise.race([connections.empty(), graceOver]);
    clearTimeout(grace);
    clearInterval(sweeping);
  }

  return {
    serverFactory,
    close: () => {
      closed ??= drain();
      return closed;
    },
  };
}

function complete(options: ListenerOptions): Limits {
  const limits = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS) as (keyof Limits)[]) {
    const value = options[name];
    if (value === undefined) continue;
    if (!Number.isFinite(value) || value <= 0) throw new RangeError(`listener: ${name} must be a positive number, not ${value}`);
    (limits as Record<keyof Limits, number>)[name] = value;
  }
  return limits;
}

/** The start of HTTP/2's connection preface, "PRI * HTTP/2.0"; no HTTP/1.1 method begins so. */
const PREFACE = Buffer.from('PRI');

/**
 * Runs `late` after `ms` unless the returned function is called before. When this process was held up, what the client sent in time is read first:
 * timers come before input in Node's loop, immediates after it.
 */
function judge(ms: number, late: () => void): () => void {
  let settled = false;
  const timer = setTimeout(() => setImmediate(() => atTheirTurn(() => settled || late())), ms);
  return () => {
    settled = true;
    clearTimeout(timer);
  };
}

/** Connections to be cut, of whoever came at the same time and was silent since. */
const toCut: Array<() => void> = [];
const CUT_AT_ONCE = 8;

/** A few in each turn of the loop: hundreds at once would hold up everybody else for as long as it takes to end them all. */
function atTheirTurn(cut: () => void): void {
  if (toCut.push(cut) === 1) setImmediate(cutSome);
}

function cutSome(): void {
  for (const cut of toCut.splice(0, CUT_AT_ONCE)) cut();
  if (toCut.length > 0) setImmediate(cutSome);
}

/** Tells the protocol by the first bytes, gives them back to the socket, and calls `decide` once. A silent client is cut off after `ms`. */
function firstBytes(socket: Socket, ms: number, decide: (isHttp2: boolean) => void): void {
  let head: Buffer | undefined;
  const silent = judge(ms, () => socket.destroy());
  // HTTP servers let their sockets stay half open, so an end does not close them.
  const onEnd = () => socket.destroy();
  const onClose = silent;
  const onData = (chunk: Buffer) => {
    head = head ? Buffer.concat([head, chunk]) : chunk;
    const compared = Math.min(head.length, PREFACE.length);
    const isHttp2 = PREFACE.compare(head, 0, compared, 0, compared) === 0;
    if (isHttp2 && compared < PREFACE.length) return;
    silent();
    socket.off('data', onData).off('error', onEnd).off('end', onEnd).off('close', onClose);
    // In this order: a session that finds bytes waiting in its socket does not start.
    decide(isHttp2);
    socket.unshift(head);
    socket.resume();
  };
  socket.on('data', onData).on('error', onEnd).on('end', onEnd).once('close', onClose);
}

const SESSION_WINDOW = 4 << 20;
/**
 * What a client may send of a body ahead of its reader. With the protocol's 64 KiB whoever reads and hashes waits for its sender again and again (an upload
 * costs a fifth more), and a sender far away brings 64 KiB in each round trip.
 */
const STREAM_WINDOW = 512 << 10;

function guardSession(session: http2.ServerHttp2Session, limits: Limits, bodies: BodyWatch, connections: Connections): void {
  let open = 0;
  const connection = connections.of(session.socket);
  // The default is that of one stream: a single body that waits to be read would stop all others of its session.
  session.setLocalWindowSize(SESSION_WINDOW);
  // Node sets no limit to how long a client may take for its settings, for the frames of one header block, or to be gone without a word.
  const greeted = judge(limits.handshakeMs, () => session.destroy());
  session.once('remoteSettings', greeted);
  let answered = () => {};
  const ping = setInterval(() => {
    if (session.destroyed) return;
    answered = judge(limits.pingMs, () => session.destroy());
    if (!session.ping(answered)) answered();
  }, limits.pingMs);
  session.setTimeout(limits.idleMs, () => {
    if (open === 0) session.close();
  });
  session.on('stream', (stream, _headers, flags) => {
    open++;
    connection?.begin();
    stream.once('close', () => {
      open--;
      connection?.answered();
    });
    if (!(flags & http2.constants.NGHTTP2_FLAG_END_STREAM))
      bodies.watch(stream, () => stream.close(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM));
  });
  session.once('close', () => {
    greeted();
    clearInterval(ping);
    answered();
  });
}

/** Request bodies that are being sent, with the clock that runs against each. */
class BodyWatch {
  readonly #open = new Map<Readable, { got: number; due: number; stalled: () => void }>();
  readonly #hastyMs: number;
  #ms: number;
  #minBytes: number;
  #isHasty = false;
  #sweeping: NodeJS.Timeout | undefined;

  constructor({ bodyMs, bodyMinBytes, graceBodyMs }: Limits) {
    this.#ms = bodyMs;
    this.#minBytes = bodyMinBytes;
    this.#hastyMs = graceBodyMs;
  }

  /** The service ends: who sends nothing now is not waited for, and may send all of it again elsewhere. */
  hasten(): void {
    this.#isHasty = true;
    this.#ms = Math.min(this.#ms, this.#hastyMs);
    this.#minBytes = 1;
    const due = performance.now() + this.#ms;
    for (const state of this.#open.values()) {
      state.got = 0;
      state.due = Math.min(state.due, due);
    }
    clearInterval(this.#sweeping);
    this.#sweeping = this.#open.size > 0 ? this.#sweepOften() : undefined;
  }

  watchRequest(request: http.IncomingMessage, response: http.ServerResponse): void {
    const length = request.headers['content-length'];
    if ((length === undefined || length === '0') && request.headers['transfer-encoding'] === undefined) return;
    this.watch(request, () => {
      // As Node answers when its own requestTimeout has passed.
      const status = this.#isHasty ? '503 Service Unavailable\r\nRetry-After: 2' : '408 Request Timeout';
      if (response.headersSent) request.socket.destroy();
      else request.socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => request.socket.destroy());
    });
  }

  /** Calls `stalled` when too little has come for too long. A body that waits here to be read is not its sender's fault. */
  watch(body: Readable, stalled: () => void): void {
    const state = { got: 0, due: performance.now() + this.#ms, stalled };
    this.#open.set(body, state);
    // What arrives is counted where Node hands it over; a 'data' listener would start the flow before its reader is there.
    const push = body.push;
    body.push = (chunk, encoding) => {
      if (chunk === null) this.#open.delete(body);
      else state.got += chunk.length;
      return push.call(body, chunk, encoding);
    };
    body.once('close', () => this.#open.delete(body));
    this.#sweeping ??= this.#sweepOften();
  }

  #sweepOften(): NodeJS.Timeout {
    // After input, as in `judge`.
    return setInterval(() => setImmediate(() => this.#sweep()), this.#ms / 4).unref();
  }

  #sweep(): void {
    const now = performance.now();
    for (const [body, state] of this.#open) {
      if (state.got >= this.#minBytes || body.readableLength > 0) {
        state.got = 0;
        state.due = now + this.#ms;
      } else if (now >= state.due) {
        this.#open.delete(body);
        state.stalled();
      }
    }
    if (this.#open.size > 0) return;
    clearInterval(this.#sweeping);
    this.#sweeping = undefined;
  }
}
