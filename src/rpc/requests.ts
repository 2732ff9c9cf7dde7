// What every request has, whoever serves it: an id, a place for what becomes of it, and one line of the log and one count at its end. Always
// true: a request that began here is counted exactly once, when its response is over, also where its caller left or nobody knew its path.
import { randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import type { Code } from '@connectrpc/connect';
import type { Logger } from 'pino';
import type { Traces } from '../jobs/traces.ts';
import type { Cors } from './cors.ts';
import { type Call, codeName } from './interceptors.ts';
import { API } from './security-headers.ts';

export interface RequestsOptions {
  readonly log: Logger;
  /** Called once for each request. */
  readonly count: (facts: { method: string; endpoint: string; code: string; seconds: number }) => void;
  readonly cors: Cors;
  /**
   * Names that this service goes by, lower case, IPv6 in brackets; undefined: any. Where nobody has to say who he is, it keeps web pages out whose name
   * was made to lead to this machine (DNS rebinding): to a browser they would be of the same origin.
   */
  readonly hostNames: ReadonlySet<string> | undefined;
  /** Undefined: calls are not traced. */
  readonly traces: Pick<Traces, 'call'> | undefined;
}

/** A call from its first byte, with what is known of it before its method is. */
export interface RequestCall extends Call {
  /** Of a path that is no rpc, or of one whose method did not come to run. */
  route: string | undefined;
  /** What every answer to it carries. Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly span: ReturnType<Traces['call']> | undefined;
}

export interface Requests {
  /** To be called with each request first. Undefined: it is answered already and nobody else's to serve. */
  begin(request: IncomingMessage, response: ServerResponse): RequestCall | undefined;
}

export function createRequests({ log, count, cors, hostNames, traces }: RequestsOptions): Requests {
  // Unique over restarts and replicas; where it matters who made an id, the caller brings one.
  const prefix = randomBytes(9).toString('base64url');
  let last = 0;
  /** What a caller wrote last that is a name of this service: the next one mostly writes the same. */
  let accepted: string | undefined;

  /** Answers a request that is under no name of this service; whether it did. */
  function misses(host: unknown, request: IncomingMessage, response: ServerResponse, call: RequestCall): boolean {
    if (host === accepted) return false;
    // Connect makes a URL of it, and where it cannot the call would stay without an answer.
    if (!isHost(host)) {
      refuse(request, response, call, 400, { code: 'INVALID_ARGUMENT', message: 'the header Host is malformed' });
      return true;
    }
    if (hostNames !== undefined && host !== '' && !hostNames.has(nameOf(host))) {
      const message = `this service does not go by the name '${nameOf(host)}': its operator gives it one with FFJOBS_PUBLIC_URL`;
      refuse(request, response, call, 421, { code: 'PERMISSION_DENIED', message });
      return true;
    }
    accepted = host;
    return false;
  }

  function end(request: IncomingMessage, response: ServerResponse, call: RequestCall, startedAt: number): void {
    const seconds = (performance.now() - startedAt) / 1000;
    const code = call.code ?? codeOfAnswer(response);
    const endpoint = call.endpoint ?? call.route ?? 'unmatched';
    // HTTP/2 lets a caller make up methods; a label for each would never end.
    const method = METHODS.has(request.method) ? request.method! : 'other';
    count({ method, endpoint, code, seconds });
    if (call.span) endSpan(call.span, { call, request, response, method, endpoint, code });
    const failed = call.failed || code === 'data_loss';
    // Reads that went well, and questions of probes, are not worth a line in production.
    const level = failed ? 'error' : PROBES.has(endpoint) || (code === 'ok' && READS.test(endpoint)) ? 'debug' : 'info';
    if (!log.isLevelEnabled(level)) return;
    const ms = Math.round(seconds * 1000);
    const trace_id = call.span?.traceId;
    log[level]({ request_id: call.id, trace_id, method, endpoint, code, status: response.statusCode, ms }, failed ? 'call failed' : 'call');
  }

  return {
    begin(request, response) {
      const { headers } = request;
      const startedAt = performance.now();
      const given = headers['x-request-id'];
      // What probes ask, every few seconds, is nobody's trace.
      const span = traces && !PROBE_PATH.test(request.url ?? '') ? traces.call(headers) : undefined;
      const id = typeof given === 'string' && /^[\w.:-]{1,128}$/.test(given) ? given : `${prefix}.${(++last).toString(36)}`;
      const { headers: allowed, preflight } = cors(request.method, headers);
      const call: RequestCall = {
        id,
        headers: { 'x-request-id': id, ...allowed },
        log: span ? log.child({ trace_id: span.traceId }) : log,
        span,
        caller: undefined,
        endpoint: undefined,
        code: undefined,
        failed: false,
        route: undefined,
      };
      response.on('close', () => end(request, response, call, startedAt));
      dropFarDeadline(headers);
      if (misses(headers[':authority'] ?? headers.host ?? '', request, response, call)) return undefined;
      if (preflight) {
        call.route = PREFLIGHT;
        response.writeHead(204, call.headers).end();
        return undefined;
      }
      return call;
    },
  };
}

/** An answer before anybody knows what kind of call it is. */
function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  call: RequestCall,
  status: number,
  error: { readonly code: string; readonly message: string },
): void {
  const body = JSON.stringify({ ...error, details: [] });
  if (request.httpVersionMajor < 2) response.setHeader('connection', 'close');
  response.writeHead(status, {
    ...API,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...call.headers,
  });
  response.end(body);
}

