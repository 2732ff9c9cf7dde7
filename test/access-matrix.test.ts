// Every method x every kind of caller x own and another tenant x every way in. The methods come from the descriptors: one that the table below
// does not know fails here before anybody calls it.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { create, type DescMessage, type DescMethod, type DescService, type Message, toJson } from '@bufbuild/protobuf';
import { Code, ConnectError, type Transport } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { AccessService } from '../gen/facefusion/jobs/v1/access_service_pb.js';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { WebhookService } from '../gen/facefusion/jobs/v1/webhook_service_pb.js';
import { Health } from '../gen/grpc/health/v1/health_pb.js';
import { ServerReflection } from '../gen/grpc/reflection/v1/reflection_pb.js';
import { compileRoutes } from '../src/rest/routes.ts';
import { restClient } from './api/clients.ts';
import { untilTerminal } from './api/scenarios.ts';
import { type Secured, startSecured } from './api/secured.ts';

type Needs = 'public' | 'any' | 'read' | 'submit' | 'admin';

/** What a method needs, and whose it can be about: `job` of the id that is asked for, `key` of all tenants, or the caller's own alone. */
const EXPECTED: Readonly<Record<string, readonly [needs: Needs, about?: 'job']>> = {
  'JobService/Submit': ['submit'],
  'JobService/SubmitBatch': ['submit'],
  'JobService/GetBatch': ['read'],
  'JobService/WatchBatch': ['read'],
  'JobService/GetBatchResults': ['read'],
  'JobService/CancelBatch': ['submit'],
  'JobService/Validate': ['submit'],
  'JobService/Get': ['read', 'job'],
  'JobService/GetStatus': ['read', 'job'],
  'JobService/GetResult': ['read', 'job'],
  'JobService/GetProvenance': ['read', 'job'],
  'JobService/GetInput': ['read', 'job'],
  'JobService/Watch': ['read', 'job'],
  'JobService/WatchJobs': ['read'],
  'JobService/List': ['read'],
  'JobService/Cancel': ['submit', 'job'],
  'JobService/Purge': ['submit', 'job'],
  'ProcessService/Swap': ['submit'],
  'ProcessService/Enhance': ['submit'],
  'UploadService/Upload': ['submit'],
  'SystemService/GetCapabilities': ['read'],
  'SystemService/ListSlots': ['read'],
  'SystemService/DrainSlots': ['admin'],
  'SystemService/RestoreSlots': ['admin'],
  'SystemService/GetOverview': ['read'],
  'AccessService/GetIdentity': ['any'],
  'AccessService/GetUsage': ['read'],
  'AccessService/CreateKey': ['admin'],
  'AccessService/ListKeys': ['admin'],
  'AccessService/RevokeKey': ['admin'],
  'AccessService/RotateKey': ['admin'],
  'WebhookService/ListDeliveries': ['read'],
  'WebhookService/ReplayDelivery': ['submit'],
  'Health/Check': ['public'],
  'Health/Watch': ['public'],
  'Health/List': ['public'],
  'ServerReflection/ServerReflectionInfo': ['public'],
};
/** What the purge of another case may have taken away. */
const MEDIA = new Set(['JobService/GetResult', 'JobService/GetProvenance', 'JobService/GetInput']);
const SERVICES: readonly DescService[] = [
  JobService,
  ProcessService,
  UploadService,
  SystemService,
  AccessService,
  WebhookService,
  Health,
  ServerReflection,
];

interface Kind {
  readonly name: string;
  readonly scopes: readonly ('read' | 'submit' | 'admin')[];
  /** Nobody takes it for anybody. */
  readonly stranger?: true;
  readonly tenant: 'own' | 'other';
  credential(service: Secured): Promise<string | undefined>;
}

const byToken = (tenant: string, scopes: Kind['scopes'], seconds?: number) => (service: Secured) =>
  service.token({ tenant, scopes, seconds });
