// The check that holds the contract against the released one: it finds what breaks callers, and lets the contract grow.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { clone, create, fromBinary } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  FieldDescriptorProtoSchema,
  type FileDescriptorProto,
  type FileDescriptorSet,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  MethodDescriptorProtoSchema,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt';
import { breaks, contractIn, RELEASED } from '../scripts/contract.ts';

let contract: FileDescriptorSet;
before(async () => {
  contract = await contractIn(join(import.meta.dirname, '..', 'gen'));
});

/** A copy that somebody has changed. */
function changed(
  change: (at: { message(name: string): DescriptorProto; file(path: string): FileDescriptorProto }) => void,
): FileDescriptorSet {
  const copy = clone(FileDescriptorSetSchema, contract);
  const file = (path: string) => copy.file.find(({ name }) => name === `facefusion/jobs/v1/${path}.proto`)!;
  change({ file, message: (name) => copy.file.flatMap(({ messageType }) => messageType).find((one) => one.name === name)! });
  return copy;
}

const fieldOf = (message: DescriptorProto, name: string) => message.field.find((one) => one.name === name)!;
const without = <T extends { readonly name: string }>(all: T[], name: string) =>
  void all.splice(
    all.findIndex((one) => one.name === name),
    1,
  );
const statusOf = (file: FileDescriptorProto): EnumDescriptorProto => file.enumType.find(({ name }) => name === 'JobStatus')!;

const BREAKING: readonly [what: string, change: Parameters<typeof changed>[0], says: RegExp][] = [
  [
    'a field with another number',
    ({ message }) => (fieldOf(message('Job'), 'result_url').number = 900),
    /"8" with name "result_url" on message "Job"/,
  ],
  ['a field with another name', ({ message }) => (fieldOf(message('Job'), 'result_url').name = 'url'), /Field "8" .* changed name|"8"/],
  [
    'a field of another type',
    ({ message }) => (fieldOf(message('Job'), 'progress').type = Type.STRING),
    /"progress".*type|type.*"progress"/,
  ],
  ['a field less', ({ message }) => without(message('JobRequest').field, 'priority'), /"9" with name "priority" on message "JobRequest"/],
  ['a list that was one', ({ message }) => (fieldOf(message('Job'), 'tenant').label = Label.REPEATED), /"tenant"/],
  ['a message less', ({ file }) => without(file('system_service').messageType, 'DependentChoices'), /DependentChoices/],
  ['an rpc less', ({ file }) => without(file('job_service').service[0]!.method, 'Purge'), /RPC "Purge" on service "JobService"/],
  [
    'an rpc that answers otherwise',
    ({ file }) => (file('job_service').service[0]!.method[0]!.outputType = '.facefusion.jobs.v1.Job'),
    /RPC "Submit"/,
  ],
  [
    'a status less',
    ({ file }) => without(statusOf(file('job')).value, 'JOB_STATUS_REFUSED'),
    /enum value "6" on enum "JobStatus" was deleted/,
  ],
];

describe('a contract that breaks its callers is found out:', { concurrency: 2 }, () => {
  for (const [what, change, says] of BREAKING) {
    test(what, async () => {
      assert.match((await breaks(changed(change), contract)) ?? 'nothing was found', says);
    });
  }
});

test('a contract may grow: fields, messages, rpcs and values', async () => {
  const grown = changed(({ message, file }) => {
    message('Job').field.push(
      create(FieldDescriptorProtoSchema, { name: 'another', jsonName: 'another', number: 901, type: Type.STRING, label: Label.OPTIONAL }),
    );
    const { service } = file('job_service');
    service[0]!.method.push(create(MethodDescriptorProtoSchema, { ...service[0]!.method[0]!, name: 'SubmitAnother' }));
    const { value } = statusOf(file('job'));
    value.push({ ...value[1]!, name: 'JOB_STATUS_ANOTHER', number: 77 });
  });
  assert.equal(await breaks(grown, contract), undefined);
});

test('the contract of the last release is kept, and is one', () => {
  const { file } = fromBinary(FileDescriptorSetSchema, readFileSync(RELEASED));
  const services = file.filter((one) => one.package === 'facefusion.jobs.v1').flatMap(({ service }) => service.map(({ name }) => name));
  assert.deepEqual(services.sort(), ['AccessService', 'JobService', 'ProcessService', 'SystemService', 'UploadService', 'WebhookService']);
});
