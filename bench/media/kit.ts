// What the ways of media share: bytes and their origin, the bare pipeline beside them, and a watch on the service's memory.
import { join } from 'node:path';
import type { JsonObject } from '@bufbuild/protobuf';
import { create } from '@bufbuild/protobuf';
import { type Job, JobRequestSchema, JobStatus } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Bench } from '../bench.ts';
import { median, type Row, rowOf } from '../figures.ts';
import { CannotRun, Process, residentBytes } from '../processes.ts';
import type { Service } from '../service.ts';

const MIB = 2 ** 20;
const ROOT = join(import.meta.dirname, '..', '..');

/** One way in or out. Answers its rows one by one. */
export interface Way {
  readonly name: string;
  run(kit: Kit): AsyncIterable<Row>;
}

export interface Kit {
  readonly bench: Bench;
  readonly bytes: number;
  readonly origin: string;
  /** Takes from the origin by http and s3, and stores locally. Its code is compiled. */
  readonly service: Service;
  /** Fresh, for files beside it. */
  readonly folder: string;
}

export const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: 'secret' };
export const ROUNDS = 3;

export async function startOrigin(bytes: number): Promise<{ readonly url: string; readonly process: Process }> {
  const process = node('the origin of media', 'origin.ts', [String(bytes)]);
  return { url: `http://127.0.0.1:${await process.line((line) => Number(line) || undefined)}`, process };
}

/** Seconds of a bare pipeline. */
export async function bare(...args: string[]): Promise<number> {
  await using process = node('the bare pipeline', 'bare.ts', args);
  return await process.line((line) => Number(line) || undefined, 300_000);
}

/** The address of a bare server of one file. */
export async function bareServer(file: string): Promise<{ readonly url: string; readonly process: Process }> {
  const process = node('the bare server', 'bare.ts', ['serve', file]);
  return { url: `http://127.0.0.1:${await process.line((line) => Number(line) || undefined)}`, process };
}

function node(name: string, file: string, args: readonly string[]): Process {
  return new Process(name, process.execPath, [join(import.meta.dirname, file), ...args], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** A job to its end. */
export async function run(service: Service, target: string, parameters: JsonObject = {}): Promise<Job> {
  const { jobs } = service.clients();
  const { job } = await jobs.submit({ job: create(JobRequestSchema, { target: { case: 'targetVideo', value: target }, parameters }) });
  for await (const { event } of jobs.watch({ jobId: job!.jobId })) void event;
  const ended = (await jobs.get({ jobId: job!.jobId })).job!;
  if (ended.status !== JobStatus.SUCCEEDED) throw new Error(`${target}: ${ended.errorMessage}`);
  return ended;
}

/** The most by which a process has grown while `work` ran, in bytes. */
export async function growth<T>(pid: number, work: () => Promise<T>): Promise<{ readonly value: T; readonly bytes: number }> {
  const before = residentBytes(pid);
  if (before === undefined) throw new CannotRun('memory is read from /proc, which is not here');
  let most = before;
  const watch = setInterval(() => {
    most = Math.max(most, residentBytes(pid) ?? 0);
  }, 20);
  try {
    return { value: await work(), bytes: Math.max(most, residentBytes(pid) ?? 0) - before };
  } finally {
    clearInterval(watch);
  }
}

/** The two rows of a way: how fast beside a bare pipeline, and what memory it takes. Seconds of each round; growth is that of the first one. */
export function* rows(
  name: string,
  kit: Kit,
  ours: readonly number[],
  peers: readonly number[],
  grownBytes: number,
  peer: string,
): Iterable<Row> {
  const rate = (seconds: readonly number[]) => kit.bytes / MIB / median(seconds);
  yield rowOf('media', {
    name: `${name}: throughput`,
    figure: rate(ours),
    unit: 'MiB/s',
    peer: { name: peer, figure: rate(peers) },
    target: { kind: 'at least times peer', value: 0.8 },
    note: `${(kit.bytes / MIB).toFixed(0)} MiB, rounds of ${ours.map((seconds) => seconds.toFixed(2)).join(', ')} s`,
  });
  yield rowOf('media', {
    name: `${name}: memory of the service`,
    figure: grownBytes / MIB,
    unit: 'MiB more',
    target: { kind: 'at most', value: 64 },
  });
}
