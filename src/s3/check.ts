// Whether a place in a store can be used for results: one trial object is written, read and deleted. Answers sentences for operators.
import { randomUUID } from 'node:crypto';
import { DeleteObjectCommand, GetObjectCommand, HeadObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { openClient, type S3Connection } from './client.ts';
import type { S3Place } from './names.ts';
import { problemOf } from './problems.ts';

const CHECK_MS = 15_000;
const RIGHTS = 's3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload, s3:ListBucket and s3:ListBucketMultipartUploads';

export interface PlaceProblem {
  /** As it goes on after a colon. */
  readonly what: string;
  readonly fix: string;
}

/** What keeps `place`, whose key is a prefix, from being used; undefined: nothing. */
export async function problemOfPlace(connection: S3Connection, place: S3Place): Promise<PlaceProblem | undefined> {
  const client = openClient(connection, CHECK_MS);
  try {
    await trial(client, place);
    return undefined;
  } catch (error) {
    return explain(error, connection, place);
  } finally {
    client.destroy();
  }
}

async function trial(client: S3Client, { bucket, key: prefix }: S3Place): Promise<void> {
  const object = { Bucket: bucket, Key: `${prefix}ffjobs-check-${randomUUID()}` };
  const abortSignal = AbortSignal.timeout(CHECK_MS);
  const text = 'facefusion-jobs looks whether it can write here\n';
  await client.send(new PutObjectCommand({ ...object, Body: text }), { abortSignal });
  try {
    const { Body: body } = await client.send(new GetObjectCommand(object), { abortSignal });
    if ((await body?.transformToString()) !== text) throw new Error('it does not give back what it was given');
  } finally {
    await client.send(new DeleteObjectCommand(object), { abortSignal });
  }
  // Without the right to list, a store says of what is not there that it is forbidden.
  await client.send(new HeadObjectCommand(object), { abortSignal }).catch((error: unknown) => {
    if (problemOf(error) !== 'not_found') throw error;
  });
}

function explain(error: unknown, { endpoint, region }: S3Connection, { bucket }: S3Place): PlaceProblem {
  const { name, code, message } = error as NodeJS.ErrnoException;
  const where = endpoint ?? `S3 in ${region}`;
  const slow = { what: `the store at ${where} does not answer within ${CHECK_MS / 1000} s`, fix: 'look at the address and at the network' };
  switch (problemOf(error)) {
    case 'no_bucket':
    case 'not_found':
      return { what: `there is no bucket '${bucket}' at ${where}`, fix: 'make it, or correct the name' };
    case 'forbidden':
      return { what: `the store at ${where} does not let the service in (${name})`, fix: `give its credentials ${RIGHTS} on '${bucket}'` };
    case 'credentials':
      return name === 'CredentialsProviderError'
        ? {
            what: 'no credentials were found',
            fix: 'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role or a profile',
          }
        : {
            what: `the store at ${where} does not take the credentials (${name})`,
            fix: 'correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
          };
    case 'region':
      return { what: `the bucket '${bucket}' is not in ${region} (${name})`, fix: 'set FFJOBS_S3_REGION to where it is' };
    case 'timeout':
      return slow;
    case 'unreachable':
      return { what: `the store at ${where} cannot be reached (${code ?? name})`, fix: 'look at the address, and whether it runs' };
    default:
      if (/abort|timeout/i.test(name)) return slow;
      return {
        what: `the store at ${where} answers in a way that is not understood (${message.split('\n')[0]})`,
        fix: 'look whether it is S3, or speaks its protocol',
      };
  }
}
