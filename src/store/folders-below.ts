// Folders below one that the operator lists, opened one after another: no link on the way is followed, and what a path leads to later does not matter.
import { closeSync, existsSync, constants as fs, fsyncSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';

/** A file by its way from a listed folder. */
export interface FileUnder {
  readonly root: string;
  readonly folders: readonly string[];
  readonly name: string;
}

/** A folder that is open, by which its files are named. */
export class Folder implements Disposable {
  readonly fd: number;
  readonly #path: string;

  constructor(path: string, flags: number) {
    this.fd = openSync(path, fs.O_RDONLY | fs.O_DIRECTORY | flags);
    // Where the system has no such names, the path must do.
    const own = `/proc/self/fd/${this.fd}`;
    this.#path = existsSync(own) ? own : path;
  }

  at(name: string): string {
    return join(this.#path, name);
  }

  /** Opens a folder in it. */
  enter(name: string): Folder {
    return new Folder(this.at(name), fs.O_NOFOLLOW);
  }

  /** It is there then. */
  make(name: string): void {
    try {
      mkdirSync(this.at(name));
      fsyncSync(this.fd);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

/** The last of `folders` below `root`. `make`: those that are not there are made; the root never is. Throws the system's errors. */
export function openFolder(root: string, folders: readonly string[], make?: 'make'): Folder {
  let folder = new Folder(root, 0);
  for (const part of folders) {
    using outer = folder;
    if (make) outer.make(part);
    folder = outer.enter(part);
  }
  return folder;
}

/** Whether `openFolder` met a link, or a file where a folder should be. */
export function isLinkInTheWay(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ELOOP' || code === 'ENOTDIR';
}
