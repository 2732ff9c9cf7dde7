// Environment (and the file that FFJOBS_CONFIG names) -> one frozen, range-checked, fully defaulted Config, read once at the top.
// Adapters never see it: the composition root hands each what it needs. SETTINGS is the one list of names, ranges and words (who may call: config/access.ts; marks: config/provenance.ts;
// what a value may look like: config/values.ts).
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { ACCESS_SETTINGS, type AccessConfig, accessConfig, accessProblems } from './config/access.ts';
import { type FacefusionConfig, type InstalledEngine, isFacefusionConfigured, readFacefusion } from './config/facefusion.ts';
import { PROVENANCE_SETTINGS, type ProvenanceConfig, provenanceConfig, provenanceProblems } from './config/provenance.ts';
import {
  blobs,
  bucket,
  bytes,
  duration,
  host,
  httpUrl,
  integer,
  isLoopback,
  isRedis,
  limits,
  list,
  numbers,
  offOr,
  oneOf,
  origins,
  Problem,
  part,
  plainName,
  type Setting,
  setting,
  store,
  text,
  user,
  type ValuesOf,
} from './config/values.ts';
import { didYouMean } from './jobs/parameters.ts';
import { redisPlaceOf } from './redis-place.ts';
import type { S3Connection } from './s3/client.ts';
import type { S3Place } from './s3/names.ts';

