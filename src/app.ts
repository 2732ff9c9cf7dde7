// Composition root: picks the adapters, and knows in which order things start and end. Start: folders, stores, access, media, metrics, the port, the workers; then the
// port listens, and what is told by webhooks begins. End: not ready, no new claims, running jobs finish or go back, calls end, stores close; every step runs, whatever
// another one did.
import { mkdir } from 'node:fs/promises';
import { openConfiguredAccess, policiesOf } from './app/access.ts';
import { Closing } from './app/closing.ts';
import { Drains } from './app/drains.ts';
import { Fleet } from './app/fleet.ts';
import { type Front, openFront } from './app/front.ts';
import { endOf, measure, openMetricsPort } from './app/measuring.ts';
import { type Node, openNode } from './app/node.ts';
import { openPlaces } from './app/places.ts';
import { openBlobs, openStore, openUploadBytes } from './app/storage.ts';
import { openWebhooks } from './app/webhooks.ts';
import type { Config } from './config.ts';
import type { Scheduler } from './gpu/scheduler.ts';
import { FreeSpace } from './media/free-space.ts';
import { jobReferences } from './media/job-results.ts';
import type { MediaResolver } from './media/references.ts';
import { openUploads } from './media/uploads.ts';
import { Retention } from './store/retention.ts';
import { createLogger, type Logger } from './telemetry/logs.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { openTraces } from './telemetry/traces.ts';

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

const DATA_DISK = 'the disk of the data folder';
const RESULT_DISK = 'the disk for results';

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

async function compose(config: Config, surroundings: Surroundings, log: Logger, opened: Closing): Promise<App> {
  for (const folder of [config.dataDir, config.inputRoot]) await mkdir(folder, { recursive: true });
  const { env, root, version } = surroundings;
  const policies = await policiesOf(config);
  const metrics = createMetrics();
  const { store, nodes, counters } = await openStore(config, policies, log, opened, (job) => metrics.jobs.ended(endOf(job)));
  const access = opened.last('access', await openConfiguredAccess({ config, version, log, store, counters, policies }));
  const blobs = await openBlobs(config, store, opened);
  const dataRoom = new FreeSpace({ dir: config.dataDir, minFreeBytes: config.minFreeBytes });
  const resultRoom = config.blobsS3 ? undefined : new FreeSpace({ dir: config.blobsPath, minFreeBytes: config.minFreeBytes });
  const retention = opened.last(
    'retention',
    new Retention({
      store,
      blobs: blobs.store,
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
    leftOver: (file, err) => log.warn({ err, file }, 'a copy that was left half could not be removed; tried again at the next start'),
    open: (name, one) => opened.last(name, one),
  });
  const drains = new Drains({
    store: store.drains,
    log,
    onError: (err) => log.warn({ err }, 'what is out of service cannot be asked for; asked again soon'),
  });
  const fleet = opened.last(
    'fleet',
    new Fleet({ node: config.node, nodes, drains, onError: (err) => log.warn({ err }, 'the fleet cannot be asked') }),
  );
  await fleet.start();
  const webhooks = await openWebhooks(config);
  const traces =
    config.traces &&
    (await openTraces({
      ...config.traces,
      version,
      node: config.node,
      onError: (err) => log.warn({ err }, 'spans could not be sent to FFJOBS_TRACES_ENDPOINT, and are lost'),
    }));
  if (traces) opened.last('traces', traces);
  let front: Front | undefined;
  let node: Node | undefined;
  const figures = { store, slots: () => fleet.ownSlots(), watchers: () => front?.watchers() ?? 0, gpus: () => node?.gpus() ?? [] };
  measure(metrics, figures);
  await openMetricsPort(metrics, config, opened);

  const shared = { config, root, version, log, opened, store, policies, places, fleet, drains, metrics, traces };
  const checkRoom = async () => {
    await dataRoom.check(0, DATA_DISK);
    await resultRoom?.check(0, RESULT_DISK);
  };
  front = await openFront({ ...shared, blobs, access, uploads, retention, webhooks, checkRoom });
  let telling: AsyncDisposable | undefined;
  // After the workers, whose last words are told too.
  opened.last('webhooks', { [Symbol.asyncDispose]: async () => await telling?.[Symbol.asyncDispose]() });
  const waitForRoom = (signal: AbortSignal) => dataRoom.wait(DATA_DISK, config.storePatienceMs, signal);
  const diskFree = () => dataRoom.left();
  node = config.role === 'api' ? undefined : await openNode({ ...shared, env, blobs: blobs.store, waitForRoom, diskFree });

  const address = await front.listen();
  // Not before: what is told has URLs in it. A node that only works may not reach the world.
  if (config.role !== 'worker') {
    telling = webhooks.start({
      store,
      present: front.present,
      count: (outcome, why) => metrics.webhook(outcome, why),
      gaveWay: (count) => metrics.webhooksGaveWay(count),
      onError: (error) => log.error({ err: error }, 'webhooks could not be sent; tried again'),
    });
  }
  const { home, installed } = config.facefusion ?? {};
  log.info(
    { address, role: config.role, engine: config.engine, home, installed, slots: config.slots, data: config.dataDir },
    'the service listens',
  );
  const scheduler = node?.scheduler;
  return { address, scheduler, unfit: scheduler?.unfit ?? new Promise<string>(() => {}), close: () => opened.close() };
}

// For the commands that look after a service without starting it; loaded with it, which is why they come from here.
export { verifyAudit } from './access/audit-chain.ts';
export { openKeys } from './app/access.ts';
export { fileFindings } from './app/setting-files.ts';
export { inspectFleetStore, migrateStore } from './app/storage.ts';
