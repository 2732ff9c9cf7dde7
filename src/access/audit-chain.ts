// The form of the audit log: JSON lines, each with its number, the hash of the line before and its own. Always true: a line that was changed, put in,
// taken out or moved makes `verifyAudit` say where; what was cut off at the end it can tell only from a hash that was noted elsewhere.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { AuditEntry } from '../jobs/guard.ts';

export interface Link {
  readonly seq: number;
  readonly hash: string;
}

/** Before the first line. */
export const START: Link = { seq: 0, hash: '0'.repeat(64) };

/** The line of an entry, without its end, and the link to the next one. */
export function chained(entry: AuditEntry, time: Date, before: Link): { readonly line: string; readonly link: Link } {
  const seq = before.seq + 1;
  const open = JSON.stringify({ seq, time: time.toISOString(), ...entry, prev: before.hash }).slice(0, -1);
  const hash = digest(`${open}}`);
  return { line: `${open},"hash":"${hash}"}`, link: { seq, hash } };
}

/** What a line says of itself; undefined: it is no line of an audit log, or not as it was written. */
export function readLine(line: string): (Link & { readonly prev: string }) | undefined {
  const [, open, hash] = /^(\{.*),"hash":"([0-9a-f]{64})"\}$/s.exec(line) ?? [];
  if (open === undefined || digest(`${open}}`) !== hash) return undefined;
  try {
    const { seq, prev } = JSON.parse(`${open}}`) as { seq?: unknown; prev?: unknown };
    return typeof seq === 'number' && typeof prev === 'string' ? { seq, prev, hash } : undefined;
  } catch {
    return undefined;
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** The finished files of a log and the one that is written, oldest first. */
export async function auditFiles(path: string): Promise<string[]> {
  const name = basename(path);
  const all = await readdir(dirname(path));
  const stem = name.replace(/\.jsonl$/, '');
  const finished = all.filter((one) => one.startsWith(`${stem}.`) && /^\d{12}\.jsonl$/.test(one.slice(stem.length + 1))).sort();
  return [...finished, ...(all.includes(name) ? [name] : [])].map((one) => join(dirname(path), one));
}

/** Where the lines from `firstSeq` on are kept once their file is full. */
export function finishedPath(path: string, firstSeq: number): string {
  return join(dirname(path), `${basename(path).replace(/\.jsonl$/, '')}.${String(firstSeq).padStart(12, '0')}.jsonl`);
}

export interface AuditReport {
  readonly files: number;
  readonly lines: number;
  readonly first: Link | undefined;
  readonly last: Link | undefined;
  /** Bytes after the last whole line: the writer was killed, or is writing. */
  readonly tornBytes: number;
  /** The noted hash was found. */
  readonly noted: boolean;
  /** The first thing that is wrong. */
  readonly problem: string | undefined;
}

/** Reads a log from its first kept line to its last. `noted`: a hash that was written down elsewhere, which must be in it. */
export async function verifyAudit(path: string, noted?: string): Promise<AuditReport> {
  const files = await auditFiles(path);
  let lines = 0;
  let first: Link | undefined;
  let last: Link | undefined;
  let tornBytes = 0;
  let found = noted === undefined || noted === START.hash;
  const report = (problem?: string): AuditReport => ({ files: files.length, lines, first, last, tornBytes, noted: found, problem });
  if (files.length === 0) return report(`there is no ${path}`);
  for (const file of files) {
    let number = 0;
    if (tornBytes > 0) return report(`${file}: the file before it ends within a line`);
    for await (const line of linesOf(file)) {
      if (typeof line === 'number') {
        tornBytes = line;
        continue;
      }
      number++;
      const read = readLine(line);
      const where = `${file}, line ${number}`;
      if (!read) return report(`${where}: this line is not as it was written`);
      if (last && read.seq !== last.seq + 1) return report(`${where}: number ${read.seq} follows ${last.seq}: lines are missing or moved`);
      if (read.prev !== (last ?? (read.seq === 1 ? START : { hash: read.prev })).hash)
        return report(`${where}: it does not follow the line before it`);
      last = { seq: read.seq, hash: read.hash };
      first ??= last;
      lines++;
      found ||= read.hash === noted;
    }
  }
  return report(found ? undefined : `the line with the hash ${noted} is not in it: the log was cut off or replaced`);
}

/** Whole lines, then the number of bytes that follow the last one, if any. */
async function* linesOf(file: string): AsyncGenerator<string | number> {
  let rest = Buffer.alloc(0);
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      yield Buffer.concat([rest, chunk.subarray(from, end)]).toString('utf8');
      rest = Buffer.alloc(0);
      from = end + 1;
    }
    rest = Buffer.concat([rest, chunk.subarray(from)]);
  }
  if (rest.length > 0) yield rest.length;
}
