// Where each tenant's media come from, and where its results are copied to. Always true: where callers have identities, a tenant has folders and
// buckets of its own (those that the operator listed for it, or else the folder of its name, and no bucket); without, there is one tenant, and
// the settings speak of it.
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Policies, Tenant } from '../access/policies.ts';
import type { Config } from '../config.ts';
import { DEFAULT_TENANT } from '../jobs/caller.ts';
import { JobsError } from '../jobs/errors.ts';
import { openHttp } from '../media/http.ts';
import { localFiles, type MediaResolver, mediaReferences } from '../media/references.ts';
import { isWithin } from '../s3/names.ts';
import { CopiesUnderWay, type LeftOver } from '../store/copies-under-way.ts';
import { folderOutputs, type Outputs, outputs } from '../store/outputs.ts';

export interface PlacesOptions {
  readonly config: Config;
  readonly policies: Policies;
  /** Resolvers that take the place of ours. */
  readonly given: readonly MediaResolver[];
  readonly uploads: MediaResolver;
  readonly jobs: MediaResolver;
  /** Told of each copy that was left half and could not be removed. */
  readonly leftOver: LeftOver;
  /** Told of each thing that has to be closed. */
  readonly open: <T extends AsyncDisposable>(name: string, disposable: T) => T;
}

export interface Places {
  references(tenant: string): MediaResolver;
  outputs(tenant: string): Outputs;
}

/** What of the operator's file and of the settings is for one tenant. */
type Listed = Pick<Tenant, 'inputRoot' | 'inputBuckets' | 'outputRoots' | 'outputBuckets'>;

/** Throws an `Error` that can be shown where an output folder is not there. */
export async function openPlaces(options: PlacesOptions): Promise<Places> {
  const { config, policies } = options;
  const all = config.identities ? [...policies.tenants.values(), policies.tenant('')] : [];
  for (const root of [...config.outputRoots, ...all.flatMap((one) => one.outputRoots)]) await assertFolder(root);
  const references = await openReferences(options, all);
  const copies = await openOutputs(options, all);
  if (!config.identities) {
    const { inputRoot, s3Buckets: inputBuckets, outputRoots, outputBuckets } = config;
    const listed = { inputRoot, inputBuckets, outputRoots, outputBuckets };
    const one = { references: references(listed), outputs: copies(listed) };
    return { references: (tenant) => onlyOne(tenant, one.references), outputs: (tenant) => onlyOne(tenant, one.outputs) };
  }
  const listedOf = (tenant: string): Listed => {
    const { inputRoot = join(config.inputRoot, tenant), ...listed } = policies.tenant(tenant);
    return { ...listed, inputRoot };
  };
  return {
    references: remembered((tenant) => references(listedOf(tenant))),
    outputs: remembered((tenant) => copies(listedOf(tenant))),
  };
}

/** A job of a tenant was taken by another node of the fleet, which has identities; here all tenants would read from one folder. */
function onlyOne<T>(tenant: string, theirs: T): T {
  if (tenant === DEFAULT_TENANT) return theirs;
  throw new JobsError(
    'unavailable',
    'TENANT_NOT_SERVED',
    'the node that took this job up knows no tenants, and the job is of one: its operator has to give all nodes the same settings of identities (FFJOBS_API_KEYS, FFJOBS_JWT_..., FFJOBS_TLS_CLIENT_CA) and of tenants (FFJOBS_TENANTS)',
  );
}

function remembered<T>(make: (tenant: string) => T): (tenant: string) => T {
  const known = new Map<string, T>();
  return (tenant) => {
    let found = known.get(tenant);
    if (found === undefined) {
      found = make(tenant);
      known.set(tenant, found);
    }
    return found;
  };
}

/** By all schemes that are configured. */
async function openReferences({ config, given, uploads, jobs, open }: PlacesOptions, tenants: readonly Listed[]) {
  const shared = [uploads, jobs, ...given];
  const isGiven = (scheme: string) => given.some((one) => one.schemes.includes(scheme));
  const schemes = config.httpSchemes.filter((scheme) => !isGiven(scheme));
  if (schemes.length > 0) shared.push(open('downloads', await openDownloads(config, schemes)));
  const needed = !isGiven('s3') && (config.s3Buckets.length > 0 || tenants.some((one) => one.inputBuckets.length > 0));
  const s3 = needed ? open('s3', await openS3Inputs(config)) : undefined;
  return ({ inputRoot, inputBuckets }: Listed): MediaResolver => {
    const own = s3 && inputBuckets.length > 0 ? [s3.within({ buckets: ['*'], mayRead: within(inputBuckets) })] : [];
    return mediaReferences([localFiles(inputRoot!), ...shared, ...own]);
  };
}

async function openOutputs({ config, leftOver, open }: PlacesOptions, tenants: readonly Listed[]) {
  const needed = config.outputBuckets.length > 0 || tenants.some((one) => one.outputBuckets.length > 0);
  const s3 = needed ? open('copies on S3', await openS3Outputs(config)) : undefined;
  const underWay = new CopiesUnderWay(join(config.dataDir, 'copies'));
  // A process that only answers calls copies nothing, and may share its folder with one that does.
  if (config.role !== 'api') await underWay.clear(leftOver);
  return ({ outputRoots, outputBuckets }: Listed): Outputs =>
    outputs({
      folders: outputRoots.length > 0 ? folderOutputs(outputRoots, underWay) : undefined,
      s3: s3 && outputBuckets.length > 0 ? s3.within({ buckets: ['*'], mayWrite: within(outputBuckets) }) : undefined,
    });
}

/** `*` stands for every bucket, and only the settings of a service without tenants can say it. */
function within(places: readonly string[]): (bucket: string, key: string) => boolean {
  return (bucket, key) => places.includes('*') || isWithin(bucket, key, places);
}

async function openDownloads(config: Config, schemes: readonly string[]) {
  return await openHttp({
    dir: join(config.dataDir, 'downloads'),
    hosts: { schemes, allow: config.httpAllow, ports: config.httpPorts },
    cacheBytes: config.httpCacheBytes,
    cacheMs: config.httpCacheTtlMs,
    limits: { maxBytes: config.maxInputBytes, totalMs: config.fetchTimeoutMs },
  });
}

/** The SDK is large; who does not use it does not load it. */
async function openS3Inputs({ s3, maxInputBytes, fetchTimeoutMs }: Config) {
  const { openS3 } = await import('../media/s3.ts');
  return openS3({ connection: s3, buckets: [], maxBytes: maxInputBytes, totalMs: fetchTimeoutMs });
}

async function openS3Outputs({ s3 }: Config) {
  const { openS3Outputs: openCopies } = await import('../store/outputs-s3.ts');
  return openCopies({ connection: s3, buckets: [] });
}

/** One that is not there is a disk that is not mounted, or a slip. */
async function assertFolder(root: string): Promise<void> {
  const found = await stat(root).catch(() => undefined);
  if (!found?.isDirectory()) throw new Error(`results are to be copied to ${root}, which is not a folder: make it, or correct the setting`);
}
