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
    options.destination ??
    (readable ? pretty({ sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' }) : pino.destination(1));
  return pino(
    {
      level: options.level,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: SECRETS.flatMap((name) => [`["${name}"]`, `*["${name}"]`, `*.*["${name}"]`]), censor: '[redacted]' },
    },
    destination,
  );
}
