// The records of uploads in Redis; what a job's life does to them is in the scripts of its steps.
import type { JobId, NewUpload, UploadLimits, UploadRecord, UploadRecords } from '../../jobs/ports.ts';
import { tooManyUploadBytes, tooManyUploads, uploadNotFound } from '../../jobs/uploads.ts';
import type { Reply } from './connection.ts';

/** Runs uploads.lua; throws once the store is closed. */
type RunUploads = (args: readonly (string | number)[]) => Promise<Reply>;
type Facts = Pick<UploadRecord, 'filename' | 'note' | 'length' | 'sha256' | 'whole'>;
type Row = [tenant: Buffer, state: Buffer, expires: Buffer, resumable: Buffer, facts: Buffer];

export class RedisUploads implements UploadRecords {
  readonly #run: RunUploads;
  readonly #now: () => number;
  #reclaiming: Promise<void> = Promise.resolve();

  constructor(run: RunUploads, now: () => number) {
    this.#run = run;
    this.#now = now;
  }

  async begin(upload: NewUpload, limits: UploadLimits): Promise<void> {
    const { id, tenant, bytes, resumable, filename, note, sha256 } = upload;
    const facts: Facts = { filename, note, length: bytes, sha256, whole: undefined };
    const args = ['begin', id, tenant, bytes ?? 0, this.#now() + limits.ttlMs, resumable ? '1' : '', JSON.stringify(facts)];
    await this.#ask(id, bytes ?? 0, limits, [...args, limits.maxUploads, limits.maxBytes]);
  }

  async reserve(id: string, bytes: number, limits: UploadLimits): Promise<void> {
    await this.#count(id, bytes, this.#now() + limits.ttlMs, limits, undefined, 'receiving');
  }

  async announce(id: string, bytes: number, limits: UploadLimits): Promise<void> {
    const facts = { ...(await this.#facts(id)), length: bytes };
    await this.#count(id, bytes, this.#now() + limits.ttlMs, limits, facts, 'receiving');
  }

  async complete(id: string, whole: NonNullable<UploadRecord['whole']>, limits: UploadLimits): Promise<number> {
    // In whole seconds, as headers tell it.
    const expiresMs = Math.ceil((this.#now() + limits.ttlMs) / 1000) * 1000;
    await this.#count(id, whole.bytes, expiresMs, limits, { ...(await this.#facts(id)), whole }, 'whole');
    return expiresMs;
  }

  async get(id: string): Promise<UploadRecord | undefined> {
    const row = (await this.#run(['get', id])) as Row | null;
    if (!row) return undefined;
    const state = row[1].toString();
    if (state === 'deleting') return undefined;
    const expiresMs = Number(row[2]);
    return {
      id,
      ...factsOf(row),
      tenant: row[0].toString(),
      resumable: row[3].length > 0,
      expiresMs,
      offered: state !== 'released' && expiresMs > this.#now(),
    };
  }

  async knows(id: string): Promise<boolean> {
    return (await this.#run(['get', id])) !== null;
  }

  /** The job, which a sweep purged before its caller did, is to leave nothing behind. */
  async purged(jobId: JobId): Promise<void> {
    await this.#run(['purged', jobId]);
  }

  async release(id: string): Promise<void> {
    const [answer] = (await this.#run(['release', id])) as [Buffer];
    if (answer.toString() === 'unknown') throw uploadNotFound(id);
  }

  /** One at a time, so that whoever has asked is answered when what was due before is gone. */
  reclaim(remove: (id: string) => Promise<void>): Promise<void> {
    const reclaimed = this.#reclaiming.then(() => this.#reclaim(remove));
    this.#reclaiming = reclaimed.catch(() => {});
    return reclaimed;
  }

  async #reclaim(remove: (id: string) => Promise<void>): Promise<void> {
    let more = true;
    let marked: string[] = [];
    while (more) {
      const [again, ...ids] = (await this.#run(['mark', this.#now()])) as [number, ...Buffer[]];
      more = again === 1;
      marked = ids.map(String);
    }
    const errors: unknown[] = [];
    for (const id of marked) {
      try {
        await remove(id);
        await this.#run(['drop', id]);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  async #facts(id: string): Promise<Facts> {
    const row = (await this.#run(['get', id])) as Row | null;
    if (!row) throw uploadNotFound(id);
    return factsOf(row);
  }

  async #count(
    id: string,
    bytes: number,
    expiresMs: number,
    limits: UploadLimits,
    facts: Facts | undefined,
    state: 'receiving' | 'whole',
  ): Promise<void> {
    await this.#ask(id, bytes, limits, ['count', id, bytes, expiresMs, limits.maxBytes, facts ? JSON.stringify(facts) : '', state]);
  }

  async #ask(id: string, bytes: number, limits: UploadLimits, args: readonly (string | number)[]): Promise<void> {
    const [answer, has] = (await this.#run(args)) as [Buffer, number?];
    switch (answer.toString()) {
      case 'unknown':
        throw uploadNotFound(id);
      case 'uploads':
        throw tooManyUploads(has!, limits.maxUploads);
      case 'bytes':
        throw tooManyUploadBytes(has!, bytes, limits.maxBytes);
    }
  }
}

function factsOf(row: Row): Facts {
  const { filename, note, length, sha256, whole } = JSON.parse(row[4].toString()) as Facts;
  return { filename, note, length, sha256, whole };
}
