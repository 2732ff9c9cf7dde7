// The golden pair of the contract, to the letter: the request is taken as it stands, and a job reads as it says.
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, createRegistry } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { file_facefusion_jobs_v1_job, JobSchema, JobStatus, JobStep } from '../gen/facefusion/jobs/v1/job_pb.js';
import type { MediaResolver } from '../src/media/references.ts';
import { createJsonWriter } from '../src/rest/json-writer.ts';
import { restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { startService } from './api/service.ts';
import { FACE, makeClip } from './fixtures/media/portraits.ts';

const REQUEST = `{"source_images": ["https://cdn.example.com/images/person_a.jpg"], "target_video": "s3://my-bucket/videos/interview.mp4", "output_format": "mp4",
 "parameters": {"face_detector": "retinaface", "reference_face_position": 0, "processors": ["face_swapper", "face_enhancer"],
                "output_quality": 95, "fps": 30, "temp_directory": "/tmp/facefusion"}}`;

const RESPONSE = `{"job_id":"job_20250405_abc123...","status":"processing","progress":72,"step":"encoding_output","estimated_finish_time":"2025-04-05T14:23:10Z",
 "created_at":"2025-04-05T14:15:00Z","updated_at":"2025-04-05T14:22:30Z","result_url":null,"error_message":null}`;

test('a running job begins with the nine fields of the golden answer, in its order and its words', () => {
  const job = create(JobSchema, {
    jobId: 'job_20250405_abc123...',
    status: JobStatus.PROCESSING,
    progress: 72,
    step: JobStep.ENCODING_OUTPUT,
    estimatedFinishTime: timestampFromDate(new Date('2025-04-05T14:23:10Z')),
    createdAt: timestampFromDate(new Date('2025-04-05T14:15:00Z')),
    updatedAt: timestampFromDate(new Date('2025-04-05T14:22:30Z')),
  });
  const text = createJsonWriter(createRegistry(file_facefusion_jobs_v1_job)).message(JobSchema)(job);
  const golden = RESPONSE.replaceAll('\n ', '');
  assert.equal(text.slice(0, golden.length - 1), golden.slice(0, -1));
});

test('the golden request is accepted as it stands and runs to a result', async () => {
  // Sources elsewhere are not part of this version; here they stand for files of ours.
  const elsewhere: MediaResolver = {
    schemes: ['https', 's3'],
    check: async () => undefined,
    async fetch(reference, toPath) {
      await copyFile(reference.endsWith('.jpg') ? FACE : join(service.dir, 'clip.mp4'), toPath);
      return undefined;
    },
  };
  await using service = await startService({ ENGINE: 'classical' }, { resolvers: [elsewhere] });
  await makeClip(service.dir, 1);
  const response = await fetch(new URL('/api/v1/jobs', service.baseUrl), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: REQUEST,
  });
  const text = await response.text();
  assert.equal(response.status, 202, text);
  const job = JSON.parse(text) as Record<string, unknown>;
  assert.equal(response.headers.get('location'), `/api/v1/jobs/${job.job_id}`);
  assert.ok(response.headers.has('retry-after'));
  assert.deepEqual(Object.keys(job).slice(0, 9), Object.keys(JSON.parse(RESPONSE) as object));
  const warnings = job.warnings as string[];
  assert.ok(warnings.some((one) => one.includes('temp_directory')));
  assert.ok(warnings.some((one) => one.includes('face_detector')));
  const client = restClient(service.baseUrl);
  const events = await untilTerminal(client, job.job_id as string);
  assert.ok(events.some((event) => event.kind === 'progress'));
  const done = await client.get(job.job_id as string);
  assert.equal(done.status, 'succeeded', JSON.stringify(done.error));
  const result = done.result as Record<string, unknown>;
  assert.equal(result.media_type, 'video/mp4');
  // A clip of 25 frames a second became one of 30.
  assert.equal(Math.round((result.frames as number) / (result.duration_seconds as number)), 30);
});
