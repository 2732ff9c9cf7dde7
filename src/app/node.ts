// The half of the service that runs jobs: the workers with what is done for each job around its run. Always true: it is opened after the port and closed before
// it, so that while jobs finish or go back, callers can still see them do it.
import { join } from 'node:path';
import { durationMs } from '@bufbuild/protobuf/wkt';
import type { Policies } from '../access/policies.ts';
import type { Config } from '../config.ts';
import { type GpuFacts, GpuWatch, readGpus } from '../gpu/devices.ts';
import { Scheduler } from '../gpu/scheduler.ts';
import { JobsError } from '../jobs/errors.ts';
import type { BlobStore, JobStore } from '../jobs/ports.ts';
import type { Traces } from '../jobs/traces.ts';
import { openProbe, type Probe } from '../media/probe.ts';
import { type Marker, openMarker } from '../provenance/marker.ts';
import type { Logger } from '../telemetry/logs.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Closing } from './closing.ts';
import { engineProcesses, probePython } from './engine-process.ts';
import type { Fleet } from './fleet.ts';
import { Machine } from './machine.ts';
import { stayOf } from './measuring.ts';
import type { Places } from './places.ts';
import { preparing } from './prepare.ts';
import { resultsIn } from './results.ts';

export interface NodeOptions {
  readonly config: Config;
  /** Where variables of the workers are taken from. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The installed package: holds `worker/`. */
  readonly root: string;
  readonly version: string;
  readonly log: Logger;
  readonly opened: Closing;
  readonly store: JobStore;
  readonly blobs: BlobStore;
  readonly policies: Policies;
  readonly places: Places;
  /** Is told of the slots, and asked what other engines there are. */
  readonly fleet: Fleet;
  readonly metrics: Metrics;
  readonly traces: Pick<Traces, 'job'> | undefined;
  /** Waits until the disk has room for another job's files. Throws STORAGE_FULL where that will not be. */
  readonly waitForRoom: (signal: AbortSignal) => Promise<void>;
  /** Bytes that the disk of the data folder has left. */
  readonly diskFree: () => Promise<number>;
}

export interface Node {
  readonly scheduler: Scheduler;
  /** As last seen. */
  gpus(): readonly GpuFacts[];
}

const PROBES_AT_ONCE = 2;
const PROBE_MEMORY_BYTES = 1536 * 1024 * 1024;
/** By the clock, to the processor time that an examination may take. */
const PROBE_WALL_FACTOR = 2.5;
const PROBE_VERDICTS = 10_000;
/** Pixels; JPEG and WebP end there or soon after, and so do encoders. */
const MAX_SIDE = 16_384;
const MAX_STREAMS = 32;

/** Starts the workers, and claims as soon as one is warm. Throws, in words, where they cannot be started as the settings want it. */
export async function openNode(options: NodeOptions): Promise<Node> {
  const { config, env, root, log, opened, store, blobs, policies, places, fleet, metrics, traces } = options;
  const gpus = opened.last('gpus', await GpuWatch.open(() => readGpus(env)));
  const machine = new Machine({ node: config.node, gpus: () => gpus.all, diskFree: options.diskFree });
  void machine.look();
  const probe = config.probe ? opened.last('probe', examiner(options)) : undefined;
  const marker = await openMarks(options);
  const workRoot = join(config.dataDir, 'work');
  const processes = await engineProcesses(config, { env, root, workRoot, gpus: gpus.all.map(({ index }) => index) });
  const models = () => scheduler.capabilities()?.models ?? '';
  const scheduler: Scheduler = await Scheduler.open({
    node: config.node,
    store,
    slots: processes.slots,
    worker: processes.worker,
    workRoot,
    isOffered: (slot) => fleet.isOffered(slot),
    handOver: processes.isolation?.handOver,
    removeFolder: processes.isolation?.remove,
    gpuUtilization: (index) => gpus.utilization(index),
    observe: (job, attempt) => metrics.jobs.stayed(stayOf(job, attempt)),
    admit: options.waitForRoom,
    traces,
    prepare: preparing({
      engine: () => fleet.localEngine() ?? fleet.engine(),
      models,
      references: (tenant) => places.references(tenant),
      policyOf: policies.tenant,
      blobs,
      probe,
      marker,
      cache: { ttlMs: config.cacheTtlMs, shared: config.cacheShared },
      onFetched: (bytes) => metrics.jobs.fetched(bytes),
    }),
    ...resultsIn({ blobs, outputs: (tenant) => places.outputs(tenant), marker, takeBack: processes.isolation?.takeBack }),
    onMatched: (found) => metrics.jobs.matched(found === 'cached' ? 'hit' : found === 'joined' ? 'join' : 'miss'),
    retentionMs: ({ request }) => (request?.retention ? durationMs(request.retention) : config.resultTtlMs),
    storePatienceMs: config.storePatienceMs,
    runTimeoutMs: config.runTimeoutMs,
    cancelGraceMs: config.cancelGraceMs,
    logger: log,
  });
  opened.last('workers', { [Symbol.asyncDispose]: () => scheduler.drain(config.drainTimeoutMs) });
  fleet.attach(scheduler, machine);
  void scheduler.ready.then(() => {
    const warm = fleet.localEngine();
    if (warm) log.info({ engine: warm.name, version: warm.version }, `the engine ${warm.name} ${warm.version} is warm`);
  });
  return { scheduler, gpus: () => gpus.all };
}

function examiner({ config, env, root, log }: NodeOptions): Probe {
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
    wallMs: config.probeCpuMs * PROBE_WALL_FACTOR,
    verdicts: PROBE_VERDICTS,
    log,
  });
}

/** Undefined: nobody's results are marked. Throws where they are to be, and cannot. */
async function openMarks({ config, env, root, version, log, opened, policies }: NodeOptions): Promise<Marker | undefined> {
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
    packageDir: join(root, 'worker'),
    environment: env,
    memoryBytes: config.workerMemoryBytes,
  };
  const { provenanceSourceType: sourceType, runTimeoutMs: timeoutMs } = config;
  return opened.last('marker', await openMarker({ program, files, sourceType, version, timeoutMs, log }));
}
