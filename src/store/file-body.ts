// A file's bytes as the body of an answer. Always true here: at most two buffers stand for an answer, however slow its client is, and each is read into
// again only when what it held has been handed to the system: a fresh one for every piece, as streams have it, costs more than all else.
import type { FileHandle } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';

const PIECE_BYTES = 128 * 1024;

/**
 * Writes `bytes` bytes from `start` on to an answer whose head is set, and ends it; or stops where its client leaves. Rejects when the file cannot be
 * read or is shorter: the answer is to be destroyed then.
 */
export async function sendBody(response: ServerResponse, file: FileHandle, start: number, bytes: number): Promise<void> {
  // Of HTTP/1.1 the socket tells: an answer that waits behind another one on its connection hears nothing.
  const connection = response.req.httpVersionMajor < 2 ? response.req.socket : response;
  let left = connection.destroyed;
  const sending = new Set<() => void>();
  const onClose = () => {
    left = true;
    for (const settle of sending) settle();
  };
  const write = (piece: Uint8Array) =>
    new Promise<void>((resolve) => {
      sending.add(resolve);
      response.write(piece, (error) => {
        if (error) left = true;
        sending.delete(resolve);
        resolve();
      });
    });
  connection.once('close', onClose);
  try {
    const buffers = [0, 1].map(() => ({ bytes: Buffer.alloc(0), free: Promise.resolve() }));
    for (let done = 0, turn = 0; done < bytes; turn = 1 - turn) {
      const buffer = buffers[turn]!;
      await buffer.free;
      if (left) return;
      if (buffer.bytes.length === 0) buffer.bytes = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, bytes - done));
      const { bytesRead } = await file.read(buffer.bytes, 0, Math.min(buffer.bytes.length, bytes - done), start + done);
      if (bytesRead === 0) throw new Error(`a file ends after ${start + done} bytes, before its time`);
      done += bytesRead;
      buffer.free = write(buffer.bytes.subarray(0, bytesRead));
    }
    response.end();
    await Promise.all(buffers.map(({ free }) => free));
  } finally {
    connection.off('close', onClose);
  }
}
