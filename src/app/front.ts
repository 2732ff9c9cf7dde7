// What callers see of the service: the one port with its calls, uploads and console, and what it says of its health. Always true: a process that only works
// shows its health and nothing else; from the moment that the service closes it says so, while calls go on.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SecureContextOptions, TlsOptions } from 'node:tls';
import type { FastifyRequest } from 'fastify';
import { AccessService } from '../../gen/facefusion/jobs/v1/access_service_pb.js';
import { JobService, WatchResponseSchema } from '../../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../../gen/facefusion/jobs/v1/upload_service_pb.js';
import { WebhookService } from '../../gen/facefusion/jobs/v1/webhook_service_pb.js';
import type { Access } from '../access/access.ts';
import type { Policies } from '../access/policies.ts';
import type { Config } from '../config.ts';
import type { Caller } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import type { Guard } from '../jobs/guard.ts';
import type { Job } from '../jobs/job.ts';
import type { BlobStore, JobStore } from '../jobs/ports.ts';
import type { Traces } from '../jobs/traces.ts';
import type { Uploads } from '../media/uploads.ts';
import { createAccessService } from '../rpc/access-service.ts';
import { assertMay, authorize, mustKnow, noteRoutes } from '../rpc/authorize.ts';
import { openConsole } from '../rpc/console.ts';
import { type Report, toConnectError } from '../rpc/errors.ts';
import { eventLine } from '../rpc/event-text.ts';
import { HealthRegistry, healthService, ServingStatus } from '../rpc/health.ts';
import { interceptors } from '../rpc/interceptors.ts';
import { createJobService, createProcessService, type JobServiceOptions, SELF_VALIDATED } from '../rpc/job-service.ts';
import { reflectionServices } from '../rpc/reflection.ts';
import { presenter } from '../rpc/result-urls.ts';
import { createServer, type ServerOptions } from '../rpc/server.ts';
import { createSystemService } from '../rpc/system-service.ts';
import { registerMultipartUploads } from '../rpc/upload-multipart.ts';
import { createUploadService } from '../rpc/upload-service.ts';
import { registerTus } from '../rpc/upload-tus.ts';
import { createWebhookService } from '../rpc/webhook-service.ts';
import { BLOB_PATH } from '../store/blobs-local.ts';
import type { Retention } from '../store/retention.ts';
import type { Logger } from '../telemetry/logs.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { apiDocumentation } from './api-document.ts';
import type { Closing } from './closing.ts';
import { connectionsWithin, openFilesLimit } from './connections.ts';
import type { Drains } from './drains.ts';
import type { Fleet } from './fleet.ts';
import type { Places } from './places.ts';
import type { Blobs } from './storage.ts';
import type { Webhooks } from './webhooks.ts';

export interface FrontOptions {
  readonly config: Config;
  /** The installed package: holds the console as it was built. */
  readonly root: string;
  readonly version: string;
  readonly log: Logger;
  readonly opened: Closing;
  readonly store: JobStore;
  readonly blobs: Blobs;
  readonly access: Access;
  readonly policies: Policies;
  readonly places: Places;
  readonly uploads: Uploads;
  readonly retention: Retention;
  readonly fleet: Fleet;
  readonly drains: Drains;
  readonly webhooks: Pick<Webhooks, 'check'>;
  readonly metrics: Metrics;
  readonly traces: Traces | undefined;
  /** Throws STORAGE_FULL where the disks have no room for another job. */
  readonly checkRoom: () => Promise<void>;
}

export interface Front {
  /** Rejects when the port cannot be had. Answers its base URL. */
  listen(): Promise<string>;
  /** A job as callers are shown it. */
  readonly present: (job: Job) => Job | Promise<Job>;
  /** Streams of events that are open. */
  watchers(): number;
}

const IDEMPOTENCY_MS = 24 * 3_600_000;
const CLOSE_GRACE_MS = 5_000;
/** Where the ways to upload are that are no rpc. */
const UPLOAD_PATHS = { form: '/api/v1/uploads', tus: '/api/v1/tus' } as const;
/** "The bytes in any number of chunks", of so many at most. */
const MAX_CHUNK_BYTES = 1 << 20;
/** Health service of the workers' warmth: the API may serve while none is up. */
const WORKERS = 'facefusion.jobs.workers';

