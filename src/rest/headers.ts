// Headers of a call. Always true: they are a Headers object in every respect; the real one, which costs as much as all the rest of a call, is made
// only when something other than a look-up by name is asked for.
import type { IncomingHttpHeaders } from 'node:http';

/** Headers over what Node parsed, or over nothing. HTTP/2's pseudo-headers are not among them. */
export class LazyHeaders implements Headers {
  readonly #incoming: IncomingHttpHeaders;
  #made: Headers | undefined;

  constructor(incoming: IncomingHttpHeaders) {
    this.#incoming = incoming;
  }

  /** The real object; undefined while nobody can have changed anything. */
  get made(): Headers | undefined {
    return this.#made;
  }

  get(name: string): string | null {
    if (this.#made) return this.#made.get(name);
    const value = this.#incoming[name.toLowerCase()];
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
    this.#headers.set(name, value);
  }

  getSetCookie(): string[] {
    return this.#headers.getSetCookie();
  }

  forEach(each: (value: string, key: string, parent: Headers) => void, self?: unknown): void {
    this.#headers.forEach((value, key) => {
      each.call(self, value, key, this);
    });
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
    this.#made = headers;
    return headers;
  }
}

// For `instanceof`, and for whatever a Headers object has beyond the methods above.
Object.setPrototypeOf(LazyHeaders.prototype, Headers.prototype);
