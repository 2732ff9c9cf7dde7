// From the text of a setting to its value: what each kind may look like, and the sentence that says so where it does not. Pure; knows no setting.
import { isIP } from 'node:net';
import { REDIS_FORMS, redisPlaceOf } from '../redis-place.ts';
import { placeOf, type S3Place } from '../s3/names.ts';

export type Parse<T> = (text: string) => T | Problem;
export class Problem {
  readonly allowed: string;
  constructor(allowed: string) {
    this.allowed = allowed;
  }
}

export const text: Parse<string> = (value) => value;
export const oneOf =
  <const T extends string>(...values: T[]): Parse<T> =>
  (value) =>
    values.includes(value as T) ? (value as T) : new Problem(values.join(', '));
export const integer =
  (minimum: number, maximum: number): Parse<number> =>
  (value) => {
    const number = Number(value);
    const right = /^\d+$/.test(value) && number >= minimum && number <= maximum;
    return right ? number : new Problem(`a whole number from ${minimum} to ${maximum}`);
  };
export const httpUrl: Parse<string> = (value) =>
  /^https?:/.test(value) && URL.canParse(value) ? value : new Problem('an http or https URL');
/** Of a whole. */
export const part: Parse<number> = (value) =>
  /^(0|1|0?\.\d{1,6}|1\.0{1,6})$/.test(value) ? Number(value) : new Problem('a number from 0 to 1');
const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
export const duration =
  (minimumMs: number, maximumMs: number): Parse<number> =>
  (value) => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value);
    const ms = match ? Number(match[1]) * UNITS[match[2]!]! : Number.NaN;
    return ms >= minimumMs && ms <= maximumMs
      ? ms
      : new Problem(`a duration such as 500ms, 30s, 5m, 24h, from ${minimumMs / 1000}s to ${maximumMs / 1000}s`);
  };
const SIZES: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };
export const bytes: Parse<number> = (value) => {
  const match = /^(\d+)([KMGT]?)i?B?$/.exec(value);
  const number = match ? Number(match[1]) * SIZES[match[2]!]! : Number.NaN;
  return number >= 1 && number <= 2 ** 50 ? number : new Problem('a size such as 65536, 64M, 20G');
};
export const numbers: Parse<readonly number[]> = (value) =>
  /^(\d+(,\d+)*)?$/.test(value)
    ? value === ''
      ? []
      : value.split(',').map(Number)
    : new Problem('numbers with commas between, such as 0,1');
export const origins: Parse<readonly string[]> = (value) => {
  const all = value === '' ? [] : value.split(',').map((one) => one.trim());
  const right = all.every((one) => one === '*' || (/^https?:/.test(one) && URL.canParse(one) && new URL(one).origin === one));
  return right
    ? all
    : new Problem(
        'origins with commas between, such as https://app.example.com,http://localhost:5173 (no path, no slash at the end), or *',
      );
};
/** Whether it is meant for the URL of a Redis. */
export const isRedis = (value: string) => /^rediss?\b/i.test(value);
/** A path, or the URL of a Redis. */
export const store: Parse<{ readonly path?: string; readonly redis?: string }> = (value) => {
  if (/^sqlite:./.test(value)) return { path: value.slice('sqlite:'.length) };
  const place = redisPlaceOf(value);
  if (typeof place !== 'string') return { redis: value };
  return new Problem(`sqlite:PATH, ${REDIS_FORMS}${isRedis(value) ? `; ${place}` : ''}`);
};
export const plainName: Parse<string> = (value) =>
  /^[\w.-]{1,63}$/.test(value) ? value : new Problem('up to 63 letters, digits, dots, dashes and underscores');
/** A path, or a place on S3 whose key is made a prefix. */
export const blobs: Parse<string | S3Place> = (value) => {
  if (/^local:./.test(value)) return value.slice('local:'.length);
  const allowed = 'local:PATH, or s3://bucket/prefix';
  if (!/^s3:/i.test(value)) return new Problem(allowed);
  const place = placeOf(value);
  if (typeof place === 'string') return new Problem(`${allowed}; ${place}`);
  return { bucket: place.bucket, key: place.key === '' || place.key.endsWith('/') ? place.key : `${place.key}/` };
};

export const list =
  (problemOf: (entry: string) => string | undefined): Parse<readonly string[]> =>
  (value) => {
    const entries = value
      .split(',')
      .map((entry) => entry.trim())
      .filter((entry) => entry !== '');
    const problem = entries.map(problemOf).find((one) => one !== undefined);
    return problem === undefined ? entries : new Problem(problem);
  };
export const limits: Parse<Readonly<Record<string, number>>> = (value) => {
  const problem = new Problem('an object of caps by the names of options, such as {"output_video_fps": 60, "processors": 4}');
  try {
    const read: unknown = value === '' ? {} : JSON.parse(value);
    if (typeof read !== 'object' || read === null || Array.isArray(read)) return problem;
    const right = Object.entries(read).every(([name, cap]) => /^[a-z_]+$/.test(name) && typeof cap === 'number' && cap > 0);
    return right ? (read as Record<string, number>) : problem;
  } catch {
    return problem;
  }
};
export const offOr =
  (parse: Parse<number>): Parse<number> =>
  (value) =>
    value === 'off' ? 0 : parse(value);
export const user: Parse<string> = (value) =>
  /^[\w.-]+(:[\w.-]+)?$/.test(value) ? value : new Problem('a user, or user:group, by name or number');
export const block = (entry: string) =>
  isHost(entry) && isIP(entry.split('/')[0]!) !== 0 ? undefined : 'addresses or CIDR blocks such as 10.1.0.0/16, with commas between';
export const rate: Parse<{ points: number; seconds: number } | undefined> = (value) => {
  if (value === 'off') return undefined;
  const [, count, time] = /^(\d{1,6})\/(.+)$/.exec(value) ?? [];
  const ms = time === undefined ? new Problem('') : duration(1000, 86_400_000)(time);
  return ms instanceof Problem || Number(count) === 0
    ? new Problem('a count and a time such as 5/1m or 100/1h, or off')
    : { points: Number(count), seconds: Math.ceil(ms / 1000) };
};
export const host = (entry: string) =>
  isHost(entry) ? undefined : 'hosts, host:port, addresses or CIDR blocks such as 10.1.0.0/16, with commas between';
export const bucket = (entry: string) =>
  entry === '*' || /^[a-z\d][a-z\d._-]{1,62}$/i.test(entry) ? undefined : 'names of buckets with commas between, or * for all';

export interface Setting<T> {
  readonly parse: Parse<T>;
  /** As text; `undefined`: not set. */
  readonly fallback: string | undefined;
  readonly help: string;
}
export const setting = <T>(parse: Parse<T>, fallback: string | undefined, help: string): Setting<T> => ({ parse, fallback, help });

/** The values of a table of settings; undefined: not set, or not right. */
export type ValuesOf<S> = { [K in keyof S]: S[K] extends Setting<infer T> ? T | undefined : never };

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** As the list of hosts in the media folder takes them: name, name:port, address, [address]:port or CIDR block. */
function isHost(entry: string): boolean {
  const [block, bits] = entry.split('/');
  if (bits !== undefined) return /^\d{1,3}$/.test(bits) && Number(bits) <= (isIP(block!) === 6 ? 128 : 32) && isIP(block!) !== 0;
  if (isIP(entry) !== 0) return true;
  const [, address, name] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(entry) ?? [];
  return address === undefined ? name !== undefined && /^[\w.-]+$/.test(name) : isIP(address) === 6;
}
