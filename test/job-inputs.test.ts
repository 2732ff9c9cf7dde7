// A job's inputs given out again: byte for byte, only what the service holds, and nothing of what was refused or purged.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { type Service, startService } from './api/service.ts';
import { reached, submit } from './web/browser.ts';

describe('the inputs of a job', () => {
  let service: Service;
  let jobs: Client<typeof JobService>;
  before(async () => {
    service = await startService();
    jobs = createClient(JobService, createConnectTransport({ baseUrl: service.baseUrl, httpVersion: '1.1' }));
  });
  after(() => service?.[Symbol.asyncDispose]());

  const read = async (jobId: string, input = '') => {
    const chunks: Uint8Array[] = [];
    let facts: { mediaType: string; bytes: bigint } | undefined;
    for await (const { part } of jobs.getInput({ jobId, input })) {
      if (part.case === 'facts') facts = part.value;
      else if (part.case === 'chunk') chunks.push(part.value);
    }
    return { facts, bytes: Buffer.concat(chunks) };
  };
  const refusal = async (jobId: string, input?: string) => {
    const error = await read(jobId, input).then(
      () => assert.fail('it was given out'),
      (caught: unknown) => ConnectError.from(caught),
    );
    return Code[error.code];
  };

  test('come byte for byte with their type, in pieces', async () => {
    const picture = Buffer.concat([Buffer.from('ffd8ffe000104a46494600010100000100010000', 'hex'), randomBytes(1_500_000)]);
    await writeFile(join(service.inputDir, 'large.jpg'), picture);
    const id = await submit(service, { source_images: ['face.jpg', 'large.jpg'] });
    const large = await read(id, 'source_images[1]');
    assert.deepEqual([large.facts?.mediaType, Number(large.facts?.bytes)], ['image/jpeg', picture.length]);
    assert.ok(large.bytes.equals(picture));
    assert.equal((await read(id)).facts?.mediaType, 'image/png');
    assert.deepEqual(await read(id, 'target'), await read(id));
  });

  test('of which there is none, or that lies outside by now, are not found', async () => {
    await writeFile(join(service.inputDir, 'moved.png'), 'a');
    const id = await submit(service, { target_image: 'moved.png' });
    for (const input of ['source_images[1]', 'source_audio', 'source_images[99]'])
      assert.equal(await refusal(id, input), 'NotFound', input);
    for (const input of ['source_images[-1]', '../etc/passwd', 'target_image', 'labels'])
      assert.equal(await refusal(id, input), 'InvalidArgument', input);
    await rm(join(service.inputDir, 'moved.png'));
    assert.equal(await refusal(id), 'NotFound');
    await symlink('/etc/passwd', join(service.inputDir, 'moved.png'));
    assert.equal(await refusal(id), 'NotFound');
    assert.equal(await refusal('job_20250405_aaaaaaaaaaaa'), 'NotFound');
  });

  test('are not shown when they were refused or purged', async () => {
    const refused = await submit(service, { parameters: { refuse: 'not this' } });
    await reached(service, refused, 'refused');
    assert.equal(await refusal(refused), 'FailedPrecondition');
    const purged = await submit(service, {});
    await reached(service, purged, 'succeeded');
    assert.ok((await read(purged)).bytes.length > 0);
    await jobs.purge({ jobId: purged });
    assert.equal(await refusal(purged), 'NotFound');
  });

  test('of an upload are there as long as the upload', async () => {
    const made = await fetch(`${service.baseUrl}/api/v1/tus`, {
      method: 'POST',
      headers: { 'tus-resumable': '1.0.0', 'upload-length': '24', 'content-type': 'application/offset+octet-stream' },
      body: Buffer.from('000000186674797069736f6d0000020069736f6d69736f32', 'hex'),
    });
    const id = await submit(service, { target_image: undefined, target_video: made.headers.get('upload-uri') });
    const { facts, bytes } = await read(id);
    assert.deepEqual([facts?.mediaType, bytes.length], ['video/mp4', 24]);
  });
});
