// What each tenant has used: bytes stored, time on a slot in the day, jobs that are held. Always true here: counted by the steps that change it and
// written with them; a new day begins at zero.
import type { DatabaseSync } from 'node:sqlite';
import { fromBinary } from '@bufbuild/protobuf';
import { JobSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Job } from '../jobs/job.ts';
import type { Limits } from '../jobs/ports.ts';
import { checkUsage, dayOf, usedBy } from '../jobs/quotas.ts';

/** The first schema with these figures. */
export const USAGE_SCHEMA = 4;

interface Used {
  readonly storedBytes: number;
  readonly day: number;
  readonly gpuMs: number;
}

export class TenantUsage {
  readonly #undo: (back: () => void) => void;
  readonly #write;
  readonly #used = new Map<string, Used>();
  /** Jobs that a node holds, by tenant. */
  readonly #held = new Map<string, number>();

  /** `undo` receives the way back of each change of memory. */
  constructor(db: DatabaseSync, undo: (back: () => void) => void) {
    this.#undo = undo;
    this.#write = db.prepare('INSERT OR REPLACE INTO tenant_usage (tenant, stored_bytes, day, gpu_ms) VALUES (?, ?, ?, ?)');
    const rows = db.prepare('SELECT tenant, stored_bytes, day, gpu_ms FROM tenant_usage').all() as Record<string, number | string>[];
    for (const { tenant, stored_bytes, day, gpu_ms } of rows) {
      this.#used.set(tenant as string, { storedBytes: stored_bytes as number, day: day as number, gpuMs: gpu_ms as number });
    }
  }

  storedBytes(tenant: string): number {
    return this.#used.get(tenant)?.storedBytes ?? 0;
  }

  gpuSeconds(tenant: string, nowMs: number): number {
    const used = this.#used.get(tenant);
    return used && used.day === dayOf(nowMs) ? used.gpuMs / 1000 : 0;
  }

  held(tenant: string): number {
    return this.#held.get(tenant) ?? 0;
  }

  /** A job that a reopened store found held. */
  found(tenant: string): void {
    this.#hold(tenant, 1);
  }

  /** Before a submit: throws QUOTA_EXCEEDED where the tenant has used up what it may. */
  check(tenant: string, limits: Limits, nowMs: number): void {
    checkUsage({ gpuSecondsToday: this.gpuSeconds(tenant, nowMs), storedBytes: this.storedBytes(tenant) }, limits, nowMs);
  }

  /** Inside a step: a job has become another. */
  moved(
    tenant: string,
    before: { readonly job: Job; readonly held: boolean },
    after: { readonly job: Job; readonly held: boolean },
    nowMs: number,
  ): void {
    const held = Number(after.held) - Number(before.held);
    if (held !== 0) {
      this.#hold(tenant, held);
      this.#undo(() => this.#hold(tenant, -held));
    }
    const { bytes, gpuMs } = usedBy(before.job, after.job);
    if (bytes === 0 && gpuMs === 0) return;
    const was = this.#used.get(tenant);
    const day = dayOf(nowMs);
    const used: Used = {
      storedBytes: Math.max(0, (was?.storedBytes ?? 0) + bytes),
      day,
      gpuMs: (was?.day === day ? was.gpuMs : 0) + gpuMs,
    };
    this.#used.set(tenant, used);
    this.#write.run(tenant, used.storedBytes, used.day, used.gpuMs);
    this.#undo(() => {
      if (was) this.#used.set(tenant, was);
      else this.#used.delete(tenant);
    });
  }

  #hold(tenant: string, by: number): void {
    const held = this.held(tenant) + by;
    if (held > 0) this.#held.set(tenant, held);
    else this.#held.delete(tenant);
  }
}

/** For a file that was made before these figures were kept: counts what its jobs have stored. */
export function countStored(db: DatabaseSync): void {
  const bytes = new Map<string, number>();
  for (const { tenant, state } of db.prepare('SELECT tenant, state FROM jobs WHERE result_key IS NOT NULL').iterate()) {
    bytes.set(tenant as string, (bytes.get(tenant as string) ?? 0) + bytesOf(fromBinary(JobSchema, state as Uint8Array)));
  }
  const write = db.prepare('INSERT OR REPLACE INTO tenant_usage (tenant, stored_bytes, day, gpu_ms) VALUES (?, ?, 0, 0)');
  for (const [tenant, sum] of bytes) write.run(tenant, sum);
}

function bytesOf({ result }: Job): number {
  return result ? Number(result.bytes) : 0;
}