export interface Config extends AccessConfig, ProvenanceConfig {
  readonly host: string;
  readonly port: number;
  /** 0: no metrics port. */
  readonly metricsPort: number;
  readonly metricsHost: string;
  readonly metricsTokenFile: string | undefined;
  readonly dataDir: string;
  readonly inputRoot: string;
  /** The SQLite file, where `storeRedis` is not set. */
  readonly storePath: string;
  /** URL of the fleet's Redis; may hold a password. */
  readonly storeRedis: string | undefined;
  /** Begins the fleet's keys in Redis. */
  readonly fleet: string;
  /** How long a node of a fleet keeps a job without a word. */
  readonly leaseMs: number;
  readonly role: 'all' | 'api' | 'worker';
  /** What this machine is called in the list of slots. */
  readonly node: string;
  readonly blobsPath: string;
  /** Where results are kept on S3, the key a prefix that is empty or ends with '/'; undefined: in `blobsPath`. */
  readonly blobsS3: S3Place | undefined;
  /** `classical`, `facefusion` or `module:Class`. */
  readonly engine: string;
  /** Subprocess: the program's command line for each job. */
  readonly engineMode: 'persistent' | 'subprocess';
  /** There if, and only if, the engine is `facefusion`. */
  readonly facefusion: FacefusionConfig | undefined;
  readonly modelMemoryBytes: number;
  /** Caps of options, by name. */
  readonly optionLimits: Readonly<Record<string, number>>;
  /** File that keeps what was learned of steps; undefined: where the workers may write. */
  readonly stepWeights: string | undefined;
  /** A service under test: models that say that they are made for it are taken. */
  readonly testSyntheticModels: boolean;
  /** User of the workers, `name` or `name:group`; undefined: the service's own. */
  readonly workerUser: string | undefined;
  /** 0: no limit. */
  readonly workerMemoryBytes: number;
  /** Of one file that a worker writes; 0: no limit. */
  readonly workerFileBytes: number;
  /** `auto`: one for each GPU. */
  readonly slots: number | 'auto';
  /** Device of each slot in turn; empty: no GPU is assigned. */
  readonly gpus: readonly number[];
  /** Who serves unary calls and server streams over gRPC. */
  readonly grpc: 'own' | 'connect';
  /** The web console at `/`. */
  readonly console: boolean;
  readonly logLevel: string;
  readonly logFormat: 'auto' | 'json' | 'pretty';
  /** Undefined: nothing is traced. */
  readonly traces: { readonly endpoint: string; readonly ratio: number } | undefined;
  /** Python of the worker; undefined: the environment in `.venv`. */
  readonly python: string | undefined;
  /** Added to the worker's PYTHONPATH, for engines of one's own. */
  readonly enginePath: string | undefined;
  readonly publicUrl: string | undefined;
  readonly corsOrigins: readonly string[];
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  /** Authority of client certificates, PEM; undefined: none are asked for. */
  readonly tlsClientCa: string | undefined;
  readonly maxConnections: number;
  readonly maxBodyBytes: number;
  readonly maxUploadBytes: number;
  readonly uploadTtlMs: number;
  /** Of one tenant. */
  readonly maxUploads: number;
  readonly uploadQuotaBytes: number;
  /** Of the data folder's disk: below it nothing new is taken in. */
  readonly minFreeBytes: number;
  /** Of one input that is fetched. */
  readonly maxInputBytes: number;
  /** Schemes of URLs that are fetched. */
  readonly httpSchemes: readonly string[];
  /** Hosts, host:port, addresses and CIDR blocks that are fetched from though they are not public. */
  readonly httpAllow: readonly string[];
  readonly httpPorts: readonly number[];
  /** Of jobs that name no receiver; undefined: they are told to nobody. */
  readonly webhookUrl: string | undefined;
  readonly webhookSecretsFile: string | undefined;
  /** Of one tenant, those that tell of no end. */
  readonly maxWebhookNews: number;
  /** As `httpAllow`, of receivers. */
  readonly webhookAllow: readonly string[];
  readonly fetchTimeoutMs: number;
  /** 0: no download is kept. */
  readonly httpCacheBytes: number;
  readonly httpCacheTtlMs: number;
  /** Of inputs and of results. */
  readonly s3: S3Connection;
  /** As callers reach the endpoint; undefined: as the service does. */
  readonly s3PublicEndpoint: string | undefined;
  /** Empty: no s3:// references. `*`: any bucket that the credentials open. */
  readonly s3Buckets: readonly string[];
  /** Folders that results may be copied to, relative paths under the first. */
  readonly outputRoots: readonly string[];
  /** Buckets that results may be copied to; `*`: all that the credentials open. */
  readonly outputBuckets: readonly string[];
  readonly probe: boolean;
  readonly probeCpuMs: number;
  readonly maxImagePixels: number;
  readonly maxVideoPixels: number;
  readonly maxFrames: number;
  readonly maxDurationMs: number;
  readonly maxQueued: number;
  readonly maxAttempts: number;
  readonly runTimeoutMs: number;
  readonly stallTimeoutMs: number;
  readonly cancelGraceMs: number;
  readonly drainTimeoutMs: number;
  readonly resultUrlTtlMs: number;
  /** How long a result is kept that its request says nothing of; at most `maxRetentionMs`. */
  readonly resultTtlMs: number;
  /** How long a result is kept for like jobs; 0: there is no cache, and no run is shared. */
  readonly cacheTtlMs: number;
  /** Like jobs of all tenants share results and runs. */
  readonly cacheShared: boolean;
  readonly maxRetentionMs: number;
  /** From a job's end until it is forgotten; at least `maxRetentionMs`. */
  readonly jobTtlMs: number;
  /** How long a result waits for a blob store that is full or away. */
  readonly storePatienceMs: number;
  readonly recycleAfterJobs: number;
  /** Beside what models may have; 0: no bound. */
  readonly recycleGrowthBytes: number;
}

/** What holds for a tenant that the file of tenants says nothing of. */
export function policyDefaults({ maxQueued, attestation, provenance, provenanceLabel }: Config) {
  return { queuedJobs: maxQueued, attestation, mark: { signed: provenance, label: provenanceLabel } };
}

