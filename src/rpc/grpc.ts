// Unary calls, server streams and client streams over gRPC, without the stack of generators that Connect puts between an implementation and the wire.
// Always true: a call that is taken here goes through the same interceptors to the same implementation and looks the same on the wire; whatever is not
// plainly gRPC in Protobuf over HTTP/2 (another protocol, a compressed request, JSON, streams both ways) is left to Connect. A message that many ask for
// is encoded once, so what an implementation answers with must never be changed afterwards.
// Wire format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { constants, type ServerHttp2Stream } from 'node:http2';
import { promisify } from 'node:util';
import { gzip as gzipNode } from 'node:zlib';
import type { DescMethod, Message } from '@bufbuild/protobuf';
import { Code, ConnectError, type ContextValues, type Interceptor } from '@connectrpc/connect';
import { parseTimeout } from '@connectrpc/connect/protocol-grpc';
import type { Service } from '../rest/bridge.ts';
import { Call, callClientStream, callStream, callUnary, type Implementation, LiveCalls } from '../rest/call.ts';
import type { AnswerHeaders } from '../rest/exchange.ts';
import { pump } from '../rest/streams.ts';
import { IncomingMessages, type Splittable } from './grpc-incoming.ts';
import {
  compileFrame,
  compileStreamFrame,
  compressed,
  type Frame,
  PREFIX_BYTES,
  parseMessage,
  setStatus,
  unwrap,
} from './grpc-messages.ts';

export interface GrpcOptions {
  readonly services: readonly Service[];
  readonly interceptors: readonly Interceptor[];
  readonly shutdownSignal: AbortSignal;
  readonly readMaxBytes: number;
  /** Of client streams, by `package.Service.Method`. */
  readonly splittable?: Readonly<Record<string, Splittable>>;
  /** Told of what an interceptor let through that is no ConnectError; the caller sees INTERNAL. */
  readonly report: (cause: unknown) => void;
}

interface Method {
  readonly desc: DescMethod;
  readonly implementation: Implementation;
  readonly frame: Frame;
}

/** Serves a request that is one for it, and answers whether it was; `headers` go out with the answer. For a server's request listener. */
export type Take = (request: IncomingMessage, response: ServerResponse, values: ContextValues, headers: AnswerHeaders) => boolean;

const CONTENT_TYPE = /^application\/grpc(?:\+proto)?$/;
/** As for REST's streams. */
const HEADER_WAIT_MS = 100;
const gzip = promisify(gzipNode);
/** Smaller answers cost more to compress than to send. */
const COMPRESS_FROM_BYTES = 16 << 10;

