// The wire to a worker: one message of worker.proto per line, in the ProtoJSON mapping with proto field names. The schema is the one truth, so
// frames go through protobuf's own reader and writer (about 3 µs each). Nothing here throws on what a worker sends: a line that is no message is reported, and the next
// one is read.
import { create, fromJson, type MessageInitShape, toJson } from '@bufbuild/protobuf';
import { type FromWorker, FromWorkerSchema, ToWorkerSchema } from '../../gen/facefusion/worker/v1/worker_pb.js';

/** A longer line is not read as a message: the largest honest one, a preview or the capabilities, stays far below. */
export const MAX_FRAME_BYTES = 4 * 1024 * 1024;

export type WorkerWord = FromWorker['message'];

/** One line, newline included. */
export function encodeFrame(message: MessageInitShape<typeof ToWorkerSchema>['message']): string {
  return `${JSON.stringify(toJson(ToWorkerSchema, create(ToWorkerSchema, { message }), { useProtoFieldName: true }))}\n`;
}

/** The message of one line, or why it is none. Unknown fields are passed over; a message of an unknown kind has `case` undefined. */
export function decodeFrame(line: string): WorkerWord | { readonly case: 'bad'; readonly problem: string } {
  try {
    return fromJson(FromWorkerSchema, JSON.parse(line), { ignoreUnknownFields: true }).message;
  } catch (error) {
    return { case: 'bad', problem: error instanceof Error ? error.message : String(error) };
  }
}

const NEWLINE = 0x0a;

/**
 * Cuts a byte stream into lines, holding at most `maxBytes` of one. A longer line is handed on once, cut to `maxBytes` and marked `cut`; its
 * rest is passed over. Cutting is on bytes, so characters that span two chunks come out whole.
 */
export class LineSplitter {
  readonly #maxBytes: number;
  readonly #onLine: (line: string, cut: boolean) => void;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #skipping = false;

  constructor(maxBytes: number, onLine: (line: string, cut: boolean) => void) {
    this.#maxBytes = maxBytes;
    this.#onLine = onLine;
  }

  push(chunk: Buffer): void {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, from)) {
      if (this.#skipping) this.#skipping = false;
      else this.#take(chunk.subarray(from, at), true);
      from = at + 1;
    }
    if (from < chunk.length && !this.#skipping) this.#take(chunk.subarray(from), false);
  }

  /** The stream is over: what is held is the last line. */
  end(): void {
    if (this.#heldBytes > 0) this.#emit(false);
  }

  #take(bytes: Buffer, whole: boolean): void {
    const room = this.#maxBytes - this.#heldBytes;
    if (bytes.length > room) {
      this.#hold(bytes.subarray(0, room));
      this.#skipping = !whole;
      this.#emit(true);
      return;
    }
    if (whole && this.#heldBytes === 0) {
      if (bytes.length > 0) this.#onLine(bytes.toString('utf8'), false);
      return;
    }
    this.#hold(bytes);
    if (whole) this.#emit(false);
  }

  #hold(bytes: Buffer): void {
    this.#held.push(bytes);
    this.#heldBytes += bytes.length;
  }

  #emit(cut: boolean): void {
    const line = (this.#held.length === 1 ? this.#held[0]! : Buffer.concat(this.#held)).toString('utf8');
    this.#held = [];
    this.#heldBytes = 0;
    this.#onLine(line, cut);
  }
}