/** What is wrong with the configuration, one sentence a problem. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

/** Every setting by its name after `FFJOBS_`. */
export const SETTINGS = {
  HOST: setting(text, '127.0.0.1', 'address to listen on; anything but loopback needs identities, or FFJOBS_ALLOW_ANONYMOUS'),
  PORT: setting(integer(0, 65_535), '8000', 'the one port for gRPC, gRPC-Web, Connect and REST; 0 takes a free one'),
  METRICS_PORT: setting((value) => (value === 'off' ? 0 : integer(1, 65_535)(value)), '8001', 'Prometheus metrics; `off` for none'),
  METRICS_HOST: setting(text, '127.0.0.1', 'address that the metrics are shown on, whatever HOST is; the images set 0.0.0.0'),
  METRICS_TOKEN_FILE: setting(
    text,
    undefined,
    'file with a token (at least 16 characters) that who asks for metrics sends as Bearer; default: nobody is asked',
  ),
  DATA_DIR: setting(text, './data', 'everything that the service keeps'),
  INPUT_ROOT: setting(text, undefined, 'the folder that local media references are looked up in; default DATA_DIR/input'),
  STORE: setting(store, undefined, 'job store: sqlite:PATH, or redis:// or rediss:// for a fleet; default sqlite:DATA_DIR/jobs.db'),
  FLEET: setting(plainName, 'ffjobs', 'begins all keys in Redis: fleets with other names share a Redis and nothing else'),
  LEASE: setting(
    duration(2000, 600_000),
    '30s',
    'how long a node of a fleet may be silent before its jobs go to another one; the same on all nodes',
  ),
  NODE: setting(plainName, undefined, 'what this node is called in the list of slots; default: the host name'),
  BLOBS: setting(blobs, undefined, 'result store: local:PATH or s3://bucket/prefix, which is its alone; default local:DATA_DIR/blobs'),
  ENGINE: setting(
    text,
    'auto',
    'facefusion, classical, module:Class of an engine of your own, or auto: facefusion where it is installed or configured, else classical',
  ),
  ENGINE_PATH: setting(text, undefined, 'folder with the module of an engine of your own'),
  ENGINE_MODE: setting(
    oneOf('persistent', 'subprocess'),
    'persistent',
    "persistent: one warm process a slot; subprocess: FaceFusion's command line for each job",
  ),
  MODEL_MEMORY: setting(bytes, '6G', 'model files that stay loaded in a worker; what was used longest ago goes first'),
  OPTION_LIMITS: setting(
    limits,
    '',
    'caps of options as JSON; default {"output_image_scale": 8, "output_video_scale": 4, "output_video_fps": 120, "output_audio_fps": 120, "processors": 8, "enhanced_megapixels": 256}',
  ),
  STEP_WEIGHTS: setting(
    text,
    undefined,
    'file that keeps how long steps take, for percent and time left; default DATA_DIR/step-weights.json',
  ),
  TEST_SYNTHETIC_MODELS: setting(oneOf('0', '1'), '0', '1: a service under test, which takes models that are made for tests'),
  WORKER_USER: setting(
    user,
    undefined,
    'user or user:group that workers run as, where the service is root; it reaches the files of its job and none of the others',
  ),
  WORKER_MEMORY: setting(offOr(bytes), 'off', 'memory that a worker may take, in host memory; `off` for no limit'),
  WORKER_FILE_BYTES: setting(offOr(bytes), '200G', 'largest file that a worker may write; `off` for no limit'),
  ROLE: setting(
    oneOf('all', 'api', 'worker'),
    'all',
    'all: API and workers in one process; api: no workers; worker: no API, only health and metrics. Both need a Redis store',
  ),
  SLOTS: setting(
    (value) => (value === 'auto' ? value : integer(1, 256)(value)),
    '1',
    'jobs that run at once, each in a worker process of its own; auto: one for each NVIDIA GPU of this machine, or of FFJOBS_GPUS',
  ),
  GPUS: setting(numbers, '', 'device indices, given to the slots in turn, such as 0,1; empty: none is assigned'),
  PYTHON: setting(text, undefined, 'Python of the workers; default: the environment that `npm start` makes in .venv'),
  PUBLIC_URL: setting(text, undefined, 'base of the URLs that the service hands out; default: the address it listens on'),
  CORS_ORIGINS: setting(
    origins,
    '',
    'origins whose pages may call, such as https://app.example.com, with commas between; empty: none, *: all',
  ),
  TLS_CERT: setting(text, undefined, 'certificate chain in PEM; with FFJOBS_TLS_KEY the port speaks TLS with ALPN'),
  TLS_KEY: setting(text, undefined, 'private key in PEM'),
  TLS_CLIENT_CA: setting(
    text,
    undefined,
    'authority of client certificates in PEM: callers may have one, and FFJOBS_TENANTS says whose it is',
  ),
  ...ACCESS_SETTINGS,
  ...PROVENANCE_SETTINGS,
  GRPC: setting(
    oneOf('own', 'connect'),
    'own',
    'unary calls and server streams over gRPC: own is several times cheaper, connect is Connect as it comes',
  ),
  CONSOLE: setting(oneOf('on', 'off'), 'on', 'on: the web console at /; off: no pages but the documentation'),
  LOG_LEVEL: setting(oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'), 'info', 'least severe log line to write'),
  LOG_FORMAT: setting(oneOf('auto', 'json', 'pretty'), 'auto', 'auto: readable on a terminal, JSON lines elsewhere'),
  TRACES: setting(oneOf('off', 'otlp'), 'off', 'otlp: calls and jobs are traced, and sent to an OpenTelemetry collector by OTLP over HTTP'),
  TRACES_ENDPOINT: setting(
    httpUrl,
    'http://127.0.0.1:4318/v1/traces',
    'URL that spans are posted to; headers come from OTEL_EXPORTER_OTLP_HEADERS',
  ),
  TRACES_RATIO: setting(
    part,
    '1',
    'of calls that come without a trace of their own, the part that is sampled; other callers say so themselves',
  ),
  MAX_CONNECTIONS: setting(
    integer(16, 1_000_000),
    '20000',
    'connections at a time, fewer where this process may open fewer files; when all are taken, an idle one makes room',
  ),
  MAX_BODY_BYTES: setting(bytes, '4M', 'largest request message, media apart'),
  MAX_UPLOAD_BYTES: setting(bytes, '20G', 'largest upload'),
  UPLOAD_TTL: setting(
    duration(1000, 365 * 86_400_000),
    '24h',
    'how long an upload is kept; longer while a job that needs it has not ended',
  ),
  MAX_UPLOADS: setting(integer(1, 10_000_000), '10000', 'uploads of one tenant that are kept at once'),
  UPLOAD_QUOTA: setting(bytes, '200G', 'bytes of all uploads of one tenant'),
  MIN_FREE_BYTES: setting(
    (value) => (value === '0' ? 0 : bytes(value)),
    '1G',
    'room that is left on the disk: with less, no upload and no job is taken; 0: they may fill it',
  ),
  MAX_INPUT_BYTES: setting(bytes, '20G', 'largest input that is fetched by http or s3'),
  HTTP_INPUTS: setting(
    oneOf('on', 'https', 'off'),
    'on',
    'on: inputs are fetched by http and https; https: by that alone; off: by neither',
  ),
  HTTP_ALLOW: setting(list(host), '', 'hosts that are fetched from though they are not public: name, name:port, address or CIDR block'),
  HTTP_PORTS: setting(numbers, '80,443,8080,8443', 'ports that are fetched from'),
  WEBHOOK_SECRETS_FILE: setting(
    text,
    undefined,
    'file with the secrets that webhooks are signed with: a line `TENANT whsec_...` each, or `whsec_...` for all others; without one no webhooks are taken',
  ),
  WEBHOOK_URL: setting(
    text,
    undefined,
    "receiver of the ends of jobs that name none; it gets them signed with the secret of each job's tenant",
  ),
  MAX_WEBHOOK_NEWS: setting(
    integer(1, 10_000_000),
    '10000',
    'webhooks of one tenant that tell of no end and may wait for receivers; the oldest beyond it give way, ends never do',
  ),
  WEBHOOK_ALLOW: setting(list(host), '', 'hosts that webhooks are sent to though they are not public: as HTTP_ALLOW; ports as HTTP_PORTS'),
  FETCH_TIMEOUT: setting(duration(1000, 7 * 86_400_000), '1h', 'longest transfer of one input by http or s3'),
  HTTP_CACHE_BYTES: setting(
    (value) => (value === 'off' ? 0 : bytes(value)),
    '10G',
    'downloads kept until their server says that they changed; `off` for none',
  ),
  HTTP_CACHE_TTL: setting(duration(1000, 365 * 86_400_000), '24h', 'how long a download is kept that no job uses'),
  S3_BUCKETS: setting(list(bucket), '', 'buckets that s3:// references may name, `*` for all; empty: s3:// is not taken'),
  S3_ENDPOINT: setting(text, undefined, 'URL of an S3-compatible server; default: that of AWS'),
  S3_REGION: setting(text, undefined, 'region of the buckets; default AWS_REGION, else us-east-1; credentials come the way of AWS'),
  S3_PUBLIC_ENDPOINT: setting(text, undefined, 'URL of that server as callers reach it, for the URLs of results; default S3_ENDPOINT'),
  S3_PATH_STYLE: setting(oneOf('auto', 'yes', 'no'), 'auto', 'yes: buckets are named in the path, not in the host; auto: with S3_ENDPOINT'),
  OUTPUT_ROOTS: setting(
    list(() => undefined),
    '',
    'folders that output_uri may name a path under, with commas between; relative paths are under the first; empty: none',
  ),
  OUTPUT_BUCKETS: setting(list(bucket), '', 'buckets that output_uri may name, `*` for all; empty: none'),
  PROBE: setting(oneOf('on', 'off'), 'on', 'off: inputs are not examined before the engine opens them; only with an engine of your own'),
  PROBE_CPU: setting(duration(1000, 600_000), '10s', 'processor time to examine one input; two and a half times that by the clock'),
  MAX_IMAGE_PIXELS: setting(bytes, '64M', 'largest picture, width times height'),
  MAX_VIDEO_PIXELS: setting(bytes, '16M', 'largest frame of a video, width times height'),
  MAX_FRAMES: setting(integer(1, 100_000_000), '500000', 'longest video in frames'),
  MAX_DURATION: setting(duration(1000, 7 * 86_400_000), '4h', 'longest video or sound'),
  MAX_QUEUED: setting(integer(1, 10_000_000), '100000', 'jobs that may wait at once'),
  MAX_ATTEMPTS: setting(integer(1, 10), '3', 'attempts of a job that does not say'),
  RUN_TIMEOUT: setting(duration(1000, 7 * 86_400_000), '6h', 'longest engine time of an attempt of a job that does not say'),
  STALL_TIMEOUT: setting(duration(100, 86_400_000), '10m', 'a run that reports nothing for this long is killed'),
  CANCEL_GRACE: setting(duration(0, 600_000), '5s', 'how long a run may take to stop before its process is killed'),
  DRAIN_TIMEOUT: setting(duration(0, 86_400_000), '30s', 'how long running jobs may go on after SIGTERM'),
  STORE_PATIENCE: setting(
    duration(0, 86_400_000),
    '10m',
    'how long a finished result waits for a result store that is full or away, before its job fails',
  ),
  RESULT_URL_TTL: setting(duration(1000, 7 * 86_400_000), '1h', 'how long a signed URL works'),
  CACHE_TTL: setting(offOr(duration(1000, 365 * 86_400_000)), '24h', 'how long a result is kept for like jobs; `off`: each job runs'),
  CACHE_SCOPE: setting(oneOf('tenant', 'all'), 'tenant', 'whose jobs share results and runs; all: those of different tenants too'),
  RESULT_TTL: setting(
    duration(1000, 3650 * 86_400_000),
    '30d',
    'how long a result is kept after its job has ended, where the job does not say',
  ),
  MAX_RETENTION: setting(duration(1000, 3650 * 86_400_000), '90d', 'longest retention that a job may ask for'),
  JOB_TTL: setting(
    duration(1000, 3650 * 86_400_000),
    '180d',
    'how long a job that has ended is kept, with its events; then it is forgotten',
  ),
  RECYCLE_AFTER_JOBS: setting(integer(0, 1_000_000), '10000', 'a worker is replaced after this many jobs; 0: never'),
  RECYCLE_GROWTH: setting(
    offOr(bytes),
    '4G',
    'a worker is replaced when it keeps this much more memory than after its first job, what its models may have apart; `off`: never',
  ),
} as const;

type Values = ValuesOf<typeof SETTINGS>;

/**
 * Reads the configuration. `env` also carries FaceFusion's own variables; `installed` looks up the engine that is in use below a data folder.
 * Throws `ConfigError` with all problems at once.
 */
export function readConfig(
  env: Readonly<Record<string, string | undefined>>,
  cwd: string,
  installed: (dataDir: string) => InstalledEngine | undefined = () => undefined,
): Config {
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, { parse, fallback }] of Object.entries<Setting<unknown>>(SETTINGS)) {
    const given = env[`FFJOBS_${name}`];
    const used = given === undefined || given === '' ? fallback : given;
    const value = used === undefined ? undefined : parse(used);
    if (value instanceof Problem) problems.push(`FFJOBS_${name} is '${withoutPassword(given!)}'; allowed: ${value.allowed}`);
    else values[name] = value;
  }
  const known = Object.keys(SETTINGS).map((name) => `FFJOBS_${name}`);
  for (const name of Object.keys(env)) {
    if (!name.startsWith('FFJOBS_') || known.includes(name) || OTHERS.has(name)) continue;
    problems.push(`there is no setting ${name}${nearestName(name, known)}`);
  }
  const v = values as Values;
  const dataDir = resolve(cwd, v.DATA_DIR!);
  const { engine, facefusion } = chooseEngine(v.ENGINE!, env, cwd, () => installed(dataDir), problems);
  if (v.ENGINE_MODE === 'subprocess' && engine !== 'facefusion') {
    problems.push(`FFJOBS_ENGINE_MODE=subprocess is a mode of the engine facefusion, and the engine is ${engine}`);
  }
  if (v.TEST_SYNTHETIC_MODELS === '1' && v.HOST !== undefined && !isLoopback(v.HOST)) {
    problems.push('FFJOBS_TEST_SYNTHETIC_MODELS=1 is for tests, which listen on loopback: its results are no results');
  }
  if ((v.ROLE === 'api' || v.ROLE === 'worker') && v.STORE?.redis === undefined) {
    problems.push(`FFJOBS_ROLE=${v.ROLE} is for a fleet, whose nodes share a job store: set FFJOBS_STORE=redis://...`);
  }
  problems.push(...accessProblems(v), ...provenanceProblems(v));
  if (v.PROBE === 'off' && !engine.includes(':')) {
    problems.push('FFJOBS_PROBE=off is only for an engine of your own (module:Class): the built-in ones open what callers send');
  }
  for (const name of ['S3_ENDPOINT', 'S3_PUBLIC_ENDPOINT'] as const) {
    if (v[name] === undefined || /^https?:$/.test(URL.canParse(v[name]) ? new URL(v[name]).protocol : '')) continue;
    problems.push(`FFJOBS_${name} is '${withoutPassword(v[name])}'; allowed: a URL such as https://minio.example.com:9000`);
  }
  if (v.RESULT_TTL! > v.MAX_RETENTION! || v.MAX_RETENTION! > v.JOB_TTL!) {
    problems.push('FFJOBS_RESULT_TTL is at most FFJOBS_MAX_RETENTION, and that at most FFJOBS_JOB_TTL: a result goes before its job does');
  }
  if ((v.TLS_CERT === undefined) !== (v.TLS_KEY === undefined))
    problems.push('FFJOBS_TLS_CERT and FFJOBS_TLS_KEY go together; set both or neither');
  if (v.PUBLIC_URL !== undefined && !URL.canParse(v.PUBLIC_URL))
    problems.push(`FFJOBS_PUBLIC_URL is '${withoutPassword(v.PUBLIC_URL)}'; allowed: an absolute URL`);
  if (problems.length > 0) throw new ConfigError(problems);

  const path = (value: string | undefined) => (value === undefined ? undefined : resolve(cwd, value));
  return Object.freeze({
    host: v.HOST!,
    port: v.PORT!,
    metricsPort: v.METRICS_PORT!,
    metricsHost: v.METRICS_HOST!,
    metricsTokenFile: path(v.METRICS_TOKEN_FILE),
    dataDir,
    inputRoot: path(v.INPUT_ROOT) ?? resolve(dataDir, 'input'),
    storePath: path(v.STORE?.path) ?? resolve(dataDir, 'jobs.db'),
    storeRedis: v.STORE?.redis,
    fleet: v.FLEET!,
    leaseMs: v.LEASE!,
    role: v.ROLE!,
    node:
      v.NODE ??
      (hostname()
        .replace(/[^\w.-]/g, '-')
        .slice(0, 63) ||
        'node'),
    blobsPath: path(typeof v.BLOBS === 'string' ? v.BLOBS : undefined) ?? resolve(dataDir, 'blobs'),
    blobsS3: typeof v.BLOBS === 'string' ? undefined : v.BLOBS,
    engine,
    engineMode: v.ENGINE_MODE!,
    facefusion,
    modelMemoryBytes: v.MODEL_MEMORY!,
    optionLimits: Object.freeze({ ...v.OPTION_LIMITS }),
    stepWeights: path(v.STEP_WEIGHTS),
    testSyntheticModels: v.TEST_SYNTHETIC_MODELS === '1',
    workerUser: v.WORKER_USER,
    workerMemoryBytes: v.WORKER_MEMORY!,
    workerFileBytes: v.WORKER_FILE_BYTES!,
    slots: v.SLOTS!,
    gpus: Object.freeze([...v.GPUS!]),
    grpc: v.GRPC!,
    console: v.CONSOLE === 'on',
    logLevel: v.LOG_LEVEL!,
    logFormat: v.LOG_FORMAT!,
    traces: v.TRACES === 'otlp' ? Object.freeze({ endpoint: v.TRACES_ENDPOINT!, ratio: v.TRACES_RATIO! }) : undefined,
    python: v.PYTHON,
    enginePath: path(v.ENGINE_PATH),
    publicUrl: v.PUBLIC_URL,
    corsOrigins: Object.freeze([...v.CORS_ORIGINS!]),
    tlsCert: path(v.TLS_CERT),
    tlsKey: path(v.TLS_KEY),
    tlsClientCa: path(v.TLS_CLIENT_CA),
    ...accessConfig(v, cwd, dataDir),
    ...provenanceConfig(v, cwd),
    maxConnections: v.MAX_CONNECTIONS!,
    maxBodyBytes: v.MAX_BODY_BYTES!,
    maxUploadBytes: v.MAX_UPLOAD_BYTES!,
    uploadTtlMs: v.UPLOAD_TTL!,
    maxUploads: v.MAX_UPLOADS!,
    uploadQuotaBytes: v.UPLOAD_QUOTA!,
    minFreeBytes: v.MIN_FREE_BYTES!,
    maxInputBytes: v.MAX_INPUT_BYTES!,
    httpSchemes: Object.freeze(v.HTTP_INPUTS === 'on' ? ['http', 'https'] : v.HTTP_INPUTS === 'https' ? ['https'] : []),
    httpAllow: Object.freeze([...v.HTTP_ALLOW!]),
    httpPorts: Object.freeze([...v.HTTP_PORTS!]),
    webhookUrl: v.WEBHOOK_URL,
    webhookSecretsFile: path(v.WEBHOOK_SECRETS_FILE),
    maxWebhookNews: v.MAX_WEBHOOK_NEWS!,
    webhookAllow: Object.freeze([...v.WEBHOOK_ALLOW!]),
    fetchTimeoutMs: v.FETCH_TIMEOUT!,
    httpCacheBytes: v.HTTP_CACHE_BYTES!,
    httpCacheTtlMs: v.HTTP_CACHE_TTL!,
    s3: s3Connection(v, env),
    s3PublicEndpoint: v.S3_PUBLIC_ENDPOINT,
    s3Buckets: Object.freeze([...v.S3_BUCKETS!]),
    outputRoots: Object.freeze(v.OUTPUT_ROOTS!.map((root) => resolve(cwd, root))),
    outputBuckets: Object.freeze([...v.OUTPUT_BUCKETS!]),
    probe: v.PROBE === 'on',
    probeCpuMs: v.PROBE_CPU!,
    maxImagePixels: v.MAX_IMAGE_PIXELS!,
    maxVideoPixels: v.MAX_VIDEO_PIXELS!,
    maxFrames: v.MAX_FRAMES!,
    maxDurationMs: v.MAX_DURATION!,
    maxQueued: v.MAX_QUEUED!,
    maxAttempts: v.MAX_ATTEMPTS!,
    runTimeoutMs: v.RUN_TIMEOUT!,
    stallTimeoutMs: v.STALL_TIMEOUT!,
    cancelGraceMs: v.CANCEL_GRACE!,
    drainTimeoutMs: v.DRAIN_TIMEOUT!,
    resultUrlTtlMs: v.RESULT_URL_TTL!,
    storePatienceMs: v.STORE_PATIENCE!,
    resultTtlMs: v.RESULT_TTL!,
    cacheTtlMs: v.CACHE_TTL!,
    cacheShared: v.CACHE_SCOPE === 'all',
    maxRetentionMs: v.MAX_RETENTION!,
    jobTtlMs: v.JOB_TTL!,
    recycleAfterJobs: v.RECYCLE_AFTER_JOBS!,
    recycleGrowthBytes: v.RECYCLE_GROWTH!,
  });
}

