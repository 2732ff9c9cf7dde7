// Which steps of a job are told to its caller's receiver, and the port that keeps what is to be told. Always true: a delivery is written in the step
// that it tells of, and has one id for ever; those of a job are told one after another, in the order of its steps; one that tells of its end gives way to
// no other. Pure but for the port.
import { isTerminal, type Job, JobStatus } from './job.ts';

/** After so long without success a delivery is dead, until somebody asks for it again. */
export const GIVE_UP_MS = 24 * 3_600_000;
const FIRST_RETRY_MS = 5_000;
const LAST_RETRY_MS = 3_600_000;

/** What holds for all that is told. */
export interface WebhookRules {
  /** Where jobs are told that name no receiver; undefined: they are told to nobody. */
  readonly fallback: string | undefined;
  /** Of one tenant's deliveries that tell of no end, how many may wait. */
  readonly maxNews: number;
}

/** Of a store that nobody has given any. */
export const NO_WEBHOOK_RULES: WebhookRules = { fallback: undefined, maxNews: Number.MAX_SAFE_INTEGER };

/** How many give way in one step at the most: more where the limit has come down, and then a few with each step that adds one. */
export const GIVE_WAY = 16;

/** A delivery that tells of no end. */
export interface NewsLimit {
  /** Of its tenant, with this one; the oldest beyond it are dead. */
  readonly most: number;
  /** What is said of those. */
  readonly why: string;
}

/** What a step has to tell. */
export interface NewDelivery {
  /** `webhook-id`: the same over all tries. */
  readonly id: string;
  readonly url: string;
  /** Host and port; how many are told at once is counted by it. */
  readonly host: string;
  readonly status: JobStatus;
  /** Undefined: it tells of the end, and is kept until it is delivered, dead after its tries, or its job is forgotten. */
  readonly news: NewsLimit | undefined;
}

/** What a job's step has to tell. `before` undefined: it was submitted. */
export function deliveryOf(before: Job | undefined, after: Job, rules: WebhookRules): NewDelivery | undefined {
  if (before?.status === after.status) return undefined;
  const webhook = after.request?.webhook;
  const url = webhook?.url ?? rules.fallback;
  if (url === undefined) return undefined;
  const wanted = webhook?.statuses ?? [];
  if (wanted.length > 0 ? !wanted.includes(after.status) : !isTerminal(after.status)) return undefined;
  const news = isTerminal(after.status) ? undefined : newsLimit(rules.maxNews);
  return { id: `msg_${after.jobId}_${after.sequence}`, url, host: new URL(url).host, status: after.status, news };
}

function newsLimit(most: number): NewsLimit {
  return { most, why: `more than ${most} webhooks that tell of no job's end were waiting: the oldest give way, and ends never do` };
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

export interface Delivery extends Omit<NewDelivery, 'news'> {
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

export interface TakenDeliveries {
  readonly deliveries: readonly Delivery[];
  /** When something is due next that was not given for its time alone. */
  readonly nextMs: number | undefined;
  /** How many gave way to newer ones since anybody was told. */
  readonly gaveWay: number;
}

/** What is to be told, until it is. Part of the job store, whose steps write it. */
export interface WebhookOutbox {
  /** The store's clock, by which what is due and what has been tried for too long is judged, in milliseconds since 1970. */
  now(): number;
  /**
   * Deliveries that are due. The tenant with the fewest under way is given the next
   * one, and among its hosts the one with the fewest; of equals the longest due. So nobody's receivers, however slow and however many, hold up another's.
   */
  take(want: TakeDeliveries): Promise<TakenDeliveries>;
  /** What came of a try. Nothing, where somebody else has taken it since, it gave way and did not arrive, or its job is forgotten. */
  settle(delivery: Delivery, outcome: Outcome): Promise<void>;
  /** A tenant's that have not been delivered, newest first. */
  list(query: DeliveryQuery): Promise<DeliveryPage>;
  /** Tries a dead one again, behind what its job has to tell already; it gives way to none. Not dead: as it is. Unknown, or another tenant's: undefined. */
  replay(tenant: string, id: string): Promise<Delivery | undefined>;
  /** Called when something may have come to be due. */
  onDue: () => void;
}
