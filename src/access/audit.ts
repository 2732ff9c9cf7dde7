// Writes the audit log. Always true: lines are only ever added, each with the hash of the one before; whoever waits for `record` knows that the line
// has left this process; and when lines cannot be written, that is known before the next thing is done that would need one.
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { JobsError } from '../jobs/errors.ts';
import type { AuditEntry } from '../jobs/guard.ts';
import { auditFiles, chained, finishedPath, type Link, readLine, START } from './audit-chain.ts';

/** Where lines go. Throws where they cannot; nothing of them is there then. */
interface Sink extends AsyncDisposable {
  write(text: string, first: Link): void;
}

export interface AuditLog extends AsyncDisposable {
  /** Resolves when the entry is written, or is counted as lost where that is not possible; never rejects. */
  record(entry: AuditEntry): Promise<void>;
  /** Throws UNAVAILABLE while nothing can be written. */
  assertWritable(): void;
}

export interface AuditLogOptions {
  /** A file of JSON lines, or where a process's lines go. */
  readonly to: string | ((text: string) => void);
  /** Size from which a new file is begun. */
  readonly maxBytes: number;
  readonly now?: () => number;
  /** Told when entries could not be written. */
  readonly onProblem?: (error: unknown) => void;
}

const SYNC_MS = 1000;
const MAX_LINE = 64 * 1024;
const sync = promisify(fdatasync);

/** Opens the log where it ended. Throws an `Error` that can be shown when its last line is not as it was written. */
export async function openAuditLog(options: AuditLogOptions): Promise<AuditLog> {
  const { to } = options;
  if (typeof to !== 'string') return new ChainedLog({ write: to, async [Symbol.asyncDispose]() {} }, START, 0, options);
  mkdirSync(dirname(to), { recursive: true });
  const { last, torn } = await mended(to);
  return new ChainedLog(new FileSink(to, options.maxBytes), last, torn, options);
}

class ChainedLog implements AuditLog {
  readonly #sink: Sink;
  readonly #now: () => number;
  readonly #onProblem: ((error: unknown) => void) | undefined;
  #last: Link;
  #waiting: { readonly entry: AuditEntry; readonly timeMs: number; readonly done: () => void }[] = [];
  #scheduled: NodeJS.Immediate | undefined;
  #lost = 0;
  #torn: number;

  constructor(sink: Sink, last: Link, torn: number, { now = Date.now, onProblem }: AuditLogOptions) {
    this.#sink = sink;
    this.#last = last;
    this.#torn = torn;
    this.#now = now;
    this.#onProblem = onProblem;
  }

  record(entry: AuditEntry): Promise<void> {
    return new Promise((done) => {
      this.#waiting.push({ entry, timeMs: this.#now(), done });
      // All of one turn are one write.
      this.#scheduled ??= setImmediate(() => this.#flush());
    });
  }

