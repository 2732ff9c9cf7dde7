// Headers of a call. Always true: they are a Headers object in every respect; the real one, which costs as much as all the rest of a call, is made
// only when something other is asked for than to look up by name, to set a plain value, or to go through those that were set.
import type { IncomingHttpHeaders } from 'node:http';

const PLAIN_NAME = /^(?!set-cookie$)[a-z][a-z-]*$/;
const PLAIN_VALUE = /^[!-~]+(?: [!-~]+)*$/;

/** Headers over what Node parsed, or over nothing. HTTP/2's pseudo-headers are not among them. */
export class LazyHeaders implements Headers {
  readonly #incoming: IncomingHttpHeaders;
  /** What was set since, where a Headers object would take it as it is. */
  #plain: Record<string, string> | undefined;
  #made: Headers | undefined;

  constructor(incoming: IncomingHttpHeaders) {
    this.#incoming = incoming;
  }

  /** Nobody can have changed anything. */
  get untouched(): boolean {
    return this.#made === undefined && this.#plain === undefined;
  }

  get(name: string): string | null {
    if (this.#made) return this.#made.get(name);
    const key = name.toLowerCase();
    const value = this.#plain?.[key] ?? this.#incoming[key];
    if (typeof value === 'string') return name.startsWith(':') ? null : value;
    return Array.isArray(value) ? value.join(', ') : null;
  }

  has(name: string): boolean {
    return this.get(name) !== null;
  }

  append(name: string, value: string): void {
    this.#headers.append(name, value);
  }

  delete(name: string): void {
    this.#headers.delete(name);
  }

  set(name: string, value: string): void {
    if (this.#made || !PLAIN_NAME.test(name) || !PLAIN_VALUE.test(value)) {
      this.#headers.set(name, value);
      return;
    }
    // No prototype: a name may be "constructor".
    this.#plain ??= Object.create(null) as Record<string, string>;
    this.#plain[name] = String(value);
  }

  getSetCookie(): string[] {
    return this.#headers.getSetCookie();
  }

  forEach(each: (value: string, key: string, parent: Headers) => void, self?: unknown): void {
    const plain = this.#made === undefined && Object.keys(this.#incoming).length === 0 ? this.#plain : undefined;
    if (plain) for (const key of Object.keys(plain).sort()) each.call(self, plain[key]!, key, this);
    else {
      this.#headers.forEach((value, key) => {
        each.call(self, value, key, this);
      });
    }
  }

  keys() {
    return this.#headers.keys();
  }

  values() {
    return this.#headers.values();
  }

  entries() {
    return this.#headers.entries();
  }

  [Symbol.iterator]() {
    return this.#headers[Symbol.iterator]();
  }

  get #headers(): Headers {
    if (this.#made) return this.#made;
    const headers = new Headers();
    for (const key of Object.keys(this.#incoming)) {
      const value = this.#incoming[key];
      if (value === undefined || key.startsWith(':')) continue;
      if (typeof value === 'string') headers.set(key, value);
      else for (const one of value) headers.append(key, one);
    }
    for (const key in this.#plain) headers.set(key, this.#plain[key]!);
    this.#made = headers;
    return headers;
  }
}

// For `instanceof`, and for whatever a Headers object has beyond the methods above.
Object.setPrototypeOf(LazyHeaders.prototype, Headers.prototype);
