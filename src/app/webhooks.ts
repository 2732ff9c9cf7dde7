// What webhooks are made of here: secrets, where they may go, and who sends them.
import { readFile } from 'node:fs/promises';
import { JobSchema } from '../../gen/facefusion/jobs/v1/job_pb.js';
import type { Config } from '../config.ts';
import type { Violation } from '../jobs/errors.ts';
import type { Job } from '../jobs/job.ts';
import type { JobStore } from '../jobs/ports.ts';
import type { Outcome } from '../jobs/webhooks.ts';
import { Hosts } from '../media/hosts.ts';
import { Notifier } from '../notify/notifier.ts';
import { webhookSecrets } from '../notify/secrets.ts';
import { Sender } from '../notify/send.ts';
import { createJsonWriter } from '../rest/json-writer.ts';

export interface Webhooks {
  /** What is wrong with a receiver; undefined: nothing. */
  readonly check: (url: string, tenant: string) => Pick<Violation, 'reason' | 'description'> | undefined;
  /** Begins to tell what the store has to tell. */
  start(options: WebhookWork): AsyncDisposable;
}

export interface WebhookWork {
  readonly store: JobStore;
  /** A job as callers are shown it. */
  readonly present: (job: Job) => Job | Promise<Job>;
  readonly count: (outcome: Outcome['type'], why: string) => void;
  readonly gaveWay: (count: number) => void;
  readonly onError: (error: unknown) => void;
}

const TRY_MS = 15_000;
/** Twice what a try can take, so that two nodes do not tell the same at once; so long after a crash it is told again. */
const LEASE_MS = 30_000;
const MAX_AT_ONCE = 64;
/** A quarter, and the next that is free is for who has the fewest: four tenants whose receivers are all dead leave the fifth a fraction of a second's wait. */
const MAX_PER_TENANT = 16;
const MAX_PER_HOST = 4;
const NO_SECRET = {
  reason: 'WEBHOOKS_OFF',
  description: 'this service has no secret to sign your webhooks with: the operator sets one with FFJOBS_WEBHOOK_SECRETS_FILE',
};

/** Throws an `Error` that can be shown where the operator's settings cannot be. */
export async function openWebhooks(config: Config): Promise<Webhooks> {
  // A node that only works writes down what is to be told, and leaves it to others to sign and send: it needs the receiver and no secret.
  const sends = config.role !== 'worker';
  const file = sends ? config.webhookSecretsFile : undefined;
  const secretsFor = webhookSecrets(file === undefined ? '' : await secretsIn(file));
  const hosts = new Hosts({ allow: config.webhookAllow, ports: config.httpPorts, schemes: ['https', 'http'] });
  const check: Webhooks['check'] = (url, tenant) => {
    const parsed = hosts.parse(url);
    if (!(parsed instanceof URL)) {
      return {
        reason: parsed.reason.replace('INPUT_', 'WEBHOOK_'),
        description: parsed.description
          .replace('media are fetched from', 'webhooks are sent to')
          .replace('; give a presigned URL instead', ': what is sent is signed, which tells a receiver who sends it'),
      };
    }
    return secretsFor(tenant).length > 0 ? undefined : NO_SECRET;
  };
  if (config.webhookUrl !== undefined) {
    if (!URL.canParse(config.webhookUrl))
      throw new Error(`FFJOBS_WEBHOOK_URL is '${config.webhookUrl}'; allowed: a URL such as https://example.com/hook`);
    const wrong = sends ? check(config.webhookUrl, '') : undefined;
    if (wrong === NO_SECRET) {
      throw new Error(
        'FFJOBS_WEBHOOK_URL: it is told of the jobs of all tenants, and there is no secret for all of them: add a line `whsec_...` without a tenant to FFJOBS_WEBHOOK_SECRETS_FILE',
      );
    }
    if (wrong) throw new Error(`FFJOBS_WEBHOOK_URL: ${wrong.description}; FFJOBS_WEBHOOK_ALLOW lists hosts that are not public`);
  }
  return {
    check,
    start({ store, present, count, gaveWay, onError }) {
      const sender = new Sender({ connect: hosts.connector(TRY_MS), timeoutMs: TRY_MS, perHost: MAX_PER_HOST });
      const write = createJsonWriter().message(JobSchema);
      const notifier = new Notifier({
        outbox: store.webhooks,
        send: (url, headers, body, signal) => sender.send(url, headers, body, signal),
        job: (id) => store.get(id),
        render: async (job) => write(await present(job)),
        secretsFor,
        maxAtOnce: MAX_AT_ONCE,
        maxPerHost: MAX_PER_HOST,
        maxPerTenant: MAX_PER_TENANT,
        leaseMs: LEASE_MS,
        count,
        gaveWay,
        onError,
      });
      return {
        async [Symbol.asyncDispose]() {
          await notifier[Symbol.asyncDispose]();
          await sender[Symbol.asyncDispose]();
        },
      };
    },
  };
}

async function secretsIn(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new Error(`FFJOBS_WEBHOOK_SECRETS_FILE: ${path} cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
}
