// The way to a Redis: its connections, its scripts, and what its errors mean to a caller. Always true here: a command that cannot be answered is
// refused within seconds and not kept, the connections come back by themselves, and no log line or error holds a password.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Cluster, type ClusterOptions, Redis, type RedisOptions } from 'ioredis';
import { JobsError } from '../../jobs/errors.ts';
import type { RedisPlace } from '../../redis-place.ts';
import type { Arguments } from './pack.ts';
import { SCHEMA } from './schema.ts';
import { type Reply, Script } from './script.ts';
import { unpackReplies } from './unpack.ts';

type Client = Redis | Cluster;

const TIMEOUT_MS = 5_000;

const retryMs = (tried: number) => Math.min(50 * 2 ** Math.min(tried - 1, 6), 1000);

/** Of a connection to one server, whichever it is. */
function optionsOf(place: RedisPlace, timeoutMs: number): RedisOptions {
  return {
    username: place.username,
    password: place.password,
    ...(place.tls && { tls: {} }),
    lazyConnect: true,
    connectionName: 'facefusion-jobs',
    connectTimeout: timeoutMs,
    // A server that has stopped answering is found out, and the call is answered.
    socketTimeout: timeoutMs,
    commandTimeout: timeoutMs,
    // One try to connect again; after that a call is better refused than kept.
    maxRetriesPerRequest: 1,
    maxLoadingRetryTime: 1000,
    retryStrategy: retryMs,
    // A failover: the server that we know is a replica now.
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 2 : false),
    enableAutoPipelining: true,
    autoPipeliningIgnoredCommands: SCRIPTS.map(commandOf),
  };
}

function connect(place: RedisPlace, timeoutMs: number): Client {
  const common = optionsOf(place, timeoutMs);
  if (place.kind === 'cluster') {
    const options: ClusterOptions = {
      lazyConnect: true,
      redisOptions: common,
      enableAutoPipelining: true,
      // While no node is there a call would be kept for as long as that lasts, whatever its timeout says.
      enableOfflineQueue: false,
      // Of the others the client takes the first argument for a key, and would look for who serves its slot.
      autoPipeliningIgnoredCommands: [...common.autoPipeliningIgnoredCommands!, 'config', 'info', 'ping'],
      // A certificate is for a name, and the client would look it up and ask for the address.
      ...(place.tls && { dnsLookup: (name: string, found: (error: null, address: string) => void) => found(null, name) }),
      maxRedirections: 16,
      clusterRetryStrategy: retryMs,
      slotsRefreshTimeout: timeoutMs,
    };
    return new Cluster([...place.hosts], options);
  }
  if (place.kind === 'sentinel') {
    const sentinels = [...place.hosts];
    return new Redis({
      ...common,
      db: place.database,
      sentinels,
      name: place.master!,
      ...(place.tls && { enableTLSForSentinelMode: true, sentinelTLS: {} }),
    });
  }
  const { host, port } = place.hosts[0]!;
  return new Redis({ ...common, host, port, db: place.database });
}

/**
 * The connection that listens. What is published in a Cluster is heard at each of its nodes: one of them is listened to, and another one when the connection to it
 * ends. The client's own way to listen to a Cluster tries nodes without a pause: while all are away it costs a processor, and memory without end.
 */
function listenerOf(place: RedisPlace, timeoutMs: number, commands: Client): Client {
  if (!(commands instanceof Cluster)) return connect(place, timeoutMs);
  let turn = Math.floor(Math.random() * place.hosts.length);
  const listener: Redis = new Redis({
    ...optionsOf(place, timeoutMs),
    ...place.hosts[turn]!,
    // The next node may be away too: what is asked for waits as long as any command may.
    maxRetriesPerRequest: null,
    retryStrategy(tried) {
      const known = commands.nodes('all').map(({ options: { host, port } }) => ({ host, port }));
      const nodes = [...known, ...place.hosts];
      Object.assign(listener.options, nodes[++turn % nodes.length]);
      return retryMs(tried);
    },
  });
  // One that has left the Cluster, and lives on, is told nothing any more.
  commands.on('-node', ({ options }: Redis) => {
    const { status, options: own } = listener;
    if (status === 'ready' && options.host === own.host && options.port === own.port) listener.disconnect(true);
  });
  return listener;
}

