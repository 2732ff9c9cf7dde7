// Workers as another user than the service. Always true where this is on: a job's files are its worker's, in a folder that only it can enter; folders
// of other jobs cannot be listed, and the service's own files cannot be opened. Whoever runs as that user can still look at its other processes:
// what keeps them apart too is a container.
import { execFile } from 'node:child_process';
import { chmod, chown, copyFile, lstat, mkdir, readdir, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { JobsError } from '../jobs/errors.ts';
import type { RemoveFolder } from './folders.ts';
import type { Owner } from './process.ts';

export interface Isolation {
  readonly owner: Owner;
  /** Home folder of the workers. */
  readonly home: string;
  /** Gives a prepared work folder to the workers, with all that is in it. */
  handOver(folder: string): Promise<void>;
  /** Closes a work folder to the workers: what lies in it stays as it is, and nothing is swapped under who reads it now. */
  takeBack(folder: string): Promise<void>;
  /** Removes a work folder that was theirs. */
  readonly remove: RemoveFolder;
}

export interface Surroundings {
  /** Folders that the workers must be able to enter. The first is that of all work folders. */
  readonly reachable: readonly string[];
  readonly home: string;
  /** Files of the operator that the workers must not be able to read. They are not changed. */
  readonly secret: readonly string[];
  /** Files and folders of the service that are nobody else's. */
  readonly closed: readonly string[];
}

/** `user` is `name` or `name:group`, also by number. Throws `JobsError` with what stands in the way. */
export async function isolate(user: string, { reachable, home, secret, closed }: Surroundings): Promise<Isolation> {
  const owner = await ownerOf(user);
  const own = process.getuid?.();
  if (own !== 0 && own !== owner.uid) throw unfit(`FFJOBS_WORKER_USER is '${user}', and only root may run workers as another user`);
  for (const path of secret) await assertUnreadable(path, user, owner);
  // What is made later too.
  process.umask(process.umask() | 0o007);
  for (const path of closed) {
    // SQLite's own files lie beside the database.
    for (const one of [path, `${path}-wal`, `${path}-shm`]) await closeTo(owner, one);
  }
  const [workRoot] = reachable;
  await mkdir(workRoot!, { recursive: true });
  await chmod(workRoot!, 0o711);
  await mkdir(home, { recursive: true });
  await chown(home, owner.uid, owner.gid);
  await chmod(home, 0o700);
  for (const path of reachable) await assertReachable(path, user, owner);
  return {
    owner,
    home,
    handOver: async (folder) => {
      await giveAll(folder, owner);
    },
    takeBack: async (folder) => {
      await chown(folder, process.getuid!(), process.getgid!());
      await chmod(folder, 0o700);
    },
    // They may hold its folders open still. GNU's rm goes by descriptors; by path, a link that takes a folder's place in the right moment would have this
    // process remove what it leads to.
    remove: async (folder) => {
      await promisify(execFile)('rm', ['-rf', '--', folder]);
    },
  };
}

async function ownerOf(user: string): Promise<Owner> {
  const [name, group] = user.split(':') as [string, string | undefined];
  const ask = (flag: string) => promisify(execFile)('id', [flag, '--', name]).then(({ stdout }) => Number(stdout));
  try {
    const uid = /^\d+$/.test(name) ? Number(name) : await ask('-u');
    if (group !== undefined) return { uid, gid: /^\d+$/.test(group) ? Number(group) : await groupOf(group) };
    return { uid, gid: await ask('-g').catch((error: unknown) => (/^\d+$/.test(name) ? uid : Promise.reject(error))) };
  } catch (error) {
    throw unfit(`FFJOBS_WORKER_USER is '${user}', which this machine does not know`, error);
  }
}

async function groupOf(name: string): Promise<number> {
  const { stdout } = await promisify(execFile)('getent', ['group', name]);
  return Number(stdout.split(':')[2]);
}

async function closeTo(owner: Owner, path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found) await chmod(path, found.mode & (found.gid === owner.gid ? 0o700 : 0o770));
}

/** Whether a user may enter a folder, as its mode says; a list of further rights (ACL) is not looked at. */
async function assertReachable(path: string, user: string, owner: Owner): Promise<void> {
  for (let at = path; ; at = dirname(at)) {
    const { uid, gid, mode } = await stat(at);
    const bit = uid === owner.uid ? 0o100 : gid === owner.gid ? 0o010 : 0o001;
    if (owner.uid !== 0 && !(mode & bit))
      throw unfit(`FFJOBS_WORKER_USER is '${user}', who may not enter ${at}, and ${path} lies in it: chmod o+x ${at}`);
    if (dirname(at) === at) return;
  }
}

/** As its mode says. One that is not there is somebody else's problem. */
async function assertUnreadable(path: string, user: string, owner: Owner): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (!found) return;
  const bit = found.uid === owner.uid ? 0o400 : found.gid === owner.gid ? 0o040 : 0o004;
  if (found.mode & bit)
    throw unfit(`FFJOBS_WORKER_USER is '${user}', who could read the private key ${path}: chmod 600 ${path}, and give it to another user`);
}

/** Files first: from the moment that the folder is theirs, what lies in it is too. */
async function giveAll(folder: string, owner: Owner): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      await giveAll(path, owner);
      continue;
    }
    // A second name of a kept download would be given away with it.
    if (entry.isSymbolicLink() || (await lstat(path)).nlink > 1) {
      const copy = `${path}.own`;
      await copyFile(path, copy);
      await rename(copy, path);
    }
    await chmod(path, 0o600);
    await chown(path, owner.uid, owner.gid);
  }
  await chmod(folder, 0o700);
  await chown(folder, owner.uid, owner.gid);
}

function unfit(message: string, cause?: unknown): JobsError {
  return new JobsError('failed_precondition', 'ENGINE_CANNOT_START', message, { cause });
}
