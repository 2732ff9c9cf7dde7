// Logs: JSON lines for machines, readable lines on a terminal; what identifies a caller or opens a door is redacted wherever it appears.
import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';
import { isoTime } from '../iso-time.ts';

export type { Logger };

const SECRETS: ReadonlySet<string> = new Set(['authorization', 'cookie', 'x-api-key', 'secret', 'token', 'password', 'signature']);
const CENSOR = '[redacted]';
/** Of objects in objects that are looked through. */
const LEVELS = 3;

export interface LogOptions {
  readonly level: string;
  /** `auto`: pretty where `terminal` holds. */
  readonly format: 'auto' | 'json' | 'pretty';
  readonly terminal: boolean;
  /** Tests give one; default is standard output. */
  readonly destination?: DestinationStream;
}

export function createLogger(options: LogOptions): Logger {
  const readable = options.format === 'pretty' || (options.format === 'auto' && options.terminal);
  const destination =
    options.destination ?? (readable ? pretty({ sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' }) : new Gathered());
  const logger = pino(
    {
      level: options.level,
      // As pino's own, which makes each anew.
      timestamp: () => `,"time":"${isoTime(Date.now())}"`,
      // Not pino's own redaction: with as many names at three levels it takes ten times as long as all the rest of a line.
      formatters: { log: (facts) => redacted(facts, LEVELS) },
      // What an error says of itself is in no field that can be enumerated, so that it is looked through as it is written.
      serializers: { err: (error) => redacted(pino.stdSerializers.err(error as Error), LEVELS - 1) },
    },
    destination,
  );
  // Inherited by its children. What they have with them is written out when they are made, and pino asks no formatter about it.
  const { child } = logger;
  logger.child = function (this: Logger, bindings: object, ...rest: []) {
    return child.call(this, redacted(bindings, LEVELS), ...rest);
  } as typeof child;
  return logger;
}

/** What it was given, without the values whose names say that they are secret: a copy as far as there is such a name, which is nearly never. */
function redacted<T extends object>(value: T, levels: number): T {
  if (ArrayBuffer.isView(value)) return value;
  let copy: Record<string, unknown> | undefined;
  for (const name of Object.keys(value)) {
    const held = (value as Record<string, unknown>)[name];
    if (held === undefined) continue;
    let shown: unknown = held;
    if (SECRETS.has(name)) shown = CENSOR;
    // An error of pino's own field is the serializer's.
    else if (levels > 1 && typeof held === 'object' && held !== null && name !== 'err') shown = redacted(held as object, levels - 1);
    if (shown === held) continue;
    copy ??= (Array.isArray(value) ? [...value] : { ...value }) as Record<string, unknown>;
    copy[name] = shown;
  }
  return (copy as T | undefined) ?? value;
}

const ERROR = pino.levels.values.error!;
/** Lines are written when there are so many bytes of them, or after so long, whichever comes first. */
const GATHER_BYTES = 32 << 10;
const GATHER_MS = 100;

/**
 * Standard output, lines that come close together in one write: each costs a turn of the thread pool, which is more than making the line does. An error is
 * written at once with all before it, and the end of the process, however it comes but by SIGKILL, takes nothing away: pino's destination sees to that.
 */
class Gathered implements DestinationStream {
  /** Asks pino to tell the level of each line before it. */
  readonly [pino.symbols.needsMetadataGsym] = true;
  lastLevel = 0;
  // In bytes: of texts the library measures all that waits again with each line.
  readonly #out = pino.destination({ dest: 1, minLength: GATHER_BYTES, maxWrite: 2 * GATHER_BYTES, contentMode: 'buffer' });
  #timer: NodeJS.Timeout | undefined;

  write(line: string): void {
    // Its types know of texts alone.
    this.#out.write(Buffer.from(line) as unknown as string);
    if (this.lastLevel >= ERROR) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS).unref();
  }

  flushSync(): void {
    this.#out.flushSync();
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#out.flush();
  }
}
