// From a caller's request to a job that may be submitted: contract rules, references and parameters, every violation in one answer.
// Nothing is kept here and nothing is fetched.
import { createHash } from 'node:crypto';
import { clone, type JsonObject, type JsonValue, toJson } from '@bufbuild/protobuf';
import { durationMs } from '@bufbuild/protobuf/wkt';
import { type JobRequest, JobRequestSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { type SubmitBatchRequest, SubmitBatchRequestSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import type { Engine } from '../jobs/engine.ts';
import type { Violation } from '../jobs/errors.ts';
import { resolveParameters, type TargetKind } from '../jobs/parameters.ts';
import { deniedValues, type TenantPolicy } from '../jobs/tenants.ts';
import { violationsOf } from './interceptors.ts';

/** Looks at a tenant's media reference without fetching it; `field` is its path in the request. */
export type CheckReference = (reference: string, field: string, tenant: string) => Promise<Violation | undefined>;

/** What the operator allows. */
export interface AdmissionRules {
  readonly policyOf: (tenant: string) => TenantPolicy;
  readonly checkReference: CheckReference;
  /** What is wrong with a place that a result is to be copied to; undefined: nothing. */
  readonly checkOutput: (uri: string, tenant: string) => Pick<Violation, 'reason' | 'description'> | undefined;
  /** What is wrong with the receiver of a webhook; undefined: nothing. */
  readonly checkWebhook: (url: string, tenant: string) => Pick<Violation, 'reason' | 'description'> | undefined;
  /** Longest that a request may have its result kept. */
  readonly maxRetentionMs: number;
}

export interface Admission {
  readonly violations: readonly Violation[];
  readonly warnings: readonly string[];
  readonly parameters: JsonObject;
  readonly processors: readonly string[];
  readonly target: TargetKind;
}

const ATTESTATION_REQUIRED: Violation = {
  field: 'attestation',
  reason: 'REQUIRED',
  description: 'say here that the people who can be recognised agreed to this; the statement is kept with the job',
};

/** As the contract has it. */
const MAX_SOURCES = 16;

/**
 * Checks a request against the contract, the references it names, the engine it will run on and what its tenant may use. Fields are relative to
 * the request.
 */
export async function admit(request: JobRequest, tenant: string, engine: Engine, rules: AdmissionRules): Promise<Admission> {
  const policy = rules.policyOf(tenant);
  const violations = violationsOf(JobRequestSchema, request);
  const target: TargetKind = request.target.case === 'targetVideo' ? 'video' : 'image';
  const resolved = resolveParameters(request.parameters ?? {}, target, engine);
  if (policy.denied.size > 0) {
    violations.push(...deniedValues({ ...resolved.parameters, processors: resolved.processors }, policy.denied, engine.capabilities));
  }
  if (policy.attestation && !request.attestation?.trim()) violations.push(ATTESTATION_REQUIRED);
  violations.push(...resolved.violations, ...needs(request, resolved.processors, engine), ...format(request, target, engine));
  if (request.engine !== undefined && request.engine !== engine.name) {
    const description = `there is no engine '${request.engine}' here; allowed: ${engine.name}`;
    violations.push({ field: 'engine', reason: 'NOT_A_CHOICE', description });
  }
  // Each is a file that is opened: those that the contract refuses for their number alone are not looked at.
  const checks: Promise<Violation | undefined>[] = [];
  const check = (reference: string | undefined, field: string) => {
    if (reference) checks.push(rules.checkReference(reference, field, tenant));
  };
  for (const [i, reference] of request.sourceImages.slice(0, MAX_SOURCES).entries()) check(reference, `source_images[${i}]`);
  check(request.sourceAudio, 'source_audio');
  check(request.target.value, `target_${target}`);
  for (const one of await Promise.all(checks)) if (one) violations.push(one);
  if (request.outputUri) {
    const wrong = rules.checkOutput(request.outputUri, tenant);
    if (wrong) violations.push({ field: 'output_uri', ...wrong });
  }
  if (request.webhook?.url) {
    const wrong = rules.checkWebhook(request.webhook.url, tenant);
    if (wrong) violations.push({ field: 'webhook.url', ...wrong });
  }
  if (request.retention && durationMs(request.retention) > rules.maxRetentionMs) {
    const description = `a result is kept for at most ${rules.maxRetentionMs / 1000} s here`;
    violations.push({ field: 'retention', reason: 'OUT_OF_RANGE', description });
  }
  return { violations, warnings: resolved.warnings, parameters: resolved.parameters, processors: resolved.processors, target };
}

function needs(request: JobRequest, processors: readonly string[], engine: Engine): Violation[] {
  const chosen = engine.capabilities.processors.filter((one) => processors.includes(one.name));
  const face = chosen.find((one) => one.needsSourceImage);
  const sound = chosen.find((one) => one.needsSourceAudio);
  const violations: Violation[] = [];
  if (face && request.sourceImages.length === 0) {
    violations.push({
      field: 'source_images',
      reason: 'REQUIRED',
      description: `${face.name} needs at least one picture of the face to put in`,
    });
  }
  if (sound && request.sourceAudio === undefined) {
    violations.push({ field: 'source_audio', reason: 'REQUIRED', description: `${sound.name} needs a sound file` });
  }
  return violations;
}

function format(request: JobRequest, target: TargetKind, engine: Engine): Violation[] {
  const { imageFormats, videoFormats } = engine.capabilities;
  const [allowed, others] = target === 'image' ? [imageFormats, videoFormats] : [videoFormats, imageFormats];
  if (request.target.case !== undefined && allowed.length === 0 && others.length > 0) {
    const [not, but] = target === 'image' ? ['pictures', 'a video as target_video'] : ['videos', 'a picture as target_image'];
    const description = `the engine ${engine.name} makes no ${not}; give ${but}`;
    return [{ field: `target_${target}`, reason: 'TARGET_NOT_TAKEN', description }];
  }
  if (request.outputFormat === undefined || allowed.includes(request.outputFormat)) return [];
  const what = target === 'image' ? 'a picture' : 'a video';
  const description = `'${request.outputFormat}' cannot be written for ${what}; allowed: ${allowed.join(', ')}`;
  return [{ field: 'output_format', reason: 'NOT_A_CHOICE', description }];
}

/** SHA-256 of a request without its idempotency key: equal for equal requests in whatever order their names are. */
export function requestDigest(request: JobRequest): string {
  const bare = clone(JobRequestSchema, request);
  bare.idempotencyKey = undefined;
  return digestOf(toJson(JobRequestSchema, bare));
}

/** The same of a batch; never that of a job. */
export function batchDigest(request: SubmitBatchRequest): string {
  const bare = clone(SubmitBatchRequestSchema, request);
  bare.idempotencyKey = undefined;
  return digestOf({ batch: toJson(SubmitBatchRequestSchema, bare) });
}

function digestOf(request: JsonValue): string {
  return createHash('sha256')
    .update(JSON.stringify(sorted(request)))
    .digest('hex');
}

function sorted(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, one]) => [name, sorted(one)]),
  );
}
