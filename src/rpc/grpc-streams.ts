// Server streams over gRPC, without the stack of generators that Connect puts between an implementation and the wire. Always true: a call that
// is taken here goes through the same interceptors to the same implementation and looks the same on the wire; whatever is not plainly a gRPC
// server stream (another protocol, compression, JSON) is left to Connect. A message that many watch is encoded once.
// Wire format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
import type { OutgoingHttpHeaders } from 'node:http';
import { create, type DescMessage, type DescMethod, fromBinary, isMessage, type Message, toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError, type ContextValues, type Interceptor } from '@connectrpc/connect';
import { parseTimeout, setTrailerStatus } from '@connectrpc/connect/protocol-grpc';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Service } from '../rest/bridge.ts';
import { Call, callStream, type Implementation, LiveCalls } from '../rest/call.ts';
import { pump } from '../rest/streams.ts';

export interface GrpcStreamsOptions {
  readonly services: readonly Service[];
  readonly interceptors: readonly Interceptor[];
  readonly shutdownSignal: AbortSignal;
  readonly readMaxBytes: number;
  readonly contextValues: (request: FastifyRequest) => ContextValues;
  /** Told of what an interceptor let through that is no ConnectError; the caller sees INTERNAL. */
  readonly report: (cause: unknown) => void;
}

interface Method {
  readonly desc: DescMethod;
  readonly implementation: Implementation;
  readonly frame: (message: Message) => Buffer;
}

const CONTENT_TYPE = /^application\/grpc(?:\+proto)?$/;
/** Flags (1 byte) and length (4 bytes) before each message. */
const PREFIX_BYTES = 5;

/** Answers whether a request was taken; if so the reply is hijacked and needs nothing more. For Fastify's `onRequest`. */
export function grpcStreams(options: GrpcStreamsOptions): (request: FastifyRequest, reply: FastifyReply) => boolean {
  const live = new LiveCalls(options.shutdownSignal);
  const methods = new Map<string, Method>();
  for (const { desc, implementation } of options.services) {
    for (const method of desc.methods) {
      const run = (implementation as Record<string, unknown>)[method.localName];
      if (method.methodKind !== 'server_streaming' || typeof run !== 'function') continue;
      methods.set(`/${desc.typeName}/${method.name}`, {
        desc: method,
        implementation: (message, context) => run.call(implementation, message, context),
        frame: framing(method),
      });
    }
  }
  return (request, reply) => {
    const { raw } = request;
    const method = raw.httpVersionMajor === 2 && raw.method === 'POST' ? methods.get(raw.url ?? '') : undefined;
    if (!method || !CONTENT_TYPE.test(raw.headers['content-type'] ?? '')) return false;
    if ((raw.headers['grpc-encoding'] ?? 'identity') !== 'identity') return false;
    reply.hijack();
    void serve(method, request, reply, live, options);
    return true;
  };
}

async function serve(
  method: Method,
  request: FastifyRequest,
  reply: FastifyReply,
  live: LiveCalls,
  options: GrpcStreamsOptions,
): Promise<void> {
  const response = reply.raw;
  const timeout = parseTimeout(headerOf(request, 'grpc-timeout'), Number.MAX_SAFE_INTEGER);
  const call = new Call({
    method: method.desc,
    request: request.raw,
    response,
    live,
    protocolName: 'grpc',
    timeoutMs: timeout.timeoutMs,
    values: options.contextValues(request),
  });
  const start = async () => {
    if (timeout.error) throw timeout.error;
    const message = parse(method.desc.input, await onlyMessage(request, options.readMaxBytes));
    const messages = await callStream(method.implementation, options.interceptors, call, message);
    // A stream may be silent for long; its caller should know that it is open.
    open();
    return messages;
  };
  const open = () => {
    if (response.headersSent) return;
    const headers = {
      ...reply.getHeaders(),
      ...plain(call.writtenHeader),
      'content-type': 'application/grpc+proto',
    } as OutgoingHttpHeaders;
    response.writeHead(200, headers);
    response.flushHeaders();
  };
  const end = (error: unknown) => {
    open();
    const trailer = new Headers(call.writtenTrailer);
    setTrailerStatus(trailer, error === undefined ? undefined : asConnectError(error, options.report));
    response.addTrailers(plain(trailer));
    response.end();
  };
  await pump(start, call, { response, bytes: method.frame, open, end, release() {} });
}

function framing({ output }: DescMethod): (message: Message) => Buffer {
  const frames = new WeakMap<Message, Buffer>();
  return (yielded) => {
    let frame = frames.get(yielded);
    if (!frame) {
      const bytes = toBinary(output, isMessage(yielded, output) ? yielded : create(output, yielded));
      frame = Buffer.allocUnsafeSlow(PREFIX_BYTES + bytes.length);
      frame[0] = 0;
      frame.writeUInt32BE(bytes.length, 1);
      frame.set(bytes, PREFIX_BYTES);
      frames.set(yielded, frame);
    }
    return frame;
  };
}

/** The one message of the request. Rejects as Connect does on what is no envelope, too large, or more than one. */
async function onlyMessage(request: FastifyRequest, limit: number): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.raw as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit + PREFIX_BYTES) {
      throw new ConnectError(`message size is larger than the limit of ${limit} bytes`, Code.ResourceExhausted);
    }
    chunks.push(chunk);
  }
  const bytes = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
  if (bytes.length === 0) throw new ConnectError('protocol error: missing input message for a server stream', Code.Unimplemented);
  if (bytes.length < PREFIX_BYTES) throw new ConnectError('protocol error: premature end of the message', Code.InvalidArgument);
  if ((bytes[0]! & 1) !== 0) throw new ConnectError('protocol error: a compressed message without grpc-encoding', Code.Internal);
  const length = bytes.readUInt32BE(1);
  if (bytes.length < PREFIX_BYTES + length) throw new ConnectError('protocol error: premature end of the message', Code.InvalidArgument);
  if (bytes.length > PREFIX_BYTES + length) {
    throw new ConnectError('protocol error: more than one message for a server stream', Code.Unimplemented);
  }
  return bytes.subarray(PREFIX_BYTES);
}

/** Its sender's fault, and said as Connect says it. */
function parse(desc: DescMessage, bytes: Uint8Array): Message {
  try {
    return fromBinary(desc, bytes);
  } catch (error) {
    throw new ConnectError(`parse binary: ${error instanceof Error ? error.message : String(error)}`, Code.Internal);
  }
}

function asConnectError(error: unknown, report: (cause: unknown) => void): ConnectError {
  if (error instanceof ConnectError) return error;
  report(error);
  return new ConnectError('internal error', Code.Internal);
}

function headerOf(request: FastifyRequest, name: string): string | null {
  const value = request.raw.headers[name];
  return typeof value === 'string' ? value : null;
}

function plain(headers: Headers | undefined): Record<string, string> {
  return headers ? Object.fromEntries(headers) : {};
}
