// Where a Redis is, as operators write it. Pure. Always true here: what is said of a URL that is not right holds nothing of it, because any part of it may
// be a piece of a password that was not written as it should be.
import { isIP } from 'node:net';

/** `redis://`, and with TLS `rediss://`: one server. With `+cluster` or `+sentinel` in the scheme: several hosts with commas between. */
export interface RedisPlace {
  readonly kind: 'server' | 'cluster' | 'sentinel';
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  readonly tls: boolean;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly database: number;
  /** Of Sentinel: the name of the service. */
  readonly master: string | undefined;
  /** The URL for people: without the password. */
  readonly shown: string;
}

export const REDIS_FORMS =
  'redis://USER:PASSWORD@HOST:PORT/DATABASE, redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE, and rediss in place of redis for TLS';

const PORTS = { server: 6379, cluster: 6379, sentinel: 26_379 } as const;
/** Of the setting `databases` of Redis, which begins to count at 0. */
const MAX_DATABASE = 2 ** 31 - 2;

/** The Redis that a URL names, or what is wrong with it, in words that go on a sentence about it. */
export function redisPlaceOf(url: string): RedisPlace | string {
  const [, scheme, several, rest] = /^(rediss?)(?:\+(cluster|sentinel))?:\/\/(.*)$/s.exec(url) ?? [];
  if (scheme === undefined || rest === undefined) return 'it begins with none of these schemes';
  const kind = (several ?? 'server') as RedisPlace['kind'];
  const [, login, where, path = ''] = /^(?:([^@/?#\s]*)@)?([^@/?#\s]*)(?:\/([^@?#\s]*))?$/.exec(rest) ?? [];
  if (where === undefined)
    return 'each special character of the user and the password is written as its percent code (@ is %40, / is %2F, ? is %3F, # is %23), and nothing follows the database';
  const user = credentialsOf(login ?? '');
  if (user === undefined) return 'a % in the user or the password is written as %25';
  const hosts = where.split(',').map((entry) => hostOf(entry, PORTS[kind]));
  const wrong = hosts.find((host) => typeof host === 'string');
  if (wrong !== undefined) return wrong;
  if (kind === 'server' && hosts.length > 1) return 'several hosts are those of a Cluster or of Sentinels: the scheme says which';
  const parts = path.split('/').filter((part) => part !== '');
  const master = kind === 'sentinel' ? parts.shift() : undefined;
  if (kind === 'sentinel' && master === undefined) return "the name of the Sentinels' service follows the hosts";
  const [database = '0', ...more] = parts;
  if (more.length > 0) return 'nothing follows the database';
  if (!/^\d{1,10}$/.test(database) || Number(database) > MAX_DATABASE) return `the database is a whole number from 0 to ${MAX_DATABASE}`;
  if (kind === 'cluster' && Number(database) !== 0) return 'a Cluster has the database 0 alone';
  const shownLogin = login === undefined ? '' : `${login.split(':', 1)}${login.includes(':') ? ':***' : ''}@`;
  return {
    kind,
    hosts: hosts as Exclude<ReturnType<typeof hostOf>, string>[],
    tls: scheme === 'rediss',
    username: user.username || undefined,
    password: user.password || undefined,
    database: Number(database),
    master,
    shown: `${scheme}${several ? `+${several}` : ''}://${shownLogin}${where}${path === '' ? '' : `/${path}`}`,
  };
}

/** Throws an `Error` that can be shown. */
export function redisPlace(url: string): RedisPlace {
  const place = redisPlaceOf(url);
  if (typeof place === 'string') throw new Error(`FFJOBS_STORE is no URL of a Redis: ${place}; allowed: ${REDIS_FORMS}`);
  return place;
}

function credentialsOf(login: string): { readonly username: string; readonly password: string } | undefined {
  const colon = login.indexOf(':');
  const [username, password] = colon < 0 ? [login, ''] : [login.slice(0, colon), login.slice(colon + 1)];
  try {
    return { username: decodeURIComponent(username), password: decodeURIComponent(password) };
  } catch {
    return undefined;
  }
}

function hostOf(entry: string, fallback: number): { readonly host: string; readonly port: number } | string {
  const [, six, name, port = `${fallback}`] = /^(?:\[([^[\]]+)\]|([\w.-]+))(?::(.*))?$/.exec(entry) ?? [];
  const host = six ?? name;
  if (host === undefined || (six !== undefined && isIP(six) !== 6)) return 'a host is a name or an address, one of IPv6 in brackets';
  if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65_535) return 'a port is a whole number from 1 to 65535';
  return { host, port: Number(port) };
}
