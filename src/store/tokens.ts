// Opaque tokens that callers hand back: a few numbers, sealed with the store's own secret, so that one which was made up, cut or made by
// another store is told from ours.
import { createHmac, timingSafeEqual } from 'node:crypto';

const SEAL_BYTES = 12;

export class Tokens {
  readonly #secret: Uint8Array;

  constructor(secret: Uint8Array) {
    this.#secret = secret;
  }

  /** Tells this store from every other one, and nothing else of it: 32 hex digits, the same for as long as the store is. */
  get storeId(): string {
    return createHmac('sha256', this.#secret).update('the id of this store').digest('hex').slice(0, 32);
  }

  /** `use` and `scope` must be the same again at `open`. */
  seal(use: 'page' | 'watch', values: readonly number[], scope = ''): string {
    const body = values.map((value) => value.toString(36)).join('.');
    return `${body}.${this.#mac(use, body, scope).toString('base64url')}`;
  }

  /** undefined: not ours, or not for this. */
  open(use: 'page' | 'watch', token: string, scope = ''): number[] | undefined {
    const end = token.lastIndexOf('.');
    const body = token.slice(0, Math.max(0, end));
    const given = Buffer.from(token.slice(end + 1), 'base64url');
    if (given.length !== SEAL_BYTES || !timingSafeEqual(given, this.#mac(use, body, scope))) return undefined;
    return body.split('.').map((value) => Number.parseInt(value, 36));
  }

  #mac(use: string, body: string, scope: string): Buffer {
    return createHmac('sha256', this.#secret).update(`${use}\n${scope}\n${body}`).digest().subarray(0, SEAL_BYTES);
  }
}
