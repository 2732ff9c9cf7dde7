// What the port asks before and after each call: who calls, what they may, what is noted of it. One instance stands for all ways in.
import type { DescMethod } from '@bufbuild/protobuf';
import type { Caller, Identity, Scope } from './caller.ts';
import type { JobsError } from './errors.ts';

export interface Rule {
  /** `public`: for everybody, and nobody is asked who they are. `any`: for whoever has an identity. */
  readonly needs: Scope | 'public' | 'any';
  /** Counts against the rate of submits: how many jobs the call asks for. */
  readonly submits?: (message: unknown) => number;
  /** Done, it goes into the audit log; a refusal does in any case. */
  readonly audited: boolean;
}

/** What is left of a rate. */
export interface Allowance {
  readonly limit: number;
  readonly remaining: number;
  readonly resetSeconds: number;
}

/** One thing that somebody did, or was refused, as the audit log keeps it. Never media, secrets or signed URLs. */
export interface AuditEntry {
  /** `JobService/Submit`, `service.started` ... */
  readonly action: string;
  readonly tenant?: string;
  /** As in `submitted_by`. */
  readonly actor?: string;
  readonly address?: string;
  /** gRPC code in lower snake case. */
  readonly outcome: string;
  /** Of a refusal. */
  readonly reason?: string;
  readonly job_id?: string;
  readonly batch_id?: string;
  readonly upload_id?: string;
  readonly key_id?: string;
  /** What was taken out of service or put back; no slot: the whole node. */
  readonly node?: string;
  readonly slot?: string;
  readonly request_id?: string;
  /** The caller's statement of consent. */
  readonly attestation?: string;
  /** Of a batch: the places, from 0, of the jobs that make this statement. Each other statement in it has an entry of its own. */
  readonly attested_jobs?: readonly number[];
  /** Like refusals of the same caller before this one that have no line of their own. */
  readonly suppressed?: number;
  /** Entries that could not be written before this one. */
  readonly lost?: number;
  /** Bytes of an unfinished line that a crash had left. */
  readonly torn_bytes?: number;
  readonly version?: string;
}

/** The part of a connection that tells who is at its other end. */
export interface Peer {
  readonly remoteAddress?: string | undefined;
}

export interface Guard {
  /** Who calls; at once where that is known. Throws, or rejects with, UNAUTHENTICATED or UNAVAILABLE. */
  identify(headers: Readonly<Record<string, string | string[] | undefined>>, peer: Peer): Caller | Promise<Caller>;
  /** Where a call comes from, whoever made it. */
  addressOf(headers: Readonly<Record<string, string | string[] | undefined>>, peer: Peer): string;
  /** Throws on a method that nobody has ruled on. */
  ruleOf(method: DescMethod): Rule;
  /** Takes submits from what the caller has left; undefined: there is no limit. Throws RATE_LIMITED. */
  submit(caller: Caller, jobs: number): Promise<Allowance | undefined>;
  /** Calls `ended` when the identity has; the function returned lets go. */
  hold(identity: Identity, ended: (reason: JobsError) => void): () => void;
  /** False: nothing is, so that nobody need put together what. */
  readonly notes: boolean;
  /** Throws UNAVAILABLE where what is done next could not be noted. */
  assertNotable(): void;
  /** Notes what was done; never rejects. */
  note(entry: AuditEntry): Promise<void>;
  /** Notes a refusal, unless the same caller has had very many; `from`: an address where nobody knows who it was. */
  noteRefusal(entry: AuditEntry, from: string): void;
}