/** The part of a pino logger that is used here. */
export interface ConnectionLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

/** A script as a command: packed arguments in, packed replies out. */
type Command = (prefix: string, nobodys: string, packed: Buffer) => Promise<Buffer>;

/** Put before every script. */
const HEAD = 'head';
/** And before every one but that which opens the store. */
const FENCE = 'fence';
/** What every script has of the others' functions. */
const LIBRARY = 'lib';
/** What some have: a server makes each function anew at each command. */
const LIBRARIES: Partial<Record<ScriptName, readonly string[]>> = {
  submit: ['chains', 'hooks', 'intake'],
  submit_batch: ['chains', 'hooks', 'intake'],
  claim: ['choice'],
  commit: ['chains', 'flights', 'hooks', 'batch', 'log'],
  forget: ['chains', 'hooks'],
  share: ['chains', 'flights'],
  batches: ['batch'],
  outbox: ['hooks'],
};
/** Put after every script: a script's own text is one step. */
const FRAME = 'frame';
const SCRIPTS = [
  'open',
  'submit',
  'claim',
  'commit',
  'tend',
  'view',
  'page',
  'changes',
  'overview',
  'usage',
  'reclaim',
  'keys',
  'uploads',
  'due',
  'forget',
  'owed',
  'share',
  'submit_batch',
  'batches',
  'outbox',
  'drains',
  'alive',
  'events',
] as const;
export type ScriptName = (typeof SCRIPTS)[number];
type Scripts = Record<ScriptName, Script>;

/** What the client knows the script by. */
const commandOf = (name: ScriptName) => `ffjobs_${name}`;

export type { Reply } from './script.ts';

const FOLDER = join(import.meta.dirname, 'scripts');

export interface ConnectionOptions {
  readonly place: RedisPlace;
  /** Between the braces of the hash tag that begins every key. */
  readonly fleet: string;
  readonly log: ConnectionLog | undefined;
  readonly timeoutMs?: number;
}

/** Two connections: one for commands, and one that listens. */
export class RedisConnection {
  /** Begins every key and channel. */
  readonly prefix: string;
  /**
   * A second key of every script, which like the first is never there. While a slot is moved between the nodes of a Cluster neither of them has all of a fleet's
   * keys; of a command with two keys that are missing Redis says so (TRYAGAIN), one with a single key it would run on what is there.
   */
  readonly #nobodys: string;
  readonly #place: RedisPlace;
  readonly #commands: Client;
  readonly #listener: Client;
  readonly #scripts: Scripts;
  readonly #listeners = new Map<string, (message: Buffer) => void>();
  /** Called whenever the listening connection is there again, and may have missed something. */
  onListening: () => void = () => {};
  readonly #log: ConnectionLog | undefined;
  readonly #timeoutMs: number;
  #down = false;

  constructor({ place, fleet, log, timeoutMs = TIMEOUT_MS }: ConnectionOptions) {
    this.#place = place;
    this.#log = log;
    this.#timeoutMs = timeoutMs;
    this.prefix = `{${fleet}}:`;
    this.#nobodys = `${this.prefix}-`;
    this.#commands = connect(place, timeoutMs);
    this.#listener = listenerOf(place, timeoutMs, this.#commands);
    const text = (name: string) => readFileSync(join(FOLDER, `${name}.lua`), 'utf8');
    const scripts: Partial<Scripts> = {};
    for (const name of SCRIPTS) {
      const command = commandOf(name);
      const fence = name === 'open' ? [] : [`local SCHEMA = '${SCHEMA}'`, text(FENCE)];
      const libraries = [LIBRARY, ...(LIBRARIES[name] ?? [])].map(text);
      // What is outside of the function is found at once by all in it; what is beside it Lua looks for in a list, for each use of it in each function.
      const within = ['return (function()', ...libraries, 'local function step(ARGV)', text(name), 'end', text(FRAME), 'end)()'];
      const lua = [text(HEAD), ...fence, ...within].join('\n');
      // Sent by its digest, and whole where the server does not know it (a restart, a failover).
      this.#commands.defineCommand(command, { numberOfKeys: 2, lua });
      const send = (this.#commands as unknown as Record<string, Command>)[`${command}Buffer`]!.bind(this.#commands);
      scripts[name] = new Script(async (packed) => {
        const replies = await send(this.prefix, this.#nobodys, packed).catch((error: Error) => {
          // The client has not noticed that it was sent on to a node that does not know the script: nothing was made.
          if (!error.message.startsWith('NOSCRIPT')) throw error;
          return this.#evaluate(lua, [packed]) as Promise<Buffer>;
        });
        return unpackReplies(replies);
      }, fromRedis);
    }
    this.#scripts = scripts as Scripts;
    this.#follow(this.#commands);
    this.#listener.on('error', () => {});
    this.#listener.on('ready', () => this.onListening());
    this.#listener.on('messageBuffer', (channel: Buffer, message: Buffer) => this.#listeners.get(channel.toString())?.(message));
  }

