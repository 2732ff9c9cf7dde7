// Which pages of other origins may call (https://fetch.spec.whatwg.org/#http-cors-protocol). Always true: an origin that is not named gets no
// header at all, so a browser keeps its pages out; what is no browser is not concerned.
import type { IncomingHttpHeaders } from 'node:http';
import { cors } from '@connectrpc/connect';
import { TUS_REQUEST_HEADERS, TUS_RESPONSE_HEADERS } from './upload-tus.ts';

const METHODS = [...cors.allowedMethods, 'HEAD', 'PATCH', 'DELETE'].join(', ');
const REQUEST_HEADERS = [
  ...cors.allowedHeaders,
  'Authorization',
  'Idempotency-Key',
  'Last-Event-ID',
  'Prefer',
  'Range',
  'X-API-Key',
  'X-Request-Id',
  ...TUS_REQUEST_HEADERS,
].join(', ');
const RESPONSE_HEADERS = [
  ...cors.exposedHeaders,
  'Content-Range',
  'Location',
  'Preference-Applied',
  'RateLimit-Limit',
  'RateLimit-Remaining',
  'RateLimit-Reset',
  'Retry-After',
  'WWW-Authenticate',
  'X-Request-Id',
  ...TUS_RESPONSE_HEADERS,
].join(', ');
/** Browsers keep a preflight's answer no longer than two hours. */
const MAX_AGE_SECONDS = '7200';

export interface CorsAnswer {
  /** What the caller's origin is due, with whatever it is answered. */
  readonly headers: Readonly<Record<string, string>>;
  /** The request asks for these and nothing else. */
  readonly preflight: boolean;
}

export type Cors = (method: string | undefined, headers: IncomingHttpHeaders) => CorsAnswer;

const NOTHING: CorsAnswer = { headers: {}, preflight: false };

/** `origins` as browsers send them; `*` stands for all. */
export function createCors(origins: readonly string[]): Cors {
  const all = origins.includes('*');
  const known = new Set(origins);
  if (known.size === 0) return () => NOTHING;
  // What a cache keeps for one origin is not for another.
  const always: Record<string, string> = all ? {} : { vary: 'Origin' };
  const stranger: CorsAnswer = { headers: always, preflight: false };
  return (method, { origin, 'access-control-request-method': wanted }) => {
    if (origin === undefined || !(all || known.has(origin))) return stranger;
    const headers = { ...always, 'access-control-allow-origin': all ? '*' : origin };
    if (method !== 'OPTIONS' || wanted === undefined) {
      return { headers: { ...headers, 'access-control-expose-headers': RESPONSE_HEADERS }, preflight: false };
    }
    return {
      headers: {
        ...headers,
        'access-control-allow-methods': METHODS,
        'access-control-allow-headers': REQUEST_HEADERS,
        'access-control-max-age': MAX_AGE_SECONDS,
      },
      preflight: true,
    };
  };
}
