// What a tenant may use, and what it has used. Pure, and the one definition for every store.
import { JobsError } from './errors.ts';
import type { Job } from './job.ts';
import type { Limits, Usage } from './ports.ts';

/** More jobs than may be queued; `more`: that are to come in at once. */
export function quotaExceeded(queued: number, limit: number, more = 1): JobsError {
  const what = more > 1 ? `, and with these ${more} they would be more than the ${limit} that may be` : `, and ${limit} may be`;
  return new JobsError('exhausted', 'QUOTA_EXCEEDED', `${queued} jobs are queued${what}: wait for some to start`, {
    retryAfterSeconds: 5,
    metadata: { limit: String(limit) },
  });
}

const DAY_MS = 86_400_000;

/** The day (UTC) that a tenant's engine time is counted in. */
export function dayOf(nowMs: number): number {
  return Math.floor(nowMs / DAY_MS);
}

/** Before a submit: throws QUOTA_EXCEEDED where the tenant has used up what it may. */
export function checkUsage(used: Pick<Usage, 'gpuSecondsToday' | 'storedBytes'>, limits: Limits, nowMs: number): void {
  const { gpuSecondsToday: seconds, storedBytes: bytes } = used;
  const exceeded = (message: string, options: ConstructorParameters<typeof JobsError>[3]) =>
    new JobsError('exhausted', 'QUOTA_EXCEEDED', message, options);
  if (limits.gpuSecondsPerDay !== undefined && seconds >= limits.gpuSecondsPerDay) {
    throw exceeded(`${Math.floor(seconds)} of ${limits.gpuSecondsPerDay} seconds of engine time are used up for today (UTC)`, {
      retryAfterSeconds: Math.ceil((DAY_MS - (nowMs % DAY_MS)) / 1000),
      metadata: { quota: 'gpu_seconds_per_day', limit: String(limits.gpuSecondsPerDay) },
    });
  }
  if (limits.storedBytes !== undefined && bytes >= limits.storedBytes) {
    throw exceeded(`results of ${bytes} bytes are stored, and ${limits.storedBytes} may be: purge jobs whose results are not needed`, {
      metadata: { quota: 'stored_bytes', limit: String(limits.storedBytes) },
    });
  }
}

/** What a step adds to what its tenant has used. */
export function usedBy(before: Job, after: Job): { readonly bytes: number; readonly gpuMs: number } {
  const bytesOf = ({ result }: Job) => (result ? Number(result.bytes) : 0);
  const gpuMs = Math.round(((after.timings?.gpuSeconds ?? 0) - (before.timings?.gpuSeconds ?? 0)) * 1000);
  return { bytes: bytesOf(after) - bytesOf(before), gpuMs: Math.max(0, gpuMs) };
}
