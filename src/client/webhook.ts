// The receiving side of webhooks: nothing of a delivery may be used before its signature is checked (Standard Webhooks,
// https://www.standardwebhooks.com: HMAC-SHA256 over id, time and body; a delivery older than five minutes is refused).
import { Webhook, WebhookVerificationError } from 'standardwebhooks';

export { WebhookVerificationError };

/** What a webhook tells. `data` is the job as REST answers it (`GET /api/v1/jobs/{job_id}`). */
export interface WebhookEvent {
  /** `webhook-id`: the same over all tries of one delivery. Keep it to tell a repeated delivery from a new one. */
  readonly id: string;
  /** Such as `job.succeeded`. */
  readonly type: string;
  /** RFC 3339 */
  readonly timestamp: string;
  readonly data: { readonly job_id: string; readonly [field: string]: unknown };
}

/**
 * Checks a delivery and answers what it tells. `body` is the body as it arrived, byte for byte, not parsed and written again; `secret` is
 * `whsec_...`. Throws `WebhookVerificationError` for anything that our service did not send in the last five minutes: answer it with 401.
 */
export function verifyWebhook(
  body: string | Uint8Array,
  headers: Headers | Readonly<Record<string, string | string[] | undefined>>,
  secret: string,
): WebhookEvent {
  const value = (name: string): string => {
    const found = headers instanceof Headers ? headers.get(name) : headers[name];
    return (Array.isArray(found) ? found[0] : found) ?? '';
  };
  const id = value('webhook-id');
  const text = typeof body === 'string' ? body : new TextDecoder().decode(body);
  const told = new Webhook(secret).verify(text, {
    'webhook-id': id,
    'webhook-timestamp': value('webhook-timestamp'),
    'webhook-signature': value('webhook-signature'),
  });
  return { ...(told as Omit<WebhookEvent, 'id'>), id };
}
