// Refuses a request before its body is read, in the words of the protocol that it speaks. Always true: what is written here is a whole answer, and
// the rest of the request is neither kept nor parsed.
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { ConnectError } from '@connectrpc/connect';
import { codeToHttpStatus, endStreamFlag, endStreamToJson, errorToJson } from '@connectrpc/connect/protocol-connect';
import type { ErrorAnswer } from '../rest/errors.ts';
import { setStatus } from './grpc-messages.ts';
import { API } from './security-headers.ts';

const GRPC = /^application\/grpc(?:-web)?(?:-text)?(?:\+[a-z]+)?$/;
const CONNECT_STREAM = /^application\/connect\+(?:proto|json)$/;
/** An answer goes out before its request has come in whole; a body that is longer than this is not waited for. */
const DISCARD_BYTES = 64 * 1024;

/** `isRpc`: the path is one of an rpc; any other is answered as REST is, with `rest`. `always`: headers of whatever answer. */
export function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  error: ConnectError,
  { isRpc, always, rest }: { readonly isRpc: boolean; readonly always: Readonly<Record<string, string>>; readonly rest: ErrorAnswer },
): void {
  const type = request.headers['content-type'] ?? '';
  const { status, headers, body, trailers }: Refusal = !isRpc
    ? rest
    : GRPC.test(type)
      ? asGrpc(error, type)
      : CONNECT_STREAM.test(type)
        ? asConnectStream(error, type)
        : asConnectUnary(error);
  const all: OutgoingHttpHeaders = { ...API, ...headers, ...always };
  if (request.httpVersionMajor < 2 && isLong(request)) all.connection = 'close';
  if (trailers) {
    response.writeHead(status, all);
    response.addTrailers(trailers);
    response.end();
  } else {
    all['content-length'] = Buffer.byteLength(body);
    response.writeHead(status, all).end(request.method === 'HEAD' ? undefined : body);
  }
  request.resume();
}

interface Refusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
  readonly trailers?: Readonly<Record<string, string>>;
}

/** gRPC-Web has no trailers of HTTP, and takes those of an answer without messages from its headers. */
function asGrpc(error: ConnectError, type: string): Refusal {
  const trailer = new Headers();
  setStatus(trailer, error);
  const status = Object.fromEntries(trailer);
  return type.startsWith('application/grpc-web')
    ? { status: 200, headers: { ...status, 'content-type': type }, body: '' }
    : { status: 200, headers: { 'content-type': type }, body: '', trailers: status };
}

function asConnectUnary(error: ConnectError): Refusal {
  const headers = { ...Object.fromEntries(error.metadata), 'content-type': 'application/json' };
  return { status: codeToHttpStatus(error.code), headers, body: JSON.stringify(errorToJson(error, undefined)) };
}

function asConnectStream(error: ConnectError, type: string): Refusal {
  const json = Buffer.from(JSON.stringify(endStreamToJson(new Headers(error.metadata), error, undefined)));
  const head = Buffer.alloc(5);
  head[0] = endStreamFlag;
  head.writeUInt32BE(json.length, 1);
  return { status: 200, headers: { 'content-type': type }, body: Buffer.concat([head, json]) };
}

function isLong({ headers }: IncomingMessage): boolean {
  const length = headers['content-length'];
  return length === undefined ? headers['transfer-encoding'] !== undefined : Number(length) > DISCARD_BYTES;
}
