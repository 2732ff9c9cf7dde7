// Logs: JSON lines for machines, readable lines on a terminal; what identifies a caller or opens a door is redacted wherever it appears.
import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export type { Logger };

const SECRETS = ['authorization', 'cookie', 'x-api-key', 'secret', 'token', 'password', 'signature'];

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
  return pino(
    {
      level: options.level,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: SECRETS.flatMap((name) => [`["${name}"]`, `*["${name}"]`, `*.*["${name}"]`]), censor: '[redacted]' },
    },
    destination,
  );
}

const ERROR = pino.levels.values.error!;
/** Lines are written when there are so many bytes of them, or after so long, whichever comes first. */
const GATHER_BYTES = 8192;
const GATHER_MS = 20;

/**
 * Standard output, lines that come close together in one write: each costs a turn of the thread pool, which is more than making the line does. An error is
 * written at once with all before it, and the end of the process, however it comes but by SIGKILL, takes nothing away: pino's destination sees to that.
 */
class Gathered implements DestinationStream {
  /** Asks pino to tell the level of each line before it. */
  readonly [pino.symbols.needsMetadataGsym] = true;
  lastLevel = 0;
  readonly #out = pino.destination({ dest: 1, minLength: GATHER_BYTES });
  #timer: NodeJS.Timeout | undefined;

  write(line: string): void {
    this.#out.write(line);
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
