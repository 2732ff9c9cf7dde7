// The work folders of stays. Always true here: a folder that is given out is empty but for an empty `tmp`, is one stay's alone, and has a path that
// never was another's, so that no engine's cache by path takes one job's file for another's.
//
// Folders are kept and renamed rather than removed and made again: file systems make deleting and creating inodes by the hundred a second dear (ext4
// looks through all that were freed within the last minute before it gives one out again).
import { type Dirent, existsSync, mkdirSync, readdirSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobId } from '../jobs/ports.ts';

/** Job, attempt and serial number; of one that is kept for another stay its serial number alone. */
const NAME = /^(job_[a-z0-9_]+\.\d+|spare)\.\d+$/;
/** What an engine may keep for itself while it runs. */
const SCRATCH = 'tmp';
/** A folder with more in it, or with larger files, is removed by the thread pool. */
const FEW = 32;
const SMALL_BYTES = 1 << 20;

/** Removes a folder with all that is in it. It need not be there. */
export type RemoveFolder = (path: string) => Promise<void>;

const removeByPath: RemoveFolder = (path) => rm(path, { recursive: true, force: true });

export class WorkFolders {
  readonly #root: string;
  readonly #most: number;
  readonly #removeAll: RemoveFolder;
  /** Paths of folders that nobody uses, emptied. */
  readonly #spare: string[] = [];
  #serial = 0;

  /** Takes the folder over: what an earlier service left of jobs in it is removed. Keeps at most `most` unused folders at hand. */
  static async open(root: string, most: number, removeAll: RemoveFolder = removeByPath): Promise<WorkFolders> {
    await mkdir(root, { recursive: true });
    for (const name of await readdir(root)) {
      if (NAME.test(name)) await removeAll(join(root, name));
    }
    return new WorkFolders(root, most, removeAll);
  }

  private constructor(root: string, most: number, removeAll: RemoveFolder) {
    this.#root = root;
    this.#most = most;
    this.#removeAll = removeAll;
  }

  /** A path for a stay. Nothing is there before `make`. */
  path(jobId: JobId, attempt: number): string {
    return join(this.#root, `${jobId}.${attempt}.${++this.#serial}`);
  }

  make(path: string): void {
    const spare = this.#spare.pop();
    // Where nobody has tidied up meanwhile.
    if (spare !== undefined && renamed(spare, path) && existsSync(scratchOf(path))) return;
    mkdirSync(scratchOf(path), { recursive: true });
  }

  /** The folder at `path` is nobody's any more. It need not be there. */
  async remove(path: string): Promise<void> {
    const spare = join(this.#root, `spare.${++this.#serial}`);
    if (this.#spare.length >= this.#most || !renamed(path, spare)) await this.#removeAll(path);
    else if (emptied(spare)) this.#spare.push(spare);
    else await this.#removeAll(spare);
  }

  /** Removes what is kept at hand. */
  async close(): Promise<void> {
    for (const path of this.#spare.splice(0)) await this.#removeAll(path);
  }
}

/** The folder below `path` that the engine may use as it likes. */
export function scratchOf(path: string): string {
  return join(path, SCRATCH);
}

/** Whether the folder at `from` is at `to` now. */
function renamed(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch {
    return false;
  }
}

function isScratch(entry: Dirent): boolean {
  return entry.name === SCRATCH && entry.isDirectory();
}

/** Takes out a few small files, here and now: a thread's turn for each costs ten times as much. False: there is more, and what is left is anyone's guess. */
function emptied(path: string): boolean {
  try {
    const entries = readdirSync(path, { withFileTypes: true });
    if (entries.length > FEW || !entries.some(isScratch)) return false;
    for (const entry of entries) {
      if (isScratch(entry)) continue;
      const file = join(path, entry.name);
      if (!entry.isFile() || statSync(file).size > SMALL_BYTES) return false;
      unlinkSync(file);
    }
    return readdirSync(scratchOf(path)).length === 0;
  } catch {
    return false;
  }
}
