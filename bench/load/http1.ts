// A keep-alive HTTP/1.1 client over one raw socket, one request at a time, no pipelining: as cheap as Node allows, so that a server is the
// slower side. It reads what a response needs to be framed (RFC 9112, 6) and no other header.
import { connect, type Socket } from 'node:net';

export interface Response {
  readonly status: number;
  /** Where `collect` was asked for; empty otherwise. */
  readonly body: string;
}

const HEAD_END = Buffer.from('\r\n\r\n');

/** The bytes of a request. */
export function requestBytes(method: string, path: string, port: number, headers: Readonly<Record<string, string>>, body = ''): Buffer {
  const lines = [`${method} ${path} HTTP/1.1`, `host: 127.0.0.1:${port}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  if (body !== '') lines.push('content-type: application/json', `content-length: ${Buffer.byteLength(body)}`);
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`);
}

export class Http1Client {
  readonly #socket: Socket;
  #pending: Buffer | undefined;
  #waiting: { take(response: Response): void; fail(error: Error): void; collect: boolean } | undefined;
  #closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#read(chunk));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the server closed the connection')));
  }

  static connect(port: number): Promise<Http1Client> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Http1Client(socket));
      });
    });
  }

  send(request: Buffer, collect = false): Promise<Response> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new Error('the connection is closed'));
      this.#waiting = { take: resolve, fail: reject, collect };
      this.#socket.write(request);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    const bytes = this.#pending ? Buffer.concat([this.#pending, chunk]) : chunk;
    const response = parse(bytes, this.#waiting?.collect ?? false);
    if (response === undefined) {
      this.#pending = bytes;
      return;
    }
    this.#pending = undefined;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.take(response);
  }

  #fail(error: Error): void {
    this.#closed = true;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.fail(error);
  }
}

/** The response when `bytes` hold the whole of it. */
function parse(bytes: Buffer, collect: boolean): Response | undefined {
  const headEnd = bytes.indexOf(HEAD_END);
  if (headEnd < 0) return undefined;
  const head = bytes.toString('latin1', 0, headEnd).toLowerCase();
  const status = Number(head.slice(9, 12));
  const start = headEnd + 4;
  const lengthAt = head.indexOf('\r\ncontent-length:');
  if (lengthAt >= 0) {
    const end = start + Number.parseInt(head.slice(lengthAt + 17), 10);
    return bytes.length < end ? undefined : { status, body: collect ? bytes.toString('utf8', start, end) : '' };
  }
  if (!head.includes('\r\ntransfer-encoding: chunked')) return { status, body: '' };
  const reader = new ChunkReader();
  let body = '';
  const ended = reader.push(bytes.subarray(start), (data) => {
    if (collect) body += data.toString();
  });
  return ended ? { status, body } : undefined;
}

/** Takes the chunked transfer coding off (RFC 9112, 7.1). */
export class ChunkReader {
  #pending: Buffer | undefined;

  /** Calls `take` for each whole chunk; true after the last one. */
  push(bytes: Buffer, take: (data: Buffer) => void): boolean {
    const all = this.#pending ? Buffer.concat([this.#pending, bytes]) : bytes;
    let at = 0;
    for (;;) {
      const lineEnd = all.indexOf('\r\n', at, 'latin1');
      if (lineEnd < 0) break;
      const size = Number.parseInt(all.toString('latin1', at, lineEnd), 16);
      const end = lineEnd + 2 + size + 2;
      if (end > all.length) break;
      if (size === 0) return true;
      take(all.subarray(lineEnd + 2, end - 2));
      at = end;
    }
    this.#pending = at === all.length ? undefined : Buffer.from(all.subarray(at));
    return false;
  }
}
