// A way to a server through a door of our own. Always true here: while it is `cut` every connection is broken and none is let in; while it is `held`
// connections stand and not a byte passes, as when packets are lost; when it opens again new ones pass at once.
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export interface Way extends AsyncDisposable {
  readonly port: number;
  open(): void;
  cut(): void;
  hold(): void;
}

/** A way to a port of this machine. */
export async function startWay(to: number): Promise<Way> {
  const sockets = new Set<Socket>();
  let state: 'open' | 'cut' | 'held' = 'open';
  const server = createServer({ pauseOnConnect: true }, (client) => {
    if (state === 'cut') return void client.destroy();
    const upstream = connect(to, '127.0.0.1');
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.on('data', (chunk) => {
        if (!other.write(chunk)) one.pause();
      });
      one.on('end', () => other.end());
      other.on('drain', () => {
        if (state === 'open') one.resume();
      });
      if (state === 'held') one.pause();
      else one.resume();
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const destroyAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as { port: number }).port,
    open() {
      state = 'open';
      for (const socket of sockets) socket.resume();
    },
    cut() {
      state = 'cut';
      destroyAll();
    },
    hold() {
      state = 'held';
      for (const socket of sockets) socket.pause();
    },
    async [Symbol.asyncDispose]() {
      server.close();
      destroyAll();
      await once(server, 'close');
    },
  };
}
