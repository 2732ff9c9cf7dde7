// The outbox of webhooks in Redis. What is given out is leased: a taker that dies only delays it, and what it says later counts for nothing.
import { fromBinary } from '@bufbuild/protobuf';
import { JobSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import type {
  Delivery,
  DeliveryPage,
  DeliveryQuery,
  Outcome,
  TakeDeliveries,
  TakenDeliveries,
  WebhookOutbox,
} from '../../jobs/webhooks.ts';
import type { Reply } from './connection.ts';

type Run = (args: readonly (string | number)[]) => Promise<Reply>;

export class RedisOutbox implements WebhookOutbox {
  onDue = () => {};
  readonly #run: Run;
  readonly now: () => number;

  constructor(run: Run, now: () => number) {
    this.#run = run;
    this.now = now;
  }

  async take({ max, perHost, perTenant, underWay, leaseMs }: TakeDeliveries): Promise<TakenDeliveries> {
    const args = ['take', this.now(), leaseMs, max, perHost, perTenant, ...underWay.flatMap(({ tenant, host }) => [tenant, host])];
    const [next, gaveWay, ...found] = (await this.#run(args)) as [Buffer | null, number, ...Reply[]];
    return { deliveries: found.map(decode), nextMs: next ? Number(next) : undefined, gaveWay };
  }

  async settle({ id, attempts }: Delivery, outcome: Outcome): Promise<void> {
    const next = outcome.type === 'retry' ? outcome.atMs : '';
    const error = outcome.type === 'delivered' ? '' : outcome.error;
    await this.#run(['settle', this.now(), id, attempts, outcome.type, next, error]);
  }

  async list({ tenant, dead, pageSize, before }: DeliveryQuery): Promise<DeliveryPage> {
    const [last, ...found] = (await this.#run(['list', tenant, dead ? '1' : '', pageSize, before ?? ''])) as [Buffer | null, ...Reply[]];
    return { deliveries: found.map(decode), next: last === null || found.length < pageSize ? undefined : Number(last) };
  }

  async replay(tenant: string, id: string): Promise<Delivery | undefined> {
    const found = await this.#run(['replay', this.now(), tenant, id]);
    return found === null ? undefined : decode(found);
  }
}

function decode(fields: Reply): Delivery {
  const [id, url, host, status, tenant, job, state, created, since, attempts, dead, error] = (fields as (Buffer | null)[]).map(
    (field) => field?.toString() ?? '',
  ) as [string, string, string, string, string, string, string, string, string, string, string, string];
  return {
    id,
    url,
    host,
    status: Number(status),
    tenant,
    jobId: job,
    job: fromBinary(JobSchema, Buffer.from(state, 'base64')),
    createdMs: Number(created),
    sinceMs: Number(since),
    attempts: Number(attempts),
    dead: dead === '1',
    error: error || undefined,
  };
}
