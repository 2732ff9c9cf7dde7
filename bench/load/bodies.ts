// Sends large bodies as fast as they are taken, from one buffer that is sent again and again, so that the sender costs next to nothing.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';

export const PIECE_BYTES = 1 << 20;

/** `pieces` buffers of a megabyte: the first begins as a JPEG does. */
export interface Body {
  readonly pieces: number;
  readonly first: Buffer;
  readonly piece: Buffer;
  readonly sha256: string;
}

export function bodyOf(pieces: number): Body {
  const piece = Buffer.alloc(PIECE_BYTES);
  for (let i = 0; i < piece.length; i++) piece[i] = (i * 31 + (i >> 8)) & 0xff;
  const first = Buffer.from(piece);
  first.set(Buffer.from('ffd8ffe000104a464946', 'hex'));
  const hash = createHash('sha256').update(first);
  for (let i = 1; i < pieces; i++) hash.update(piece);
  return { pieces, first, piece, sha256: hash.digest('hex') };
}

export interface Answered {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

/** One HTTP/1.1 request with `before`, the body and `after` as its body. */
export async function sendHttp1(
  port: number,
  { method, path, headers }: { readonly method: string; readonly path: string; readonly headers: Record<string, string> },
  body: Body,
  { before = '', after = '' } = {},
): Promise<Answered> {
  const length = body.pieces * PIECE_BYTES + Buffer.byteLength(before) + Buffer.byteLength(after);
  const request = http.request({ host: '127.0.0.1', port, method, path, headers: { ...headers, 'content-length': length } });
  const response = once(request, 'response') as Promise<[http.IncomingMessage]>;
  if (before !== '') request.write(before);
  for (let i = 0; i < body.pieces; i++) if (!request.write(i === 0 ? body.first : body.piece)) await once(request, 'drain');
  request.end(after);
  const [answer] = await response;
  let text = '';
  for await (const chunk of answer) text += chunk;
  return { status: answer.statusCode!, headers: answer.headers, text };
}

/** One HTTP/2 stream with the pieces, each after what `framed` puts before it, and `before` first. */
export async function sendHttp2(
  port: number,
  headers: http2.OutgoingHttpHeaders,
  body: Body,
  { before, framed }: { readonly before?: Buffer; readonly framed?: (bytes: number) => Buffer } = {},
): Promise<{ readonly headers: http2.IncomingHttpHeaders; readonly trailers: http2.IncomingHttpHeaders; readonly bytes: Buffer }> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  try {
    const stream = session.request({ ':method': 'POST', ...headers });
    let trailers: http2.IncomingHttpHeaders = {};
    stream.on('trailers', (given) => {
      trailers = given;
    });
    const response = once(stream, 'response') as Promise<[http2.IncomingHttpHeaders]>;
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    const ended = once(stream, 'end');
    if (before) stream.write(before);
    const frame = framed?.(PIECE_BYTES);
    for (let i = 0; i < body.pieces; i++) {
      if (frame) stream.write(frame);
      if (!stream.write(i === 0 ? body.first : body.piece)) await once(stream, 'drain');
    }
    stream.end();
    const [given] = await response;
    await ended;
    return { headers: given, trailers, bytes: Buffer.concat(chunks) };
  } finally {
    session.close();
  }
}