const KINDS: readonly Kind[] = [
  { name: 'nobody', scopes: [], stranger: true, tenant: 'own', credential: async () => undefined },
  {
    name: 'a key that there is not',
    scopes: [],
    stranger: true,
    tenant: 'own',
    credential: async () => `ffj_aaaaaaaaaa_${'a'.repeat(40)}`,
  },
  { name: 'a token that has expired', scopes: [], stranger: true, tenant: 'own', credential: byToken('own', ['admin'], -60) },
  { name: 'a token without scopes', scopes: [], tenant: 'own', credential: byToken('own', []) },
  ...(['own', 'other'] as const).flatMap((tenant) => [
    ...(['read', 'submit', 'admin'] as const).map(
      (scope): Kind => ({ name: `${scope} of the ${tenant} tenant`, scopes: [scope], tenant, credential: byToken(tenant, [scope]) }),
    ),
    {
      name: `a key with all scopes of the ${tenant} tenant`,
      scopes: ['read', 'submit', 'admin'] as const,
      tenant,
      credential: async (service: Secured) => (await service.key({ tenant, scopes: ['read', 'submit', 'admin'] })).secret,
    },
  ]),
];

/** A message that nobody may be hurt by: about one job, or not valid, so that an answer other than a refusal says enough. */
function requestOf(method: DescMethod, jobId: string): Message {
  const named: Record<string, unknown> = {};
  for (const { name, localName } of method.input.fields) {
    if (name === 'job_id') named[localName] = jobId;
    if (name === 'batch_id') named[localName] = 'batch_none';
    if (name === 'key_id') named[localName] = 'nokey';
    if (name === 'delivery_id') named[localName] = 'msg_none';
    if (name === 'tenant') named[localName] = method.name === 'CreateKey' ? '../no' : '';
    if (name === 'node' || name === 'slot') named[localName] = 'none';
    // Not this store's: the first answer is that.
    if (name === 'watch_token') named[localName] = 'elsewhere';
  }
  return create(method.input, named);
}

async function* once(message: Message): AsyncGenerator<Message> {
  yield message;
}

interface Outcome {
  readonly code: string;
  readonly message: string;
}

/** First answer of a call, by a transport of Connect. */
async function byTransport(transport: Transport, method: DescMethod, message: Message, credential: string | undefined): Promise<Outcome> {
  const headers = credential === undefined ? undefined : { authorization: `Bearer ${credential}` };
  const leave = new AbortController();
  try {
    if (method.methodKind === 'unary') await transport.unary(method as never, undefined, undefined, headers, message as never);
    else {
      const answer = await transport.stream(method as never, leave.signal, undefined, headers, once(message) as never);
      for await (const _ of answer.message) break;
    }
    return { code: 'Ok', message: '' };
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    return { code: Code[code], message: rawMessage };
  } finally {
    leave.abort();
  }
}

const ROUTES = new Map(
  compileRoutes([JobService, ProcessService, SystemService, AccessService, WebhookService]).map((route) => [
    route.method as DescMethod,
    route,
  ]),
);
const REST_CODES: Readonly<Record<number, string>> = {
  400: 'InvalidArgument',
  401: 'Unauthenticated',
  403: 'PermissionDenied',
  404: 'NotFound',
  409: 'Aborted',
  429: 'ResourceExhausted',
  501: 'Unimplemented',
};

async function byRest(baseUrl: string, method: DescMethod, message: Message, credential: string | undefined): Promise<Outcome> {
  const route = ROUTES.get(method)!;
  const json = toJson(method.input as DescMessage, message, { useProtoFieldName: true }) as Record<string, unknown>;
  let path = route.template.text.replace(/\{(\w+)[^}]*\}/g, (_, name: string) => String(json[name]));
  if (route.httpMethod === 'GET' && json.watch_token) path += `?watch_token=${json.watch_token}`;
  const leave = new AbortController();
  const response = await fetch(new URL(path, baseUrl), {
    method: route.httpMethod,
    redirect: 'manual',
    signal: leave.signal,
    headers: {
      ...(credential === undefined ? {} : { 'x-api-key': credential }),
      ...(route.httpMethod === 'POST' ? { 'content-type': 'application/json' } : {}),
    },
    body: route.httpMethod === 'POST' ? (method.name === 'CreateKey' ? '{"tenant": "../no"}' : '{}') : undefined,
  });
  const ok = response.status < 400;
  const text = ok ? '' : await response.text();
  leave.abort();
  assert.ok(ok || REST_CODES[response.status], `${response.status} ${text}`);
  return ok
    ? { code: 'Ok', message: '' }
    : { code: REST_CODES[response.status]!, message: (JSON.parse(text) as { message: string }).message };
}

