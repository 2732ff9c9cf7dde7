// `ffjobs webhooks`: what receivers have not been told, and another try of it.
import { Code, ConnectError } from '@connectrpc/connect';
import type { Command } from 'commander';
import { JobStatusSchema } from '../../../gen/facefusion/jobs/v1/job_pb.js';
import { type Delivery, DeliverySchema, DeliveryState } from '../../../gen/facefusion/jobs/v1/webhook_service_pb.js';
import type { Service } from './client.ts';
import { CliError, Exit, type ExitCode } from './errors.ts';
import { dialect, enumName, timeInRow } from './json.ts';
import { limitOf } from './request.ts';
import { answer, answerJson, say, type Terminal } from './terminal.ts';

type Against = (command: Command, body: (service: Service, options: { readonly json: boolean }) => Promise<ExitCode>) => Promise<void>;

const PAGE = 1000;

export function addWebhookCommands(program: Command, terminal: Terminal, against: Against): void {
  const webhooks = program.command('webhooks').description('deliveries that did not arrive: list them, try them again');

  webhooks
    .command('list')
    .description('list deliveries that are dead, newest first: not taken for 24 hours, or answered with 410')
    .option('--pending', 'those that are still tried instead', false)
    .option('--limit <n>', 'how many', '20')
    .action((_options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const { pending, limit } = command.opts<{ pending: boolean; limit: string }>();
        const most = limitOf(limit);
        const state = pending ? DeliveryState.PENDING : DeliveryState.DEAD;
        let shown = 0;
        for await (const delivery of deliveries(service, state, most)) {
          if (json) answerJson(terminal, dialect(DeliverySchema, delivery));
          else {
            if (shown === 0) answer(terminal, row('DELIVERY', 'STATUS', 'CREATED', 'TRIES', 'RECEIVER', 'WHY'));
            answer(terminal, rowOf(delivery));
          }
          shown++;
        }
        if (shown === 0 && !json) say(terminal, pending ? 'Nothing is on its way.' : 'No delivery is dead.');
        return Exit.ok;
      }),
    );

  webhooks
    .command('replay')
    .description('try dead deliveries again, for 24 hours from now; receivers see the same webhook-id')
    .argument('[deliveries...]', 'as `ffjobs webhooks list` shows them')
    .option('--all', 'all that are dead', false)
    .action((ids: string[], _options: unknown, command: Command) =>
      against(command, async (service, { json }) => {
        const { all } = command.opts<{ all: boolean }>();
        if (all === ids.length > 0) throw new CliError(Exit.invalid, 'name the deliveries to try again, or all of them with --all');
        let unknown = 0;
        let tried = 0;
        for await (const deliveryId of all ? idsOf(deliveries(service, DeliveryState.DEAD, Number.POSITIVE_INFINITY)) : ids) {
          const delivery = await replayed(service, deliveryId);
          if (!delivery) {
            // One that was forgotten since it was listed is nobody's mistake.
            if (!all) say(terminal, `ffjobs: there is no delivery '${deliveryId}' that has not arrived`);
            unknown++;
            continue;
          }
          tried++;
          if (json) answerJson(terminal, dialect(DeliverySchema, delivery));
          else answer(terminal, `${deliveryId} is tried again`);
        }
        if (all && tried === 0 && !json) say(terminal, 'No delivery is dead.');
        return unknown > 0 && !all ? Exit.notFound : Exit.ok;
      }),
    );
}

async function* deliveries(service: Service, state: DeliveryState, most: number): AsyncGenerator<Delivery> {
  let left = most;
  let pageToken = '';
  do {
    const page = await service.webhooks.listDeliveries({ state, pageSize: Math.min(left, PAGE), pageToken });
    for (const delivery of page.deliveries.slice(0, left)) yield delivery;
    left -= page.deliveries.length;
    pageToken = page.nextPageToken;
  } while (pageToken !== '' && left > 0);
}

async function* idsOf(all: AsyncIterable<Delivery>): AsyncGenerator<string> {
  for await (const { deliveryId } of all) yield deliveryId;
}

/** Undefined: there is no such delivery any more. */
async function replayed(service: Service, deliveryId: string): Promise<Delivery | undefined> {
  try {
    return (await service.webhooks.replayDelivery({ deliveryId })).delivery;
  } catch (error) {
    if (error instanceof ConnectError && error.code === Code.NotFound) return undefined;
    throw error;
  }
}

function rowOf({ deliveryId, status, createdAt, attempts, host, error }: Delivery): string {
  return row(deliveryId, enumName(JobStatusSchema, status), timeInRow(createdAt), String(attempts), host, error);
}

function row(id: string, status: string, created: string, tries: string, host: string, why: string): string {
  return `${id.padEnd(32)}  ${status.padEnd(10)}  ${created.padEnd(19)}  ${tries.padStart(5)}  ${host.padEnd(24)}  ${why}`.trimEnd();
}
