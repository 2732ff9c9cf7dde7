// What it costs to be safe: one job read with everything on that guards the service, beside peers that guard nothing; and what others notice of ten
// thousand connections that do nothing and two thousand that send next to nothing.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openFilesLimit } from '../../src/app/connections.ts';
import type { Bench, Group } from '../bench.ts';
import { allWell, sideBySide, versus } from '../contest.ts';
import { median, type Row, rowOf } from '../figures.ts';
import { LoadGenerator } from '../load/generator.ts';
import type { CallsDone, Dispersed, Request } from '../load/tasks.ts';
import { answersOf, sameJson, sameMessage, threeJobs } from '../peers/served.ts';
import { fastapiOrWhyNot, startNodePeer } from '../peers/start.ts';
import { CannotRun, residentBytes } from '../processes.ts';
import { getByGrpc, getByRest } from '../requests.ts';
import { Service } from '../service.ts';

const TENANT = 'studio';
/** Callers whose waiting is judged: a few that take their time, so that the machine is not full because of them. */
const OTHERS = { inFlight: 8, connections: 2, pauseMs: 10 } as const;

export const guard: Group = {
  name: 'guard',
  about: 'everything on that guards the service, and a crowd that takes up room',

  async *run(bench: Bench): AsyncIterable<Row> {
    await using load = LoadGenerator.start();
    await using service = await guarded(bench);
    const { processing, queued } = await threeJobs(service);
    const rest = getByRest(processing, service.headers);
    const grpc = getByGrpc(processing, service.headers);
    yield* besidePeers(bench, load, service, processing, { rest, grpc });
    yield* inACrowd(bench, load, service, { rest, grpc });
    for (const jobId of [queued, processing]) await service.clients().jobs.cancel({ jobId });
  },
};

/** Keys and tokens, tenants with rates and quotas, the audit log, proxies and origins that are known, metrics and logs. */
async function guarded(bench: Bench): Promise<Service> {
  const dataDir = bench.folder();
  const tenants = join(dataDir, 'tenants.json');
  const secret = join(dataDir, 'token-secret');
  const tier = { submits_per_minute: 100_000, queued_jobs: 10_000, running_jobs: 8, gpu_seconds_per_day: 86_400, stored_bytes: '50G' };
  writeFileSync(tenants, JSON.stringify({ tiers: { gold: tier }, tenants: { [TENANT]: { tier: 'gold', weight: 2, attestation: false } } }));
  writeFileSync(secret, 's'.repeat(64));
  return await Service.start({
    dataDir,
    tenant: TENANT,
    settings: {
      TENANTS: tenants,
      JWT_SECRET_FILE: secret,
      JWT_ISSUER: 'https://login.example.com',
      JWT_AUDIENCE: 'ffjobs',
      TRUSTED_PROXIES: '10.0.0.0/8',
      CORS_ORIGINS: 'https://app.example.com',
      AUDIT: join(dataDir, 'audit', 'audit.jsonl'),
    },
  });
}

type Both = Readonly<Record<'rest' | 'grpc', Request>>;

async function* besidePeers(bench: Bench, load: LoadGenerator, service: Service, jobId: string, { rest, grpc }: Both): AsyncIterable<Row> {
  const served = await answersOf(service, [jobId]);
  const { fastapi, why } = await fastapiOrWhyNot(served, bench.quick);
  {
    await using _ = fastapi;
    if (fastapi) await sameJson(fastapi, served);
    bench.say('REST, in turns');
    const samples = await sideBySide(bench, load, {
      ours: [service, rest],
      ...(fastapi ? { fastapi: [fastapi, getByRest(jobId)] as const } : {}),
    });
    const target = { kind: 'at least times peer', value: 4 } as const;
    yield versus('guard', 'REST Get, everything on', samples.ours!, 'FastAPI', samples.fastapi, { target, why });
  }
  await using connect = await startNodePeer('connect', served);
  await sameMessage(connect, served);
  bench.say('gRPC, in turns');
  const samples = await sideBySide(bench, load, { ours: [service, grpc], connect: [connect, getByGrpc(jobId)] });
  const target = { kind: 'at least times peer', value: 0.7 } as const;
  yield versus('guard', 'gRPC Get, everything on', samples.ours!, 'bare Connect', samples.connect, { target });
}

async function* inACrowd(bench: Bench, load: LoadGenerator, service: Service, requests: Both): AsyncIterable<Row> {
  const idle = bench.pick(10_000, 60);
  const slow = bench.pick(2_000, 20);
  const files = openFilesLimit();
  // The service has others besides connections.
  const needed = idle + slow + 2000;
  if (files !== undefined && files < needed) {
    throw new CannotRun(`a process may open ${files} files here, and a crowd of ${idle + slow} takes ${needed}: raise it with ulimit -n`);
  }
  await using crowd = LoadGenerator.start();
  const waits: Record<'alone' | 'crowded', Record<keyof Both, CallsDone[]>> = {
    alone: { rest: [], grpc: [] },
    crowded: { rest: [], grpc: [] },
  };
  const measure = async (when: keyof typeof waits) => {
    for (const protocol of ['rest', 'grpc'] as const) {
      const calls = { kind: 'calls', port: service.port, request: requests[protocol], seconds: bench.pick(4, 0.2), ...OTHERS } as const;
      waits[when][protocol].push(allWell(await load.run(calls)));
    }
  };
  const before = residentBytes(service.pid);
  let grown: number | undefined;
  let last: Dispersed | undefined;
  if (!bench.quick) await measure('alone');
  waits.alone = { rest: [], grpc: [] };
  for (let round = 0; round < bench.pick(3, 1); round++) {
    await measure('alone');
    bench.say(`a crowd comes, round ${round + 1}`);
    const { seconds } = await crowd.run({ kind: 'crowd', port: service.port, idle, slow, headers: service.headers });
    bench.say(`it is there, after ${seconds.toFixed(1)} s`);
    await measure('crowded');
    const after = residentBytes(service.pid);
    if (before !== undefined && after !== undefined) grown ??= after - before;
    last = await crowd.run({ kind: 'disperse' });
    // Those that were cut a moment ago are about to come again.
    if (last.failed > 0 || last.open < 0.95 * (idle + slow)) {
      throw new Error(
        `only ${last.open} of ${idle + slow} were there, ${last.failed} could not connect: the service turns connections away`,
      );
    }
  }
  const p99 = (when: keyof typeof waits, protocol: keyof Both) => median(waits[when][protocol].map((one) => one.p99Ms));
  for (const [protocol, title] of [
    ['rest', 'REST'],
    ['grpc', 'gRPC'],
  ] as const) {
    const rates = (['alone', 'crowded'] as const).map((when) => {
      const rate = median(waits[when][protocol].map((one) => one.calls / one.seconds));
      return `${Math.round(rate)} a second ${when}, p50 ${median(waits[when][protocol].map((one) => one.p50Ms)).toFixed(1)} ms`;
    });
    yield rowOf('guard', {
      name: `${title} Get p99 in a crowd of 10,000 idle and 2,000 slow`,
      figure: p99('crowded', protocol),
      unit: 'ms',
      peer: { name: 'alone', figure: p99('alone', protocol) },
      target: { kind: 'at most times peer', value: 2 },
      note: `${rates.join('; ')}; ${last!.ended} of the crowd were cut in the last round and came again`,
    });
  }
  if (grown !== undefined) {
    yield rowOf('guard', { name: 'memory of one in the crowd', figure: grown / 1024 / (idle + slow), unit: 'KB' });
  }
}