/**
 * `auto` is FaceFusion wherever there is one, configured or installed: one that is broken is a problem, and never a reason for the plain engine.
 */
function chooseEngine(
  asked: string,
  env: Readonly<Record<string, string | undefined>>,
  cwd: string,
  installed: () => InstalledEngine | undefined,
  problems: string[],
): Pick<Config, 'engine' | 'facefusion'> {
  if (asked !== 'auto' && asked !== 'facefusion') {
    if (asked !== 'classical' && !/^[\w.]+:\w+$/.test(asked))
      problems.push(`FFJOBS_ENGINE is '${asked}'; allowed: auto, facefusion, classical, module:Class`);
    return { engine: asked, facefusion: undefined };
  }
  try {
    const found = isFacefusionConfigured(env) ? undefined : installed();
    if (asked === 'auto' && !found && !isFacefusionConfigured(env)) return { engine: 'classical', facefusion: undefined };
    const read = readFacefusion(env, cwd, found);
    if ('home' in read) return { engine: 'facefusion', facefusion: read };
    problems.push(...read);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(...error.problems);
  }
  return { engine: 'facefusion', facefusion: undefined };
}

function s3Connection(v: Values, env: Readonly<Record<string, string | undefined>>): S3Connection {
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey, AWS_SESSION_TOKEN: sessionToken } = env;
  return Object.freeze({
    endpoint: v.S3_ENDPOINT,
    region: v.S3_REGION ?? (env.AWS_REGION || 'us-east-1'),
    credentials: accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey, sessionToken: sessionToken || undefined } : undefined,
    pathStyle: v.S3_PATH_STYLE === 'auto' ? undefined : v.S3_PATH_STYLE === 'yes',
  });
}

