// Who calls, on each call.
import type { Interceptor } from '@connectrpc/connect';

/** API key or JWT, sent as `Authorization: Bearer`; a function is asked for each call, and may have none. */
export type Token = string | (() => string | undefined | Promise<string | undefined>);

export async function authorization(token: Token | undefined): Promise<Record<string, string>> {
  const value = typeof token === 'function' ? await token() : token;
  return value === undefined ? {} : { authorization: `Bearer ${value}` };
}

export function bearer(token: Token): Interceptor {
  return (next) => async (request) => {
    for (const [name, value] of Object.entries(await authorization(token))) request.header.set(name, value);
    return next(request);
  };
}
