// Which hosts a caller's URL may lead to. Always true here: what is judged is the address that a socket is about to connect to, and again the
// one it did connect to, never a name alone, so that it does not matter what a name resolves to now or a moment later, or where a redirect leads.
import { type LookupAddress, lookup as systemLookup } from 'node:dns';
import { isIP, type Socket } from 'node:net';
import ipaddr from 'ipaddr.js';
import { buildConnector } from 'undici';
import type { Violation } from '../jobs/errors.ts';

export type Refusal = Pick<Violation, 'reason' | 'description'>;

export interface HostRules {
  /** Hosts to be reached though they are not public: `name`, `name:port`, an address, `address:port` or a CIDR block. */
  readonly allow: readonly string[];
  /** Ports of all other hosts. */
  readonly ports: readonly number[];
  /** Schemes without the colon. */
  readonly schemes: readonly string[];
}

/** All addresses of a name, in the order of preference. */
export type Lookup = (hostname: string) => Promise<readonly LookupAddress[]>;

/** A connection to an address that is not allowed; nothing was sent. */
export class HostNotAllowed extends Error {
  override readonly name = 'HostNotAllowed';
}

interface Allowed {
  readonly host: string | undefined;
  readonly block: readonly [ipaddr.IPv4 | ipaddr.IPv6, number] | undefined;
  readonly port: number | undefined;
}

/** Names that mean the machine or the network around it wherever they are asked for (RFC 6761, RFC 6762, RFC 8375, RFC 9476, ICANN's `internal`). */
const LOCAL_NAMES =
  /(^|\.)(localhost|localdomain|local|internal|intranet|private|corp|home|lan|alt|onion|home\.arpa|in-addr\.arpa|ip6\.arpa)$/;
const DEFAULT_PORTS: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443 };
const MAX_LENGTH = 4096;

const refusal = (reason: string, description: string): Refusal => ({ reason, description });
const NOT_ALLOWED = refusal('INPUT_HOST_NOT_ALLOWED', 'this host is not one that media are fetched from: it is not on the public internet');
const NO_URL = refusal('INVALID_URL', 'this is not a URL such as https://host/path');
const ODD_HOST = refusal('INVALID_URL', 'write the host as a plain name, or as an address in its usual notation');

export class Hosts {
  readonly #allow: readonly Allowed[];
  readonly #ports: ReadonlySet<number>;
  readonly #schemes: ReadonlySet<string>;