  /** For others who keep something small beside the jobs, under keys that begin with `prefix`. */
  get client(): unknown {
    return this.#commands;
  }

  /** Connects. Throws an `Error` whose message can be shown as it is. */
  async open(): Promise<void> {
    const tooLate = Promise.withResolvers<never>();
    // A client of a cluster would look for its nodes for ever.
    const timer = setTimeout(() => tooLate.reject(new Error('no server has answered for it')), 2 * this.#timeoutMs);
    try {
      await Promise.race([Promise.all([this.#commands.connect(), this.#connectListener()]), tooLate.promise]);
    } catch (error) {
      const why = lastError.get(this.#commands) ?? error;
      this.disconnect();
      throw new Error(`cannot open the job store ${this.#place.shown}: ${hint(why)}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Of a Cluster the first node that is tried may be away: until one of them answers. */
  #connectListener(): Promise<void> {
    if (this.#place.kind !== 'cluster') return this.#listener.connect();
    return new Promise((resolve) => {
      this.#listener.once('ready', () => resolve());
      this.#listener.connect().catch(() => {});
    });
  }

  /** Makes a step: runs the script of that name, with others of its kind that come at the same time. */
  run(name: ScriptName, args: Arguments): Promise<Reply> {
    return this.#scripts[name].run(args);
  }

  get(key: string): Promise<Buffer | null> {
    return this.#answered(this.#commands.getBuffer(`${this.prefix}${key}`));
  }

  hashes(keys: readonly string[]): Promise<Record<string, string>[]> {
    return this.#answered(Promise.all(keys.map((key) => this.#commands.hgetall(`${this.prefix}${key}`))));
  }

  hash(key: string): Promise<Record<string, Buffer>> {
    return this.#answered(this.#commands.hgetallBuffer(`${this.prefix}${key}`));
  }

  async put(key: string, field: string, value: Uint8Array): Promise<void> {
    await this.#answered(this.#commands.hset(`${this.prefix}${key}`, field, bufferOf(value)));
  }

  async drop(key: string, fields: readonly string[]): Promise<void> {
    if (fields.length > 0) await this.#answered(this.#commands.hdel(`${this.prefix}${key}`, ...fields));
  }

  async publish(channel: string, message: Buffer): Promise<void> {
    await this.#answered(this.#commands.publish(`${this.prefix}${channel}`, message));
  }

  /** A script by itself, with the prefix as its key. */
  evaluate(lua: string, args: readonly (string | number)[]): Promise<Reply> {
    return this.#answered(this.#evaluate(lua, args));
  }

  /** How many connections listen to a channel, on all servers. */
  async listeners(channel: string): Promise<number> {
    const servers = this.#commands instanceof Cluster ? this.#commands.nodes('all') : [this.#commands];
    const counts = servers.map(async (server) => Number((await server.pubsub('NUMSUB', `${this.prefix}${channel}`))[1]));
    return (await this.#answered(Promise.all(counts))).reduce((sum, count) => sum + count, 0);
  }

  /** Answers once the server has it. Messages until `forget` are given to `listener`; some may be lost with the connection. */
  async listen(channel: string, listener: (message: Buffer) => void): Promise<void> {
    this.#listeners.set(`${this.prefix}${channel}`, listener);
    await this.#answered(this.#listener.subscribe(`${this.prefix}${channel}`));
  }

  forget(channel: string): void {
    this.#listeners.delete(`${this.prefix}${channel}`);
    // Where the connection is gone its subscriptions are too.
    this.#listener.unsubscribe(`${this.prefix}${channel}`).catch(() => {});
  }

  /** Has the listening connection found out if its server has gone silent. */
  probe(): void {
    this.#listener.ping().catch(() => {});
  }

  /** The facts of INFO. */
  async facts(): Promise<ReadonlyMap<string, string>> {
    const text = await this.#answered(this.#commands.info());
    return new Map(text.split('\r\n').flatMap((line) => (line.includes(':') ? [line.split(/:(.*)/s, 2) as [string, string]] : [])));
  }

  /** undefined: the server does not say. */
  async setting(name: string): Promise<string | undefined> {
    const found = await (this.#commands.config('GET', name) as Promise<string[]>).catch(() => []);
    return found[1];
  }

  disconnect(): void {
    this.#commands.disconnect();
    this.#listener.disconnect();
  }

  #follow(client: Client): void {
    client.on('error', (error: Error) => {
      lastError.set(client, error);
      if (this.#down) return;
      this.#down = true;
      this.#log?.error({ store: this.#place.shown, problem: error.message }, 'the job store does not answer; trying again until it does');
    });
    client.on('ready', () => {
      if (this.#down) this.#log?.info({ store: this.#place.shown }, 'the job store answers again');
      this.#down = false;
    });
  }

  #evaluate(lua: string, args: readonly (string | number | Buffer)[]): Promise<Reply> {
    const { evalBuffer } = this.#commands as unknown as Record<string, (...all: unknown[]) => Promise<Reply>>;
    return evalBuffer!.call(this.#commands, lua, 2, this.prefix, this.#nobodys, ...args);
  }

  async #answered<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw fromRedis(error);
    }
  }
}

/** The client takes other arrays of bytes for text. */
function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const lastError = new WeakMap<Client, Error>();

/** Answers of a server that is there and cannot serve just now. */
const PASSING =
  /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MISCONF|NOREPLICAS|BUSY|MOVED|ASK|NOAUTH|WRONGPASS|NOPERM|ERR max number of clients)\b/;

/** What a failing Redis means to a caller. Anything else is a defect and stays one, without the command: its arguments may be secret, and large. */
function fromRedis(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof JobsError) return error;
  const cause = new Error(error.message);
  if (/^OOM\b/.test(error.message)) {
    return new JobsError('exhausted', 'STORAGE_FULL', 'the job store is out of memory; ask the operator, or try again later', {
      retryAfterSeconds: 30,
      cause,
    });
  }
  if (error.message.startsWith('SCHEMA ')) {
    const words = 'the job store was brought to another schema: this service has to be restarted with the version for it';
    return new JobsError('unavailable', 'STORE_UNAVAILABLE', words, { retryAfterSeconds: 30, cause });
  }
  if (error.name === 'ReplyError' && !PASSING.test(error.message)) return cause;
  return new JobsError('unavailable', 'STORE_UNAVAILABLE', 'the job store does not answer; try again shortly', {
    retryAfterSeconds: 2,
    cause,
  });
}

function hint(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ECONNREFUSED') return 'nothing listens there; start Redis, or correct FFJOBS_STORE';
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'there is no such host; correct FFJOBS_STORE';
  if (/NOAUTH|WRONGPASS|NOPERM/.test(message)) return 'it does not take this user and password; correct them in FFJOBS_STORE';
  if (/^(SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_)/.test(code ?? ''))
    return `its certificate is signed by nobody who is known here (${message}); name a file with its authority in NODE_EXTRA_CA_CERTS`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'its certificate is for another name; correct the host in FFJOBS_STORE';
  return message;
}
