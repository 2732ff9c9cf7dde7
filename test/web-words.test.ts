// The console in Chinese says no violation and no refusal in English: whatever reason the service may give has words.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type CachePolicy, JobRequestSchema, JobStatus } from '../gen/facefusion/jobs/v1/job_pb.js';
import { violationsOf } from '../src/rpc/interceptors.ts';
import { zh } from '../web/src/words/zh.ts';
import { ROOT } from './api/service.ts';

const CHINESE = /\p{Script=Han}/u;

/** Files that say what is wrong with a request that the form makes, or with a file that it uploads. */
const SOURCES = [
  'src/jobs/{parameters,tenants,chains,uploads}.ts',
  'src/media/{hosts,references,s3,uploads,job-results}.ts',
  'src/rpc/{admission,upload-tus}.ts',
  'src/store/outputs{,-s3}.ts',
  'src/app/webhooks.ts',
];
/** Of a batch, which the form does not make; or told of a job that has ended, by `reasons`. */
const ELSEWHERE = new Set(['INPUT_JOB_FAILED', 'OUTPUT_EXISTS', 'OUTPUT_NOT_WRITABLE', 'INPUT_CHANGED', 'MALFORMED']);

test('every reason of a violation that is written in the sources', () => {
  const reasons = new Set<string>();
  for (const path of SOURCES.flatMap((pattern) => globSync(pattern, { cwd: ROOT }))) {
    const text = readFileSync(join(ROOT, path), 'utf8');
    for (const [, reason] of text.matchAll(/(?:reason: |refusal\(\s*|violation\()'([A-Z][A-Z0-9_]+)'/g)) reasons.add(reason!);
  }
  for (const reason of [...reasons]) if (/^INPUT_(HOST|PORT)_/.test(reason)) reasons.add(reason.replace('INPUT_', 'WEBHOOK_'));
  assert.ok(reasons.size > 30, [...reasons].join(' '));
  const missing = [...reasons].filter((reason) => !ELSEWHERE.has(reason) && zh.violations[reason] === undefined);
  assert.deepEqual(missing, []);
});

const VALID = { sourceImages: ['face.jpg'], target: { case: 'targetImage' as const, value: 'target.png' } };
const long = (length: number) => 'x'.repeat(length);
/** A request that breaks one rule of the contract each. */
const WRONG: readonly [field: string, request: MessageInitShape<typeof JobRequestSchema>, says: RegExp][] = [
  ['no target', { sourceImages: ['face.jpg'] }, /必填/],
  ['too many sources', { ...VALID, sourceImages: Array.from({ length: 17 }, () => 'a.jpg') }, /最多 16/],
  ['an empty reference', { ...VALID, sourceImages: [''] }, /不能为空/],
  ['a long reference', { ...VALID, sourceImages: [long(5000)] }, /过长；最多 4096/],
  ['a strange format', { ...VALID, outputFormat: 'MP-4' }, /格式不对/],
  ['a high priority', { ...VALID, priority: 11 }, /允许 -10 至 10/],
  ['no attempt', { ...VALID, maxAttempts: 0 }, /允许 1 至 10/],
  ['no time to run', { ...VALID, runTimeout: { seconds: 0n, nanos: 0 } }, /超出范围/],
  ['too many labels', { ...VALID, labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, ''])) }, /最多 64/],
  ['a label’s name', { ...VALID, labels: { ä: '' } }, /格式不对/],
  ['a label’s value', { ...VALID, labels: { a: long(300) } }, /过长；最多 256/],
  ['an unknown policy', { ...VALID, cache: 99 as CachePolicy }, /不在可选值中/],
  ['a webhook that is no URL', { ...VALID, webhook: { url: 'not a url' } }, /不是有效的网址/],
  ['a webhook without a URL', { ...VALID, webhook: { url: '' } }, /网址/],
  ['a webhook’s long URL', { ...VALID, webhook: { url: `https://a.example/${long(2100)}` } }, /过长；最多 2048/],
  ['a status twice', { ...VALID, webhook: { url: 'https://a.example', statuses: [JobStatus.FAILED, JobStatus.FAILED] } }, /重复/],
  ['no status', { ...VALID, webhook: { url: 'https://a.example', statuses: [JobStatus.UNSPECIFIED] } }, /不在可选值中/],
  ['a long statement', { ...VALID, attestation: long(2001) }, /过长；最多 2000/],
];

describe('every rule of the contract:', () => {
  for (const [what, request, says] of WRONG) {
    test(what, () => {
      const violations = violationsOf(JobRequestSchema, create(JobRequestSchema, request));
      assert.ok(violations.length > 0, 'nothing is wrong with it');
      for (const { reason, description } of violations) {
        const words = zh.violations[reason]?.({ minimum: undefined, maximum: undefined, choices: [], told: description });
        assert.match(words ?? `${reason}: ${description}`, says);
      }
    });
  }
});

test('every reason of a refused call that a page may meet', () => {
  const text = readFileSync(join(ROOT, 'src', 'jobs', 'errors.ts'), 'utf8');
  const reasons = [...text.matchAll(/^ {2}\| '([A-Z_]+)'/gm)].map(([, reason]) => reason!);
  assert.ok(reasons.length > 30);
  // What the page never asks for, or never shows the words of: keys, deliveries, results over REST, what workers alone meet.
  const never =
    /^(CREDENTIALS_MISSING|IDENTITY_UNAVAILABLE|KEYS_OFF|KEY_|AUDIT_|DELIVERY_|RESULT_NOT_|RESULT_CHANGED|INPUT_NOT_|IDEMPOTENCY_|PROVENANCE_|TENANT_NOT_SERVED|LEASE_LOST|UPLOAD_CONFLICT)/;
  assert.deepEqual(
    reasons.filter((reason) => !never.test(reason) && !CHINESE.test(zh.errors[reason] ?? '')),
    [],
  );
});
