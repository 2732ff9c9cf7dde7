// `node scripts/node24.mjs bench/profile.ts SCENARIO [SECONDS]`: where the service spends its time under one load. Starts the real service with
// --cpu-prof, warms it up, drives it, and prints the functions with most self time. The profile itself is left for a viewer.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { JsonObject } from '@bufbuild/protobuf';
import { JobStatus } from '../gen/facefusion/jobs/v1/job_pb.js';
import { LoadGenerator } from './load/generator.ts';
import type { Request } from './load/tasks.ts';
import { cpuSeconds, ownProcesses } from './processes.ts';
import { getByGrpc, getByRest, noopJob, submitByGrpc, submitByRest, watchByGrpc, watchBySse } from './requests.ts';
import { Service } from './service.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

interface Scenario {
  readonly job: 'done' | 'running';
  readonly request: (jobId: string) => Request;
  readonly watch?: boolean;
}

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'rest-get': { job: 'running', request: getByRest },
  'rest-get-result': { job: 'done', request: getByRest },
  'grpc-get': { job: 'running', request: getByGrpc },
  'grpc-get-result': { job: 'done', request: getByGrpc },
  jobs: { job: 'done', request: () => submitByRest(noopJob(), 60) },
  submit: { job: 'done', request: () => submitByGrpc(noopJob()) },
  'grpc-watch': { job: 'running', request: watchByGrpc, watch: true },
  sse: { job: 'running', request: watchBySse, watch: true },
};

const [name = '', seconds = '8'] = process.argv.slice(2);
const scenario = SCENARIOS[name];
if (!scenario) {
  process.stderr.write(`usage: profile.ts SCENARIO [SECONDS]; scenarios: ${Object.keys(SCENARIOS).join(', ')}\n`);
  process.exit(2);
}
ownProcesses();
const folder = mkdtempSync(join(tmpdir(), 'ffjobs-profile-'));
const profiles = join(folder, 'cpu');
mkdirSync(profiles);
const service = await Service.start({
  dataDir: join(folder, 'data'),
  nodeArgs: ['--cpu-prof', '--cpu-prof-dir', profiles, '--cpu-prof-interval', '500'],
  settings: { DRAIN_TIMEOUT: '0s' },
});
const { jobs } = service.clients();
const wanted = scenario.job === 'running' ? JobStatus.PROCESSING : JobStatus.SUCCEEDED;
const parameters: JsonObject = scenario.job === 'running' ? { hold_seconds: 3600, events_per_second: 10 } : {};
const jobId = (await jobs.submit({ job: noopJob(parameters) })).job!.jobId;
while ((await jobs.getStatus({ jobId })).state!.status !== wanted) await sleep(20);

const load = LoadGenerator.start();
const request = scenario.request(jobId);
const drive = async (duration: number): Promise<number> => {
  if (scenario.watch) return (await load.run({ kind: 'deliveries', seconds: duration })).events;
  const connections = request.protocol === 'grpc' ? 4 : 64;
  return (await load.run({ kind: 'calls', port: service.port, request, connections, inFlight: 64, seconds: duration })).calls;
};
if (scenario.watch) {
  await load.run({ kind: 'watch', port: service.port, request, watchers: 1000, connections: 10, timeoutMs: 30_000 });
}
await drive(4); // what starting and compiling cost is not what is asked here
const before = cpuSeconds(service.pid) ?? Number.NaN;
const beginMicros = Number(process.hrtime.bigint() / 1000n);
const count = await drive(Number(seconds));
const endMicros = Number(process.hrtime.bigint() / 1000n);
const used = (cpuSeconds(service.pid) ?? Number.NaN) - before;
process.stdout.write(`${Math.round(count / Number(seconds))} a second, ${Math.round((used / count) * 1e6)} µs of server CPU each`);
await load[Symbol.asyncDispose]();
await service.stop();

interface CpuProfile {
  readonly nodes: ReadonlyArray<{
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }>;
  /** Of the monotonic clock, in microseconds. */
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}
const file = join(profiles, readdirSync(profiles)[0]!);
const profile = JSON.parse(readFileSync(file, 'utf8')) as CpuProfile;
const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
const byFunction = new Map<string, number>();
const byFile = new Map<string, number>();
const byPackage = new Map<string, number>();
let busy = 0;
let at = profile.startTime;
profile.samples.forEach((id, index) => {
  at += profile.timeDeltas[index]!;
  if (at < beginMicros || at > endMicros) return;
  const { functionName, url, lineNumber } = frames.get(id)!;
  if (functionName === '(idle)' || functionName === '(program)') return;
  const path = url.startsWith('file:') ? relative(ROOT, fileURLToPath(url)).replace(/^.*node_modules\//, '') : url;
  const delta = profile.timeDeltas[index]!;
  add(byFunction, `${functionName || '(anonymous)'}  ${path}${url ? `:${lineNumber + 1}` : ''}`, delta);
  add(byFile, path || functionName, delta);
  add(byPackage, packageOf(path) || functionName, delta);
  busy += delta;
});
process.stdout.write(`\n${(busy / 1e6).toFixed(1)} s busy; self time by function, by file, by package:\n`);
for (const [sums, most] of [
  [byFunction, 35],
  [byFile, 25],
  [byPackage, 25],
] as const) {
  for (const [key, self] of [...sums].sort((a, b) => b[1] - a[1]).slice(0, most)) {
    process.stdout.write(`${((self / busy) * 100).toFixed(1).padStart(6)} %  ${key}\n`);
  }
  process.stdout.write('\n');
}
process.stdout.write(`${file}\n`);
process.exit(0);

/** `src/store`, `fastify`, `@scope/name`, `node:internal` ... */
function packageOf(path: string): string {
  if (path.startsWith('node:')) return path.split('/')[0]!;
  return path
    .split('/')
    .slice(0, path.startsWith('src/') || path.startsWith('@') ? 2 : 1)
    .join('/');
}

function add(sums: Map<string, number>, key: string, value: number): void {
  sums.set(key, (sums.get(key) ?? 0) + value);
}
