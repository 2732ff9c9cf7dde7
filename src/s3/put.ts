// One object written whole or not at all. Owns the parts of what it uploads: when it fails they are taken back, and what the end of a process left
// behind is found by `abortAbandoned`. Memory is bounded by the parts under way, whatever the object's size.
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandInput,
  type ListMultipartUploadsCommandOutput,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import type { S3Place } from './names.ts';
import { problemOf } from './problems.ts';

export interface ObjectPut {
  readonly place: S3Place;
  /** Exactly `bytes` bytes; else nothing is written. */
  readonly body: AsyncIterable<Uint8Array>;
  readonly bytes: number;
  readonly contentType: string;
  readonly contentDisposition?: string;
  /** Kept with the object and answered by HEAD. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Leaves an object that is there as it is. */
  readonly onlyIfAbsent?: boolean;
  readonly signal?: AbortSignal;
  /** Told after each part. */
  readonly progress?: (done: number) => void;
  /** At least 5 MiB on AWS; raised where the object would have too many parts. */
  readonly partBytes?: number;
  /** Parts under way at once. */
  readonly parallel?: number;
}

export const PART_BYTES = 8 * 1024 * 1024;
const PARALLEL = 4;
const MAX_PARTS = 10_000;
/** For taking parts back, which has to be tried though its caller has left. */
const ABORT_MS = 30_000;

/** 'exists': with `onlyIfAbsent`, there was one. Throws the SDK's errors, or the signal's reason. */
export async function putObject(client: S3Client, put: ObjectPut): Promise<'written' | 'exists'> {
  put.signal?.throwIfAborted();
  const spare: Buffer[] = [];
  const parts = partsOf(put, spare);
  try {
    if (put.bytes <= (put.partBytes ?? PART_BYTES)) return await putWhole(client, put, parts);
    return await putInParts(client, put, parts, spare);
  } catch (error) {
    // The SDK's own abort error says less.
    put.signal?.throwIfAborted();
    throw error;
  } finally {
    await parts.return(undefined);
  }
}

async function putWhole(client: S3Client, put: ObjectPut, parts: AsyncGenerator<Buffer>): Promise<'written' | 'exists'> {
  const { value } = await parts.next();
  await parts.next();
  const { ContentType, ContentDisposition, Metadata, ...place } = headersOf(put);
  const send = (condition: { IfNoneMatch?: string }) =>
    client.send(new PutObjectCommand({ ...place, ContentType, ContentDisposition, Metadata, ...condition, Body: value as Buffer }), {
      abortSignal: put.signal,
    });
  const outcome = await conditionally(client, put, send);
  if (outcome === 'written') put.progress?.(put.bytes);
  return outcome;
}

/** A part's buffer is used again when it has been sent: the collector would let far more of them stand than are needed. */
async function putInParts(client: S3Client, put: ObjectPut, parts: AsyncGenerator<Buffer>, spare: Buffer[]): Promise<'written' | 'exists'> {
  const place = { Bucket: put.place.bucket, Key: put.place.key };
  const leaving = new AbortController();
  const signal = put.signal ? AbortSignal.any([put.signal, leaving.signal]) : leaving.signal;
  const { UploadId } = await client.send(new CreateMultipartUploadCommand(headersOf(put)), { abortSignal: signal });
  const upload = { ...place, UploadId };
  const done: { PartNumber: number; ETag: string | undefined }[] = [];
  const underWay = new Set<Promise<void>>();
  let bytes = 0;
  let failed: { readonly error: unknown } | undefined;
  const send = async (PartNumber: number, Body: Buffer) => {
    const { ETag } = await client.send(new UploadPartCommand({ ...upload, PartNumber, Body }), { abortSignal: signal });
    done.push({ PartNumber, ETag });
    bytes += Body.length;
    spare.push(Body);
    put.progress?.(bytes);
  };
  try {
    let number = 0;
    for await (const part of parts) {
      const sent = send(++number, part)
        .catch((error: unknown) => {
          failed ??= { error };
          leaving.abort(error);
        })
        .finally(() => underWay.delete(sent));
      underWay.add(sent);
      if (underWay.size >= (put.parallel ?? PARALLEL)) await Promise.race(underWay);
      if (failed) throw failed.error;
    }
    await Promise.all(underWay);
    if (failed) throw failed.error;
    const MultipartUpload = { Parts: done.sort((a, b) => a.PartNumber - b.PartNumber) };
    const complete = (condition: { IfNoneMatch?: string }) =>
      client.send(new CompleteMultipartUploadCommand({ ...upload, ...condition, MultipartUpload }), { abortSignal: signal });
    const outcome = await conditionally(client, put, complete);
    if (outcome === 'exists') await abort(client, upload);
    return outcome;
  } catch (error) {
    leaving.abort(error);
    // A part that arrives after the abort would stay.
    await Promise.all(underWay);
    await abort(client, upload).catch(() => {});
    throw failed?.error ?? error;
  }
}