const WAYS: readonly [
  name: string,
  call: (service: Secured) => (method: DescMethod, message: Message, credential: string | undefined) => Promise<Outcome>,
  serves?: (method: DescMethod) => boolean,
][] = [
  ['gRPC', ({ baseUrl }) => byTransport.bind(undefined, createGrpcTransport({ baseUrl }))],
  ['Connect', ({ baseUrl }) => byTransport.bind(undefined, createConnectTransport({ baseUrl })), (method) => !isClientStream(method)],
  ['gRPC-Web', ({ baseUrl }) => byTransport.bind(undefined, createGrpcWebTransport({ baseUrl })), (method) => !isClientStream(method)],
  ['REST', ({ baseUrl }) => byRest.bind(undefined, baseUrl), (method) => ROUTES.has(method)],
];

/** Browsers have none. */
function isClientStream({ methodKind }: DescMethod): boolean {
  return methodKind === 'client_streaming' || methodKind === 'bidi_streaming';
}

describe('who may do what', () => {
  let service: Secured;
  let jobId: string;
  const credentials = new Map<Kind, string | undefined>();
  before(async () => {
    service = await startSecured();
    await service.furnish('own');
    for (const kind of KINDS) credentials.set(kind, await kind.credential(service));
    const client = restClient(service.baseUrl, await service.token({ tenant: 'own', scopes: ['read', 'submit'] }));
    jobId = (await client.submit({ source_images: ['face.jpg'], target_image: 'target.png' })).job_id as string;
    await untilTerminal(client, jobId);
  });
  after(async () => await service?.[Symbol.asyncDispose]());

  const methods = SERVICES.flatMap((one) => one.methods as readonly DescMethod[]);

  test('every method is known here, and nothing else is', () => {
    const names = methods.map((method) => `${method.parent.name}/${method.name}`);
    assert.deepEqual(Object.keys(EXPECTED).sort(), names.sort());
  });

  for (const [way, open, serves] of WAYS) {
    for (const method of methods) {
      const name = `${method.parent.name}/${method.name}`;
      if (serves && !serves(method)) continue;
      // What is asked for over a stream that only its client ends is not for this table to wait for.
      if (method === Health.method.watch) continue;
      test(`${name} over ${way}`, async () => {
        const call = open(service);
        const [needs, about] = EXPECTED[name]!;
        for (const kind of KINDS) {
          const who = `${kind.name}, ${name} over ${way}`;
          const { code, message } = await call(method, requestOf(method, jobId), credentials.get(kind));
          if (needs === 'public') {
            assert.ok(!['Unauthenticated', 'PermissionDenied'].includes(code), `${who}: ${code}`);
            continue;
          }
          if (kind.stranger) {
            assert.equal(code, 'Unauthenticated', who);
            continue;
          }
          if (needs !== 'any' && !kind.scopes.includes(needs)) {
            assert.equal(code, 'PermissionDenied', `${who}: ${message}`);
            continue;
          }
          assert.ok(!['Unauthenticated', 'PermissionDenied', 'Internal', 'Unknown'].includes(code), `${who}: ${code} ${message}`);
          if (about !== 'job') continue;
          if (kind.tenant === 'other') {
            // As of a job that never was.
            const never = await call(method, requestOf(method, 'job_20250101_aaaaaaaaaaaa'), credentials.get(kind));
            assert.deepEqual(
              { code, message: message.replace(jobId, 'ID') },
              { code: 'NotFound', message: never.message.replace(/job_\w+/, 'ID') },
              who,
            );
            assert.equal(never.code, 'NotFound', who);
          } else if (!MEDIA.has(name)) assert.equal(code, 'Ok', `${who}: ${message}`);
        }
      });
    }
  }
});
