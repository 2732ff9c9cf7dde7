// Workers as another user than the service: only root can do that, so elsewhere there is nothing to see.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { isolate } from '../src/gpu/isolation.ts';
import { openRig, workerOptions } from './fixtures/gpu/rig.ts';

const root = process.getuid?.() === 0;
const OTHER = 'nobody';
const PATH = '/usr/local/bin:/usr/bin:/bin';
const skip = root ? noPython() : 'machine: only root may run workers as another user';

function noPython(): string | false {
  try {
    execFileSync('python3', ['-c', ''], { uid: uidOf(OTHER), env: { PATH }, stdio: 'ignore' });
    return false;
  } catch {
    return `machine: there is no Python that the user ${OTHER} may run`;
  }
}

function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ffjobs-isolation-'));
  chmodSync(folder, 0o711);
  return work(folder).finally(() => rmSync(folder, { recursive: true, force: true }));
}

function uidOf(name: string): number {
  return Number(execFileSync('id', ['-u', name], { encoding: 'utf8' }));
}

describe('workers as another user', { skip }, () => {
  test('run as that user, in a folder that is theirs alone, and cannot open what is the service’s', () =>
    inFolder(async (folder) => {
      const secret = join(folder, 'jobs.db');
      writeFileSync(secret, 'secret');
      const kept = join(folder, 'kept.bin');
      writeFileSync(kept, 'download');
      const workRoot = join(folder, 'work');
      const isolation = await isolate(OTHER, {
        reachable: [workRoot],
        home: join(folder, 'home'),
        secret: [],
        closed: [secret, join(folder, 'none')],
      });
      assert.equal(statSync(secret).mode & 0o007, 0);
      const uid = uidOf(OTHER);
      assert.deepEqual(isolation.owner.uid, uid);
      let seen = '';
      // Where the interpreter of this machine and the repository lie, that user may not go.
      const program = join(folder, 'fake_worker.py');
      copyFileSync(join(import.meta.dirname, 'fixtures', 'gpu', 'fake_worker.py'), program);
      await using rig = await openRig({
        workRoot,
        worker: {
          ...workerOptions(),
          args: ['-S', program],
          command: 'python3',
          owner: isolation.owner,
          environment: { PATH, HOME: isolation.home },
        },
        handOver: isolation.handOver,
        removeFolder: isolation.remove,
        prepare: async (job, at) => {
          seen = at;
          linkSync(kept, join(at, 'target.png'));
          return { targetPath: join(at, 'target.png'), outputFormat: 'png', parameters: job.request!.parameters! };
        },
        storeResult: async (path) => {
          assert.equal(statSync(path).uid, uid);
          assert.equal(readFileSync(path, 'utf8'), `${uid} download ${isolation.home} secret: PermissionError list: PermissionError`);
          assert.equal(statSync(seen).mode & 0o777, 0o700);
          // Once it is read on, they can swap nothing in it.
          const asThem = (...command: [string, ...string[]]) => execFileSync(command[0], command.slice(1), { uid, stdio: 'ignore' });
          asThem('mv', path, `${path}.x`);
          asThem('mv', `${path}.x`, path);
          asThem('chmod', '777', seen);
          await isolation.takeBack(seen);
          assert.throws(() => asThem('mv', path, `${path}.x`), /Command failed/);
          assert.throws(() => asThem('chmod', '777', seen), /Command failed/);
          assert.deepEqual([statSync(seen).uid, statSync(seen).mode & 0o777], [0, 0o700]);
          return {
            $typeName: 'facefusion.jobs.v1.MediaResult',
            mediaType: 'image/png',
            bytes: 1n,
            sha256: 'f'.repeat(64),
            width: 1,
            height: 1,
            frames: 1,
            durationSeconds: 0,
          };
        },
      });
      rig.store.submit({ id: 'job_1', do: [['who_am_i', [secret, workRoot]]] });
      await rig.store.until(() => rig.store.history.length === 1);
      assert.deepEqual(rig.store.history, ['job_1: complete']);
      assert.equal(statSync(kept).uid, 0, 'a kept download is not given away');
      await rig.scheduler.drain(0);
      assert.ok(!existsSync(seen));

      // What they left may lead anywhere; what it leads to stays.
      const left = join(workRoot, 'left');
      mkdirSync(join(left, 'tmp', 'deep'), { recursive: true });
      symlinkSync(kept, join(left, 'tmp', 'deep', 'file'));
      symlinkSync(folder, join(left, 'tmp', 'folder'));
      await isolation.remove(left);
      await isolation.remove(left);
      assert.ok(!existsSync(left) && existsSync(kept) && existsSync(secret));
    }));

  test('a folder that they cannot enter, and a user that is not there, are told', () =>
    inFolder(async (folder) => {
      mkdirSync(join(folder, 'closed', 'work'), { recursive: true });
      chmodSync(join(folder, 'closed'), 0o700);
      const reach = (user: string) =>
        isolate(user, { reachable: [join(folder, 'closed', 'work')], home: join(folder, 'home'), secret: [], closed: [] });
      await assert.rejects(reach(OTHER), /may not enter .*closed, and .*closed\/work lies in it: chmod o\+x/);
      const key = join(folder, 'key.pem');
      writeFileSync(key, '');
      chmodSync(key, 0o644);
      const withKey = () => isolate(OTHER, { reachable: [folder], home: join(folder, 'home'), secret: [key], closed: [] });
      await assert.rejects(withKey(), /who could read the private key .*key.pem: chmod 600/);
      chmodSync(key, 0o600);
      await withKey();
      await assert.rejects(reach('no-such-user-here'), /FFJOBS_WORKER_USER is 'no-such-user-here', which this machine does not know/);
      await assert.rejects(reach(`${OTHER}:no-such-group-here`), /does not know/);
      assert.deepEqual((await isolate('12345:54321', { reachable: [folder], home: join(folder, 'home'), secret: [], closed: [] })).owner, {
        uid: 12345,
        gid: 54321,
      });
    }));
});

test('without root it is refused in words', { skip: root ? 'machine: this is root' : false }, () =>
  inFolder(async (folder) => {
    await assert.rejects(
      isolate(OTHER, { reachable: [folder], home: folder, secret: [], closed: [] }),
      /only root may run workers as another user/,
    );
  }),
);
