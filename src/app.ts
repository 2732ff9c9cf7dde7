// Composition root: picks the adapters, and knows in which order things start and end. Start: folders, stores, workers, metrics, the port.
// End: not ready, no new claims, running jobs finish or go back, calls end, stores close; every step runs, whatever another one did.
import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';
import type { SecureContextOptions, TlsOptions } from 'node:tls';
import { create } from '@bufbuild/protobuf';
import { durationMs } from '@bufbuild/protobuf/wkt';
import type { FastifyRequest } from 'fastify';
import { AccessService } from '../gen/facefusion/jobs/v1/access_service_pb.js';
import { CachePolicy, MediaResultSchema, type Timings } from '../gen/facefusion/jobs/v1/job_pb.js';
import { JobService } from '../gen/facefusion/jobs/v1/job_service_pb.js';
import { ProcessService } from '../gen/facefusion/jobs/v1/process_service_pb.js';
import { SystemService, WorkerState } from '../gen/facefusion/jobs/v1/system_service_pb.js';
import { UploadService } from '../gen/facefusion/jobs/v1/upload_service_pb.js';
import { WebhookService } from '../gen/facefusion/jobs/v1/webhook_service_pb.js';
import { MediaKind } from '../gen/facefusion/worker/v1/worker_pb.js';
import { type Access, type AccessOptions, loadPolicies, openAccess } from './access/access.ts';
import { Keyring } from './access/keys.ts';
import type { Policies } from './access/policies.ts';
import { Closing } from './closing.ts';
import { type Config, policyDefaults } from './config.ts';
import { readToken } from './config-files.ts';
import { engineProcesses, probePython } from './engine-process.ts';
import { Fleet } from './fleet.ts';
import { GpuWatch, readGpus } from './gpu/devices.ts';
import { Scheduler } from './gpu/scheduler.ts';
import type { Prepared, StoreContext } from './gpu/stay.ts';
import type { Caller } from './jobs/caller.ts';
import { JobsError } from './jobs/errors.ts';
import { fingerprintOf, type RunFacts } from './jobs/fingerprint.ts';
import type { Guard } from './jobs/guard.ts';
import { type Failure, type Job, JobStatus, type MediaResult } from './jobs/job.ts';
import type { KeyAdmin } from './jobs/keys.ts';
import type { MarkedInput } from './jobs/marking.ts';
import { resolveParameters } from './jobs/parameters.ts';
import type { BlobStore, JobStore } from './jobs/ports.ts';
import { deniedValues, type TenantPolicy } from './jobs/tenants.ts';
import { FreeSpace } from './media/free-space.ts';
import { type FetchingOptions, fetchInputs, type Inputs, resultFormat } from './media/inputs.ts';
import { jobReferences, takingResults } from './media/job-results.ts';
import { openProbe, type Probe } from './media/probe.ts';
import type { MediaResolver } from './media/references.ts';
import { openUploads } from './media/uploads.ts';
import { openFilesLimit } from './open-files.ts';
import { openPlaces } from './places.ts';
import { type Marked, type Marker, openMarker } from './provenance/marker.ts';
import { createAccessService } from './rpc/access-service.ts';
import type { Engine } from './rpc/admission.ts';
import { assertMay, authorize, mustKnow, noteRoutes } from './rpc/authorize.ts';
import { openConsole } from './rpc/console.ts';
import { type Report, toConnectError } from './rpc/errors.ts';
import { eventLine } from './rpc/event-text.ts';
import { HealthRegistry, healthService, ServingStatus } from './rpc/health.ts';
import { interceptors } from './rpc/interceptors.ts';
import { createJobService, createProcessService, type JobServiceOptions, SELF_VALIDATED } from './rpc/job-service.ts';
import { reflectionServices } from './rpc/reflection.ts';
import { presenter } from './rpc/result-urls.ts';
import { createServer } from './rpc/server.ts';
import { createSystemService } from './rpc/system-service.ts';
import { registerMultipartUploads } from './rpc/upload-multipart.ts';
import { uploadsOpenApi } from './rpc/upload-openapi.ts';
import { createUploadService } from './rpc/upload-service.ts';
import { registerTus } from './rpc/upload-tus.ts';
import { createWebhookService } from './rpc/webhook-service.ts';
import { openBlobs, openStore, openUploadBytes } from './storage.ts';
import { BLOB_PATH } from './store/blobs-local.ts';
import type { Outputs } from './store/outputs.ts';
import { Retention } from './store/retention.ts';
import type { EndedJob, Stay } from './telemetry/job-metrics.ts';
import { createLogger, type Logger } from './telemetry/logs.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { serveMetrics } from './telemetry/metrics-port.ts';
import { openTraces } from './telemetry/traces.ts';
import { openWebhooks, type WebhookWork } from './webhooks.ts';

