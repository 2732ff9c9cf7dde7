// Which steps of a job are told to its caller's receiver, and the port that keeps what is to be told. Always true: a delivery is written in the step
// that it tells of, and has one id for ever; those of a job are told one after another, in the order of its steps. Pure but for the port.
import { isTerminal, type Job, JobStatus } from './job.ts';

/** After so long without success a delivery is dead, until somebody asks for it again. */
export const GIVE_UP_MS = 24 * 3_600_000;
const FIRST_RETRY_MS = 5_000;
const LAST_RETRY_MS = 3_600_000;

/** What a step has to tell. */
export interface NewDelivery {
  /** `webhook-id`: the same over all tries. */
  readonly id: string;
  readonly url: string;
  /** Host and port; how many are told at once is counted by it. */
  readonly host: string;
  readonly status: JobStatus;
}

/** What a job's step has to tell, `fallback` being where jobs are told that name no receiver. `before` undefined: it was submitted. */
export function deliveryOf(before: Job | undefined, after: Job, fallback: string | undefined): NewDelivery | undefined {
  if (before?.status === after.status) return undefined;
  const webhook = after.request?.webhook;
  const url = webhook?.url ?? fallback;
  if (url === undefined) return undefined;
  const wanted = webhook?.statuses ?? [];
  if (wanted.length > 0 ? !wanted.includes(after.status) : !isTerminal(after.status)) return undefined;
  return { id: `msg_${after.jobId}_${after.sequence}`, url, host: new URL(url).host, status: after.status };
}

/** `job.succeeded` */
export function eventType(status: JobStatus): string {
  return `job.${JobStatus[status]!.toLowerCase()}`;
}

/** Milliseconds before the next try after `attempts`: doubling from 5 s to an hour, the upper half at random in [0, 1). */
export function webhookDelayMs(attempts: number, random: number): number {
  const cap = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(20, attempts - 1));
  return Math.round(cap / 2 + (random * cap) / 2);
}

export interface Delivery extends NewDelivery {
  readonly tenant: string;
  readonly jobId: string;
  /** The job without its request as the step left it. */
  readonly job: Job;
  /** When the step was made; milliseconds since 1970, as all times here. */
  readonly createdMs: number;
  /** Since when it is tried. */
  readonly sinceMs: number;
  /** Tries, this one included. */
  readonly attempts: number;
  readonly dead: boolean;
  /** Why the last try failed. */
  readonly error: string | undefined;
}

export type Outcome =
  | { readonly type: 'delivered' }
  | { readonly type: 'retry'; readonly atMs: number; readonly error: string }
  | { readonly type: 'dead'; readonly error: string };

export interface TakeDeliveries {
  readonly max: number;
  /** Of one host, with those under way. */
  readonly perHost: number;
  /** Of one tenant, with those under way. */
  readonly perTenant: number;
  /** What the taker has not settled yet. */
  readonly underWay: readonly Pick<Delivery, 'tenant' | 'host'>[];
  /** For so long nobody else is given them; then their taker is taken for dead. */
  readonly leaseMs: number;
}

export interface DeliveryQuery {
  readonly tenant: string;
  readonly dead: boolean;
  /** 1..1000. */
  readonly pageSize: number;
  /** `DeliveryPage.next` of the page before. */
  readonly before?: number | undefined;
}

export interface DeliveryPage {
  readonly deliveries: readonly Delivery[];
  /** Place of the last one, where more may follow. Those that come in or are tried again meanwhile are newer: who pages comes to an end. */
  readonly next: number | undefined;
}

/** What is to be told, until it is. Part of the job store, whose steps write it. */
export interface WebhookOutbox {
  /** The store's clock, by which what is due and what has been tried for too long is judged, in milliseconds since 1970. */
  now(): number;
  /**
   * Deliveries that are due, and when something is due next that was not given for its time alone. The tenant with the fewest under way is given the next
   * one, and among its hosts the one with the fewest; of equals the longest due. So nobody's receivers, however slow and however many, hold up another's.
   */
  take(want: TakeDeliveries): Promise<{ readonly deliveries: readonly Delivery[]; readonly nextMs: number | undefined }>;
  /** What came of a try. Nothing, where somebody else has taken it since, or its job is forgotten. */
  settle(delivery: Delivery, outcome: Outcome): Promise<void>;
  /** A tenant's that have not been delivered, newest first. */
  list(query: DeliveryQuery): Promise<DeliveryPage>;
  /** Tries a dead one again, behind what its job has to tell already. Not dead: as it is. Unknown, or another tenant's: undefined. */
  replay(tenant: string, id: string): Promise<Delivery | undefined>;
  /** Called when something may have come to be due. */
  onDue: () => void;
}
