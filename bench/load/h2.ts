// A client's half of HTTP/2 over cleartext, no more than gRPC load needs (RFC 9113, RFC 7541): many streams on one socket, at a cost per call far
// below any server's, which node:http2 as a client does not have. Header blocks that arrive are not decoded: what counts is whether a message
// came before the stream's end. Whoever uses this checks one call with a real client first.
import { connect, type Socket } from 'node:net';

export interface StreamEvents {
  /** Bytes of the body as they come. The buffer is only valid during the call. */
  data(chunk: Buffer): void;
  /** `ok`: ended by the server in the ordinary way. */
  end(ok: boolean): void;
}

const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, windowUpdate: 8 } as const;
const END_STREAM = 0x1;
const END_HEADERS = 0x4;
const ACK = 0x1;
const PADDED = 0x8;
const MAX_WINDOW = 2 ** 31 - 1;

export class H2Client {
  readonly #socket: Socket;
  readonly #streams = new Map<number, StreamEvents>();
  #next = 1;
  #pending: Buffer | undefined;
  #out: Buffer[] = [];
  #credit = MAX_WINDOW;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#read(chunk));
    socket.on('error', () => this.#fail());
    socket.on('close', () => this.#fail());
    const settings = Buffer.alloc(12);
    settings.writeUInt16BE(2, 0); // ENABLE_PUSH 0
    settings.writeUInt16BE(4, 6); // INITIAL_WINDOW_SIZE: nothing here ever waits for credit
    settings.writeUInt32BE(MAX_WINDOW, 8);
    this.#send(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1'));
    this.#send(frame(FRAME.settings, 0, 0, settings));
    this.#send(windowUpdate(MAX_WINDOW - 65_535));
  }

  static connect(port: number): Promise<H2Client> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new H2Client(socket));
      });
    });
  }

  /** Sends one request whole. `headers` is a block made by `headerBlock`. */
  request(headers: Buffer, body: Buffer, events: StreamEvents): void {
    const id = this.#next;
    this.#next += 2;
    this.#streams.set(id, events);
    this.#send(frame(FRAME.headers, END_HEADERS, id, headers));
    this.#send(frame(FRAME.data, END_STREAM, id, body));
  }

  close(): void {
    this.#socket.destroy();
  }

  #send(bytes: Buffer): void {
    if (this.#out.length === 0) {
      queueMicrotask(() => {
        const out = this.#out;
        this.#out = [];
        this.#socket.write(out.length === 1 ? out[0]! : Buffer.concat(out));
      });
    }
    this.#out.push(bytes);
  }

  #read(chunk: Buffer): void {
    const bytes = this.#pending ? Buffer.concat([this.#pending, chunk]) : chunk;
    let at = 0;
    while (bytes.length - at >= 9) {
      const length = bytes.readUIntBE(at, 3);
      if (bytes.length - at < 9 + length) break;
      this.#frame(bytes[at + 3]!, bytes[at + 4]!, bytes.readUInt32BE(at + 5) & MAX_WINDOW, bytes.subarray(at + 9, at + 9 + length));
      at += 9 + length;
    }
    this.#pending = at === bytes.length ? undefined : bytes.subarray(at);
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): void {
    switch (type) {
      case FRAME.data: {
        this.#credit -= payload.length;
        if (this.#credit < MAX_WINDOW / 2) {
          this.#send(windowUpdate(MAX_WINDOW - this.#credit));
          this.#credit = MAX_WINDOW;
        }
        const body = flags & PADDED ? payload.subarray(1, payload.length - payload[0]!) : payload;
        if (body.length > 0) this.#streams.get(id)?.data(body);
        if (flags & END_STREAM) this.#end(id, true);
        break;
      }
      case FRAME.headers:
        if (flags & END_STREAM) this.#end(id, true);
        break;
      case FRAME.reset:
        this.#end(id, false);
        break;
      case FRAME.settings:
        if (!(flags & ACK)) this.#send(frame(FRAME.settings, ACK, 0, Buffer.alloc(0)));
        break;
      case FRAME.ping:
        if (!(flags & ACK)) this.#send(frame(FRAME.ping, ACK, 0, Buffer.from(payload)));
        break;
      case FRAME.goaway:
        this.#fail();
        break;
    }
  }

  #end(id: number, ok: boolean): void {
    const events = this.#streams.get(id);
    this.#streams.delete(id);
    events?.end(ok);
  }

  #fail(): void {
    for (const id of [...this.#streams.keys()]) this.#end(id, false);
  }
}

function frame(type: number, flags: number, id: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(9 + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(id, 5);
  payload.copy(bytes, 9);
  return bytes;
}

function windowUpdate(increment: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(increment);
  return frame(FRAME.windowUpdate, 0, 0, payload);
}

/** Headers as HPACK literals without indexing (RFC 7541, 6.2.2): no table, so one block serves every stream and connection. */
export function headerBlock(headers: ReadonlyArray<readonly [name: string, value: string]>): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of headers) {
    parts.push(Buffer.from([0]), hpackText(name), hpackText(value));
  }
  return Buffer.concat(parts);
}

function hpackText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>= 7) length.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([...length, rest]), bytes]);
}

/** The header block of one gRPC call (the gRPC-over-HTTP/2 protocol's request headers). */
export function grpcHeaders(port: number, path: string, headers: Readonly<Record<string, string>> = {}): Buffer {
  return headerBlock([
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    [':authority', `127.0.0.1:${port}`],
    ['content-type', 'application/grpc'],
    ['te', 'trailers'],
    ['user-agent', 'facefusion-jobs-bench'],
    ...Object.entries(headers),
  ]);
}

/** One uncompressed gRPC message with its five-byte prefix. */
export function grpcMessage(message: Uint8Array): Buffer {
  const bytes = Buffer.alloc(5 + message.length);
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, 5);
  return bytes;
}

/** Splits a gRPC body into its messages. */
export class GrpcReader {
  #pending: Buffer | undefined;

  /** Calls `take` for each message that is whole by now. */
  push(chunk: Buffer, take: (message: Buffer) => void): void {
    const bytes = this.#pending ? Buffer.concat([this.#pending, chunk]) : chunk;
    let at = 0;
    while (bytes.length - at >= 5) {
      const end = at + 5 + bytes.readUInt32BE(at + 1);
      if (end > bytes.length) break;
      take(bytes.subarray(at + 5, end));
      at = end;
    }
    this.#pending = at === bytes.length ? undefined : Buffer.from(bytes.subarray(at));
  }
}