/** Names with the prefix that others read: where the file of settings is, and which server the command line talks to. */
export const OTHERS: ReadonlySet<string> = new Set(['FFJOBS_CONFIG', 'FFJOBS_SERVER', 'FFJOBS_TOKEN']);

/** Of AWS, read as its own programs do, from the file of settings too. */
export const AWS_SETTINGS: readonly string[] = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'AWS_REGION'];

/** The end of a sentence about a name that is not there: one that was perhaps meant, or nothing. */
export function nearestName(name: string, known: readonly string[]): string {
  const hint = didYouMean(
    name.toLowerCase(),
    known.map((one) => one.toLowerCase()),
  );
  return hint.toUpperCase().replace('; DID YOU MEAN', '; did you mean');
}

/** A setting's value for people. Of the settings only URLs can hold a password; all other secrets are in files of their own. */
export function withoutPassword(value: string): string {
  if (/^(local|sqlite):/.test(value)) return value;
  // Of one that is not right nobody knows which part is the password.
  const scheme = /^[a-z+]*:?\/{0,2}/i.exec(value)![0];
  const isOther = /^(https?|s3):/i.test(value) || !/\/\/$/.test(scheme);
  if ((isRedis(value) || !isOther) && typeof redisPlaceOf(value) === 'string') return `${scheme}***`;
  const slashes = value.indexOf('//');
  const from = slashes < 0 ? 0 : slashes + 2;
  // The last one: where a password has an @ that is not written as %40, what follows it is secret too.
  const at = value.lastIndexOf('@');
  const login = value.slice(from, Math.max(from, at));
  const mayBeSecret = login.includes(':') || (slashes >= 0 && login !== '' && !login.includes('/'));
  return mayBeSecret ? `${value.slice(0, from)}***${value.slice(at)}` : value;
}