export interface Surroundings {
  /** Where a worker's variables are taken from. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The installed package: holds `worker/`. */
  readonly root: string;
  readonly version: string;
  /** Log lines are for a person. */
  readonly terminal: boolean;
  /** Tests bring their own. */
  readonly log?: Logger;
  /** Of media references with further schemes. */
  readonly resolvers?: readonly MediaResolver[];
}

export interface App {
  /** Base URL of the one port. */
  readonly address: string;
  /** Undefined: this process has no workers. */
  readonly scheduler: Scheduler | undefined;
  /** Settles, with a sentence, if the engine says at its first start that it cannot run on this machine. Never rejects. */
  readonly unfit: Promise<string>;
  /** Drains, then closes; safe to call twice. */
  close(): Promise<void>;
}

const IDEMPOTENCY_MS = 24 * 3_600_000;
const CLOSE_GRACE_MS = 5_000;
const FORM_PATH = '/api/v1/uploads';
const TUS_PATH = '/api/v1/tus';
const DISK = 'the disk of the data folder';
const MEDIA_TYPE = /^[a-z]+\/[a-z0-9][a-z0-9.+-]{0,80}$/;
const PROBES_AT_ONCE = 2;
const PROBE_MEMORY_BYTES = 1536 * 1024 * 1024;
/** Pixels; JPEG and WebP end there or soon after, and so do encoders. */
const MAX_SIDE = 16_384;
const MAX_STREAMS = 32;
/** Health service of the workers' warmth: the API may serve while none is up. */
const WORKERS = 'facefusion.jobs.workers';