/** Some servers know no conditional writes: then a look before the write has to do. */
async function conditionally(
  client: S3Client,
  { onlyIfAbsent, place, signal }: ObjectPut,
  send: (condition: { IfNoneMatch?: string }) => Promise<unknown>,
): Promise<'written' | 'exists'> {
  try {
    await send(onlyIfAbsent ? { IfNoneMatch: '*' } : {});
    return 'written';
  } catch (error) {
    const problem = onlyIfAbsent ? problemOf(error) : undefined;
    if (problem === 'changed') return 'exists';
    if (problem !== 'unsupported') throw error;
  }
  const there = await client
    .send(new HeadObjectCommand({ Bucket: place.bucket, Key: place.key }), { abortSignal: signal })
    .then(() => true)
    .catch((error: unknown) => {
      if (problemOf(error) === 'not_found') return false;
      throw error;
    });
  if (there) return 'exists';
  await send({});
  return 'written';
}

function headersOf({ place, contentType, contentDisposition, metadata }: ObjectPut) {
  return {
    Bucket: place.bucket,
    Key: place.key,
    ContentType: contentType,
    ContentDisposition: contentDisposition,
    Metadata: metadata && { ...metadata },
  };
}

/** The body cut into parts, each a buffer of its own, of those that are to spare where one fits; checks its length at the end. */
async function* partsOf({ body, bytes, partBytes = PART_BYTES }: ObjectPut, spare: Buffer[]): AsyncGenerator<Buffer, undefined> {
  const size = Math.max(partBytes, Math.ceil(bytes / MAX_PARTS));
  const bufferOf = (wanted: number) => spare.pop()?.subarray(0, wanted) ?? Buffer.allocUnsafeSlow(wanted);
  let left = bytes;
  let part = bufferOf(Math.min(size, left));
  let filled = 0;
  for await (const chunk of body) {
    if (chunk.length > left) throw lengthChanged(bytes);
    left -= chunk.length;
    for (let at = 0; at < chunk.length; ) {
      const taken = Math.min(chunk.length - at, part.length - filled);
      part.set(chunk.subarray(at, at + taken), filled);
      at += taken;
      filled += taken;
      if (filled < part.length) continue;
      yield part;
      part = bufferOf(Math.min(size, left + chunk.length - at));
      filled = 0;
    }
  }
  if (left > 0) throw lengthChanged(bytes);
  if (bytes === 0) yield part;
}

function lengthChanged(bytes: number): Error {
  return new Error(`what is to be stored does not have the ${bytes} bytes that it had a moment ago`);
}

async function abort(client: S3Client, upload: { Bucket: string; Key: string; UploadId: string | undefined }): Promise<void> {
  await client.send(new AbortMultipartUploadCommand(upload), { abortSignal: AbortSignal.timeout(ABORT_MS) }).catch((error: unknown) => {
    if (problemOf(error) !== 'not_found') throw error;
  });
}

/** Takes back uploads under a prefix that were begun before `beforeMs` and not ended; answers how many. */
export async function abortAbandoned(client: S3Client, bucket: string, prefix: string, beforeMs: number): Promise<number> {
  let aborted = 0;
  let marker: Pick<ListMultipartUploadsCommandInput, 'KeyMarker' | 'UploadIdMarker'> | undefined = {};
  while (marker) {
    const page: ListMultipartUploadsCommandOutput = await client.send(
      new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix, ...marker }),
    );
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Key === undefined || !Key.startsWith(prefix) || (Initiated?.getTime() ?? 0) >= beforeMs) continue;
      await abort(client, { Bucket: bucket, Key, UploadId });
      aborted++;
    }
    marker = page.IsTruncated ? { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker } : undefined;
  }
  return aborted;
}
