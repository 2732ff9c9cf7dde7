// One small client surface over each way in, so that a scenario is written once. REST is plain fetch with a third-party SSE parser; gRPC is
// grpc-js on descriptors that it got by server reflection, so no code of this project is between it and the wire; Connect and gRPC-Web are
// connect-web as a browser would use them.
import { type DescMessage, fromBinary, fromJson, type JsonObject, toBinary, toJson } from '@bufbuild/protobuf';
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Code, type Client as ConnectClient, ConnectError, createClient, type Interceptor, type Transport } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { createParser } from 'eventsource-parser';
import { JobService } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.js';
import { ServerReflection } from '../../gen/grpc/reflection/v1/reflection_pb.js';

/** JSON with proto field names and enum values in lower case without their prefix, whatever the wire was. */
export type Json = JsonObject;

/** An error as any protocol shows it. */
export class CallError extends Error {
  /** gRPC code in upper snake case. */
  readonly code: string;
  readonly reason: string | undefined;
  readonly violations: readonly { field: string; description: string }[];
  readonly retryAfterSeconds: number | undefined;
  constructor(message: string, facts: Pick<CallError, 'code' | 'reason' | 'violations' | 'retryAfterSeconds'>) {
    super(message);
    this.code = facts.code;
    this.reason = facts.reason;
    this.violations = facts.violations;
    this.retryAfterSeconds = facts.retryAfterSeconds;
  }
}

export interface Client {
  readonly name: string;
  submit(job: Json): Promise<Json>;
  swap(job: Json): Promise<Json>;
  validate(job: Json): Promise<Json>;
  get(jobId: string): Promise<Json>;
  status(jobId: string): Promise<Json>;
  /** The signed URL. */
  result(jobId: string): Promise<string>;
  list(query: Json): Promise<Json>;
  cancel(jobId: string): Promise<Json>;
  purge(jobId: string): Promise<Json>;
  capabilities(): Promise<Json>;
  slots(): Promise<Json>;
  overview(): Promise<Json>;
  submitBatch(batch: {
    readonly jobs: readonly { readonly ref?: string; readonly job: Json }[];
    readonly [field: string]: unknown;
  }): Promise<Json>;
  batch(batchId: string): Promise<Json>;
  cancelBatch(batchId: string): Promise<Json>;
  batchResults(batchId: string): Promise<Json>;
  watchBatch(batchId: string, token?: string): AsyncIterable<Json>;
  /** Events in order; `kind` is the event's name. */
  watch(jobId: string, after?: number, signal?: AbortSignal): AsyncIterable<Json & { kind: string }>;
  close(): void;
}

const ENUM = /^(?:JOB_STATUS|JOB_STEP|WAIT_REASON|LOG_LEVEL|WORKER_STATE|OPTION_TYPE|CACHE_POLICY)_([A-Z_]+)$/;

/** ProtoJSON to the REST dialect, as far as the scenarios look. */
function dialect(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(dialect);
  if (typeof value === 'string') return ENUM.exec(value)?.[1]?.toLowerCase() ?? value;
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, dialect(one)]));
}

const EVENTS = ['snapshot', 'state', 'progress', 'log', 'preview'] as const;

function withKind(event: Json): Json & { kind: string } {
  const kind = EVENTS.find((name) => event[name] !== undefined && event[name] !== null);
  return { ...event, kind: kind ?? 'unknown' };
}

/** The service seen through Connect's own browser transports, or its gRPC one. */
export function connectClient(name: 'connect' | 'grpc-web', baseUrl: string, credential?: string): Client {
  const interceptors: Interceptor[] = [
    (next) => (request) => {
      if (credential !== undefined) request.header.set('authorization', `Bearer ${credential}`);
      return next(request);
    },
  ];
  const transport =
    name === 'connect' ? createConnectTransport({ baseUrl, interceptors }) : createGrpcWebTransport({ baseUrl, interceptors });
  return overConnect(name, transport);
}

