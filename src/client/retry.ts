// Patience: what is asked again, and when. Always true here: a call is repeated only where the service asks for it (`RetryInfo`: it has changed
// nothing yet), or where the connection broke and the call may be made twice.
import { isMessage, type Message } from '@bufbuild/protobuf';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { CreateKeyRequestSchema, RotateKeyRequestSchema } from '../../gen/facefusion/jobs/v1/access_service_pb.js';
import { retryDelayMs } from './errors.ts';

export interface RetryOptions {
  /** Longest wait for one call, over all its repetitions, in milliseconds; 0: none. */
  readonly patienceMs?: number;
  /** What is waited for, where the service says when to come again; default: a start (UNAVAILABLE) and a limit (RESOURCE_EXHAUSTED). */
  readonly codes?: readonly Code[];
  /** How often a call is made again when its connection breaks, and a result fetched again; default 5. */
  readonly losses?: number;
  /** Each time before it waits, with the service's word. */
  onWait?(error: ConnectError, delayMs: number): void;
}

export const LOSSES = 5;
const FIRST_MS = 200;
const LONGEST_MS = 5_000;

export function patience({
  patienceMs = 60_000,
  codes = [Code.Unavailable, Code.ResourceExhausted],
  losses = LOSSES,
  onWait,
}: RetryOptions = {}): Interceptor {
  return (next) => async (request) => {
    const until = performance.now() + patienceMs;
    for (let tried = 0; ; tried++) {
      try {
        return await next(request);
      } catch (thrown) {
        const error = ConnectError.from(thrown);
        const asked = codes.includes(error.code) ? retryDelayMs(error) : undefined;
        const delay = asked ?? (tried < losses && isLoss(error) && mayRepeat(request.message) ? backoffMs(tried) : undefined);
        if (request.stream || request.signal.aborted || delay === undefined || performance.now() + delay > until) throw thrown;
        onWait?.(error, delay);
        await pause(delay, request.signal);
      }
    }
  };
}

/** Doubles with each try, half of it by chance, so that many clients of one service do not come back at once. */
export function backoffMs(tried: number, { firstMs = FIRST_MS, longestMs = LONGEST_MS } = {}): number {
  const cap = Math.min(longestMs, firstMs * 2 ** tried);
  return cap / 2 + (Math.random() * cap) / 2;
}

/** A broken connection, or a service that goes down, rather than its word on the call. */
export function isLoss(error: ConnectError): boolean {
  switch (error.code) {
    case Code.Unavailable:
    case Code.Aborted:
    case Code.Canceled:
      return true;
    case Code.Internal:
    case Code.Unknown:
      return error.details.length === 0;
    default:
      return false;
  }
}

/** Not what would be there twice: a key, or a submission without an idempotency key. */
function mayRepeat(message: Message | AsyncIterable<Message>): boolean {
  if (isMessage(message, CreateKeyRequestSchema) || isMessage(message, RotateKeyRequestSchema)) return false;
  if ('job' in message) return (message.job as { idempotencyKey?: string } | undefined)?.idempotencyKey !== undefined;
  return !('jobs' in message) || (message as { idempotencyKey?: string }).idempotencyKey !== undefined;
}

/** Rejects with the signal's reason when it aborts. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
