// Where jobs, results and the bytes of uploads are kept: the adapters that the settings name. Whatever is large and not named is not loaded.
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import type { AccessOptions } from '../access/access.ts';
import type { Policies } from '../access/policies.ts';
import type { Config } from '../config.ts';
import type { Job } from '../jobs/job.ts';
import type { BlobStore, JobStore, NodeRegistry } from '../jobs/ports.ts';
import { openLocalUploadBytes, type UploadBytes } from '../media/upload-files.ts';
import { registerBlobRoutes } from '../store/blobs-http.ts';
import { openLocalBlobStore } from '../store/blobs-local.ts';
import { migrateSqliteJobStore, openSqliteJobStore } from '../store/jobs-sqlite.ts';
import type { Inspected } from '../store/redis/inspect.ts';
import type { Logger } from '../telemetry/logs.ts';
import type { Closing } from './closing.ts';

/** The job store, and who else is in its fleet. `onEnded`: told of each job that a step of this process has ended. */
export async function openStore(
  config: Config,
  policies: Policies,
  log: Logger,
  opened: Closing,
  onEnded: (job: Job) => void,
): Promise<{ readonly store: JobStore; readonly nodes: NodeRegistry | undefined; readonly counters: AccessOptions['counters'] }> {
  const shares = sharesOf(policies);
  const webhooks = { fallback: config.webhookUrl, maxNews: config.maxWebhookNews };
  if (config.storeRedis === undefined) {
    return {
      store: opened.last('job store', await openSqliteJobStore({ path: config.storePath, webhooks, onEnded, log, ...shares })),
      nodes: undefined,
      counters: undefined,
    };
  }
  const { openRedisJobStore } = await import('../store/jobs-redis.ts');
  const store = opened.last(
    'job store',
    await openRedisJobStore({
      url: config.storeRedis,
      fleet: config.fleet,
      leaseMs: config.leaseMs,
      webhooks,
      onEnded,
      log,
      ...shares,
    }),
  );
  if (config.blobsS3 === undefined) {
    const words = 'results are kept in a local folder: every node of the fleet must have the same one, or set FFJOBS_BLOBS=s3://...';
    log.warn({ blobs: config.blobsPath }, words);
  }
  return { store, nodes: store.nodes, counters: store.counters };
}

/** Brings the job store to the schema of this version; `schemas` undefined: there is none. Throws an `Error` that can be shown. */
export async function migrateStore(
  { storeRedis, storePath, fleet }: Config,
  report: (line: string) => void,
): Promise<{ readonly store: string; readonly schemas: { readonly from: number; readonly to: number } | undefined }> {
  if (storeRedis === undefined) return { store: storePath, schemas: migrateSqliteJobStore(storePath) };
  const { migrateRedisJobStore } = await import('../store/redis/migrate.ts');
  const told = (schema: number, moved: number) => report(`schema ${schema}: ${moved} things moved`);
  return await migrateRedisJobStore({ url: storeRedis, fleet, report: told });
}

/** What a Redis is like for that fleet; nothing is changed there. Throws an `Error` that can be shown. */
export async function inspectFleetStore(at: { readonly url: string; readonly fleet: string }): Promise<Inspected> {
  const { inspectRedisJobStore } = await import('../store/redis/inspect.ts');
  return await inspectRedisJobStore(at);
}

/** The store of results. */
export interface Blobs {
  readonly store: BlobStore;
  /** Adds the routes that its URLs lead to, where they lead to this service. */
  readonly addRoutes: (app: FastifyInstance) => void;
}

export async function openBlobs(config: Config, jobs: Pick<JobStore, 'id'>, opened: Closing): Promise<Blobs> {
  if (config.blobsS3 === undefined) {
    const store = await openLocalBlobStore({ dir: config.blobsPath });
    return { store, addRoutes: (app) => registerBlobRoutes(app, store) };
  }
  // The SDK is large; who does not use it does not load it.
  const { openS3BlobStore } = await import('../store/blobs-s3.ts');
  const store = await openS3BlobStore({
    connection: config.s3,
    publicEndpoint: config.s3PublicEndpoint,
    bucket: config.blobsS3.bucket,
    prefix: config.blobsS3.key,
    jobStore: jobs.id,
    scratch: join(config.dataDir, 'blobs-scratch'),
  });
  return { store: opened.last('blob store', store), addRoutes: () => {} };
}

/** Where the bytes of uploads lie: where results do, so that every process of a fleet has them. */
export async function openUploadBytes({ blobsS3, s3, dataDir, minFreeBytes }: Config): Promise<UploadBytes> {
  if (blobsS3 === undefined) return await openLocalUploadBytes({ dir: join(dataDir, 'uploads'), minFreeBytes });
  const { openS3UploadBytes } = await import('../media/upload-s3.ts');
  return openS3UploadBytes({ connection: s3, bucket: blobsS3.bucket, prefix: `${blobsS3.key}uploads/` });
}

/** What the job store has to know of tenants. */
function sharesOf({ tenant, tenants }: Policies) {
  return {
    weights: tenants.size > 0 ? Object.fromEntries([...tenants].map(([name, { weight }]) => [name, weight])) : undefined,
    maxRunning: (name: string) => tenant(name).quotas.runningJobs,
  };
}
