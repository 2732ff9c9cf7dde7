// Tells receivers what the outbox holds. Always true here: at most so many tries are under way at once, so many of one host and so many of one tenant, so
// that slow receivers take nobody's turn; a try that nobody knows the end of is made again, under the same id.
import { Webhook } from 'standardwebhooks';
import type { Job } from '../jobs/job.ts';
import { type Delivery, eventType, GIVE_UP_MS, type Outcome, type WebhookOutbox, webhookDelayMs } from '../jobs/webhooks.ts';
import { Rerun } from '../rerun.ts';
import type { Sent } from './send.ts';

export interface NotifierOptions {
  readonly outbox: WebhookOutbox;
  readonly send: (url: string, headers: Readonly<Record<string, string>>, body: string, signal: AbortSignal) => Promise<Sent>;
  /** The job as it is now; undefined: it is forgotten. */
  readonly job: (id: string) => Promise<Job | undefined>;
  /** JSON of a job as callers are shown it, URLs made now. */
  readonly render: (job: Job) => Promise<string>;
  /** Secrets of a tenant, `whsec_...`; each signs, so that receivers can go from one to the next. */
  readonly secretsFor: (tenant: string) => readonly string[];
  readonly maxAtOnce: number;
  readonly maxPerHost: number;
  readonly maxPerTenant: number;
  /** Longer than a try takes. */
  readonly leaseMs: number;
  /** In [0, 1). */
  readonly random?: () => number;
  /** Told of each try: `delivered`, `retry` or `dead`, and why. */
  readonly count: (outcome: Outcome['type'], why: string) => void;
  /** Told of so many that gave way to newer ones. */
  readonly gaveWay: (count: number) => void;
  readonly onError: (error: unknown) => void;
}

/** What may have been missed is found after this. */
const LOOK_AGAIN_MS = 5_000;

export class Notifier implements AsyncDisposable {
  readonly #options: NotifierOptions;
  /** What is being told, each with its try. */
  readonly #tries = new Map<Delivery, Promise<void>>();
  readonly #closing = new AbortController();
  readonly #looks: Rerun;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: NotifierOptions) {
    this.#options = options;
    this.#looks = new Rerun(
      () => this.#takeDue(),
      (error) => {
        if (!this.#closing.signal.aborted) options.onError(error);
        this.#arm(LOOK_AGAIN_MS);
      },
    );
    options.outbox.onDue = () => this.look();
    this.look();
  }

  /** Something may be due. */
  look(): void {
    if (!this.#closing.signal.aborted) this.#looks.ask();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('the service is shutting down'));
    this.#options.outbox.onDue = () => {};
    clearTimeout(this.#timer);
    await this.#looks.settled();
    await Promise.allSettled(this.#tries.values());
  }

  async #takeDue(): Promise<void> {
    const { outbox, maxAtOnce, maxPerHost: perHost, maxPerTenant: perTenant, leaseMs } = this.#options;
    const max = maxAtOnce - this.#tries.size;
    // Whoever ends looks again.
    if (max <= 0 || this.#closing.signal.aborted) return;
    const { deliveries, nextMs, gaveWay } = await outbox.take({ max, perHost, perTenant, underWay: [...this.#tries.keys()], leaseMs });
    if (gaveWay > 0) this.#options.gaveWay(gaveWay);
    for (const delivery of deliveries) this.#begin(delivery);
    if (deliveries.length > 0) this.look();
    this.#arm(nextMs === undefined ? LOOK_AGAIN_MS : Math.max(0, nextMs - outbox.now()));
  }

  #arm(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#closing.signal.aborted) return;
    this.#timer = setTimeout(() => this.look(), Math.min(ms + 1, LOOK_AGAIN_MS));
    this.#timer.unref();
  }

  #begin(delivery: Delivery): void {
    const one = this.#try(delivery)
      .catch((error) => {
        // Left as it is: it is taken again when its lease is over.
        if (!this.#closing.signal.aborted) this.#options.onError(error);
      })
      .finally(() => {
        this.#tries.delete(delivery);
        this.look();
      });
    this.#tries.set(delivery, one);
  }

  async #try(delivery: Delivery): Promise<void> {
    const { outbox, job: find, count } = this.#options;
    const job = await find(delivery.jobId);
    if (!job) return await outbox.settle(delivery, { type: 'delivered' });
    const { outcome, why } = this.#outcomeOf(delivery, await this.#sent(delivery, job));
    await outbox.settle(delivery, outcome);
    count(outcome.type, why);
  }

  async #sent(delivery: Delivery, job: Job): Promise<Sent> {
    const { send, secretsFor } = this.#options;
    const { id, url, tenant, status, createdMs } = delivery;
    const secrets = secretsFor(tenant);
    if (secrets.length === 0)
      return {
        ok: false,
        kind: 'refused',
        error: `there is no secret to sign webhooks of the tenant '${tenant}' with: the operator adds one to FFJOBS_WEBHOOK_SECRETS_FILE`,
        gone: false,
      };
    const shown = await this.#shown(delivery, job);
    if (shown === undefined)
      return { ok: false, kind: 'internal', error: 'what is to be told could not be written; see the log', gone: false };
    const type = JSON.stringify(eventType(status));
    const timestamp = JSON.stringify(new Date(createdMs).toISOString());
    const body = `{"type":${type},"timestamp":${timestamp},"data":${shown}}`;
    // The time of this try: a receiver refuses what is older than five minutes.
    const at = new Date(this.#options.outbox.now());
    const headers = {
      'webhook-id': id,
      'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
      'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(id, at, body)).join(' '),
    };
    return await send(url, headers, body, this.#closing.signal);
  }

  /** JSON of the job; undefined: it cannot be made now, as where a URL of the result cannot be signed. That is a try that failed, and is given up on as any. */
  async #shown(delivery: Delivery, job: Job): Promise<string | undefined> {
    try {
      return await this.#options.render(toldAs(delivery.job, job));
    } catch (error) {
      this.#options.onError(error);
      return undefined;
    }
  }

  #outcomeOf({ attempts, sinceMs }: Delivery, sent: Sent): { readonly outcome: Outcome; readonly why: string } {
    if (sent.ok) return { outcome: { type: 'delivered' }, why: 'ok' };
    const { error, kind, gone } = sent;
    const atMs = this.#options.outbox.now() + webhookDelayMs(attempts, (this.#options.random ?? Math.random)());
    if (gone || atMs > sinceMs + GIVE_UP_MS) return { outcome: { type: 'dead', error }, why: kind };
    return { outcome: { type: 'retry', atMs, error }, why: kind };
  }
}

/** As the step left it; a result that is purged since is not told of. */
function toldAs(then: Job, now: Job): Job {
  const job: Job = { ...then, request: now.request, tenant: now.tenant };
  return now.purgedAt ? { ...job, result: undefined, purgedAt: now.purgedAt } : job;
}
