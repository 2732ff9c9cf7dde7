// Copies to the operator's folders that are on their way, so that what a killed process left half is found again. Always true here: a copy is written down
// before its file is made, under a name that no other copy has, on this node or another; and only a file of such a name is removed.
import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type FileUnder, isLinkInTheWay, openFolder } from './folders-below.ts';

/** What is in the way of one that could not be removed; it is tried again at the next start. */
export type LeftOver = (file: FileUnder, error: unknown) => void;

export class CopiesUnderWay {
  readonly #dir: string;

  /** `dir`: where they are written down, one process's alone. */
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Removes what an earlier process left. Before any copy begins. */
  async clear(leftOver: LeftOver): Promise<void> {
    for (const jobId of await readdir(this.#dir).catch(() => [])) await this.#clear(jobId, leftOver);
  }

  /** `file` is about to be made. An earlier copy of that job has no taker: what is left of it is removed. Answers what is called when `file` is gone. */
  async begin(jobId: string, file: FileUnder): Promise<() => Promise<void>> {
    await this.#clear(jobId, () => {});
    await mkdir(this.#dir, { recursive: true });
    const path = join(this.#dir, jobId);
    await using entry = await open(path, 'w');
    await entry.writeFile(JSON.stringify(file));
    await entry.sync();
    return () => rm(path, { force: true });
  }

  async #clear(jobId: string, leftOver: LeftOver): Promise<void> {
    const path = join(this.#dir, jobId);
    const file = fileIn(await readFile(path, 'utf8').catch(() => ''));
    try {
      if (file) await removeFile(file);
    } catch (error) {
      // Its disk is away, or not ours to write to for now.
      return leftOver(file!, error);
    }
    await rm(path, { force: true });
  }
}

/** Undefined: whoever wrote it was killed before its file was made. */
function fileIn(text: string): FileUnder | undefined {
  try {
    return JSON.parse(text) as FileUnder;
  } catch {
    return undefined;
  }
}

/** Throws where nobody can say whether it is there. */
async function removeFile({ root, folders, name }: FileUnder): Promise<void> {
  using top = openFolder(root, []);
  try {
    using folder = openFolder(top.at('.'), folders);
    await rm(folder.at(name), { force: true });
  } catch (error) {
    // The caller has moved or replaced the folder since.
    if (!isLinkInTheWay(error) && (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
