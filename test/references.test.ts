// Media references: what may be named as input, and that nothing outside the input root is read, whatever a reference or the disk does.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { chmod, link, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { localFiles, type MediaResolver, mediaReferences } from '../src/media/references.ts';
import { follow } from './fixtures/child.ts';

const NEVER = new AbortController().signal;
const POSIX = process.platform !== 'win32';

/** `root` with a file `face.jpg`, and `outside` beside it with a secret. */
async function place(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), 'ffjobs-references-'));
  t.after(() => rm(dir, { recursive: true }));
  const [root, outside, work] = [join(dir, 'root'), join(dir, 'outside'), join(dir, 'work')];
  for (const folder of [join(root, 'sub'), outside, work]) await mkdir(folder, { recursive: true });
  await writeFile(join(root, 'face.jpg'), 'face');
  await writeFile(join(root, 'sub', 'deep.jpg'), 'deep');
  await writeFile(join(outside, 'secret.jpg'), 'secret');
  const files = localFiles(root);
  const reasonOf = async (reference: string) => (await files.check(reference, 'target_image', 'one'))?.reason;
  return { root, outside, work, files, reasonOf };
}

describe('local references', { concurrency: 4 }, () => {
  it('are paths under the root, relative or absolute', async (t) => {
    const { root, work, files } = await place(t);
    for (const [i, [reference, content]] of (
      [
        ['face.jpg', 'face'],
        ['sub/deep.jpg', 'deep'],
        ['./sub//deep.jpg', 'deep'],
        [join(root, 'sub', 'deep.jpg'), 'deep'],
      ] as const
    ).entries()) {
      assert.equal(await files.check(reference, 'field', 'one'), undefined);
      assert.equal(await files.fetch(reference, join(work, `${i}`), NEVER), undefined);
      assert.equal(await readFile(join(work, `${i}`), 'utf8'), content);
    }
  });

  it('that are wrong are refused at submit with their field, and at prepare for good', async (t) => {
    const { files, work } = await place(t);
    assert.deepEqual(await files.check('missing.jpg', 'source_images[2]', 'one'), {
      field: 'source_images[2]',
      reason: 'INPUT_NOT_FOUND',
      description: 'there is no such file under the input root',
    });
    assert.deepEqual(await files.fetch('missing.jpg', join(work, 'a'), NEVER), {
      reason: 'INPUT_NOT_FOUND',
      message: 'missing.jpg: there is no such file under the input root',
      retryable: false,
    });
    const failure = await files.fetch('../outside/secret.jpg', join(work, 'a'), NEVER);
    assert.deepEqual([failure?.reason, failure?.retryable], ['INPUT_NOT_READABLE', false]);
    assert.deepEqual(await readdir(work), []);
  });

  it('do not lead out of the root by their letters', async (t) => {
    const { root, outside, reasonOf } = await place(t);
    for (const reference of ['../outside/secret.jpg', 'sub/../../outside/secret.jpg', 'sub/../face.jpg', '..', '..\\outside\\secret.jpg']) {
      assert.equal(await reasonOf(reference), 'INVALID_PATH', reference);
    }
    for (const reference of [join(outside, 'secret.jpg'), '/etc/passwd', '/', '.', root, `${root}-other/x`, '/proc/self/environ']) {
      assert.equal(await reasonOf(reference), 'OUTSIDE_INPUT_ROOT', reference);
    }
    for (const reference of ['face.jpg\0.png', '\0', '', 'a'.repeat(5000)]) assert.equal(await reasonOf(reference), 'INVALID_PATH');
    assert.equal(await reasonOf('a'.repeat(300)), 'INVALID_PATH');
  });

  it('take percent signs, tildes and the like as plain characters', async (t) => {
    const { root, reasonOf } = await place(t);
    for (const reference of ['%2e%2e/outside/secret.jpg', '~/secret', '$HOME', 'face.jpg%00', 'face.jpg ', 'FACE.JPG/', 'face.jpg/x']) {
      assert.equal(await reasonOf(reference), 'INPUT_NOT_FOUND', reference);
    }
    await writeFile(join(root, '%2e%2e'), 'plain');
    assert.equal(await reasonOf('%2e%2e'), undefined);
  });

  it('follow links within the root and none out of it', {
    skip: POSIX ? false : 'machine: no POSIX file modes and links here',
  }, async (t) => {
    const { root, outside, work, files, reasonOf } = await place(t);
    await symlink('sub/deep.jpg', join(root, 'inner.jpg'));
    await symlink(join(outside, 'secret.jpg'), join(root, 'leak.jpg'));
    await symlink(outside, join(root, 'door'));
    await symlink('loop', join(root, 'loop'));
    await symlink('nowhere', join(root, 'dangling'));
    assert.equal(await reasonOf('inner.jpg'), undefined);
    for (const reference of ['leak.jpg', 'door/secret.jpg']) {
      assert.equal(await reasonOf(reference), 'OUTSIDE_INPUT_ROOT');
      assert.equal((await files.fetch(reference, join(work, 'x'), NEVER))?.reason, 'INPUT_NOT_READABLE');
    }
    assert.equal(await reasonOf('loop'), 'INVALID_PATH');
    assert.equal(await reasonOf('dangling'), 'INPUT_NOT_FOUND');
    assert.deepEqual(await readdir(work), []);
  });

  it('are files with one name: whose other names are nobody can tell', {
    skip: POSIX ? false : 'machine: no POSIX file modes and links here',
  }, async (t) => {
    const { root, outside, work, files, reasonOf } = await place(t);
    await link(join(outside, 'secret.jpg'), join(root, 'hard.jpg'));
    await link(join(root, 'face.jpg'), join(root, 'twin.jpg'));
    for (const reference of ['hard.jpg', 'twin.jpg', 'face.jpg']) {
      assert.equal(await reasonOf(reference), 'OUTSIDE_INPUT_ROOT', reference);
      assert.equal((await files.fetch(reference, join(work, 'x'), NEVER))?.reason, 'INPUT_NOT_READABLE');
      assert.equal(await files.held?.(reference), undefined);
    }
    await rm(join(root, 'twin.jpg'));
    assert.equal(await reasonOf('face.jpg'), undefined);
    assert.deepEqual(await readdir(work), []);
  });

  it('work when the root itself is a link', { skip: POSIX ? false : 'machine: no POSIX file modes and links here' }, async (t) => {
    const { root } = await place(t);
    await symlink(root, `${root}-link`);
    const files = localFiles(`${root}-link`);
    assert.equal(await files.check('face.jpg', 'field', 'one'), undefined);
    assert.equal(await files.check(`${root}-link/face.jpg`, 'field', 'one'), undefined);
  });

  it('are plain files with something in them', { skip: POSIX ? false : 'machine: no POSIX file modes and links here' }, async (t) => {
    const { root, reasonOf } = await place(t);
    execFileSync('mkfifo', [join(root, 'pipe')]);
    await writeFile(join(root, 'empty.jpg'), '');
    const server = createServer().listen(join(root, 'socket'));
    t.after(() => server.close());
    await new Promise((resolve) => server.once('listening', resolve));
    for (const reference of ['pipe', 'socket', 'sub']) assert.equal(await reasonOf(reference), 'NOT_A_FILE', reference);
    assert.equal(await reasonOf('empty.jpg'), 'EMPTY_FILE');
    assert.equal(
      await localFiles('/dev')
        .check('zero', 'field', 'one')
        .then((one) => one?.reason),
      'NOT_A_FILE',
    );
  });

  it('that may not be read say so', {
    skip: POSIX && process.getuid?.() !== 0 ? false : 'machine: nothing here is kept from this user',
  }, async (t) => {
    const { root, reasonOf } = await place(t);
    await chmod(join(root, 'face.jpg'), 0);
    assert.equal(await reasonOf('face.jpg'), 'INPUT_NOT_READABLE');
  });

  it('never give a file outside, however fast a link is swapped in', {
    skip: POSIX ? false : 'machine: no POSIX file modes and links here',
  }, async (t) => {
    const { root, outside, work, files } = await place(t);
    await mkdir(join(root, 'real'));
    await writeFile(join(root, 'real', 'secret.jpg'), 'harmless');
    // In a process of its own: the look is synchronous here.
    const swap = `
      const { renameSync, symlinkSync } = require('node:fs');
      const [next, door, outside] = process.argv.slice(1);
      // Ends by itself should nobody be there to end it.
      for (let i = 0, until = Date.now() + 60_000; Date.now() < until; i++) {
        symlinkSync(i % 2 === 0 ? outside : 'real', next);
        renameSync(next, door);
        if (i === 1) process.stdout.write('swapping');
      }`;
    const swapper = spawn(process.execPath, ['-e', swap, join(root, 'next'), join(root, 'door'), outside], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { said, ended } = follow(swapper);
    await said(/swapping/);
    let given = 0;
    let refused = 0;
    try {
      for (let i = 0; i < 20_000 && (given < 200 || refused < 200); i++) {
        const to = join(work, `${i}`);
        if (await files.fetch('door/secret.jpg', to, NEVER)) {
          refused++;
          continue;
        }
        given++;
        assert.equal(await readFile(to, 'utf8'), 'harmless');
      }
    } finally {
      // It is gone before the folder is.
      swapper.kill('SIGKILL');
      await ended;
    }
    assert.ok(refused > 0, 'the race was run');
    assert.ok(given > 0, 'the race was run');
  });

  it('are copied under the name given, never over another file, and nothing is left of an aborted copy', async (t) => {
    const { root, work, files } = await place(t);
    const to = join(work, 'source-0.jpg');
    await writeFile(to, 'mine');
    await assert.rejects(files.fetch('face.jpg', to, NEVER), { code: 'EEXIST' });
    assert.equal(await readFile(to, 'utf8'), 'mine');
    await assert.rejects(files.fetch('face.jpg', join(work, 'aborted'), AbortSignal.abort()), { name: 'AbortError' });
    assert.deepEqual(await readdir(work), ['source-0.jpg']);
    await files.fetch('face.jpg', join(work, 'copy'), NEVER);
    await writeFile(join(root, 'face.jpg'), 'changed');
    assert.equal(await readFile(join(work, 'copy'), 'utf8'), 'face', 'what was prepared stays as it was');
  });
});

describe('schemes of references', () => {
  const resolver = (...schemes: string[]): MediaResolver => ({
    schemes,
    check: async (reference, field) => ({ field, reason: 'SEEN', description: `${schemes[0]} ${reference}` }),
    fetch: async () => undefined,
  });

  it('lead to their resolver, in any case of letters', async () => {
    const references = mediaReferences([resolver('file'), resolver('http', 'https'), resolver('upload')]);
    assert.deepEqual(references.schemes, ['file', 'http', 'https', 'upload']);
    const seen = async (reference: string) => (await references.check(reference, 'field', 'one'))?.description;
    assert.equal(await seen('a/b.jpg'), 'file a/b.jpg');
    assert.equal(await seen('HTTPS://host/b.jpg'), 'http HTTPS://host/b.jpg');
    assert.equal(await seen('upload://id'), 'upload upload://id');
    assert.equal(await seen('C:\\b.jpg'), 'file C:\\b.jpg');
  });

  it('that are not taken are refused by name, with those that are', async () => {
    const references = mediaReferences([resolver('file'), resolver('upload')]);
    assert.deepEqual(await references.check('s3://bucket/key', 'target_video', 'one'), {
      field: 'target_video',
      reason: 'UNSUPPORTED_SCHEME',
      description: 's3:// is not taken here; taken: a path under the input root, upload://',
    });
    assert.match((await references.check('file:///etc/passwd', 'field', 'one'))!.description, /without file:/);
    const failure = await references.fetch('s3://bucket/key', '/nowhere', NEVER);
    assert.deepEqual([failure?.reason, failure?.retryable], ['INPUT_NOT_READABLE', false]);
    assert.match((await mediaReferences([resolver('upload')]).check('a.jpg', 'field', 'one'))!.description, /local paths are not taken/);
  });

  it('have one resolver each', () => {
    assert.throws(() => mediaReferences([resolver('file'), resolver('file')]), /two resolvers for the scheme 'file'/);
  });
});
