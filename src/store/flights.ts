// Runs that like jobs share, in memory: they are known to this process alone, as its leases are, and a restart brings the jobs of each back to the queue.
// Always true here: it mirrors what is committed, plus what the running group has done and can take back; a job is in one flight at most, and the jobs
// that joined one are in the order of their submission.
import type { Fingerprint } from '../jobs/fingerprint.ts';
import type { JobId } from '../jobs/ports.ts';

/** A job that joined, and how it wants the run's end. */
export interface Member {
  readonly jobId: JobId;
  readonly num: number;
  readonly retentionMs: number | undefined;
  /** It has something to do with the result itself: it goes back to the queue, and takes it from the cache. */
  readonly again: boolean;
}

export interface Flight {
  readonly fingerprint: Fingerprint;
  /** Whose run it is; it may have been canceled since, the run being for the others. */
  readonly leader: JobId;
  readonly members: readonly Member[];
}

export class Flights {
  readonly #undo: (back: () => void) => void;
  readonly #flights = new Map<Fingerprint, Flight>();
  readonly #byJob = new Map<JobId, Fingerprint>();

  constructor(undo: (back: () => void) => void) {
    this.#undo = undo;
  }

  of(jobId: JobId): Flight | undefined {
    const fingerprint = this.#byJob.get(jobId);
    return fingerprint === undefined ? undefined : this.#flights.get(fingerprint);
  }

  get(fingerprint: Fingerprint): Flight | undefined {
    return this.#flights.get(fingerprint);
  }

  lead(fingerprint: Fingerprint, leader: JobId, members: readonly Member[] = []): void {
    this.#set(fingerprint, { fingerprint, leader, members });
  }

  join({ fingerprint, leader, members }: Flight, member: Member): void {
    this.#set(fingerprint, { fingerprint, leader, members: [...members, member].sort((a, b) => a.num - b.num) });
  }

  leave({ fingerprint, leader, members }: Flight, jobId: JobId): Flight {
    const rest = { fingerprint, leader, members: members.filter((member) => member.jobId !== jobId) };
    this.#set(fingerprint, rest);
    return rest;
  }

  end({ fingerprint }: Flight): void {
    this.#set(fingerprint, undefined);
  }

  #set(fingerprint: Fingerprint, flight: Flight | undefined): void {
    const before = this.#flights.get(fingerprint);
    this.#put(fingerprint, before, flight);
    this.#undo(() => this.#put(fingerprint, flight, before));
  }

  #put(fingerprint: Fingerprint, before: Flight | undefined, after: Flight | undefined): void {
    for (const jobId of jobsOf(before)) this.#byJob.delete(jobId);
    for (const jobId of jobsOf(after)) this.#byJob.set(jobId, fingerprint);
    if (after) this.#flights.set(fingerprint, after);
    else this.#flights.delete(fingerprint);
  }
}

function jobsOf(flight: Flight | undefined): JobId[] {
  return flight ? [flight.leader, ...flight.members.map(({ jobId }) => jobId)] : [];
}
