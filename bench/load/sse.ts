// One SSE stream over one raw socket: the fields of the event stream format (HTML standard, 9.2.6) that our events use, each line `name: value`.
import { connect, type Socket } from 'node:net';
import { ChunkReader } from './http1.ts';

/** What is read of one event. */
export interface Seen {
  readonly sequence: number;
  readonly timeMs: number;
  /** An engine of the bench puts the low 31 bits of its clock, in milliseconds, into `frames_done`; 0 where there is none. */
  readonly engineMs: number;
  readonly skipped: boolean;
}

export class SseConnection {
  readonly #socket: Socket;
  readonly #seen: (event: Seen) => void;
  readonly #chunks = new ChunkReader();
  #head: string | undefined = '';
  #text = '';

  private constructor(socket: Socket, seen: (event: Seen) => void, ended: () => void) {
    this.#socket = socket;
    this.#seen = seen;
    socket.on('data', (bytes) => this.#read(bytes));
    socket.on('error', () => {});
    socket.on('close', ended);
  }

  static open(port: number, request: Buffer, seen: (event: Seen) => void, ended: () => void): Promise<SseConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        socket.write(request);
        resolve(new SseConnection(socket, seen, ended));
      });
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(bytes: Buffer): void {
    if (this.#head !== undefined) {
      this.#head += bytes.toString('latin1');
      const end = this.#head.indexOf('\r\n\r\n');
      if (end < 0) return;
      const rest = Buffer.from(this.#head.slice(end + 4), 'latin1');
      const ok = this.#head.startsWith('HTTP/1.1 200') && /^transfer-encoding: chunked\r?$/im.test(this.#head);
      this.#head = undefined;
      if (!ok) return void this.#socket.destroy();
      bytes = rest;
    }
    this.#chunks.push(bytes, (data) => this.#take(data.toString()));
  }

  #take(text: string): void {
    this.#text += text;
    let at = 0;
    for (let end = this.#text.indexOf('\n\n', at); end >= 0; end = this.#text.indexOf('\n\n', at)) {
      const seen = readSseEvent(this.#text.slice(at, end));
      if (seen) this.#seen(seen);
      at = end + 2;
    }
    this.#text = this.#text.slice(at);
  }
}

/** The few values that count here; undefined for a comment or an event without data. */
export function readSseEvent(block: string): Seen | undefined {
  if (!block.includes('data:')) return undefined;
  const sequence = /"sequence":\s*(\d+)/.exec(block.slice(0))?.[1];
  const time = /"time":\s*"([^"]+)"/.exec(block)?.[1];
  const engine = /"frames_done":\s*(\d+)/.exec(block)?.[1];
  if (time === undefined) return undefined;
  return {
    sequence: Number(sequence ?? 0),
    timeMs: Date.parse(time),
    engineMs: Number(engine ?? 0),
    skipped: /"skipped_after":\s*\d/.test(block),
  };
}