function overConnect(name: string, transport: Transport): Client {
  const jobs = createClient(JobService, transport);
  const process = createClient(ProcessService, transport);
  const system = createClient(SystemService, transport);
  type Jobs = ConnectClient<typeof JobService>;
  const call = async <T extends DescMessage>(output: T, answer: Promise<unknown>): Promise<Json> => {
    try {
      return dialect(toJson(output, (await answer) as never, { useProtoFieldName: true, alwaysEmitImplicit: true })) as Json;
    } catch (error) {
      throw fromConnect(error);
    }
  };
  const input = <K extends keyof typeof JobService.method>(method: K, json: Json) =>
    fromJson(JobService.method[method].input as never, json) as Parameters<Jobs[K]>[0];
  const m = JobService.method;
  return {
    name,
    submit: async (job) => (await call(m.submit.output, jobs.submit(input('submit', { job })))).job as Json,
    swap: async (job) =>
      (await call(ProcessService.method.swap.output, process.swap(fromJson(ProcessService.method.swap.input, { job })))).job as Json,
    validate: (job) => call(m.validate.output, jobs.validate(input('validate', { job }))),
    get: async (jobId) => (await call(m.get.output, jobs.get({ jobId }))).job as Json,
    status: async (jobId) => (await call(m.getStatus.output, jobs.getStatus({ jobId }))).state as Json,
    result: async (jobId) => (await call(m.getResult.output, jobs.getResult({ jobId }))).url as string,
    list: (query) => call(m.list.output, jobs.list(input('list', upperStatus(query)))),
    cancel: async (jobId) => (await call(m.cancel.output, jobs.cancel({ jobId }))).job as Json,
    purge: async (jobId) => (await call(m.purge.output, jobs.purge({ jobId }))).job as Json,
    capabilities: () => call(SystemService.method.getCapabilities.output, system.getCapabilities({})),
    slots: () => call(SystemService.method.listSlots.output, system.listSlots({})),
    overview: () => call(SystemService.method.getOverview.output, system.getOverview({})),
    submitBatch: async (batch) => (await call(m.submitBatch.output, jobs.submitBatch(input('submitBatch', batch as Json)))).batch as Json,
    batch: async (batchId) => (await call(m.getBatch.output, jobs.getBatch({ batchId }))).batch as Json,
    cancelBatch: async (batchId) => (await call(m.cancelBatch.output, jobs.cancelBatch({ batchId }))).batch as Json,
    batchResults: (batchId) => call(m.getBatchResults.output, jobs.getBatchResults({ batchId })),
    async *watchBatch(batchId, watchToken) {
      for await (const change of jobs.watchBatch({ batchId, watchToken }))
        yield dialect(toJson(m.watchBatch.output, change, { useProtoFieldName: true, alwaysEmitImplicit: true })) as Json;
    },
    async *watch(jobId, after, signal) {
      try {
        for await (const { event } of jobs.watch({ jobId, afterSequence: after }, { signal })) {
          const json = toJson(
            m.watch.output,
            { $typeName: 'facefusion.jobs.v1.WatchResponse', event },
            { useProtoFieldName: true, alwaysEmitImplicit: true },
          );
          yield withKind(dialect((json as Json).event) as Json);
        }
      } catch (error) {
        if (!signal?.aborted) throw fromConnect(error);
      }
    },
    close() {},
  };
}

function upperStatus(query: Json): Json {
  const { status } = query;
  return Array.isArray(status) ? { ...query, status: status.map((one) => `JOB_STATUS_${String(one).toUpperCase()}`) } : query;
}

function fromConnect(error: unknown): CallError {
  const mapped = ConnectError.from(error);
  const [info] = mapped.findDetails(ErrorInfoSchema);
  const [retry] = mapped.findDetails(RetryInfoSchema);
  return new CallError(mapped.rawMessage, {
    code: Code[mapped.code]!.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toUpperCase(),
    reason: info?.reason,
    violations: mapped.findDetails(BadRequestSchema).flatMap((one) => one.fieldViolations),
    retryAfterSeconds: retry?.retryDelay && Number(retry.retryDelay.seconds) + retry.retryDelay.nanos / 1e9,
  });
}

