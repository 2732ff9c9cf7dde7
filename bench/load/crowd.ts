// Clients that only take up room: they connect and do nothing, or send a few bytes a second. Always true: there are as many as were asked for, because
// one that the server ends comes again; and each slow one sends as much as the service's own limits let it, and no more, so that none is cut early.
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { grpcHeaders } from './h2.ts';
import type { Crowd, Dispersed } from './tasks.ts';

/** What one of them says at first, and then each second; undefined: nothing. */
interface Manner {
  readonly hello: Buffer | undefined;
  readonly drip: Buffer | undefined;
  /** Speaks HTTP/2, and has to answer settings and pings. */
  readonly h2?: boolean;
}

/** Those that know nothing of each other send each at a time of its own: twenty in each hundredth of a second, and not all in the same. */
const TICK_MS = 10;
const TICKS = 100;
/** One that was cut comes again after this. */
const AGAIN_MS = 100;
/** Opened at once; a queue of connections that is full drops them, and TCP asks again only after a second. */
const AT_ONCE = 200;
/** Each address has 28,000 ports by default, and one that was ended is not free again for a minute. On Linux all of 127/8 is this machine. */
const ADDRESSES = process.platform === 'linux' ? 8 : 1;

export class CrowdOfClients {
  readonly #sockets = new Set<Socket>();
  #task: Crowd | undefined;
  #ticking: NodeJS.Timeout | undefined;
  #drips: Array<Set<() => void>> = [];
  #ended = 0;
  #failed = 0;

  /** Answers when each has connected, and the idle ones have had their answers. */
  async open(task: Crowd): Promise<{ readonly seconds: number }> {
    const began = performance.now();
    this.#task = task;
    this.#ended = 0;
    this.#failed = 0;
    this.#drips = Array.from({ length: TICKS }, () => new Set());
    const manners = [...turns(task.idle, idleManners(task)), ...turns(task.slow, slowManners(task))];
    for (let at = 0; at < manners.length; at += AT_ONCE) {
      await Promise.all(manners.slice(at, at + AT_ONCE).map((manner, i) => this.#come(manner, at + i)));
    }
    let tick = 0;
    this.#ticking = setInterval(() => {
      for (const drip of this.#drips[tick++ % TICKS]!) drip();
    }, TICK_MS);
    return { seconds: (performance.now() - began) / 1000 };
  }

  async disperse(): Promise<Dispersed> {
    const done = { open: this.#sockets.size, ended: this.#ended, failed: this.#failed };
    this.#task = undefined;
    clearInterval(this.#ticking);
    const left = [...this.#sockets];
    // Reset, not closed: thousands of ports would wait for a minute.
    for (const socket of left) socket.resetAndDestroy();
    while (this.#sockets.size > 0) await sleep(5);
    return done;
  }

  /** Resolves when it is there, also when it could not come: then it comes again later. */
  #come(manner: Manner, index: number): Promise<void> {
    return new Promise((resolve) => {
      const task = this.#task;
      if (!task) return resolve();
      const localAddress = ADDRESSES === 1 ? undefined : `127.0.0.${1 + (index % ADDRESSES)}`;
      const socket = connect({ port: task.port, host: '127.0.0.1', localAddress, noDelay: true });
      this.#sockets.add(socket);
      let connected = false;
      const drips = this.#drips[index % TICKS]!;
      const drip = () => socket.write(manner.drip!);
      socket.on('connect', () => {
        connected = true;
        if (manner.hello) socket.write(manner.hello);
        if (manner.drip) drips.add(drip);
        resolve();
      });
      socket.on('data', manner.h2 ? answerer(socket) : () => {});
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#sockets.delete(socket);
        drips.delete(drip);
        resolve();
        if (this.#task !== task) return;
        if (connected) this.#ended++;
        else this.#failed++;
        setTimeout(() => void this.#come(manner, index), AGAIN_MS);
      });
    });
  }
}

function* turns(count: number, manners: readonly Manner[]): Iterable<Manner> {
  for (let i = 0; i < count; i++) yield manners[i % manners.length]!;
}

const text = (value: string) => Buffer.from(value, 'latin1');
const PREFACE = Buffer.concat([text('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]);

/** One that was answered and is kept for a next call, over either protocol, and one that never says what it wants. */
function idleManners({ port }: Crowd): readonly Manner[] {
  const answered = text(`GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n\r\n`);
  return [
    { hello: answered, drip: undefined },
    { hello: PREFACE, drip: undefined, h2: true },
    { hello: undefined, drip: undefined },
  ];
}

/** Headers byte by byte; a body of JSON, of an upload and of a gRPC message, each a little above the least that is let pass. */
function slowManners({ port, headers }: Crowd): readonly Manner[] {
  const all = Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');
  const head = (path: string, type: string) =>
    `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n${all}content-type: ${type}\r\ncontent-length: 1000000\r\n\r\n`;
  const part = '--x\r\ncontent-disposition: form-data; name="file"; filename="a.jpg"\r\ncontent-type: image/jpeg\r\n\r\n\xff\xd8\xff\xe0';
  const bytes = text('1'.repeat(45));
  const message = Buffer.from([0, 0, 0, 0x40, 0]); // of 16 KiB
  const block = grpcHeaders(port, '/facefusion.jobs.v1.JobService/Submit', headers);
  return [
    { hello: text(`GET /api/v1/jobs HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nx-slow: `), drip: text('a') },
    { hello: text(`${head('/api/v1/jobs', 'application/json')}{"labels":{"a":"`), drip: bytes },
    { hello: text(`${head('/api/v1/uploads', 'multipart/form-data; boundary=x')}${part}`), drip: bytes },
    { hello: Buffer.concat([PREFACE, frame(1, 4, 1, block), frame(0, 0, 1, message)]), drip: frame(0, 0, 1, bytes), h2: true },
  ];
}

/** A frame of HTTP/2 (RFC 9113, 4.1). */
function frame(type: number, flags: number, id: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}

const SETTINGS = 4;
const PING = 6;
const ACK = 1;

/** Answers settings and pings, and passes over all else. */
function answerer(socket: Socket): (chunk: Buffer) => void {
  let pending: Buffer | undefined;
  return (chunk) => {
    const bytes = pending ? Buffer.concat([pending, chunk]) : chunk;
    let at = 0;
    while (bytes.length - at >= 9) {
      const end = at + 9 + bytes.readUIntBE(at, 3);
      if (bytes.length < end) break;
      const [type, flags] = [bytes[at + 3]!, bytes[at + 4]!];
      if (type === SETTINGS && !(flags & ACK)) socket.write(frame(SETTINGS, ACK, 0, Buffer.alloc(0)));
      if (type === PING && !(flags & ACK)) socket.write(frame(PING, ACK, 0, bytes.subarray(at + 9, end)));
      at = end;
    }
    pending = at === bytes.length ? undefined : Buffer.from(bytes.subarray(at));
  };
}
