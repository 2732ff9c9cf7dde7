// WebhookService: what receivers of the caller's tenant have not been told, and another try of it. The URL of a receiver is not shown: it may be the
// operator's, and hold a secret.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  type Delivery as DeliveryMessage,
  DeliverySchema,
  DeliveryState,
  ListDeliveriesResponseSchema,
  ReplayDeliveryResponseSchema,
  type WebhookService,
} from '../../gen/facefusion/jobs/v1/webhook_service_pb.js';
import { JobsError } from '../jobs/errors.ts';
import type { JobStore } from '../jobs/ports.ts';
import type { Delivery } from '../jobs/webhooks.ts';
import { callerOf } from './authorize.ts';

const PAGE_SIZE = 50;

export function createWebhookService(store: Pick<JobStore, 'webhooks'>): ServiceImpl<typeof WebhookService> {
  return {
    async listDeliveries({ state, pageSize, pageToken }, context) {
      const { tenant } = callerOf(context).identity;
      const dead = state !== DeliveryState.PENDING;
      const query = { tenant, dead, pageSize: pageSize || PAGE_SIZE, before: placeOf(pageToken) };
      const { deliveries, next } = await store.webhooks.list(query);
      return create(ListDeliveriesResponseSchema, {
        deliveries: deliveries.map(messageOf),
        nextPageToken: next === undefined ? '' : String(next),
      });
    },

    async replayDelivery({ deliveryId }, context) {
      const delivery = await store.webhooks.replay(callerOf(context).identity.tenant, deliveryId);
      if (delivery) return create(ReplayDeliveryResponseSchema, { delivery: messageOf(delivery) });
      throw new JobsError(
        'not_found',
        'DELIVERY_NOT_FOUND',
        `there is no delivery '${deliveryId}' that has not arrived; /api/v1/webhooks lists those that are dead`,
      );
    },
  };
}

function placeOf(pageToken: string): number | undefined {
  if (pageToken === '') return undefined;
  if (/^\d{1,15}$/.test(pageToken)) return Number(pageToken);
  const description = 'is not a page token of this list: leave it out for the first page';
  throw JobsError.invalid([{ field: 'page_token', reason: 'INVALID_PAGE_TOKEN', description }]);
}

function messageOf({ id, jobId, status, dead, host, createdMs, sinceMs, attempts, error }: Delivery): DeliveryMessage {
  return create(DeliverySchema, {
    deliveryId: id,
    jobId,
    status,
    state: dead ? DeliveryState.DEAD : DeliveryState.PENDING,
    host,
    createdAt: timestampFromMs(createdMs),
    triedSince: timestampFromMs(sinceMs),
    attempts,
    error: error ?? '',
  });
}