/** Of `name:port`, lower case. */
function nameOf(host: string): string {
  return host.replace(/:\d*$/, '').toLowerCase();
}

const TIMEOUT_UNITS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
/** Node fires a timer at once that is set for longer, so that a deadline in a month would be over now. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

function dropFarDeadline(headers: IncomingHttpHeaders): void {
  const grpc = headers['grpc-timeout'];
  if (grpc !== undefined) {
    const [, count, unit] = /^(\d{1,8})([HMSmun])$/.exec(String(grpc)) ?? [];
    if (Number(count) * TIMEOUT_UNITS[unit ?? '']! > LONGEST_TIMER_MS) delete headers['grpc-timeout'];
  }
  const connect = headers['connect-timeout-ms'];
  if (connect !== undefined && Number(connect) > LONGEST_TIMER_MS && /^\d{1,10}$/.test(String(connect))) {
    delete headers['connect-timeout-ms'];
  }
}

function isHost(host: unknown): host is string {
  if (host === '') return true;
  return typeof host === 'string' && (/^[\w.-]+(:\d{1,4})?$/.test(host) || URL.canParse(`http://${host}/`));
}

/** Names after https://opentelemetry.io/docs/specs/semconv/rpc/ where there are such. */
function endSpan(
  span: ReturnType<Traces['call']>,
  {
    call,
    request,
    response,
    method,
    endpoint,
    code,
  }: {
    readonly call: RequestCall;
    readonly request: IncomingMessage;
    readonly response: ServerResponse;
    readonly method: string;
    readonly endpoint: string;
    readonly code: string;
  },
): void {
  span.name(endpoint);
  const facts = {
    'rpc.method': call.endpoint,
    'http.request.method': method,
    'http.route': call.route,
    'http.response.status_code': response.statusCode,
    'network.protocol.version': request.httpVersion,
    'ffjobs.code': code,
    'ffjobs.request_id': call.id,
  };
  span.end(facts, call.failed || SERVER_FAULTS.has(code) ? code : undefined);
}

/** Of a server's span, those alone are errors: a caller's mistake is not. */
const SERVER_FAULTS: ReadonlySet<string> = new Set([
  'unknown',
  'internal',
  'unavailable',
  'data_loss',
  'unimplemented',
  'deadline_exceeded',
]);

const METHODS: ReadonlySet<string | undefined> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

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
  421: 'permission_denied',
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

const PREFLIGHT = 'preflight';
const PROBES: ReadonlySet<string> = new Set([PREFLIGHT, '/healthz', '/readyz', 'grpc.health.v1.Health/Check']);
const PROBE_PATH = /^\/(healthz|readyz|grpc\.health\.)/;
const READS = /^\/|\/(Get|List|Watch|Validate)/;