/** Makes everything ready to listen. Throws an `Error` that can be shown where a file that the settings name is not right. */
export async function openFront(options: FrontOptions): Promise<Front> {
  const { config, log, opened, access, fleet, metrics, traces, version } = options;
  const serves = config.role !== 'worker';
  let address = '';
  const watchers = new Watchers();
  const jobs = jobServiceOptions(options, watchers, () => config.publicUrl ?? address);
  const health = new HealthRegistry();
  const served = serves ? servicesOf(options, jobs, watchers) : [];
  const services = [...served, healthService(health)];
  const server = await createServer({
    services: [...services, ...reflectionServices(services.map((one) => one.desc))],
    restServices: served,
    interceptors: interceptors(authorize(access.guard), SELF_VALIDATED),
    guard: access.guard,
    // A signed URL is the right to one object, whoever has it.
    openPaths: [`${BLOB_PATH}/`],
    log,
    count: (facts) => metrics.request(facts),
    traces,
    maxConnections: connectionsOf(config, log),
    maxBodyBytes: config.maxBodyBytes,
    tls: await tlsOf(config),
    closeGraceMs: CLOSE_GRACE_MS,
    grpc: config.grpc,
    splittable: { [`${UploadService.typeName}.${UploadService.method.upload.name}`]: { field: 'chunk', maxBytes: MAX_CHUNK_BYTES } },
    version,
    text: { [WatchResponseSchema.typeName]: eventLine },
    corsOrigins: config.corsOrigins,
    hostNames: config.hostNames && new Set(config.hostNames),
    ...apiDocumentation(config, serves ? UPLOAD_PATHS : undefined),
    ready: () => readiness(options),
    routes: serves ? await routesOf(options) : () => {},
  });
  opened.last('port', { [Symbol.asyncDispose]: () => server.close() });
  // First of all when the service goes: whoever asks is told to look elsewhere.
  opened.first(() => health.shutdown());
  return {
    async listen() {
      address = await server.listen(config.host, config.port);
      for (const { desc } of served) health.set(desc.typeName, ServingStatus.SERVING);
      health.set('', ServingStatus.SERVING);
      const followWorkers = () => health.set(WORKERS, fleet.isWarm ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
      fleet.onChange = followWorkers;
      followWorkers();
      return address;
    },
    present: presenter(jobs),
    watchers: () => watchers.open,
  };
}

class Watchers {
  open = 0;

  enter(): void {
    this.open++;
  }

  leave(): void {
    this.open--;
  }
}

function jobServiceOptions(options: FrontOptions, watched: Watchers, baseUrl: () => string): JobServiceOptions {
  const { config, store, blobs, policies, places, uploads, retention, fleet, webhooks, checkRoom } = options;
  return {
    store,
    blobs: blobs.store,
    engine: (wanted) => fleet.engine(wanted),
    checkReference: (reference, field, tenant) => places.references(tenant).check(reference, field, tenant),
    policyOf: policies.tenant,
    idempotencyMs: IDEMPOTENCY_MS,
    heldInput: async (reference, tenant) => await places.references(tenant).held?.(reference),
    maxAttempts: config.maxAttempts,
    cancelGraceMs: config.cancelGraceMs,
    resultUrlTtlMs: config.resultUrlTtlMs,
    checkOutput: (uri, tenant) => places.outputs(tenant).check(uri),
    checkRoom,
    maxRetentionMs: config.maxRetentionMs,
    checkWebhook: webhooks.check,
    reclaim: () => retention.reclaim(),
    baseUrl,
    watched,
    sweepUploads: () => uploads.sweep(),
  };
}

/** In the order in which documents list them. */
function servicesOf(
  { version, store, access, policies, places, uploads, fleet, drains }: FrontOptions,
  jobs: JobServiceOptions,
  watchers: Watchers,
) {
  const system = {
    version,
    store,
    engine: () => fleet.engine(),
    slots: () => fleet.slots(),
    nodes: () => fleet.nodes(),
    drains,
    referenceSchemes: (tenant: string) => places.references(tenant).schemes,
    policyOf: policies.tenant,
    watchers: () => watchers.open,
  };
  return [
    { desc: JobService, implementation: createJobService(jobs) },
    { desc: ProcessService, implementation: createProcessService(jobs) },
    { desc: UploadService, implementation: createUploadService((facts, bytes, signal) => uploads.receive(facts, bytes, signal)) },
    { desc: SystemService, implementation: createSystemService(system) },
    { desc: AccessService, implementation: createAccessService({ keys: access.keys, store, policyOf: policies.tenant }) },
    { desc: WebhookService, implementation: createWebhookService(store) },
  ];
}

/** What is no rpc: results, uploads, the console. */
async function routesOf({ config, root, log, access, blobs, uploads }: FrontOptions): Promise<ServerOptions['routes']> {
  const { guard } = access;
  const mediaOrigins = await resultOrigins(config, blobs.store);
  const webConsole = config.console ? await openConsole({ dir: join(root, 'web', 'dist'), mediaOrigins }) : undefined;
  const report: Report = (err, reference) =>
    log.error({ err, reference }, reference === undefined ? 'a call could not be served' : 'internal error');
  return (app, callerOf) => {
    blobs.addRoutes(app);
    const common = { tenantOf: uploaderOf(guard, callerOf, report), report };
    void app.register(async (ways) => {
      noteRoutes(ways, guard, callerOf);
      registerMultipartUploads(ways, { uploads, path: UPLOAD_PATHS.form, ...common });
      registerTus(ways, { uploads, path: UPLOAD_PATHS.tus, ...common });
    });
    // Who opens the address in a browser wants to be shown something.
    if (webConsole) webConsole.register(app);
    else app.get('/', (_request, reply) => reply.redirect('docs'));
  };
}

/** `/readyz`: whether this process takes work, and if not, why. */
async function readiness({ config, log, opened, store, fleet }: FrontOptions): Promise<{ ready: boolean; facts: object }> {
  const slots = fleet.ownSlots();
  const engine = fleet.isReady ? fleet.engine() : undefined;
  // A slot that is out of service makes nothing less ready: jobs are taken all the same, a node that is being restarted is waited for, and who took it out knows.
  const drained = slots.filter(({ drain }) => drain).length;
  const facts = {
    role: config.role,
    engine: engine?.name ?? config.engine,
    engine_version: engine?.version ?? null,
    slots: slots.length,
    slots_drained: drained,
  };
  const not = (reason: string) => ({ ready: false, facts: { ...facts, reason } });
  if (opened.closing) return not('the service is shutting down');
  if ((config.role === 'worker' ? fleet.localEngine() : engine) === undefined) {
    const nobody = config.role === 'api' ? 'no node of the fleet has a warm worker yet' : 'the first worker is not warm yet';
    return not(slots.find((slot) => slot.problem)?.problem ?? nobody);
  }
  try {
    await store.ping();
  } catch (error) {
    log.error({ err: error }, 'the job store does not answer');
    return not(error instanceof JobsError ? error.message : 'the job store does not answer');
  }
  return { ready: true, facts };
}

/** Fewer than the settings say where this process may not have so many. */
function connectionsOf({ maxConnections }: Config, log: Logger): number {
  const files = openFilesLimit();
  const connections = connectionsWithin(maxConnections, files);
  if (connections < maxConnections) {
    log.info({ connections, open_files: files }, 'fewer connections than FFJOBS_MAX_CONNECTIONS: this process may open no more files');
  }
  return connections;
}

async function tlsOf({ tlsCert, tlsKey, tlsClientCa }: Config): Promise<SecureContextOptions | undefined> {
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  const [cert, key] = await Promise.all([readFile(tlsCert), readFile(tlsKey)]);
  if (tlsClientCa === undefined) return { cert, key };
  // Whose chain does not lead there, or has none, may still have a key or a token: the guard says who is let in.
  const asking: TlsOptions = { cert, key, ca: await readFile(tlsClientCa), requestCert: true, rejectUnauthorized: false };
  return asking;
}

/** Of the ways to upload that are no rpc: whose the upload is. */
function uploaderOf(
  guard: Guard,
  callerOf: (request: FastifyRequest) => Caller | undefined,
  report: Report,
): (request: FastifyRequest) => string {
  const rule = guard.ruleOf(UploadService.method.upload);
  return (request) => {
    try {
      const caller = mustKnow(callerOf(request));
      assertMay(caller, rule);
      return caller.identity.tenant;
    } catch (error) {
      throw toConnectError(error, report);
    }
  };
}

/** Where pages fetch results from besides the service itself, which their policy has to allow: told by a URL as it is signed for callers. */
async function resultOrigins({ publicUrl }: Config, blobs: Pick<BlobStore, 'signedUrl'>): Promise<string[]> {
  const key = createHash('sha256').digest('hex');
  const signed = await blobs.signedUrl(key, { expiresMs: Date.now() + 60_000, filename: 'x', mediaType: 'image/png' });
  return [publicUrl, signed].filter((url) => url !== undefined && URL.canParse(url)).map((url) => new URL(url!).origin);
}
