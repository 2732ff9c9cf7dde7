// Blocks of JSON and YAML in the pages: each is held to what it shows, by its shape. One that fits nothing here is an error, so that none goes unread.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DescMessage } from '@bufbuild/protobuf';
import { parse } from 'yaml';
import { JobSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import { GetProvenanceResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { readPolicies } from '../../src/access/policies.ts';
import { policyDefaults, readConfig } from '../../src/config.ts';
import { ROOT } from '../api/service.ts';

type Json = Readonly<Record<string, unknown>>;

/** Throws where the text is not what it shows. */
export function checkData(language: string, text: string): void {
  if (language === 'yaml') checkComposition(parse(text) as Composition);
  else checkJson(text, JSON.parse(text) as Json);
}

function checkJson(text: string, value: Json): void {
  if ('tenants' in value) readPolicies(text, policyDefaults(readConfig({}, ROOT)));
  else if ('type' in value && 'data' in value) {
    assert.deepEqual(Object.keys(value), ['type', 'timestamp', 'data']);
    assert.equal(new Date(value.timestamp as string).toISOString(), value.timestamp);
    checkFields(JobSchema, value.data as Json);
  } else if ('provenance' in value) checkFields(GetProvenanceResponseSchema, value);
  else assert.fail(`no kind of data has these fields: ${Object.keys(value)}`);
}

/** That a message of the contract has these fields, in the dialect of REST. `...` stands for more of them. */
function checkFields(desc: DescMessage, value: Json): void {
  for (const [name, inner] of Object.entries(value)) {
    if (name === '...') continue;
    const field = desc.fields.find((one) => one.name === name);
    assert.ok(field, `${desc.typeName} has no ${name}`);
    if (field.fieldKind === 'message' && typeof inner === 'object') checkFields(field.message, inner as Json);
  }
}

interface Composition {
  readonly services: Readonly<Record<string, { readonly image?: string; readonly volumes?: readonly string[] }>>;
}

/** For `docker compose`, from the checkout's root. */
function checkComposition({ services }: Composition): void {
  for (const [name, { image, volumes = [] }] of Object.entries(services)) {
    assert.ok(image, name);
    for (const volume of volumes) assert.ok(existsSync(join(ROOT, volume.split(':')[0]!)), `${name}: ${volume}`);
  }
}
