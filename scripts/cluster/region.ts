// What a fleet on this machine is made of, for the scripts that show one: its inputs, its bucket, its services. Whoever starts one disposes of it.
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { WorkerState } from '../../gen/facefusion/jobs/v1/system_service_pb.js';
import { run } from '../../src/cli/local/python.ts';
import type { Service } from '../../src/cli/remote/client.ts';
import { CliError, Exit } from '../../src/cli/remote/errors.ts';
import { type ServiceProcess, startServiceProcess } from './service-process.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const READY_MS = 120_000;

export const PORTRAITS = ['eileen_collins.jpg', 'grace_hopper.jpg'] as const;
export const CLIP = 'clip.mp4';

/** Any keys do for the S3 server of the tests. */
const S3_KEYS = { AWS_ACCESS_KEY_ID: 'demo', AWS_SECRET_ACCESS_KEY: 'demo' };

/** The two portraits. The folder is made. */
export async function copyPortraits(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const name of PORTRAITS) await copyFile(join(ROOT, 'samples', name), join(folder, name));
}

/** The two portraits, and a clip that is made of one: of so many seconds, or as long as samples are. The folder is made. */
export async function makeInputs(python: string, folder: string, signal: AbortSignal, seconds?: number): Promise<void> {
  await copyPortraits(folder);
  const length = seconds === undefined ? [] : ['--seconds', `${seconds}`];
  const env = { ...process.env, PYTHONPATH: join(ROOT, 'worker'), PYTHONDONTWRITEBYTECODE: '1' };
  const { code, stderr } = await run(python, ['-m', 'facefusion_worker.samples', folder, ...length], env, signal);
  if (code !== 0) throw new CliError(Exit.failed, `the sample clip could not be made: ${stderr.trim().split('\n').at(-1)}`);
}

/** Close it with `destroy`. */
export function s3Client(endpoint: string): S3Client {
  const credentials = { accessKeyId: S3_KEYS.AWS_ACCESS_KEY_ID, secretAccessKey: S3_KEYS.AWS_SECRET_ACCESS_KEY };
  return new S3Client({ endpoint, region: 'us-east-1', credentials, forcePathStyle: true });
}

export async function makeBucket(endpoint: string, bucket: string): Promise<void> {
  const client = s3Client(endpoint);
  try {
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
  } finally {
    client.destroy();
  }
}

export interface Region {
  readonly redis: string;
  readonly s3: string;
  readonly bucket: string;
  readonly inputs: string;
  readonly python: string;
  /** Where each service has a data folder and a log of its own. */
  readonly folder: string;
  /** Seconds until what a node has that says nothing more goes to another. */
  readonly leaseSeconds: number;
  readonly apis: readonly string[];
  readonly nodes: readonly string[];
}

export interface Services {
  readonly byName: ReadonlyMap<string, ServiceProcess>;
  /** Base URLs of the replicas, in their order. */
  readonly addresses: readonly string[];
}

/** Its replicas and nodes, each listening; they end with `open`. */
export async function startServices(region: Region, open: AsyncDisposableStack): Promise<Services> {
  const settings = {
    STORE: region.redis,
    BLOBS: `s3://${region.bucket}/results`,
    S3_ENDPOINT: region.s3,
    INPUT_ROOT: region.inputs,
    ENGINE: 'classical',
    PYTHON: region.python,
    CONSOLE: 'off',
    LEASE: `${region.leaseSeconds}s`,
  };
  const byName = new Map<string, ServiceProcess>();
  for (const name of [...region.apis, ...region.nodes]) {
    const own = { NODE: name, ROLE: region.apis.includes(name) ? 'api' : 'worker', DATA_DIR: join(region.folder, name) };
    const log = join(region.folder, `${name}.log`);
    byName.set(name, open.use(startServiceProcess({ settings: { ...settings, ...own }, env: S3_KEYS, log })));
  }
  const addresses = await Promise.all([...byName.values()].map(({ listening }) => listening)).catch((error: Error) => {
    throw new CliError(Exit.failed, error.message);
  });
  return { byName, addresses: addresses.slice(0, region.apis.length) };
}

/** Until so many slots have a warm worker, as the replica sees it. */
export async function warm(service: Service, count: number, signal: AbortSignal): Promise<void> {
  for (const until = performance.now() + READY_MS; ; await delay(200, undefined, { signal })) {
    const { slots } = await service.system.listSlots({}, { signal });
    if (slots.filter(({ state }) => state === WorkerState.IDLE || state === WorkerState.BUSY).length >= count) return;
    if (performance.now() > until) {
      const problem = slots.find((slot) => slot.problem)?.problem;
      throw new CliError(
        Exit.failed,
        `after ${READY_MS / 1000} s not all of the ${count} nodes had a warm worker${problem ? `: ${problem}` : ''}`,
      );
    }
  }
}