/** Starts the whole service. What stands in the way is thrown as an error whose message a person can act on, and nothing is left running. */
export async function startApp(config: Config, surroundings: Surroundings): Promise<App> {
  const log = surroundings.log ?? createLogger({ level: config.logLevel, format: config.logFormat, terminal: surroundings.terminal });
  const opened = new Closing(log);
  try {
    return await compose(config, surroundings, log, opened);
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** The keys of a service that is not running, or whose job store may be shared. The error of one that is in use is a sentence. */
export async function openKeys(config: Config): Promise<KeyAdmin & AsyncDisposable> {
  const opened = new Closing(createLogger({ level: 'silent', format: 'json', terminal: false }));
  await mkdir(config.dataDir, { recursive: true });
  const policies = await loadPolicies(config.tenants, policyDefaults(config));
  const { store } = await openStore(config, policies, createLogger({ level: 'silent', format: 'json', terminal: false }), opened, () => {});
  const keyring = new Keyring({ store: store.keys, tiers: new Set(policies.tiers.keys()) });
  opened.last('keys', keyring);
  return {
    create: (wanted) => keyring.create(wanted),
    list: (tenant) => keyring.list(tenant),
    revoke: (id) => keyring.revoke(id),
    rotate: (id, times) => keyring.rotate(id, times),
    [Symbol.asyncDispose]: () => opened.close(),
  };
}

export { verifyAudit } from './access/audit-chain.ts';
export { fileProblems } from './config-files.ts';
export { migrateStore } from './storage.ts';

async function compose(config: Config, surroundings: Surroundings, log: Logger, opened: Closing): Promise<App> {
  for (const folder of [config.dataDir, config.inputRoot]) await mkdir(folder, { recursive: true });
  let address = '';
  const baseUrl = () => config.publicUrl ?? address;

  const policies = await loadPolicies(config.tenants, policyDefaults(config));
  const metrics = createMetrics();
  const { store, nodes, counters } = await openStore(config, policies, log, opened, (job) => metrics.jobs.ended(endOf(job)));
  const access = opened.last('access', await accessOf(config, surroundings, log, { store, counters }, policies));
  const { guard } = access;
  const { blobs, addBlobRoutes } = await openBlobs(config, store, opened);
  const room = new FreeSpace({ dir: config.dataDir, minFreeBytes: config.minFreeBytes });
  const resultRoom = config.blobsS3 ? undefined : new FreeSpace({ dir: config.blobsPath, minFreeBytes: config.minFreeBytes });
  const retention = opened.last(
    'retention',
    new Retention({
      store,
      blobs,
      jobTtlMs: config.jobTtlMs,
      onError: (error) => log.error({ err: error }, 'what has had its time could not be let go; tried again with the next sweep'),
      onSwept: (swept) => log.info(swept, 'results whose time had come were purged, and jobs forgotten'),
    }),
  );
  const uploads = opened.last(
    'uploads',
    await openUploads({
      records: store.uploads,
      bytes: await openUploadBytes(config),
      maxBytes: config.maxUploadBytes,
      limits: { maxUploads: config.maxUploads, maxBytes: config.uploadQuotaBytes, ttlMs: config.uploadTtlMs },
      onSweepError: (error) => log.error({ err: error }, 'uploads that nobody needs could not be deleted; tried again later'),
    }),
  );
  const places = await openPlaces({
    config,
    policies,
    given: surroundings.resolvers ?? [],
    uploads: uploads.resolver,
    jobs: jobReferences((id) => store.get(id)),
    open: (name, one) => opened.last(name, one),
  });
  const probe = config.probe && config.role !== 'api' ? opened.last('probe', examiner(config, surroundings, log)) : undefined;

  const fleet = opened.last(
    'fleet',
    new Fleet({ node: config.node, nodes, onError: (err) => log.warn({ err }, 'the fleet cannot be asked') }),
  );
  await fleet.start();

  let watchers = 0;
  const watched = {
    enter: () => {
      watchers++;
    },
    leave: () => {
      watchers--;
    },
  };
  const webhooks = await openWebhooks(config);
  const jobs: JobServiceOptions = {
    store,
    blobs,
    engine: (wanted) => fleet.engine(wanted),
    checkReference: (reference, field, tenant) => places.references(tenant).check(reference, field, tenant),
    policyOf: policies.tenant,
    idempotencyMs: IDEMPOTENCY_MS,
    heldInput: async (reference, tenant) => await places.references(tenant).held?.(reference),
    maxAttempts: config.maxAttempts,
    cancelGraceMs: config.cancelGraceMs,
    resultUrlTtlMs: config.resultUrlTtlMs,
    checkOutput: (uri, tenant) => places.outputs(tenant).check(uri),
    checkRoom: async () => {
      await room.check(0, DISK);
      await resultRoom?.check(0, 'the disk for results');
    },
    maxRetentionMs: config.maxRetentionMs,
    checkWebhook: webhooks.check,
    reclaim: () => retention.reclaim(),
    baseUrl,
    watched,
    sweepUploads: () => uploads.sweep(),
  };
  const system = {
    version: surroundings.version,
    store,
    engine: () => fleet.engine(),
    slots: () => fleet.slots(),
    referenceSchemes: (tenant: string) => places.references(tenant).schemes,
    policyOf: policies.tenant,
    watchers: () => watchers,
  };
  const health = new HealthRegistry();
  const ours = [
    { desc: JobService, implementation: createJobService(jobs) },
    { desc: ProcessService, implementation: createProcessService(jobs) },
    { desc: UploadService, implementation: createUploadService((facts, bytes, signal) => uploads.receive(facts, bytes, signal)) },
    { desc: SystemService, implementation: createSystemService(system) },
    { desc: AccessService, implementation: createAccessService({ keys: access.keys, store, policyOf: policies.tenant }) },
    { desc: WebhookService, implementation: createWebhookService(store) },
  ];
  /** Of a process that has workers alone, only the health. */
  const served = config.role === 'worker' ? [] : ours;
  const services = [...served, healthService(health)];

  let scheduler: Scheduler | undefined;
  const ownSlots = () => scheduler?.slots() ?? [];
  const gpus = config.role === 'api' ? undefined : opened.last('gpus', await GpuWatch.open(() => readGpus(surroundings.env)));
  const traces =
    config.traces &&
    (await openTraces({
      ...config.traces,
      version: surroundings.version,
      node: config.node,
      onError: (err) => log.warn({ err }, 'spans could not be sent to FFJOBS_TRACES_ENDPOINT, and are lost'),
    }));
  if (traces) opened.last('traces', traces);
  metrics.bind({
    jobsByStatus: async () => [...(await store.overview(60_000)).totals].map(([status, count]) => [JobStatus[status].toLowerCase(), count]),
    slotsByState: () => countBy(ownSlots().map((slot) => WorkerState[slot.state].toLowerCase())),
    watchers: () => watchers,
    workerRestarts: () => ownSlots().reduce((sum, slot) => sum + slot.restarts, 0),
    gpus: () => gpus?.all ?? [],
  });
  if (config.metricsPort !== 0) {
    const { metricsHost: host, metricsPort: port, metricsTokenFile } = config;
    const token = metricsTokenFile === undefined ? undefined : await readToken(metricsTokenFile);
    const metricsServer = await serveMetrics(metrics, { host, port, token });
    opened.last('metrics', { [Symbol.asyncDispose]: () => new Promise<void>((resolve) => metricsServer.close(() => resolve())) });
  }
  const webConsole =
    config.console && config.role !== 'worker'
      ? await openConsole({
          dir: join(surroundings.root, 'web', 'dist'),
          mediaOrigins: await resultOrigins(config, blobs),
        })
      : undefined;
  const server = await createServer({
    services: [...services, ...reflectionServices(services.map((one) => one.desc))],
    restServices: served,
    interceptors: interceptors(authorize(guard), SELF_VALIDATED),
    guard,
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
    // "The bytes in any number of chunks", of 1 MiB at most.
    splittable: { [`${UploadService.typeName}.${UploadService.method.upload.name}`]: { field: 'chunk', maxBytes: 1024 * 1024 } },
    version: surroundings.version,
    text: { 'facefusion.jobs.v1.WatchResponse': eventLine },
    corsOrigins: config.corsOrigins,
    hostNames: config.hostNames && new Set(config.hostNames),
    examples: { 'facefusion.jobs.v1.JobRequest': EXAMPLE_JOB },
    openApiHeaders: Object.fromEntries(
      [JobService.method.submit, JobService.method.submitBatch, ProcessService.method.swap, ProcessService.method.enhance].map((method) => [
        `${method.parent.typeName}.${method.name}`,
        [IDEMPOTENCY_HEADER],
      ]),
    ),
    async ready() {
      const slots = ownSlots();
      const engine = fleet.isReady ? fleet.engine() : undefined;
      const warm = config.role === 'worker' ? scheduler?.capabilities() !== undefined : engine !== undefined;
      const facts = {
        role: config.role,
        engine: engine?.name ?? config.engine,
        engine_version: engine?.version ?? null,
        slots: slots.length,
      };
      if (opened.closing) return { ready: false, facts: { ...facts, reason: 'the service is shutting down' } };
      if (!warm) {
        const nobody = config.role === 'api' ? 'no node of the fleet has a warm worker yet' : 'the first worker is not warm yet';
        return { ready: false, facts: { ...facts, reason: slots.find((slot) => slot.problem)?.problem ?? nobody } };
      }
      try {
        await store.ping();
      } catch (error) {
        log.error({ err: error }, 'the job store does not answer');
        return { ready: false, facts: { ...facts, reason: error instanceof JobsError ? error.message : 'the job store does not answer' } };
      }
      return { ready: true, facts };
    },
    openApiExtra: config.role === 'worker' ? undefined : uploadsOpenApi(FORM_PATH, TUS_PATH),
    openApiSecurity: securityOf(config),
    routes(app, callerOf) {
      if (config.role === 'worker') return;
      addBlobRoutes(app);
      const common = { tenantOf: uploaderOf(guard, callerOf, reportOf(log)), report: reportOf(log) };
      void app.register(async (ways) => {
        noteRoutes(ways, guard, callerOf);
        registerMultipartUploads(ways, { uploads, path: FORM_PATH, ...common });
        registerTus(ways, { uploads, path: TUS_PATH, ...common });
      });
      // Who opens the address in a browser wants to be shown something.
      if (webConsole) webConsole.register(app);
      else app.get('/', (_request, reply) => reply.redirect('docs'));
    },
  });
  opened.last('port', { [Symbol.asyncDispose]: () => server.close() });
  // A node that only works may not reach the world.
  if (config.role !== 'worker') {
    const work: WebhookWork = {
      store,
      present: presenter(jobs),
      count: (outcome, why) => metrics.webhook(outcome, why),
      onError: (error) => log.error({ err: error }, 'webhooks could not be sent; tried again'),
    };
    opened.last('webhooks', webhooks.start(work));
  }
  if (config.role !== 'api') {
    const marker = await markerOf(config, surroundings, log, policies);
    if (marker) opened.last('marker', marker);
    const workRoot = join(config.dataDir, 'work');
    const processes = await engineProcesses(config, {
      env: surroundings.env,
      root: surroundings.root,
      workRoot,
      gpus: gpus?.all.map(({ index }) => index) ?? [],
    });
    // Opened after the port, so that it ends first: while jobs finish, callers can still see them do it.
    scheduler = await Scheduler.open({
      node: config.node,
      store,
      slots: processes.slots,
      worker: processes.worker,
      workRoot,
      handOver: processes.isolation?.handOver,
      gpuUtilization: (index) => gpus?.utilization(index),
      observe: (job, attempt) => metrics.jobs.stayed(stayOf(job, attempt)),
      admit: (signal) => room.wait(DISK, config.storePatienceMs, signal),
      traces,
      async prepare(job, folder, signal, report, inputs) {
        let known = 0;
        const counting = (done: number, total: number) => {
          metrics.jobs.fetched(Math.max(0, done - known));
          known = done;
          report(done, total);
        };
        const resolver = takingResults(places.references(job.tenant), inputs, blobs);
        const engine = fleet.localEngine() ?? fleet.engine();
        const models = scheduler?.capabilities()?.models ?? '';
        const cache = { ttlMs: config.cacheTtlMs, shared: config.cacheShared, models };
        const rules = { policy: policies.tenant(job.tenant), marker };
        return await prepare({ resolver, probe, report: counting }, cache, rules, engine, job, folder, signal);
      },
      async storeResult(outputPath, context) {
        const { marking, done, signal, job, warn } = context;
        // Last of all that is done to the bytes, before their digest is taken.
        const marked = marking && (await marker!.mark(outputPath, dirname(outputPath), mediaTypeOf(done), marking, signal));
        if (marked && 'reason' in marked) return marked;
        if (marked) warn(marked.warnings);
        return await storeResult(blobs, places.outputs(job.tenant), outputPath, marked, context);
      },
      takeResult: async (result, path, context) => {
        await blobs.fetch(result.sha256, path, context.signal, context.report);
        return await deliver(places.outputs(context.job.tenant), path, result, context);
      },
      hasBytes: async ({ sha256 }) => (await blobs.stat(sha256)) !== undefined,
      onMatched: (found) => metrics.jobs.matched(found === 'cached' ? 'hit' : found === 'joined' ? 'join' : 'miss'),
      retentionMs: ({ request }) => (request?.retention ? durationMs(request.retention) : config.resultTtlMs),
      storePatienceMs: config.storePatienceMs,
      runTimeoutMs: config.runTimeoutMs,
      cancelGraceMs: config.cancelGraceMs,
      logger: log,
    });
    const opening = scheduler;
    opened.last('workers', { [Symbol.asyncDispose]: () => opening.drain(config.drainTimeoutMs) });
    fleet.attach(opening);
  }

  address = await server.listen(config.host, config.port);
  for (const { desc } of served) health.set(desc.typeName, ServingStatus.SERVING);
  health.set('', ServingStatus.SERVING);
  health.set(WORKERS, ServingStatus.NOT_SERVING);
  const followWorkers = () => {
    health.set(WORKERS, fleet.isWarm ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
  };
  fleet.onChange = followWorkers;
  followWorkers();
  // First of all when the service goes: whoever asks is told to look elsewhere.
  opened.first(() => health.shutdown());
  const { home, installed } = config.facefusion ?? {};
  log.info(
    { address, role: config.role, engine: config.engine, home, installed, slots: config.slots, data: config.dataDir },
    'the service listens',
  );
  void scheduler?.ready.then(() => {
    const warm = fleet.localEngine();
    if (warm) log.info({ engine: warm.name, version: warm.version }, `the engine ${warm.name} ${warm.version} is warm`);
  });
  return { address, scheduler, unfit: scheduler?.unfit ?? new Promise<string>(() => {}), close: () => opened.close() };
}

/** What the metrics count of a job that has ended. */
function endOf({ status, error, cached }: Job): EndedJob {
  return { status: JobStatus[status].toLowerCase(), reason: error?.reason ?? '', cached };
}

/** And of its stay on this node, which ended it or put it back. */
function stayOf(job: Job, { slot, timings }: { readonly slot: string | undefined; readonly timings: Timings }): Stay {
  const processors = job.request?.parameters?.processors;
  return {
    ...endOf(job),
    processors: Array.isArray(processors) ? processors.map(String) : [],
    queuedSeconds: timings.queuedSeconds,
    prepareSeconds: timings.prepareSeconds,
    runSeconds: timings.runSeconds,
    storeSeconds: timings.storeSeconds,
    slotSeconds: timings.gpuSeconds,
    slot: slot ?? '',
    resultBytes: Number(job.result?.bytes ?? 0),
  };
}

/** From a claimed job to what the engine is given. Parameters are resolved again: the engine may be another one than at submit. */
async function prepare(
  fetching: FetchingOptions,
  cache: { readonly ttlMs: number; readonly shared: boolean; readonly models: string },
  rules: { readonly policy: TenantPolicy; readonly marker: Marker | undefined },
  engine: Engine,
  job: Job,
  folder: string,
  signal: AbortSignal,
): Promise<Prepared | Failure> {
  const request = job.request!;
  const target = request.target.case === 'targetVideo' ? 'video' : 'image';
  const { parameters, processors, violations } = resolveParameters(request.parameters ?? {}, target, engine);
  // What is denied may have come since, or with the other engine's defaults.
  const [wrong] = [
    ...violations,
    ...deniedValues({ ...parameters, processors: [...processors] }, rules.policy.denied, engine.capabilities),
  ];
  if (wrong) {
    const message = `${wrong.field}: ${wrong.description} (the engine is not the one that took the job)`;
    return { reason: 'PARAMETERS_NOT_VALID', message, retryable: false };
  }
  const inputs = await fetchInputs(fetching, request, folder, signal);
  if ('reason' in inputs) return inputs;
  const { imageFormats, videoFormats } = engine.capabilities;
  const outputFormat = request.outputFormat ?? resultFormat(inputs.targetType, target === 'video' ? videoFormats : imageFormats);
  const sources = inputs.digests.slice(1, 1 + request.sourceImages.length);
  const marking = rules.marker?.markingOf(rules.policy.mark, { engine: engine.name, processors });
  const facts: RunFacts = {
    // A mark is made for whoever publishes the result.
    tenant: cache.shared && !marking ? undefined : job.tenant,
    target: { kind: target, sha256: inputs.digests[0]! },
    sources,
    audio: request.sourceAudio === undefined ? undefined : inputs.digests.at(-1),
    parameters,
    outputFormat,
    marking: marking?.key,
    engine: { name: engine.name, version: engine.version, models: cache.models },
  };
  const shares = cache.ttlMs > 0 && request.cache !== CachePolicy.OFF;
  return {
    sourcePaths: [...inputs.sourcePaths],
    sourceAudioPath: inputs.sourceAudioPath,
    targetPath: inputs.targetPath,
    targetKind: target === 'video' ? MediaKind.VIDEO : MediaKind.IMAGE,
    outputFormat,
    parameters,
    ...(marking && {
      marking: {
        ...marking,
        kind: target,
        extension: outputFormat,
        engine: { name: engine.name, version: engine.version },
        processors,
        parameters,
        inputs: markedInputs(inputs),
      },
    }),
    ...(shares && { like: { fingerprint: fingerprintOf(facts), runs: request.cache === CachePolicy.REFRESH, keepMs: cache.ttlMs } }),
  };
}

/** As a manifest names them. */
function markedInputs({ targetPath, sourcePaths, sourceAudioPath, types, digests }: Inputs): MarkedInput[] {
  const paths = [targetPath, ...sourcePaths, ...(sourceAudioPath === '' ? [] : [sourceAudioPath])];
  return paths.map((path, i) => ({
    path,
    title: i === 0 ? 'target' : i <= sourcePaths.length ? `source ${i}` : 'sound',
    mediaType: types[i]!,
    sha256: digests[i]!,
  }));
}

const IDEMPOTENCY_HEADER = {
  name: 'Idempotency-Key',
  description: 'The same key with the same request gives the same job for 24 h; as idempotency_key in the request',
  example: 'order-17',
};

/** From an engine's output to a result that callers can fetch, and a copy where the job wants one. */
async function storeResult(
  blobs: BlobStore,
  copies: Outputs,
  outputPath: string,
  marked: Marked | undefined,
  context: StoreContext,
): Promise<MediaResult | Failure> {
  const { done, signal, pin, report } = context;
  const mediaType = mediaTypeOf(done);
  const path = marked?.path ?? outputPath;
  const { key, bytes } = await blobs.put(path, mediaType, { signal, pin, progress: report });
  const { width, height, frames, durationSeconds } = done;
  const facts = { mediaType, bytes: BigInt(bytes), sha256: key, width, height, frames, durationSeconds };
  return await deliver(copies, path, create(MediaResultSchema, { ...facts, provenance: marked?.provenance }), context);
}

/** It becomes a header: what does not look like one is not passed on as one. */
function mediaTypeOf({ mediaType }: StoreContext['done']): string {
  return MEDIA_TYPE.test(mediaType) ? mediaType : 'application/octet-stream';
}

/** A copy of the result where the job wants one. */
async function deliver(
  copies: Outputs,
  path: string,
  result: MediaResult,
  { job, signal, report }: Pick<StoreContext, 'job' | 'signal' | 'report'>,
): Promise<MediaResult | Failure> {
  const wanted = job.request?.outputUri;
  if (!wanted) return result;
  const { sha256, mediaType } = result;
  const filename = `${job.jobId}${extname(path)}`;
  const copy = { jobId: job.jobId, path, sha256, bytes: Number(result.bytes), mediaType, filename };
  const delivered = await copies.deliver(wanted, copy, { signal, progress: report });
  return 'reason' in delivered ? delivered : { ...result, outputUri: delivered.uri };
}

/** How callers prove who they are, as the OpenAPI document says it; undefined: nobody has to. */
function securityOf({ apiKeys, jwt, tlsClientCa, identities, anonymousScopes }: Config) {
  if (!identities) return undefined;
  const format = [apiKeys && 'an API key (ffj_...)', jwt && 'a token (JWT) of the identity provider'].filter(Boolean).join(' or ');
  const schemes: Record<string, { readonly [key: string]: unknown }> = {
    ...(format !== '' && { bearer: { type: 'http', scheme: 'bearer', description: `${format}, in the header Authorization` } }),
    ...(format !== '' && { apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'The same, in a header of its own' } }),
    ...(tlsClientCa !== undefined && {
      mutualTLS: { type: 'mutualTLS', description: 'A client certificate that the operator has listed' },
    }),
  };
  return { schemes, optional: anonymousScopes !== undefined };
}

/** On the page of documentation, to begin with: the media that `npm run demo` leaves. */
const EXAMPLE_JOB = {
  source_images: ['demo/eileen_collins.jpg'],
  target_image: 'demo/grace_hopper.jpg',
  parameters: { processors: ['face_swapper'] },
};

/** Undefined: nobody's results are marked. Throws where they are to be, and cannot. */
async function markerOf(config: Config, surroundings: Surroundings, log: Logger, policies: Policies): Promise<Marker | undefined> {
  const tenants = [...policies.tenants].filter(([, { mark }]) => mark.signed).map(([name]) => name);
  const everybody = policies.tenant('').mark.signed;
  if (!everybody && tenants.length === 0) return undefined;
  const files = config.provenanceSigner;
  if (!files) {
    throw new JobsError(
      'failed_precondition',
      'PROVENANCE_CANNOT_SIGN',
      `the results of ${everybody ? 'all tenants' : `the tenant ${tenants[0]}`} are to be marked (FFJOBS_TENANTS), and there is nothing to sign with: ` +
        'set FFJOBS_PROVENANCE_CERT and FFJOBS_PROVENANCE_KEY',
    );
  }
  const program = {
    command: config.provenancePython ?? probePython(config),
    packageDir: join(surroundings.root, 'worker'),
    environment: surroundings.env,
    memoryBytes: config.workerMemoryBytes,
  };
  const { provenanceSourceType: sourceType, runTimeoutMs: timeoutMs } = config;
  return await openMarker({ program, files, sourceType, version: surroundings.version, timeoutMs, log });
}

function examiner(config: Config, { env, root }: Surroundings, log: Logger): Probe {
  return openProbe({
    command: probePython(config),
    packageDir: join(root, 'worker'),
    environment: env,
    limits: {
      imagePixels: config.maxImagePixels,
      videoPixels: config.maxVideoPixels,
      side: MAX_SIDE,
      frames: config.maxFrames,
      seconds: config.maxDurationMs / 1000,
      streams: MAX_STREAMS,
    },
    children: PROBES_AT_ONCE,
    memoryBytes: PROBE_MEMORY_BYTES,
    cpuMs: config.probeCpuMs,
    wallMs: config.probeCpuMs * 2.5,
    verdicts: 10_000,
    log,
  });
}

async function accessOf(
  config: Config,
  { version }: Surroundings,
  log: Logger,
  { store, counters }: { readonly store: JobStore; readonly counters: AccessOptions['counters'] },
  policies: Policies,
): Promise<Access> {
  return await openAccess({
    keyStore: store.keys,
    counters,
    apiKeys: config.apiKeys,
    tokens: config.jwt,
    certificates: config.tlsClientCa !== undefined,
    policies,
    anonymous: config.anonymousScopes,
    anonymousRate: config.anonymousRate,
    countLocal: config.limitLoopback,
    proxies: config.trustedProxies,
    audit:
      config.audit === undefined
        ? undefined
        : { to: config.audit === 'stdout' ? (text) => void process.stdout.write(text) : config.audit, maxBytes: config.auditMaxBytes },
    version,
    onProblem: (error, what) => log.error({ err: error }, what),
  });
}

/** Files that are no connections: inputs, results, stores, pipes of workers. */
const OTHER_FILES = 1000;

/** A connection is an open file: where they take all of them, no job can open its own. */
function connectionsOf({ maxConnections }: Config, log: Logger): number {
  const files = openFilesLimit();
  const room = files === undefined ? maxConnections : Math.max(16, files - Math.min(OTHER_FILES, files / 2));
  if (room >= maxConnections) return maxConnections;
  log.info({ connections: room, open_files: files }, 'fewer connections than FFJOBS_MAX_CONNECTIONS: this process may open no more files');
  return room;
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

/** What lies behind an error that its caller sees in other words. */
function reportOf(log: Logger): Report {
  return (err, reference) => log.error({ err, reference }, reference === undefined ? 'a call could not be served' : 'internal error');
}

/** Where pages fetch results from besides the service itself, which their policy has to allow: told by a URL as it is signed for callers. */
async function resultOrigins({ publicUrl }: Config, blobs: Pick<BlobStore, 'signedUrl'>): Promise<string[]> {
  const key = createHash('sha256').digest('hex');
  const signed = await blobs.signedUrl(key, { expiresMs: Date.now() + 60_000, filename: 'x', mediaType: 'image/png' });
  return [publicUrl, signed].filter((url) => url !== undefined && URL.canParse(url)).map((url) => new URL(url!).origin);
}

function countBy(names: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}
