// The messages of a client stream, out of their envelopes as they come. Always true: little more than one message waits here, the sender is held back
// meanwhile, and a message that may not be (too large, compressed, cut off) ends the stream at once, whatever is still being sent.
import type { ServerHttp2Stream } from 'node:http2';
import { create, type DescField, type DescMessage, type Message } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { PREFIX_BYTES, parseMessage } from './grpc-messages.ts';

/**
 * A `bytes` field of a method's input whose values mean the same in one message as in several. A message that is nothing but this field becomes one
 * message for each piece of it as it comes from the socket: nothing is copied, and nothing is kept until the rest is there.
 */
export interface Splittable {
  /** Local name. */
  readonly field: string;
  /** Longer ones are left whole, for the rules of the contract to see. */
  readonly maxBytes: number;
}

/** Bytes of messages that wait, from which on the sender is held back. */
const WAITING_BYTES = 256 * 1024;
const LENGTH_DELIMITED = 2;

interface Waiting {
  readonly message: Message;
  readonly bytes: number;
}

/**
 * Reads from where nobody has read yet, and not through Node's compatibility layer, which costs more than all that is done here. `next` rejects as
 * Connect does on what is no envelope, or no message. One `next` at a time.
 */
export class IncomingMessages implements AsyncIterableIterator<Message, undefined> {
  readonly #stream: ServerHttp2Stream;
  readonly #limit: number;
  readonly #input: DescMessage;
  readonly #split: { readonly field: DescField; readonly tag: Buffer; readonly maxBytes: number } | undefined;
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  #prefixed = 0;
  /** Of the message that is coming; undefined: its envelope is, or a field that is handed on as it comes. */
  #parts: Buffer[] | undefined;
  /** Of the message. */
  #length = 0;
  #missing = 0;
  /** It may be one that is handed on as it comes. */
  #undecided = false;
  readonly #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  #wanted: PromiseWithResolvers<IteratorResult<Message, undefined>> | undefined;