  /** Throws on an entry of `allow` that is none of what it may be. */
  constructor(rules: HostRules) {
    this.#allow = rules.allow.map((entry) => {
      const allowed = parseAllowed(entry);
      if (!allowed) throw new Error(`'${entry}' is not a host, host:port, address or CIDR block`);
      return allowed;
    });
    this.#ports = new Set(rules.ports);
    this.#schemes = new Set(rules.schemes.map((scheme) => `${scheme}:`));
  }

  /** The URL that a reference or a redirect's target is, without its fragment, as far as its letters tell that it may be fetched. */
  parse(reference: string): URL | Refusal {
    if (Buffer.byteLength(reference) > MAX_LENGTH) return refusal('INVALID_URL', `a URL has at most ${MAX_LENGTH} bytes`);
    // The parser of the URL standard drops or changes these, so what people and logs read would not be what is fetched.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    if (/[\x00-\x20\x7f\\]/.test(reference)) return refusal('INVALID_URL', 'a URL has no white space, control characters or backslashes');
    const authority = /^https?:\/\/([^/?#]*)/i.exec(reference)?.[1];
    if (authority === undefined || authority === '' || !URL.canParse(reference)) return NO_URL;
    if (authority.includes('@')) {
      return refusal('CREDENTIALS_IN_URL', 'a URL has no name or password in it; give a presigned URL instead');
    }
    const url = new URL(reference);
    url.hash = '';
    if (!this.#schemes.has(url.protocol)) return refusal('UNSUPPORTED_SCHEME', `${url.protocol}// is not taken here`);
    const written = authority.replace(/:\d*$/, '').toLowerCase();
    if (written.includes('%') || written.endsWith('.')) return ODD_HOST;
    const address = addressOf(url);
    // 0x7f.1, 2130706433, 127.1, digits of other scripts and an address in the tail of another are all read as addresses by someone.
    if (address !== undefined && isIP(address) === 4 && written !== address) return ODD_HOST;
    if (address === undefined && /^[\d.]+$|(^|\.)0x[\da-f]*$/.test(url.hostname)) return ODD_HOST;
    const port = portOf(url);
    if (this.#isListed(url.hostname, port)) return url;
    const local = address === undefined ? !url.hostname.includes('.') || LOCAL_NAMES.test(url.hostname) : !this.#mayReach(address);
    if (local) return NOT_ALLOWED;
    // A block with a port of its own may be where the name leads, which only the socket can tell.
    if (!this.#ports.has(port) && !this.#allow.some((one) => one.block !== undefined && one.port === port)) {
      return refusal(
        'INPUT_PORT_NOT_ALLOWED',
        `port ${port} is not one that media are fetched from; allowed: ${[...this.#ports].join(', ')}`,
      );
    }
    return url;
  }

  /** Whether a socket for `hostname` may connect to `address`. */
  allows(hostname: string, port: number, address: string): boolean {
    if (this.#isListed(hostname, port)) return true;
    return ipaddr.isValid(address) && this.#mayReach(address, port);
  }

  /** Without a port: by any. */
  #mayReach(address: string, port?: number): boolean {
    const parsed = ipaddr.parse(address);
    const usual = port === undefined || this.#ports.has(port);
    const listed = this.#allow.some(({ block, port: own }) => {
      if (block === undefined || parsed.kind() !== block[0].kind() || !parsed.match([...block])) return false;
      return own === undefined ? usual : port === undefined || own === port;
    });
    return listed || (usual && isPublic(parsed));
  }

  /** Connects for undici. Throws `HostNotAllowed` through the callback. */
  connector(connectMs: number, lookup: Lookup = lookupAll): buildConnector.connector {
    return (options, callback) => {
      const { hostname } = options;
      const port = Number(options.port) || DEFAULT_PORTS[options.protocol] || 0;
      const refused = () => new HostNotAllowed(`${hostname} has no address that is allowed`);
      if (isIP(hostname) !== 0 && !this.allows(hostname, port, hostname)) {
        callback(refused(), null);
        return;
      }
      const allowedOnly = (name: string, { all }: { all?: boolean }, done: (...found: never[]) => void) => {
        lookup(name).then(
          (found) => {
            const allowed = found.filter(({ address }) => this.allows(hostname, port, address));
            const answer = allowed.length === 0 ? [refused()] : all ? [null, allowed] : [null, allowed[0]!.address, allowed[0]!.family];
            done(...(answer as never[]));
          },
          (error: unknown) => done(error as never),
        );
      };
      const connect = buildConnector({ timeout: connectMs, lookup: allowedOnly as never, autoSelectFamily: true });
      connect(options, (...answer) => {
        const socket: Socket | null = answer[1];
        // What is connected is what counts, whatever the look-up said.
        if (socket && !this.allows(hostname, port, socket.remoteAddress ?? '')) {
          socket.destroy();
          callback(refused(), null);
        } else callback(...answer);
      });
    };
  }

  #isListed(hostname: string, port: number): boolean {
    return this.#allow.some((one) => one.host === bare(hostname) && (one.port === undefined ? this.#ports.has(port) : one.port === port));
  }
}

function portOf(url: URL): number {
  return url.port === '' ? DEFAULT_PORTS[url.protocol]! : Number(url.port);
}

function addressOf(url: URL): string | undefined {
  const host = bare(url.hostname);
  return isIP(host) === 0 ? undefined : host;
}

function bare(hostname: string): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname;
}

/** Global unicast and nothing that is private, special, translated or tunnelled (the registries of IANA, as ipaddr.js has them). */
function isPublic(address: ipaddr.IPv4 | ipaddr.IPv6): boolean {
  if (address.range() !== 'unicast') return false;
  // ipaddr.js calls unicast what no registry names; of IPv6 only 2000::/3 is given out.
  return address.kind() === 'ipv4' || (address as ipaddr.IPv6).match(ipaddr.IPv6.parse('2000::'), 3);
}

function parseAllowed(entry: string): Allowed | undefined {
  if (entry.includes('/')) {
    if (!ipaddr.isValidCIDR(entry)) return undefined;
    return { host: undefined, block: ipaddr.parseCIDR(entry), port: undefined };
  }
  const [, bracketed, plain, digits] = /^(?:\[([\da-f:.]+)\]|([^:[\]]+))(?::(\d+))?$/i.exec(entry) ?? [];
  const port = digits === undefined ? undefined : Number(digits);
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined;
  const host = (bracketed ?? plain ?? (isIP(entry) === 6 ? entry : '')).toLowerCase();
  if (isIP(host) !== 0) {
    const address = ipaddr.parse(host);
    // As `URL` writes it, so that every notation of it is the same host; a name may lead to it too.
    return { host: address.toString(), block: [address, address.kind() === 'ipv4' ? 32 : 128], port };
  }
  return /^[a-z\d_]([a-z\d_-]*[a-z\d_])?(\.[a-z\d_]([a-z\d_-]*[a-z\d_])?)*$/.test(host) ? { host, block: undefined, port } : undefined;
}

function lookupAll(hostname: string): Promise<readonly LookupAddress[]> {
  return new Promise((resolve, reject) => {
    systemLookup(hostname, { all: true }, (error, found) => (error ? reject(error) : resolve(found)));
  });
}