export function createGrpc(options: GrpcOptions): Take {
  const live = new LiveCalls(options.shutdownSignal);
  const methods = new Map<string, Method>();
  for (const { desc, implementation } of options.services) {
    for (const method of desc.methods) {
      const run = (implementation as Record<string, unknown>)[method.localName];
      if (method.methodKind === 'bidi_streaming' || typeof run !== 'function') continue;
      methods.set(`/${desc.typeName}/${method.name}`, {
        desc: method,
        implementation: (message, context) => run.call(implementation, message, context),
        frame: method.methodKind === 'server_streaming' ? compileStreamFrame(method.output) : compileFrame(method.output),
      });
    }
  }

  return (request, response, values, headers) => {
    const method = request.httpVersionMajor === 2 && request.method === 'POST' ? methods.get(request.url ?? '') : undefined;
    if (!method || !CONTENT_TYPE.test(request.headers['content-type'] ?? '')) return false;
    if ((request.headers['grpc-encoding'] ?? 'identity') !== 'identity') return false;
    const timeout = parseTimeout(headerOf(request, 'grpc-timeout'), Number.MAX_SAFE_INTEGER);
    const call = new Call({ method: method.desc, request, response, live, protocolName: 'grpc', timeoutMs: timeout.timeoutMs, values });
    const read = async () => {
      if (timeout.error) throw timeout.error;
      return parseMessage(method.desc.input, await receive(request, options.readMaxBytes));
    };
    if (method.desc.methodKind === 'unary') void answer(method, call, async () => await unary(method, call, await read()));
    else if (method.desc.methodKind === 'server_streaming') void stream(method, call, read);
    else void answer(method, call, () => collect(method, call));
    return true;

    function unary({ implementation }: Method, call: Call, message: Message): Promise<Message> {
      // The deadline may have passed meanwhile.
      if (call.reason !== undefined) throw call.reason;
      return callUnary(implementation, options.interceptors, call, message);
    }

    async function collect({ desc, implementation }: Method, call: Call): Promise<Message> {
      if (timeout.error) throw timeout.error;
      const { stream } = request as unknown as { stream: ServerHttp2Stream };
      const split = options.splittable?.[`${desc.parent.typeName}.${desc.name}`];
      const messages = new IncomingMessages(stream, options.readMaxBytes, desc.input, split);
      call.watch();
      call.onabort = messages.fail;
      if (call.reason !== undefined) messages.fail(call.reason);
      try {
        return await callClientStream(implementation, options.interceptors, call, messages);
      } finally {
        await messages.return();
      }
    }

    /** Never rejects. */
    async function answer({ frame }: Method, call: Call, make: () => Promise<Message>): Promise<void> {
      let bytes: Buffer | undefined;
      let error: unknown;
      let encoding: string | undefined;
      try {
        bytes = frame(await make());
        if (bytes.length >= COMPRESS_FROM_BYTES && accepts(request, 'gzip')) {
          bytes = compressed(await gzip(bytes.subarray(PREFIX_BYTES)));
          encoding = 'gzip';
        }
      } catch (thrown) {
        bytes = undefined;
        // An implementation that was told to stop throws an error of its own making; what it was told says more.
        const told = thrown instanceof ConnectError && thrown.code !== Code.Canceled ? undefined : call.reason;
        error = told ?? thrown;
      }
      call.end();
      open(call, encoding);
      close(call, error, bytes);
    }

    async function stream({ implementation, frame }: Method, call: Call, read: () => Promise<Message>): Promise<void> {
      let wait: NodeJS.Timeout | undefined;
      const start = async () => {
        const messages = await callStream(implementation, options.interceptors, call, await read());
        // The implementation may set headers until its first message; but a stream may be silent for long, and its caller should know that it is open.
        wait = setTimeout(() => {
          open(call, undefined);
          response.flushHeaders();
        }, HEADER_WAIT_MS);
        return messages;
      };
      const end = (error: unknown) => {
        open(call, undefined);
        close(call, error, undefined);
      };
      await pump(start, call, { response, bytes: frame, open: () => open(call, undefined), end, release: () => clearTimeout(wait) });
      // Where the client left while the call began.
      clearTimeout(wait);
    }

    function open({ writtenHeader }: Call, encoding: string | undefined): void {
      if (response.headersSent) return;
      const all: OutgoingHttpHeaders = { ...headers, ...plain(writtenHeader), 'content-type': 'application/grpc+proto' };
      if (encoding !== undefined) all['grpc-encoding'] = encoding;
      response.writeHead(200, all);
    }

    function close({ writtenTrailer }: Call, error: unknown, last: Buffer | undefined): void {
      if (error === undefined && writtenTrailer === undefined) response.addTrailers(OK);
      else {
        const trailer = new Headers(writtenTrailer);
        setStatus(trailer, error === undefined ? undefined : asConnectError(error, options.report));
        response.addTrailers(plain(trailer));
      }
      if (last) response.end(last);
      else response.end();
      const { stream } = request as unknown as { stream: ServerHttp2Stream };
      if (request.complete || stream.readableEnded) return;
      // What is still being sent is not read any more; RFC 9113, 8.1. Not before the trailers have gone out.
      stream.once('wantTrailers', () => setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR)));
    }
  };
}

const OK = { 'grpc-status': '0' };

/** The one message of a request. Rejects as Connect does on what is no envelope, too large, or more than one. */
function receive(request: IncomingMessage, limit: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let first: Buffer | undefined;
    let chunks: Buffer[] | undefined;
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > limit + PREFIX_BYTES) {
        chunks = undefined;
        first = undefined;
        reject(new ConnectError(`message size is larger than the limit of ${limit} bytes`, Code.ResourceExhausted));
      } else if (first === undefined) first = chunk;
      else if (chunks === undefined) chunks = [first, chunk];
      else chunks.push(chunk);
    });
    request.once('end', () => {
      try {
        resolve(unwrap(chunks ? Buffer.concat(chunks) : first));
      } catch (error) {
        reject(error);
      }
    });
    request.once('aborted', () => reject(new ConnectError('the client has left', Code.Canceled)));
    request.once('error', reject);
  });
}

function accepts({ headers }: IncomingMessage, encoding: string): boolean {
  return String(headers['grpc-accept-encoding'] ?? '')
    .split(',')
    .some((name) => name.trim() === encoding);
}

function asConnectError(error: unknown, report: (cause: unknown) => void): ConnectError {
  if (error instanceof ConnectError) return error;
  report(error);
  return new ConnectError('internal error', Code.Internal);
}

function headerOf(request: IncomingMessage, name: string): string | null {
  const value = request.headers[name];
  return typeof value === 'string' ? value : null;
}

function plain(headers: Headers | undefined): Record<string, string> {
  return headers ? Object.fromEntries(headers) : {};
}
