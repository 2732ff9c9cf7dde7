// Many watchers of one job in one process. Per event it reads no more than the sequence, the time and the frame count, so that a thousand
// watchers at ten events a second leave it mostly idle; what is late is then the server's doing.
import { BinaryReader, type WireType } from '@bufbuild/protobuf/wire';
import { percentile } from '../figures.ts';
import { GrpcReader, grpcHeaders, grpcMessage, H2Client } from './h2.ts';
import { requestBytes } from './http1.ts';
import { type Seen, SseConnection } from './sse.ts';
import type { Deliveries, DeliveriesDone, Watch } from './tasks.ts';

interface Watcher {
  last: number;
  open: boolean;
}

export class Watchers {
  #watchers: Watcher[] = [];
  #closers: Array<() => void> = [];
  #deliveries: number[] | undefined;
  #fromEngine: number[] = [];
  #holes = 0;

  async open(task: Watch): Promise<{ seconds: number }> {
    const begin = performance.now();
    let settled = () => {};
    let failed = (_: Error) => {};
    let waiting = task.watchers;
    const first = new Promise<void>((resolve, reject) => {
      settled = resolve;
      failed = reject;
    });
    const timer = setTimeout(() => failed(new Error(`${waiting} of ${task.watchers} watchers had no event in time`)), task.timeoutMs);
    const add = (): [seen: (event: Seen) => void, ended: () => void] => {
      const watcher: Watcher = { last: 0, open: true };
      this.#watchers.push(watcher);
      return [
        (event) => {
          if (watcher.last === 0 && --waiting === 0) settled();
          this.#seen(watcher, event);
        },
        () => {
          watcher.open = false;
          if (watcher.last === 0) failed(new Error('a watch ended before its first event'));
        },
      ];
    };
    try {
      if (task.request.protocol === 'grpc') await this.#openGrpc(task, task.request, add);
      else await this.#openSse(task, task.request, add);
      await first;
    } finally {
      clearTimeout(timer);
    }
    return { seconds: (performance.now() - begin) / 1000 };
  }

  async #openGrpc(task: Watch, request: Extract<Watch['request'], { protocol: 'grpc' }>, add: Add): Promise<void> {
    const headers = grpcHeaders(task.port, request.path);
    const body = grpcMessage(request.message);
    const clients = await Promise.all(Array.from({ length: task.connections }, () => H2Client.connect(task.port)));
    for (let index = 0; index < task.watchers; index++) {
      const [seen, ended] = add();
      const reader = new GrpcReader();
      clients[index % clients.length]!.request(headers, body, {
        data: (chunk) => reader.push(chunk, (message) => seen(readWatchResponse(message))),
        end: ended,
      });
    }
    this.#closers.push(...clients.map((client) => () => client.close()));
  }

  async #openSse(task: Watch, request: Extract<Watch['request'], { protocol: 'http' }>, add: Add): Promise<void> {
    const bytes = requestBytes(request.method, request.path, task.port, request.headers ?? {}, request.body);
    for (let opened = 0; opened < task.watchers; opened += 50) {
      // Fifty at a time: the listen queue of a server is finite.
      const batch = Array.from({ length: Math.min(50, task.watchers - opened) }, () => {
        const [seen, ended] = add();
        return SseConnection.open(task.port, bytes, seen, ended);
      });
      for (const connection of await Promise.all(batch)) this.#closers.push(() => connection.close());
    }
  }

  #seen(watcher: Watcher, event: Seen): void {
    if (watcher.last !== 0 && event.sequence > watcher.last + 1 && !event.skipped) this.#holes++;
    if (event.sequence > 0) watcher.last = event.sequence;
    if (!this.#deliveries) return;
    const now = Date.now();
    this.#deliveries.push(now - event.timeMs);
    if (event.engineMs !== 0) this.#fromEngine.push((now % 2 ** 31) - event.engineMs);
  }

  async deliveries(task: Deliveries): Promise<DeliveriesDone> {
    this.#deliveries = [];
    this.#fromEngine = [];
    this.#holes = 0;
    const cpu = process.cpuUsage();
    const begin = performance.now();
    await new Promise((resolve) => setTimeout(resolve, task.seconds * 1000));
    const seconds = (performance.now() - begin) / 1000;
    const used = process.cpuUsage(cpu);
    const deliveries = this.#deliveries;
    this.#deliveries = undefined;
    return {
      events: deliveries.length,
      seconds,
      cpuSeconds: (used.user + used.system) / 1e6,
      p50Ms: percentile(deliveries, 50),
      p99Ms: percentile(deliveries, 99),
      maxMs: percentile(deliveries, 100),
      fromEngineP99Ms: percentile(this.#fromEngine, 99),
      holes: this.#holes,
      watchersOpen: this.#watchers.filter((watcher) => watcher.open).length,
    };
  }

  async close(): Promise<null> {
    for (const close of this.#closers) close();
    this.#closers = [];
    this.#watchers = [];
    return null;
  }
}

type Add = () => [seen: (event: Seen) => void, ended: () => void];

/** The few fields of WatchResponse that count here, by their numbers in event.proto; everything else is skipped. */
export function readWatchResponse(message: Uint8Array): Seen {
  let sequence = 0;
  let timeMs = 0;
  let engineMs = 0;
  let skipped = false;
  const fields = (reader: BinaryReader, end: number, take: (field: number, wire: WireType) => boolean) => {
    while (reader.pos < end) {
      const [field, wire] = reader.tag();
      if (!take(field, wire)) reader.skip(wire, field);
    }
  };
  const reader = new BinaryReader(message);
  const nested = (take: (field: number) => boolean) => {
    const end = reader.uint32() + reader.pos;
    fields(reader, end, (field) => take(field));
    return true;
  };
  const time = (field: number) => {
    if (field === 1) timeMs += Number(reader.int64()) * 1000;
    else if (field === 2) timeMs += reader.int32() / 1e6;
    else return false;
    return true;
  };
  const progress = (field: number) => {
    if (field !== 3) return false;
    engineMs = reader.uint32();
    return true;
  };
  const event = (field: number) => {
    if (field === 1) sequence = reader.uint32();
    else if (field === 2) return nested(time);
    else if (field === 5) return nested(progress);
    else if (field === 8) {
      reader.uint32();
      skipped = true;
    } else return false;
    return true;
  };
  fields(reader, message.length, (field) => field === 1 && nested(event));
  return { sequence, timeMs, engineMs, skipped };
}
