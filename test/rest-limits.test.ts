// How much a request may hold before it is parsed: never less than a valid one, and counted the same in JSON and on the wire.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toBinary, toJsonString } from '@bufbuild/protobuf';
import { SubmitBatchRequestSchema, SubmitRequestSchema } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { hasMoreElements, hasMoreFields, mostElements } from '../src/rest/limits.ts';

const submit = (labels: number, parameters: number) =>
  create(SubmitRequestSchema, {
    job: {
      sourceImages: Array(16).fill('a.jpg'),
      target: { case: 'targetImage', value: 'b.jpg' },
      labels: Object.fromEntries(Array.from({ length: labels }, (_, i) => [`l${i}`, 'v'])),
      parameters: Object.fromEntries(Array.from({ length: parameters }, (_, i) => [`p${i}`, [i, i]])),
    },
  });
const over = (message: ReturnType<typeof submit>) => {
  const most = mostElements(SubmitRequestSchema);
  const json = hasMoreElements(toJsonString(SubmitRequestSchema, message), most);
  assert.equal(hasMoreFields(SubmitRequestSchema, toBinary(SubmitRequestSchema, message), most), json);
  return json;
};

test('a job is bounded, by more than any valid one has', () => {
  const most = mostElements(SubmitRequestSchema);
  assert.ok(most < 100_000, `${most}`);
  assert.equal(over(submit(64, 1000)), false);
  assert.equal(over(submit(100_000, 0)), true);
});

test('a batch has room for its jobs', () => {
  const most = mostElements(SubmitBatchRequestSchema);
  assert.ok(most > 1000 * 100, `${most}`);
  const jobs = Array.from({ length: 1000 }, () => ({ job: submit(64, 3).job! }));
  const batch = create(SubmitBatchRequestSchema, { jobs });
  assert.equal(hasMoreFields(SubmitBatchRequestSchema, toBinary(SubmitBatchRequestSchema, batch), most), false);
});

test('what is malformed is somebody else’s to refuse', () => {
  assert.equal(hasMoreFields(SubmitRequestSchema, Buffer.alloc(100_000, 0xff), 10), false);
});
