// One object read from its store: in order, and over transfers that break. Holds nothing once its reader has left.
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { GetObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { bytesPassed } from '../young-garbage.ts';
import type { S3Place } from './names.ts';
import { problemOf } from './problems.ts';

/** Requests for the rest of an object whose bytes stop coming. */
const TRIES = 4;

/** Bytes from `start` to `end` inclusive; nothing lies behind the end. A transfer that breaks goes on where it was. Throws the SDK's errors. */
export async function* readObject(
  client: S3Client,
  { bucket, key }: S3Place,
  range?: { readonly start: number; readonly end: number },
): AsyncGenerator<Uint8Array> {
  let at = range?.start ?? 0;
  for (let tries = 1; ; tries++) {
    const from = at;
    const leaving = new AbortController();
    try {
      const Range = range || at > 0 ? `bytes=${at}-${range?.end ?? ''}` : undefined;
      const { Body: body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key, Range }), { abortSignal: leaving.signal });
      for await (const chunk of body as unknown as AsyncIterable<Buffer>) {
        at += chunk.length;
        bytesPassed(chunk.length);
        yield chunk;
      }
      return;
    } catch (error) {
      const problem = problemOf(error);
      if (problem === 'range') return;
      if (problem === 'not_found' || at === from || tries >= TRIES) throw error;
    } finally {
      // Whoever leaves early leaves the rest unread.
      leaving.abort();
    }
  }
}

/** Writes bytes to `toPath`, which must not be there, and answers their SHA-256. Leaves nothing behind when it throws. */
export async function saveDigested(
  bytes: AsyncIterable<Uint8Array>,
  toPath: string,
  signal: AbortSignal,
  progress?: (done: number) => void,
): Promise<string> {
  const hash = createHash('sha256');
  let done = 0;
  const counted = async function* (source: AsyncIterable<Uint8Array>) {
    for await (const chunk of source) {
      hash.update(chunk);
      done += chunk.length;
      progress?.(done);
      yield chunk;
    }
  };
  try {
    await pipeline(bytes, counted, createWriteStream(toPath, { flags: 'wx' }), { signal });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') await rm(toPath, { force: true });
    signal.throwIfAborted();
    throw error;
  }
  return hash.digest('hex');
}