  assertWritable(): void {
    if (this.#lost === 0) return;
    this.#flush();
    if (this.#lost === 0) return;
    throw new JobsError(
      'unavailable',
      'AUDIT_UNAVAILABLE',
      'the audit log cannot be written, and nothing is done without it; see the log',
      {
        retryAfterSeconds: 10,
      },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#flush();
    await this.#sink[Symbol.asyncDispose]();
  }

  #flush(): void {
    clearImmediate(this.#scheduled);
    this.#scheduled = undefined;
    const group = this.#waiting;
    this.#waiting = [];
    let link = this.#last;
    let text = '';
    const add = (entry: AuditEntry, timeMs: number) => {
      const next = chained(entry, new Date(timeMs), link);
      text += `${next.line}\n`;
      link = next.link;
    };
    if (this.#torn > 0) add({ action: 'audit.mended', outcome: 'ok', torn_bytes: this.#torn }, this.#now());
    if (this.#lost > 0) add({ action: 'audit.resumed', outcome: 'ok', lost: this.#lost }, this.#now());
    for (const { entry, timeMs } of group) add(entry, timeMs);
    try {
      if (text !== '') this.#sink.write(text, this.#last);
      this.#last = link;
      this.#lost = 0;
      this.#torn = 0;
    } catch (error) {
      this.#lost += group.length;
      this.#onProblem?.(error);
    }
    for (const { done } of group) done();
  }
}

class FileSink implements Sink {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #timer: NodeJS.Timeout;
  #fd: number;
  #size: number;
  /** Number before the file's first line. */
  #before: number | undefined;
  #dirty = false;
  #syncing: Promise<void> = Promise.resolve();

  constructor(path: string, maxBytes: number) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#fd = openSync(path, 'a', 0o600);
    this.#size = fstatSync(this.#fd).size;
    this.#timer = setInterval(() => void this.#sync(), SYNC_MS);
    this.#timer.unref();
  }

  write(text: string, before: Link): void {
    if (fstatSync(this.#fd).size !== this.#size) throw new Error(`${this.#path} was changed by somebody else`);
    if (this.#size >= this.#maxBytes) this.#next(before);
    const bytes = Buffer.from(text);
    let written = 0;
    try {
      while (written < bytes.length) written += writeSync(this.#fd, bytes, written);
    } catch (error) {
      // Part of a line would be the end of the chain.
      if (written > 0) ftruncateSync(this.#fd, this.#size);
      throw error;
    }
    this.#size += bytes.length;
    this.#dirty = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#sync();
    closeSync(this.#fd);
    // Whatever comes now must not go to another file of that number.
    this.#fd = -1;
  }

  #next(before: Link): void {
    const first = this.#before ?? firstSeqOf(this.#path);
    renameSync(this.#path, finishedPath(this.#path, first));
    const fd = openSync(this.#path, 'a', 0o600);
    fdatasyncSync(this.#fd);
    closeSync(this.#fd);
    this.#fd = fd;
    this.#size = 0;
    this.#before = before.seq + 1;
  }

  #sync(): Promise<void> {
    this.#syncing = this.#syncing.then(async () => {
      if (!this.#dirty) return;
      this.#dirty = false;
      // One that fails is made up for by the next.
      await sync(this.#fd).catch(() => {
        this.#dirty = true;
      });
    });
    return this.#syncing;
  }
}

/** The last link of a log; an unfinished line at its end, which nobody was told of, is taken away. */
async function mended(path: string): Promise<{ last: Link; torn: number }> {
  let torn = 0;
  for (const file of (await auditFiles(path)).reverse()) {
    const fd = openSync(file, 'r+');
    try {
      const { size } = fstatSync(fd);
      const tail = Buffer.alloc(Math.min(size, 2 * MAX_LINE));
      readSync(fd, tail, 0, tail.length, size - tail.length);
      const end = tail.lastIndexOf(10);
      const unfinished = tail.length - (end + 1);
      if (unfinished > 0) ftruncateSync(fd, size - unfinished);
      torn += unfinished;
      // Nothing whole in this one; the file before it has the last line.
      if (end < 0 && tail.length === size) continue;
      const last = readLine(tail.toString('utf8', tail.lastIndexOf(10, end - 1) + 1, end));
      if (last) return { last: { seq: last.seq, hash: last.hash }, torn };
      throw new Error(
        `the last line of the audit log ${file} is not as it was written: move the file to where you keep evidence, and start again`,
      );
    } finally {
      closeSync(fd);
    }
  }
  return { last: START, torn };
}

function firstSeqOf(path: string): number {
  const fd = openSync(path, 'r');
  try {
    const head = Buffer.alloc(64);
    const bytes = readSync(fd, head, 0, head.length, 0);
    return Number(/^\{"seq":(\d+)/.exec(head.toString('utf8', 0, bytes))?.[1] ?? 0);
  } finally {
    closeSync(fd);
  }
}
