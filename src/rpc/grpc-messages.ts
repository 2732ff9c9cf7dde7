// Messages in gRPC's envelopes: a flag byte, the length in four bytes, the bytes of the message.
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
import { create, type DescMessage, fromBinary, isMessage, type Message, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Code, ConnectError } from '@connectrpc/connect';
import { setTrailerStatus } from '@connectrpc/connect/protocol-grpc';
import { hasMoreFields, mostElements, tooManyElements } from '../rest/limits.ts';

/** Flags (1 byte) and length (4 bytes) before each message. */
export const PREFIX_BYTES = 5;
const COMPRESSED = 1;

/** The envelope of a message, or of what a message can be made of. */
export type Frame = (message: Message) => Buffer;

/** Of a stream's messages, kept with the object that was yielded: many may watch it. */
export function compileStreamFrame(output: DescMessage): Frame {
  const frames = new WeakMap<Message, Buffer>();
  return (yielded) => {
    let frame = frames.get(yielded);
    if (!frame) {
      frame = envelope(toBinary(output, isMessage(yielded, output) ? yielded : create(output, yielded)), 0);
      frames.set(yielded, frame);
    }
    return frame;
  };
}

/**
 * Of a unary method's answers. They are made anew for each call, but are often nothing but a wrapping of messages that others ask for too: then the
 * bytes are kept with those, and put together.
 */
export function compileFrame(output: DescMessage): Frame {
  const fields = output.fields.map((field) => {
    if (field.fieldKind !== 'message' || field.delimitedEncoding || field.oneof) return undefined;
    return { name: field.localName, number: field.number, inner: field.message, kept: new WeakMap<object, Uint8Array>() };
  });
  const whole: Frame = (message) => envelope(toBinary(output, message), 0);
  if (fields.length === 0 || fields.includes(undefined)) return whole;
  return (message) => {
    if (message.$unknown) return whole(message);
    const parts: Uint8Array[] = [];
    for (const field of fields) {
      const { name, number, inner, kept } = field!;
      const value = (message as unknown as Record<string, object | undefined>)[name];
      if (value === undefined) continue;
      // What the library holds in another form, such as a Struct.
      if (!isMessage(value, inner)) return whole(message);
      let bytes = kept.get(value);
      if (!bytes) {
        bytes = new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(toBinary(inner, value)).finish();
        kept.set(value, bytes);
      }
      parts.push(bytes);
    }
    return envelope(parts.length === 1 ? parts[0]! : Buffer.concat(parts), 0);
  };
}

/**
 * How a call went, in the trailers. The message is encoded no further than the protocol asks for (`%x20-%x24 / %x26-%x7E` stay as they are): grpc-js, for one,
 * does not decode commas, colons and slashes.
 */
export function setStatus(trailer: Headers, error: ConnectError | undefined): void {
  setTrailerStatus(trailer, error);
  if (error) trailer.set('grpc-message', percentEncoded(error.rawMessage));
}

function percentEncoded(message: string): string {
  const bytes = Buffer.from(message).toString('latin1');
  return bytes.replaceAll(/[^\x20-\x24\x26-\x7e]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
}

/** The envelope of bytes that are compressed already. */
export function compressed(bytes: Uint8Array): Buffer {
  return envelope(bytes, COMPRESSED);
}

function envelope(bytes: Uint8Array, flags: number): Buffer {
  const frame = Buffer.allocUnsafeSlow(PREFIX_BYTES + bytes.length);
  frame[0] = flags;
  frame.writeUInt32BE(bytes.length, 1);
  frame.set(bytes, PREFIX_BYTES);
  return frame;
}

/** The one message of a request, out of its envelope. Throws as Connect does on what is none. */
export function unwrap(bytes: Buffer | undefined): Uint8Array {
  if (bytes === undefined || bytes.length === 0) throw new ConnectError('protocol error: missing input message', Code.Unimplemented);
  if (bytes.length < PREFIX_BYTES) throw new ConnectError('protocol error: premature end of the message', Code.InvalidArgument);
  if ((bytes[0]! & COMPRESSED) !== 0) throw new ConnectError('protocol error: a compressed message without grpc-encoding', Code.Internal);
  const length = bytes.readUInt32BE(1);
  if (bytes.length < PREFIX_BYTES + length) throw new ConnectError('protocol error: premature end of the message', Code.InvalidArgument);
  if (bytes.length > PREFIX_BYTES + length) throw new ConnectError('protocol error: more than one input message', Code.Unimplemented);
  return bytes.subarray(PREFIX_BYTES);
}

/** Bytes that are no such message are their sender's fault. */
export function parseMessage(desc: DescMessage, bytes: Uint8Array): Message {
  const most = mostElements(desc);
  if (hasMoreFields(desc, bytes, most)) throw new ConnectError(tooManyElements(most), Code.InvalidArgument);
  try {
    return fromBinary(desc, bytes);
  } catch (error) {
    throw new ConnectError(`the message cannot be read: ${error instanceof Error ? error.message : String(error)}`, Code.InvalidArgument);
  }
}