  constructor(stream: ServerHttp2Stream, limit: number, input: DescMessage, split?: Splittable) {
    this.#stream = stream;
    this.#limit = limit;
    this.#input = input;
    const field = input.field[split?.field ?? ''];
    if (split && field) this.#split = { field, tag: varint((field.number << 3) | LENGTH_DELIMITED), maxBytes: split.maxBytes };
    // A stream that its client resets is told to have ended, after it was told to be aborted.
    stream.once('aborted', this.#onClose).once('close', this.#onClose).on('error', this.fail);
    stream.on('data', this.#onData).once('end', this.#onEnd);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Message, undefined>> {
    const first = this.#waiting.shift();
    if (first) {
      this.#waitingBytes -= first.bytes;
      if (this.#waitingBytes < WAITING_BYTES && !this.#ended && !this.#failure) this.#stream.resume();
      return Promise.resolve({ done: false, value: first.message });
    }
    if (this.#failure) return Promise.reject(this.#failure.error);
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    this.#wanted = Promise.withResolvers();
    return this.#wanted.promise;
  }

  async return(): Promise<IteratorResult<Message, undefined>> {
    this.fail(new ConnectError('nobody reads this stream any more', Code.Canceled));
    return { done: true, value: undefined };
  }

  /** Reads no more, and ends with `error` after the messages that wait. */
  readonly fail = (error: unknown): void => {
    if (this.#ended || this.#failure) return;
    this.#failure = { error };
    this.#leave();
    this.#wanted?.reject(error);
    this.#wanted = undefined;
  };

  readonly #onData = (chunk: Buffer): void => {
    try {
      for (let rest: Buffer = chunk; rest.length > 0; ) rest = this.#take(rest);
    } catch (error) {
      this.fail(error);
    }
  };

  /** Answers what is left of a chunk. Throws what the stream is to end with. */
  #take(chunk: Buffer): Buffer {
    let rest = chunk;
    if (this.#missing === 0 && this.#parts === undefined) {
      const taken = rest.copy(this.#prefix, this.#prefixed);
      this.#prefixed += taken;
      rest = rest.subarray(taken);
      if (this.#prefixed < PREFIX_BYTES) return rest;
      this.#begin();
    }
    const part = rest.subarray(0, this.#missing);
    this.#missing -= part.length;
    if (this.#parts === undefined) this.#piece(part);
    else this.#collect(this.#parts, part);
    return rest.subarray(part.length);
  }

  #begin(): void {
    if (this.#prefix[0] !== 0) throw new ConnectError('protocol error: a compressed message without grpc-encoding', Code.Internal);
    this.#length = this.#missing = this.#prefix.readUInt32BE(1);
    if (this.#length > this.#limit) {
      throw new ConnectError(`message size is larger than the limit of ${this.#limit} bytes`, Code.ResourceExhausted);
    }
    this.#prefixed = 0;
    this.#parts = [];
    this.#undecided = this.#split !== undefined;
  }

  #collect(parts: Buffer[], part: Buffer): void {
    if (part.length > 0) parts.push(part);
    if (this.#missing > 0) {
      if (this.#undecided) this.#decide(parts);
      return;
    }
    this.#parts = undefined;
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    this.#add(parseMessage(this.#input, bytes), bytes.length);
  }

  /** Whether the message that has begun is handed on as it comes. */
  #decide(parts: Buffer[]): void {
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    const head = this.#headOf(bytes);
    this.#undecided = head === undefined;
    this.#parts = head ? undefined : [bytes];
    if (head) this.#piece(bytes.subarray(head));
  }

  /** Bytes of the tag and the length where a message begins that is one field to split; 0: it is not; undefined: not to be told yet. */
  #headOf(bytes: Buffer): number | undefined {
    const { tag, maxBytes } = this.#split!;
    if (bytes.length < tag.length) return undefined;
    if (tag.compare(bytes, 0, tag.length) !== 0) return 0;
    let length = 0;
    for (let at = tag.length, shift = 0; shift < 28; shift += 7) {
      if (at === bytes.length) return undefined;
      const byte = bytes[at++]!;
      length |= (byte & 0x7f) << shift;
      if (byte < 0x80) return at + length === this.#length && length <= maxBytes ? at : 0;
    }
    return 0;
  }

  #piece(bytes: Buffer): void {
    if (bytes.length === 0) return;
    const { field } = this.#split!;
    const value = field.oneof ? { [field.oneof.localName]: { case: field.localName, value: bytes } } : { [field.localName]: bytes };
    this.#add(create(this.#input, value), bytes.length);
  }

  #add(message: Message, bytes: number): void {
    if (this.#wanted) {
      const { resolve } = this.#wanted;
      this.#wanted = undefined;
      resolve({ done: false, value: message });
      return;
    }
    this.#waiting.push({ message, bytes });
    this.#waitingBytes += bytes;
    if (this.#waitingBytes >= WAITING_BYTES) this.#stream.pause();
  }

  readonly #onEnd = (): void => {
    if (this.#parts !== undefined || this.#missing > 0 || this.#prefixed > 0) {
      this.fail(new ConnectError('protocol error: premature end of a message', Code.InvalidArgument));
      return;
    }
    this.#ended = true;
    this.#leave();
    this.#wanted?.resolve({ done: true, value: undefined });
    this.#wanted = undefined;
  };

  readonly #onClose = (): void => {
    this.fail(new ConnectError('the client has left', Code.Canceled));
  };

  #leave(): void {
    this.#parts = undefined;
    this.#stream.off('data', this.#onData).off('end', this.#onEnd).off('aborted', this.#onClose).off('close', this.#onClose).pause();
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let left = value; ; left >>>= 7) {
    if (left < 0x80) return Buffer.from([...bytes, left]);
    bytes.push((left & 0x7f) | 0x80);
  }
}
