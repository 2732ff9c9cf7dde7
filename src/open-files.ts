// How many files this process may have open, connections among them. Node raises its own limit to the hard one as it starts.
import { readFileSync } from 'node:fs';

/** Undefined where the system does not say, or sets none. */
export function openFilesLimit(): number | undefined {
  try {
    const limit = /^Max open files\s+(\d+)\s/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return limit === undefined ? undefined : Number(limit);
  } catch {
    return undefined;
  }
}
