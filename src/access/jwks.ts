// The public keys of an identity provider (RFC 7517). Always true: what was fetched last is used until a newer answer is there, however long the
// provider is not reached, up to `maxStaleMs`; an unknown key asks again at most once in `cooldownMs`; and calls that need the same answer
// share one fetch.
import { createLocalJWKSet, errors, type JWTVerifyGetKey } from 'jose';
import { JobsError } from '../jobs/errors.ts';

export interface JwksOptions {
  /** Reads the key set; throws where it cannot be had. */
  readonly load: (signal: AbortSignal) => Promise<unknown>;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** Age from which a new answer is asked for, while the old one goes on serving. Default 10 minutes. */
  readonly freshMs?: number;
  /** Between two attempts. Default 30 s. */
  readonly cooldownMs?: number;
  /** Age from which an old answer is not trusted any more. Default 24 hours. */
  readonly maxStaleMs?: number;
  /** Of one fetch. Default 5 s. */
  readonly timeoutMs?: number;
  /** Told of each fetch that failed. */
  readonly onProblem?: (error: unknown) => void;
}

type LocalSet = ReturnType<typeof createLocalJWKSet>;

export class Jwks {
  readonly #options: Required<Omit<JwksOptions, 'onProblem'>> & Pick<JwksOptions, 'onProblem'>;
  #set: LocalSet | undefined;
  #loadedMs = Number.NEGATIVE_INFINITY;
  #triedMs = Number.NEGATIVE_INFINITY;
  #loading: Promise<void> | undefined;

  constructor(options: JwksOptions) {
    this.#options = { now: Date.now, freshMs: 600_000, cooldownMs: 30_000, maxStaleMs: 86_400_000, timeoutMs: 5_000, ...options };
  }

  /** For jose: the key that a token names. Throws UNAVAILABLE where nobody can tell for now. */
  readonly key: JWTVerifyGetKey = async (header, token) => {
    const set = await this.#current();
    try {
      return await set(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || !(await this.#again())) throw error;
      return await this.#set!(header, token);
    }
  };

  /** Fetches now; false: it failed, or was tried a moment ago. */
  async #again(): Promise<boolean> {
    const { now, cooldownMs } = this.#options;
    const before = this.#loadedMs;
    if (!this.#loading && now() - this.#triedMs < cooldownMs) return false;
    await this.refresh();
    return this.#loadedMs !== before;
  }

  async #current(): Promise<LocalSet> {
    const { now, freshMs, cooldownMs, maxStaleMs } = this.#options;
    const age = now() - this.#loadedMs;
    if (age >= freshMs) {
      const mayTry = this.#loading !== undefined || now() - this.#triedMs >= cooldownMs;
      if (age >= maxStaleMs) {
        if (mayTry) await this.refresh();
      } else if (mayTry) void this.refresh();
    }
    if (this.#set && now() - this.#loadedMs < maxStaleMs) return this.#set;
    throw new JobsError(
      'unavailable',
      'IDENTITY_UNAVAILABLE',
      'the identity provider is not reached, so no token can be checked; try again',
      {
        retryAfterSeconds: 5,
      },
    );
  }

  /** Never rejects: an answer that cannot be had leaves the old one in place. */
  refresh(): Promise<void> {
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #load(): Promise<void> {
    const { load, now, timeoutMs, onProblem } = this.#options;
    this.#triedMs = now();
    try {
      this.#set = createLocalJWKSet((await load(AbortSignal.timeout(timeoutMs))) as Parameters<typeof createLocalJWKSet>[0]);
      this.#loadedMs = now();
    } catch (error) {
      onProblem?.(error);
    }
  }
}

/** Larger than any real key set. */
const MAX_BYTES = 1 << 20;

/** Reads a key set by https (http is for tests and loopback; the configuration sees to that). Redirects are not followed. */
export function jwksAt(url: string): (signal: AbortSignal) => Promise<unknown> {
  return async (signal) => {
    const response = await fetch(url, { signal, redirect: 'error', headers: { accept: 'application/json, application/jwk-set+json' } });
    if (!response.ok) {
      await response.body?.cancel();
      throw new Error(`${url} answered ${response.status}`);
    }
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      if (size > MAX_BYTES) throw new Error(`${url} answered with more than ${MAX_BYTES} bytes`);
      chunks.push(chunk);
    }
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  };
}
