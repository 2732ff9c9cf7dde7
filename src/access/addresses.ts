// Where a call comes from. Always true: what a header says of it counts only as far as each proxy that could have written it is configured, so
// that nobody chooses their own address.
import ipaddr from 'ipaddr.js';
import { Recent } from '../recent.ts';

type Headers = Readonly<Record<string, string | string[] | undefined>>;
type Address = ipaddr.IPv4 | ipaddr.IPv6;

export interface Origin {
  /** In its shortest form; an IPv4 address never as IPv6. `unknown` where the socket has none (any more). */
  readonly address: string;
  /** On this machine, and not handed on by a proxy. */
  readonly local: boolean;
}

/** Callers that come by themselves and were seen last: they call again, and to parse an address is dearer than to identify who has none to show. */
const RECENT_PEERS = 1_000;

/** `proxies`: addresses and CIDR blocks. Throws on one that is neither. */
export function originOf(proxies: readonly string[]): (peer: string | undefined, headers: Headers) => Origin {
  const blocks = proxies.map(parseBlock);
  const isProxy = (address: Address) => blocks.some(([base, bits]) => base.kind() === address.kind() && address.match(base, bits));
  const direct = new Recent<Origin>(RECENT_PEERS);
  return (peer, headers) => {
    const forwarded = headers['x-forwarded-for'];
    const handedOn = forwarded !== undefined || headers.forwarded !== undefined;
    const known = handedOn || peer === undefined ? undefined : direct.get(peer);
    if (known) return known;
    let address = parse(peer);
    if (!address) return { address: 'unknown', local: false };
    if (typeof forwarded === 'string') {
      // Each proxy adds whom it heard from at the end.
      const hops = forwarded.split(',').reverse();
      for (const hop of hops) {
        if (!isProxy(address)) break;
        const before = parse(hop.trim());
        if (!before) break;
        address = before;
      }
    }
    const origin = { address: address.toString(), local: !handedOn && address.range() === 'loopback' };
    if (!handedOn) direct.set(peer!, origin);
    return origin;
  };
}

/** What limits are counted by: whoever has one IPv6 address has its /64. */
export function limitKeyOf(address: string): string {
  const parsed = parse(address);
  if (!(parsed instanceof ipaddr.IPv6)) return address;
  return `${new ipaddr.IPv6([...parsed.parts.slice(0, 4), 0, 0, 0, 0]).toString()}/64`;
}

function parseBlock(text: string): [Address, number] {
  if (text.includes('/')) {
    const [base, bits] = ipaddr.parseCIDR(text);
    return base instanceof ipaddr.IPv6 && base.isIPv4MappedAddress() && bits >= 96 ? [base.toIPv4Address(), bits - 96] : [base, bits];
  }
  const address = ipaddr.process(text);
  return [address, address.kind() === 'ipv4' ? 32 : 128];
}

function parse(text: string | undefined): Address | undefined {
  // The port that some proxies add, and a zone, which means something on this machine alone.
  const bare = text
    ?.replace(/^\[([^\]]+)\](:\d+)?$/, '$1')
    .replace(/^([\d.]+):\d+$/, '$1')
    .replace(/%.*$/, '');
  return bare !== undefined && ipaddr.isValid(bare) ? ipaddr.process(bare) : undefined;
}
