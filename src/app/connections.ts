// How many connections the port may have open. Always true: where they take all the files that this process may open, its jobs can still open theirs.
import { readFileSync } from 'node:fs';

/** Files that are no connections: inputs, results, stores, pipes of workers. */
const OTHER_FILES = 1000;
/** A port that takes fewer serves nobody. */
const LEAST = 16;

/** At most `wanted`; `files`: how many this process may have open, undefined: any number. */
export function connectionsWithin(wanted: number, files: number | undefined): number {
  const room = files === undefined ? wanted : Math.max(LEAST, files - Math.min(OTHER_FILES, files / 2));
  return Math.min(wanted, room);
}

/** Of this process; undefined where the system does not say, or sets none. Node raises its own limit to the hard one as it starts. */
export function openFilesLimit(): number | undefined {
  try {
    const limit = /^Max open files\s+(\d+)\s/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return limit === undefined ? undefined : Number(limit);
  } catch {
    return undefined;
  }
}
