// All connections of the port. Always true: there are no more than `most`; when all places are taken, the connection on which nothing was asked for the
// longest time makes room for a new one, and one that waits for an answer never does: who only takes up room keeps nobody out.
import type { Socket } from 'node:net';

/** What tells a connection, whichever object stands for it: the socket, TLS over it, or an HTTP/2 session's. */
export type Peer = Pick<Socket, 'remoteAddress' | 'remotePort'>;

/** Handed out by `Connections` for what is asked on one connection. */
export class Connection {
  readonly socket: Socket;
  readonly #idle: Set<Connection>;
  #asked = 0;

  constructor(socket: Socket, idle: Set<Connection>) {
    this.socket = socket;
    this.#idle = idle;
    idle.add(this);
  }

  /** Something is asked for; `answered` is to be called once for each call of it. */
  begin(): void {
    if (this.#asked++ === 0) this.#idle.delete(this);
  }

  readonly answered = (): void => {
    if (--this.#asked === 0 && !this.socket.destroyed) this.#idle.add(this);
  };
}

export class Connections {
  readonly #most: number;
  readonly #all = new Map<string, Connection>();
  /** Those on which nothing is asked, longest first. */
  readonly #idle = new Set<Connection>();
  readonly #known = new WeakMap<Peer, Connection>();
  readonly #closing = new Set<Socket>();
  #emptied = () => {};

  constructor(most: number) {
    this.#most = most;
  }

  /** False: there is no place, and the connection is gone. */
  enter(socket: Socket): boolean {
    if (socket.remotePort === undefined || (this.#all.size >= this.#most && !this.#makeRoom())) {
      socket.destroy();
      return false;
    }
    const key = keyOf(socket);
    const connection = new Connection(socket, this.#idle);
    this.#all.set(key, connection);
    this.#known.set(socket, connection);
    socket.once('close', () => {
      this.#idle.delete(connection);
      this.#closing.delete(socket);
      if (this.#all.get(key) === connection) this.#all.delete(key);
      if (this.isEmpty) this.#emptied();
    });
    return true;
  }

  /** Undefined: it is closed already. */
  of(peer: Peer): Connection | undefined {
    let connection = this.#known.get(peer);
    if (!connection) {
      connection = this.#all.get(keyOf(peer));
      if (connection) this.#known.set(peer, connection);
    }
    return connection;
  }

  get isEmpty(): boolean {
    return this.#all.size === 0 && this.#closing.size === 0;
  }

  /** Resolves when the last one is gone. Nothing may enter any more. */
  async empty(): Promise<void> {
    if (!this.isEmpty) await new Promise<void>((resolve) => (this.#emptied = resolve));
  }

  destroyAll(): void {
    for (const { socket } of this.#all.values()) socket.destroy();
  }

  #makeRoom(): boolean {
    const [longest] = this.#idle;
    if (!longest) return false;
    const { socket } = longest;
    this.#idle.delete(longest);
    this.#all.delete(keyOf(socket));
    this.#closing.add(socket);
    socket.destroy();
    return true;
  }
}

function keyOf({ remoteAddress, remotePort }: Peer): string {
  return `${remoteAddress} ${remotePort}`;
}
