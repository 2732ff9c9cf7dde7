// Which pages of other origins may call (https://fetch.spec.whatwg.org/#http-cors-protocol). Always true: an origin that is not named gets no
// header at all, so a browser keeps its pages out; what is no browser is not concerned.
import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
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

/** Sets the headers that the caller's origin is due. True: the request was a preflight and asks for nothing else. */
export type Cors = (method: string | undefined, headers: IncomingHttpHeaders, response: Pick<ServerResponse, 'setHeader'>) => boolean;

/** `origins` as browsers send them; `*` stands for all. */
export function createCors(origins: readonly string[]): Cors {
  const all = origins.includes('*');
  const known = new Set(origins);
  return (method, headers, response) => {
    const { origin } = headers;
    if (known.size === 0) return false;
    // What a cache keeps for one origin is not for another.
    if (!all) response.setHeader('vary', 'Origin');
    if (origin === undefined || !(all || known.has(origin))) return false;
    response.setHeader('access-control-allow-origin', all ? '*' : origin);
    if (method !== 'OPTIONS' || headers['access-control-request-method'] === undefined) {
      response.setHeader('access-control-expose-headers', RESPONSE_HEADERS);
      return false;
    }
    response.setHeader('access-control-allow-methods', METHODS);
    response.setHeader('access-control-allow-headers', REQUEST_HEADERS);
    response.setHeader('access-control-max-age', MAX_AGE_SECONDS);
    return true;
  };
}
