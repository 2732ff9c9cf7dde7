// Bodies of unary calls that Connect serves, looked into before it does: to the library a message that cannot be read is an error of its own (INTERNAL, 500),
// and it is the caller's; and one of very many elements is dear to parse. Always true: what is passed on is what came; what this cannot judge (too long, not framed, compressed in a way that is not known)
// is left to the library.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DescMethod } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import type { Compression } from '@connectrpc/connect/protocol';
import { compressionBrotli, compressionGzip, universalRequestFromNodeRequest } from '@connectrpc/connect-node';
import { hasMoreElements, mostElements, tooManyElements } from '../rest/limits.ts';
import { PREFIX_BYTES, parseMessage } from './grpc-messages.ts';

const UNARY = /^application\/(?:proto|json)(?:;|$)/;
const FRAMED = /^application\/grpc(?:-web)?(?:\+(?:proto|json))?$/;
const JSON_TYPE = /json/;
const COMPRESSIONS: ReadonlyMap<string, Compression> = new Map([compressionGzip, compressionBrotli].map((one) => [one.name, one]));
const COMPRESSED = 1;

/** The body as Connect is to read it, which throws INVALID_ARGUMENT at its end; undefined: Connect may read it itself. */
export function readableBody(
  method: DescMethod,
  request: IncomingMessage,
  response: ServerResponse,
  maxBytes: number,
): AsyncIterable<Uint8Array> | undefined {
  if (method.methodKind !== 'unary') return undefined;
  const type = request.headers['content-type'] ?? '';
  const framed = FRAMED.test(type);
  if (!framed && !UNARY.test(type)) return undefined;
  const encoding = request.headers[framed ? 'grpc-encoding' : 'content-encoding'];
  const { body } = universalRequestFromNodeRequest(request, response, undefined, undefined);
  return read(body as AsyncIterable<Uint8Array>);

  async function* read(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const kept: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of chunks) {
      size += chunk.length;
      if (size > maxBytes + PREFIX_BYTES) {
        yield* kept.splice(0);
        yield chunk;
      } else kept.push(chunk);
    }
    if (size > maxBytes + PREFIX_BYTES) return;
    const whole = Buffer.concat(kept);
    const message = await messageIn(whole);
    if (message && JSON_TYPE.test(type)) assertFew(message);
    else if (message) parseMessage(method.input, message);
    yield whole;
  }

  /** What is wrong with the JSON itself the library tells in words. */
  function assertFew(json: Uint8Array): void {
    const most = mostElements(method.input);
    if (hasMoreElements(Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString('latin1'), most)) {
      throw new ConnectError(tooManyElements(most), Code.InvalidArgument);
    }
  }

  async function messageIn(bytes: Buffer): Promise<Uint8Array | undefined> {
    if (!framed) return await plain(bytes, encoding !== undefined && encoding !== 'identity');
    if (bytes.length < PREFIX_BYTES) return undefined;
    // What follows the first message the library refuses by itself, after it has read that.
    const end = PREFIX_BYTES + bytes.readUInt32BE(1);
    return bytes.length < end ? undefined : await plain(bytes.subarray(PREFIX_BYTES, end), (bytes[0]! & COMPRESSED) !== 0);
  }

  async function plain(bytes: Uint8Array, isCompressed: boolean): Promise<Uint8Array | undefined> {
    if (!isCompressed) return bytes;
    return await COMPRESSIONS.get(String(encoding))
      ?.decompress(bytes, maxBytes)
      .catch((error: unknown) => {
        if (error instanceof ConnectError && error.code === Code.ResourceExhausted) throw error;
        throw new ConnectError(`the message is not compressed with ${encoding}`, Code.InvalidArgument);
      });
  }
}
