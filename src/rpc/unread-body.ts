// Request bodies that go to a library as web streams, and what becomes of a body that was answered before it was read, such as a file that is refused
// by its first bytes. Always true here: the answer arrives, a connection that can go on does, and nobody goes on sending for nothing.
import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** A client that has not looked for its answer after so much more is cut off. Closed at once, it would never see it: its system drops it. */
const LINGER_BYTES = 16 * 1024 * 1024;
const LINGER_MS = 5000;

/** The body as a web stream. Unlike Node's own it leaves the request alone when nobody reads on, so that it can be answered. */
export function webBody(raw: Readable): ReadableStream<Uint8Array> {
  let wake = () => {};
  let broken: unknown;
  const news = () => wake();
  raw.on('readable', news);
  raw.once('end', news);
  raw.once('close', news);
  raw.once('error', (error) => {
    broken = error;
    wake();
  });
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        for (;;) {
          const chunk = raw.read() as Buffer | null;
          if (chunk !== null) return controller.enqueue(chunk);
          if (raw.readableEnded) return controller.close();
          if (raw.destroyed) throw broken ?? new Error('the connection broke before the end of the body');
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      },
    },
    { highWaterMark: 0 },
  );
}

/** As it comes, for whoever may leave before its end: unlike Node's own iterator, it leaves the request alone then, so that it can be answered. */
export function streamBody(request: FastifyRequest, reply: FastifyReply): AsyncIterable<Uint8Array> {
  leaveRest(request, reply);
  return request.raw.iterator({ destroyOnReturn: false });
}

/** To be called before the body is read. */
export function leaveRest({ raw }: FastifyRequest, reply: FastifyReply): void {
  const { stream } = raw as typeof raw & { stream?: ServerHttp2Stream };
  if (stream) {
    // RFC 9113, section 8.1: the answer is whole, and the rest is not wanted.
    stream.once('finish', () => raw.readableEnded || stream.close(constants.NGHTTP2_NO_ERROR));
    return;
  }
  reply.raw.once('finish', () => {
    if (raw.readableEnded || raw.destroyed) return;
    const { socket } = raw;
    const cut = () => socket.destroy();
    const timer = setTimeout(cut, LINGER_MS).unref();
    const over = () => {
      clearTimeout(timer);
      // The connection goes on, and carries many requests.
      socket.off('close', over);
    };
    let bytes = 0;
    raw.unpipe();
    raw.removeAllListeners('readable');
    raw.removeAllListeners('data');
    raw.on('data', (chunk: Uint8Array) => {
      bytes += chunk.length;
      if (bytes > LINGER_BYTES) cut();
    });
    raw.once('end', over);
    socket.once('close', over);
    raw.resume();
  });
}