/** REST with nothing but fetch. */
export function restClient(baseUrl: string, credential?: string): Client {
  const identity: Record<string, string> = credential === undefined ? {} : { 'x-api-key': credential };
  const call = async (method: string, path: string, body?: Json): Promise<Json> => {
    const response = await fetch(new URL(path, baseUrl), {
      method,
      redirect: 'manual',
      headers: { ...identity, ...(body ? { 'content-type': 'application/json' } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
    if (response.status === 302) return { url: response.headers.get('location') };
    const json = (await response.json()) as Json;
    if (response.ok) return json;
    throw fromRest(json, response.headers);
  };
  const query = (facts: Json) =>
    new URLSearchParams(
      Object.entries(facts).flatMap(([name, value]) =>
        (Array.isArray(value) ? value : [value]).map((one): [string, string] => [name, String(one)]),
      ),
    );
  return {
    name: 'rest',
    submit: (job) => call('POST', '/api/v1/jobs', job),
    swap: (job) => call('POST', '/api/v1/process/swap', job),
    validate: (job) => call('POST', '/api/v1/jobs:validate', job),
    get: (id) => call('GET', `/api/v1/jobs/${id}`),
    status: (id) => call('GET', `/api/v1/jobs/${id}/status`),
    result: async (id) => (await call('GET', `/api/v1/jobs/${id}/result`)).url as string,
    list: (facts) => call('GET', `/api/v1/jobs?${query(facts)}`),
    cancel: (id) => call('DELETE', `/api/v1/jobs/${id}`),
    purge: (id) => call('POST', `/api/v1/jobs/${id}:purge`),
    capabilities: () => call('GET', '/api/v1/capabilities'),
    slots: () => call('GET', '/api/v1/slots'),
    overview: () => call('GET', '/api/v1/overview'),
    submitBatch: (batch) => call('POST', '/api/v1/jobs:batch', batch as Json),
    batch: (id) => call('GET', `/api/v1/batches/${id}`),
    cancelBatch: (id) => call('DELETE', `/api/v1/batches/${id}`),
    batchResults: (id) => call('GET', `/api/v1/batches/${id}/results`),
    async *watchBatch(id, token) {
      const response = await fetch(new URL(`/api/v1/batches/${id}/events`, baseUrl), {
        headers: { ...identity, accept: 'text/event-stream', ...(token === undefined ? {} : { 'last-event-id': token }) },
      });
      if (response.status === 204) return;
      if (!response.ok) throw fromRest((await response.json()) as Json, response.headers);
      const ready: Json[] = [];
      const parser = createParser({ onEvent: ({ data }) => void ready.push(JSON.parse(data) as Json) });
      const decoder = new TextDecoder();
      for await (const chunk of response.body!) {
        parser.feed(decoder.decode(chunk, { stream: true }));
        yield* ready.splice(0);
      }
    },
    async *watch(id, after, signal) {
      const response = await fetch(new URL(`/api/v1/jobs/${id}/events`, baseUrl), {
        headers: { ...identity, accept: 'text/event-stream', ...(after === undefined ? {} : { 'last-event-id': String(after) }) },
        signal,
      });
      if (response.status === 204) return;
      if (!response.ok) throw fromRest((await response.json()) as Json, response.headers);
      const ready: (Json & { kind: string })[] = [];
      let failure: CallError | undefined;
      const parser = createParser({
        onEvent({ event, id: eventId, data }) {
          const json = JSON.parse(data) as Json;
          if (event === 'error') failure = fromRest(json, new Headers());
          else {
            if (eventId !== undefined && eventId !== String(json.sequence))
              throw new Error(`id ${eventId} is not the sequence ${json.sequence}`);
            ready.push({ ...json, kind: event ?? 'unknown' });
          }
        },
      });
      const decoder = new TextDecoder();
      try {
        for await (const chunk of response.body!) {
          parser.feed(decoder.decode(chunk, { stream: true }));
          yield* ready.splice(0);
          if (failure) throw failure;
        }
      } catch (error) {
        if (!signal?.aborted) throw error;
      }
    },
    close() {},
  };
}

function fromRest(json: Json, headers: Headers): CallError {
  const details = (json.details ?? []) as Json[];
  const find = (type: string) => details.find((one) => String(one['@type']).endsWith(type));
  const retry = headers.get('retry-after');
  return new CallError(String(json.message), {
    code: String(json.code),
    reason: find('google.rpc.ErrorInfo')?.reason as string | undefined,
    violations: (find('google.rpc.BadRequest')?.field_violations ?? []) as { field: string; description: string }[],
    retryAfterSeconds: retry === null ? undefined : Number(retry),
  });
}

/** grpc-js on descriptors from the service's own reflection. */
export async function grpcClient(baseUrl: string, credential?: string): Promise<Client> {
  const definition = protoLoader.loadFileDescriptorSetFromBuffer(Buffer.from(await descriptorSet(baseUrl)), {
    keepCase: true,
    enums: String,
    longs: String,
    defaults: true,
    oneofs: true,
  });
  const services = grpc.loadPackageDefinition(definition) as unknown as {
    facefusion: { jobs: { v1: Record<string, grpc.ServiceClientConstructor> } };
  };
  const address = new URL(baseUrl).host;
  const identified: grpc.Interceptor = (options, next) =>
    new grpc.InterceptingCall(next(options), {
      start(metadata, listener, start) {
        if (credential !== undefined) metadata.set('authorization', `Bearer ${credential}`);
        start(metadata, listener);
      },
    });
  const stub = (name: string) =>
    new services.facefusion.jobs.v1[name]!(address, grpc.credentials.createInsecure(), { interceptors: [identified] });
  const jobs = stub('JobService');
  const process = stub('ProcessService');
  const system = stub('SystemService');
  const call = (client: grpc.Client, method: string, request: object): Promise<Json> =>
    new Promise((resolve, reject) => {
      const run = (
        client as unknown as Record<string, (request: object, done: (error: grpc.ServiceError | null, answer: object) => void) => void>
      )[method]!;
      run.call(client, request, (error, answer) => (error ? reject(fromGrpc(error)) : resolve(plain(answer) as Json)));
    });
  return {
    name: 'grpc',
    submit: async (job) => (await call(jobs, 'Submit', { job: encoded(job) })).job as Json,
    swap: async (job) => (await call(process, 'Swap', { job: encoded(job) })).job as Json,
    validate: (job) => call(jobs, 'Validate', { job: encoded(job) }),
    get: async (job_id) => (await call(jobs, 'Get', { job_id })).job as Json,
    status: async (job_id) => (await call(jobs, 'GetStatus', { job_id })).state as Json,
    result: async (job_id) => (await call(jobs, 'GetResult', { job_id })).url as string,
    list: (query) => call(jobs, 'List', upperStatus(query)),
    cancel: async (job_id) => (await call(jobs, 'Cancel', { job_id })).job as Json,
    purge: async (job_id) => (await call(jobs, 'Purge', { job_id })).job as Json,
    capabilities: () => call(system, 'GetCapabilities', {}),
    slots: () => call(system, 'ListSlots', {}),
    overview: () => call(system, 'GetOverview', {}),
    submitBatch: async (batch) =>
      (await call(jobs, 'SubmitBatch', { ...batch, jobs: batch.jobs.map(({ ref, job }) => ({ ref, job: encoded(job) })) })).batch as Json,
    batch: async (batch_id) => (await call(jobs, 'GetBatch', { batch_id })).batch as Json,
    cancelBatch: async (batch_id) => (await call(jobs, 'CancelBatch', { batch_id })).batch as Json,
    batchResults: (batch_id) => call(jobs, 'GetBatchResults', { batch_id }),
    async *watchBatch(batch_id, watch_token) {
      const open = (jobs as unknown as { WatchBatch(request: object): grpc.ClientReadableStream<object> }).WatchBatch({
        batch_id,
        watch_token,
      });
      for await (const change of open) yield plain(change) as Json;
    },
    async *watch(job_id, after_sequence, signal) {
      const open = (jobs as unknown as { Watch(request: object): grpc.ClientReadableStream<{ event: object }> }).Watch({
        job_id,
        after_sequence,
      });
      const cancel = () => open.cancel();
      signal?.addEventListener('abort', cancel);
      try {
        for await (const { event } of open) yield withKind(plain(event) as Json);
      } catch (error) {
        if (!signal?.aborted) throw fromGrpc(error as grpc.ServiceError);
      } finally {
        signal?.removeEventListener('abort', cancel);
        open.cancel();
      }
    },
    close() {
      for (const one of [jobs, process, system]) one.close();
    },
  };
}

/** A map as descriptors without source have it: entries. */
const entries = (map: object, value: (one: unknown) => unknown = (one) => one) =>
  Object.entries(map).map(([key, one]) => ({ key, value: value(one) }));

/** proto-loader's objects to the dialect: `null` for what is not set, Struct and Timestamp to plain JSON. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (value === null || typeof value !== 'object') return dialect(value);
  const record = value as Record<string, unknown>;
  if (typeof record.seconds === 'string' && typeof record.nanos === 'number')
    return new Date(Number(record.seconds) * 1000 + record.nanos / 1e6).toISOString();
  if (Array.isArray(record.fields)) {
    return Object.fromEntries(record.fields.map(({ key, value: one }: { key: string; value: ProtoValue }) => [key, fromValue(one)]));
  }
  return Object.fromEntries(Object.entries(record).map(([name, one]) => [name, plain(one)]));
}

type ProtoValue = { kind?: string; list_value?: { values: ProtoValue[] }; struct_value?: unknown } & Record<string, unknown>;

function fromValue(value: ProtoValue): unknown {
  if (value.kind === 'list_value') return value.list_value!.values.map(fromValue);
  if (value.kind === 'struct_value') return plain(value.struct_value);
  return value.kind === 'null_value' ? null : value[value.kind!];
}

/** `parameters` as the Struct message that grpc-js wants. */
function encoded(job: Json): object {
  const value = (one: unknown): object => {
    if (one === null) return { null_value: 'NULL_VALUE' };
    if (Array.isArray(one)) return { list_value: { values: one.map(value) } };
    if (typeof one === 'object') return { struct_value: struct(one as Json) };
    return { [`${typeof one === 'boolean' ? 'bool' : typeof one}_value`]: one };
  };
  const struct = (json: Json) => ({ fields: entries(json, value) });
  const seconds = (text: unknown) => ({
    seconds: Math.floor(Number.parseFloat(String(text))),
    nanos: Math.round((Number.parseFloat(String(text)) % 1) * 1e9),
  });
  return {
    ...job,
    ...(job.parameters ? { parameters: struct(job.parameters as Json) } : {}),
    ...(job.labels ? { labels: entries(job.labels as Json) } : {}),
    ...(job.start_timeout ? { start_timeout: seconds(job.start_timeout) } : {}),
    ...(job.run_timeout ? { run_timeout: seconds(job.run_timeout) } : {}),
  };
}

function fromGrpc(error: grpc.ServiceError): CallError {
  const raw = error.metadata?.get('grpc-status-details-bin')[0];
  // google.rpc.Status: code 1, message 2, repeated Any details 3; read by hand so that no code of ours decodes what we check.
  const details = raw instanceof Buffer ? anyMessages(raw) : [];
  const find = <T extends DescMessage>(desc: T) =>
    details.filter((one) => one.url.endsWith(desc.typeName)).map((one) => fromBinary(desc, one.value));
  const [info] = find(ErrorInfoSchema);
  const [retry] = find(RetryInfoSchema);
  return new CallError(error.details, {
    code: grpc.status[error.code]!,
    reason: info?.reason,
    violations: find(BadRequestSchema).flatMap((one) => one.fieldViolations),
    retryAfterSeconds: retry?.retryDelay && Number(retry.retryDelay.seconds) + retry.retryDelay.nanos / 1e9,
  });
}

function anyMessages(status: Uint8Array): { url: string; value: Uint8Array }[] {
  return fields(status)
    .filter((one) => one.number === 3)
    .map(({ bytes }) => {
      const inner = fields(bytes);
      const at = (number: number) => inner.find((one) => one.number === number)?.bytes ?? new Uint8Array();
      return { url: Buffer.from(at(1)).toString(), value: at(2) };
    });
}

function fields(bytes: Uint8Array): { number: number; bytes: Uint8Array }[] {
  const found: { number: number; bytes: Uint8Array }[] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const length = tag & 7 ? varint() : 0;
    if ((tag & 7) === 2) {
      found.push({ number: tag >> 3, bytes: bytes.subarray(at, at + length) });
      at += length;
    } else if ((tag & 7) === 0) varint();
  }
  return found;
}

/** Every file behind our services, as a FileDescriptorSet, by gRPC reflection. */
async function descriptorSet(baseUrl: string): Promise<Uint8Array> {
  const reflection = createClient(ServerReflection, createGrpcTransport({ baseUrl }));
  const files = new Map<string, FileDescriptorProto>();
  const ask = async (symbol: string) => {
    const request = { host: '', messageRequest: { case: 'fileContainingSymbol' as const, value: symbol } };
    const requests = (async function* () {
      yield request;
    })();
    for await (const { messageResponse } of reflection.serverReflectionInfo(requests)) {
      if (messageResponse.case !== 'fileDescriptorResponse') throw new Error(`reflection does not know ${symbol}`);
      for (const bytes of messageResponse.value.fileDescriptorProto) {
        const file = fromBinary(FileDescriptorProtoSchema, bytes);
        files.set(file.name, file);
      }
    }
  };
  for (const name of ['JobService', 'ProcessService', 'SystemService', 'UploadService']) await ask(`facefusion.jobs.v1.${name}`);
  return toBinary(FileDescriptorSetSchema, { $typeName: 'google.protobuf.FileDescriptorSet', file: inOrder(files) });
}

function inOrder(files: Map<string, FileDescriptorProto>): FileDescriptorProto[] {
  const ordered = new Set<FileDescriptorProto>();
  const add = (name: string) => {
    const file = files.get(name);
    if (!file || ordered.has(file)) return;
    for (const dependency of file.dependency) add(dependency);
    ordered.add(file);
  };
  for (const name of files.keys()) add(name);
  return [...ordered];
}
